"""Metrics of robustness against their formulas in NumPy."""

import functools
import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import metrics
from jaxlrp.metrics import discretize, perturbation, removal
from jaxlrp.metrics.robustness import stability

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
N, DRAWS = 4, 7
W1, W2 = RNG.normal(size=(12, 6)), RNG.normal(size=(6, 3))
X = RNG.normal(size=(N, 3, 4))
X[0, 0] = 0.0  # zeros, which relative changes must not divide by
KEY = jax.random.key(3)


def hidden(x):
    return jnp.tanh(x.reshape(len(x), -1) @ W1)


def predict(x):
    return hidden(x) @ W2


TARGETS = np.argmax(np.tanh(X.reshape(N, -1) @ W1) @ W2, axis=1)


def explain(x, y):
    """Attributions that depend on the input smoothly, are zero with it, and depend on the target."""
    return x * (1.5 + jnp.sin(3 * x) + y[:, None, None].astype(x.dtype))


def attributed(x):
    return x * (1.5 + np.sin(3 * x) + TARGETS[:, None, None])


def uniform(draw, low, high):
    """The change of all samples in a draw, by the documented keys: one of each sample, then of the draw."""
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, i), draw) for i in range(N)]
    return np.stack([jax.random.uniform(k, X.shape[1:], float, low, high) for k in keys])


def normal(draw, std):
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, i), draw) for i in range(N)]
    return np.stack([std * np.asarray(jax.random.normal(k, X.shape[1:], float)) for k in keys])


def length(a):
    return np.sqrt((a.reshape(N, -1) ** 2).sum(1))


def relative(a, b):
    """|| (a - b) / a || with zeros of a replaced."""
    return length((a - b) / np.where(a == 0, 1e-6, a))


def oracle(changes):
    """All statistics by the formulas of the papers, with a loop over draws."""

    def model(x):
        h = np.tanh(x.reshape(N, -1) @ W1)
        return h, h @ W2

    a, (hid, h) = attributed(X), model(X)
    found = {k: [] for k in ("sens", "lip", "ris", "ros", "rrs")}
    for d in changes:
        b, (low, g) = attributed(X + d), model(X + d)
        same = h.argmax(1) == g.argmax(1)
        found["sens"].append(length(b - a) / length(a))
        found["lip"].append(length(b - a) / length(d))
        change = np.where(same, relative(a, b), np.nan)
        found["ris"].append(change / np.maximum(relative(X, X + d), 1e-6))
        found["ros"].append(change / np.maximum(length(h - g), 1e-6))
        found["rrs"].append(change / np.maximum(relative(hid, low), 1e-6))
    return {k: np.array(v) for k, v in found.items()}


@functools.cache
def expected(low=-0.2, high=0.2):
    return oracle([uniform(r, low, high) for r in range(DRAWS)])


@pytest.mark.parametrize(
    ("name", "statistic", "reduce"),
    [
        ("MaxSensitivity", "sens", np.max),
        ("AvgSensitivity", "sens", np.mean),
        ("LocalLipschitz", "lip", np.max),
        ("RelativeInputStability", "ris", np.nanmax),
        ("RelativeOutputStability", "ros", np.nanmax),
        ("RelativeRepresentationStability", "rrs", np.nanmax),
    ],
)
def test_formula(name, statistic, reduce):
    made = getattr(metrics, name)(
        draws=DRAWS, perturbation=perturbation.Uniform(-0.2, 0.2), representation=hidden
    )
    found = made(explain, X, TARGETS, predict=predict, key=KEY)
    close(found, reduce(expected()[statistic], axis=0))
    assert made.higher_is_better is False
    assert made.random
    assert made.bounds == (0.0, float("inf"))


def test_local_lipschitz_draws_normal_numbers():
    found = metrics.LocalLipschitz(draws=DRAWS)(explain, X, TARGETS, key=KEY)
    close(found, oracle([normal(r, 0.1) for r in range(DRAWS)])["lip"].max(0))


def test_one_pass_gives_all_statistics():
    calls = []

    def counted(x, y):
        calls.append(len(x))
        return explain(x, y)

    made = metrics.MaxSensitivity(draws=DRAWS, representation=hidden, batch_size=5)
    ratios = made.ratios(counted, X, TARGETS, predict=predict, key=KEY)
    assert calls == [4, 5]  # traced once for the inputs, once for all batches of perturbed ones
    found = ratios.statistics("median")
    for name, statistic, reduce in [
        ("MaxSensitivity", "sens", np.max),
        ("AvgSensitivity", "sens", np.mean),
        ("LocalLipschitz", "lip", np.max),
        ("RelativeInputStability", "ris", np.nanmedian),
        ("RelativeOutputStability", "ros", np.nanmedian),
        ("RelativeRepresentationStability", "rrs", np.nanmedian),
    ]:
        close(found.pop(name), reduce(expected()[statistic], axis=0))
    assert found == {}
    close(ratios.sensitivity, expected()["sens"].T)
    only = made.ratios(explain, X, TARGETS, key=KEY).statistics()
    assert list(only) == ["MaxSensitivity", "AvgSensitivity", "LocalLipschitz"]


def test_draws_that_change_the_prediction_are_left_out():
    """With a large radius some draws do."""
    made = metrics.RelativeOutputStability(
        draws=DRAWS, perturbation=perturbation.Uniform(-1.0, 1.0), over="mean"
    )
    want = expected(-1.0, 1.0)["ros"]
    changed = np.isnan(want)
    assert changed.any()
    assert not changed.all()
    close(made(explain, X, TARGETS, predict=predict, key=KEY), np.nanmean(want, axis=0))
    ratios = made.ratios(explain, X, TARGETS, predict=predict, key=KEY)
    np.testing.assert_array_equal(ratios.unchanged, ~changed.T)
    for over, reduce in {"max": np.nanmax, "mean": np.nanmean, "median": np.nanmedian}.items():
        close(ratios.statistics(over)["RelativeOutputStability"], reduce(want, axis=0))


def test_every_draw_changes_the_prediction():
    """Undefined for all three relative statistics, and for those alone."""
    drawn = jax.tree.map(jnp.asarray, X)

    def flips(x):  # another class for any input but the given ones
        same = (x[:, None] == drawn[None]).all((2, 3)).any(1)
        return jnp.stack([same, ~same], axis=1).astype(float)

    made = metrics.RelativeInputStability(draws=3, over="median")
    ratios = made.ratios(explain, X, TARGETS % 2, predict=flips, key=KEY)
    assert not ratios.unchanged.any()
    found = ratios.statistics()
    assert np.isnan(found["RelativeInputStability"]).all()
    assert np.isfinite(found["MaxSensitivity"]).all()


ALL = [
    metrics.AvgSensitivity(draws=3, normalize="max"),
    metrics.RelativeInputStability(draws=3),
    metrics.Continuity(axis=0, shifts=(1, -2), fill=removal.Uniform(0.0, 1.0), normalize="rms"),
]


@pytest.mark.parametrize("made", ALL, ids=lambda m: m.name)
def test_batch_equals_singles_and_jit_equals_eager(made):
    keys = jax.random.split(KEY, N)

    def score(x, y, keys):
        options = {"key": keys} if made.random else {}
        return made(explain, x, y, predict=predict, **options)

    whole = score(X, TARGETS, keys)
    assert whole.shape == (N,)
    assert np.isfinite(whole).all()
    for i in range(N):
        close(score(X[i : i + 1], TARGETS[i : i + 1], keys[i : i + 1]), whole[i : i + 1])
    close(jax.jit(score)(X, TARGETS, keys), whole)


def shapes(jaxpr):
    """Those of all that a program computes, in its loops too."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from shapes(inner)


def test_representations_of_all_samples_are_never_kept():
    score = metrics.RelativeRepresentationStability(
        draws=3, batch_size=2, representation=lambda x: jnp.tile(x.reshape(len(x), -1), 100)
    )
    x, y = jnp.tile(X, (6, 1, 1)), jnp.zeros(6 * N, int)
    program = jax.make_jaxpr(lambda x: score(explain, x, y, predict=predict, key=KEY))(x)
    sizes = [math.prod(shape) for shape in shapes(program.jaxpr)]
    assert max(sizes) == 2 * 100 * X[0].size


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_results_do_not_depend_on_the_batch_size(batch_size):
    found = metrics.MaxSensitivity(draws=DRAWS, batch_size=batch_size)(explain, X, TARGETS, key=KEY)
    close(found, expected()["sens"].max(0))
    moved = metrics.Continuity(batch_size=batch_size)(explain, X, TARGETS)
    close(moved, continuity(X, 1, range(1, 4), 0.0))


def test_scale_of_attributions():
    """Sensitivities do not depend on it; Lipschitz constants do, unless attributions are normalized."""

    def scaled(x, y):
        return 7 * explain(x, y)

    for normalize, factor in [("none", 7), ("max", 1), ("rms", 1)]:
        made = metrics.MaxSensitivity(draws=2, normalize=normalize)
        plain, other = (made.ratios(e, X, TARGETS, key=KEY) for e in (explain, scaled))
        close(other.lipschitz, factor * plain.lipschitz)
        if normalize == "none":
            close(other.sensitivity, plain.sensitivity)
        else:
            assert np.abs(plain.lipschitz / expected()["lip"].T[:, :2] - 1).min() > 0.01


def test_normalization_by_hand():
    a = np.array([[3.0, -4.0], [0.0, 0.0]])
    for by, unit in [("none", 1), ("max", 4), ("rms", 5 / np.sqrt(2))]:
        found = metrics.Continuity(axis=0, shifts=(2,), normalize=by)(
            lambda x, y: x, np.where(a == 0, 1e-30, a), None
        )
        # Moved by its length the input is blank: |a|_1 / ||x||_2.
        close(found[0], 7 / unit / 5)


def test_constant_explanations_are_perfectly_stable():
    def constant(x, y):
        return jnp.ones_like(x)

    made = metrics.MaxSensitivity(draws=2)
    found = made.ratios(constant, X, TARGETS, predict=predict, key=KEY).statistics()
    assert len(found) == 5
    for name, scores in found.items():
        np.testing.assert_array_equal(scores, 0, name)
    np.testing.assert_array_equal(metrics.Continuity()(constant, X, TARGETS), 0)


def test_undefined():
    """Attributions of sample 0 are zero, of sample 1 only where perturbed, of sample 2 not finite."""
    x = X.copy()
    x[:, 0, 0] = [50, 60, 70, 1]

    def broken(x, y):
        first = x[:, :1, :1]
        a = jnp.where((first == 50) | ((first > 55) & (first < 65) & (first != 60)), 0, x)
        return jnp.where((first > 65) & (first != 70), jnp.inf, a)

    nan = np.isnan(metrics.MaxSensitivity(draws=3)(broken, x, TARGETS, key=KEY))
    np.testing.assert_array_equal(nan, [True, False, True, False])
    same = metrics.Continuity()(explain, np.zeros_like(X), TARGETS)
    assert np.isnan(same).all()  # no shift changes a blank input

    def infinite(x, y):
        return jnp.where(x[:, :, :1] == 0, jnp.inf, x)

    nan = np.isnan(metrics.Continuity()(infinite, np.abs(x[1:]), TARGETS[1:]))
    assert nan.all()  # where zeros move in


@pytest.mark.parametrize("over", ["max", "mean", "median"])
def test_summaries(over):
    values = np.array([[1.0, 2.0, 6.0], [1.0, np.nan, 6.0], [1.0, 2.0, 6.0], [np.nan, 2.0, 6.0]])
    used = np.array([[True, True, True], [True, True, True], [False] * 3, [False, True, True]])
    found = stability.summary(jnp.asarray(values), jnp.asarray(used), over)
    first, last = {"max": (6, 6), "mean": (3, 4), "median": (2, 4)}[over]
    np.testing.assert_array_equal(found, [first, np.nan, np.nan, last])


def continuity(x, axis, shifts, fill):
    """By slices, one shift at a time."""
    a, best = attributed(x), np.full(N, -np.inf)
    for s in shifts:
        moved = np.full_like(x, fill)
        size = x.shape[1 + axis] - abs(s)
        to, frm = ((s, 0) if s > 0 else (0, -s)) if size else (0, 0)
        where, source = [slice(None)] * x.ndim, [slice(None)] * x.ndim
        where[1 + axis], source[1 + axis] = slice(to, to + size), slice(frm, frm + size)
        moved[tuple(where)] = x[tuple(source)]
        change = np.abs(a - attributed(moved)).reshape(N, -1).sum(1)
        best = np.maximum(best, change / length(x - moved))
    return best


@pytest.mark.parametrize(
    ("axis", "shifts"), [(1, None), (0, None), (1, (1, -1, 3)), (-2, (2, -3)), (0, (3,))]
)
def test_continuity(axis, shifts):
    found = metrics.Continuity(axis=axis, shifts=shifts, fill=removal.Constant(0.5))(
        explain, X, TARGETS
    )
    all_shifts = shifts or range(1, X.shape[1 + axis])
    close(found, continuity(X, axis % 2, all_shifts, 0.5))


def test_continuity_of_an_explanation_that_is_zero_on_a_blank_input():
    """Where Quantus 0.6 raises an error."""
    found = metrics.Continuity(axis=0, shifts=(3,))(lambda x, y: x, X, TARGETS)
    close(found, np.abs(X).reshape(N, -1).sum(1) / length(X))


def consistency(words, classes):
    found = []
    for i, word in enumerate(words):
        alike = [j for j, w in enumerate(words) if j != i and np.array_equal(w, word)]
        share = np.mean([classes[j] == classes[i] for j in alike]) if alike else np.nan
        found.append(share)
    return np.array(found)


def top(a, count):
    word = np.zeros(len(a))
    for i in np.argsort(-np.abs(a), kind="stable")[:count]:
        word[i] = np.sign(a[i])
    return word


WORDS = {
    "signs": (discretize.Signs(), np.sign),
    "top": (discretize.Top(2), lambda a: top(a, 2)),
    "ranks": (discretize.Ranks(), lambda a: np.argsort(-a, kind="stable")),
    "rounded": (discretize.Rounded(0), lambda a: np.round(a)),
}


@pytest.mark.parametrize("name", WORDS)
def test_consistency(name):
    word, of = WORDS[name]
    a = np.random.default_rng(1).choice([-1.2, -0.7, 0.0, 0.4, 0.8], (60, 3))
    x = np.random.default_rng(2).normal(size=(60, 3))
    outputs = x @ RNG.normal(size=(3, 2))
    made = metrics.Consistency(discretize=word)
    found = made(lambda x: jnp.asarray(outputs)[: len(x)], x, a)
    want = consistency([of(row) for row in a], outputs.argmax(1))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(want))
    np.testing.assert_allclose(found, want, rtol=1e-12)
    assert len(np.unique(want[np.isfinite(want)])) > 2
    assert made.higher_is_better
    under_jit = jax.jit(lambda a: made(lambda x: jnp.asarray(outputs), x, a))(a)
    np.testing.assert_allclose(under_jit, found, rtol=1e-12)


def test_consistency_leaves_out_what_is_not_finite():
    a = np.array([[1.0, 1.0], [1.0, 1.0], [np.inf, 1.0], [1.0, 1.0]])
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = metrics.Consistency(discretize=discretize.Signs())(lambda x: x, x, a)
    np.testing.assert_array_equal(found, [0.5, 0.5, np.nan, 0.0])


def test_composites_differ_in_stability():
    """LRP-z+ is steadier than LRP-epsilon."""
    rng = np.random.default_rng(5)
    w1, w2 = rng.normal(size=(12, 30)), rng.normal(size=(30, 3))

    def net(x):
        return jax.nn.relu(x.reshape(len(x), -1) @ w1) @ w2

    x = np.abs(rng.normal(size=(6, 12)))
    y = np.asarray(net(x).argmax(1))
    scores = {}
    for name, composite in [
        ("plus", lrp.composites.by_kind("dense", lrp.ZPlus())),
        ("eps", lrp.composites.all_epsilon()),
    ]:
        explainer = lrp.explain(net, composite)
        made = metrics.AvgSensitivity(draws=5)
        scores[name] = made(
            lambda x, y, e=explainer: e(x, target=y), x, y, key=jax.random.key(0)
        ).mean()
    assert 0 < scores["plus"] < scores["eps"]


def test_context_goes_with_its_sample():
    scale = np.array([1.0, 2.0, 3.0, 4.0])

    def with_scale(x, y, scale):
        return explain(x, y) ** 3 * scale[:, None, None] + x

    def of_scale(x, scale):
        return predict(x) * scale[:, None]

    made = metrics.RelativeOutputStability(draws=3, batch_size=5)
    found = made(with_scale, X, TARGETS, predict=of_scale, key=KEY, context={"scale": scale})
    alone = made(
        lambda x, y: with_scale(x, y, jnp.full(len(x), 3.0)), X, TARGETS,
        predict=lambda x: 3.0 * predict(x), key=KEY,
    )  # fmt: skip
    close(found[2], alone[2])
    assert np.abs(found / alone - 1)[[0, 1, 3]].min() > 1e-3


def test_float32():
    with jax.enable_x64(False):
        x, y = X.astype(np.float32), TARGETS.astype(np.int32)
        ratios = metrics.MaxSensitivity(draws=2).ratios(explain, x, y, key=KEY)
        draw = perturbation.Uniform(-0.2, 0.2)
        keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(N))
        drawn = [draw(x, jax.vmap(jax.random.fold_in, (0, None))(keys, r)) for r in range(2)]
    assert ratios.sensitivity.dtype == jnp.float32
    want = oracle([np.asarray(d, np.float64) for d in drawn])
    close(ratios.sensitivity, want["sens"].T, rtol=1e-5)
    close(ratios.lipschitz, want["lip"].T, rtol=1e-5)


REFUSED = [
    (lambda: metrics.MaxSensitivity(draws=0), ValueError, "draws must be an integer >= 1, got 0"),
    (
        lambda: metrics.MaxSensitivity(perturbation=0.2),
        TypeError,
        r"perturbation must be a value such as metrics\.perturbation\.Uniform.*got 0\.2",
    ),
    (lambda: metrics.MaxSensitivity(normalize="l1"), ValueError, "normalize must be one of 'none'"),
    (lambda: perturbation.Uniform(0.2, 0.2), ValueError, "low must be < high"),
    (lambda: perturbation.Uniform("a"), TypeError, "low must be a number .* got the string 'a'"),
    (lambda: perturbation.Normal("a"), TypeError, "std must be a number >= 0, got the string 'a'"),
    (lambda: perturbation.Normal(-1.0), ValueError, r"std must be >= 0, got -1\.0"),
    (lambda: discretize.Top(0), ValueError, "count must be an integer >= 1"),
    (
        lambda: metrics.RelativeRepresentationStability(),
        TypeError,
        "representation is missing: pass a function",
    ),
    (
        lambda: metrics.RelativeInputStability(over="min"),
        ValueError,
        "over must be one of 'max', 'mean', 'median', got 'min'",
    ),
    (
        lambda: metrics.RelativeInputStability()(explain, X, TARGETS, key=KEY),
        TypeError,
        "RelativeInputStability compares outputs too: pass predict",
    ),
    (
        lambda: metrics.MaxSensitivity()(explain, X, TARGETS),
        TypeError,
        "MaxSensitivity draws random numbers: pass key",
    ),
    (
        lambda: metrics.MaxSensitivity()(explain, np.zeros((2, 3), int), TARGETS[:2], key=KEY),
        TypeError,
        "inputs must be floats, because this metric adds small changes to them, got int64",
    ),
    (
        lambda: metrics.MaxSensitivity(draws=2)(lambda x, y: x[:, 0], X, TARGETS, key=KEY),
        ValueError,
        "attributions must have the shape of the inputs",
    ),
    (
        lambda: metrics.MaxSensitivity(draws=2)(explain, X, [0, 1, 2, 3], predict=predict, key=KEY),
        IndexError,
        r"targets\[3\] = 3 is out of range: the model has 3 classes",
    ),
    (
        lambda: metrics.Continuity(axis=2)(explain, X, TARGETS),
        ValueError,
        r"axis 2 of Continuity does not exist: an example has shape \(3, 4\)",
    ),
    (
        lambda: metrics.MaxSensitivity(perturbation=metrics.removal.Uniform()),
        TypeError,
        r"perturbation must be a value such as metrics\.perturbation\.Uniform",
    ),
    (
        lambda: metrics.Continuity(shifts=(1.5,)),
        ValueError,
        "must be one or more integers other than 0",
    ),
    (
        lambda: metrics.Continuity(shifts=(0, 1)),
        ValueError,
        "must be one or more integers other than 0",
    ),
    (
        lambda: metrics.Continuity(shifts=(5,))(explain, X, TARGETS),
        ValueError,
        r"shifts along axis 1 must not exceed its length, 4, .*got \(5,\)",
    ),
    (
        lambda: metrics.Consistency(discretize=discretize.Top),
        TypeError,
        "discretize must be a function of attributions",
    ),
    (
        lambda: metrics.Consistency()(lambda x: x.sum((1, 2)), X, X),
        ValueError,
        r"predict must return \(n, classes\) with at least two classes, got \(4,\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_of_attributions_neither_overflows_nor_vanishes(scale):
    with jax.enable_x64(False):
        x = jnp.asarray(X, jnp.float32)
        for made in (
            metrics.MaxSensitivity(draws=2),
            metrics.LocalLipschitz(draws=2, normalize="rms"),
        ):
            one, other = (made(lambda x, y, s=s: s * x**2, x, key=KEY) for s in (1.0, scale))
            close(other, one, rtol=1e-5)
