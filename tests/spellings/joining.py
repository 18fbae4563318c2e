"""What joins values: residuals, products, gates; losses and other outputs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spellings.table import ALL, NO_FLAT, ONLY_PLAIN, PLAIN_SUMS, Pair, V, W, X, mostly_slow, normal

Function = Callable[[jax.Array], jax.Array]

# Residuals and products

OTHER = normal(4, 4, seed=19)
STATE = normal(2, 6, seed=20)

SUMS = mostly_slow(
{
    "residual: sum, sum of a stack": Pair(
        "sum", lambda x: x + jnp.tanh(x @ OTHER), lambda x: jnp.stack([x, jnp.tanh(x @ OTHER)]).sum(0),
        (X,), PLAIN_SUMS, why=ONLY_PLAIN,
    ),
    "residual: in two orders": Pair(
        "sum", lambda x: x + jnp.tanh(x @ OTHER), lambda x: lax.add(jnp.tanh(x @ OTHER), x), (X,)
    ),
    "residual: blocks in a loop, unrolled": Pair(
        "sum",
        lambda x: lax.fori_loop(0, 3, lambda _, h: h + jnp.tanh(h @ OTHER), x),
        lambda x: _thrice(lambda h: h + jnp.tanh(h @ OTHER), x), (X,),
        NO_FLAT, why="a layer in a loop is first in all of its turns or in none",
    ),
    "residual: remat": Pair(
        "sum", lambda x: x + jnp.tanh(x @ OTHER),
        jax.checkpoint(lambda x: x + jnp.tanh(x @ OTHER)), (X,),
    ),
    "residual: branch": Pair(
        "sum", lambda x: x + jnp.tanh(x @ OTHER),
        lambda x: lax.cond(x.sum() < 99, lambda x: x + jnp.tanh(x @ OTHER), lambda x: x, x), (X,),
    ),
    "product: of two, of a stack": Pair(
        "product", lambda x: (x @ W) * (x @ W[::-1]),
        lambda x: jnp.stack([x @ W, x @ W[::-1]]).prod(0), (X,),
    ),
    "product: outer by broadcast, by einsum": Pair(
        "product", lambda x: (x[:, :, None] * jnp.tanh(x @ W)[:, None, :]).reshape(2, 24),
        lambda x: jnp.einsum("ni,nj->nij", x, jnp.tanh(x @ W)).reshape(2, 24), (X,),
    ),
    "product: inner by sum, by einsum": Pair(
        "product", lambda x: jnp.einsum("ni,ni->n", x @ W, jnp.tanh(x @ W[::-1])),
        lambda x: ((x @ W) * jnp.tanh(x @ W[::-1])).sum(-1), (X,), PLAIN_SUMS, why=ONLY_PLAIN,
    ),
    "product: cosine of normalized, of both": Pair(
        "product", lambda x: jnp.einsum("ni,ni->n", _unit(x @ W), _unit(x @ W[::-1])),
        lambda x: jnp.einsum("ni,ni->n", x @ W, x @ W[::-1]) / (_length(x @ W) * _length(x @ W[::-1])),
        (X,),
    ),
    "product: with stop_gradient, with a constant": Pair(
        "dense", lambda x: (x * lax.stop_gradient(jax.nn.softmax(x))) @ V[:4],
        lambda x: (x * (np.exp(X) / np.exp(X).sum(-1, keepdims=True))) @ V[:4], (X,),
    ),
    "straight through: stop_gradient, a constant": Pair(
        "dense", lambda x: (x[:, ::-1] + lax.stop_gradient(jnp.round(x) - x)) @ V[:4],
        lambda x: (x[:, ::-1] + (np.round(X) - X)) @ V[:4], (X,),
    ),
    "straight through: in two orders": Pair(
        "dense", lambda x: (x + lax.stop_gradient(jnp.round(x) - x)) @ V[:4],
        lambda x: (lax.stop_gradient(jnp.round(x) - x) + x) @ V[:4], (X,),
    ),
},
            "product: of two, of a stack",
        "product: with stop_gradient, with a constant",
        "straight through: stop_gradient, a constant",
    )  # fmt: skip


def _thrice(f: Function, x: jax.Array) -> jax.Array:
    return f(f(f(x)))


def _length(x: jax.Array) -> jax.Array:
    return jnp.sqrt((x * x).sum(-1))


def _unit(x: jax.Array) -> jax.Array:
    return x / _length(x)[:, None]


# Gates: the squash before or after what moves its values


def gate(one: Function, other: Function, presets: tuple[str, ...] = ALL, why: str = "") -> Pair:
    return Pair(
        "gate", lambda x: one(x) @ V[:3], lambda x: other(x) @ V[:3], (X,), presets, why=why
    )


def value(x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ W[::-1, :3])


def split_before(x: jax.Array) -> jax.Array:
    return jax.nn.sigmoid((x @ W)[:, 3:]) * value(x)


TURNED = np.array([5, 3, 4])

GATES = mostly_slow(
{
    "gate: split after the squash": gate(
        split_before, lambda x: jnp.split(jax.nn.sigmoid(x @ W), 2, -1)[1] * value(x)
    ),
    "gate: split before the squash": gate(
        split_before, lambda x: jax.nn.sigmoid(jnp.split(x @ W, 2, -1)[1]) * value(x)
    ),
    "gate: sliced after the squash": gate(
        split_before, lambda x: value(x) * jax.nn.sigmoid(x @ W)[:, 3:]
    ),
    "gate: unstacked after the squash": gate(
        split_before,
        lambda x: jnp.unstack(jax.nn.sigmoid(x @ W).reshape(2, 2, 3), axis=1)[1] * value(x),
    ),
    "gate: gathered after the squash": gate(
        lambda x: jax.nn.sigmoid((x @ W)[:, TURNED]) * value(x),
        lambda x: jax.nn.sigmoid(x @ W)[:, TURNED] * value(x),
    ),
    "gate: reversed after the squash": gate(
        lambda x: jax.nn.sigmoid((x @ W)[:, :2:-1]) * value(x),
        lambda x: jnp.flip(jax.nn.sigmoid(x @ W)[:, 3:], 1) * value(x),
    ),
    "gate: stacked after the squash": gate(
        split_before,
        lambda x: jnp.stack([jax.nn.sigmoid(x @ W[:, :3]), jax.nn.sigmoid(x @ W[:, 3:])])[1] * value(x),
    ),
    "gate: broadcast inside, before": gate(
        lambda x: jax.nn.sigmoid(x @ W[:, :1]) * value(x),
        lambda x: jnp.broadcast_to(jax.nn.sigmoid(x @ W[:, 0])[:, None], (2, 3)) * value(x),
    ),
    "gate: one minus, split before and after": gate(
        lambda x: (1 - jax.nn.sigmoid((x @ W)[:, 3:])) * value(x),
        lambda x: (1 - jax.nn.sigmoid(x @ W))[:, 3:] * value(x),
    ),
    "gate: one minus, spelled with a sum": gate(
        lambda x: (1 - jax.nn.sigmoid(x @ W[:, :3])) * value(x),
        lambda x: (-jax.nn.sigmoid(x @ W[:, :3]) + 1) * value(x),
    ),
    "gate: GLU": gate(
        lambda x: jax.nn.glu(x @ W), lambda x: (x @ W)[:, :3] * jax.nn.sigmoid((x @ W)[:, 3:])
    ),
    "gate: hard sigmoid": gate(
        lambda x: jax.nn.hard_sigmoid(x @ W[:, :3]) * value(x),
        lambda x: jnp.clip((x @ W[:, :3] + 3) / 6, 0, 1) * value(x),
        tuple(name for name in ALL if name not in ("attnlrp", "cp_lrp", "recurrent_half")),
        "a dense layer absorbs a constant that follows it, where no call keeps it in the activation",
    ),
    "gate: from a loop": gate(
        lambda x: jax.nn.sigmoid(x @ W[:, :3]) * value(x),
        lambda x: lax.map(lambda row: jax.nn.sigmoid(row @ W[:, :3]) * jnp.tanh(row @ W[::-1, :3]), x),
    ),
},
        "gate: split after the squash",
        "gate: unstacked after the squash",
        "gate: gathered after the squash",
            "gate: one minus, split before and after",
    )  # fmt: skip

# Losses as outputs

LABELS = np.array([2, 0])
ONE_HOT = np.eye(3)[LABELS]


def scores(x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ W) @ V


def _squared(d: jax.Array) -> jax.Array:
    return d * d


def _surprise(s: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(s, -1) - jnp.take_along_axis(s, LABELS[:, None], -1)[:, 0]


LOSSES = mostly_slow(
{
    "cross entropy: log_softmax, logsumexp": Pair(
        "dense", lambda x: -jnp.take_along_axis(jax.nn.log_softmax(scores(x)), LABELS[:, None], -1)[:, 0],
        lambda x: _surprise(scores(x)), (X,),
    ),
    "cross entropy: by label, by one-hot vector": Pair(
        "dense", lambda x: -jnp.take_along_axis(jax.nn.log_softmax(scores(x)), LABELS[:, None], -1)[:, 0],
        lambda x: -(ONE_HOT * jax.nn.log_softmax(scores(x))).sum(-1), (X,), PLAIN_SUMS, why=ONLY_PLAIN,
    ),
    "logsumexp: logarithm of a sum": Pair(
        "dense", lambda x: jax.nn.logsumexp(scores(x), -1),
        lambda x: jnp.log(jnp.exp(scores(x)).sum(-1)), (X,),
    ),
    "binary cross entropy: log_sigmoid, softplus": Pair(
        "activation", lambda x: -jax.nn.log_sigmoid(scores(x)), lambda x: jax.nn.softplus(-scores(x)),
        (X,), tuple(name for name in ALL if name != "excitation_backprop"),
        why="a derivative that multiplies relevance has another sign of a negated score",
    ),
    "squared error: square, product": Pair(
        "activation", lambda x: jnp.square(scores(x) - ONE_HOT).mean(-1),
        lambda x: _squared(scores(x) - ONE_HOT).mean(-1), (X,),
    ),
    "outputs: second of a split, a slice": Pair(
        "dense", lambda x: jnp.split(scores(x), [1], -1)[1], lambda x: scores(x)[:, 1:], (X,)
    ),
    "outputs: second of an unstack, an index": Pair(
        "dense", lambda x: jnp.unstack(scores(x), axis=1)[1], lambda x: scores(x)[:, 1], (X,)
    ),
    "outputs: second of a sort by keys, looked up": Pair(
        "dense", lambda x: lax.sort((x @ W[:, :3], scores(x)), dimension=1, num_keys=1)[1],
        lambda x: jnp.take_along_axis(scores(x), jnp.argsort(x @ W[:, :3], -1), -1), (X,),
    ),
},
        "cross entropy: log_softmax, logsumexp",
        "outputs: second of a split, a slice",
)  # fmt: skip

PAIRS = SUMS | GATES | LOSSES
