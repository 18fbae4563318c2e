"""Spectral relevance analysis: preparation, neighbors, eigenpairs, clusters, views, ranking."""

import importlib
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg, sparse

import jaxlrp as lrp
from jaxlrp import spray
from jaxlrp.spray import clusters
from jaxlrp.spray.features import length
from jaxlrp.spray.seeds import named

sklearn_cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn (extra: spray)")
from sklearn.manifold import spectral_embedding  # noqa: E402
from sklearn.metrics import adjusted_rand_score  # noqa: E402

# Modules that have the name of their function.
neighbors = importlib.import_module("jaxlrp.spray.neighbors")
spectral = importlib.import_module("jaxlrp.spray.spectral")

KEY = jax.random.key(0)
POINTS = np.array([(0, 0), (1, 0), (0, 1), (1.5, 1.5), (10, 10), (11, 10), (10, 11.2), (11.7, 11)])
NO_VIEWS = spray.Settings(views={})


def planted(seed=0):
    """100 maps of 16 x 16: 85 with a blob, 15 with a weak blob and a corner artifact; and which."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    blob = np.exp(-((y - 8) ** 2 + (x - 8) ** 2) / 18)
    artifact = np.zeros((16, 16))
    artifact[:3, :3] = 1.5
    truth = np.arange(100) < 15
    maps = np.where(truth[:, None, None], 0.3 * blob + artifact, blob)
    return maps + 0.05 * rng.normal(size=maps.shape), truth


def ring(n):
    """A cycle of n points, whose Laplacian has eigenvalues 1 - cos(2 pi j / n)."""
    ones = sparse.eye_array(n, format="csr")
    forward = ones[np.roll(np.arange(n), 1)]
    return sparse.csr_array(forward + forward.T)


def laplacian(affinity):
    a = affinity.toarray()
    scale = 1 / np.sqrt(a.sum(axis=1))
    return np.eye(len(a)) - scale[:, None] * a * scale


def brute_force(points, k):
    """The k nearest of each point, by all differences in float64."""
    x = np.asarray(points, np.float64)
    squares = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(squares, np.inf)
    index = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return index, np.sqrt(np.take_along_axis(squares, index, axis=1))


class Lazy:
    """Relevance on a disk: nothing but slices, and a record of them."""

    def __init__(self, values):
        self._values, self.shape, self.read = values, values.shape, []

    def __getitem__(self, item):
        assert isinstance(item, slice)
        self.read.append((item.start, item.stop))
        return self._values[item]


# --- preparation ----------------------------------------------------------------------------------


def test_magnitudes_of_a_sample_sum_to_one():
    r = jnp.array([[1.0, -3.0], [-2.0, -2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(spray.l1_normalize(r), [[0.25, -0.75], [-0.5, -0.5], [0.0, 0.0]])


@pytest.mark.parametrize("size", [1e-37, 1e37])
def test_samples_of_any_size_are_normalized(size):
    r = jnp.full((1, 1000), size, jnp.float32)  # the sum of the large ones is infinite
    np.testing.assert_allclose(spray.l1_normalize(r), 1e-3, rtol=1e-5)


def test_16_bit_relevance_is_summed_in_float32():
    r = jnp.ones((1, 1000), jnp.bfloat16)
    for found in (spray.sum_channels(r), spray.pool(r, 1000), spray.l1_normalize(r).sum(axis=1)):
        assert found.dtype == jnp.float32
    assert spray.sum_channels(r).item() == 1000  # in bfloat16 256 + 1 is 256


def test_the_signed_sum_does_not_tell_how_much_relevance_there_is():
    """Two kinds of maps whose evidence for and against nearly cancels."""
    rng = np.random.default_rng(0)
    kinds = np.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    truth = np.repeat([0, 1], 30)
    maps = kinds[truth] * rng.uniform(1, 5, (60, 1)) + 0.02 * rng.normal(size=(60, 4))

    def by_signed_sum(r):
        return r / r.sum(axis=1, keepdims=True)

    def found(prepare):
        (analysis,) = spray.analyze(maps, 0 * truth, prepare, key=KEY, settings=NO_VIEWS)
        return adjusted_rand_score(truth, analysis.clusterings["kmeans"].labels)

    assert found(spray.l1_normalize) == 1.0
    assert found(by_signed_sum) < 0.5


def test_pooling_conserves_relevance():
    r = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32)
    pooled = spray.pool(r, (2, 4))
    assert pooled.shape == (2, 3, 1)
    np.testing.assert_allclose(pooled[1, 2, 0], r[1, 4].sum(), rtol=1e-5)
    np.testing.assert_allclose(pooled.sum((1, 2)), r.sum((1, 2)), rtol=1e-5)


def test_resizing_averages():
    r = jnp.broadcast_to(jnp.array([1.0, 1, 1, 1, 3, 3, 3, 3]), (2, 8))
    np.testing.assert_allclose(spray.resize(r, (1,)), [[2.0], [2.0]], rtol=1e-5)


def test_steps_are_done_in_their_order():
    r = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 2)), jnp.float32)
    prepare = spray.compose(
        partial(spray.sum_channels, axis=-1), spray.absolute, spray.l1_normalize
    )
    expected = np.abs(np.asarray(r).sum(-1))
    expected /= expected.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(prepare(r), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(prepare)(r), expected, rtol=1e-5)
    assert spray.compose(spray.absolute) == spray.compose(spray.absolute)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: spray.sum_channels(jnp.ones((2, 3)), axis=0),
            ValueError,
            r"of the samples \(0\), for relevance of shape .* got 0",
        ),
        (
            lambda: spray.pool(jnp.ones((2, 3)), 0),
            ValueError,
            "window must be an integer >= 1, got 0",
        ),
        (lambda: spray.pool(jnp.ones((2, 3)), (1, 1)), ValueError, "for each of the 1 axes"),
        (lambda: spray.resize(jnp.ones((2, 3)), (1, 1)), ValueError, "for each of the 1 axes"),
        (
            lambda: spray.compose(3),
            TypeError,
            "steps must be functions from a batch to a batch, got 3",
        ),
        (lambda: spray.features([[1.0]]), TypeError, "convert a list with np.stack"),
        (lambda: spray.features(np.ones(3)), ValueError, r"values after them, got shape \(3,\)"),
        (
            lambda: spray.features(np.ones((3, 1)), rows=[3]),
            ValueError,
            r"must be in \[0, 2\], got 3",
        ),
        (
            lambda: spray.features(np.ones((3, 1)), rows=[1, 1]),
            ValueError,
            "must be unique, got a repeated row",
        ),
        (lambda: spray.features(np.ones((3, 1)), rows=[]), ValueError, "at least one of the 3"),
        (lambda: spray.features(np.ones((3, 1)), rows=[True]), TypeError, "np.flatnonzero"),
        (lambda: spray.features(np.ones((3, 1)), jnp.sum), ValueError, r"first, got shape \(\)"),
    ],
)
def test_what_cannot_be_prepared_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_relevance_is_read_once_in_slices_and_compiled_once():
    values = np.random.default_rng(0).normal(size=(23, 3, 2)).astype(np.float32)
    source, traces = Lazy(values), []

    def prepare(r):
        traces.append(r.shape)
        return spray.absolute(r)

    rows = np.array([22, 1, 12, 0])
    found = spray.features(source, prepare, rows=rows, batch_size=5)
    np.testing.assert_array_equal(found, np.abs(values[rows]).reshape(4, 6))
    assert source.read == [(0, 5), (10, 15), (20, 25)]
    assert traces == [(5, 3, 2)]


def test_a_row_that_is_not_finite_is_named():
    values = np.ones((9, 2))
    values[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 7 \(1 of 3 rows.*exclude such samples with rows="):
        spray.features(values, batch_size=3)
    assert len(spray.features(values, rows=np.arange(7), batch_size=3)) == 7


# --- neighbors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 59])
@pytest.mark.parametrize("block", [60 * 60, 60 * 7])
def test_neighbors_are_those_of_all_differences(k, block, monkeypatch):
    points = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    monkeypatch.setattr(neighbors, "_BLOCK", block)
    found = spray.neighbors(points, k)
    index, distance = brute_force(points, k)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-5)


def test_a_duplicate_is_a_neighbor_and_the_point_itself_is_not():
    points = np.repeat(np.random.default_rng(0).normal(size=(10, 3)), 3, axis=0)
    found = spray.neighbors(points, 2)
    own = np.arange(30)[:, None]
    assert not (found.index == own).any()
    assert (found.index // 3 == own // 3).all()
    np.testing.assert_array_equal(found.distance, 0)
    assert not spray.graph(found).diagonal().any()
    # The usual way, one neighbor more and the first dropped, takes points for their own neighbors.
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    assert (np.argsort(squares, axis=1, kind="stable")[:, 1:] == own).any()


def test_neighbors_are_exact_where_the_product_has_lost_its_digits():
    """Two heaps far from each other, each of points much nearer than a rounding of their squares."""
    rng = np.random.default_rng(0)
    heaps = np.where(np.arange(80) < 40, -1.0, 1.0)[:, None]
    points = (heaps + 1e-5 * rng.normal(size=(80, 5))).astype(np.float32)
    index, distance = brute_force(points, 3)
    found = spray.neighbors(points, 3)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-4)  # of float32 coordinates
    squares = (points**2).sum(1)
    expanded = squares[:, None] + squares - 2 * points @ points.T
    np.fill_diagonal(expanded, np.inf)
    assert (np.sort(np.argsort(expanded, axis=1)[:, :3]) != np.sort(index)).any()


def test_no_array_of_all_pairs_is_made():
    n, rows = 3000, 50
    block = partial(neighbors._block.__wrapped__, rows=rows, k=10, m=18)
    jaxpr = jax.make_jaxpr(block)(jnp.ones((n, 16)), jnp.ones(n), 0)
    sizes = [v.aval.size for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars]
    assert max(sizes) == rows * n


def test_no_row_of_distances_is_sorted():
    """XLA would sort whole rows where it might have picked the smallest: nine times slower."""
    block = jax.jit(partial(neighbors._block.__wrapped__, rows=50, k=10, m=18))
    program = block.lower(jnp.ones((3000, 16)), jnp.ones(3000), 0).compile().as_text()
    sorts = [line for line in program.splitlines() if " sort(" in line]
    assert sorts  # that of the candidates
    assert not [line for line in sorts if "[50,3000]" in line]


def test_the_graph_is_symmetric():
    found = spray.graph(spray.neighbors(np.array([[0.0], [1.0], [3.0], [3.5]]), 1))
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    np.testing.assert_array_equal(found.toarray(), expected)
    one_sided = spray.graph(spray.neighbors(np.array([[0.0], [1.0], [3.0]]), 1))
    assert one_sided[1, 2] == one_sided[2, 1] == 0.5


@pytest.mark.parametrize(
    ("points", "k", "message"),
    [
        (np.ones((3, 2)), 3, "n_neighbors must be < 3, the number of points, got 3"),
        (np.ones((3, 2)), 0, "n_neighbors must be an integer >= 1, got 0"),
        (np.ones(3), 1, r"must have shape \(n, d\), got \(3,\)"),
        (np.array([[1.0], [np.nan]]), 1, "must be finite"),
    ],
)
def test_points_without_such_neighbors_are_refused(points, k, message):
    with pytest.raises(ValueError, match=message):
        spray.neighbors(points, k)


# --- eigenpairs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (3, [0, 0, 4 / 3, 4 / 3, 4 / 3, 4 / 3, 4 / 3, 4 / 3]),
        (2, [0, 0, 0.927004, 1, 1.29256, 1.4, 1.6, 1.780436]),
    ],
)
@pytest.mark.parametrize("dense", [600, 0])
def test_eigenvalues_of_eight_points(k, expected, dense, monkeypatch):
    monkeypatch.setattr(spectral, "_DENSE", dense)
    count = (
        8 if dense else 6
    )  # a part of four points has three eigenvalues; the iteration finds two
    affinity = spray.graph(spray.neighbors(POINTS, k))
    found = spray.spectral(affinity, count, key=KEY).eigenvalues
    np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    assert spray.eigengap(found) == spray.eigengap(found, min_clusters=2) == 2


def test_the_planted_maps_are_two_components():
    maps, truth = planted()
    affinity = spray.graph(spray.neighbors(spray.features(maps), 10))
    assert sparse.csgraph.connected_components(affinity)[0] == 2
    embedding = spray.spectral(affinity, key=KEY)
    assert spray.eigengap(embedding.eigenvalues) == 2
    np.testing.assert_allclose(
        embedding.eigenvalues, np.linalg.eigvalsh(laplacian(affinity))[:32], atol=1e-10
    )
    np.testing.assert_array_equal(embedding.values[:, 1] != 0, truth)


@pytest.mark.parametrize("dense", [600, 10])
def test_columns_are_eigenvectors(dense, monkeypatch):
    monkeypatch.setattr(spectral, "_DENSE", dense)
    points = np.random.default_rng(0).normal(size=(80, 2)) + 20 * (np.arange(80) < 30)[:, None]
    affinity = spray.graph(spray.neighbors(points, 5))
    embedding = spray.spectral(affinity, 8, key=KEY)
    degree = affinity.sum(axis=1)
    u = embedding.values * np.sqrt(degree)[:, None] / np.sqrt(degree.sum())
    np.testing.assert_allclose(u.T @ u, np.eye(8), atol=1e-9)
    np.testing.assert_allclose(laplacian(affinity) @ u, u * embedding.eigenvalues, atol=1e-9)
    np.testing.assert_allclose(
        embedding.eigenvalues, np.linalg.eigvalsh(laplacian(affinity))[:8], atol=1e-9
    )
    largest = np.take_along_axis(embedding.values, np.abs(embedding.values).argmax(0)[None], axis=0)
    assert (largest > 0).all()


def test_smallest_is_not_largest_in_magnitude():
    """Of a cycle of even length A^ has the eigenvalue -1, which is the far end of L."""
    affinity = ring(700)
    found = spray.spectral(affinity, 2, key=KEY).eigenvalues
    np.testing.assert_allclose(found, [0, 1 - np.cos(2 * np.pi / 700)], atol=1e-10)
    wrong = 1 - sparse.linalg.eigsh(affinity / 2, 2, v0=np.arange(700.0), return_eigenvectors=False)
    assert wrong.max() > 1.9


def test_equal_eigenvalues_are_all_found():
    """All but the first come in pairs; an iteration of one vector that stops early sees one of each."""
    found = spray.spectral(ring(700), 8, key=KEY).eigenvalues
    j = np.array([0, 1, 1, 2, 2, 3, 3, 4])
    np.testing.assert_allclose(found, 1 - np.cos(2 * np.pi * j / 700), atol=1e-10)


def test_one_more_eigenvalue_than_components_is_computed():
    affinity = sparse.block_diag([ring(5)] * 40, format="csr")
    embedding = spray.spectral(affinity, 8, key=KEY)
    assert embedding.values.shape == (200, 41)
    assert spray.eigengap(embedding.eigenvalues) == 40


def test_a_point_without_neighbors_is_a_component():
    affinity = sparse.block_diag([ring(4), np.zeros((1, 1))], format="csr")
    embedding = spray.spectral(affinity, 3, key=KEY)
    np.testing.assert_allclose(embedding.eigenvalues, [0, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(embedding.values[:, 1] != 0, [0, 0, 0, 0, 1])


def test_the_embedding_is_that_of_scikit_learn():
    points = np.random.default_rng(0).normal(size=(60, 3))
    affinity = spray.graph(spray.neighbors(points, 8))
    theirs = spectral_embedding(
        affinity, n_components=5, random_state=0, drop_first=False, eigen_tol=1e-12
    )
    ours = spray.spectral(affinity, 5, key=KEY).values
    scale = np.sqrt(affinity.sum())
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs) * scale, atol=1e-6)


def test_the_same_key_gives_the_same_embedding():
    a, b, other = (spray.spectral(ring(700), 6, key=jax.random.key(i)).values for i in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != other).any()


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        (np.ones((2, 3)), r"must have shape \(n, n\), got \(2, 3\)"),
        (np.array([[0.0, -1.0], [-1.0, 0.0]]), "finite and >= 0"),
        (
            np.array([[0.0, 1.0], [0.0, 0.0]]),
            r"must be symmetric: pass \(affinity \+ affinity.T\) / 2",
        ),
    ],
)
def test_what_is_no_affinity_is_refused(affinity, message):
    with pytest.raises(ValueError, match=message):
        spray.spectral(sparse.csr_array(affinity), key=KEY)


def test_an_iteration_that_does_not_converge_says_so(monkeypatch):
    def fails(*args, **kwargs):
        raise sparse.linalg.ArpackNoConvergence("no", np.zeros(2), np.zeros((2, 2)))

    monkeypatch.setattr(spectral, "eigsh", fails)
    with pytest.raises(RuntimeError, match=r"graph of 700 points did not converge \(only 2 did"):
        spray.spectral(ring(700), 6, key=KEY)


def test_the_gap_is_relative():
    values = [0, 0, 0.01, 0.3, 0.9]
    # 0 / .., .01 / .01, .29 / .3, .6 / .9: an absolute gap would be widest behind the fourth.
    assert spray.eigengap(values) == 2
    assert spray.eigengap([0, 0.01, 0.3, 0.9], min_clusters=2) == 2
    assert spray.eigengap([0, 0.01, 0.3, 0.9], min_clusters=3) == 3
    assert int(np.argmax(np.diff(values))) + 1 == 4


def test_rounding_decides_no_gap():
    assert (
        spray.eigengap([0.0, 1.25, 1.25 + 1e-15, 1.25 + 3e-15, 1.25 + 9e-15], min_clusters=2) == 2
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 0.0, 1e-12], "all 3 eigenvalues are zero.*compute more"),
        ([0.0, 1.0, 0.5], "must be ascending"),
        ([-0.5, 1.0], "must be ascending and >= 0"),
        ([], "vector of finite numbers"),
        ([0.0, np.nan], "vector of finite numbers"),
    ],
)
def test_no_gap_is_guessed(values, message):
    with pytest.raises(ValueError, match=message):
        spray.eigengap(values)


# --- clusters and views ---------------------------------------------------------------------------

CLUSTERERS = (spray.KMeans(), spray.Agglomerative(), spray.DBSCAN(), spray.HDBSCAN())


@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=repr)
def test_separated_points_are_clustered(clusterer):
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [40, 30, 20])
    points = np.array([[0.0, 0], [30, 0], [0, 30]])[truth] + rng.uniform(size=(90, 2))
    labels = clusterer(points, 3, KEY)
    kept = labels >= 0
    assert kept.mean() > 0.9
    np.testing.assert_array_equal(labels[kept], truth[kept])  # numbered by size
    np.testing.assert_array_equal(labels, clusterer(points, 3, KEY))


@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=repr)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_and_few_points_are_one_cluster_or_noise(clusterer, n):
    labels = clusterer(np.ones((n, 2)), 1, KEY)
    assert labels.shape == (n,)
    assert len(set(labels.tolist())) == 1


def test_clusters_are_numbered_by_size():
    np.testing.assert_array_equal(
        clusters.by_size(np.array([5, -1, 2, 2, 7, 7, 7])), [2, -1, 1, 1, 0, 0, 0]
    )


def test_all_columns_would_spoil_the_clusters():
    """What matters is in the first k* columns; k-means on all 32 follows the others."""
    maps, truth = planted()
    (found,) = spray.analyze(maps, np.zeros(100, int), key=KEY, settings=NO_VIEWS)
    kmeans = found.clusterings["kmeans"]
    assert (kmeans.n_clusters, kmeans.base) == (2, "spectral")
    assert adjusted_rand_score(truth, kmeans.labels) == 1.0
    np.testing.assert_array_equal(np.bincount(kmeans.labels), [85, 15])
    wrong = spray.KMeans()(found.embeddings["spectral"].values, 2, KEY)
    assert adjusted_rand_score(truth, wrong) < 0.2


def test_clusters_are_those_of_scikit_learn_on_the_same_graph():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 40)
    points = 4 * np.eye(3)[truth] + 0.5 * rng.normal(size=(120, 3))
    near = spray.graph(spray.neighbors(points, 10))
    affinity = sparse.csr_array(near + sparse.csr_array(np.full((120, 120), 1e-4)))  # connected
    theirs = sklearn_cluster.SpectralClustering(
        3, affinity="precomputed", random_state=0, n_components=3
    ).fit_predict(affinity.toarray())
    embedding = spray.spectral(affinity, key=KEY)
    k = spray.eigengap(embedding.eigenvalues, min_clusters=2)
    ours = spray.KMeans()(embedding.values[:, :k], k, KEY)
    assert k == 3
    assert adjusted_rand_score(theirs, ours) == 1.0
    assert adjusted_rand_score(truth, ours) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spray.KMeans(n_clusters=0), "n_clusters must be an integer >= 1, got 0"),
        (lambda: spray.KMeans(n_init=0), "n_init must be"),
        (lambda: spray.Agglomerative(linkage="best"), "linkage must be one of"),
        (lambda: spray.DBSCAN(eps=0.0), r"eps must be positive and finite, got 0\.0"),
        (lambda: spray.HDBSCAN(min_cluster_size=1), "min_cluster_size must be >= 2, got 1"),
        (lambda: spray.TSNE(perplexity=0), "perplexity must be positive"),
        (lambda: spray.UMAP(n_neighbors=1), "n_neighbors must be >= 2, got 1"),
        (lambda: spray.UMAP(min_dist=-1.0), "min_dist must be >= 0"),
        (lambda: spray.PCA(n_components=0), "n_components must be"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_principal_components_are_those_of_the_singular_values():
    points = np.random.default_rng(0).normal(size=(20, 5))
    u, s, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    found = spray.PCA()(points, KEY)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :2] * s[:2]), rtol=1e-6)


TSNE = spray.TSNE(perplexity=5, max_iter=250)


@pytest.mark.parametrize("view", [spray.PCA(), TSNE], ids=repr)
@pytest.mark.parametrize(("n", "equal"), [(1, True), (2, False), (6, True), (12, False)])
def test_views_are_finite_and_repeat(view, n, equal):
    points = np.ones((n, 3)) if equal else np.random.default_rng(0).normal(size=(n, 3))
    found = view(points, KEY)
    assert found.shape == (n, 2)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, view(points, KEY))


@pytest.mark.filterwarnings("ignore")  # numba and umap-learn warn of many things
def test_umap():
    pytest.importorskip("umap", reason="umap-learn (extra: umap)")
    points = 9.0 * (np.arange(40) < 20)[:, None] + np.random.default_rng(0).normal(size=(40, 3))
    view = spray.UMAP(n_neighbors=5)
    found = view(points, KEY)
    assert found.shape == (40, 2)
    gap = np.linalg.norm(found[:20].mean(0) - found[20:].mean(0))
    assert gap > 2 * np.linalg.norm(found[:20] - found[:20].mean(0), axis=1).mean()
    np.testing.assert_array_equal(found, view(points, KEY))


# --- the whole ------------------------------------------------------------------------------------


def several_classes(artifact_in=1, classes=3, seed=0):
    """Maps of `classes` classes with a blob each, one with an artifact in 12 of 60; labels; which."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), 60))
    maps = np.zeros((len(labels), 8, 8))
    for c in range(classes):
        maps[labels == c, 2 + c, 2:6] = rng.uniform(0.5, 1.5, (60, 4))
    truth = np.zeros(len(labels), bool)
    truth[np.flatnonzero(labels == artifact_in)[:12]] = True
    maps[truth] *= 0.3
    maps[truth, :2, :2] = 1.0
    return maps + 0.1 * rng.normal(size=maps.shape), labels, truth


def test_a_class_does_not_depend_on_the_others():
    maps, labels, _ = several_classes()
    whole = spray.analyze(maps, labels, key=KEY, settings=NO_VIEWS)
    (alone,) = spray.analyze(
        Lazy(maps), labels, key=KEY, settings=NO_VIEWS, classes=[1], batch_size=7
    )
    assert [found.category for found in whole] == [0, 1, 2]
    np.testing.assert_array_equal(alone.index, np.flatnonzero(labels == 1))
    for name in ("index", "category"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole[1], name))
    # Another batch size, other roundings.
    np.testing.assert_allclose(
        alone.embeddings["spectral"].values, whole[1].embeddings["spectral"].values, atol=1e-5
    )
    np.testing.assert_array_equal(
        alone.clusterings["kmeans"].labels, whole[1].clusterings["kmeans"].labels
    )


def test_names_do_not_disturb_each_other():
    maps, labels, _ = several_classes()
    few = spray.Settings(views={"b": TSNE})
    more = spray.Settings(
        clusterings={"x": spray.KMeans(3), "kmeans": spray.KMeans()},
        views={"a": spray.PCA(), "b": TSNE, "c": spray.PCA(base="b", n_components=1)},
    )
    one, two = (
        spray.analyze(maps, labels, key=KEY, settings=s, classes=[1])[0] for s in (few, more)
    )
    np.testing.assert_array_equal(one.embeddings["b"].values, two.embeddings["b"].values)
    np.testing.assert_array_equal(
        one.clusterings["kmeans"].labels, two.clusterings["kmeans"].labels
    )
    assert list(two.embeddings) == ["spectral", "a", "b", "c"]
    assert two.embeddings["c"].values.shape == (60, 1)
    assert [two.embeddings[name].base for name in "abc"] == [None, "spectral", "b"]
    assert two.clusterings["x"].n_clusters == 3


def test_samples_with_several_classes_and_chosen_rows():
    maps, labels, _ = several_classes()
    many = np.stack([labels == 0, labels < 2, labels > 9], axis=1)
    rows = np.arange(100)
    found = spray.analyze(maps, many, key=KEY, settings=NO_VIEWS, rows=rows)
    assert [a.category for a in found] == [0, 1]
    np.testing.assert_array_equal(found[1].index, np.flatnonzero(labels[:100] < 2))


def test_jax_arrays_signals_and_functions_of_ones_own():
    def halves(points, k, key):
        return (np.arange(len(points)) >= len(points) // 2).astype(int)

    signals = jnp.asarray(np.random.default_rng(0).normal(size=(24, 50)), jnp.bfloat16)
    settings = spray.Settings(clusterings={"halves": halves}, views={})
    (found,) = spray.analyze(signals, jnp.zeros(24, int), key=KEY, settings=settings)
    np.testing.assert_array_equal(found.clusterings["halves"].labels, np.repeat([0, 1], 12))
    assert found.clusterings["halves"].n_clusters is None


def test_relevance_in_zarr(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    maps, labels, _ = several_classes()
    stored = zarr.create_array(tmp_path / "r.zarr", data=maps, chunks=(32, 8, 8))
    found, expected = (
        spray.analyze(r, labels, key=KEY, settings=NO_VIEWS, classes=[1]) for r in (stored, maps)
    )
    np.testing.assert_array_equal(
        found[0].embeddings["spectral"].values, expected[0].embeddings["spectral"].values
    )


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_small_classes_have_the_same_names(n):
    points = np.random.default_rng(0).normal(size=(n, 4))
    settings = spray.Settings(
        clusterings={repr(c): c for c in CLUSTERERS}, views={"pca": spray.PCA(), "tsne": TSNE}
    )
    found = spray.analyze_points(points, 3, np.arange(n), key=KEY, settings=settings)
    assert list(found.embeddings) == ["spectral", "pca", "tsne"]
    assert all(c.labels.shape == (n,) for c in found.clusterings.values())


def test_equal_relevances_are_one_cluster():
    found = spray.analyze_points(np.ones((40, 4)), 0, np.arange(40), key=KEY, settings=NO_VIEWS)
    assert found.clusterings["kmeans"].n_clusters == 1
    assert not found.clusterings["kmeans"].labels.any()


def call(**changes):
    arguments = {"relevance": np.ones((4, 2)), "labels": np.zeros(4, int), "key": KEY} | changes
    return lambda: spray.analyze(**arguments)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (call(labels=np.zeros(3, int)), ValueError, r"each of the 4 samples, got shape \(3,\)"),
        (call(labels=np.zeros(4)), TypeError, "labels must be integers"),
        (call(labels=np.zeros((4, 2), int)), TypeError, r"booleans \(N, classes\)"),
        (
            call(labels=np.array([0, -1, 0, 0])),
            ValueError,
            "got -1; exclude samples without a class",
        ),
        (
            call(classes=[0, 7]),
            ValueError,
            r"classes must be classes with samples, \[0\], got \[7\]",
        ),
        (call(key=0), TypeError, r"one random key such as jax.random.key\(0\), got 0"),
        (call(key=jax.random.split(KEY)), TypeError, "one random key"),
        (
            call(settings={"n_neighbors": 3}),
            TypeError,
            "settings must be a jaxlrp.spray.Settings, got {",
        ),
        (
            lambda: spray.features(np.ones((2, 3)), "l1"),
            TypeError,
            "preprocess must be .* got 'l1'",
        ),
        (
            lambda: spray.Settings(views=[spray.PCA()]),
            TypeError,
            "views must be a dictionary such as",
        ),
        (
            lambda: spray.Settings(clusterings={"k": spray.KMeans}),
            TypeError,
            r"KMeans\(\), got the class",
        ),
        (lambda: spray.rank(3), TypeError, "analyses must be a sequence such as .* got 3"),
        (
            lambda: spray.resize(np.ones((2, 8)), 4),
            TypeError,
            "shape must be a sequence such as .* got 4",
        ),
        (
            lambda: spray.sum_channels(np.ones((2, 8)), axis="c"),
            ValueError,
            "axis must be .* got 'c'",
        ),
        (call(rows=[4]), ValueError, r"rows must be in \[0, 3\], got 4"),
        (
            lambda: spray.Settings(n_components=2),
            ValueError,
            r"must be > min_clusters \(2\), got 2",
        ),
        (lambda: spray.Settings(views={"spectral": spray.PCA()}), ValueError, "not have the name"),
        (
            lambda: spray.Settings(views={"a": spray.PCA(base="b")}),
            ValueError,
            r"\['spectral'\], got",
        ),
        (
            lambda: spray.analyze_points(np.ones((3, 2)), 0, np.arange(2), key=KEY),
            ValueError,
            r"index \(n,\), got \(3, 2\) and \(2,\)",
        ),
        (
            call(settings=spray.Settings(clusterings={"bad": lambda p, k, key: p[:, 0]})),
            ValueError,
            "must return 4 integers, got float64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(run, error, message):
    with pytest.raises(error, match=message):
        run()


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ("sklearn.cluster", NO_VIEWS, r'scikit-learn.*pip install "jaxlrp\[spray\]"'),
        ("umap", spray.Settings(views={"u": spray.UMAP()}), r'umap-learn.*"jaxlrp\[umap\]"'),
    ],
)
def test_a_missing_package_is_named_before_anything_is_computed(
    module, settings, message, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    source = Lazy(np.ones((4, 2)))
    with pytest.raises(ImportError, match=message):
        spray.analyze(source, np.zeros(4, int), key=KEY, settings=settings)
    assert not source.read


def test_names_have_keys_of_their_own():
    a, b = (jax.random.key_data(named(KEY, name)) for name in ("a", "b"))
    assert (a != b).any()


# --- ranking --------------------------------------------------------------------------------------


def test_fisher_by_hand():
    # Means 0 and 10, variance 1 within each, halves: 1/4 100 / 1, less the ridge.
    points = np.array([[-1.0], [1.0], [9.0], [11.0]])
    inside = np.array([False, False, True, True])
    np.testing.assert_allclose(spray.fisher_score(points, inside), 25 / (1 + 26e-6), rtol=1e-9)
    assert spray.fisher_score(points, np.zeros(4, bool)) == 0
    assert spray.fisher_score(np.ones((4, 1)), inside) == 0
    assert spray.fisher_score([[0.0], [1.0]], [False, True]) == 1000


def test_fisher_is_the_largest_generalized_eigenvalue():
    rng = np.random.default_rng(0)
    inside = np.arange(50) < 12
    points = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + 2 * inside[:, None]
    total = np.cov(points.T, bias=True)
    within = sum(np.cov(points[g].T, bias=True) * g.mean() for g in (inside, ~inside))
    expected = linalg.eigh(total - within, within, eigvals_only=True)[-1]
    np.testing.assert_allclose(spray.fisher_score(points, inside), expected, rtol=1e-3)  # the ridge
    np.testing.assert_allclose(
        spray.fisher_score(1e-6 * points, inside), spray.fisher_score(points, inside), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("n", "share", "d", "mahalanobis"), [(20, 0.3, 6, 2.0), (40, 0.5, 20, 3.0)]
)
def test_the_estimate_has_no_bias(n, share, d, mahalanobis):
    """The mean over many draws of two normal distributions is p (1 - p) Delta^2, that of F is far off."""
    rng = np.random.default_rng(0)
    inside = np.arange(n) < share * n
    apart = np.zeros(d + 1)  # the last column is constant, as that of a connected graph is
    apart[0] = mahalanobis
    drawn = [
        np.c_[rng.normal(size=(n, d)), np.ones(n)] + np.outer(inside, apart) for _ in range(4000)
    ]
    expected = share * (1 - share) * mahalanobis**2
    unbiased = np.array([spray.fisher_score(x, inside, unbiased=True) for x in drawn])
    spread = unbiased.std() / len(drawn) ** 0.5
    assert (
        abs(unbiased.mean() - expected) < 4 * spread + 0.01 * expected
    )  # some are cut off at zero
    assert spread < 0.02 * expected
    assert np.mean([spray.fisher_score(x, inside) for x in drawn[:100]]) > 1.5 * expected


@pytest.mark.parametrize("n", [2, 3, 5, 9, 11, 12, 13, 15, 20, 25, 30, 33, 40, 60, 150])
def test_a_class_without_clusters_scores_low_whatever_its_size(n):
    """In 32 columns every cut of 30 samples would be perfect."""
    for seed in range(3):
        maps = np.random.default_rng(seed).uniform(0.5, 1.5, (n, 6, 6))
        analyses = spray.analyze(maps, np.zeros(n, int), key=KEY, settings=NO_VIEWS)
        assert spray.rank(analyses).candidates[0].fisher < 10  # a perfect cut has 1000


@pytest.mark.parametrize("noise", [8, 12, 20, 30])
@pytest.mark.parametrize("mark", [0.35, 2.0])  # in a connected graph, and in a component of its own
def test_an_artifact_is_before_small_classes_of_noise(noise, mark):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [noise, noise + 1, 200])
    maps = np.zeros((len(labels), 8, 8))
    maps[:, 2, 2:6] = rng.uniform(0.5, 1.5, (len(labels), 4))
    maps += 0.1 * rng.normal(size=maps.shape)
    marked = np.flatnonzero(labels == 2)[:20]
    maps[marked] *= 0.6
    maps[marked, :2, :2] += mark
    ranking = spray.rank(spray.analyze(maps, labels, key=KEY, settings=NO_VIEWS))
    assert sorted(ranking.candidates[0].rows.tolist()) == marked.tolist()
    assert ranking.candidates[0].fisher > 10 * ranking.of_class(ranking.classes[1])[0].fisher


def test_the_columns_that_were_clustered_are_recorded_and_ranked():
    maps, _ = planted()
    settings = spray.Settings(
        clusterings={
            "kmeans": spray.KMeans(),
            "k 3": spray.KMeans(n_clusters=3),
            "hdbscan": spray.HDBSCAN(),
        },
        views={},
    )
    (found,) = spray.analyze(maps, np.zeros(100, int), key=KEY, settings=settings)
    columns = {name: c.n_columns for name, c in found.clusterings.items()}
    assert columns == {"kmeans": 2, "k 3": 3, "hdbscan": 2}
    assert found.clusterings["hdbscan"].n_clusters is None
    values, labels = found.embeddings["spectral"].values, found.clusterings["k 3"].labels
    candidates = spray.rank([found], clustering="k 3").candidates
    for c in candidates:
        expected = spray.fisher_score(values[:, :3], labels == c.cluster, unbiased=True)
        assert c.fisher == pytest.approx(expected)
        assert (
            expected
            != pytest.approx(spray.fisher_score(values, labels == c.cluster, unbiased=True))
            or expected == 1000
        )


def test_a_class_where_all_are_neighbors_of_all_is_one_cluster():
    maps = np.repeat(np.eye(4)[:2], [3, 8], axis=0)
    (found,) = spray.analyze(maps, np.zeros(11, int), key=KEY, settings=NO_VIEWS)
    assert not found.clusterings["kmeans"].labels.any()
    fewer = spray.Settings(n_neighbors=2, views={})
    (found,) = spray.analyze(maps, np.zeros(11, int), key=KEY, settings=fewer)
    np.testing.assert_array_equal(found.clusterings["kmeans"].labels, np.repeat([1, 0], [3, 8]))


def test_the_class_with_the_artifact_is_first():
    maps, labels, truth = several_classes()
    analyses = spray.analyze(maps, labels, key=KEY, settings=NO_VIEWS)
    ranking = spray.rank(analyses, Lazy(maps), spray.l1_normalize, labels=truth, batch_size=50)
    first = ranking.candidates[0]
    assert ranking.classes[0] == first.category == 1
    assert sorted(first.rows.tolist()) == np.flatnonzero(truth).tolist()
    assert (first.size, first.share, first.purity) == (12, 0.2, 1.0)
    normalized = maps / np.abs(maps).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(first.mean, normalized[truth].mean(0), rtol=1e-5)
    assert (
        len({c.fisher for c in ranking.of_class(1)}) == 1
    )  # both sides of one cut, the smaller first
    assert [c.size for c in ranking.of_class(1)] == [12, 48]
    lines = str(ranking).splitlines()
    assert lines[0].split() == ["rank", "class", "cluster", "Fisher", "size", "share", "purity"]
    assert len(lines) == 1 + len(ranking.candidates)


def analysis_of(category, points, labels, first_row):
    return spray.Analysis(
        category,
        np.arange(first_row, first_row + len(points)),
        {"spectral": spray.Embedding(np.asarray(points, float))},
        {"kmeans": spray.Clustering(np.asarray(labels), "spectral", 2)},
    )


def test_ties_small_clusters_and_noise():
    def perfect(n, small):
        return [[1.0 if i < small else 0.0] for i in range(n)], [int(i < small) for i in range(n)]

    ranking = spray.rank(
        [
            analysis_of(0, *perfect(200, 1), 0),
            analysis_of(1, *perfect(200, 10), 200),
            analysis_of(2, *perfect(200, 40), 400),
            analysis_of(3, [[0.0]] * 8 + [[1.0]] * 4, [-1] * 4 + [0] * 4 + [1] * 4, 600),
        ]
    )
    found = [(c.category, c.cluster, c.size) for c in ranking.candidates]
    # All but the second cluster of class 3 are perfect: the largest smaller side first. A lone sample in
    # two hundred and its rest come last. Noise is no cluster.
    perfect_ones = [(3, 1, 4), (2, 1, 40), (2, 0, 160), (1, 1, 10), (1, 0, 190)]
    assert found == [*perfect_ones, (3, 0, 4), (0, 1, 1), (0, 0, 199)]
    assert ranking.classes == (3, 2, 1, 0)


def test_the_most_typical_row_is_nearest_to_the_mean():
    ranking = spray.rank([analysis_of(0, [[0.0], [5.0], [1.0], [2.2]], [0, 1, 0, 0], 10)])
    (most,) = (c for c in ranking.candidates if c.cluster == 0)
    assert most.rows.tolist() == [12, 10, 13]


def test_purity_is_the_share_of_the_commonest_label():
    analyses = [analysis_of(0, [[0.0], [0.1], [0.2], [9.0]], [0, 0, 0, 1], 1)]
    ranking = spray.rank(analyses, labels=np.array(["x", "a", "b", "a", "c"]))
    assert {c.size: round(c.purity, 6) for c in ranking.candidates} == {3: 0.666667, 1: 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analyses": []}, "at least one Analysis"),
        ({"min_share": 2.0}, r"must be in \[0, 1\], got 2\.0"),
        (
            {"clustering": "kmean"},
            "clustering must exist for class 0, got 'kmean': the nearest are 'kmeans'",
        ),
        ({"embedding": "umap"}, "embedding must exist for class 0"),
        ({"labels": np.zeros(3)}, r"row 3 was analyzed\), got shape \(3,\)"),
        ({"relevance": np.ones((3, 2))}, r"row 3 was analyzed\), got 3 samples"),
    ],
)
def test_what_cannot_be_ranked_is_refused(changes, message):
    arguments = {"analyses": [analysis_of(0, [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1], 0)]}
    with pytest.raises(ValueError, match=message):
        spray.rank(**(arguments | changes))


# --- explanations of a trained model --------------------------------------------------------------


def test_a_mark_that_a_model_has_learned_is_found():
    """Logistic regression on noise with a faint line; a fifth of class 1 has a mark in the corner."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    x = 0.3 * rng.normal(size=(300, 6, 6))
    for c in range(3):
        x[labels == c, 1 + c, :] += 0.5
    marked = np.zeros(300, bool)
    marked[rng.choice(np.arange(100, 200), 20, replace=False)] = True
    x[marked, 5, 5] = 3.0
    x = jnp.asarray(x, jnp.float32)

    def model(w, x):
        return x.reshape(len(x), -1) @ w

    def loss(w):
        return optax.softmax_cross_entropy_with_integer_labels(model(w, x), labels).mean()

    w = jax.lax.fori_loop(0, 100, lambda _, w: w - jax.grad(loss)(w), jnp.zeros((36, 3)))
    explain = lrp.explain(model, lrp.composites.all_epsilon(), argnums=1)
    relevance = explain(w, x, target=labels).relevance
    ranking = spray.rank(spray.analyze(relevance, labels, key=KEY, settings=NO_VIEWS), relevance)
    first = ranking.candidates[0]
    assert first.category == 1
    assert sorted(first.rows.tolist()) == np.flatnonzero(marked).tolist()
    assert np.unravel_index(first.mean.argmax(), (6, 6)) == (5, 5)


def test_prepared_batches_are_finite_whatever_fills_the_last():
    """Rows that fill the last batch are zeros, which must not disturb a division of one's own."""
    found = spray.features(np.ones((3, 2)), lambda r: r / r.sum(1, keepdims=True), batch_size=2)
    np.testing.assert_array_equal(found, 0.5)
    assert length(np.ones((3, 2))) == 3
