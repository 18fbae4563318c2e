"""Clusters, anomalies, regressions with a reference: formulas in NumPy, exact sums, scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.cluster
import sklearn.datasets
import sklearn.mixture
import sklearn.neighbors
import sklearn.svm
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxlrp as lrp
from jaxlrp import composites, heads, metrics

pytestmark = pytest.mark.usefixtures("x64")

X = np.random.default_rng(0).normal(size=(40, 6))
CENTERS = np.random.default_rng(1).normal(size=(4, 6))
LABELS = np.arange(40) % 4


def sums_to_output(result, target=None):
    """Float64: a few operations on numbers of order one."""
    outputs = np.asarray(result.output)
    explained = outputs if target is None else np.take_along_axis(outputs, target[:, None], 1)[:, 0]
    np.testing.assert_allclose(
        result.relevance.sum(-1), explained.reshape(-1), rtol=1e-9, atol=1e-9
    )


def softmin(h):
    e = np.exp(-(h - h.min()))
    return e / e.sum()


def test_kmeans():
    """The midpoint rule of the paper, sample by sample."""
    beta = 0.3
    result = heads.explain(heads.kmeans(CENTERS, beta))(X, target=LABELS)
    for x, c, r, f in zip(X, LABELS, result.relevance, result.output, strict=True):
        others = [k for k in range(4) if k != c]
        w = 2 * (CENTERS[c] - CENTERS[others])
        middle = (CENTERS[c] + CENTERS[others]) / 2
        z = (x - middle) * w
        h = z.sum(1)
        expected = (z / h[:, None] * softmin(beta * h)[:, None] * h.min()).sum(0)
        np.testing.assert_allclose(r, expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(f[c], h.min(), rtol=1e-9)
    sums_to_output(result, LABELS)


def test_default_beta_is_a_scale_of_the_centers():
    between = ((CENTERS[:, None] - CENTERS) ** 2).sum(-1) + np.diag([np.inf] * 4)
    assert float(heads.kmeans(CENTERS).beta) == pytest.approx(1 / between.min(1).mean())


def test_kernel_kmeans():
    points, labels, gamma = X[:9], np.arange(9) % 3, 0.7
    target = np.arange(31) % 3
    result = heads.explain(heads.kernel_kmeans(points, labels, gamma))(X[9:], target=target)
    for x, c, r, f in zip(X[9:], target, result.relevance, result.output, strict=True):
        terms = (x - points) ** 2
        d = terms.sum(1)
        cost = np.array([-np.log(np.exp(-gamma * d[labels == k]).mean()) / gamma for k in range(3)])
        soft = np.array([softmin(gamma * d[labels == k]) @ terms[labels == k] for k in range(3)])
        others = [k for k in range(3) if k != c]
        h = cost[others] - cost[c]
        gaps = soft[others] - soft[c]
        shares = softmin(gamma * h) * h.min() / gaps.sum(1)
        np.testing.assert_allclose(r, shares @ gaps, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(f[c], h.min(), rtol=1e-9)
    sums_to_output(result, target)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_of_scikit_learn(kind):
    """Log odds of its posterior; relevance sums to them where weights and determinants are the same."""
    fit = sklearn.mixture.GaussianMixture(
        3, covariance_type=kind, reg_covar=0.3, random_state=0
    ).fit(X)
    head = heads.fitted(fit)
    p = fit.predict_proba(X)
    inside = (p > 1e-6) & (p < 1 - 1e-6)  # where 1 - p has digits left
    assert inside.sum() > 20
    np.testing.assert_allclose(
        np.asarray(head(X))[inside], np.log(p / (1 - p))[inside], rtol=1e-7, atol=1e-7
    )
    same = heads.gaussian_mixture(fit.means_, np.full((3, 6), 0.5), np.full(3, 1 / 3))
    sums_to_output(heads.explain(same)(X, target=LABELS % 3), LABELS % 3)


def test_mixture_of_correlated_features():
    """Energies of a full covariance, in plain NumPy; what is due to the offsets belongs to no feature."""
    rng = np.random.default_rng(2)
    factors = rng.normal(size=(2, 6, 6))
    covariances = factors @ factors.swapaxes(1, 2) + np.eye(6)
    head = heads.gaussian_mixture(CENTERS[:2], covariances, [0.2, 0.8])
    result = heads.explain(head)(X, target=0)
    d = X[:, None] - CENTERS[:2]
    energies = d * np.einsum("kij,nkj->nki", np.linalg.inv(covariances), d) / 2
    f = np.asarray(result.output)[:, 0]
    np.testing.assert_allclose(
        result.relevance, energies[:, 1] - energies[:, 0], rtol=1e-9, atol=1e-9
    )  # two components: R_1 = f = h_1, and its coefficient is one
    offset = np.log(0.2 / 0.8) - np.subtract(*np.linalg.slogdet(covariances)[1]) / 2
    np.testing.assert_allclose(result.relevance.sum(1) + offset, f, rtol=1e-9)


def test_kernel_density():
    gamma, weights = 0.4, np.arange(1.0, 31.0)
    result = heads.explain(heads.kernel_density(X[:30], gamma, weights))(X[30:])
    for x, r, o in zip(X[30:], result.relevance, result.output, strict=True):
        terms = (x - X[:30]) ** 2
        d, w = terms.sum(1), weights / weights.sum()
        expected = -np.log(w @ np.exp(-gamma * d)) / gamma
        p = w * np.exp(-gamma * d)
        p = p / p.sum()
        np.testing.assert_allclose(o, expected, rtol=1e-9)
        np.testing.assert_allclose(r, expected * (p / d) @ terms, rtol=1e-8)
    sums_to_output(result)


def test_training_samples_are_explained_by_the_others():
    result = heads.explain(heads.kernel_density(X, 0.4))(X)
    sums_to_output(result)
    assert np.abs(result.relevance).max() < 100
    alone = heads.explain(heads.kernel_density(X[:1], 0.4))(X[:1])
    assert np.asarray(alone.relevance).tolist() == [[0.0] * 6]


def test_estimators_of_scikit_learn_agree():
    fit = sklearn.cluster.KMeans(4, n_init=1, random_state=0).fit(X)
    assert np.array_equal(np.asarray(heads.fitted(fit)(X)).argmax(1), fit.predict(X))
    assert np.array_equal((np.asarray(heads.fitted(fit)(X)) > 0).argmax(1), fit.predict(X))

    density = sklearn.neighbors.KernelDensity(bandwidth=0.8).fit(X, sample_weight=np.arange(1, 41))
    o = heads.fitted(density)(X[:7] + 0.1)
    constant = density.score_samples(X[:7] + 0.1) + np.asarray(o) / (2 * 0.8**2)
    assert np.ptp(constant) < 1e-6  # its tree stops at a relative 1e-8

    for gamma in ("scale", 0.2):
        machine = sklearn.svm.OneClassSVM(gamma=gamma, nu=0.3).fit(X)
        head = heads.fitted(machine)
        outlier = np.asarray(head(X)) > float(head.boundary)
        margin = np.abs(machine.decision_function(X)) > 1e-6  # support vectors lie on the boundary
        assert np.array_equal(outlier[margin], machine.predict(X)[margin] < 0)
        assert 0 < outlier.sum() < 40


def test_regression():
    rng = np.random.default_rng(3)
    weight, reference = rng.normal(size=(6, 2)), rng.normal(size=(2, 6))
    result = heads.explain(heads.regression(weight, reference))(X, target=1)
    np.testing.assert_allclose(result.relevance, (X - reference[1]) * weight[:, 1], rtol=1e-9)
    np.testing.assert_allclose(
        result.output, X @ weight - np.diag(reference @ weight), rtol=1e-9, atol=1e-12
    )
    sums_to_output(result, np.ones(40, int))


def encoder():
    w, v = (jax.random.normal(jax.random.key(i), (6, 6)) for i in (1, 2))
    return lrp.explain(
        lambda w, x: jax.nn.relu(x @ w) @ v, composites.all_epsilon(0.0), argnums=1
    ), w


@pytest.mark.parametrize(
    "head", [heads.kmeans(CENTERS), heads.kernel_density(X, 0.1), heads.distance(CENTERS[0])]
)
def test_on_a_network(head):
    """The relevance of the features, and LRP below; jit, singles and vmap agree with the batch."""
    explainer, w = encoder()
    explain = heads.explain(head, explainer)
    features = explainer.model.call(w, X)
    target = lrp.targets.predicted if jnp.ndim(head(features)) == 2 else None
    result = explain(w, X, target=target)
    np.testing.assert_array_equal(result.output, head(features))
    top = heads.explain(head)(features, target=target).relevance
    expected = explainer(w, X, target=top).relevance
    np.testing.assert_allclose(result.relevance, expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(result.relevance.sum(1), top.sum(1), rtol=1e-7)

    jitted = jax.jit(lambda w, x: explain(w, x, target=target).relevance)
    np.testing.assert_allclose(jitted(w, X), result.relevance, rtol=1e-8, atol=1e-9)
    single = jax.vmap(lambda x: explain(w, x[None], target=target).relevance[0])(X)
    np.testing.assert_allclose(single, result.relevance, rtol=1e-8, atol=1e-9)


def test_a_changed_head_needs_no_new_program():
    explainer, w = encoder()
    first = heads.explain(heads.kmeans(CENTERS), explainer)(w, X, target=0)
    second = heads.explain(heads.kmeans(CENTERS[::-1].copy()), explainer)(w, X, target=3)
    np.testing.assert_allclose(first.relevance, second.relevance, rtol=1e-9, atol=1e-10)


def test_relevance_is_differentiable():
    """The derivative of a membership's relevance is that by finite differences."""
    explain = heads.explain(heads.kmeans(CENTERS, 0.5))

    def loss(x):
        return jnp.sin(explain(x[None], target=1).relevance).sum()

    step = 1e-6 * np.eye(6)
    x = jnp.asarray(X[0])
    finite = [(loss(x + s) - loss(x - s)) / 2e-6 for s in step]
    np.testing.assert_allclose(jax.grad(loss)(x), finite, rtol=1e-5, atol=1e-7)


def test_metrics_take_heads():
    explain = heads.explain(heads.kmeans(CENTERS))
    found = metrics.evaluate(
        {"NEON": explain, "random": metrics.controls.Random()}, [metrics.PixelFlipping()],
        (X, LABELS), key=jax.random.key(0), progress="none",
    )  # fmt: skip
    assert found.table().rank[:, 0].tolist() == [1.0, 2.0]


def mixture(covariances, weights):
    return heads.gaussian_mixture(CENTERS, covariances, weights)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: heads.kmeans(CENTERS[:1]), ValueError, "centers must be two at the least"),
        (lambda: heads.kmeans(CENTERS[[0, 1, 0]]), ValueError, "center 0 stands twice"),
        (lambda: heads.kmeans(CENTERS[0]), ValueError, r"centers must have shape \(clusters, features\)"),
        (lambda: heads.kmeans(CENTERS * np.nan), ValueError, "24 that are NaN or infinite"),
        (lambda: heads.kmeans(CENTERS, beta=-1.0), ValueError, "beta must be positive"),
        (lambda: heads.kmeans(CENTERS, beta=[1.0, 2.0]), TypeError, "beta must be a number"),
        (lambda: heads.kernel_kmeans(X, LABELS[:3], 1.0), ValueError, r"shape \(40,\), one for each point"),
        (lambda: heads.kernel_kmeans(X, LABELS * 2, 1.0), ValueError, "each with a point"),
        (lambda: heads.kernel_density(X, 1.0, -np.ones(40)), ValueError, "weights must be >= 0"),
        (lambda: mixture(np.eye(6)[:5], np.ones(4)), ValueError, "covariances of 4"),
        (lambda: mixture(-np.ones((4, 6)), np.ones(4)), ValueError, "variance <= 0"),
        (lambda: mixture(-np.eye(6), np.ones(4)), ValueError, "positive definite"),
        (lambda: mixture(np.ones(4), np.ones(3)), ValueError, "weights must be positive"),
        (lambda: heads.regression(np.ones(6), np.ones(5)), ValueError, "reference must have shape"),
        (lambda: heads.mean_of_nearest(X, np.ones(40), 0.0, 41), ValueError, "number of samples, 40"),
        (lambda: heads.mean_of_nearest(X, np.ones(3), 0.0), ValueError, "one for each sample"),
        (lambda: heads.mean_of_nearest(X, X[:, 0], 99.0), ValueError, "value must lie between the predic"),
        (lambda: heads.explain(CENTERS), TypeError, "head must be a head such as"),
        (lambda: heads.explain(heads.kmeans(CENTERS), lambda x: x), TypeError, "result of jaxlrp.explain"),
        (
            lambda: heads.explain(heads.kmeans(CENTERS), lrp.explain(lambda x: x, start="relu")),
            ValueError, "leave out start",
        ),
        (lambda: heads.explain(heads.kmeans(CENTERS))(X[:, :5], target=0), ValueError, r"shape \(N, 6\)"),
        (lambda: heads.explain(heads.kmeans(CENTERS))(X, target=4), IndexError, "out of range"),
        (
            lambda: heads.explain(heads.kernel_density(X, 1.0))(X, target=5),
            ValueError, "target must be None, got a class: this head has one output for each sample",
        ),
        (
            lambda: lrp.explain(heads.kmeans(CENTERS)),
            TypeError, r"fun is a KMeans, whose relevance is known: write jaxlrp\.heads\.explain\(head\)",
        ),
        (lambda: heads.fitted(sklearn.cluster.DBSCAN()), TypeError, "must be a fitted KMeans"),
        (lambda: heads.fitted(sklearn.cluster.KMeans()), ValueError, "must be fitted"),
        (lambda: heads.fitted(sklearn.cluster.KMeans), TypeError, "got the class KMeans"),
        (
            lambda: heads.fitted(make_pipeline(StandardScaler(), sklearn.cluster.KMeans(2)).fit(X)),
            TypeError, "got Pipeline: pass its last step",
        ),
        (
            lambda: heads.fitted(sklearn.svm.OneClassSVM(kernel="linear").fit(X)),
            ValueError, "kernel='rbf', got kernel='linear'",
        ),
        (
            lambda: heads.fitted(sklearn.neighbors.KernelDensity(kernel="tophat").fit(X)),
            ValueError, "kernel='gaussian'",
        ),
    ],
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Training without biases.


@pytest.fixture(scope="module")
def diabetes():
    """Standardized features and targets, of which the first half is for training."""
    data = sklearn.datasets.load_diabetes()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order], data.target[order]
    return (x - x[:221].mean(0)) / x[:221].std(0), (y - y[:221].mean()) / y[:221].std()


def network(params, x):
    hidden = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"])
    return (hidden @ params["last"]["kernel"] + params["last"]["bias"])[:, 0]


def retrained(seed, x, y):
    keys = jax.random.split(jax.random.key(seed))
    sizes = ((10, 16), (16, 1))
    first, last = (
        {"kernel": jax.random.normal(k, s) / np.sqrt(s[0]), "bias": jnp.ones(s[1])}
        for k, s in zip(keys, sizes, strict=True)
    )
    given = {"first": first, "last": last}
    params, optimizer = heads.without_biases(given, optax.adam(1e-2))
    assert (given["first"]["bias"] == 1).all()

    def step(held, _):
        params, state = held
        g = jax.grad(lambda p: ((network(p, x) - y) ** 2).mean())(params)
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, 60)[0][0])(params)


@pytest.mark.promotes("optax.adam counts steps in integers")
def test_retrained_without_biases_relevance_of_inputs_sums_to_the_difference(diabetes):
    """1e-9: epsilon is 1e-12 of sums of order one. Another reference is another question."""
    x, y = diabetes
    explain = lrp.explain(network, composites.all_epsilon(1e-12), argnums=1)
    for seed in range(3):
        maps = []
        for reference in (-1.0, 0.0, 1.0):
            params = retrained(seed, x[:221], y[:221] - reference)
            assert not any(np.any(layer["bias"]) for layer in params.values())
            result = explain(params, x[221:])
            np.testing.assert_allclose(result.relevance.sum(1), result.output, rtol=1e-9, atol=1e-9)
            assert network(params, jnp.zeros((1, 10))) == 0
            maps.append(np.asarray(result.relevance))
        low, mean, high = maps
        # seen: .68 to .82 of patients (most relevant feature), .35 to .39 of signs, correlation .66 to .70
        assert (low.argmax(1) != high.argmax(1)).mean() > 0.35
        assert (np.sign(low) != np.sign(high)).mean() > 0.2
        assert np.corrcoef(mean.sum(1), y[221:])[0, 1] > 0.4


def test_which_parameters_are_biases_may_be_said():
    params = [(jnp.ones((2, 3)), jnp.ones(3))]
    zeroed, optimizer = heads.without_biases(params, optax.sgd(1.0), lambda _, a: a.ndim == 1)
    updates, _ = optimizer.update(params, optimizer.init(zeroed))
    np.testing.assert_array_equal(zeroed[0][1], 0)
    np.testing.assert_array_equal(updates[0][1], 0)
    np.testing.assert_array_equal(updates[0][0], -1)
    with pytest.raises(
        ValueError, match=r"none of the parameters is a bias: \[0\]\[0\], \[0\]\[1\]\. Give"
    ):
        heads.without_biases(params, optax.sgd(1.0))
