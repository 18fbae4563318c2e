"""Regions, references and attribution graphs, and their drawings."""

import types

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from flax import linen as nn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch

import jaxlrp as lrp
from jaxlrp import concepts
from jaxlrp.concepts import Channels, figures, regions
from jaxlrp.concepts.differences import notable

SIZE = (8, 8, 3)


class Residual(nn.Module):
    """A stem, a block with a skip connection, a head."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        y = nn.relu(nn.Conv(5, (3, 3), name="inner")(x))
        x = nn.relu(x + nn.Conv(4, (3, 3), name="outer")(y))
        return nn.Dense(3, name="classes")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def net():
    """An explainer, its layers, and a few pictures."""
    module = Residual()
    x = jax.random.normal(jax.random.key(1), (6, *SIZE))
    variables = module.init(jax.random.key(0), x)
    return lrp.explain(lambda x: module.apply(variables, x)), np.asarray(x)


STEM, INNER, SUM = Channels("relu", -1), Channels("relu:1", -1), Channels("relu:2", -1)
LAYERS = {"stem": STEM, "inner": INNER, "sum": SUM}


def rendered(figure):
    """Draws a figure, so that whatever is wrong with it comes out."""
    FigureCanvasAgg(figure).draw()


# --- regions --------------------------------------------------------------------------------------


def picture():
    y, x = np.mgrid[:24, :30] / 30
    return np.stack([x > 0.5, y > 0.4, np.hypot(x - 0.5, y - 0.4) < 0.2], axis=-1).astype(float)


@pytest.mark.parametrize(
    ("found", "shape"),
    [
        (regions.grid((7, 8, 3), (3, 4, None)), (6, 7, 8, 1)),
        (regions.grid((5, 6), 2), (9, 5, 6)),
        (regions.intervals(11, 4), (3, 11)),
        (regions.tokens(5), (5, 5)),
        (regions.segments(np.array([[5, 5, 2]])), (2, 1, 3)),
        (regions.superpixels(picture(), 12), (None, 24, 30, 1)),
        (regions.superpixels(picture()[..., 0], 5, channel_axis=None), (None, 24, 30)),
        (regions.superpixels(picture().transpose(2, 0, 1), 12, channel_axis=0), (None, 1, 24, 30)),
        (
            regions.masks([[True, False, False, False], [False, False, True, False]], rest=True),
            (3, 4),
        ),
    ],
)
def test_regions_divide_the_input(found, shape):
    assert found.dtype == bool
    assert found.shape[1:] == shape[1:]
    assert len(found) == shape[0] if shape[0] else len(found) > 2
    np.testing.assert_array_equal(found.sum(axis=0), 1)
    assert found.reshape(len(found), -1).any(axis=1).all()


def test_superpixels_follow_the_edges_of_a_picture():
    image = np.zeros((20, 20, 3))
    image[:, 7:] = 1.0
    found = regions.superpixels(image, 4, compactness=0.1)
    inside = found[..., 7:, :].sum(axis=(1, 2, 3)) / found.sum(axis=(1, 2, 3))
    assert set(inside.tolist()) == {0.0, 1.0}


def test_soft_masks_keep_their_weights_and_the_rest_is_what_they_leave():
    alpha = np.array([[0.25, 0.5, 0.0]])
    np.testing.assert_allclose(regions.masks(alpha, rest=True), [[0.25, 0.5, 0], [0.75, 0.5, 1]])
    with pytest.raises(
        ValueError, match=r"must not add up to more than 1, but they do at \(1,\): 1.5"
    ):
        regions.masks([[0.25, 0.5], [0.25, 1.0]], rest=True)


def test_boxes_are_masks():
    found = regions.boxes((3, 4), [[0, 1, 2, 4], [1.4, 0.6, 2.6, 1.6]])
    np.testing.assert_array_equal(
        found[0], np.array([[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]) > 0
    )
    # centers at .5: rows 1.5 and 2.5 lie inside of (1.4, 2.6), and of the columns only 1.5
    np.testing.assert_array_equal(
        found[1], np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]) > 0
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: regions.grid((4, 4), (2,)), ValueError, "for each of the 2 axes"),
        (lambda: regions.grid((4, 4), (0, 2)), ValueError, "size must be an integer >= 1, got 0"),
        (lambda: regions.intervals(4, 0), ValueError, "size must be an integer >= 1"),
        (lambda: regions.tokens(0), ValueError, "length must be an integer >= 1"),
        (
            lambda: regions.superpixels(np.ones((2, 8, 8, 3, 1)), 4),
            ValueError,
            "one image of a batch",
        ),
        (lambda: regions.superpixels(np.ones((8, 8)), 4), ValueError, "channel_axis=None where"),
        (
            lambda: regions.superpixels(picture(), 4, compactness=0),
            ValueError,
            "compactness must be",
        ),
        (lambda: regions.superpixels(picture() * np.nan, 4), ValueError, "image must be finite"),
        (lambda: regions.segments([0.5]), TypeError, "labels must be integers"),
        (lambda: regions.masks([[1, 2]]), TypeError, "write mask > 0"),
        (lambda: regions.masks([True]), ValueError, r"write \[mask\] for a single one"),
        (lambda: regions.masks([[np.inf]]), ValueError, "masks must be finite"),
        (
            lambda: regions.boxes((4, 6), [[0, 0, 2, 2], [1, 1, 3, 7]]),
            ValueError,
            r"corners\[1\] = \[1.0, 1.0, 3.0, 7.0\] is not inside of the picture of 4 x 6 pixels",
        ),
        (
            lambda: regions.boxes((4, 6), [[-1, 0, 2, 2]]),
            ValueError,
            "is not inside of the picture",
        ),
        (
            lambda: regions.boxes((4, 6), [[0, np.nan, 2, 2]]),
            ValueError,
            "is not inside of the picture",
        ),
        (
            lambda: regions.boxes((4, 6), [[2, 0, 1, 2]]),
            ValueError,
            "contains no pixel: bottom must be",
        ),
        (
            lambda: regions.boxes((4, 6), [0, 0, 2, 2]),
            ValueError,
            r"\(boxes, 4\).* of shape \(4,\)",
        ),
        (
            lambda: regions.boxes((4, 6, 3), [[0, 0, 2, 2]]),
            ValueError,
            r"shape must be \(height, width\)",
        ),
    ],
)
def test_regions_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_regions_fit_local(net):
    explain, x = net
    tiles = regions.grid(SIZE, (4, 4, None))
    found = concepts.local(explain, SUM)(x, target=1, regions=tiles)
    whole = concepts.scores(explain, SUM)(x, target=1)
    np.testing.assert_allclose(  # biases and stabilizers absorb nothing here that the sum has
        found.relevance.sum(axis=1),
        concepts.local(explain, SUM)(x, target=1, regions=np.ones((1, 1, 1, 1))).relevance[:, 0],
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    assert found.relevance.shape == (6, 4, whole.relevance.shape[-1])


# --- references -----------------------------------------------------------------------------------


def test_locate_is_the_conditional_pass_of_each_example(net):
    explain, x = net
    of, target = np.array([3, 0, 1, 4, 2, 2]), np.array([0, 1, 2, 2, 1, 0])
    found = concepts.locate(explain, INNER)(x, target=target, concepts=of)
    want = concepts.conditional(explain, cut=True)(x, target=target, conditions=[INNER.each(of)])
    np.testing.assert_allclose(found, want.relevance[0], rtol=1e-4, atol=1e-7)
    alone = concepts.conditional(explain, cut=True)
    for i, c in enumerate(of):  # whatever the other examples are
        one = alone(x[i : i + 1], target=target[i : i + 1], conditions=[INNER[int(c)]])
        np.testing.assert_allclose(found[i], one.relevance[0, 0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("by", ["relevance_max", "activation", "activation_max"])
def test_locate_from_one_unit_and_from_activations(net, by):
    explain, x = net
    of, target = np.array([3, 0, 1, 4, 2, 2]), np.array([0, 1, 2, 2, 1, 0])
    record = explain.replace(record=("relu:1",))(x, target=target).records["relu:1"]
    values = np.asarray(record.relevance if by.startswith("rel") else record.activation)
    begun = np.zeros_like(values)
    for i, c in enumerate(of):
        here = values[i, :, :, c]
        if by.endswith("_max"):
            here = np.where(here == here.max(), here, 0)
        begun[i, :, :, c] = here
    want = explain.replace(start="relu:1")(x, target=begun).relevance
    kwargs = {"target": target} if by.startswith("rel") else {}
    found = concepts.locate(explain, INNER, by=by)(x, concepts=of, **kwargs)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "family",
    [
        concepts.Heads("tanh", 2, axis=-1),
        concepts.directions(
            "tanh", np.linalg.qr(np.arange(36.0).reshape(6, 6) % 7)[0][:3], axis=-1
        ),
    ],
)
def test_locate_takes_heads_and_directions(family):
    w, v = jax.random.normal(jax.random.key(0), (2, 6, 6))
    x = jax.random.normal(jax.random.key(1), (3, 4, 6))
    explain = lrp.explain(lambda x: (jnp.tanh(x @ w) @ v).sum((1, 2)))
    of = np.array([1, 0, 1])
    found = concepts.locate(explain, family)(x, concepts=of)
    want = concepts.conditional(explain)(x, conditions=[family.each(of)]).relevance[0]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    one = np.abs(concepts.locate(explain, family, by="relevance_max")(x, concepts=of)).sum(-1)
    np.testing.assert_array_equal((one > 1e-6).sum(axis=1), 1)  # one token of each example


def test_a_box_keeps_its_last_row_and_column():
    heat = np.zeros((6, 7))
    heat[2, 3] = heat[4, 6] = 1.0
    heat[0, 0] = 0.1  # not more than a tenth
    assert concepts.crop_box(heat) == ((2, 5), (3, 7))
    assert concepts.crop_box(heat, context=2) == ((0, 6), (1, 7))
    assert concepts.crop_box(-heat) == ((0, 6), (0, 7))


def planted():
    """One unit for each corner of a picture of 16 x 16, and pictures with a spot of 3 x 3 there."""
    w = np.zeros((16, 16, 2), np.float32)
    w[:8, :8, 0] = w[8:, 8:, 1] = 1.0
    x = np.zeros((5, 16, 16, 1), np.float32)
    spots = [(1, 1), (10, 12), (4, 2), (13, 13), (9, 9)]
    for i, (r, c) in enumerate(spots):
        x[i, r : r + 3, c : c + 3] = 1.0 + i
    v = np.ones((2, 1), np.float32)

    def fun(x):
        return jax.nn.relu(jnp.einsum("bhwc,hwk->bk", x, w)) @ v

    return lrp.explain(fun), Channels("relu", -1), x, spots


def test_references_are_cropped_to_what_was_planted():
    explain, units, x, spots = planted()
    top = types.SimpleNamespace(
        rows=np.array([[2, 0, -1], [3, 4, 1]]), values=np.array([[27.0, 9, -np.inf], [36, 45, 18]])
    )
    asked = []

    def fetch(rows):
        asked.append(len(rows))
        return x[rows]

    found = concepts.references(
        explain,
        units,
        top,
        fetch,
        axes=(0, 1),
        blur=0,
        batch_size=2,
        n=3,
        progress="none",
        of=[1, 0],
    )
    assert asked == [2, 2, 2]  # five samples in batches of one size
    assert list(found) == [1, 0]
    assert [r.row for r in found[0]] == [2, 0]
    assert [r.row for r in found[1]] == [3, 4, 1]
    assert [r.value for r in found[1]] == [36, 45, 18]
    for reference in found[0] + found[1]:
        row, column = spots[reference.row]
        assert reference.box == ((row, row + 3), (column, column + 3))
        np.testing.assert_array_equal(reference.crop, 1.0 + reference.row)
        np.testing.assert_array_equal(reference.crop.shape, (3, 3, 1))
        assert reference.mask.sum() == 9
        assert reference.mask[reference.window].all()
    few = concepts.references(
        explain, units, top, x, axes=(0, 1), n=1, of=[0], progress="none", blur=0.05
    )
    (one,) = few[0]
    (top_, bottom), (left, right) = one.box  # blurred: wider than the spot, and around it
    assert top_ < 4
    assert left < 2
    assert bottom > 7
    assert right > 5
    np.testing.assert_allclose(one.relevance[4:7, 2:5], 3.0, rtol=1e-5)


def test_each_reference_is_located_for_the_class_of_its_own_row(net):
    explain, x = net
    targets = np.array([0, 1, 2, 2, 1, 0])
    top = types.SimpleNamespace(rows=np.array([[5, 2], [1, 3]]), values=np.ones((2, 2)))
    found = concepts.references(
        explain, INNER, top, x, axes=(0, 1), targets=targets, progress="none", batch_size=6
    )
    locate = concepts.locate(explain, INNER)
    for concept in (0, 1):
        want = locate(x, target=targets, concepts=np.full(len(x), concept))
        for reference in found[concept]:
            np.testing.assert_allclose(
                reference.relevance, want[reference.row].sum(axis=-1), rtol=1e-4, atol=1e-7
            )


def test_references_of_tokens_are_spans():
    table = jnp.zeros((11, 2)).at[7, 0].set(2.0).at[9, 1].set(1.0)
    ids = np.array([[1, 7, 3, 9, 7, 2], [9, 2, 9, 3, 1, 4]], np.int32)
    explain = lrp.explain(lambda ids: jax.nn.relu(table[ids].sum(axis=1)).sum(axis=-1))
    top = types.SimpleNamespace(rows=np.array([[0], [1]]), values=np.ones((2, 1)))
    (layer,) = [p for p in explain.plan(ids).paths if p.startswith("relu")]
    found = concepts.references(
        explain, Channels(layer, -1), top, ids, axes=(0,), context=1, progress="none"
    )
    assert found[0][0].spans == [(1, 2), (4, 5)]
    assert found[0][0].box == ((0, 6),)
    assert found[1][0].spans == [(0, 1), (2, 3)]
    np.testing.assert_array_equal(found[1][0].crop, [9, 2, 9, 3])


def test_references_take_further_inputs_of_each_sample():
    explain = lrp.explain(
        lambda w, x, mask: jax.nn.relu((x * mask[..., None]).sum(axis=1) @ w).sum(-1), argnums=1
    )
    x = np.arange(1.0, 25.0, dtype=np.float32).reshape(2, 4, 3)
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    top = types.SimpleNamespace(rows=np.array([[0, 1]]), values=np.ones((1, 2)))
    found = concepts.references(
        explain, Channels("relu", -1), top, lambda rows: (x[rows], mask[rows]),
        axes=(0,), args=(jnp.ones((3, 1)),), progress="none", batch_size=3,
    )  # fmt: skip
    assert [r.box for r in found[0]] == [((0, 2),), ((2, 3),)]
    np.testing.assert_array_equal(found[0][1].example, x[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axes": (0, 0)}, ValueError, "axes=.* must name distinct axes"),
        ({"axes": (5,)}, ValueError, "must name distinct axes"),
        ({"of": [2]}, IndexError, r"of must be concepts in \[0, 1\]"),
        ({"of": []}, ValueError, "one or more concepts"),
        ({"blur": -1.0}, ValueError, "blur must be >= 0"),
        ({"threshold": 1.0}, ValueError, r"must be in \[0, 1\)"),
        ({"context": -1}, ValueError, "context must be >= 0"),
        ({"by": "size"}, ValueError, "by must be one of"),
        ({"fetch": lambda rows: np.zeros((1, 16, 16, 1))}, ValueError, "one input for each of 16 rows"),
        ({"top": types.SimpleNamespace(rows=np.zeros((3, 2, 1)), values=0)}, ValueError, "select a class"),
        ({"top": [1, 2]}, TypeError, r"top must be a ranking such as scores.top\(8\), .* got \[1, 2\]"),
    ],
)  # fmt: skip
def test_references_refuse(options, error, message):
    explain, units, x, _ = planted()
    top = types.SimpleNamespace(rows=np.array([[2], [3]]), values=np.ones((2, 1)))
    given = {"top": top, "fetch": x, "axes": (0, 1), "progress": "none"} | options
    with pytest.raises(error, match=message):
        concepts.references(explain, units, given.pop("top"), given.pop("fetch"), **given)


def test_locate_refuses(net):
    explain, x = net
    with pytest.raises(IndexError, match="concept 5 of the layer 'relu:1' is out of range"):
        concepts.locate(explain, INNER)(x, target=0, concepts=[0, 1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="one concept for each of 6 examples, got 2"):
        concepts.locate(explain, INNER)(x, target=0, concepts=[0, 1])
    with pytest.raises(ValueError, match="must have an axis of the batch"):
        concepts.locate(explain, Channels("relu", -1, batch=None))


# --- graph ----------------------------------------------------------------------------------------


def test_graph_by_hand():
    # RelevancePropagation.jl's linear network without biases: h = W1 x = (7, 8), y = W2 h = (46, 29).
    w1, w2 = jnp.array([[1.0, 3.0], [4.0, 2.0]]), jnp.array([[2.0, 4.0], [3.0, 1.0]])
    explain = lrp.explain(lambda x: (x * 1.0 @ w1.T) @ w2.T, lrp.Epsilon(0.0))
    x = jnp.array([[1.0, 2.0]])
    below, above = explain.plan(x).paths[-2:]
    layers = {"h": Channels(below, -1), "y": Channels(above, -1)}
    found = concepts.graph(explain, layers, width=(2,))(x, target=0, node=("y", 0))
    # R_h = (2 * 7, 4 * 8) = (14, 32) of 46; the seed is the value of output 0 alone.
    assert dict(found.nodes("relevance")) == pytest.approx(
        {("y", 0): 1.0, ("h", 0): 14 / 46, ("h", 1): 32 / 46}, rel=1e-5
    )
    edges = {b: (e["weight"], e["relevance"]) for _, b, e in found.edges(data=True)}
    assert edges[("h", 1)] == pytest.approx((32 / 46, 32.0), rel=1e-5)
    assert edges[("h", 0)] == pytest.approx((14 / 46, 14.0), rel=1e-5)


def slow_children(explain, x, target, layer, below):
    """Relevance of lower concepts by one pass of the core for a concept, with paths cut by hand."""
    record = explain.replace(record=(layer,))(x, target=target).records[layer]
    stage = explain.replace(start=layer, record=tuple(below))

    def of(concept):
        begun = np.zeros_like(record.relevance)
        begun[..., concept] = record.relevance[..., concept]
        found = stage(x, target=begun, condition=dict.fromkeys(below, 0.0)).records
        return {path: np.asarray(found[path].relevance).sum((0, 1, 2)) for path in below}

    return of


def test_graph_equals_the_slow_way_across_a_skip_connection(net):
    explain, x = net
    x = x[2:3]
    found = concepts.graph(explain, LAYERS, width=(6, 2))(x, target=1, node=("sum", 2))
    layer_of = {"stem": "relu", "inner": "relu:1", "sum": "relu:2"}
    below = {"sum": ["relu:1", "relu"], "inner": ["relu"], "stem": []}
    names = {path: name for name, path in layer_of.items()}
    slow_of = {n: slow_children(explain, x, 1, layer_of[n], below[n]) for n in ("sum", "inner")}
    expanded = 0
    for node, level in found.nodes("level"):
        name, concept = node
        if level == 2 or not below[name]:
            assert not list(found.successors(node)), node
            continue
        slow = slow_of[name](concept)
        flat = {(names[p], i): float(v) for p, r in slow.items() for i, v in enumerate(r)}
        total = sum(map(abs, flat.values()))
        strongest = sorted(flat, key=lambda n: -abs(flat[n]))[: (6, 2)[level]]
        kept = [n for n in strongest if flat[n]]
        assert set(found.successors(node)) == set(kept)
        for child in kept:
            edge = found.edges[node, child]
            assert edge["relevance"] == pytest.approx(flat[child], rel=1e-3, abs=1e-7)
            assert edge["weight"] == pytest.approx(flat[child] / total, rel=1e-3, abs=1e-6)
        expanded += 1
    assert expanded > 2
    assert {name for name, _ in found.successors(("sum", 2))} == {"stem", "inner"}


def test_layers_next_to_each_other_share_the_relevance_of_a_node(net):
    explain, x = net
    x = x[:1]
    # What reaches the stem through the inner layer counts there alone; biases are zero, so that nothing
    # is lost on the way.
    found = concepts.graph(explain, LAYERS, width=(99,))(x, target=1, node=("sum", 2))
    record = explain.replace(record=("relu:2",))(x, target=1).records["relu:2"]
    passed = sum(edge["relevance"] for _, _, edge in found.edges(data=True))
    assert passed == pytest.approx(float(record.relevance[..., 2].sum()), rel=1e-3)
    assert sum(abs(e["weight"]) for *_, e in found.edges(data=True)) == pytest.approx(1, rel=1e-4)


def test_graph_is_the_same_in_chunks(net):
    explain, x = net
    whole = concepts.graph(explain, LAYERS, width=(5, 3))(x[:1], target=1, node=("sum", 0))
    parts = concepts.graph(explain, LAYERS, width=(5, 3), batch_size=2)(
        x[:1], target=1, node=("sum", 0)
    )
    assert set(whole.edges) == set(parts.edges)
    for edge in whole.edges:
        assert parts.edges[edge]["weight"] == pytest.approx(whole.edges[edge]["weight"], rel=1e-4)


def test_a_loop_is_refused():
    def fun(x):
        return jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ jnp.eye(3)), x).sum(-1)

    explain, x = lrp.explain(fun), jnp.ones((1, 3))
    (path,) = [p for p in explain.plan(x).paths if "tanh" in p]
    units = Channels(path, -1)
    with pytest.raises(ValueError, match="is in a loop in which each step reads the previous one"):
        concepts.locate(explain, units)(x, concepts=[0])
    with pytest.raises(ValueError, match="is in a loop in which each step reads the previous one"):
        concepts.graph(explain, units)(x, node=(path, 0))


def test_graph_refuses(net):
    explain, x = net
    grow = concepts.graph(explain, LAYERS)
    with pytest.raises(KeyError, match="got 'head'"):
        grow(x[:1], target=1, node=("head", 0))
    with pytest.raises(IndexError, match="concept 4 of 'sum' is out of range: it has 4"):
        grow(x[:1], target=1, node=("sum", 4))
    with pytest.raises(ValueError, match="no family of concepts lies below 'stem'"):
        grow(x[:1], target=1, node=("stem", 0))
    with pytest.raises(ValueError, match=r"a batch of one example, got 2: pass x\[i"):
        grow(x[:2], target=1, node=("sum", 0))
    with pytest.raises(ValueError, match="width must be an integer >= 1"):
        concepts.graph(explain, LAYERS, width=(0,))
    with pytest.raises(ValueError, match="width must have the number of children"):
        concepts.graph(explain, LAYERS, width=())


# --- figures --------------------------------------------------------------------------------------


def reference(example, relevance, axes, **options):
    heat = np.asarray(relevance, float)
    return concepts.Reference(
        3,
        0,
        1.0,
        np.asarray(example),
        heat,
        heat,
        axes,
        concepts.crop_box(heat, **options),
        heat > 0.2,
    )


def image_reference():
    heat = np.zeros((6, 6))
    heat[1:4, 2:6] = 1.0
    heat[1, 2] = 0.15  # inside the box, but dimmed
    return reference(np.full((6, 6, 3), 0.8), heat, (0, 1))


def texts(figure):
    return [t.get_text() for ax in figure.axes for t in ax.texts]


def test_a_crop_is_dimmed_where_the_concept_is_not():
    found = figures.dimmed(image_reference(), shade=0.5)
    assert found.shape == (3, 4, 3)
    assert found[0, 0].tolist() == [102] * 3
    assert found[2, 3].tolist() == [204] * 3
    moved = reference(np.full((3, 6, 6), 0.8), image_reference().heat, (1, 2))
    np.testing.assert_array_equal(figures.dimmed(moved, shade=0.5), found)
    with pytest.raises(ValueError, match=r"must keep height and width, \(6, 6\), got \(2, 2\)"):
        figures.dimmed(image_reference(), to_image=lambda example: example[:2, :2])


def test_cards_show_shares_maps_and_references():
    one = image_reference()
    maps = {3: one.heat, 7: -one.heat}
    figure = figures.cards(
        {3: [one, one], 7: [one]}, maps=maps, shares={3: 0.25, 7: -0.1}, image=one.example,
        names={7: "a $ sign"}, n=1,
    )  # fmt: skip
    rendered(figure)
    assert texts(figure) == ["concept 3", "+25.0 %", r"a \$ sign", "-10.0 %"]
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(pictures) == 4  # a map and one reference in each row
    np.testing.assert_array_equal(pictures[1], figures.dimmed(one))
    blue, red = pictures[2][3, 3], pictures[0][3, 3]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    with pytest.raises(ValueError, match=r"\[7\] are missing"):
        figures.cards({3: [one], 7: [one]}, maps={3: one.heat})
    with pytest.raises(ValueError, match="references is empty"):
        figures.cards({})


def test_cards_of_signals_and_tokens():
    heat = np.array([0, 0, 1.0, 0.5, 0, 1, 0, 0])
    signal = reference(np.arange(16.0).reshape(8, 2), heat, (0,), context=1)
    figure = figures.cards({3: [signal]})
    rendered(figure)
    lines = figure.axes[1].lines
    assert [line.get_xdata().tolist() for line in lines] == [[1, 2, 3, 4, 5, 6]] * 2
    np.testing.assert_array_equal(lines[1].get_ydata(), signal.example[1:7, 1])
    spans = [p.get_extents().intervalx for p in figure.axes[1].patches]
    assert len(spans) == 2
    words = reference(np.arange(8), heat, (0,), context=1)
    figure = figures.cards({3: [words]}, words=lambda ids: [f"w{i}" for i in ids])
    rendered(figure)
    assert texts(figure)[1:] == ["w1", "w2", "w3", "w4", "w5", "w6"]
    with pytest.raises(ValueError, match="one string for each of 6 tokens, got 1"):
        figures.cards({3: [words]}, words=lambda ids: ["w"])


def test_atlas_colors_regions_by_their_most_relevant_concept():
    parts = regions.grid((8, 8, 3), (4, 4, None))
    relevance = np.zeros((1, 4, 5))
    relevance[0, 0, 2], relevance[0, 1, 4], relevance[0, 2, 2] = 1.0, 0.7, 0.5
    relevance[0, 3] = -1.0  # nothing speaks for it: gray
    found = concepts.LocalRelevance(relevance, np.zeros((1, 4)))
    figure = figures.atlas(found, parts, np.full((8, 8, 3), 0.5), names={4: "eyes"})
    rendered(figure)
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["concept 2", "eyes"]
    canvas = ax.images[0].get_array()
    blue, orange, gray = canvas[1, 1], canvas[1, 5], canvas[6, 6]
    assert blue.argmax() == 2
    assert orange.argmax() == 0
    np.testing.assert_allclose(gray, 0.5, atol=1e-6)
    np.testing.assert_array_less(np.ptp(canvas[5, 1]), np.ptp(blue))  # weaker, so paler
    figure = figures.atlas(
        found, parts, np.full((8, 8, 3), 0.5), references={2: [image_reference()]}
    )
    assert len([a for a in figure.axes if a.images]) == 2
    with pytest.raises(ValueError, match=r"regions must have shape \(4, 8, 8\)"):
        figures.atlas(found, parts[:2], np.full((8, 8, 3), 0.5))


def test_graph_is_drawn_family_by_family():
    found = networkx.DiGraph()
    found.add_weighted_edges_from([
        (("top", 1), ("low", 5), 0.2), (("top", 1), ("mid", 2), -0.5), (("mid", 2), ("low", 5), 1.0)
    ])  # fmt: skip
    figure = figures.graph(found, references={("mid", 2): [image_reference()]}, title="graph")
    rendered(figure)
    height = {ax.get_title() or ax.texts[0].get_text(): ax.get_position().y0 for ax in figure.axes}
    assert height["1"] > height["2"] > height["5"]
    labels = {t.get_text() for t in figure.texts}
    assert {"top", "mid", "low", "+20.0 %", "-50.0 %", "+100.0 %"} <= labels
    widths = sorted(p.get_linewidth() for p in figure.findobj(FancyArrowPatch))
    assert widths == pytest.approx([0.4 + 12 * w for w in (0.2, 0.5, 1.0)])
    with pytest.raises(ValueError, match="graph must contain at least one node"):
        figures.graph(networkx.DiGraph())


def test_circuit_is_drawn_beside_its_curve():
    found = networkx.DiGraph()
    for name, level in (("low", 2), ("top", 0), ("mid", 1)):
        found.add_node((name, 3), level=level, relevance=0.5)
    found.add_weighted_edges_from([
        (("top", 3), ("low", 3), 0.2), (("top", 3), ("mid", 3), -0.5), (("mid", 3), ("low", 3), 0.001)
    ])  # fmt: skip
    curve = concepts.CircuitCurve(*(np.array([1.0, 0.25, 0.0]),) * 4, np.array([90, 3, 0]))
    figure = figures.circuit(found, {"relevance": curve}, names={("mid", 3): "ears"}, title="cats")
    rendered(figure)
    drawn, beside = figure.axes
    height = {t.get_text(): t.get_position()[1] for t in drawn.texts}
    assert height["top"] > height["mid"] == height["ears"] > height["low"]
    assert len(drawn.patches) == 2  # not the weakest
    assert len(figures.circuit(found, min_weight=0).axes[0].patches) == 3
    lines = {p.get_facecolor()[0] > 0.5: p.get_linewidth() for p in drawn.patches}
    assert lines == pytest.approx({True: 0.3 + 10 * 0.2, False: 0.3 + 10 * 0.5})  # red, blue
    line = beside.lines[0]
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0], [3, 0.25], [90, 1]])  # by size
    assert [t.get_text() for t in beside.get_legend().get_texts()] == ["relevance", "the graph"]
    assert beside.lines[-1].get_xdata()[0] == 3  # as many as the graph has
    figure = figures.circuit(found, references={("mid", 3): [image_reference()]})
    rendered(figure)
    assert len([ax for ax in figure.axes[0].child_axes if ax.images]) == 1
    with pytest.raises(ValueError, match="found must contain at least one node"):
        figures.circuit(networkx.DiGraph(), curve)
    with pytest.raises(
        TypeError, match=r"curves\['a'\] must be the result of concepts.circuit_curve"
    ):
        figures.circuit(found, {"a": [1.0]})


def test_comparison_shows_what_counts_and_what_differs():
    # By hand: the largest magnitudes are in concepts 4 and 0; of the rest 2 differs most.
    sample = np.array([0.1, 0.2, 0.0, 0.05, 0.5])
    prototype = np.array([0.3, 0.2, 0.25, 0.05, 0.1])
    assert notable(sample, prototype, 2, 1) == [4, 0, 2]
    figure = figures.comparison(
        sample, {"class": prototype}, n=2, n_different=1, references={0: [image_reference()]}
    )
    rendered(figure)
    assert texts(figure) == [
        "concept 4", "+50.0 %  sample", "+10.0 %  class", "concept 0", "+10.0 %  sample",
        "+30.0 %  class", "concept 2", "+0.0 %  sample", "+25.0 %  class",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="prototypes must contain at least one"):
        figures.comparison(sample, {})
    with pytest.raises(ValueError, match="prototypes must contain at least one"):
        figures.comparison(sample, {"class": prototype[:3]})
