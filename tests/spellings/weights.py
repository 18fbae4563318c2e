"""Softmaxes, and attention with them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spellings.table import ONLY_PLAIN, PLAIN_SUMS, Pair, V, W, X, mostly_slow, normal

from numeric import promoting

Function = Callable[[jax.Array], jax.Array]

KEEP = np.array([True, False, True, True, False, True])
WRONG = -1e9  # a score that no softmax sees
EXPERTS = normal(4, 6, 3, seed=30)  # (inputs, experts, outputs)

# Softmaxes


def softmax_pair(one: Function, other: Function) -> Pair:
    return Pair("dense", lambda x: one(x @ W) @ V, lambda x: other(x @ W) @ V, (X,))


def by_sum(x: jax.Array) -> jax.Array:
    e = jnp.exp(x)
    return e / e.sum(-1, keepdims=True)


def shifted(x: jax.Array) -> jax.Array:
    return by_sum(x - x.max(-1, keepdims=True))


@promoting  # programs multiply weights by boolean masks
def renormalized(x: jax.Array) -> jax.Array:
    p = jax.nn.softmax(x) * KEEP
    return p / p.sum(-1, keepdims=True)


def among_the_best(x: jax.Array) -> jax.Array:
    values, index = lax.top_k(x, 3)
    return _scatter(jax.nn.softmax(values), index)


def best_renormalized(x: jax.Array) -> jax.Array:
    values, index = lax.top_k(jax.nn.softmax(x), 3)
    return _scatter(values / values.sum(-1, keepdims=True), index)


def above_the_third(x: jax.Array) -> jax.Array:
    p = jax.nn.softmax(x)
    p = jnp.where(p >= lax.top_k(p, 3)[0][:, -1:], p, 0)
    return p / p.sum(-1, keepdims=True)


def _scatter(values: jax.Array, index: jax.Array) -> jax.Array:
    rows = jnp.arange(2)[:, None]
    return jnp.zeros((2, 6)).at[rows, index].set(values)


def segments(x: jax.Array) -> jax.Array:
    ids = np.repeat(np.arange(2), 6)
    e = jnp.exp(x.reshape(12))
    return (e / jax.ops.segment_sum(e, ids, 2)[ids]).reshape(2, 6)


SOFTMAXES = mostly_slow(
{
    "softmax: jax.nn, sum": softmax_pair(jax.nn.softmax, by_sum),
    "softmax: less the maximum": softmax_pair(jax.nn.softmax, shifted),
    "softmax: less the maximum, held": softmax_pair(
        jax.nn.softmax, lambda x: by_sum(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    ),
    "softmax: product with the inverse": softmax_pair(
        jax.nn.softmax, lambda x: jnp.exp(x) * (1 / jnp.exp(x).sum(-1, keepdims=True))
    ),
    "softmax: of log_softmax": softmax_pair(jax.nn.softmax, lambda x: jnp.exp(jax.nn.log_softmax(x))),
    "softmax: less logsumexp": softmax_pair(
        jax.nn.softmax, lambda x: jnp.exp(x - jax.nn.logsumexp(x, -1, keepdims=True))
    ),
    "softmax: along another axis": softmax_pair(jax.nn.softmax, lambda x: jax.nn.softmax(x.T, 0).T),
    "softmax: by segments": softmax_pair(jax.nn.softmax, segments),
    "softmax: masked before, renormalized after": softmax_pair(
        lambda x: jax.nn.softmax(jnp.where(KEEP, x, -jnp.inf)), renormalized
    ),
    "softmax: masked by where=": softmax_pair(
        lambda x: jax.nn.softmax(jnp.where(KEEP, x, -jnp.inf)), lambda x: jax.nn.softmax(x, where=KEEP)
    ),
    "softmax: masked by a sum": softmax_pair(
        lambda x: jax.nn.softmax(jnp.where(KEEP, x, -jnp.inf)),
        lambda x: jax.nn.softmax(x + np.where(KEEP, 0.0, WRONG)),
    ),
    "softmax: exponentials masked": softmax_pair(
        lambda x: jax.nn.softmax(jnp.where(KEEP, x, -jnp.inf)),
        promoting(lambda x: (jnp.exp(x) * KEEP) / (jnp.exp(x) * KEEP).sum(-1, keepdims=True)),
    ),
    "softmax: of the best, renormalized": softmax_pair(among_the_best, best_renormalized),
    "softmax: of the best, by threshold": softmax_pair(among_the_best, above_the_third),
    "softmax: renormalized over a slice": softmax_pair(
        lambda x: jax.nn.softmax(x[:, :4]) @ V[:4] @ V.T,
        lambda x: _slice_renormalized(x) @ V[:4] @ V.T,
    ),
    "softmax: of experts that are mixed": Pair(
        "attention",
        lambda x: jnp.einsum("nk,nko->no", among_the_best(x @ W), jnp.einsum("ni,iko->nko", x, EXPERTS)),
        lambda x: jnp.einsum("nk,nko->no", best_renormalized(x @ W), jnp.einsum("ni,iko->nko", x, EXPERTS)),
        (X,),
    ),
    "softmax: of experts, mixed by einsum, by a sum": Pair(
        "attention",
        lambda x: jnp.einsum("nk,nko->no", jax.nn.softmax(x @ W), jnp.einsum("ni,iko->nko", x, EXPERTS)),
        lambda x: (jax.nn.softmax(x @ W)[..., None] * jnp.einsum("ni,iko->nko", x, EXPERTS)).sum(1),
        (X,), PLAIN_SUMS, why=ONLY_PLAIN,
    ),
},
        "softmax: jax.nn, sum",
        "softmax: product with the inverse",
        "softmax: of log_softmax",
            "softmax: masked before, renormalized after",
        "softmax: exponentials masked",
        "softmax: of the best, renormalized",
        "softmax: renormalized over a slice",
)  # fmt: skip


def _slice_renormalized(x: jax.Array) -> jax.Array:
    p = jax.nn.softmax(x)[:, :4]
    return p / p.sum(-1, keepdims=True)


# Attention: a sequence of three, two heads of two

SEQUENCE = normal(3, 4, seed=31)
Q, K, VALUES, OUT = (normal(4, 4, seed=32 + i) for i in range(4))
CAUSAL = np.tril(np.ones((3, 3), bool))
ROOT = 1 / np.sqrt(2)
SINGLE = "JAX computes this softmax in float32"

Projected = tuple[jax.Array, jax.Array, jax.Array]


def heads(x: jax.Array) -> Projected:
    q, k, v = ((x @ w).reshape(3, 2, 2) for w in (Q, K, VALUES))
    return q, k, v  # (sequence, heads, features)


def attention(
    one: Callable[..., jax.Array],
    other: Callable[..., jax.Array],
    rtol: float = 1e-8,
    why: str = "",
) -> Pair:
    def spelled(f: Callable[..., jax.Array]) -> Function:
        return lambda x: f(*heads(x)).reshape(3, 4) @ OUT

    return Pair("attention", spelled(one), spelled(other), (SEQUENCE,), rtol=rtol, why=why)


def by_einsum(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    p = jax.nn.softmax(jnp.einsum("qhf,khf->hqk", q, k) * ROOT)
    return jnp.einsum("hqk,khf->qhf", p, v)


def by_matmul(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    q, k, v = (a.transpose(1, 0, 2) for a in (q, k, v))
    return (jax.nn.softmax(q @ k.mT / np.sqrt(2)) @ v).transpose(1, 0, 2)


def by_dot_general(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    scores = lax.dot_general(q, k, (((2,), (2,)), ((1,), (1,)))) * ROOT
    p = jax.nn.softmax(scores)
    return lax.dot_general(p, v, (((2,), (0,)), ((0,), (1,)))).transpose(1, 0, 2)


def by_vmap(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.vmap(lambda q, k, v: jax.nn.softmax(q @ k.T * ROOT) @ v, 1, 1)(q, k, v)


def head_by_head(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    parts = [jax.nn.softmax(q[:, h] @ k[:, h].T * ROOT) @ v[:, h] for h in (0, 1)]
    return jnp.stack(parts, 1)


def normalized_after(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    e = jnp.exp(jnp.einsum("qhf,khf->hqk", q, k) * ROOT)
    return (jnp.einsum("hqk,khf->hqf", e, v) / e.sum(-1)[..., None]).transpose(1, 0, 2)


def values_weighed(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    p = jax.nn.softmax(jnp.einsum("qhf,khf->qkh", q, k) * ROOT, axis=1)
    return jnp.einsum("khf,qkh->qhf", v, p)


def query_by_query(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    def one(q: jax.Array) -> jax.Array:
        return jnp.einsum("kh,khf->hf", jax.nn.softmax(jnp.einsum("hf,khf->kh", q, k) * ROOT, 0), v)

    return lax.map(one, q)


def masked(fill: float) -> Callable[..., jax.Array]:
    def spelled(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = jnp.where(CAUSAL, jnp.einsum("qhf,khf->hqk", q, k) * ROOT, fill)
        return jnp.einsum("hqk,khf->qhf", jax.nn.softmax(scores), v)

    return spelled


@promoting  # by a boolean mask
def mask_renormalized(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    p = jax.nn.softmax(jnp.einsum("qhf,khf->hqk", q, k) * ROOT) * CAUSAL
    return jnp.einsum("hqk,khf->qhf", p / p.sum(-1, keepdims=True), v)


@promoting  # by a boolean mask
def mask_renormalized_after(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    p = jax.nn.softmax(jnp.einsum("qhf,khf->hqk", q, k) * ROOT) * CAUSAL
    return (jnp.einsum("hqk,khf->hqf", p, v) / p.sum(-1, keepdims=True)).transpose(1, 0, 2)


@promoting  # JAX computes these scores in float32
def in_single(q: jax.Array, k: jax.Array, v: jax.Array, is_causal: bool = False) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, scale=ROOT, is_causal=is_causal)


def packed(x: jax.Array) -> jax.Array:
    q, k, v = jnp.split(x @ np.concatenate([Q, K, VALUES], 1), 3, -1)
    return by_einsum(*(a.reshape(3, 2, 2) for a in (q, k, v))).reshape(3, 4) @ OUT


ATTENTION = mostly_slow(
{
    "attention: einsum, matmul": attention(by_einsum, by_matmul),
    "attention: einsum, dot_general": attention(by_einsum, by_dot_general),
    "attention: einsum, jax.nn": attention(
        by_einsum, in_single, 1e-5, SINGLE
    ),
    "attention: heads by reshape, vmap": attention(by_einsum, by_vmap),
    "attention: heads one by one": attention(by_einsum, head_by_head),
    "attention: normalized before and after": attention(by_einsum, normalized_after),
    "attention: weights on the right": attention(by_einsum, values_weighed),
    "attention: queries by a loop": attention(by_einsum, query_by_query),
    "attention: mask of -inf, of the least float": attention(masked(-jnp.inf), masked(-1e30)),
    "attention: mask before, renormalized": attention(masked(-jnp.inf), mask_renormalized),
    "attention: mask before, renormalized after the product": attention(
        masked(-jnp.inf), mask_renormalized_after
    ),
    "attention: mask, jax.nn": attention(
        masked(-jnp.inf), functools.partial(in_single, is_causal=True), 1e-5, SINGLE
    ),
    "attention: projections apart, packed": Pair(
        "attention", lambda x: by_einsum(*heads(x)).reshape(3, 4) @ OUT, packed, (SEQUENCE,)
    ),
},
        "attention: einsum, matmul",
        "attention: normalized before and after",
        "attention: mask before, renormalized",
        "attention: mask before, renormalized after the product",
)  # fmt: skip

PAIRS = SOFTMAXES | ATTENTION
