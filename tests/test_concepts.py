"""Concepts: their shares, conditions on them, their scores, and all of them at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites, concepts

pytestmark = pytest.mark.usefixtures("x64")

# Everything is float64; two ways to one number differ by rounding.
close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)

RNG = np.random.default_rng(0)
KERNELS = [RNG.normal(size=s) for s in [(3, 3, 2, 4), (3, 3, 4, 4), (3, 3, 4, 4)]]
BIASES = [0.3 * RNG.normal(size=4) for _ in KERNELS]
HEAD = RNG.normal(size=(4, 3))
IMAGES = RNG.normal(size=(2, 5, 6, 2))
TARGET = np.array([2, 0])


def cnn(x):
    """A convolution, a residual block of two, and a dense layer."""

    def conv(x, i):
        y = lax.conv_general_dilated(
            x, KERNELS[i], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + BIASES[i]

    h = jax.nn.relu(conv(x, 0))
    h = jax.nn.relu(h + conv(jax.nn.relu(conv(h, 1)), 2))
    return h.mean(axis=(1, 2)) @ HEAD


FIRST, INNER, LAST = "conv_general_dilated", "relu:1", "relu:2"  # LAST is crossed by every path


@functools.cache
def of_cnn(record=()):
    return lrp.explain(cnn, composites.epsilon_plus(), record=record)


HEADS, SIZE, TOKENS = 2, 3, 4
QKV = RNG.normal(size=(3, 5, HEADS * SIZE)) * 0.5
OUT, READ = RNG.normal(size=(HEADS * SIZE, 5)), RNG.normal(size=(5, 3))
SENTENCES = RNG.normal(size=(2, TOKENS, 5))


def attention(x):
    """Self-attention with its heads side by side in the features, beside the identity."""
    q, k, v = ((x @ w).reshape(*x.shape[:2], HEADS, SIZE) for w in (QKV[0], QKV[1], QKV[2]))
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*x.shape[:2], -1)
    return (x + mixed @ OUT).mean(axis=1) @ READ


STEP = 0.5 * RNG.normal(size=(5, 5))


def recurrent(x):
    """Features of each step, a loop over them, a readout."""
    features = jnp.tanh(x @ QKV[0][:, :5])

    def step(h, now):
        return jnp.tanh(h @ STEP + now), None

    h, _ = lax.scan(step, jnp.zeros_like(features[:, 0]), features.swapaxes(0, 1))
    return h @ READ


def family_of(name):
    """An explainer, its input, and a family of concepts at a layer that every path crosses or not."""
    if name == "cnn":
        return of_cnn(), IMAGES, concepts.Channels(LAST, axis=-1)
    if name == "skip":
        return of_cnn(), IMAGES, concepts.Channels(INNER, axis=-1)
    if name == "recurrent":
        return (
            lrp.explain(recurrent, lrp.Epsilon(1e-3)), SENTENCES, concepts.Channels("tanh", axis=2),
        )  # fmt: skip
    explain = lrp.explain(attention, composites.attnlrp())
    value, mixed = "dot_general:2", "dot_general:4"
    kinds = {
        "heads": concepts.Heads(value, HEADS, axis=-1),
        "tokens": concepts.Channels(mixed, axis=3),
        "units": concepts.Units(mixed),
    }
    return explain, SENTENCES, kinds[name]


CROSSED = ["cnn", "recurrent"]
ALL = [*CROSSED, "skip", "heads", "tokens", "units"]


def n_concepts(name):
    explain, x, family = family_of(name)
    rows = {row.path: row for row in explain.plan(x).rows}
    return family.count(rows[family.layer].output_shape)


# -- numbers by hand ------------------------------------------------------------------------------


def parallel(x):
    a = x @ jnp.array([[1.0, 0.0], [2.0, 1.0]])
    b = x @ jnp.array([[2.0, 0.0], [3.0, 0.0]])
    return jnp.concatenate([a, b], axis=-1) @ jnp.array([[1.0], [4.0], [5.0], [0.0]])


def test_two_layers_side_by_side():
    """Numbers of the issue; conditions, the empty set, cut, and what is recorded before the mask."""
    layers = ("dot_general", "dot_general:1")
    explain = lrp.explain(parallel, lrp.LRP0(), record=layers)
    x = jnp.array([[-1.0, 1.0]])
    one, two = (concepts.Channels(layer, axis=-1) for layer in layers)
    conditions = [concepts.Condition(), one[0] & two.none(), one[0] & two[0], one[0]]
    result = concepts.conditional(explain)(x, conditions=conditions)
    close(result.relevance[:, 0], [[-11, 21], [-1, 2], [-11, 17], [-11, 17]])
    close(result.records[layers[0]].relevance[:, 0], [[1, 4]] * 4)
    close(result.records[layers[0]].activation, [[1, 1]])
    cut = concepts.conditional(explain, cut=True)(x, conditions=[one[0], concepts.Condition()])
    close(cut.relevance[:, 0], [[-1, 2], [-11, 21]])
    close(cut.records[layers[1]].relevance[:, 0], [[0, 0], [5, 0]])
    with pytest.raises(
        ValueError, match="no path leads from 'dot_general:1' back to 'dot_general'"
    ):
        concepts.conditional(explain, cut=True)(x, conditions=[one[0] & two[0]])


def test_numbers_of_another_library():
    """RelevancePropagation.jl: hidden relevance, and the input's for the top concept alone."""
    w1, b1 = jnp.array([[1.0, 4.0], [3.0, 2.0]]), jnp.array([0.0, 1.0])
    w2, b2 = jnp.array([[2.0, 3.0], [4.0, 1.0]]), jnp.array([1.0, 2.0])
    explain = lrp.explain(lambda x: (x @ w1 + b1) @ w2 + b2, lrp.LRP0(), record="dot_general")
    hidden = concepts.Channels("dot_general", axis=-1)
    result = concepts.conditional(explain)(
        jnp.array([[1.0, 2.0]]), target=jnp.array([[1.0, 0.0]]),
        conditions=[hidden[1], concepts.Condition()],
    )  # fmt: skip
    close(result.relevance[:, 0], np.array([[16, 16], [18, 28]]) / 51)
    close(result.records["dot_general"].relevance[1, 0], np.array([14, 36]) / 51)


# -- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_k_at_once_equals_the_slow_way(name):
    """Every condition alone, by a mask on the layer; chunks and order change nothing."""
    explain, x, family = family_of(name)
    k = min(n_concepts(name), 4)
    conditions = [family[i] for i in range(k)] + [family[[0, k - 1]]]
    found = concepts.conditional(explain)(x, target=TARGET, conditions=conditions).relevance
    shape = next(r.output_shape for r in explain.plan(x).rows if r.path == family.layer)
    blank = jnp.zeros(shape)
    for condition, relevance in zip([*range(k), [0, k - 1]], found, strict=True):
        chosen = jnp.zeros((1, n_concepts(name))).at[:, jnp.array(condition)].set(1)
        mask = family.share(blank, chosen)
        alone = explain(x, target=TARGET, condition={family.layer: mask}).relevance
        close(relevance, alone)
    order = np.random.default_rng(1).permutation(len(conditions))
    shuffled = concepts.conditional(explain, batch_size=2)(
        x, target=TARGET, conditions=[conditions[i] for i in order]
    )
    close(shuffled.relevance, found[order])


@pytest.mark.parametrize("name", ALL)
def test_concepts_add_up(name):
    """Over all concepts: the whole where every path crosses the layer, what crosses it elsewhere."""
    explain, x, family = family_of(name)
    every = [family[i] for i in range(n_concepts(name))]
    cut = concepts.conditional(explain, cut=True)(x, target=TARGET, conditions=every).relevance
    whole = explain(x, target=TARGET).relevance
    bypass = explain(x, target=TARGET, condition={family.layer: 0.0}).relevance
    close(cut.sum(axis=0) + bypass, whole)
    assert (np.abs(bypass).max() < 1e-11) == (name in CROSSED)


@pytest.mark.parametrize("name", ALL)
def test_transposed_equals_naive(name):
    explain, x, family = family_of(name)
    k = n_concepts(name)
    regions = RNG.normal(size=(3, *x.shape[1:-1], 1))
    found = concepts.local(explain, family, batch_size=2)(x, target=TARGET, regions=regions)
    every = [family[i] for i in range(k)]
    slow = concepts.conditional(explain, cut=True)(x, target=TARGET, conditions=every).relevance
    axes = tuple(range(3, slow.ndim + 1))
    expected = (slow[:, :, None] * regions).sum(axis=axes).transpose(1, 2, 0)
    close(found.relevance, expected)
    close(found.residual, np.zeros((2, 3)))
    np.testing.assert_array_equal(found.atlas(), expected.argmax(axis=-1))
    values, order = found.search(1, 2)
    close(values, np.sort(expected[:, 1], axis=-1)[:, :-3:-1])
    close(jnp.take_along_axis(found.relevance[:, 1], order, axis=-1), values)


def test_and_across_layers_is_one_after_the_other():
    """With cut: the share of a concept below in the share of one above, by starting there."""
    explain = of_cnn((FIRST, LAST))
    top, low = concepts.Channels(LAST, axis=-1), concepts.Channels(FIRST, axis=-1)
    result = concepts.conditional(explain, cut=True)(
        IMAGES, target=TARGET, conditions=[top[1] & low[2], top[1], low[2] & top[1]]
    )
    arrived = explain(IMAGES, target=TARGET).records[LAST].relevance
    one = np.eye(4)
    below = lrp.explain(cnn, explain.composite, start=LAST, record=FIRST)(
        IMAGES, target=arrived * one[1]
    )
    last = lrp.explain(cnn, explain.composite, start=FIRST)(
        IMAGES, target=below.records[FIRST].relevance * one[2]
    )
    close(result.relevance[0], last.relevance)
    close(result.relevance[2], last.relevance)
    close(result.relevance[1], below.relevance)
    close(result.records[FIRST].relevance[1], below.records[FIRST].relevance)


def test_conditions_of_each_example():
    explain, x, family = family_of("cnn")
    conditions = [family.each([1, 3]), family.each([[0, 2], [2, 2]]), family[1]]
    found = concepts.conditional(explain)(x, target=TARGET, conditions=conditions).relevance
    for i, chosen in enumerate([([1], [3]), ([0, 2], [2]), ([1], [1])]):
        for row, index in enumerate(chosen):
            single = concepts.conditional(explain)(
                x[row : row + 1], target=TARGET[row], conditions=[family[index]]
            )
            close(found[i, row], single.relevance[0, 0])


def test_soft_conditions_are_linear():
    explain, x, family = family_of("skip")
    weights = RNG.normal(size=(2, 4))
    conditions = [family.weighted(weights[0]), family.weighted(weights)]
    soft = concepts.conditional(explain, cut=True)(x, target=TARGET, conditions=conditions)
    every = [family[i] for i in range(4)]
    hard = concepts.conditional(explain, cut=True)(x, target=TARGET, conditions=every).relevance
    close(soft.relevance[0], np.einsum("k,k...->...", weights[0], hard))
    close(soft.relevance[1], np.einsum("bk,kb...->b...", weights, hard))


def test_layers_of_each_condition_may_differ():
    explain = of_cnn()
    top, low = concepts.Channels(LAST, axis=-1), concepts.Channels(FIRST, axis=-1)
    mixed = [low[0], top[1], concepts.Condition(), low[0] & top[1], low[3]]
    for cut in (False, True):
        run = concepts.conditional(explain, cut=cut)
        found = run(IMAGES, target=TARGET, conditions=mixed).relevance
        for condition, relevance in zip(mixed, found, strict=True):
            close(relevance, run(IMAGES, target=TARGET, conditions=[condition]).relevance[0])


def test_scores():
    explain, x, family = family_of("cnn")
    found = concepts.scores(explain, family)(x, target=TARGET)
    record = of_cnn((LAST,))(x, target=TARGET).records[LAST]
    r, a = record.relevance.reshape(2, -1, 4), record.activation.reshape(2, -1, 4)
    close(found.relevance, r.sum(axis=1))
    close(found.relevance_max, r.max(axis=1))
    close(jnp.take_along_axis(r, found.position[:, None], axis=1)[:, 0], found.relevance_max)
    close(found.activation, a.sum(axis=1))
    close(found.activation_max, a.max(axis=1))
    close(jnp.take_along_axis(a, found.activation_position[:, None], axis=1)[:, 0], a.max(axis=1))
    close(np.abs(found.normalized).sum(axis=-1), 1)
    np.testing.assert_array_equal(found.top(2), np.argsort(-found.relevance, axis=-1)[:, :2])


def test_start_at_the_activation_of_a_concept():
    explain = of_cnn().replace(start=LAST)
    family = concepts.Channels(LAST, axis=-1)
    found = explain(IMAGES, target=concepts.activation(family[2]))
    a = of_cnn((LAST,))(IMAGES, target=0).records[LAST].activation
    close(found.relevance, explain(IMAGES, target=a * np.eye(4)[2]).relevance)


def test_named_axes_and_no_batch():
    dims = ("batch", "height", "width", "channel")
    named = concepts.Channels(LAST, axis="channel", batch="batch", dims=dims)
    pixels = concepts.Channels(LAST, axis=("height", "width"), batch="batch", dims=dims)
    a = jnp.array(RNG.normal(size=(2, 3, 4, 5)))
    close(named.total(a, a), a.sum(axis=(1, 2)))
    close(pixels.total(a, a), a.sum(axis=3).reshape(2, 12))
    close(concepts.Units(LAST).total(a, a), a.reshape(2, -1))
    single = lrp.explain(lambda x: cnn(x[None])[0], composites.epsilon_plus())
    family = concepts.Channels(LAST, axis=-1, batch=None)
    layer = next(r for r in single.plan(IMAGES[0]).rows if r.path == LAST)
    assert layer.output_shape[0] == 1  # the function adds an axis; it is summed over
    found = concepts.scores(single, family)(IMAGES[0], target=2)
    explain, x, batched = family_of("cnn")
    close(found.relevance, concepts.scores(explain, batched)(x, target=TARGET).relevance[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", ["channels", "heads", "axes", "units", "dictionary", "subspaces"])
def test_spread_is_the_transpose_of_collect(make, seed):
    rng = np.random.default_rng(seed)
    a, values = rng.normal(size=(2, 3, 4, 6))[None].repeat(2, axis=0)
    decoder = rng.normal(size=(5, 6))
    family = {
        "channels": concepts.Channels("l", axis=1),
        "heads": concepts.Heads("l", 3, axis=-1),
        "axes": concepts.Channels("l", axis=(3, 1), batch=2),
        "units": concepts.Units("l"),
        "dictionary": concepts.Dictionary("l", lambda x: jax.nn.relu(x @ decoder.T), decoder, -1),
        "subspaces": concepts.directions("l", decoder, -1, groups=[0, 0, 1, 2, 2]),
    }[make]
    collected = family.collect(a, values)
    assert collected.shape[-1] == family.count(a.shape)
    weights = rng.normal(size=collected.shape)
    close((collected * weights).sum(), (family.spread(a, weights) * values).sum())


# -- dictionaries ---------------------------------------------------------------------------------


def network(x):
    return jnp.tanh(jax.nn.relu(x @ QKV[0]) @ OUT) @ READ


@pytest.mark.parametrize("kind", ["sparse", "directions", "subspaces"])
def test_dictionaries_conserve_with_their_residual(kind):
    """R_k = z_k <D_k, c> in plain NumPy; concepts and residual sum to the layer's relevance."""
    rng = np.random.default_rng(3)
    encoder, decoder = rng.normal(size=(6, 9)), rng.normal(size=(9, 6))
    if kind == "sparse":
        family = concepts.Dictionary("relu", lambda x: jax.nn.relu(x @ encoder - 0.2), decoder, -1)
    else:
        decoder = decoder[:4]
        groups = [1, 0, 1, 1] if kind == "subspaces" else None
        family = concepts.directions("relu", decoder, axis=-1, groups=groups)
    x = rng.normal(size=(3, 5))
    explain = lrp.explain(network, lrp.Epsilon(0.1), record="relu")
    record = explain(x, target=1).records["relu"]
    a, r = np.asarray(record.activation), np.asarray(record.relevance)
    z = np.maximum(a @ encoder - 0.2, 0) if kind == "sparse" else a @ np.linalg.pinv(decoder)
    off_zero = np.where(a == 0, 1e-30, a)  # relevance over activation also where that is zero
    rest = lrp.explain(lambda h: jnp.tanh(h @ OUT) @ READ, lrp.Epsilon(0.1))
    c = np.asarray(rest(off_zero, target=1).relevance) / off_zero
    latents = z * (c @ decoder.T)
    if kind == "subspaces":
        latents = np.stack([latents[:, 1], latents[:, [0, 2, 3]].sum(axis=1)], axis=-1)
    found = concepts.scores(explain, family)(x, target=1)
    close(found.relevance, latents)
    close(found.relevance.sum(axis=-1) + found.residual, r.sum(axis=-1))
    close(found.residual, ((a - z @ decoder) * c).sum(axis=-1), atol=1e-10)
    # conditions on latents pass on their share alone, and the rest is the rest
    n = latents.shape[-1]
    run = concepts.conditional(explain, cut=True)
    parts = run(x, target=1, conditions=[family[k] for k in range(n)]).relevance
    every = run(x, target=1, conditions=[family[list(range(n))]]).relevance[0]
    close(parts.sum(axis=0), every, atol=1e-10)
    regions = rng.normal(size=(2, 5))
    local = concepts.local(explain, family)(x, target=1, regions=regions)
    close(local.relevance, np.einsum("kbi,ri->brk", parts, regions), atol=1e-10)
    rest = explain(x, target=1).relevance - every
    close(local.residual, np.einsum("bi,ri->br", rest, regions), atol=1e-10)


def test_deleting_latents_by_relevance_changes_the_logit_faster_than_by_code():
    """Summed over deletions, the drop of the logit: relevance knows what a latent is used for."""
    rng = np.random.default_rng(5)
    decoder = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    read = rng.normal(size=(8, 2)) * (rng.random((8, 1)) < 0.4)  # most directions are not used
    weights = jnp.array(decoder.T @ read)
    x = np.abs(rng.normal(size=(20, 8))) @ decoder

    def model(h):
        return jnp.tanh(h) @ weights

    family = concepts.directions("tanh", decoder, axis=-1)
    explain = lrp.explain(model, record="tanh")
    found = concepts.scores(explain, family)(x, target=0)
    z = np.asarray(family.codes(jnp.tanh(x)))

    def area(order):
        kept, total = z.copy(), 0.0
        for column in order.T[:4]:
            kept[np.arange(20), column] = 0
            total += (z @ decoder @ weights[:, 0] - kept @ decoder @ weights[:, 0]).mean()
        return total

    assert area(np.argsort(-found.relevance, axis=1)) > 1.5 * area(np.argsort(-np.abs(z), axis=1))


# -- one forward pass, transformations ------------------------------------------------------------


def flops(f, *args):
    cost = jax.jit(f).lower(*args).compile().cost_analysis()
    assert cost is not None
    return cost["flops"]


def test_conditions_share_one_forward_pass():
    """K conditions cost at most one forward and K backward passes, by XLA's own count."""
    explain, x, family = family_of("skip")
    forward = flops(cnn, x)
    backward = flops(lambda x: explain(x, target=TARGET).relevance, x) - forward
    conditions = [family[i % 4] for i in range(8)]
    for cut in (False, True):
        run = functools.partial(concepts.conditional(explain, cut=cut), conditions=conditions)
        many = flops(lambda x, run=run: run(x, target=TARGET).relevance, x)
        assert many <= 1.05 * (forward + 8 * backward)


def test_jit_vmap_and_kept_pullback_agree():
    explain, x, family = family_of("cnn")
    run = concepts.conditional(explain)
    conditions = [family[1], family[2]]
    eager = run(x, target=TARGET, conditions=conditions).relevance
    close(jax.jit(lambda x: run(x, target=TARGET, conditions=conditions).relevance)(x), eager)
    alone = jax.vmap(lambda x, t: run(x[None], target=t, conditions=conditions).relevance[:, 0])
    close(alone(x, TARGET), eager.swapaxes(0, 1))
    pullback = explain.vjp(x, condition=LAST)
    masks = jnp.eye(4)[1:3]
    of_mask = jax.vmap(lambda m: pullback(target=TARGET, condition={LAST: m}).relevance)
    close(of_mask(masks), eager)
    assert pullback(target=TARGET).output.shape == (2, 3)
    with pytest.raises(ValueError, match="condition\\['relu'\\] matches no layer"):
        pullback(target=TARGET, condition={"relu": 0.0})


def test_other_concepts_do_not_compile_again():
    explain = lrp.explain(network)
    run, family = concepts.conditional(explain), concepts.Channels("relu", axis=-1)
    x = jnp.ones((2, 5))
    for chosen in ([0, 1], [4, 2]):
        run(x, target=0, conditions=[family[i] for i in chosen])
    assert len(run._programs) == 1


# -- errors ---------------------------------------------------------------------------------------

BAD = {
    "unknown layer": (lambda f: [concepts.Channels("relux", -1)[0]], ValueError, "matches no layer"),
    "pattern": (lambda f: [concepts.Channels("relu*", -1)[0]], ValueError, "given by its path"),
    "out of range": (lambda f: [f[4]], IndexError, "concept 4 of the layer 'relu:2' is out of range"),
    "negative": (lambda f: [f[-1]], IndexError, "numbered from 0"),
    "no conditions": (lambda f: [], ValueError, "conditions is empty"),
    "not a list": (lambda f: f[0], TypeError, "pass \\[condition\\]"),
    "not a condition": (lambda f: [3], TypeError, "such as channels\\[3\\]"),
    "weights": (lambda f: [f.weighted(np.ones(3))], ValueError, "for 3 concepts, but it has 4"),
    "batch": (lambda f: [f.each([0, 1, 2])], ValueError, "for 3 examples, but the batch has 2"),
    "mixed": (lambda f: [f[0], f.weighted(np.ones(4))], ValueError, "all indices or all weights, got both"),
    "empty": (lambda f: [f[[]]], ValueError, "write .none\\(\\)"),
    "float": (lambda f: [f[0.5]], TypeError, "must be integers, got float"),
    "twice": (lambda f: [f[0] & f[1]], ValueError, "write a \\| b"),
    "or": (lambda f: [f[0] | concepts.Channels(FIRST, -1)[0]], ValueError, "one family"),
    "axis": (lambda f: [concepts.Channels(LAST, 4)[0]], ValueError, "has 4 axes"),
    "batch axis": (lambda f: [concepts.Channels(LAST, 0)[0]], ValueError, "other than that of"),
    "axis as a float": (lambda f: [concepts.Channels(LAST, 1.5)[0]], ValueError, "4 axes, got 1.5"),
    "name": (lambda f: [concepts.Channels(LAST, "c")[0]], ValueError, "dims was not given"),
    "heads": (lambda f: [concepts.Heads(LAST, 3, -1)[0]], ValueError, "does not divide"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_conditions(name):
    make, error, message = BAD[name]
    explain, x, family = family_of("cnn")
    with pytest.raises(error, match=message):
        concepts.conditional(explain)(x, target=TARGET, conditions=make(family))


def test_an_index_out_of_range_that_is_traced_gives_nan():
    explain, x, family = family_of("cnn")
    run = concepts.conditional(explain)

    def of(index):
        condition = family[0]
        ((f, selection),) = condition.parts
        traced = concepts.Condition(((f, type(selection)(index[None, None])),))
        return run(x, target=TARGET, conditions=[traced]).relevance

    close(jax.jit(of)(jnp.int32(2)), run(x, target=TARGET, conditions=[family[2]]).relevance)
    assert np.isnan(jax.jit(of)(jnp.int32(4))).all()


def test_bad_regions_and_rules():
    explain, x, family = family_of("cnn")
    local = concepts.local(explain, family)
    with pytest.raises(TypeError, match="regions is missing"):
        local(x, target=TARGET)
    with pytest.raises(ValueError, match=r"regions must have shape \(regions, \*\(5, 6, 2\)\)"):
        local(x, target=TARGET, regions=np.ones((3, 4, 6, 1)))
    with pytest.raises(ValueError, match="at least one region"):
        local(x, target=TARGET, regions=np.ones((0, 5, 6, 1)))
    found = local(x, target=TARGET, regions=np.ones((1, 1, 1, 1)))
    with pytest.raises(
        ValueError, match="k must be <= 4, the number of concepts of the layer, got 9"
    ):
        found.search(0, 9)
    with pytest.raises(IndexError, match="region 1 is out of range"):
        found.search(1, 1)
    rectified = lrp.explain(cnn, composites.by_kind("activation", lrp.rules.DeconvNet()))
    with pytest.raises(ValueError, match="not linear in relevance"):
        concepts.local(rectified, family)(x, target=TARGET, regions=np.ones((1, 5, 6, 1)))


def test_what_a_review_found():
    """Integer directions, indices beyond 32 bits, a pattern for a layer, families that are iterated."""
    explain, x = lrp.explain(network, lrp.Epsilon(0.1)), RNG.normal(size=(3, 5))
    whole = np.array([[1, 1, 0, 0, 0, 0], [0, 2, 1, 0, 0, 0]])
    found = [
        concepts.scores(explain, concepts.directions("relu", v, axis=-1))(x, target=1).relevance
        for v in (whole, whole.astype(float))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert np.abs(found[0]).max() > 0.1
    family = concepts.Channels("relu", axis=[-1])
    for index in (2**32, 2**31 - 1, -1):
        with pytest.raises(IndexError, match="out of range"):
            family[index]
    with pytest.raises(TypeError, match="not iterable"):
        list(family)
    for make in (concepts.local, concepts.locate):
        given = {"regions": np.ones((1, 5))} if make is concepts.local else {"concepts": [0, 1, 2]}
        with pytest.raises(ValueError, match="given by its path"):
            make(explain, concepts.Channels("rel*", axis=-1))(x, target=1, **given)
    begun = lrp.explain(network, start="relu")
    with pytest.raises(ValueError, match="does not reach the layer 'tanh'"):
        concepts.locate(begun, concepts.Channels("tanh", axis=-1))(x, concepts=[0, 1, 2])
    top = concepts.TopK.of(np.ones((2, 2), np.float32), np.arange(2, dtype=np.uint32), 3)
    np.testing.assert_array_equal(top.rows, [[0, 1, -1]] * 2)


def test_bad_explainers():
    family = concepts.Channels(LAST, axis=-1)
    for explain, message in (
        (lrp.explain(cnn, composites.guided_backprop()), "reads gradients"),
        (
            lrp.explain(lambda w, x: cnn(x) * w, argnums=1, parameters=0),
            "must not have parameters=, got",
        ),
        (of_cnn().replace(debug=True), "must not have debug=True"),
    ):
        for make in (concepts.conditional, lambda e: concepts.scores(e, family)):
            with pytest.raises(ValueError, match=message):
                make(explain)
    begun = of_cnn().replace(start=FIRST)
    message = "begins at start='conv_general_dilated' and does not reach the layer 'relu:2'"
    with pytest.raises(ValueError, match=message):
        concepts.scores(begun, family)(IMAGES)
    for cut in (False, True):
        with pytest.raises(ValueError, match=message):
            concepts.conditional(begun, cut=cut)(IMAGES, conditions=[family[0]])


def test_a_layer_in_a_loop_has_no_shares_that_add_up():
    explain = lrp.explain(recurrent, lrp.Epsilon(1e-3))
    inside = concepts.Channels("tanh:1", axis=-1, batch=1)
    run = concepts.conditional(explain)
    found = run(SENTENCES, target=TARGET, conditions=[inside[[0, 1, 2, 3, 4]], inside[0]])
    close(found.relevance[0], explain(SENTENCES, target=TARGET).relevance)
    with pytest.raises(ValueError, match="in a loop in which each step reads the previous one"):
        concepts.scores(explain, inside)(SENTENCES, target=TARGET)
    with pytest.raises(ValueError, match="in a loop in which each step reads the previous one"):
        concepts.conditional(explain, cut=True)(SENTENCES, target=TARGET, conditions=[inside[0]])
    with pytest.raises(ValueError, match="in a loop in which each step reads the previous one"):
        concepts.local(explain, inside)(SENTENCES, target=TARGET, regions=np.ones((1, TOKENS, 5)))


def scanned(x):
    """The layer of `in_a_row` in a scan over tokens."""
    _, h = lax.scan(lambda _, now: (None, jax.nn.relu(now @ QKV[0])), None, x.swapaxes(0, 1))
    return h.sum(axis=0) @ OUT @ READ


def sharded(x):
    """The layer of `in_a_row` on a mesh of one device."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("devices",))
    split = jax.sharding.PartitionSpec("devices")
    layer = jax.shard_map(
        lambda x: jax.nn.relu(x @ QKV[0]), mesh=mesh, in_specs=split, out_specs=split
    )
    return layer(x).sum(axis=1) @ OUT @ READ


def in_a_row(x):
    return jax.nn.relu(x @ QKV[0]).sum(axis=1) @ OUT @ READ


@pytest.mark.parametrize(
    ("function", "shape"), [(scanned, r"\(4, 2, 6\)"), (sharded, r"\(1, 2, 4, 6\)")]
)
def test_a_loop_or_shards_around_a_layer_need_the_axis_of_examples(function, shape):
    """What is recorded there begins with steps or shards, which were taken for examples."""
    explain, x = lrp.explain(function, lrp.Epsilon(1e-3)), SENTENCES
    plain, whole = lrp.explain(in_a_row, lrp.Epsilon(1e-3)), concepts.Channels("relu", axis=-1)
    said, unsaid = concepts.Channels("relu", axis=-1, batch=1), concepts.Channels("relu", axis=-1)
    regions = np.ones((1, TOKENS, 1))

    def everything(explain, family):
        conditions = [family.each([0, 3]), family[1]]
        yield lambda: concepts.scores(explain, family)(x, target=TARGET).relevance
        for cut in (False, True):
            run = concepts.conditional(explain, cut=cut)
            yield lambda run=run: run(x, target=TARGET, conditions=conditions).relevance
        yield lambda: concepts.local(explain, family)(x, target=TARGET, regions=regions).relevance
        yield lambda: concepts.locate(explain, family)(x, target=TARGET, concepts=[0, 3])

    for found, expected in zip(everything(explain, said), everything(plain, whole), strict=True):
        close(found(), expected())
    message = f"layer 'relu' is inside a loop or shard_map .* shape {shape}, .* such as batch=1"
    for call in everything(explain, unsaid):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="such as batch=1"):
        concepts.graph(explain, unsaid)(x[:1], target=0, node=("relu", 0))
    one = concepts.Channels("relu", axis=-1, batch=0)  # steps or shards are what is asked for
    assert concepts.scores(explain, one)(x, target=TARGET).relevance.shape[0] != len(x)


def test_bad_families():
    with pytest.raises(TypeError, match="layer must be the path of a layer"):
        concepts.Channels(3, axis=-1)  # pyright: ignore
    with pytest.raises(ValueError, match="n_heads must be an integer >= 1"):
        concepts.Heads("l", 0, axis=-1)
    with pytest.raises(ValueError, match="linearly independent"):
        concepts.directions("l", np.ones((2, 5)), axis=-1)
    with pytest.raises(ValueError, match="the concept of each latent"):
        concepts.directions("l", np.eye(3), axis=-1, groups=[0, 2, 2])
    with pytest.raises(ValueError, match="decoder must have shape"):
        concepts.Dictionary("l", lambda x: x, np.ones(3), axis=-1)
    explain = lrp.explain(network)
    with pytest.raises(ValueError, match="decoder has 3 features, but axis -1"):
        concepts.scores(explain, concepts.directions("relu", np.eye(3), axis=-1))(
            np.ones((1, 5)), target=0
        )
    wrong = concepts.Dictionary("relu", lambda x: x[..., :2], np.eye(6), axis=-1)
    with pytest.raises(ValueError, match="encode must return codes of shape"):
        concepts.scores(explain, wrong)(np.ones((1, 5)), target=0)
    with pytest.raises(TypeError, match=r"explainer must be the result of jaxlrp.explain\(...\)"):
        concepts.scores(jax.jit(explain), concepts.Channels("relu", axis=-1))  # pyright: ignore
    with pytest.raises(TypeError, match=r"families such as Channels\(layer, axis\), got 'relu'"):
        concepts.scores(explain, "relu")  # pyright: ignore
    with pytest.raises(ValueError, match="two families of one layer"):
        concepts.scores(explain, [concepts.Units("relu"), concepts.Channels("relu", axis=-1)])
