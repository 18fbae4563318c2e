"""Virtual units: circuits of a unit, and the clusters that they form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

import jaxlrp as lrp
from jaxlrp import concepts

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")

LOWER, UPPER = (concepts.Channels(name, axis=-1) for name in ("relu", "w"))


def network(x, w):
    """Units that are weighted sums of non-negative lower units, at each position."""
    return jnp.tanh(jax.nn.relu(x) @ w).sum(axis=1)


def by_hand(x, w, unit):
    """LRP-0 from relu(a_j) at all positions to the lower units, by the formula."""
    h = np.maximum(x, 0)
    z = h @ w[:, unit]
    start = np.maximum(z, 0)
    share = h * w[:, unit] / np.where(z == 0, 1, z)[..., None]
    r = (share * start[..., None]).sum(axis=1)
    return r / np.abs(r).sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def positions():
    """(5 samples, 3 positions, 4 lower units) and weights of 2 units, of both signs."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 3, 4)), rng.normal(size=(4, 2))


def test_circuits_by_hand(positions):
    x, w = positions
    circuits = concepts.unit_circuits(lrp.explain(network, lrp.LRP0()), UPPER, LOWER)
    a = np.maximum(x, 0) @ w
    assert (a[..., 1] < 0).any()  # so that the positive part matters
    close(circuits(x, w, unit=1), by_hand(x, w, 1), rtol=1e-10)
    own = np.array([1, 0, 0, 1, 0])
    both = np.stack([by_hand(x, w, j) for j in range(2)])
    close(circuits(x, w, unit=own), both[own, np.arange(5)], rtol=1e-10)


def test_only_the_layer_below_is_computed():
    """The backward pass below the lower layer, as costly as the forward pass, is left out."""
    below = jnp.ones((400, 400))

    def deep(x):
        x = jax.nn.relu(x @ below @ below @ below)
        return jnp.tanh(x[:, :8] @ jnp.ones((8, 2))).sum(axis=1)

    upper = concepts.Channels("tanh", axis=-1)
    circuits = concepts.unit_circuits(lrp.explain(deep, lrp.LRP0()), upper, LOWER)
    x = jnp.ones((50, 400))

    def flops(function):
        return jax.jit(function).lower(x).compile().cost_analysis()["flops"]

    assert flops(lambda x: circuits(x, unit=0)) < 1.2 * flops(deep)


def test_two_disjoint_circuits():
    rng = np.random.default_rng(0)
    w = jnp.array([1.0, 1, 0, 0, 1, 1])[:, None]
    truth = np.repeat([0, 1], 50)
    x = rng.uniform(0, 0.1, (100, 1, 6))
    x[truth == 0, :, :2] += rng.uniform(0.8, 1.2, (50, 1, 2))
    x[truth == 1, :, 4:] += rng.uniform(0.8, 1.2, (50, 1, 2))
    x[:, :, 2:4] += 5 * rng.integers(0, 2, (100, 1, 1))  # active, and not used by the unit
    explain = lrp.explain(network, lrp.Epsilon())
    vectors = concepts.unit_circuits(explain, UPPER, LOWER)(x, w, unit=0)
    units = concepts.purify(vectors)
    assert len(units) == 2  # by silhouette, of 2 to 5
    assert adjusted_rand_score(truth, units.labels) == 1.0
    active = concepts.scores(explain, LOWER)(x, w).activation
    assert abs(adjusted_rand_score(truth, concepts.purify(active, 2).labels)) < 0.05
    new = concepts.unit_circuits(explain, UPPER, LOWER)(x[[0, 99]] * 2, w, unit=0)
    assert units.assign(new).tolist() == units.labels[[0, 99]].tolist()


def test_scikit_learn_agrees():
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(c, 0.5, (n, 3)) for c, n in ((0, 10), (4, 30), (8, 20))])
    units = concepts.purify(x)
    theirs = {k: KMeans(k, n_init=10, random_state=0).fit(x) for k in (2, 3, 4, 5)}
    expected = [silhouette_score(x, model.labels_) for model in theirs.values()]
    close(list(units.silhouette.values()), expected, rtol=1e-12)
    assert len(units) == 3
    assert adjusted_rand_score(theirs[3].labels_, units.labels) == 1.0
    assert np.bincount(units.labels).tolist() == [30, 20, 10]
    new = rng.normal(4, 5, (50, 3))
    at = np.asarray(jax.jit(units.assign)(new))
    nearest = theirs[3].cluster_centers_[theirs[3].predict(new)]
    close(units.centers[at], nearest, rtol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "n_clusters", "message"),
    [
        (np.ones((8, 2)), (2, 3), r"vectors has 1 different samples, too few for n_clusters"),
        (np.eye(3), 3, r"vectors has 3 different samples, too few for n_clusters=3"),
        (np.eye(3), 1, r"n_clusters must be >= 2"),
        (np.eye(3), (), r"n_clusters must be >= 2"),
        (np.ones(3), 2, r"vectors must be floats of shape \(samples, d\)"),
        (np.full((8, 2), np.nan), 2, r"vectors must be finite, got NaN or inf"),
    ],
)
def test_bad_vectors(vectors, n_clusters, message):
    with pytest.raises(ValueError, match=message):
        concepts.purify(vectors, n_clusters)


def test_bad_calls(positions):
    x, w = positions
    explain = lrp.explain(network, lrp.LRP0())
    circuits = concepts.unit_circuits(explain, UPPER, LOWER)
    with pytest.raises(TypeError, match=r"unit is missing"):
        circuits(x, w)
    with pytest.raises(TypeError, match=r"unit must be an integer"):
        circuits(x, w, unit=0.5)
    with pytest.raises(ValueError, match=r"indices of shape \(5,\)"):
        circuits(x, w, unit=[0, 1])
    with pytest.raises(IndexError, match=r"unit must be in 0 to 1, got 2"):
        circuits(x, w, unit=2)
    with pytest.raises(ValueError, match=r"target must be left out"):
        circuits(x, w, unit=0, target=0)
    with pytest.raises(ValueError, match=r"lower must be a layer that feeds 'relu'"):
        concepts.unit_circuits(explain, LOWER, UPPER)(x, w, unit=0)
    with pytest.raises(ValueError, match=r"explainer must not have start="):
        concepts.unit_circuits(explain.replace(start="relu"), UPPER, LOWER)
