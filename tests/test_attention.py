"""Attention: found however it is spelled, and what AttnLRP and CP-LRP make of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites, rules

from numeric import promoting
from selection import one_in

T, D = 5, 4


pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


W = [np.random.default_rng(i).normal(size=(D, D)) for i in range(4)]  # NumPy's stay float64
CAUSAL = np.tril(np.ones((T, T), bool))


def kinds(fun: Callable, *args: jax.Array) -> list[str]:
    return [row.kind for row in lrp.plan(fun, None, *args, argnums=len(args) - 1).rows]


def heads(x: jax.Array) -> jax.Array:
    return x.reshape(T, 2, D // 2)


def plain(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    return jax.nn.softmax(q @ k.T / D**0.5) @ v


def masked(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    return jax.nn.softmax(jnp.where(CAUSAL, q @ k.T, -jnp.inf)) @ v


def added_mask(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    return jax.nn.softmax(q @ k.T + jnp.where(CAUSAL, 0.0, -1e9)) @ v


def with_bias(x: jax.Array) -> jax.Array:
    """Linear biases of distance, as ALiBi has them."""
    q, k, v = (x @ w for w in W[:3])
    position = jnp.arange(T, dtype=x.dtype)
    distance = jnp.abs(position[:, None] - position)
    return jax.nn.softmax(q @ k.T - 0.3 * distance) @ v


def einsum(x: jax.Array) -> jax.Array:
    q, k, v = (heads(x @ w) for w in W[:3])
    p = jax.nn.softmax(jnp.einsum("thd,shd->hts", q, k), axis=-1)
    return jnp.einsum("hts,shd->thd", p, v).reshape(T, D)


def values_first(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    return (v.T @ jax.nn.softmax(k @ q.T, axis=0)).T


def by_hand(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    s = q @ k.T
    e = jnp.exp(s - lax.stop_gradient(s.max(-1, keepdims=True)))
    return (e / e.sum(-1, keepdims=True)) @ v


def times_inverse(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    e = jnp.exp(q @ k.T)
    return (e * jnp.reciprocal(e.sum(axis=-1, keepdims=True))) @ v


def half_precision_weights(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    return jax.nn.softmax((q @ k.T).astype(jnp.float32)).astype(x.dtype) @ v


def talking_heads(x: jax.Array) -> jax.Array:
    """Weights of the heads are mixed behind the softmax."""
    q, k, v = (heads(x @ w) for w in W[:3])
    p = jax.nn.softmax(jnp.einsum("thd,shd->hts", q, k), axis=-1)
    p = jnp.einsum("hts,hg->gts", p, W[3][:2, :2])
    return jnp.einsum("hts,shd->thd", p, v).reshape(T, D)


# `jax.nn.dot_product_attention` computes its scores in float32, and promotes implicitly.
@promoting
def library(x: jax.Array) -> jax.Array:
    q, k, v = (heads(x @ w)[None] for w in W[:3])
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(T, D)


@promoting
def grouped(x: jax.Array) -> jax.Array:
    q, k, v = heads(x @ W[0])[None], heads(x @ W[1])[None, :, :1], heads(x @ W[2])[None, :, :1]
    return jax.nn.dot_product_attention(q, k, v).reshape(T, D)


def elementwise(x: jax.Array) -> jax.Array:
    """Pooling by attention: one weight for each token."""
    p = jax.nn.softmax(jnp.tanh(x @ W[0]) @ W[1][:, :1], axis=0)
    return (p * (x @ W[2])).sum(axis=0)


def linen_module(x: jax.Array) -> jax.Array:
    model = nn.MultiHeadDotProductAttention(2, param_dtype=x.dtype, dtype=x.dtype)
    return model.apply(model.init(jax.random.key(0), x, x), x, x)


with jax.enable_x64(True):
    MULTI_HEAD = nnx.MultiHeadAttention(
        2, D, decode=False, deterministic=True, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )


@promoting
def nnx_module(x: jax.Array) -> jax.Array:
    return MULTI_HEAD(x[None])[0]


def rotated(x: jax.Array) -> jax.Array:
    """Each pair of features turned by an angle that grows with the position."""
    angle = jnp.arange(T, dtype=x.dtype)[:, None] * jnp.array([1.0, 0.1])
    a, b = x[:, 0::2], x[:, 1::2]
    turned = a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)
    return jnp.stack(turned, axis=-1).reshape(T, D)


def rotary(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    return jax.nn.softmax(rotated(q) @ rotated(k).T) @ v


@promoting
def windowed(x: jax.Array) -> jax.Array:
    q, k, v = (heads(x @ w)[None] for w in W[:3])
    return jax.nn.dot_product_attention(q, k, v, local_window_size=(1, 0)).reshape(T, D)


def cross(x: jax.Array) -> jax.Array:
    """A constant asks; keys and values are explained."""
    k, v = x @ W[1], x @ W[2]
    return jax.nn.softmax(normal(T, D, seed=5) @ k.T) @ v


def cached(x: jax.Array) -> jax.Array:
    """Values of earlier tokens are constants, which take no relevance (theirs here are zero)."""
    q, k, v = (x @ w for w in W[:3])
    keys = lax.dynamic_update_slice(normal(2 * T, D, seed=6), k, (T, 0))
    values = lax.dynamic_update_slice(jnp.zeros((2 * T, D)), v, (T, 0))
    return jax.nn.softmax(q @ keys.T) @ values


SPELLINGS = {
    f.__name__: f
    for f in (
        plain, masked, added_mask, with_bias, einsum, values_first, by_hand,
        half_precision_weights, talking_heads, library, grouped, elementwise, linen_module, nnx_module,
        rotary, windowed, cross, cached, times_inverse,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_attention_is_found(name):
    found = kinds(SPELLINGS[name], normal(T, D, seed=9))
    assert found.count("attention") == 1
    assert "unsupported" not in found


@pytest.mark.parametrize("name", SPELLINGS)
def test_cp_lrp_holds_the_weights_fixed(name):
    """With weights that are constants, what is left is linear in the values, and conserved."""
    fun, x = SPELLINGS[name], normal(T, D, seed=9)
    r = normal(*fun(x).shape, seed=8)
    explain = lrp.explain(fun, composites.cp_lrp(epsilon=0.0, bias="zero"))
    found = explain(x, target=r)
    assert np.isfinite(found.relevance).all()
    rtol = 1e-5 if name == "half_precision_weights" else 1e-9
    np.testing.assert_allclose(found.relevance.sum(), r.sum(), rtol=rtol)


@pytest.mark.parametrize(
    "name", ["plain", "masked", "einsum", "library", "elementwise", "rotary", "windowed", "cached"]
)
def test_attnlrp_is_the_gradient_with_products_halved(name):
    """Between linear layers AttnLRP is x times a gradient in which each product counts half."""
    fun, x = SPELLINGS[name], normal(T, D, seed=9)
    if name == "elementwise":
        fun = lambda x: (jax.nn.softmax(x @ W[1], axis=0) * (x @ W[2])).sum(axis=0)  # noqa: E731
    r = normal(*fun(x).shape, seed=8)
    out = fun(x)
    found = lrp.explain(fun, composites.attnlrp(epsilon=0.0))(x, target=r).relevance

    def halved(x: jax.Array) -> jax.Array:
        return _half_products(fun, x)

    _, pull = jax.vjp(halved, x)
    np.testing.assert_allclose(found, x * pull(r / out)[0], rtol=1e-8, atol=1e-10)


def _half_products(fun: Callable, x: jax.Array) -> jax.Array:
    """Evaluates a traced function, halving the cotangents of products of two dependent values."""
    closed = jax.make_jaxpr(fun)(x)
    return _walk(closed.jaxpr, closed.consts, [x], [True])[0][0]


def _walk(jaxpr, consts, args, moving):
    env = dict(zip(jaxpr.constvars, ((c, False) for c in consts), strict=True))
    env.update(zip(jaxpr.invars, zip(args, moving, strict=True), strict=True))

    def read(v):
        return (v.val, False) if hasattr(v, "val") else env[v]

    for eqn in jaxpr.eqns:
        values, depend = zip(*map(read, eqn.invars), strict=True) if eqn.invars else ((), ())
        name = str(eqn.primitive)
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if inner is not None and name in ("jit", "pjit", "custom_jvp_call"):
            outs, marks = _walk(inner.jaxpr, inner.consts, values, depend)
            env.update(zip(eqn.outvars, zip(outs, marks, strict=True), strict=True))
            continue
        if name in ("dot_general", "mul") and all(depend) and name != "div":
            values = tuple(half(v) for v in values)
        out = eqn.primitive.bind(*values, **eqn.params)
        outs = out if eqn.primitive.multiple_results else [out]
        env.update((v, (o, any(depend))) for v, o in zip(eqn.outvars, outs, strict=True))
    found = [read(v) for v in jaxpr.outvars]
    return [v for v, _ in found], [m for _, m in found]


@jax.custom_vjp
def half(x):
    return x


half.defvjp(lambda x: (x, None), lambda _, g: (0.5 * g,))


def test_blocks_of_sparse_attention():
    """Attention block by block is attention with a mask of blocks."""
    block = np.arange(T) // 2

    def dense(x):
        q, k, v = (x @ w for w in W[:3])
        scores = jnp.where(block[:, None] == block, q @ k.T / D**0.5, -jnp.inf)
        return jax.nn.softmax(scores) @ v

    def sparse(x):
        return jnp.concatenate([plain(x[block == b]) for b in range(block[-1] + 1)])

    x, r = normal(T, D, seed=9), normal(T, D, seed=8)
    found = [lrp.explain(f, composites.attnlrp())(x, target=r).relevance for f in (dense, sparse)]
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("preset", [composites.attnlrp, composites.cp_lrp, composites.default])
@pytest.mark.parametrize("fun", [masked, added_mask, library])
def test_a_masked_token_gets_nothing(preset, fun):
    """The first token sees itself alone."""
    x = normal(T, D, seed=9)
    r = jnp.zeros((T, D)).at[0].set(1.0)
    found = lrp.explain(fun, preset())(x, target=r).relevance
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[1:], 0.0)
    assert np.abs(found[0]).min() > 1e-3


@pytest.mark.parametrize("preset", ["attnlrp", "cp_lrp"])
def test_the_tiny_attention(preset):
    """Three arguments explained at once: queries, keys, values."""
    q, k = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[1.0, 1.0], [0.0, 1.0]])
    v = jnp.array([[1.0, -1.0], [2.0, 3.0]])

    def attend(q, k, v):
        return jax.nn.softmax(q @ k.T) @ v

    target = attend(q, k, v) * jnp.array([[1.0], [0.0]])
    explain = lrp.explain(attend, composites.PRESETS[preset](), argnums=(0, 1, 2))
    of_q, of_k, of_v = explain(q, k, v, target=target).relevance
    if preset == "attnlrp":
        np.testing.assert_allclose(of_q, [[-0.2457649, 0], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(of_k, [[-0.2457649, 0], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(
            of_v, [[0.3655293, -0.3655293], [0.2689414, 0.4034121]], atol=1e-6
        )
    else:
        np.testing.assert_array_equal(of_q, 0.0)
        np.testing.assert_array_equal(of_k, 0.0)
        np.testing.assert_allclose(
            of_v, [[0.7310586, -0.7310586], [0.5378828, 0.8068243]], atol=1e-6
        )


def test_gamma_in_linear_layers():
    plan = lrp.plan(plain, composites.attnlrp(gamma=0.05, conv_gamma=0.25), normal(T, D))
    of_dense = {
        rule for rule, row in zip(plan.rules, plan.rows, strict=True) if row.kind == "dense"
    }
    assert of_dense == {lrp.Gamma(0.05)}
    rows = zip(plan.rules, plan.rows, strict=True)
    assert {rule for rule, row in rows if row.kind in ("product", "attention")} == {rules.Uniform()}


def test_gates_of_attnlrp_get_half():
    def gated(x):
        return jax.nn.sigmoid(x[0]) * x[1]

    x, r = normal(2, 3), normal(3, seed=1)
    half_each = lrp.explain(gated, composites.attnlrp())(x, target=r).relevance
    np.testing.assert_allclose(half_each, [r / 2, r / 2], rtol=1e-9)
    to_signal = lrp.explain(gated, composites.default())(x, target=r).relevance
    np.testing.assert_allclose(to_signal, [0 * r, r], rtol=1e-9, atol=1e-12)


def test_the_product_of_two_softmaxes_is_no_attention():
    def both(x):
        return jax.nn.softmax(x) @ jax.nn.softmax(x @ W[0])

    assert kinds(both, normal(D, D)) == ["dense", "product"]


def test_proportional():
    def product(x):
        return x[0] * x[1]

    x = jnp.array([[1.0, -3.0, 0.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    r = jnp.array([8.0, 8.0, 8.0, 8.0])
    explain = lrp.explain(product, composites.by_kind("product", rules.Proportional()))
    found = explain(x, target=r).relevance
    # A product of zero carries relevance through `tiny`: it is not lost, and goes to the larger factor.
    np.testing.assert_allclose(found[:, :2], [[2, 6], [6, 2]], rtol=1e-9)
    assert np.isfinite(found).all()


def test_proportional_of_a_factor_that_is_broadcast():
    def product(x):
        return x * x.sum(axis=1, keepdims=True)

    x, r = jnp.array([[1.0, 3.0]]), jnp.array([[10.0, 7.0]])
    found = lrp.explain(product, composites.by_kind("product", rules.Proportional()))(x, target=r)
    # Sum 4: the factors have 1/5 and 3/7 of the relevance, the sum 8 + 4, shared as 1 to 3.
    np.testing.assert_allclose(found.relevance, [[2 + 3, 3 + 9]], rtol=1e-9)


def test_proportional_of_a_matrix_product():
    """Term by term, in NumPy."""
    a, b = normal(2, 3, 4), normal(2, 4, 2, seed=1)
    r = normal(2, 3, 2, seed=2)
    composite = composites.by_kind("product", rules.Proportional())
    spellings = {
        "bik,bkj->bij": (a, b),
        "kbi,bjk->bij": (a.transpose(2, 0, 1), b.transpose(0, 2, 1)),
    }
    terms = np.asarray(a)[..., None] * np.asarray(b)[:, None]
    sizes = np.abs(a)[..., None] + np.abs(b)[:, None]
    carried = terms * (np.asarray(r) / terms.sum(2))[:, :, None]
    of_a = (np.abs(a)[..., None] / sizes * carried).sum(3)
    of_b = (np.abs(b)[:, None] / sizes * carried).sum(1)
    for spec, (left, right) in spellings.items():
        explain = lrp.explain(lambda a, b: jnp.einsum(spec, a, b), composite, argnums=(0, 1))  # noqa: B023
        found = jax.jit(lambda a, b: explain(a, b, target=r).relevance)(left, right)  # noqa: B023
        back = [found[0], found[1]] if spec.startswith("b") else [
            found[0].transpose(1, 2, 0), found[1].transpose(0, 2, 1)
        ]  # fmt: skip
        np.testing.assert_allclose(back[0], of_a, rtol=1e-9)
        np.testing.assert_allclose(back[1], of_b, rtol=1e-9)


def test_proportional_of_attention_conserves():
    composite = composites.by_kind(("product", "attention"), rules.Proportional())
    ledger = lrp.ledger(plain, composite, normal(T, D), target=jnp.ones((T, D)))
    kept = [e for e in ledger.rows.values() if e.kind in ("product", "attention")]
    assert len(kept) == 2
    assert all(abs(e.received - e.passed) < 1e-9 for e in kept)


def test_proportional_refuses_what_is_no_product_of_two():
    explain = lrp.explain(late, composites.by_kind("attention", rules.Proportional()))
    with pytest.raises(ValueError, match=r"Proportional is for products of two values and for mat"):
        explain(normal(T, D), target=jnp.ones((T, D)))


# The softmax at another temperature (GIM)


def tempered(scores: np.ndarray, values: np.ndarray, r: np.ndarray, t: float) -> tuple:
    """Relevance of scores and values in NumPy: g_l = s_T (u - <u, s_T>), and half to each factor."""

    def softmax(scores: np.ndarray) -> np.ndarray:
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    s, s_t = softmax(scores), softmax(scores / t)
    g = r / (s @ values)
    u = g @ values.swapaxes(-1, -2)
    to_scores = s_t * (u - (u * s_t).sum(axis=-1, keepdims=True)) / 2
    return np.where(s > 0, scores, 0) * to_scores, values * (s.swapaxes(-1, -2) @ g) / 2


def divided_after(scores: jax.Array, values: jax.Array) -> jax.Array:
    e = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    return (e @ values) / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("t", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("late", [False, True])
def test_the_softmax_has_another_temperature(t, late):
    scores, values, r = 3 * normal(2, T, T), normal(2, T, D, seed=1), normal(2, T, D, seed=2)
    fun = divided_after if late else lambda scores, values: jax.nn.softmax(scores) @ values
    explain = lrp.explain(fun, composites.gim(temperature=t), argnums=(0, 1))
    found = explain(scores, values, target=r).relevance
    expected = tempered(*map(np.asarray, (scores, values, r)), t)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_axis_of_the_softmax_is_the_one_that_is_summed_over():
    def across(scores, values):  # the softmax is over the first axis, as of keys by queries
        return jnp.einsum("kq,kd->qd", jax.nn.softmax(scores, axis=0), values)

    scores, values, r = 3 * normal(T, 3), normal(T, D, seed=1), normal(3, D, seed=2)
    found = lrp.explain(across, "gim", argnums=(0, 1))(scores, values, target=r).relevance
    expected = tempered(np.asarray(scores).T, np.asarray(values), np.asarray(r), 2.0)
    np.testing.assert_allclose(found[0], expected[0].T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-12)


def test_gim_of_a_block():
    """Queries and keys get a quarter of the gradient each, values half; a hidden future gets nothing."""

    def block(x):
        h = x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True))
        return jax.nn.gelu(masked(h))

    x, target = normal(T, D), jnp.zeros((T, D)).at[2].set(1.0)
    plan = lrp.plan(block, "gim", x)
    found = {(row.kind, rule) for row, rule in zip(plan.rows, plan.rules, strict=True)}
    assert found == {
        ("dense", lrp.LRP0()), ("product", rules.Uniform()), ("attention", rules.Tempered(2.0)),
        ("activation", rules.Gradient()), ("normalizer", rules.Detach()),
    }  # fmt: skip
    relevance = np.asarray(lrp.explain(block, "gim")(x, target=target).relevance)
    assert not np.any(relevance[3:])
    assert np.all(np.abs(relevance[:3]).sum(axis=1) > 1e-6)

    h = np.asarray(x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True)))
    q, k, v = (h @ w for w in W[:3])
    y, pull = jax.vjp(jax.nn.gelu, masked(jnp.asarray(h)))
    g = np.asarray(pull(target / jnp.where(target, y, 1))[0])  # relevance begins as g = R / y
    scores = np.where(CAUSAL, q @ k.T, -np.inf)
    s_t = np.exp(scores / 2) / np.exp(scores / 2).sum(axis=-1, keepdims=True)
    s = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    u = g @ v.T
    to_scores = s_t * (u - (u * s_t).sum(axis=-1, keepdims=True))
    to_h = (to_scores @ k / 4) @ W[0].T + (to_scores.T @ q / 4) @ W[1].T + (s.T @ g / 2) @ W[2].T
    np.testing.assert_allclose(relevance, h * to_h, rtol=1e-9, atol=1e-12)


def test_tempered_needs_a_matrix_product():
    def by_elements(x):
        return (jax.nn.softmax(x[0])[:, None] * x[1:].T).sum(axis=0)

    x = normal(3, T)
    assert {rules.Uniform()} <= set(lrp.plan(by_elements, "gim", x).rules)
    explain = lrp.explain(by_elements, composites.by_kind("attention", rules.Tempered()))
    with pytest.raises(
        ValueError, match=r"Tempered is for matrix products of softmax weights and "
    ):
        explain(x, target=jnp.ones(2))
    with pytest.raises(ValueError, match=r"temperature must be >= 0.001, got 0"):
        rules.Tempered(0)


# Softmax weights that are normalized behind the product


def late(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    s = jnp.where(CAUSAL, q @ k.T, -jnp.inf)
    e = jnp.exp(s - lax.stop_gradient(s.max(axis=-1, keepdims=True)))
    return (e @ v) / e.sum(axis=-1, keepdims=True)


def late_by_elements(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    e = jnp.where(CAUSAL, jnp.exp(q @ k.T), 0.0)
    return (e[:, :, None] * v).sum(1) / (e.sum(1)[:, None] + 1e-30)


def late_times_inverse(x: jax.Array) -> jax.Array:
    q, k, v = (x @ w for w in W[:3])
    e = jnp.where(CAUSAL, jnp.exp(q @ k.T), 0.0)
    return (e @ v) * (1.0 / e.sum(-1))[:, None]


def late_heads(x: jax.Array) -> jax.Array:
    q, k, v = (heads(x @ w) for w in W[:3])
    e = jnp.exp(jnp.einsum("thd,shd->hts", q, k))
    o = jnp.einsum("hts,shd->thd", e, v) / e.sum(-1).T[:, :, None]
    return o.reshape(x.shape)


def early_heads(x: jax.Array) -> jax.Array:
    q, k, v = (heads(x @ w) for w in W[:3])
    p = jax.nn.softmax(jnp.einsum("thd,shd->hts", q, k))
    return jnp.einsum("hts,shd->thd", p, v).reshape(x.shape)


SEND, RECEIVE = np.array([0, 1, 2, 3, 4, 0, 2]), np.array([1, 1, 0, 0, 2, 3, 4])


def late_segments(x: jax.Array) -> jax.Array:
    """Graph attention."""
    h, scores = x @ W[0], jax.nn.leaky_relu((x @ W[1])[SEND, :1] + (x @ W[2])[RECEIVE, :1])
    e = jnp.exp(scores)
    total = jax.ops.segment_sum(e, RECEIVE, T)
    return jax.ops.segment_sum(e * h[SEND], RECEIVE, T) / (total + 1e-30)


def early_segments(x: jax.Array) -> jax.Array:
    h, scores = x @ W[0], jax.nn.leaky_relu((x @ W[1])[SEND, :1] + (x @ W[2])[RECEIVE, :1])
    e = jnp.exp(scores)
    p = e / jax.ops.segment_sum(e, RECEIVE, T)[RECEIVE]
    return jax.ops.segment_sum(p * h[SEND], RECEIVE, T)


LATE = {
    late: masked,
    late_by_elements: masked,
    late_times_inverse: masked,
    late_heads: early_heads,
    late_segments: early_segments,
}
PRESETS = {
    "default": None,
    "attnlrp": composites.attnlrp(),
    "gamma": composites.attnlrp(gamma=0.25),
    "cp_lrp": composites.cp_lrp(),
}


@pytest.mark.sampled
@pytest.mark.parametrize("preset", one_in(3, PRESETS))
@pytest.mark.parametrize("fun", LATE, ids=lambda f: f.__name__)
def test_a_softmax_normalized_behind_the_product(fun, preset):
    x, composite = normal(T, D), PRESETS[preset]
    ledger = lrp.ledger(fun, composite, x, target=lambda z: z)
    assert [row.kind for row in lrp.plan(fun, None, x).rows].count("attention") == 1
    assert "normalizer" not in kinds(fun, x)
    assert abs(ledger.elsewhere) < 1e-9
    found = [lrp.explain(f, composite)(x, target=lambda z: z).relevance for f in (fun, LATE[fun])]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_sum_that_something_else_reads_stays_a_normalizer():
    def shown(x: jax.Array) -> jax.Array:
        e = jnp.exp(x @ W[0])
        total = e.sum(axis=-1, keepdims=True)
        return (e @ (x @ W[1]).T) / total + total

    assert "normalizer" in kinds(shown, normal(T, D))
