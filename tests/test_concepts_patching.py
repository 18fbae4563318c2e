"""Patching, circuits, and concepts of segmentations: formulas in NumPy, and numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites, concepts
from jaxlrp.concepts.circuit_graph import _levels

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W, U, V, B = (RNG.normal(size=shape) for shape in ((5, 6), (6, 6), (6, 3), (6,)))
X, CLEAN = RNG.normal(size=(2, 4, 5))  # (batch, features) each
TARGET = lrp.targets.Contrast(np.array([0, 1, 2, 0]), np.array([1, 2, 0, 2]))
UNITS = concepts.Channels("tanh", axis=-1)


def model(x):
    """Its hidden layer is followed by squares, so that estimates are not exact."""
    return jnp.square(jnp.tanh(x @ W + B) @ U) @ V


def hidden(x):
    return np.tanh(x @ W + B)


def upper(h):
    return np.square(h @ U) @ V


def difference(z):
    rows = np.arange(4)
    return z[rows, np.array([0, 1, 2, 0])] - z[rows, np.array([1, 2, 0, 2])]


def patched(keep):
    """The metric with the kept units of the clean run: (batch,)."""
    return difference(upper(np.where(keep, hidden(CLEAN), hidden(X))))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_exact_patching_replaces_each_unit(batch_size):
    found = concepts.exact_patching(lrp.explain(model), UNITS, batch_size=batch_size)(
        X, clean=CLEAN, target=TARGET
    )
    expected = [patched(np.arange(6) == c) - patched(np.zeros(6, bool)) for c in range(6)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-10, atol=1e-12)


def test_attribution_patching_is_the_difference_times_the_gradient():
    explain = lrp.explain(model, composites.gradient())
    found = concepts.relevance_patching(explain, UNITS)(X, clean=CLEAN, target=TARGET)
    weights = np.zeros((4, 3))
    weights[np.arange(4), [0, 1, 2, 0]], weights[np.arange(4), [1, 2, 0, 2]] = 1, -1
    gradient = (2 * (hidden(X) @ U) * (weights @ V.T)) @ U.T
    np.testing.assert_allclose(found, (hidden(CLEAN) - hidden(X)) * gradient, rtol=1e-9)


def test_relevance_patching_is_exact_where_the_rest_is_linear_and_works_by_token():
    def linear(x):
        return (jnp.tanh(x @ W) @ V).sum(axis=1)

    x, clean = RNG.normal(size=(2, 2, 3, 5))  # (batch, tokens, features) each
    families = {"units": UNITS, "tokens": concepts.Channels("tanh", axis=1)}
    explain = lrp.explain(linear, "relp")
    estimate = concepts.relevance_patching(explain, families)(x, clean=clean, target=1)
    exact = concepts.exact_patching(explain, families)(x, clean=clean, target=1)
    assert (estimate["units"].shape, estimate["tokens"].shape) == ((2, 6), (2, 3))
    for name in families:
        np.testing.assert_allclose(estimate[name], exact[name], rtol=1e-9)
    moved = (linear(clean) - linear(x))[:, 1]
    np.testing.assert_allclose(exact["tokens"].sum(axis=1), moved, rtol=1e-9)


def test_circuit_curve_keeps_the_best_and_ablates_to_the_mean():
    reference, scores = RNG.normal(size=(9, 5)), RNG.normal(size=6)
    curve = concepts.circuit_curve(lrp.explain(model), UNITS)(
        X, scores=scores, sizes=[0, 2, 6], reference=reference, target=TARGET
    )
    mean, best = hidden(reference).mean(axis=0), np.argsort(-scores)[:2]
    kept = np.where(np.isin(np.arange(6), best), hidden(X), mean)
    metrics = [difference(upper(h)) for h in (np.broadcast_to(mean, (4, 6)), kept, hidden(X))]
    np.testing.assert_allclose(curve.metric, metrics, rtol=1e-9)
    assert curve.sizes.tolist() == [0, 2, 6]
    none, some, whole = (m.mean() for m in metrics)
    np.testing.assert_allclose(
        curve.faithfulness, [0, (some - none) / (whole - none), 1], atol=1e-9
    )


def test_circuits_rank_all_layers_together():
    families = {
        "lower": concepts.Channels("tanh", axis=-1),
        "upper": concepts.Channels("square", axis=-1),
    }
    scores = {"lower": np.full(6, 2.0), "upper": np.full(6, 1.0)}
    curve = concepts.circuit_curve(lrp.explain(model), families)(
        X, scores=scores, sizes=[6, 12], reference=X[:1], target=TARGET
    )
    # without its upper layer nothing of a sample is left; with both, everything
    np.testing.assert_allclose(curve.metric[0], curve.none, rtol=1e-9)
    np.testing.assert_allclose(curve.metric[1], curve.whole, rtol=1e-9)


# Circuits as graphs: h = relu(x A), m = relu(h B), top = relu(m C + h S), logits = top V

A, M, C, S = (
    np.random.default_rng(4).normal(size=shape) for shape in ((5, 4), (4, 4), (4, 3), (4, 3))
)
LAYERS = {
    "low": concepts.Channels("relu", axis=-1),
    "mid": concepts.Channels("relu:1", axis=-1),
    "top": concepts.Channels("relu:2", axis=-1),
}
SCORES = {
    "low": np.array([6.0, 0.0, 5.0, 4.0]),
    "mid": np.array([0.5, 3.0, 0.1, 2.0]),
    "top": np.array([0.2, 8.0, 7.0]),
}


def skipping(x):
    h = jax.nn.relu(x @ A)
    return jax.nn.relu(jax.nn.relu(h @ M) @ C + h @ S) @ V[:3]


def slopes(x, weights):
    """Relevance of each top unit, and how much of it each unit of the lower layers gets: by the formula."""
    h = np.maximum(x @ A, 0)
    m = np.maximum(h @ M, 0)
    z = m @ C + h @ S
    g = (weights @ V[:3].T) * (z > 0)
    to_mid = m[:, :, None] * C * g[:, None]  # (batch, mid, top)
    to_low = h[:, :, None] * S * g[:, None]  # past the middle layer
    coefficient = (g @ C.T) * (h @ M > 0)
    from_mid = h[:, :, None] * M * coefficient[:, None]  # (batch, low, mid)
    return to_mid.mean(axis=0), to_low.mean(axis=0), from_mid.mean(axis=0)


@pytest.fixture(scope="module")
def grown():
    explain = lrp.explain(skipping, "relp")
    return lambda size: concepts.circuit_graph(explain, LAYERS)(
        X, scores=SCORES, size=size, target=TARGET
    )


def test_circuit_graph_equals_the_formula(grown):
    found = grown(7)
    kept = {"low": [0, 2, 3], "mid": [1, 3], "top": [1, 2]}
    assert set(found.nodes) == {(name, c) for name, held in kept.items() for c in held}
    assert dict(found.nodes("rank"))["low", 3] == 4
    assert dict(found.nodes("score"))["top", 2] == 7.0
    assert {name: level for (name, _), level in found.nodes("level")} == {
        "top": 0, "mid": 1, "low": 2
    }  # fmt: skip
    weights = np.zeros((4, 3))
    weights[np.arange(4), [0, 1, 2, 0]], weights[np.arange(4), [1, 2, 0, 2]] = 1, -1
    to_mid, to_low, from_mid = slopes(X, weights)
    expected = {}
    for t in kept["top"]:
        total = np.abs(to_mid[:, t]).sum() + np.abs(to_low[:, t]).sum()
        for name, values in (("mid", to_mid), ("low", to_low)):
            expected |= {(("top", t), (name, c)): (values[c, t], total) for c in kept[name]}
    for m in kept["mid"]:
        total = np.abs(from_mid[:, m]).sum()
        expected |= {(("mid", m), ("low", c)): (from_mid[c, m], total) for c in kept["low"]}
    expected = {edge: pair for edge, pair in expected.items() if pair[0]}
    assert set(found.edges) == set(expected)
    assert len(expected) == 12  # unit 3 of "low" is dead: no edges
    for edge, (value, total) in expected.items():
        assert found.edges[edge]["relevance"] == pytest.approx(value, rel=1e-8)
        # a floor of 1e-10 in the denominator
        assert found.edges[edge]["weight"] == pytest.approx(value / total, rel=1e-7)


def test_a_layer_without_nodes_still_blocks_what_passes_through_it(grown):
    small, large = grown(5), grown(7)  # without and with nodes of the middle layer
    assert {name for name, _ in small.nodes} == {"low", "top"}
    assert small.edges  # past the middle layer
    assert dict(small.nodes("level"))["low", 0] == 2
    for edge in small.edges:
        assert small.edges[edge]["weight"] == pytest.approx(large.edges[edge]["weight"], rel=1e-9)


def test_levels_count_the_longest_way():
    below = {"low": [], "mid": ["low"], "top": ["mid"], "side": ["low"]}
    assert _levels(below) == {"low": 2, "mid": 1, "top": 0, "side": 0}


def test_circuit_graphs_of_one_family_have_no_edges_and_wrong_sizes_are_refused():
    grow = concepts.circuit_graph(lrp.explain(model), UNITS, batch_size=2)
    found = grow(X, scores=np.arange(6.0), size=3, target=0)
    assert list(found.nodes) == [("tanh", 3), ("tanh", 4), ("tanh", 5)]
    assert not found.edges
    with pytest.raises(ValueError, match="size must be in 1 to 6, the number of concepts, got 7"):
        grow(X, scores=np.arange(6.0), size=7, target=0)
    with pytest.raises(
        ValueError, match="must have 6 numbers, one for each concept of the layer, got 5"
    ):
        grow(X, scores=np.ones(5), size=3, target=0)
    with pytest.raises(TypeError, match="scores must be a dictionary"):
        concepts.circuit_graph(lrp.explain(model), [UNITS])(X, scores=np.ones(6), size=3, target=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p, c: p(X), TypeError, "clean is missing"),
        (lambda p, c: p(X, clean=CLEAN[:2]), ValueError, r"clean must have the shape .*\(4, 5\), got \(2"),
        (lambda p, c: c(X, scores=np.ones(6), sizes=[1]), TypeError, "reference is missing"),
        (
            lambda p, c: c(X, scores=np.ones(5), sizes=[1], reference=X, target=0),
            ValueError, r"must have 6 numbers, one for each concept of the layer, got 5",
        ),
        (
            lambda p, c: c(X, scores=np.ones(6), sizes=[7], reference=X, target=0),
            ValueError, r"sizes must be in 0 to 6, the number of concepts, got \[7\]",
        ),
        (
            lambda p, c: c(X, scores=np.ones((4, 6)), sizes=[1], reference=X, target=0),
            ValueError, "average over the batch first",
        ),
        (
            lambda p, c: c(X, scores=np.ones(6), sizes=[0.5], reference=X, target=0),
            ValueError, "sizes must be a sequence of integers",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_patched_is_named(call, error, message):
    explain = lrp.explain(model)
    with pytest.raises(error, match=message):
        call(concepts.exact_patching(explain, UNITS), concepts.circuit_curve(explain, UNITS))


def test_two_families_of_one_layer_would_undo_each_other():
    families = {"units": UNITS, "tokens": concepts.Channels("tanh", axis=1)}
    with pytest.raises(
        ValueError, match=r"one family for each layer, got the layers \['tanh', 'tanh'\]"
    ):
        concepts.circuit_curve(lrp.explain(model), families)


def test_exact_patching_refuses_an_explainer_that_begins_at_a_layer():
    with pytest.raises(ValueError, match="must begin at the output, got start='tanh'"):
        concepts.exact_patching(lrp.explain(model, start="tanh"), UNITS)


# Segmentation: the example of one dimension, object at positions 2 and 3, by hand

OBJECT = np.array([False, False, True, True, False, False])


def segmenter(x):
    """Logit of class 0 at p: 2 u_p + (v_(p-1) + v_p + v_(p+1)) / 3; of class 1: -1."""
    h = jax.nn.relu(x)
    u, v = h[..., 0], jnp.pad(h[..., 1], ((0, 0), (1, 1)))
    z = 2 * u + (v[:, :-2] + v[:, 1:-1] + v[:, 2:]) / 3
    return jnp.stack([z, 0 * z - 1], axis=-1)


SCENE = np.stack([OBJECT.astype(float), np.ones(6)], axis=-1)[None]
CHANNELS = concepts.Channels("relu", axis=-1)


def test_concepts_and_context_of_a_segmentation():
    explain = lrp.explain(segmenter)
    target = lrp.targets.Segmentation(0, OBJECT)
    found = concepts.scores(explain, CHANNELS)(SCENE, target=target)
    np.testing.assert_allclose(found.relevance, [[2 / 3, 1 / 3]], rtol=1e-9)
    for signed in (False, True):
        score = concepts.context(explain, CHANNELS, signed=signed)
        found = score(SCENE, target=target, mask=OBJECT[None])
        np.testing.assert_allclose(found, [[0, 1 / 3]], atol=1e-9)


def test_context_takes_magnitudes_unless_signed():
    w = jnp.array([[1.0], [1.0], [-1.0]])  # a unit that reads 1 inside, 1 and -1 outside
    explain = lrp.explain(lambda x: 3.0 + jnp.tanh(x @ w + 0.5))
    family, x = concepts.Channels("tanh", axis=-1), jnp.ones((1, 3))
    mask = jnp.array([[True, False, False]])
    absolute = concepts.context(explain, family, batch_size=1)(x, mask=mask)
    np.testing.assert_allclose(absolute, [[2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(
        concepts.context(explain, family, signed=True)(x, mask=mask), [[0]], atol=1e-6
    )


def test_a_scene_is_explained_the_same_in_any_batch():
    scenes = np.abs(RNG.normal(size=(3, 6, 2))) * np.array([1, 10, 100])[:, None, None]
    masks = RNG.random((3, 6)) > 0.4
    explain = lrp.explain(segmenter)
    together = explain(scenes, target=lrp.targets.Segmentation(0, masks)).relevance
    for i in range(3):
        alone = explain(scenes[i : i + 1], target=lrp.targets.Segmentation(0, masks[i : i + 1]))
        np.testing.assert_allclose(together[i], alone.relevance[0], rtol=1e-12)
        np.testing.assert_allclose(together[i].sum(), 1, rtol=1e-6)


def test_positions_of_another_class_or_below_zero_have_no_relevance():
    z = jnp.array([[[2.0, 1.0], [1.0, 3.0], [-1.0, -2.0], [4.0, 0.0]]])
    of = lrp.explain(lambda x: 1.0 * x)
    found = of(z, target=lrp.targets.Segmentation(0)).relevance
    np.testing.assert_allclose(found[0, :, 0], [1 / 3, 0, 0, 2 / 3], rtol=1e-9)
    assert not np.any(of(z, target=lrp.targets.Segmentation(1, jnp.arange(4) == 0)).relevance)


def test_one_box_of_a_detector():
    z = jnp.array([[[0.9, 0.1], [0.2, 0.6], [0.8, 0.3]], [[0.1, 0.2], [0.3, 0.1], [0.2, 0.9]]])
    explain = lrp.explain(lambda x: 2.0 * x)
    found = explain(z, target=lrp.targets.Detection(jnp.array([0, 1]), threshold=1.0)).relevance
    expected = np.zeros((2, 3, 2))
    expected[0, 0, 0] = expected[1, 2, 1] = 1  # doubled scores: 1.8 and 1.8
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    second = explain(z, target=lrp.targets.Detection(0, rank=1, threshold=1.0)).relevance
    np.testing.assert_allclose(second[0, 2], [1, 0], rtol=1e-9)
    assert not np.any(second[1])  # its second box for class 0 scores .4


def test_targets_of_scenes_are_checked():
    z = jnp.ones((2, 3, 4))
    explain = lrp.explain(lambda x: 1.0 * x)
    with pytest.raises(ValueError, match=r"rank must be in 0 to 2: 3 boxes, got 3"):
        explain(z, target=lrp.targets.Detection(0, rank=3))
    with pytest.raises(ValueError, match=r"scores of shape \(N, boxes, classes\), got \(3, 4\)"):
        explain(z[0], target=lrp.targets.Detection(0))
    with pytest.raises(ValueError, match=r"the mask, of shape \(5,\), must broadcast"):
        explain(z, target=lrp.targets.Segmentation(0, jnp.ones(5)))
    with pytest.raises(IndexError, match="target 4 is out of range"):
        explain(z, target=lrp.targets.Segmentation(4))
    score = concepts.context(lrp.explain(segmenter), CHANNELS)
    with pytest.raises(TypeError, match="mask must be booleans"):
        score(SCENE, target=lrp.targets.Segmentation(0), mask=np.ones((1, 6)))
    with pytest.raises(
        ValueError, match=r"leading axes of the explained argument, of shape \(1, 6, 2\)"
    ):
        score(SCENE, target=lrp.targets.Segmentation(0), mask=OBJECT)
