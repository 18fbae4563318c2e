"""Protection against forgetting, RelDrop, weights, saved corrections and the loop: formulas in NumPy."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlrp as lrp
from jaxlrp import composites, concepts, improve

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W, HEAD = RNG.normal(size=(4, 6)), RNG.normal(size=(6, 3))
X, LABELS = RNG.normal(size=(5, 4)), np.array([0, 1, 2, 1, 0])
UNITS = concepts.Channels("tanh", axis=-1)


def network(p, x):
    return jnp.tanh(x @ p["lower"]["kernel"] + p["lower"]["bias"]) @ p["head"]["kernel"]


PARAMS = {"lower": {"kernel": W, "bias": 0.1 * RNG.normal(size=6)}, "head": {"kernel": HEAD}}
PARAMS = jax.tree.map(np.asarray, PARAMS)
WIRING = {"tanh": improve.Wiring(writes=["lower"], reads=["head"])}


def model(x):
    return network(PARAMS, x)


# Training


def test_plasticity_is_its_formula():
    u = np.array([0.0, 3.0, 1.0, 6.0])
    np.testing.assert_allclose(improve.plasticity({"tanh": u})["tanh"], 1 - u / 6)
    np.testing.assert_array_equal(improve.plasticity({"tanh": 0 * u})["tanh"], np.ones(4))
    # globally, the two highest of eight are frozen
    whole = improve.plasticity({"a": u + 1, "b": 10 * u + 10}, rate=0.5)
    assert not whole["b"].any()  # a whole layer is frozen: nothing is removed
    both = improve.plasticity({"a": u, "b": 10 * u}, rate=0.25)
    assert both["a"].tolist() == [1, 1, 1, 1]
    assert both["b"].tolist() == [1, 0, 1, 0]


def test_protected_units_do_not_change_and_others_move_as_without():
    factor = np.array([0.0, 1.0, 0.5, 1.0, 1.0, 0.0])
    gradient = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), PARAMS)
    plain = optax.sgd(0.1, momentum=0.9)
    kept = optax.chain(plain, improve.protect({"tanh": factor}, WIRING))
    states = plain.init(PARAMS), kept.init(PARAMS)
    for _ in range(2):  # momentum must not move a frozen unit later on
        expected, one = plain.update(gradient, states[0], PARAMS)
        found, other = kept.update(gradient, states[1], PARAMS)
        states = one, other
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(found["lower"][name], expected["lower"][name] * factor)
        np.testing.assert_array_equal(found["head"]["kernel"], expected["head"]["kernel"])


def test_log_odds_and_weights_of_a_high_temperature():
    p = np.array([0.0, 0.3, 1.0])
    np.testing.assert_allclose(
        improve.log_odds(4.0, 0.01)(jnp.array(p)), np.log(4 * (p + 0.01) / (1.01 - p))
    )
    r = jnp.array([[1.0, -2.0, 0.0]])
    np.testing.assert_allclose(improve.relevance_weights(r, temperature=2.0), [[3, 0, 2]])


def test_relevance_drop_erases_around_one_of_the_most_relevant_pixels():
    x = jnp.asarray(RNG.random((4, 6, 5, 2)) + 1)
    r = RNG.random((4, 6, 5, 2))
    total, fill = r.sum(-1).reshape(4, -1), np.array([0.0, -1.0])
    centers = set()
    for seed in range(12):
        found = improve.relevance_drop(jax.random.key(seed), x, r, (3, 2), candidates=2, fill=fill)
        for i in range(4):
            changed = np.asarray((found[i] != x[i]).any(-1))
            fits = []
            for best in np.argsort(-total[i])[:2]:
                row, column = divmod(int(best), 5)
                mask = np.zeros((6, 5), bool)
                mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 1] = True
                fits.append(np.array_equal(mask, changed))
            assert sum(fits) == 1
            centers.add((i, int(np.argmax(fits))))
            np.testing.assert_array_equal(found[i][changed], np.tile(fill, (changed.sum(), 1)))
    assert len(centers) > 4  # both candidates are drawn


# Weights


def test_weight_relevance_is_the_formula_and_masks_keep_the_largest():
    w, v = RNG.normal(size=(4, 6)), RNG.normal(size=(6, 3))
    explain = lrp.explain(
        lambda p, x: jax.nn.relu(x @ p[0]) @ p[1],
        composites.all_epsilon(0.1),
        argnums=1,
        parameters=0,
    )
    scores = improve.weight_relevance(explain)([w, v], X, target=jax.nn.one_hot(LABELS, 3))
    h = X @ w
    a = np.maximum(h, 0)
    z = a @ v

    def off(d):
        return d + 0.1 * np.where(d >= 0, 1, -1)

    s = np.eye(3)[LABELS] / off(z)
    np.testing.assert_allclose(scores[1], np.abs(v * (a.T @ s)), rtol=1e-9)
    np.testing.assert_allclose(scores[0], np.abs(w * (X.T @ (a * (s @ v.T) / off(h)))), rtol=1e-9)
    kept = improve.weight_masks(scores, 0.5)
    flat = np.concatenate([np.ravel(s) for s in scores])
    border = np.sort(flat)[len(flat) // 2]
    for mask, score in zip(kept, scores, strict=True):
        np.testing.assert_array_equal(mask, np.asarray(score) >= border)
    pruned = improve.mask_weights([w, v], [kept[0], None])
    np.testing.assert_array_equal(pruned[0], np.where(kept[0], w, 0))
    np.testing.assert_array_equal(pruned[1], v)


def test_search_composite_takes_the_one_that_prunes_best_and_judges_it_elsewhere():
    """Two units matter, which epsilon finds; with the flat rule all are alike, and these go first."""
    x = RNG.normal(size=(60, 6)) * np.array([3.0, 3, 0.1, 0.1, 0.1, 0.1])
    y = (x[:, 0] < x[:, 1]).astype(int)
    head = np.zeros((6, 2))
    head[0], head[1] = [2, -2], [-2, 2]
    head[2:] = 1e-9  # their relevance is lowest, whatever their size

    def predict(x):
        return jnp.tanh(x) @ head

    bad = composites.by_kind("dense", lrp.rules.Flat())  # all units alike: the last ones stay last
    worst = lrp.Composite(bad.entries, name="flat")
    head = np.roll(head, 4, axis=0)  # what matters comes last, so ties remove it first
    x = np.roll(x, 4, axis=1)
    found = improve.search_composite(
        predict, {"flat": worst, "epsilon": "all_epsilon"}, UNITS, [0.2, 0.4, 0.6], x, y
    )
    assert found.best == "epsilon"
    assert found.chosen == ("epsilon",) * 3
    assert found.areas["epsilon"] > found.areas["flat"] + 0.2
    assert found.held_out == pytest.approx(found.areas["epsilon"])


def test_search_composite_compiles_once_for_candidates_that_differ_in_numbers():
    """The gammas are traced. The result is that of the nested split, written out."""
    weights, head, x = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 3)), RNG.normal(size=(60, 6))
    y, rates = (np.tanh(x @ weights) @ head).argmax(-1), [0.2, 0.4, 0.6]
    gammas = {"none": 0, "some": 0.25, "more": 1.0, "all": 100.0}
    rules = {name: lrp.rules.Gamma(gamma) for name, gamma in gammas.items()}

    def plain(x):
        return jnp.tanh(x @ weights) @ head

    def search(candidates):
        traces = []

        def predict(x):
            traces.append(None)
            return plain(x)

        found = improve.search_composite(predict, candidates, UNITS, rates, x, y)
        return found, len(traces)

    found, count = search(rules)
    assert count == search({"none": rules["none"]})[1]
    assert count < search({"none": rules["none"], "z+": "epsilon_plus"})[1]
    parts = [slice(0, 20), slice(20, 40), slice(40, 60)]
    scores = {
        name: [explained(x[p], target=np.eye(3)[y[p]])["tanh"] for p in parts]
        for name, rule in rules.items()
        for explained in [improve.unit_relevance(lrp.explain(plain, rule), UNITS)]
    }

    def area(name, test, *seen):
        total, p = {"tanh": sum(scores[name][i] for i in seen)}, parts[test]
        kept = [np.asarray(improve.masks(total, rate)["tanh"]) for rate in rates]
        right = [((np.tanh(x[p] @ weights) * k) @ head).argmax(-1) == y[p] for k in kept]
        one, two, three = (r.mean() for r in right)
        return (one + 2 * two + three) / 4  # trapezoids

    outer = {n: [area(n, 0, 1, 2), area(n, 1, 0, 2), area(n, 2, 0, 1)] for n in rules}
    inner = {
        n: [
            area(n, 1, 2) + area(n, 2, 1),
            area(n, 0, 2) + area(n, 2, 0),
            area(n, 0, 1) + area(n, 1, 0),
        ]
        for n in rules
    }
    chosen = tuple(max(rules, key=lambda n, i=i: inner[n][i]) for i in range(3))
    assert len({np.mean(areas) for areas in outer.values()}) > 1
    assert found.areas == pytest.approx({n: np.mean(areas) for n, areas in outer.items()})
    assert found.chosen == chosen
    assert found.held_out == pytest.approx(np.mean([outer[n][i] for i, n in enumerate(chosen)]))


# Corrections and the loop


def test_a_correction_is_the_same_after_it_was_saved(tmp_path):
    v, z = RNG.normal(size=(2, 6)), RNG.normal(size=6)
    edits = {"tanh": improve.project(list(v), z)}
    for when in (None, (0, 2)):
        made = improve.Correction(edits, when, PARAMS)
        improve.save_correction(tmp_path / "c.npz", made)
        loaded = improve.load_correction(tmp_path / "c.npz")
        assert loaded.when == when
        found = loaded.apply(network, argnums=1)(loaded.parameters, X)
        expected = lrp.edit(network, edits, argnums=1)(PARAMS, X)
        if when is not None:
            expected = improve.reactive(network, edits, when, argnums=1)(PARAMS, X)
            assert not np.array_equal(found, lrp.edit(network, edits, argnums=1)(PARAMS, X))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert not np.array_equal(found, model(X))
    lrp.save(tmp_path / "other.npz", lrp.explain(model)(X, target=0))
    with pytest.raises(ValueError, match="is not a file of save_correction"):
        improve.load_correction(tmp_path / "other.npz")


SIGNAL = np.array([[2.0, -2.0], [0.0, 0.0], [0.0, 4.0]])  # the last input is an artifact of class 1


def cheats(x):
    return jnp.tanh(0.3 * jnp.asarray(x)) @ SIGNAL


def add(x):
    return np.concatenate([x[:, :2], np.full((len(x), 1), 2.0)], axis=1)


CLEAN = np.concatenate([RNG.normal(size=(40, 2)) + 0.1, np.zeros((40, 1))], axis=1)
CLASSES = (CLEAN[:, 0] < 0).astype(int)


def located():
    own = CLEAN[CLASSES == 1]
    return improve.locate(cheats, own, add(own), target=1, layer="tanh")


def test_the_loop_finds_removes_and_reports_and_loses_nothing():
    artifact = located()
    assert artifact.swapped  # the second group has it
    np.testing.assert_array_equal(artifact.region, [False, False, True])
    np.testing.assert_allclose(artifact.direction, [0, 0, 1], atol=1e-12)

    def projected(a):
        return lrp.edit(cheats, {a.layer: improve.project(a.direction, a.reference)})

    def fails(a):
        raise RuntimeError("out of memory")

    report = improve.reveal_to_revise(
        cheats,
        artifact,
        {"fails": fails, "projection": projected},
        CLEAN,
        CLASSES,
        add,
        batch_size=16,
    )
    assert isinstance(report.errors["fails"], RuntimeError)
    before, after = report.rows["nothing"], report.rows["projection"]
    expected = np.asarray(cheats(add(CLEAN))).argmax(1)
    assert before["clean"] == 1
    np.testing.assert_allclose(before["with artifact"], np.mean(expected == CLASSES))
    np.testing.assert_allclose(
        before["turned into the class"], np.mean(expected[CLASSES == 0] == 1)
    )
    r = np.abs(lrp.explain(cheats)(add(CLEAN[CLASSES == 1]), target=1).relevance)
    np.testing.assert_allclose(before["relevance in the region"], r[:, 2].sum() / r.sum())
    assert before["lost without it"] == 0
    assert after["with artifact"] == 1
    assert after["relevance in the region"] < before["relevance in the region"] / 10
    assert report.helped() == ["projection"]
    assert "failed: out of memory" in str(report)


Vector = functools.partial(np.ones, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: improve.plasticity({"a": -np.ones(2)}), ValueError, r"scores\['a'\] must be >= 0"),
        (lambda: improve.plasticity({"a": np.ones(2)}, 1.0), ValueError, r"rate must be in \[0, 1\)"),
        (lambda: improve.plasticity({"a": np.ones((2, 2))}), ValueError, "one number for each unit"),
        (
            lambda: improve.protect({"tanh": np.ones(5)}, WIRING).update(PARAMS, optax.EmptyState()),
            ValueError, r"has 5 units, but a parameter of 'lower'",
        ),
        (
            lambda: improve.protect({"tanh": Vector()}, {"tanh": improve.Wiring(["relu"])}).update(
                PARAMS, optax.EmptyState()
            ),
            ValueError, "names a module without parameters, 'relu'",
        ),
        (lambda: improve.log_odds(0.0), ValueError, "beta must be > 0"),
        (
            lambda: improve.relevance_drop(jax.random.key(0), np.ones((1, 2, 2, 1)), np.ones((1, 3, 2)), 1),
            ValueError, r"relevance \(N, H, W\) or of the shape of x",
        ),
        (
            lambda: improve.relevance_drop(jax.random.key(0), np.ones((1, 2, 2, 1)), np.ones((1, 2, 2)), 1),
            ValueError, "candidates must be at most the 4 pixels, got 10",
        ),
        (lambda: improve.weight_relevance(lrp.explain(model)), ValueError, "one argument of parameters"),
        (lambda: improve.weight_masks({"w": np.ones(4)}, -0.1), ValueError, r"rate must be in \[0, 1\)"),
        (
            lambda: improve.weight_masks({"v": np.ones(2), "w": np.arange(2.0) + 2}, 0.5),
            ValueError, r"all 2 units of \"\['v'\]\" would go",
        ),
        (
            lambda: improve.mask_weights({"w": np.ones(3)}, {"w": np.ones(2, bool)}),
            ValueError, r"kept\['w'\] must be booleans of shape \(3,\), got bool of shape \(2,\)",
        ),
        (
            lambda: improve.search_composite(model, {}, UNITS, [0.5], X, LABELS),
            ValueError, "candidates must have at least one composite",
        ),
        (
            lambda: improve.search_composite(model, {"a": "default"}, UNITS, [0.5], X, LABELS, folds=2),
            ValueError, "folds must be an integer >= 3, got 2",
        ),
        (
            lambda: improve.Correction({"tanh": cast(Any, lambda h: h)}),
            TypeError, r"edits\['tanh'\] must be the result of improve.project",
        ),
        (lambda: improve.Correction({}, cast(Any, "0")), TypeError, "when must be class indices"),
        (
            lambda: improve.locate(cheats, CLEAN[:0], CLEAN, target=1, layer="tanh"),
            ValueError, "some and others must have samples",
        ),
        (
            lambda: improve.locate(cheats, CLEAN, CLEAN, target=1, layer="tanh"),
            ValueError, "the same mean relevance",
        ),
        (
            lambda: improve.assess(cheats, CLEAN, 0 * CLASSES, target=1, add=add, region=True),
            ValueError, "must have samples of class 1 and of others",
        ),
        (
            lambda: improve.assess(cheats, CLEAN, CLASSES, target=1, add=lambda x: x[:1], region=True),
            ValueError, "add must return the shape",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
