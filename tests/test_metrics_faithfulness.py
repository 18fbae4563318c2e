"""Faithfulness metrics against their formulas in NumPy, for every layout of inputs."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from jaxlrp import metrics
from jaxlrp.metrics import features, removal
from jaxlrp.metrics.statistics import pearson, spearman

from numeric import close
from selection import one_in

pytestmark = pytest.mark.usefixtures("x64")

N, CLASSES = 3, 4
ELEMENTS = features.Elements()
FILL = -0.3


def layout(name):
    """Inputs, attributions, features and the index of each value's feature, and a model twice."""
    rng = np.random.default_rng(len(name))
    shape = {"images": (4, 6, 2), "tokens": (7,), "series": (9, 2), "table": (6,), "nodes": (5, 3)}
    shape = shape[name]
    x, context, fill = rng.normal(size=(N, *shape)), {}, FILL
    if name == "images":  # superpixels, one sample with fewer than the others, some pixels in none
        labels = rng.integers(0, 7, (N, 4, 6, 1))
        labels[1] = labels[1] % 4
        labels[:, 0, 0] = -1
        of, index = features.Segments(labels), np.broadcast_to(labels, x.shape)
    elif name == "series":
        of, index = features.Blocks(0, 2), np.arange(9)[:, None] // 2 + np.zeros((1, 2), int)
    elif name == "nodes":
        of, index = features.Blocks(0), np.arange(5)[:, None] + np.zeros((1, 3), int)
        context = {"edges": rng.random((N, 5, 5))}
    else:
        of, index = ELEMENTS, np.arange(shape[0])
    if name == "tokens":
        x, fill = rng.integers(1, 10, (N, *shape)), 0
    index = np.broadcast_to(index, x.shape)
    size = math.prod(shape) if name != "tokens" else shape[0] * 3
    table, first, last = (
        rng.normal(size=(10, 3)),
        rng.normal(size=(size, 8)),
        rng.normal(size=(8, CLASSES)),
    )

    def model(np, x, edges=None):
        if name == "tokens":
            x = np.asarray(table)[x]
        if edges is not None:
            x = np.einsum("bij,bjk->bik", edges, x)
        weights = (first / 3).astype(x.dtype), last.astype(x.dtype)
        return np.tanh(x.reshape(len(x), -1) @ weights[0]) @ weights[1]

    return SimpleNamespace(
        name=name, x=x, a=rng.normal(size=x.shape), of=of, index=index, fill=fill, context=context,
        y=rng.integers(0, CLASSES, N), predict=functools.partial(model, jnp),
        outputs=functools.partial(model, np),
    )  # fmt: skip


LAYOUTS = one_in(2, ["images", "series", "tokens", "table", "nodes"])
layout = functools.cache(layout)


class Oracle:
    """One sample of a layout in NumPy: features are numbers, removed values become the fill."""

    def __init__(self, case, i):
        self.case, self.i = case, i
        self.index, self.a = case.index[i], case.a[i]
        self.features = sorted(set(self.index.flat) - {-1})
        self.total = {f: self.a[self.index == f].sum() for f in self.features}
        self.mean = {f: self.a[self.index == f].mean() for f in self.features}

    def outputs(self, removed=()):
        x = np.where(np.isin(self.index, list(removed)), self.case.fill, self.case.x[self.i])
        return self.case.outputs(
            x[None], **{k: v[self.i][None] for k, v in self.case.context.items()}
        )[0]

    def logit(self, removed=()):
        return self.outputs(removed)[self.case.y[self.i]]

    def probability(self, removed=()):
        return scipy.special.softmax(self.outputs(removed))[self.case.y[self.i]]

    def order(self, by, sign=-1):
        return sorted(self.features, key=lambda f: sign * by[f])

    def chunks(self, order, step):
        return [order[k : k + step] for k in range(0, len(order), step)]

    def curve(self, order, step=1):
        counts = range(0, len(order) + step, step)
        return np.array([self.probability(order[:k]) for k in counts])

    def pixel_flipping(self, step=2):
        morf, lerf = (self.curve(self.order(self.total, sign), step) for sign in (-1, 1))
        return (lerf - morf)[1:].mean()

    def aopc(self, regions=3):
        curve = self.curve(self.order(self.total))[: regions + 1]
        return (curve[0] - curve).mean()

    def selectivity(self):
        return np.trapezoid(self.curve(self.order(self.total))[1:])

    def estimate(self, step=2):
        chunks = self.chunks(self.order(self.total), step)
        sums = [sum(self.total[f] for f in chunk) for chunk in chunks]
        falls = [self.probability() - self.probability(chunk) for chunk in chunks]
        return np.corrcoef(sums, falls)[0, 1]

    def monotonicity_correlation(self, step=1):
        size = {f: abs(self.total[f]) for f in self.features}
        chunks = self.chunks(self.order(size, 1), step)
        sums = [sum(size[f] for f in chunk) for chunk in chunks]
        squares = [(self.probability() - self.probability(chunk)) ** 2 for chunk in chunks]
        return scipy.stats.spearmanr(sums, squares).statistic

    def monotonicity(self, step=2):
        order = self.order(self.total, 1)
        back = [order[: k + step] for k in range(0, len(order), step)]
        scores = [self.probability(set(self.features) - set(some)) for some in back]
        return (np.diff(scores) >= 0).mean()

    def irof(self):
        curve = self.curve(self.order(self.mean))
        return len(self.features) - np.trapezoid(curve / curve[0])

    def road(self, percentages=(0, 30, 55, 100)):
        order, hits = self.order(self.total), []
        for p in percentages:
            outputs = self.outputs(order[: math.floor(p * len(order) / 100)])
            hits.append(outputs.argmax() == self.case.y[self.i])
        return np.mean(hits)

    def infidelity(self, kind):
        errors = []
        for f in self.features:
            inside = self.index == f
            change = np.where(inside, self.case.x[self.i] - self.case.fill, 0)
            predicted = (self.a * change).sum() if kind == "sensitivity" else self.total[f]
            errors.append((predicted - (self.logit() - self.logit([f]))) ** 2)
        return np.mean(errors)


def measured(case):
    """Every deterministic metric of a layout, with its oracle."""
    options = {"features": case.of, "removal": removal.Constant(case.fill), "batch_size": 5}
    found = {
        "pixel flipping": (metrics.PixelFlipping(step=2, **options), Oracle.pixel_flipping),
        "aopc": (metrics.RegionPerturbation(regions=3, **options), Oracle.aopc),
        "selectivity": (metrics.Selectivity(**options), Oracle.selectivity),
        "estimate": (metrics.FaithfulnessEstimate(step=2, **options), Oracle.estimate),
        "monotonicity": (
            metrics.Monotonicity(step=2, summary="share", **options), Oracle.monotonicity,
        ),
        "rank": (metrics.MonotonicityCorrelation(**options), Oracle.monotonicity_correlation),
        "irof": (metrics.IROF(**options), Oracle.irof),
        "road": (metrics.ROAD(percentages=(0, 30, 55, 100), **options), Oracle.road),
        "relevance": (
            metrics.Infidelity(kind="relevance", **options),
            functools.partial(Oracle.infidelity, kind="relevance"),
        ),
    }  # fmt: skip
    if case.name != "tokens":
        oracle = functools.partial(Oracle.infidelity, kind="sensitivity")
        found["sensitivity"] = (metrics.Infidelity(**options), oracle)
    return found


def call(metric, case, **changes):
    given = {"inputs": case.x, "attributions": case.a, "targets": case.y, "context": case.context}
    return metric(case.predict, **{**given, **changes})


@functools.cache
def together(name):
    """All deterministic metrics of a layout, as one program."""
    case = layout(name)
    found = {k: m for k, (m, _) in measured(case).items()}

    def run(x, a, y, context):
        given = {"inputs": x, "attributions": a, "targets": y, "context": context}
        return {k: call(m, case, **given) for k, m in found.items()}

    return jax.jit(run)(case.x, case.a, case.y, case.context)


@pytest.mark.parametrize("name", LAYOUTS)
def test_is_the_formula(name):
    case = layout(name)
    for key, (_, oracle) in measured(case).items():
        close(together(name)[key], [oracle(Oracle(case, i)) for i in range(N)])


def of_part(start, stop, batch_size):
    """Random metrics of some samples of the images, as one program."""
    case, which = layout("images"), slice(start, stop)
    of = features.Segments(np.asarray(case.of.segmentation)[which], 7)
    options = {"features": of, "batch_size": batch_size}
    found = {
        "correlation": metrics.FaithfulnessCorrelation(size=2, runs=12, **options),
        "sensitivity n": metrics.SensitivityN(runs=6, sizes=(1, 2), **options),
        "random order": metrics.RegionPerturbation(order="random", regions=4, draws=2, **options),
        "noise": metrics.PixelFlipping(removal=removal.Noise(1.0), **options),
    }
    key = jax.random.split(jax.random.key(1), N)

    def run(x, a, y, key):
        return {k: m(case.predict, x, a, y, key=key) for k, m in found.items()}

    return jax.jit(run)(*(array[which] for array in (case.x, case.a, case.y, key)))


def test_a_sample_does_not_depend_on_others():
    """Nor on the size of batches. Sample 1 has fewer features than the others.

    `test_is_the_formula` says so of metrics that draw nothing, sample by sample.
    """
    whole, one = of_part(0, N, 7), of_part(1, 2, 64)
    for name, scores in whole.items():
        assert np.isfinite(scores).all(), name
        close(one[name], scores[1:2], rtol=1e-9)


def test_eager_float32_is_close_to_jit():
    case = layout("nodes")
    metric = measured(case)["selectivity"][0]
    edges = case.context["edges"].astype(np.float32)
    x, a = case.x.astype(np.float32), case.a.astype(np.float32)
    found = call(metric, case, inputs=x, attributions=a, context={"edges": edges})
    assert found.dtype == jnp.float32
    close(found, together("nodes")["selectivity"], rtol=1e-5)


W = np.array([3.0, -1.0, 2.0, 0.5, -2.0, 1.0, 0.25, 4.0])
X = np.array([[1.0, 2, 1, 1, 1, 3, 2, 1], [2.0, 1, -1, 1, 3, 1, 1, 1]])
SEVERAL = {
    "pixel flipping": metrics.PixelFlipping(score="logit"),
    "aopc": metrics.RegionPerturbation(
        features=ELEMENTS, removal=removal.Constant(), regions=4, score="logit"
    ),
    "selectivity": metrics.Selectivity(features=ELEMENTS, score="logit"),
    "correlation": metrics.FaithfulnessCorrelation(size=3, runs=20),
    "estimate": metrics.FaithfulnessEstimate(score="logit"),
    "monotonicity": metrics.Monotonicity(score="logit", summary="share"),
    "rank": metrics.MonotonicityCorrelation(score="logit", draws=20),
    "sensitivity n": metrics.SensitivityN(runs=10, sizes=(1, 3)),
    "irof": metrics.IROF(features=ELEMENTS, removal=removal.Constant(), score="logit"),
    "infidelity": metrics.Infidelity(features=ELEMENTS, kind="relevance"),
}


def linear(x):
    return x @ W.astype(x.dtype)


@functools.cache
def scores_of_linear():
    """Every metric of a linear model: of its exact relevance, of others, of none, of NaN."""
    exact = X * W
    noise = exact + 6 * jax.random.normal(jax.random.key(5), X.shape)
    several = {
        "exact": exact, "scaled": 3 * exact, "noisy": noise, "negative": -exact,
        "none": jnp.ones(X.shape), "nan": jnp.asarray(exact).at[1, 2].set(jnp.nan),
    }  # fmt: skip

    def run(a):
        return {k: m(linear, X, a, key=jax.random.key(0)) for k, m in SEVERAL.items()}

    found = jax.jit(jax.vmap(run))(jnp.stack(list(map(jnp.asarray, several.values()))))
    return {k: dict(zip(several, np.asarray(a), strict=True)) for k, a in found.items()}


@pytest.mark.parametrize("name", SEVERAL)
def test_directions_and_where_undefined(name):
    metric, found = SEVERAL[name], scores_of_linear()[name]
    better = 1 if metric.higher_is_better else -1
    assert (better * found["exact"] >= better * found["noisy"]).all()
    assert (better * found["exact"]).sum() > (better * found["noisy"]).sum()
    if name not in ("rank", "infidelity"):  # |a| alone; not a matter of order alone
        assert (better * found["exact"] > better * found["negative"]).all()
        close(found["scaled"], found["exact"], rtol=1e-9)
    if name != "infidelity":
        assert np.isnan(found["none"]).all()
    assert np.isnan(found["nan"]).tolist() == [False, True]
    low, high = metric.bounds
    for scores in found.values():
        kept = scores[np.isfinite(scores)]
        assert ((kept >= low) & (kept <= high)).all()


def test_exact_relevance_of_a_linear_model():
    found = scores_of_linear()
    for name in ("correlation", "estimate", "sensitivity n"):
        close(found[name]["exact"], [1, 1], rtol=1e-9)
        close(found[name]["negative"], [-1, -1], rtol=1e-9)
    np.testing.assert_allclose(found["infidelity"]["exact"], 0, atol=1e-12)
    close(found["infidelity"]["negative"], (4 * (X * W) ** 2).mean(axis=1))
    close(
        found["monotonicity"]["exact"][:1], [6 / 7]
    )  # the second of two negative ones lowers the score


def test_constant_outputs_are_undefined():
    """The output changes by rounding alone: a correlation with that would mean nothing."""

    def constant(x):
        return 0.1 + 1e-17 * x.sum(axis=1)

    names = ("correlation", "estimate", "rank", "sensitivity n")
    for name in names:
        assert np.isnan(SEVERAL[name](constant, X, X * W, key=jax.random.key(0))).all(), name


def test_curves():
    found = metrics.PixelFlipping(step=3, score="logit").curves(linear, X[:1], X[:1] * W)
    assert found.removed.tolist() == [0, 3, 6, 8]
    relevance = np.sort(np.asarray(X[0] * W))
    close(found.lerf[0], [relevance[k:].sum() for k in (0, 3, 6)] + [0], rtol=1e-9)
    close(found.morf[0], [relevance[: 8 - k].sum() for k in (0, 3, 6)] + [0], rtol=1e-9)


def test_random_removals_are_averaged():
    """E f is that with each removed value at the mean, 1/2; the order is that of the relevance."""
    metric = metrics.RegionPerturbation(features=ELEMENTS, regions=2, draws=500, score="logit")
    x = np.repeat(X[:1], 4, axis=0)
    found = metric(linear, x, x * W, key=jax.random.key(0))
    first, second = (W[7] * (X[0, 7] - 0.5), W[0] * (X[0, 0] - 0.5))
    expected = (first + first + second) / 3  # 4 at index 7 goes first, then 3 at 0 or at 5
    assert (abs(found - expected) < 0.2).all()
    assert metric.random
    fixed = metrics.RegionPerturbation(features=ELEMENTS, removal=removal.Constant(), draws=500)
    assert not fixed.random


@pytest.mark.parametrize("name", ["correlation", "sensitivity n", "infidelity"])
def test_the_model_is_evaluated_once_for_all_explanations(name):
    """Removals draw twice for each set. Samples differ in their features, and some values have none."""
    case = layout("images")
    options = {"features": case.of, "removal": removal.Uniform(), "draws": 2, "batch_size": 7}
    metric = {
        "correlation": metrics.FaithfulnessCorrelation(size=2, runs=6, **options),
        "sensitivity n": metrics.SensitivityN(sizes=(1, 3), runs=5, **options),
        "infidelity": metrics.Infidelity(**options),
    }[name]
    calls = []

    def predict(x):
        jax.debug.callback(lambda: calls.append(1))
        return case.predict(x)

    key = jax.random.key(3)
    prepared = metric.prepare(predict, case.x, case.y, key=key)
    jax.effects_barrier()
    assert calls
    calls.clear()
    scaled = (case.a, case.a**2, -case.a)
    found = [metric(predict, case.x, a, case.y, key=key, prepared=prepared) for a in scaled]
    jax.effects_barrier()
    assert not calls
    expected = [metric(case.predict, case.x, a, case.y, key=key) for a in scaled]
    close(found, expected)
    assert np.ptp(np.array(expected), axis=0).min() > 0.01
    few = prepared._replace(after=prepared.after[1:])
    with pytest.raises(ValueError, match=rf"prepared must be of these samples.*\({N}, "):
        metric(predict, case.x, case.a, case.y, key=key, prepared=few)
    with pytest.raises(TypeError, match=r"prepared must be what \w+\.prepare returns, got list"):
        metric(predict, case.x, case.a, case.y, key=key, prepared=[])


def test_random_order_is_the_mean_of_all_orders():
    metric = metrics.RegionPerturbation(
        features=ELEMENTS, removal=removal.Constant(), order="random", score="logit"
    )
    assert metric.higher_is_better is None
    x = jnp.broadcast_to(X[:1], (400, 8))
    found = metric(linear, x, jnp.ones(x.shape), key=jax.random.key(0))
    # On average k of 8 features are removed at step k, the same for all.
    assert abs(found.mean() - (X[0] @ W) / 2) < 0.2
    assert found.std() > 0.5


class TestRandomSets:
    def pairs(self, a, **options):
        metric = metrics.FaithfulnessCorrelation(**options)
        return metric.pairs(linear, X, a, key=jax.random.key(2))

    def test_sets_have_their_size_and_any_feature(self):
        ones = self.pairs(jnp.ones(X.shape), size=3, runs=400)
        assert (ones.attributions == 3).all()
        for feature in (0, 7):
            inside = self.pairs(jnp.zeros(X.shape).at[:, feature].set(1), size=3, runs=400)
            assert abs(inside.attributions.mean() - 3 / 8) < 0.05
        assert (ones.changes[0] / ones.changes[1]).std() > 0  # other sets for other samples
        close(ones.score, X @ W)

    def test_what_is_correlated(self):
        exact = self.pairs(X * W, size=3, runs=50)
        close(exact.attributions, exact.changes, rtol=1e-9)
        a = jnp.cos(X * W)
        found = self.pairs(a, size=3, runs=50)
        scores = metrics.FaithfulnessCorrelation(size=3, runs=50)(
            linear, X, a, key=jax.random.key(2)
        )
        expected = [
            np.corrcoef(*two)[0, 1] for two in zip(found.attributions, found.changes, strict=True)
        ]
        close(scores, expected)

    @pytest.mark.parametrize(("size", "expected"), [(None, 4), (8, 8), (20, 8)])
    def test_size(self, size, expected):
        assert (self.pairs(jnp.ones(X.shape), size=size, runs=2).attributions == expected).all()
        if size:
            found = metrics.FaithfulnessCorrelation(size=size, runs=5)
            with pytest.raises(ValueError, match=f"number of features, 8, got {size}"):
                found(linear, X, X * W, key=jax.random.key(0))

    def test_sizes_of_sensitivity_n(self):
        x = jnp.ones((1, 100))
        found = metrics.SensitivityN(runs=3).correlations(
            lambda x: x.sum(axis=1) ** 2, x, x.at[0, 0].set(2), key=jax.random.key(0)
        )
        assert found.sizes.tolist() == [np.round(80 ** np.linspace(0, 1, 8)).astype(int).tolist()]
        of_given = metrics.SensitivityN(sizes=[1, 8], runs=20).correlations(
            linear, X, X * W, key=jax.random.key(0)
        )
        close(of_given.correlations[:, 0], [1, 1], rtol=1e-9)
        assert np.isnan(of_given.correlations[:, 1]).all()  # one set of all eight


def test_monotonicity_of_all_steps():
    rising, falling = jnp.abs(X), jnp.abs(X).at[0, 0].set(-1.0)
    metric = metrics.Monotonicity(score="logit")
    assert metric(lambda x: jnp.abs(x).sum(axis=1), X, rising).tolist() == [1, 1]
    assert metric(lambda x: x @ jnp.abs(W).at[0].set(-0.5), X[:1], falling[:1]).tolist() == [1]
    # The feature that lowers the score, by 1.5, is put back last.
    assert metric(lambda x: x @ jnp.abs(W).at[5].set(-0.5), X[:1], rising[:1]).tolist() == [0]
    tolerant = metrics.Monotonicity(score="logit", tolerance=1.6)
    assert tolerant(lambda x: x @ jnp.abs(W).at[5].set(-0.5), X[:1], rising[:1]).tolist() == [1]
    assert np.isnan(
        metrics.Monotonicity(step=8)(lambda x: jnp.stack([x.sum(1)] * 2, 1), X, X, 0)
    ).all()


def test_irof_by_hand():
    segments = features.Segments(np.array([[0, 0, 0, 1, 2, 2, -1, -1]]))
    a = jnp.array([[1.0, 1, 1, 2, 0, 0, 9, 9]])
    metric = metrics.IROF(features=segments, removal=removal.Constant(), score="logit")
    # The mean decides: segment 1, then 0, then 2. f: 8, 7, 4, 2.
    found = metric(lambda x: x.sum(axis=1), jnp.ones((1, 8)), a)
    close(found, [3 - (8 / 2 + 7 + 4 + 2 / 2) / 8])
    assert np.isnan(metric(lambda x: -x.sum(axis=1), jnp.ones((1, 8)), a)).all()


class TestROAD:
    MODEL = staticmethod(lambda x: jnp.stack([x[:, :2].sum(axis=1), jnp.full(len(x), 1.5)], axis=1))

    def test_by_hand(self):
        x, a = jnp.ones((2, 4)), jnp.array([[4.0, 3, 2, 1], [1.0, 2, 3, 4]])
        metric = metrics.ROAD(
            features=ELEMENTS, removal=removal.Constant(), percentages=(0, 49, 74, 75)
        )
        # Removed 0, 1, 2, 3 of 4: sample 0 loses its class at once, sample 1 at 75%.
        assert metric(self.MODEL, x, a, 0).tolist() == [0.25, 0.75]
        found = metric.accuracy(self.MODEL, x, a, 0)
        assert found.morf.tolist() == [1, 0.5, 0.5, 0]
        assert found.lerf.tolist() == [1, 0.5, 0.5, 0]
        assert found.percentages.tolist() == [0, 49, 74, 75]
        between = dataclasses.replace(metric, order="between")
        assert between(self.MODEL, x, a, 0).tolist() == [0.5, -0.5]
        assert between.higher_is_better
        assert not metric.higher_is_better
        missing = metric.accuracy(self.MODEL, x, a.at[0].set(1.0), 0)
        assert missing.morf.tolist() == [1, 1, 1, 0]  # sample 0 has no order

    def test_noisy_linear_imputation(self):
        """The four pixels removed of a smooth image come back, but for the noise."""
        x = np.linspace(0, 1, 36).reshape(1, 6, 6, 1)

        def model(changed):
            far = jnp.abs(changed - x)
            good = (far.max((1, 2, 3)) < 0.05) & ((far > 0).sum((1, 2, 3)) == 4)
            good &= (far[:, 2:4, 2:4] > 0).all((1, 2, 3))
            return jnp.stack([good.astype(x.dtype), jnp.full(len(changed), 0.5)], axis=1)

        a = np.zeros((1, 6, 6, 1))
        a[0, 2:4, 2:4, 0] = [[1, 2], [3, 4]]
        metric = metrics.ROAD(percentages=(4 / 36 * 100 + 0.1,))
        assert metric(model, x, a, 0, key=jax.random.key(0)).tolist() == [1]
        sharp = dataclasses.replace(metric, removal=removal.Linear((0, 1), noise=0.5))
        assert sharp(model, x, a, 0, key=jax.random.key(0)).tolist() == [0]

    def test_needs_classes(self):
        with pytest.raises(
            ValueError, match=r"at least two classes, got \(2,\); use PixelFlipping"
        ):
            metrics.ROAD(features=ELEMENTS, removal=removal.Constant())(linear, X, X)


class TestInfidelity:
    def test_scaled(self):
        gradient = jnp.broadcast_to(W, X.shape)
        options = {"features": ELEMENTS, "removal": removal.Constant(-1.0)}
        plain, scaled = metrics.Infidelity(**options), metrics.Infidelity(scaled=True, **options)
        close(plain(linear, X, 3 * gradient), (4 * ((X + 1) * W) ** 2).mean(axis=1), rtol=1e-9)
        np.testing.assert_allclose(scaled(linear, X, 3 * gradient), 0, atol=1e-12)
        assert (scaled(linear, X, jnp.cos(gradient * X)) > 1).all()
        assert np.isfinite(scaled(linear, X, 0 * gradient)).all()

    def test_ids_have_no_difference(self):
        case = layout("tokens")
        with pytest.raises(TypeError, match=r'inputs are int64: .* Infidelity\(kind="relevance"\)'):
            call(metrics.Infidelity(features=ELEMENTS), case)


class TestSufficiency:
    A = np.random.default_rng(4).normal(size=(9, 3, 2)) * np.array([1, 20.0])
    X = np.random.default_rng(5).normal(size=(9, 3, 2))

    @pytest.mark.parametrize("threshold", [0.3, 0.6])
    def test_is_the_formula(self, threshold):
        flat = self.A.reshape(9, -1)
        distance = cdist(flat, flat, "seuclidean", V=flat.var(axis=0))
        near = (distance / distance.max() <= threshold) & ~np.eye(9, dtype=bool)
        classes = self.X[..., 0].argmax(axis=1)
        expected = [np.mean(classes[row] == c) if row.any() else np.nan
                    for row, c in zip(near, classes, strict=True)]  # fmt: skip
        metric = metrics.Sufficiency(threshold=threshold, batch_size=4)
        found = metric(lambda x: x[..., 0], self.X, self.A, np.zeros(9, int))
        np.testing.assert_allclose(found, expected, rtol=1e-10)

    def test_left_out_and_undefined(self):
        metric = metrics.Sufficiency(threshold=1.0)
        a = np.concatenate([self.A, np.full((1, 3, 2), np.nan)])
        x = np.concatenate([self.X, self.X[:1]])
        found = metric(lambda x: x[:, 0, 0], x, a)
        positive = self.X[:, 0, 0] > 0
        close(found[:9], [((positive == p).sum() - 1) / 8 for p in positive])
        assert np.isnan(found[9])
        assert np.isnan(metric(lambda x: x[:, 0, 0], x, np.ones(a.shape))).all()

    def test_needs_the_set(self):
        with pytest.raises(ValueError, match="pass the whole set in one call, got one sample"):
            metrics.Sufficiency()(lambda x: x[:, 0, 0], self.X[:1], self.A[:1])


PEARSON, SPEARMAN = jax.jit(pearson), jax.jit(spearman)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=6, max_size=6
    )
)
def test_correlations_are_those_of_scipy(triples):
    """With ties, and of a part of the values."""
    a, b, where = (np.array(column, float) for column in zip(*triples, strict=True))
    kept = where > 0
    x, y = a[kept], b[kept]
    defined = kept.sum() > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
    for ours, theirs in [(PEARSON, scipy.stats.pearsonr), (SPEARMAN, scipy.stats.spearmanr)]:
        found = float(ours(a, b, kept))
        if defined:
            assert abs(found - theirs(x, y).statistic) < 1e-12
        else:
            assert math.isnan(found)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: metrics.PixelFlipping(step=0), ValueError, "step must be an integer >= 1, got 0"),
        (lambda: metrics.PixelFlipping(order="x"), ValueError, "order must be one of 'between', 'morf'"),
        (lambda: metrics.PixelFlipping(score="x"), ValueError, "score must be one of 'probability'"),
        (lambda: metrics.PixelFlipping(batch_size=0), ValueError, "batch_size must be an integer >= 1"),
        (lambda: metrics.PixelFlipping(features=(0, 1)), TypeError, "features must be a value of"),
        (lambda: metrics.PixelFlipping(removal=0.0), TypeError, r"write removal\.Constant\(number\)"),
        (lambda: metrics.RegionPerturbation(regions=0), ValueError, "regions must be an integer >= 1"),
        (lambda: metrics.RegionPerturbation(order="between"), ValueError, "'lerf', 'random', got"),
        (lambda: metrics.RegionPerturbation(draws=0), ValueError, "draws must be an integer >= 1"),
        (lambda: metrics.FaithfulnessCorrelation(runs=1), ValueError, "runs must be an integer >= 2"),
        (lambda: metrics.FaithfulnessCorrelation(size=0), ValueError, "size must be an integer >= 1"),
        (lambda: metrics.FaithfulnessEstimate(step=0), ValueError, "step must be an integer >= 1"),
        (lambda: metrics.MonotonicityCorrelation(step=0), ValueError, "step must be an integer >= 1"),
        (lambda: metrics.Monotonicity(step=0), ValueError, "step must be an integer >= 1"),
        (lambda: metrics.Monotonicity(summary="any"), ValueError, "summary must be one of 'all', 'share'"),
        (lambda: metrics.Monotonicity(tolerance=-1.0), ValueError, r"tolerance must be >= 0, got -1\.0"),
        (lambda: metrics.SensitivityN(sizes=()), ValueError, r"at least one size of a set, got \(\)"),
        (lambda: metrics.SensitivityN(sizes=(0,)), ValueError, "sizes must be an integer >= 1, got 0"),
        (lambda: metrics.SensitivityN(runs=1), ValueError, "runs must be an integer >= 2"),
        (lambda: metrics.IROF(), TypeError, "features"),
        (lambda: metrics.ROAD(percentages=(101,)), ValueError, r"in \[0, 100\], got \(101,\)"),
        (lambda: metrics.ROAD(percentages=10), TypeError, "percentages must be a sequence .* got 10"),
        (lambda: metrics.SensitivityN(sizes=3), TypeError, "sizes must be a sequence such as .* got 3"),
        (lambda: metrics.PixelFlipping()(nn.Dense(2), X, X), TypeError, "got Dense; for a Linen module"),
        (lambda: metrics.Sufficiency()(nn.Dense(2), X, X), TypeError, "got Dense; for a Linen module"),
        (
            lambda: metrics.PixelFlipping(removal=removal.Constant("black"))(linear, X, X),
            TypeError,
            "value of removal.Constant must be a number or an array, got the string 'black'",
        ),
        (lambda: removal.Blur(None), ValueError, "sigma must be a number > 0, got None"),
        (lambda: removal.Noise("1"), TypeError, "std must be a number >= 0, got the string '1'"),
        (lambda: removal.Uniform("0"), TypeError, "low must be a number .* got the string '0'"),
        (lambda: metrics.ROAD(percentages=()), ValueError, r"one or more numbers in \[0, 100\], got \(\)"),
        (lambda: metrics.ROAD(order="all"), ValueError, "order must be one of 'morf', 'lerf', 'between'"),
        (lambda: metrics.Infidelity(kind="lrp"), ValueError, "kind must be one of 'sensitivity'"),
        (lambda: metrics.Sufficiency(threshold=2), ValueError, r"threshold must be in \[0, 1\], got 2"),
        (
            lambda: metrics.RegionPerturbation()(linear, X, X, key=jax.random.key(0)),
            ValueError,
            r"axis 1 of features\.Blocks does not exist: an example has shape \(8,\)",
        ),
        (
            lambda: metrics.PixelFlipping()(lambda x: x.sum(1), X, X),
            ValueError,
            "has no probability: use score='logit'",
        ),
        (
            lambda: metrics.RegionPerturbation(features=ELEMENTS)(linear, X, X),
            TypeError,
            r"RegionPerturbation draws random numbers: pass key=jax\.random\.key\(0\)",
        ),
        (
            lambda: metrics.FaithfulnessEstimate()(linear, X, X[:, :4]),
            ValueError,
            r"attributions must have the shape of the inputs, \(2, 8\)",
        ),
        (
            lambda: metrics.FaithfulnessEstimate()(lambda x: x, X, X, 8),
            IndexError,
            r"targets\[0\] = 8 is out of range: the model has 8 classes",
        ),
    ],
)  # fmt: skip
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("order", ["between", "morf", "lerf"])
def test_a_step_that_removes_everything_is_undefined(order):
    """For a sample with fewer features than others; for all samples it is a mistake."""
    x, w = jnp.ones((2, 3)), jnp.arange(3.0)
    labels = np.array([[0, 1, 2], [0, 0, 1]])
    options = {"step": 2, "order": order, "score": "logit"}
    flip = metrics.PixelFlipping(features=features.Segments(labels), **options)
    assert np.isfinite(flip(lambda x: x @ w, x, x * w)).tolist() == [True, False]
    assert np.isfinite(metrics.PixelFlipping(**options)(lambda x: x @ w, x, x * w)).all()
    with pytest.raises(ValueError, match="step must be less than the number of features, 3, got 3"):
        metrics.PixelFlipping(**options | {"step": 3})(lambda x: x @ w, x, x * w)
    with pytest.raises(ValueError, match="size must be less than the number of features, 3, got 4"):
        metrics.FaithfulnessCorrelation(size=4)(lambda x: x @ w, x, x * w, key=jax.random.key(0))


def test_a_sample_without_regions_is_undefined():
    of = features.Segments(jnp.array([[0, 0, 1], [-1, -1, -1]]))
    aopc = metrics.RegionPerturbation(features=of, order="random", draws=2, score="logit")
    x = jnp.ones((2, 3))
    found = aopc(lambda x: x.sum(axis=1), x, x, key=jax.random.key(0))
    assert np.isfinite(found).tolist() == [True, False]


def test_one_logit_has_no_probability():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="one number for each sample, which has no probability"):
        metrics.PixelFlipping()(lambda x: x.sum(axis=1, keepdims=True), x, x, 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sensitivity", r"must have the shape of the inputs, \(1, 2, 2, 3\)"),
        ("relevance", "have one value along axis 2"),
    ],
)
def test_infidelity_counts_no_attribution_twice(kind, message):
    x = jnp.ones((1, 2, 2, 3))
    infidelity = metrics.Infidelity(features=ELEMENTS, kind=kind)
    with pytest.raises(ValueError, match=message):
        infidelity(lambda x: x.sum(axis=(1, 2, 3)), x, x[..., :1])


@pytest.mark.parametrize(
    "made",
    [
        metrics.Monotonicity(),
        metrics.NonSensitivity(),
        metrics.ROAD(features=ELEMENTS, removal=removal.Constant(0.0), percentages=(50,)),
    ],
    ids=lambda made: made.name,
)
def test_outputs_that_are_nan(made):
    x = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    broken = jnp.array([[False], [True]])

    def predict(x, broken):
        return jnp.where(broken, jnp.nan, x)

    found = made(predict, x, x, jnp.array([0, 0]), context={"broken": broken})
    assert np.isnan(found).tolist() == [False, True]


def test_sizes_and_axes_of_numpy_are_numbers():
    assert features.Blocks(np.int64(0), np.int64(2)) == features.Blocks(0, 2)


def test_outputs_must_be_those_of_the_samples():
    x = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"one row for each of 4 samples, .* got \(1, 3\)"):
        metrics.PixelFlipping()(lambda x: x.sum(axis=0, keepdims=True), x, x, 0)
