"""Walks through graph networks and pairs of features."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites, higher_order

from selection import one_in

N, D = 4, 3
EDGES = np.eye(N) + np.diag(np.ones(N - 1), 1) + np.diag(np.ones(N - 1), -1)  # a path, with loops


pytestmark = pytest.mark.usefixtures("x64")


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
@pytest.mark.parametrize("batch_size", one_in(3, [7, 1, 64]))
def test_walks_are_those_of_the_formula(net, batch_size):
    exact = composites.by_kind("dense", lrp.LRP0())
    explain = higher_order.walks(net, LAYERS, exact, batch_size=batch_size)
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
                x = nn.relu(nn.Dense(D, param_dtype=x.dtype)(EDGES @ x))
            return nn.Dense(2, param_dtype=x.dtype)(x.sum(axis=0))

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
            r"layers must be a sequence of one or more distinct paths of layers, got \(\)",
        ),
        (lambda: higher_order.walks(gcn, "relu"), "got 'relu'"),
        (lambda: higher_order.walks(gcn, ["rely"])(X, walks=[[0, 0]]), "there is no layer 'rely'"),
        (lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[0, 0]]), r"integers of shape \(M, 3\)"),
        (lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[0.0, 0, 0]]), "got float64 of shape"),
        (
            lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[0, 4, 0]]),
            "from 0 to 3 at step 1, or -1 for a path around the layer, got 4",
        ),
        (
            lambda: higher_order.walks(gcn, LAYERS)(X, walks=[[-1, 0, 0]]),
            "from 0 to 3 at step 0, got -1",
        ),
        (
            lambda: higher_order.walks(gcn, ["relu", "relu"]),
            r"of layers, got \['relu', 'relu'\]",
        ),
        (
            lambda: higher_order.walks(gcn, LAYERS, argnums=(0, 1)),
            r"got \(0, 1\); explain one argument, or pass from_input=False",
        ),
        (
            lambda: higher_order.walks(gcn, LAYERS, batch_size=0),
            "batch_size must be an integer >= 1, got 0",
        ),
        (lambda: higher_order.top_walks(gcn, LAYERS, k=0), "k must be an integer >= 1, got 0"),
        (lambda: higher_order.top_walks(gcn, LAYERS, beam=0), "beam must be an integer >= 1"),
        (lambda: higher_order.top_walks(gcn, LAYERS, by="size"), "by must be .*got 'size'"),
        (
            lambda: higher_order.subgraph(gcn, LAYERS)(X, nodes=[0, 1]),
            r"booleans of shape \(S, 4\) or \(4,\) at step 0, got int64 of shape \(2,\)",
        ),
        (
            lambda: higher_order.subgraph(gcn, LAYERS)(X, nodes=(np.ones(4, bool),)),
            "one boolean array or a tuple of 3, got a tuple of 1",
        ),
        (
            lambda: higher_order.subgraph(gcn, LAYERS)(
                X, nodes=(np.ones(4, bool), np.ones((2, 4), bool), np.ones(4, bool))
            ),
            "number of sets at each step,",
        ),
        (
            lambda: higher_order.walks(gcn, LAYERS, node_axis=2)(X, walks=[[0, 0, 0]]),
            "node_axis must be an axis of .* got 2",
        ),
        (lambda: higher_order.walks_along(np.ones((2, 3)), 1), "edges must be a square matrix"),
        (lambda: higher_order.walks_along(EDGES, 0), "length must be an integer >= 1, got 0"),
        (lambda: higher_order.walks_along(EDGES, 9, max_walks=10), "more than max_walks=10"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- ways around layers ------------------------------------------------------------------------


def injected(x):
    """Three steps, each of which sees the first features again, and the readout the input."""
    first = x @ W1
    h = jax.nn.relu(first)
    for _ in range(2):
        h = jax.nn.relu(first + EDGES @ h @ W2)
    return (h @ V).sum() + jnp.sin(x).sum()


INJECTED = ("relu", "relu:1", "relu:2")
COMPOSITES = {
    "epsilon": composites.default(),
    "gamma": composites.by_kind("dense", lrp.Gamma(0.25)) + composites.default(),
    "flat": composites.by_kind("dense", lrp.Flat()) + composites.default(),
}


def by_masks(fun, layers, composite, walks):
    """Relevance of walks by masks over the whole network, less what goes around what they visit."""
    explain = lrp.explain(fun, composite)

    @jax.jit
    def masked(keep):
        return explain(X, condition=dict(zip(layers, keep, strict=True))).relevance.sum(axis=1)

    def through(walk):
        keep = np.zeros((len(layers), N, 1))
        for i, node in enumerate(walk):
            keep[i, node] = node >= 0
        return np.asarray(masked(keep))

    found = []
    for begin, *walk in walks:
        visited = [i for i, node in enumerate(walk) if node >= 0]
        total = 0.0
        for closed in itertools.product((False, True), repeat=len(visited)):
            steps = list(walk)
            for i, is_closed in zip(visited, closed, strict=True):
                steps[i] = -1 if is_closed else walk[i]
            total += (-1) ** sum(closed) * through(steps)[begin]
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("name", COMPOSITES)
def test_walks_around_layers_are_those_of_masks(name):
    rng = np.random.default_rng(0)
    every = np.array(list(itertools.product(range(N), *[range(-1, N)] * 3)))
    some = np.concatenate([rng.permutation(every)[:20], every[every[:, 1] < 0][:20]])
    explain = higher_order.walks(injected, INJECTED, COMPOSITES[name])
    found = jax.jit(lambda x: explain(x, walks=every))(X)
    where = [np.flatnonzero((every == walk).all(axis=1))[0] for walk in some]
    expected = by_masks(injected, INJECTED, COMPOSITES[name], some)
    # what the masks give is a difference of numbers up to 10
    np.testing.assert_allclose(found[np.array(where)], expected, rtol=1e-9, atol=1e-12)
    assert np.abs(expected).max() > 0.01
    whole = lrp.explain(injected, COMPOSITES[name])(X).relevance.sum(axis=1)
    np.testing.assert_allclose(found.reshape(N, -1).sum(axis=1), whole, rtol=1e-9)


def test_walks_that_begin_at_a_layer_have_what_goes_on_to_all_arguments():
    def fun(x, y):
        return injected(x + y)

    every = np.array(list(itertools.product(*[range(-1, N)] * 3)))
    arguments = (X, normal(N, D, seed=5))
    explain = higher_order.walks(fun, INJECTED, argnums=(0, 1), from_input=False)
    found = jax.jit(lambda *a: explain(*a, walks=every))(*arguments)
    begun = np.concatenate(
        [np.repeat(np.arange(N), len(every))[:, None], np.tile(every, (N, 1))], 1
    )
    one = higher_order.walks(injected, INJECTED)
    expected = jax.jit(lambda x: one(x, walks=begun))(sum(arguments)).reshape(N, -1).sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_nodes_of_layers_may_differ():
    """Messages on bonds between steps on atoms, along an axis that is not the first."""
    senders, receivers = np.nonzero(EDGES)
    bonds = len(senders)

    def fun(x):  # (D, N)
        h = jax.nn.relu((x.T[senders] @ W1).T)
        return (jax.nn.relu(W2 @ jax.ops.segment_sum(h.T, receivers, N).T).sum() * 2.0).sum()

    every = np.array(list(itertools.product(range(N), range(bonds), range(N))))
    found = higher_order.walks(fun, LAYERS, node_axis=1)(X.T, walks=every)
    along = (every[:, 0] == senders[every[:, 1]]) & (receivers[every[:, 1]] == every[:, 2])
    np.testing.assert_array_equal(found[~along], 0.0)
    whole = lrp.explain(fun)(X.T).relevance.sum(axis=0)
    np.testing.assert_allclose(found.reshape(N, -1).sum(axis=1), whole, rtol=1e-9)


# --- the most relevant walks ----------------------------------------------------------------------


def deep(seed=0, nodes=6, features=4, depth=3, readout=None):
    """(network, input, edges, layers, all walks) of a graph network of random weights."""
    rng = np.random.default_rng(seed)
    edges = np.triu(rng.random((nodes, nodes)) < 0.3, 1)
    edges = edges | edges.T | np.eye(nodes, dtype=bool)
    strength = edges * rng.uniform(0.5, 1.5, edges.shape)  # no two walks alike
    weights = rng.normal(size=(depth, features, features)) * np.sqrt(2 / features)
    readout = rng.normal(size=(features, 1)) if readout is None else np.full((features, 1), readout)

    def fun(x):
        for w in weights:
            x = jax.nn.relu(strength @ x @ w)
        return (x @ readout).sum()

    layers = ["relu", *(f"relu:{i}" for i in range(1, depth))]
    x = rng.normal(size=(nodes, features))
    return fun, x, layers, higher_order.walks_along(edges, depth)


ORDER = {"magnitude": np.abs, "positive": lambda r: r, "negative": lambda r: -r}


def brute_force(fun, x, layers, composite, every, by="magnitude"):
    """(walks, relevance) of all walks, the most relevant ones first."""
    explain = higher_order.walks(fun, layers, composite)
    relevance = np.asarray(jax.jit(lambda x: explain(x, walks=every))(x))
    order = np.argsort(-ORDER[by](relevance), kind="stable")
    return every[order], relevance[order]


def found_by(find, x):
    """Of several arrays, not traced."""
    return [np.asarray(a) for a in jax.jit(find)(x)]


@pytest.mark.slow
@pytest.mark.parametrize("by", ORDER)
@pytest.mark.parametrize("bounded", one_in(2, [True, False]))
def test_a_wide_search_finds_the_most_relevant_walks(by, bounded):
    fun, x, layers, every = deep()
    composite = COMPOSITES["gamma"]
    walks, relevance = brute_force(fun, x, layers, composite, every, by)
    find = higher_order.top_walks(
        fun, layers, composite, k=7, by=by, beam=len(every), bounded=bounded
    )
    found, of_found, bound = found_by(find, x)
    np.testing.assert_array_equal(found, walks[:7])
    np.testing.assert_allclose(of_found, relevance[:7], rtol=1e-9)
    assert bound == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_what_was_given_up_is_within_the_bound(seed):
    fun, x, layers, every = deep(seed)
    walks, relevance = brute_force(fun, x, layers, None, every)
    certified = 0
    for beam in (4, 32):
        find = higher_order.top_walks(fun, layers, k=2, beam=beam, bounded=True)
        found, of_found, bound = found_by(find, x)
        kept = {tuple(walk) for walk in found}
        others = [abs(r) for w, r in zip(walks, relevance, strict=True) if tuple(w) not in kept]
        assert others[0] <= max(bound, abs(of_found[-1])) * (1 + 1e-9)
        if bound <= abs(of_found[-1]):
            certified += 1
            np.testing.assert_array_equal(found, walks[:2])
    assert certified  # and a bound that were always infinite would pass, but for this


def test_a_narrow_search_tells_the_truth_of_what_it_found():
    fun, x, layers, every = deep()
    walks, relevance = brute_force(fun, x, layers, None, every)
    of_walk = dict(zip(map(tuple, walks), relevance, strict=True))
    found, of_found, bound = found_by(higher_order.top_walks(fun, layers, k=9, beam=3), x)
    assert bound == np.inf
    # 0: beyond the walks that there are, the search may name others
    np.testing.assert_allclose(of_found, [of_walk.get(tuple(w), 0.0) for w in found], rtol=1e-9)
    assert (np.diff(np.abs(of_found)) <= 0).all()


def test_without_negative_shares_few_ends_are_enough():
    """The promise of the docstring: a beam of R / R_k, with z+ on what is not negative."""
    fun, x, layers, every = deep(nodes=8, readout=1.0)
    composite, x = composites.by_kind("dense", lrp.ZPlus()) + composites.default(), np.abs(x)
    walks, relevance = brute_force(fun, x, layers, composite, every)
    assert (relevance >= 0).all()
    beam = int(np.ceil(relevance.sum() / relevance[4]))
    assert beam < len(every) / 2
    find = higher_order.top_walks(fun, layers, composite, k=5, beam=beam, bounded=True)
    found, of_found, bound = found_by(find, x)
    np.testing.assert_array_equal(found, walks[:5])
    assert bound <= of_found[-1]


# --- subgraphs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", one_in(3, COMPOSITES))
def test_a_subgraph_has_all_walks_inside(name):
    composite = COMPOSITES[name]
    every = np.array(list(itertools.product(range(N), *[range(-1, N)] * 3)))
    relevance = jax.jit(
        lambda x: higher_order.walks(injected, INJECTED, composite)(x, walks=every)
    )(X)
    sets = np.array([[True, True, False, False], [False, True, False, True], [True] * 4])
    found = higher_order.subgraph(injected, INJECTED, composite)(X, nodes=sets)
    for of_set, inside in zip(found, sets, strict=True):
        within = np.append(inside, True)[every].all(axis=1)  # -1, the last: a way around
        np.testing.assert_allclose(of_set, relevance[within].sum(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found[-1], lrp.explain(injected, composite)(X).relevance.sum(), rtol=1e-9
    )


@pytest.mark.slow
def test_subgraphs_of_different_nodes_and_without_the_input():
    senders, receivers = np.nonzero(EDGES)

    def fun(x):
        h = jax.nn.relu(x[senders] @ W1)
        return (jax.nn.relu(jax.ops.segment_sum(h, receivers, N) @ W2) @ V).sum()

    inside = np.array([True, True, False, False])
    bonds = inside[senders] & inside[receivers]
    every = np.array(list(itertools.product(range(N), range(len(senders)), range(N))))
    relevance = higher_order.walks(fun, LAYERS)(X, walks=every)
    within = inside[every[:, 0]] & bonds[every[:, 1]] & inside[every[:, 2]]
    found = higher_order.subgraph(fun, LAYERS)(X, nodes=(inside, bonds, inside))
    assert found.shape == ()
    np.testing.assert_allclose(found, relevance[within].sum(), rtol=1e-9)
    steps = higher_order.subgraph(fun, LAYERS, from_input=False)(X, nodes=(bonds, inside))
    within = bonds[every[:, 1]] & inside[every[:, 2]]
    np.testing.assert_allclose(steps, relevance[within].sum(), rtol=1e-9)


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
    found = higher_order.pairs(embed, composites.all_epsilon(0.0), batch_size=2)(a, b)
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


def test_factors_multiply_to_pairs():
    """One factor for each input; random directions give the similarity of what they keep."""
    a, b = X[0], X[1]
    one = higher_order.factors(embed)
    np.testing.assert_allclose(one(a).T @ one(b), higher_order.pairs(embed)(a, b), rtol=1e-12)
    some = normal(2, D, seed=10)
    kept = higher_order.factors(embed, composites.all_epsilon(0.0), directions=some)
    np.testing.assert_allclose(
        kept(a).sum(1) @ kept(b).sum(1), (some @ embed(a)) @ (some @ embed(b)), rtol=1e-9
    )
    np.testing.assert_allclose(kept(a), some @ one(a), rtol=1e-4)  # relevance is linear
    with pytest.raises(ValueError, match=r"directions must have shape \(K, 3\)"):
        higher_order.factors(embed, directions=some.T)(a)


def test_pairs_of_different_embeddings_are_refused():
    with pytest.raises(
        ValueError, match="the outputs for both inputs must have the same length, got 2 and 3"
    ):
        higher_order.pairs(lambda x: x * 2.0)(jnp.ones(2), jnp.ones(3))


MIX = np.abs(normal(N, N, seed=5))
DEEP = normal(3, D, D, seed=6)


def scanned(x):
    return jax.lax.scan(lambda h, w: (jax.nn.relu(MIX @ h @ w), None), x, DEEP)[0].sum()


def written_out(x):
    for w in DEEP:
        x = jax.nn.relu(MIX @ x @ w)
    return x.sum()


@pytest.mark.parametrize(
    "call",
    [
        lambda f, layers: higher_order.walks(f, layers)(
            X, walks=np.array([[0] * (len(layers) + 1)])
        ),
        lambda f, layers: higher_order.walks(f, layers, from_input=False)(
            X, walks=np.array([[0] * len(layers)])
        ),
        lambda f, layers: higher_order.top_walks(f, layers)(X),
        lambda f, layers: higher_order.top_walks(f, layers, bounded=True)(X),
    ],
)
def test_walks_through_a_layer_inside_a_scan_are_refused(call):
    message = r"layer 'relu' is inside `scan` .* unroll the loop .* a layer of its own"
    with pytest.raises(ValueError, match=message):
        call(scanned, ["relu"])
    call(written_out, ["relu", "relu:1", "relu:2"])  # the mend


def test_sets_of_nodes_keep_to_every_step_of_a_scan():
    sets = np.array([[True, True, False, True], [False, True, True, False]])
    expected = higher_order.subgraph(written_out, ["relu", "relu:1", "relu:2"])(X, nodes=sets)
    assert np.abs(expected).min() > 0.01
    for axis in (0, -2):
        found = higher_order.subgraph(scanned, ["relu"], node_axis=axis)(X, nodes=sets)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
