"""Walks through graph networks and pairs of features."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites, higher_order

N, D = 4, 3
EDGES = np.eye(N) + np.diag(np.ones(N - 1), 1) + np.diag(np.ones(N - 1), -1)  # a path, with loops


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


W1, W2, V = normal(D, D, seed=1), normal(D, D, seed=2), normal(D, 1, seed=3)
X = normal(N, D, seed=4)
LAYERS = ("relu", "relu:1")


def gcn(x):
    """Two steps of message passing, read out by a sum over nodes."""
    a = EDGES / EDGES.sum(axis=1, keepdims=True)
    x = jax.nn.relu((a @ x) @ W1)
    x = jax.nn.relu((a @ x) @ W2)
    return (x @ V).sum()


def by_segments(x):
    """The same, as graph libraries write it."""
    senders, receivers = np.nonzero(EDGES.T)
    weight = (EDGES / EDGES.sum(axis=1, keepdims=True))[receivers, senders][:, None]

    def gather(x):
        return jax.ops.segment_sum(x[senders] * weight, receivers, N)

    x = jax.nn.relu(gather(x) @ W1)
    return (jax.nn.relu(gather(x) @ W2) @ V).sum()


def every_walk():
    return np.array(list(itertools.product(range(N), repeat=3)))


def by_the_formula():
    """LRP-0 over walks, written out: relevance of (J, K, L), all node by node."""
    a = EDGES / EDGES.sum(axis=1, keepdims=True)
    h1 = np.maximum(a @ X @ W1, 0)
    z1, z2 = a @ X @ W1, a @ h1 @ W2
    h2 = np.maximum(z2, 0)
    found = np.zeros((N, N, N))
    for j, k, el in itertools.product(range(N), repeat=3):
        r2 = h2[el] * V[:, 0]  # relevance of the features of node l at the second layer
        r1 = np.zeros(D)
        for d in range(D):
            for e in range(D):
                if h2[el, e] > 0:
                    r1[d] += a[el, k] * h1[k, d] * W2[d, e] / z2[el, e] * r2[e]
        for d in range(D):
            for e in range(D):
                if h1[k, e] > 0:
                    found[j, k, el] += a[k, j] * X[j, d] * W1[d, e] / z1[k, e] * r1[e]
    return found


@pytest.mark.parametrize("net", [gcn, by_segments])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_walks_are_those_of_the_formula(net, chunk):
    exact = composites.by_kind("dense", lrp.LRP0())
    explain = higher_order.walks(net, LAYERS, exact, chunk=chunk)
    found = explain(X, walks=every_walk()).reshape(N, N, N)
    np.testing.assert_allclose(found, by_the_formula(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("composite", [composites.default(), composites.all_epsilon(0.1)])
def test_all_walks_together_are_the_relevance_of_the_input(composite):
    found = higher_order.walks(gcn, LAYERS, composite)(X, walks=every_walk()).reshape(N, -1)
    expected = lrp.explain(gcn, composite)(X).relevance.sum(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-9)


def test_a_walk_off_the_edges_has_no_relevance():
    along = {tuple(walk) for walk in higher_order.walks_along(EDGES, 2)}
    off = np.array([walk for walk in every_walk() if tuple(walk) not in along])
    assert len(off)
    np.testing.assert_array_equal(higher_order.walks(gcn, LAYERS)(X, walks=off), 0.0)
    on = higher_order.walks(gcn, LAYERS)(X, walks=np.array(sorted(along)))
    assert np.abs(on).max() > 0.01


def test_walks_under_jit_of_a_linen_module_with_targets():
    class GCN(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.relu(nn.Dense(D)(EDGES @ x))
            return nn.Dense(2)(x.sum(axis=0))

    model = GCN()
    variables = model.init(jax.random.key(0), X)
    explain = higher_order.walks(model.apply, LAYERS, argnums=1)
    walks = higher_order.walks_along(EDGES, 2)
    eager = explain(variables, X, walks=walks, target=1)
    jitted = jax.jit(lambda v, x: explain(v, x, walks=walks, target=1))(variables, X)
    np.testing.assert_allclose(eager, jitted, rtol=1e-9, atol=1e-12)


def test_walks_along_edges():
    found = higher_order.walks_along(EDGES, 3)
    expected = [
        walk
        for walk in itertools.product(range(N), repeat=4)
        if all(EDGES[a, b] for a, b in itertools.pairwise(walk))
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: higher_order.walks(gcn, ()),
            r"layers must be paths of one or more layers, got \(\)",
        ),
        (lambda: higher_order.walks(gcn, "relu"), "got 'relu'"),
        (lambda: higher_order.walks(gcn, ["rely"])(X, walks=[[0, 0]]), "there is no layer 'rely'"),
        (lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[0, 0]]), r"integers of shape \(M, 3\)"),
        (lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[0.0, 0, 0]]), "got float64 of shape"),
        (
            lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[0, 4, 0]]),
            "from 0 to 3 at step 1, got 4",
        ),
        (
            lambda: higher_order.walks(gcn, LAYERS, node_axis=2)(X, walks=[[0, 0, 0]]),
            "node_axis=2 is no",
        ),
        (lambda: higher_order.walks_along(np.ones((2, 3)), 1), "edges must be a square matrix"),
        (lambda: higher_order.walks_along(EDGES, 0), "length >= 1"),
        (lambda: higher_order.walks_along(EDGES, 9, most=10), "more than most=10"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- pairs ----------------------------------------------------------------------------------------


def embed(x):
    return jax.nn.relu(x @ W1) @ W2


def test_pairs_are_products_of_relevances():
    a, b = X[0], X[1]
    exact = composites.by_kind("dense", lrp.LRP0())
    found = higher_order.pairs(embed, exact)(a, b)
    jac_a, jac_b = (jax.jacobian(embed)(jnp.asarray(v)) for v in (a, b))
    np.testing.assert_allclose(found, (jac_a * a).T @ (jac_b * b), rtol=1e-9)


def test_pairs_sum_to_the_similarity():
    """Without biases nothing is absorbed."""
    a, b = X[0], X[1]
    found = higher_order.pairs(embed, composites.all_epsilon(0.0), chunk=2)(a, b)
    np.testing.assert_allclose(found.sum(), embed(a) @ embed(b), rtol=1e-9)
    np.testing.assert_allclose(found.T, higher_order.pairs(embed)(b, a), rtol=1e-5)


def test_pairs_of_pooled_features():
    picture, other = normal(4, 4, 1, seed=7), normal(4, 4, 1, seed=8)
    kernel = normal(16, 5, seed=9)

    def embed(x):
        return jax.nn.relu(x.reshape(-1) @ kernel)

    def patches(r):
        return r.reshape(2, 2, 2, 2).sum(axis=(1, 3))

    whole = higher_order.pairs(embed)(picture, other)
    pooled = higher_order.pairs(embed, pool=patches)(picture, other)
    assert whole.shape == (4, 4, 1, 4, 4, 1)
    assert pooled.shape == (2, 2, 2, 2)
    expected = whole.reshape(2, 2, 2, 2, 2, 2, 2, 2).sum(axis=(1, 3, 5, 7))
    np.testing.assert_allclose(pooled, expected, rtol=1e-9, atol=1e-12)


def test_pairs_of_different_embeddings_are_refused():
    with pytest.raises(ValueError, match="both inputs must have as many outputs, got 2 and 3"):
        higher_order.pairs(lambda x: x * 2.0)(jnp.ones(2), jnp.ones(3))
