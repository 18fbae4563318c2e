"""Integers and truth values on the way from the input to the output."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C

from numeric import close

RNG = np.random.default_rng(0)
N, D = 5, 3
with jax.enable_x64(True):
    TABLE = jnp.asarray(RNG.normal(size=(7, D)))
    W = jnp.asarray(RNG.normal(size=(N, D)))
IDS = jnp.asarray([[0, 1, 2, 3, 4], [6, 5, 4, 3, 2]])
EMBEDDED = np.asarray(TABLE)[np.asarray(IDS)]  # (2, 5, 3)


pytestmark = pytest.mark.usefixtures("x64")


def relevance(f, *args, composite=None, **kwargs):
    return lrp.explain(f, composite, **kwargs)(*args).relevance


def pooled(e):
    return (e * W).sum((-2, -1))


PERMUTATION = np.array([3, 0, 4, 1, 2])

# name: (a function of ids that moves them, the same move of positions in NumPy)
MOVES = {
    "reverse": (lambda i: i[:, ::-1], lambda p: p[:, ::-1]),
    "flip": (lambda i: jnp.flip(i, 1), lambda p: p[:, ::-1]),
    "permute": (lambda i: i[:, PERMUTATION], lambda p: p[:, PERMUTATION]),
    "take": (lambda i: jnp.take(i, PERMUTATION, axis=1), lambda p: p[:, PERMUTATION]),
    "roll": (lambda i: jnp.roll(i, 2, axis=1), lambda p: np.roll(p, 2, axis=1)),
    "sort": (
        lambda i: jnp.sort(i, axis=1),
        lambda p: np.take_along_axis(p, np.argsort(IDS, 1, "stable"), 1),
    ),
    "sort_by": (
        lambda i: lax.sort((-W[:, 0] * jnp.ones((2, 1)), i), dimension=1, num_keys=1)[1],
        lambda p: p[:, np.argsort(-W[:, 0])],
    ),
    "top_k": (
        lambda i: lax.top_k(i, N)[0],
        lambda p: np.take_along_axis(p, np.argsort(-IDS, 1, "stable"), 1),
    ),
    "roundtrip": (lambda i: i.T.reshape(N, 2).T, lambda p: p),
    "cast": (lambda i: i.astype(jnp.int16).astype(jnp.uint8), lambda p: p),
    "scan": (
        lambda i: lax.scan(lambda c, t: (c, t), 0, i.T, reverse=True)[1].T[:, ::-1],
        lambda p: p[:, ::-1],
    ),
    "remat": (jax.checkpoint(lambda i: i[:, ::-1]), lambda p: p[:, ::-1]),
    "cond": (lambda i: lax.cond(True, lambda i: i[:, ::-1], lambda i: i, i), lambda p: p[:, ::-1]),
    "update": (lambda i: jnp.zeros_like(i).at[:, ::-1].set(i), lambda p: p[:, ::-1]),
}


@pytest.mark.parametrize("name", MOVES)
def test_positions_follow_tokens_that_are_moved(name):
    move, moved = MOVES[name]
    positions = moved(np.arange(N)[None] + np.zeros((2, 1), int))  # which token stands where
    expected = np.zeros((2, N))
    terms = np.take_along_axis(EMBEDDED, positions[..., None], 1) * np.asarray(W)
    np.put_along_axis(expected, positions, terms.sum(-1), 1)
    close(relevance(lambda i: pooled(TABLE[move(i)]), IDS), expected)


def test_a_transposed_square_batch():
    ids = jnp.asarray([[0, 3], [5, 1]])
    w = jnp.asarray([[2.0], [1.0]]) * TABLE[0]
    found = relevance(lambda i: (TABLE[i.T] * w).sum((1, 2)), ids)
    expected = (np.asarray(TABLE)[np.asarray(ids).T] * np.asarray(w)).sum(-1).T
    close(found, expected)


def test_selected_and_stacked_tokens_get_what_is_theirs():
    p, q = IDS, IDS[:, ::-1]
    terms = lambda i: (np.asarray(TABLE)[np.asarray(i)] * np.asarray(W)).sum(-1)  # noqa: E731
    f = lambda p, q: pooled(TABLE[jnp.where(p > 2, p, q)])  # noqa: E731
    for_p, for_q = relevance(f, p, q, argnums=(0, 1))
    close(for_p, np.where(p > 2, terms(p), 0))
    close(for_q, np.where(p > 2, 0, terms(q)))
    a = IDS[:, 0]
    g = lambda a: (TABLE[jnp.stack([a, a * 0 + 1, a], 1)[:, :2]] * W[:2]).sum((1, 2))  # noqa: E731
    h = lambda a: (TABLE[jnp.stack([a, jnp.ones_like(a)], 1)] * W[:2]).sum((1, 2))  # noqa: E731
    close(relevance(h, a), (np.asarray(TABLE)[np.asarray(a)] * np.asarray(W)[0]).sum(-1))
    assert relevance(g, a).shape == a.shape


@pytest.mark.parametrize(
    "code",
    [
        lambda i: i + 3 - 3,
        lambda i: (i * 16 + 5) // 16,
        lambda i: jnp.clip(i, 0, 6),
        lambda i: (i + jnp.arange(N, dtype=i.dtype) * 7) % 7,
        lambda i: i ^ 0,
        lambda i: jnp.where(i < 0, i + 7, i),
        lambda i: jnp.asarray([0, 1, 2, 3, 4, 5, 6])[i],
    ],
)
def test_arithmetic_on_codes_renames_them(code):
    close(relevance(lambda i: pooled(TABLE[code(i)]), IDS), (EMBEDDED * W).sum(-1))


@pytest.mark.parametrize(
    "embed",
    [
        lambda i: jax.nn.one_hot(i, 7) @ TABLE,
        lambda i: (i[..., None] == jnp.arange(7, dtype=i.dtype)).astype(float) @ TABLE,
        lambda i: jnp.where(
            (i[..., None] == jnp.arange(7, dtype=i.dtype))[..., None], TABLE, 0
        ).sum(-2),
        lambda i: jax.vmap(jax.vmap(lambda t: lax.dynamic_index_in_dim(TABLE, t, keepdims=False)))(
            i
        ),
        lambda i: jnp.take(TABLE, i, axis=0, mode="clip"),
        lambda i: TABLE.at[i].get(mode="fill", fill_value=0),
    ],
)
def test_lookups_of_every_spelling(embed):
    found = relevance(lambda i: pooled(embed(i)), IDS, composite=C.all_epsilon(1e-12))
    close(found, (EMBEDDED * W).sum(-1))


def test_the_plan_shows_the_rule_that_runs():
    f = lambda i: pooled(TABLE[i])  # noqa: E731
    assert lrp.plan(f, None, IDS)["gather"] == lrp.rules.LookUp()
    assert lrp.plan(f, lrp.LRP0(), IDS)["gather"] == lrp.rules.LookUp()
    assert lrp.plan(f, C.gradient(), IDS)["gather"] == lrp.rules.LookUp(gradient=True)
    with pytest.raises(ValueError, match=r"LRP0\(\) applies to .* but the path pattern 'gather'"):
        lrp.plan(f, C.by_path("gather", lrp.LRP0()), IDS)
    edited = lrp.plan(f, None, IDS).replace({"gather": lrp.rules.LookUp(gradient=True)})
    cotangents = np.asarray(W).sum(
        -1
    )  # in place of relevance, so that its readout multiplies by the ids
    close(relevance(f, IDS, composite=edited), np.asarray(IDS) * cotangents)


def test_a_category_of_zero_gets_the_relevance_of_what_it_looks_up():
    """Also where the category is scaled before the cast."""
    table, categories = jnp.arange(1.0, 10.0), jnp.asarray([0.0, 1.0, 2.0])
    close(relevance(lambda x: table[(x * 2.0).astype(int)].sum(), categories), [1.0, 3.0, 5.0])


def test_counts_of_tokens_belong_to_the_tokens():
    w = TABLE[:, 0]
    f = lambda i: jnp.zeros(7).at[i].add(1.0) @ w  # noqa: E731
    found = relevance(f, IDS[0], composite=C.all_epsilon(1e-12))
    close(found, np.asarray(w)[np.asarray(IDS[0])])


def test_of_two_integers_that_look_up_together_each_takes_half():
    grid = jnp.asarray(RNG.normal(size=(7, 7)))
    i, j = IDS[0], IDS[1]
    both = relevance(lambda i, j: grid[i, j].sum(), i, j, argnums=(0, 1))
    for found in both:
        close(found, np.asarray(grid)[np.asarray(i), np.asarray(j)] / 2)
    close(relevance(lambda i: grid[i, j].sum(), i), np.asarray(grid)[np.asarray(i), np.asarray(j)])


def test_a_cast_to_an_index_is_an_embedding_of_that_column():
    x = jnp.asarray([[2.0, 0.5, -1.0], [3.0, 1.0, 2.0]])
    w, u = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.5, -1.0])

    def f(x):
        return TABLE[x[:, 0].astype(int)] @ w + x[:, 1:] @ u

    looked_up = np.asarray(TABLE)[[2, 3]] @ np.asarray(w)
    close(relevance(f, x, composite=C.all_epsilon(1e-12)), np.c_[looked_up, x[:, 1:] * u])
    ledger = lrp.ledger(f, C.all_epsilon(1e-12), x)
    close(ledger.input, ledger.output)


@pytest.mark.parametrize(
    "quantize",
    [
        lambda x: jnp.round(x * 4) / 4,
        lambda x: jnp.round(x * 4).astype(jnp.int8).astype(float) / 4,
        lambda x: jnp.floor(x * 4 + 0.5) / 4,
        lambda x: jnp.clip(jnp.round(x * 4), -128, 127).astype(jnp.int8).astype(float) * 0.25,
    ],
)
def test_rounding_is_followed_as_identity(quantize):
    x = jnp.asarray(RNG.normal(size=(2, 4)))
    w = jnp.asarray(RNG.normal(size=4))
    close(relevance(lambda x: (quantize(x) * w).sum(-1), x), quantize(x) * w)


def dynamic(x, w, guard=lambda t: t):
    """Dynamic int8 quantization of a product: float scales, integer arithmetic between."""
    t = guard(jnp.abs(x).max(-1, keepdims=True) / 127)
    s = jnp.abs(w).max() / 127
    q = jnp.clip(jnp.round(x / t), -127, 127).astype(jnp.int8)
    qw = jnp.round(w / s).astype(jnp.int8)
    y = lax.dot_general(q, qw, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)
    return y.astype(x.dtype) * t * s


@pytest.mark.parametrize("guard", [lambda t: t, lambda t: jnp.where(t == 0, 1, t)])
def test_dynamic_quantization_has_the_relevance_of_what_it_approximates(guard):
    x = jnp.asarray(RNG.normal(size=(2, 6)))
    w = jnp.asarray(RNG.normal(size=(6, 3)))
    f = lambda x: dynamic(x, w, guard)  # noqa: E731
    found = lrp.explain(f, C.all_epsilon(1e-12))(x, target=1)
    close(found.output, f(x), rtol=1e-14)  # compiled: XLA may multiply by t * s at once
    close(found.relevance, x * w[:, 1], rtol=0.02)  # steps of 1 / 127 of the largest
    close(found.relevance.sum(-1), found.output[:, 1], rtol=1e-8)


def test_images_of_bytes_that_are_flipped_before_they_are_cast():
    x = jnp.asarray(RNG.integers(0, 255, (2, 4, 4)), jnp.uint8)
    w = jnp.asarray(RNG.normal(size=(4, 4)))
    for f in (lambda x: x[..., ::-1] / 255, lambda x: (x / 255)[..., ::-1]):
        found = relevance(lambda x: (f(x).astype(w.dtype) * w).sum((1, 2)), x)  # noqa: B023
        close(
            found, np.asarray(x) / 255 * np.asarray(w)[:, ::-1], rtol=1e-6
        )  # bytes / 255: float32


def test_comparisons_are_cuts_that_errors_coverage_and_ledger_name():
    w, u = jnp.asarray([1.0, -2.0]), jnp.asarray([0.5, 3.0])
    x = jnp.asarray([[1.0, 2.0], [-1.0, 0.5]])

    def step(x):
        return (x > 0.1).astype(float) @ u

    with pytest.raises(ValueError, match=r"`gt` from .*test_discrete\.py:\d+ \(.*step\)"):
        relevance(step, x)
    with pytest.raises(ValueError, match="`argmax`"):
        relevance(lambda x: TABLE[jnp.argmax(x, -1)].sum(-1), x)
    with pytest.raises(ValueError, match="`stop_gradient`"):
        relevance(lambda x: lax.stop_gradient(x).sum(-1), x)
    mixed = lambda x: step(x) + x @ w  # noqa: E731
    plan, ledger = lrp.plan(mixed, None, x), lrp.ledger(mixed, None, x)
    assert ("cut", "gt", 1) in plan.coverage.counts
    for shown in (str(plan.coverage), str(ledger)):
        assert "test_discrete.py" in shown
        assert "`gt`" in shown
    close(relevance(mixed, x), x * w, rtol=1e-5)


def test_a_mask_of_tokens_is_a_constant():
    def masked(i):
        keep = (i > 2)[..., None]
        return pooled(jnp.where(keep, TABLE[i], 0))

    close(relevance(masked, IDS), (EMBEDDED * W).sum(-1) * np.asarray(IDS > 2, float))


def test_straight_through_constants_are_in_the_ledger():
    z = jnp.asarray([1.0, 2.3, -0.4])
    w = jnp.asarray([1.0, -1.0, 2.0])

    def quantized(z):
        return (z + lax.stop_gradient(jnp.round(z) - z)) @ w

    ledger = lrp.ledger(quantized, C.all_epsilon(1e-12), z)
    kept = sum(float(entry.bias) for entry in ledger.rows.values())
    close(float(ledger.input) + kept, quantized(z), rtol=1e-9)
    assert "`stop_gradient`" in str(ledger)


def test_a_factor_that_carries_no_relevance_is_a_constant():
    y = jnp.asarray([2.0, 0.5, -1.0])
    f = lambda y: (y * lax.stop_gradient(jax.nn.softmax(y))).sum()  # noqa: E731
    close(relevance(f, y), y * jax.nn.softmax(y))
    g = lambda y: (y * (y > 0).astype(y.dtype)).sum()  # noqa: E731
    close(relevance(g, y), jnp.maximum(y, 0))


def test_records_conditions_and_gradients_of_integer_layers():
    f = lambda i: pooled(TABLE[i[:, ::-1]])  # noqa: E731
    (path,) = [row.path for row in lrp.plan(f, None, IDS).rows if row.kind == "embedding"]
    found = lrp.explain(f, record=path)(IDS)
    close(found.records[path].relevance.sum((1, 2)), found.relevance.sum(1))
    half = lrp.explain(f)(IDS, condition={path: 0.5})
    close(half.relevance, found.relevance / 2)
    gradient = relevance(f, IDS, composite=C.gradient())
    close(gradient, np.asarray(W).sum(-1)[::-1] * np.ones((2, 1)))
    mapped = jax.vmap(lambda i: lrp.explain(lambda i: f(i[None])[0])(i).relevance)(IDS)
    close(mapped, found.relevance)
    close(jax.jit(lambda i: lrp.explain(f)(i).relevance)(IDS), found.relevance)


def test_zeros_that_are_scaled_keep_the_relevance_of_flat():
    w = jnp.asarray(RNG.normal(size=(3, 2)))
    x = jnp.asarray([[0.0, 128.0, 255.0]])
    explain = lrp.explain(lambda x: (x / 255) @ w, C.epsilon_plus_flat())
    plain = lrp.explain(lambda x: x @ w, C.epsilon_plus_flat())
    close(explain(x, target=0).relevance, plain(x / 255, target=0).relevance)


def test_codes_that_cross_into_control_flow():
    def embedded(ids):
        return lax.scan(lambda h, i: (h + TABLE[i] @ W[0], None), 0.0, ids)[0]

    exact = C.all_epsilon(1e-12)
    rows = np.asarray(TABLE) @ np.asarray(W)[0]
    clipped = lambda ids: embedded(jnp.clip(jnp.sort(ids), 1, 5))  # noqa: E731
    ids = jnp.asarray([3, 0, 6, 2])
    close(relevance(clipped, ids, composite=exact), rows[[3, 1, 5, 2]])
    cast = lambda x: embedded(jnp.floor(x / 2).astype(int) + 1)  # noqa: E731
    close(relevance(cast, jnp.asarray([4.2, 0.5, 8.0]), composite=exact), rows[[3, 1, 5]])
    held = jax.checkpoint(lambda i: TABLE[i] @ W[0])
    close(
        relevance(lambda ids: held(ids[::-1] % 4).sum(), ids, composite=exact), rows[[3, 0, 2, 2]]
    )


def test_functions_of_one_value_that_share_what_a_call_computes():
    pick = np.array([[False, True, False], [True, False, False]])

    def f(x):
        a = jnp.where(x > 0.1, x, 0.0)
        b = jnp.where(x > 0.1, a, 0.0)
        return b / jnp.sqrt((b * b).sum(-1, keepdims=True) + 0.1) + lax.select_n(pick, b, a)

    x = jnp.asarray(RNG.normal(size=(2, 3)))
    found = lrp.explain(f)(x, target=f(x))
    close(found.relevance, found.output)
