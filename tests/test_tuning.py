"""Search for a composite: scores, derivatives, the split, resuming, and code to paste."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

import jaxlrp as lrp
from jaxlrp import composites, dataset, metrics, rules, tuning
from jaxlrp.cli import main
from jaxlrp.composites import by_depth, by_kind
from jaxlrp.tuning import running
from jaxlrp.tuning.data import as_data
from test_dataset import Tiny

from numeric import close


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="lower", param_dtype=x.dtype)(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="upper", param_dtype=x.dtype)(x))
        return nn.Dense(3, param_dtype=x.dtype)(x.reshape(len(x), -1))


NET = Net()
RANGE = tuning.Range(0.01, 10.0)


def layered(lower, upper, head):
    convolutions = by_depth(0, 1, by_kind("conv", lrp.Gamma(lower))) + by_kind(
        "conv", lrp.Gamma(upper)
    )
    return convolutions + by_kind("dense", lrp.Gamma(head))


FAMILY = tuning.family(layered, lower=RANGE, upper=RANGE, head=RANGE)
ONE = tuning.family(lambda gamma: by_kind(("conv", "dense"), lrp.Gamma(gamma)), gamma=RANGE)
CORRELATION = metrics.FaithfulnessCorrelation(size=8, runs=40)


def problem(n=12, dtype="float32"):
    x = np.random.default_rng(0).normal(size=(n, 6, 6, 1)).astype(dtype)
    variables = NET.init(jax.random.key(1), x[:1])
    return x, np.asarray(NET.apply(variables, x).argmax(-1)), variables


X, Y, VARIABLES = problem()
KEY = jax.random.key(0)


def searched(candidates=None, metric=CORRELATION, data=(X, Y), **options):
    options = {"args": (VARIABLES,), "key": KEY, "batch_size": 4, **options}
    return tuning.search(NET.apply, candidates or {"one": ONE}, metric, data, **options)


def test_scores_are_those_of_explain_and_the_metric():
    """Six samples in batches of four, candidates three at once: padding counts nowhere."""
    found = searched(
        {"one": ONE, "z+": lrp.ZPlus()}, [metrics.PixelFlipping(), metrics.Sparseness()], at_once=3
    )
    assert [c.label for c in found.candidates[:2]] == ["one (gamma=0.01)", "one (gamma=0.0562)"]
    assert len(found.candidates) == 6
    assert (found.selecting, found.reporting) == (6, 6)
    for one in found.candidates:
        a = lrp.explain(NET.apply, one.composite, argnums=1)(VARIABLES, X, target=Y).relevance
        for part, held in ((slice(6), one.scores), (slice(6, 12), one.held_out)):
            if held is not None:
                flipped = metrics.PixelFlipping()(
                    lambda x: NET.apply(VARIABLES, x), X[part], a[part], Y[part]
                )
                # float32, orders of sums differ
                np.testing.assert_allclose(held["PixelFlipping"], flipped, rtol=1e-4, atol=1e-5)
                sparse = metrics.Sparseness()(a[part])
                np.testing.assert_allclose(held["Sparseness"], sparse, rtol=1e-4)
    reported = [c for c in found.candidates if c.held_out is not None]
    assert [c.family for c in reported] == ["one", "z+"]
    means = [c.scores["PixelFlipping"].mean() for c in found.candidates]
    assert found.best is found.candidates[int(np.argmax(means))]
    assert found.best in reported


@pytest.mark.parametrize("method", [tuning.Grid(3), tuning.Gradient(2)], ids=["grid", "gradient"])
def test_candidates_share_what_the_model_says_of_changed_inputs(monkeypatch, tmp_path, method):
    """Batches of 7 changed inputs, which no explanation has: 4 x 40 of each batch, two for each part."""
    calls = []

    def counting(variables, x):
        if len(x) == 7:
            jax.debug.callback(lambda: calls.append(1))
        return NET.apply(variables, x)

    def run(**options):
        calls.clear()
        found = tuning.search(
            counting, {"one": ONE, "z+": lrp.ZPlus()},
            metrics.FaithfulnessCorrelation(size=8, runs=40, batch_size=7), (X, Y),
            args=(VARIABLES,), key=KEY, batch_size=4, at_once=2, method=method, **options,
        )  # fmt: skip
        jax.effects_barrier()
        return found, len(calls)

    once = 2 * 2 * math.ceil(4 * 40 / 7)
    shared, count = run(output=tmp_path / "s")
    assert count == once
    assert run(output=tmp_path / "s")[1] == 0  # nothing is prepared if nothing is left to score
    monkeypatch.setattr(metrics.FaithfulnessCorrelation, "prepares", False)
    alone, count = run()
    assert count > 1.4 * once  # callbacks inside of a derivative do not all run
    for a, b in zip(shared.candidates, alone.candidates, strict=True):
        assert (a.held_out is None) == (b.held_out is None)
        for part in ("scores", "held_out") if a.held_out else ("scores",):
            close(*(getattr(c, part)["FaithfulnessCorrelation"] for c in (a, b)), 1e-5)  # float32


def test_random_numbers_of_a_sample_do_not_depend_on_batches():
    three, four = (searched(batch_size=b, at_once=1, method=tuning.Grid(1)) for b in (3, 4))
    for part in ("scores", "held_out"):
        a, b = (getattr(s.best, part)["FaithfulnessCorrelation"] for s in (three, four))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # float32


def test_one_program_for_a_family(monkeypatch):
    kept = []
    of = running.Programs.scores
    monkeypatch.setattr(
        running.Programs, "scores", lambda self, *a: kept.append(self) or of(self, *a)
    )
    found = searched({"layered": FAMILY}, method=tuning.Grid(3), at_once=5)
    assert len(found.candidates) == 27
    assert len(kept) == 7  # six groups of five, and the report
    (programs,) = set(kept)
    assert programs._many._cache_size() == 1
    assert programs._one._cache_size() == 0


@pytest.mark.usefixtures("x64")
def test_derivatives_equal_finite_differences():
    """Float64: central differences of a smooth function, 1e-6 of the largest."""
    x, y, variables = problem(6, "float64")
    options = {"args": (variables,), "held_out": 0, "batch_size": 4}
    values = {"lower": 0.3, "upper": 0.05, "head": 1.0}
    run = []

    def look(self, name, at, slopes):
        run.append((self, slopes))
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.Run, "_useful", look)
        around = {n: tuning.Range(v / 10, v * 10) for n, v in values.items()}
        searched(
            {"f": tuning.family(layered, **around)},
            data=(x, y),
            method=tuning.Gradient(1),
            **options,
        )
    ((held, slopes),) = run

    def mean(changed):
        (found,) = held.programs["f"].scores([{**values, **changed}], as_data((x, y)))
        return found["FaithfulnessCorrelation"].mean()

    step = 1e-5
    differences = [
        (mean({n: v + step}) - mean({n: v - step})) / (2 * step) for n, v in values.items()
    ]
    close([slopes[n] for n in values], differences, 1e-6)
    assert min(map(abs, differences)) > 1e-4


def test_gradient_reaches_the_best_of_the_grid():
    """A quarter of the grid's evaluations, within 2 % of its best; the lower the better, too."""
    grid = searched({"layered": FAMILY}, method=tuning.Grid(4))
    ascent = searched({"layered": FAMILY}, method=tuning.Gradient(10))
    best, reached = (s.best.scores["FaithfulnessCorrelation"].mean() for s in (grid, ascent))
    first = ascent.candidates[0].scores["FaithfulnessCorrelation"].mean()
    assert len(ascent.candidates) <= len(grid.candidates) / 4
    assert reached > best - 0.02 * abs(best)
    assert reached > first + 0.01  # it had a way to go
    lower = searched(metric=metrics.Infidelity(), method=tuning.Gradient(3))
    losses = [c.scores["Infidelity"].mean() for c in lower.candidates]
    assert min(losses[1:]) < losses[0]


def test_a_family_that_explodes_ends_no_search(monkeypatch, caplog):
    of = running.Programs.slopes

    def slopes(self, values, data):
        scores, found = of(self, values, data)
        return scores, {n: np.nan if values[n] < 0.3 else s for n, s in found.items()}

    monkeypatch.setattr(running.Programs, "slopes", slopes)
    low = tuning.family(
        lambda gamma: by_kind("conv", lrp.Gamma(gamma)), gamma=tuning.Range(0.1, 0.2)
    )
    found = searched({"low": low, "one": ONE}, method=tuning.Gradient(2))
    assert [c.family for c in found.candidates] == ["low", "one", "one"]
    assert "is not finite in family 'low' with gamma=0.141: no more of this family" in caplog.text


def test_an_interrupted_search_continues(tmp_path, monkeypatch):
    sparse = metrics.Sparseness()
    whole = searched(metric=sparse, method=tuning.Grid(5), at_once=2)
    of, calls = running.Programs.scores, []

    def stops(self, values, data):
        calls.append(len(values))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return of(self, values, data)

    monkeypatch.setattr(running.Programs, "scores", stops)
    again = {"metric": sparse, "method": tuning.Grid(5), "at_once": 2, "output": tmp_path / "s"}
    with pytest.raises(KeyboardInterrupt):
        searched(**again)
    with (tmp_path / "s" / "candidates.jsonl").open("ab") as file:
        file.write(b'deadbeef {"cut')  # a line that a kill cut off
    found = searched(**again)
    assert calls == [2, 2, 2, 1, 1]  # of five two were known; then the report
    for a, b in zip(whole.candidates, found.candidates, strict=True):
        np.testing.assert_array_equal(*(c.scores["Sparseness"] for c in (a, b)))
    assert str(searched(**again)) == str(found)
    assert len(calls) == 5
    more = searched(
        {"one": ONE, "z+": lrp.ZPlus()}, **{**again, "metric": [metrics.Complexity(), sparse]}
    )
    assert len(more.candidates) == 6
    changed = {**VARIABLES, "params": jax.tree.map(lambda a: a + 1, VARIABLES["params"])}
    for name, other in {
        "data": {"data": (X + 1, Y)},
        "parameters": {"args": (changed,)},
        "key": {"key": jax.random.key(1)},
        "held_out": {"held_out": 0.25},
    }.items():
        with pytest.raises(dataset.DifferentRunError, match=f"other {name}: choose another"):
            searched(**{**again, **other})
    (tmp_path / "s" / "search.json").write_text("{")
    with pytest.raises(dataset.StoreError, match="damaged"):
        searched(**again)


def test_pareto_front():
    found = searched({"one": ONE, "two": FAMILY}, [metrics.Sparseness(), metrics.Complexity()],
                     method=tuning.Grid(2))  # fmt: skip
    points = [
        (c.scores["Sparseness"].mean(), -c.scores["Complexity"].mean()) for c in found.candidates
    ]

    def dominated(p):
        return any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)

    expected = [c.label for c, p in zip(found.candidates, points, strict=True) if not dominated(p)]
    assert [c.label for c in found.front] == expected
    assert 0 < len(expected) < len(points)


def test_a_candidate_without_a_score_is_not_chosen():
    """Leaving out the samples where it fails would flatter it."""
    scores = [[0.9, np.nan, 0.9, np.nan], [0.5, 0.1, 0.5, np.nan]]
    held = [tuning.Candidate(n, {}, composites.default(), {"m": np.array(s)})
            for n, s in zip("ab", scores, strict=True)]  # fmt: skip
    found = tuning.Search(tuple(held), {"m": metrics.Sparseness()}, "m", 4, 0)
    assert found.best.family == "b"
    assert [c.family for c in found.front] == ["b"]
    nothing = tuning.Candidate("c", {}, composites.default(), {"m": np.full(4, np.nan)})
    found = tuning.Search((*held, nothing), {"m": metrics.Sparseness()}, "m", 4, 0)
    assert "| c | undefined |" in str(found)
    with pytest.raises(ValueError, match="undefined for every sample"):
        _ = tuning.Search((nothing,), {"m": metrics.Sparseness()}, "m", 4, 0).best


def test_code_of_the_best_explains_alike(tmp_path):
    found = searched(method=tuning.Random(3))
    assert len({c.values["gamma"] for c in found.candidates}) == 3
    found.save(tmp_path / "best.py")
    space = {}
    exec((tmp_path / "best.py").read_text(), space)
    a, b = (
        lrp.explain(NET.apply, c, argnums=1)(VARIABLES, X, target=Y).relevance
        for c in (found.best.composite, space["composite"])
    )
    np.testing.assert_array_equal(a, b)
    assert (tmp_path / "best.py").read_text().startswith("# 3 candidates; FaithfulnessCorrelation")


def test_families_fit_the_architecture():
    """All members of the suggested families run; which families depends on the layers."""
    plan = lrp.plan(NET.apply, None, VARIABLES, X[:1], argnums=1)
    suggested = tuning.suggest(plan, -3.0, 3.0)
    assert {"gamma", "two gammas", "epsilon_gamma_box"} <= set(suggested)
    found = searched(suggested, metrics.Sparseness(), method=tuning.Grid(1))
    assert all(np.isfinite(c.scores["Sparseness"]).all() for c in found.candidates)
    assert len(found.candidates) == len(suggested)

    def attention(x):
        return jax.nn.softmax(x @ jnp.swapaxes(x, 1, 2)) @ x @ jnp.ones((3, 2))

    def cell(x):
        def step(h, x):
            h = jax.nn.sigmoid(x @ jnp.ones((3, 2))) * jnp.tanh(h + x @ jnp.ones((3, 2)))
            return h, None

        return jax.lax.scan(step, jnp.zeros((len(x), 2)), jnp.swapaxes(x, 0, 1))[0]

    x = np.ones((2, 4, 3), "float32")
    for fun, expected in ((attention, "cp_lrp, gamma"), (cell, "gates half")):
        suggested = tuning.suggest(lrp.plan(fun, None, x))
        assert expected in suggested
        for held in suggested.values():
            if isinstance(held, tuning.Family):
                lrp.plan(fun, held({n: r.at(0.5) for n, r in held.ranges.items()}), x)


RNG = np.random.default_rng(3)
STEM, STEP, OUT = (jnp.asarray(RNG.normal(size=s), "float32") for s in ((4, 6), (6, 6), (6, 3)))
SHIFT, FACTOR = jnp.asarray(RNG.uniform(0.5, 2, size=(2, 6)), "float32")


def residual(x):
    """BatchNorm after a dense layer with a bias, one that nothing absorbs, and a residual sum."""
    h = jax.nn.relu((x @ STEM + 0.3 - SHIFT) * FACTOR + SHIFT)
    h = h * FACTOR - SHIFT
    return (h + jax.nn.relu(h @ STEP + 0.2)) @ OUT


def test_canonized_crosses_families_with_what_a_layer_is(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    y = np.zeros(8, int)
    plan = lrp.plan(residual, None, x)
    assert [row.kind for row in plan.rows].count("scale") == 1
    family = tuning.family(lambda gamma: by_kind("dense", lrp.Gamma(gamma)), gamma=RANGE)
    crossed = tuning.canonized(
        {"gamma": family, "gradient": "gradient"}, plan, biases=("given", "zero")
    )
    assert len(crossed) == 3 * 2 * 3 + 1  # gradients are no relevance
    gamma, above = lrp.Gamma(0.5), by_kind("scale", lrp.LRP0())
    by_hand = {
        "gamma": by_kind("dense", gamma),
        "gamma, BatchNorm passes": by_kind("dense", rules.Unfolded(gamma)),
        "gamma, sums by magnitude": by_kind("sum", rules.Magnitude()) + by_kind("dense", gamma),
        "gamma, BatchNorm shares, no biases, sums by epsilon": above
        + by_kind("sum", lrp.Norm(tuning.relative(0.2)))
        + by_kind("dense", lrp.Gamma(0.5, bias="zero")),
        "gamma, BatchNorm passes, no biases": by_kind(
            "dense", rules.Unfolded(lrp.Gamma(0.5, bias="zero"))
        ),
    }
    maps = {}
    for name, expected in by_hand.items():
        values = {"gamma": 0.5, "sum_epsilon": 0.2}
        made = crossed[name]({n: values[n] for n in crossed[name].ranges})
        space = {}
        exec(composites.code(made), space)
        for held in (made, space["composite"]):
            maps[name] = lrp.explain(residual, held)(x, target=0).relevance
            close(maps[name], lrp.explain(residual, expected)(x, target=0).relevance, 1e-6)
    for a, b in itertools.combinations(maps, 2):
        assert abs(maps[a] - maps[b]).max() > 1e-3, (a, b)
    few = tuning.canonized({"gamma": family}, plan, norms=("given", "pass"), sums=("epsilon",))
    found = tuning.search(
        residual, few, metrics.FaithfulnessCorrelation(size=2, runs=10), (x, y), key=KEY,
        method=tuning.Gradient(2), output=tmp_path,
    )  # fmt: skip
    names = ["gamma, sums by epsilon", "gamma, BatchNorm passes, sums by epsilon"]
    assert [c.family for c in found.candidates] == [n for n in names for _ in range(2)]
    assert len({c.values["sum_epsilon"] for c in found.candidates}) == 2  # it follows a derivative
    assert "Unfolded" in composites.code(found.candidates[-1].composite)


def test_canonized_leaves_out_what_changes_nothing():
    """A network without BatchNorm or sums; rules that a composite leaves to the default; other kinds."""
    plan = lrp.plan(NET.apply, None, VARIABLES, X[:1], argnums=1)
    assert list(tuning.canonized({"a": "default"}, plan)) == ["a"]
    assert len(tuning.canonized({"a": "default"})) == 9
    some = tuning.canonized(
        {"default": "default", "mine": lambda layer: lrp.Epsilon() if layer.last else None,
         "all": composites.where(everything, lrp.Epsilon())}, plan, biases=("zero",), sums=("magnitude",),
    )  # fmt: skip
    assert list(some) == ["default, no biases", "mine, no biases", "all, no biases"]
    for made in some.values():
        held = lrp.plan(NET.apply, made({}), VARIABLES, X[:1], argnums=1).rules
        assert [r.bias for r in held if hasattr(r, "bias")] == ["zero"] * 3
    scaled = tuning.canonized({"all": composites.where(everything, lrp.Epsilon())}, norms=("pass",),
                              sums=("given",))  # fmt: skip
    kinds = [
        type(r).__name__ for r in lrp.plan(residual, scaled.popitem()[1]({}), np.ones((1, 4))).rules
    ]
    assert kinds.count("Unfolded") == 3
    assert kinds.count("Epsilon") == 1  # of the scale


def everything(layer):
    return True


BAD_CANONIZATION = {
    "norms must be a sequence": {"norms": "pass"},
    "norms must be one of 'given', 'pass', 'share', got 'fold'": {"norms": ("fold",)},
    "sums must have at least one": {"sums": ()},
    "plan must be the result": {"plan": "plan"},
    "already have the name 'a, no biases'": {"biases": ("given", "zero")},
    "hyperparameter 'sum_epsilon' already": {},
}


@pytest.mark.parametrize("message", BAD_CANONIZATION)
def test_bad_canonization(message):
    own = tuning.family(lambda sum_epsilon: lrp.Epsilon(sum_epsilon), sum_epsilon=RANGE)
    candidates = (
        {"a": "default", "a, no biases": "default"} if "no biases" in message else {"a": own}
    )
    with pytest.raises((TypeError, ValueError), match=message):
        tuning.canonized(candidates, **BAD_CANONIZATION[message])


BAD = {
    "candidates is empty": {"candidates": {}},
    "candidates must be a dictionary": {"candidates": "default"},
    r"candidates\['a'\]: there is no preset": {"candidates": {"a": "defualt"}},
    r"candidates\['a'\] cannot be computed": {
        "candidates": {"a": by_kind("conv", lrp.Gamma(jnp.ones((7, 7))))},
    },
    "method must be": {"method": "grid"},
    "objective must be one of": {"objective": "x"},
    "held_out must be a share": {"held_out": 1},
    "does not divide into two": {"held_out": 0.01},
    "draws random numbers: pass key": {"key": None},
    "method Random draws": {"key": None, "method": tuning.Random(2), "metric": metrics.Sparseness()},
    "needs masks": {"metric": metrics.RelevanceMass()},
    "changes the parameters": {"metric": metrics.MPRT(model=NET)},
    "data must be": {"data": X},
    "must have 12 samples": {"data": (X, Y[:3])},
    "targets must be one class": {"data": (X, X)},
    "batch_size must be": {"batch_size": 0},
    "derivative of 'PixelFlipping' is 0": {
        "metric": metrics.PixelFlipping(), "method": tuning.Gradient(2),
    },
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    options = {"candidates": {"one": ONE}, **BAD[message]}
    candidates, metric = options.pop("candidates"), options.pop("metric", CORRELATION)
    with pytest.raises((TypeError, ValueError), match=message):
        tuning.search(
            NET.apply, candidates, metric, options.pop("data", (X, Y)),
            **{"args": (VARIABLES,), "key": KEY, **options},
        )  # fmt: skip


def test_bad_families():
    for wrong, message in (
        (lambda: tuning.Range(1, 1), "low must be < high"),
        (lambda: tuning.Range(0, 1), "low must be > 0 on a logarithmic"),
        (lambda: tuning.Range(1, float("inf")), "high must be a finite"),
        (lambda: tuning.Range(1, 2, "cubic"), "scale"),
        (lambda: tuning.family(layered, gamma=RANGE), "build must return a composite for gamma"),
        (lambda: tuning.family(layered), "at least one hyperparameter"),
        (lambda: tuning.family(lambda a: lrp.Gamma(a), a=(1, 2)), "a must be a tuning.Range"),
        (lambda: tuning.Grid(0), "points"),
        (lambda: tuning.Gradient(rate=0), "rate must be a number > 0"),
        (lambda: tuning.convolutional(low=0.0), "both low and high"),
        (lambda: tuning.suggest("plan"), "plan must be the result"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            wrong()
    assert tuning.Range(-1, 1, "linear").points(3) == [-1, 0, 1]


def test_journal_lines_are_plain(tmp_path):
    """What others read: JSON after a checksum."""
    searched(metric=metrics.Sparseness(), method=tuning.Grid(2), output=tmp_path)
    lines = (tmp_path / "candidates.jsonl").read_text().splitlines()
    held = [json.loads(line.partition(" ")[2]) for line in lines]
    assert [h["key"][0] for h in held] == ["select", "select", "report"]
    assert (
        list(itertools.chain(*(len(s) * [1] for h in held for s in h["scores"].values())))
        == [1] * 18
    )


class Biased(Tiny):
    class model:
        @staticmethod
        def apply(w, x):
            return x.mean((1, 2)) @ w + np.arange(4, dtype=np.float32)


def biased():
    return Biased


def test_the_command_line(tmp_path, capsys):
    """From pictures to code; a second call finds everything in the folder."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        image = np.random.default_rng(i).integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    words = [
        "tune", str(tmp_path / "photos"), "-o", str(tmp_path / "search"), "--model", "test_tuning:biased",
        "--method", "grid", "--trials", "2", "--metric", "sparseness", "--composite", "epsilon_plus",
        "--batch-size", "2", "--canonize", "biases", "sums",
    ]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "| epsilon_plus, no biases |" in said
    assert "sparseness decides, higher is better\n2 samples chose, 2 others report" in said
    space = {}
    exec((tmp_path / "search" / "composite.py").read_text(), space)
    assert isinstance(space["composite"], lrp.Composite)
    assert "| epsilon_plus |" in (tmp_path / "search" / "table.md").read_text()
    before = (tmp_path / "search" / "candidates.jsonl").read_bytes()
    assert main(words) == 0
    assert capsys.readouterr().out == said
    assert (tmp_path / "search" / "candidates.jsonl").read_bytes() == before
    assert main([*words, "--seed", "1"]) == 2
    assert "has a search with other data, key: choose another folder" in capsys.readouterr().err
