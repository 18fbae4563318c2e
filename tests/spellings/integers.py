"""Integers: token ids and pixels that are moved before or after they are looked up, and quantizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spellings.table import Pair, mostly_slow, normal

from numeric import promoting

Function = Callable[[jax.Array], jax.Array]

IDS = np.array([[3, 1, 4, 2], [0, 5, 2, 6]])
OTHERS = np.array([[6, 0, 2, 1], [1, 4, 3, 5]])
# No entry is near zero: the epsilon of the dense layer after a one-hot vector then takes 1e-6 at most.
TABLE = np.sign(normal(12, 3, seed=40)) * (1 + np.abs(normal(12, 3, seed=41)))
HEAD = normal(4, 3, 2, seed=42)
ORDER = np.array([2, 0, 3, 1])

ONE_HOT = "a one-hot vector's table is a dense layer, which has its epsilon"


def read(e: jax.Array) -> jax.Array:
    """What becomes of embeddings (batch, positions, features)."""
    return jnp.einsum("npf,pfo->no", e, HEAD[: e.shape[1]])


def lookup(one: Function, other: Function) -> Pair:
    return Pair("embedding", lambda i: read(one(i)), lambda i: read(other(i)), (IDS,))


def one_hot(spelled: Function) -> Pair:
    # rules that look at signs or count inputs treat the dense layer otherwise, and rightly
    presets = ("epsilon_plus", "attnlrp", "cp_lrp", "epsilon_alpha2_beta1", "all_epsilon")
    return dataclasses.replace(
        lookup(embed, promoting(lambda i: spelled(i) @ TABLE)),
        presets=presets,
        rtol=1e-5,
        why=ONE_HOT,
    )


def embed(i: jax.Array) -> jax.Array:
    return jnp.asarray(TABLE)[i]


def in_turn(i: jax.Array) -> jax.Array:
    """Embeddings by a loop over positions."""
    return lax.map(embed, i.T).transpose(1, 0, 2)


def by_slices(i: jax.Array) -> jax.Array:
    def row(k: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(TABLE, k, keepdims=False)

    return jax.vmap(jax.vmap(row))(i)


PADDED = np.array([True, True, True, False])

LOOKUPS = mostly_slow(
{
    "take": lookup(embed, lambda i: jnp.take(TABLE, i, axis=0)),
    "dynamic slices by vmap": lookup(embed, by_slices),
    "lookup by a loop": lookup(embed, in_turn),
    "lookup of a flat array": lookup(embed, lambda i: embed(i.reshape(8)).reshape(2, 4, 3)),
    "one-hot: jax.nn": one_hot(lambda i: jax.nn.one_hot(i, 12)),
    "one-hot: comparison": one_hot(lambda i: (i[..., None] == jnp.arange(12)).astype(float)),
    "one-hot: truth values": one_hot(lambda i: i[..., None] == jnp.arange(12)),  # times floats
    "one-hot: row of the identity": one_hot(lambda i: jnp.eye(12)[i]),
    "one-hot: reversed before": one_hot(lambda i: jax.nn.one_hot(i[:, ::-1], 12)[:, ::-1]),
    "table times a matrix": lookup(
        lambda i: jnp.asarray(TABLE[:, ::-1])[i], lambda i: embed(i)[..., ::-1]
    ),
    "reversed before, after": lookup(lambda i: embed(i[:, ::-1]), lambda i: embed(i)[:, ::-1]),
    "reversed by lax.rev": lookup(lambda i: embed(lax.rev(i, (1,))), lambda i: embed(i)[:, ::-1]),
    "permuted before, after": lookup(lambda i: embed(i[:, ORDER]), lambda i: embed(i)[:, ORDER]),
    "permuted by take": lookup(lambda i: embed(jnp.take(i, ORDER, axis=1)), lambda i: embed(i)[:, ORDER]),
    "rolled before, after": lookup(
        lambda i: embed(jnp.roll(i, 1, 1)), lambda i: jnp.roll(embed(i), 1, 1)
    ),
    "shifted in before, after": lookup(
        lambda i: embed(jnp.pad(i[:, :-1], ((0, 0), (1, 0)), constant_values=7)),
        lambda i: jnp.concatenate([jnp.broadcast_to(TABLE[7], (2, 1, 3)), embed(i[:, :-1])], 1),
    ),
    "sliced before, after": lookup(lambda i: embed(i[:, 1:3]), lambda i: embed(i)[:, 1:3]),
    "concatenated before, after": lookup(
        lambda i: embed(jnp.concatenate([i[:, 2:], i[:, :2]], 1)),
        lambda i: jnp.concatenate([embed(i)[:, 2:], embed(i)[:, :2]], 1),
    ),
    "stacked before, after": lookup(
        lambda i: embed(jnp.stack([i[:, 3], i[:, 0], i[:, 1]], 1)),
        lambda i: jnp.stack([embed(i)[:, 3], embed(i)[:, 0], embed(i)[:, 1]], 1),
    ),
    "unstacked before, after": lookup(
        lambda i: embed(jnp.stack(jnp.unstack(i, axis=1)[::-1], 1)), lambda i: embed(i)[:, ::-1]
    ),
    "batch swapped before, after": lookup(lambda i: embed(i[::-1]), lambda i: embed(i)[::-1]),
    "sorted before, after": lookup(
        lambda i: embed(jnp.sort(i, 1)),
        lambda i: jnp.take_along_axis(embed(i), jnp.argsort(i, 1)[..., None], 1),
    ),
    "reshaped into other positions": lookup(
        lambda i: embed(i.T.reshape(2, 4)), lambda i: embed(i).transpose(1, 0, 2).reshape(2, 4, 3)
    ),
    "masked before, after": lookup(
        lambda i: embed(jnp.where(PADDED, i, 7)),
        lambda i: jnp.where(PADDED[:, None], embed(i), TABLE[7]),
    ),
    "chosen by a comparison before, after": lookup(
        lambda i: embed(jnp.where(i > 2, i, i[:, ::-1])),
        lambda i: jnp.where((i > 2)[..., None], embed(i), embed(i)[:, ::-1]),
    ),
    "updated before, after": lookup(
        lambda i: embed(i.at[:, 0].set(i[:, 2])), lambda i: embed(i).at[:, 0].set(embed(i)[:, 2])
    ),
    "offset into a table": lookup(lambda i: jnp.asarray(TABLE)[i + 3], lambda i: jnp.asarray(TABLE[3:])[i]),
    "codes by integer division": lookup(
        lambda i: jnp.asarray(TABLE)[i // 2], lambda i: jnp.asarray(np.repeat(TABLE, 2, 0))[i]
    ),
    "codes by remainder": lookup(
        lambda i: jnp.asarray(TABLE)[i % 3], lambda i: jnp.asarray(np.tile(TABLE[:3], (4, 1)))[i]
    ),
    "codes by a table of codes": lookup(
        lambda i: jnp.asarray(TABLE)[jnp.asarray(np.arange(12)[::-1])[i]],
        lambda i: jnp.asarray(TABLE[::-1])[i],
    ),
    "bidirectional": lookup(
        lambda i: embed(i) + jnp.tanh(embed(i[:, ::-1])), lambda i: embed(i) + jnp.tanh(embed(i)[:, ::-1])
    ),
    "explained beside others": Pair(
        "embedding",
        lambda a, b: read(embed(jnp.stack([b, a], 2).reshape(2, 8)[:, 1:5])),
        lambda a, b: read(jnp.stack([embed(b), embed(a)], 2).reshape(2, 8, 3)[:, 1:5]),
        (IDS, OTHERS),
    ),
    "chosen among two by a comparison": Pair(
        "embedding",
        lambda a, b: read(embed(jnp.where(a > 2, a, b))),
        lambda a, b: read(jnp.where((a > 2)[..., None], embed(a), embed(b))),
        (IDS, OTHERS),
    ),
},
        "lookup by a loop",
                "one-hot: reversed before",
                "one-hot: truth values",
        "reversed before, after",
        "permuted by take",
            "shifted in before, after",
            "stacked before, after",
            "sorted before, after",
        "masked before, after",
        "chosen by a comparison before, after",
            "codes by integer division",
            "bidirectional",
        "explained beside others",
        "chosen among two by a comparison",
)  # fmt: skip

# A column of codes in a table of floats

ROWS = np.concatenate([np.array([[2.0], [5.0]]), normal(2, 3, seed=43)], 1)
OF_ROW = normal(3, 2, seed=44)

CODES = {
    "code of a float: cast, rounded": Pair(
        "embedding",
        lambda x: embed(x[:, 0].astype(int)) @ OF_ROW + x[:, 1:] @ OF_ROW[::-1],
        lambda x: embed(jnp.round(x)[:, 0].astype(jnp.uint8)) @ OF_ROW + x[:, 1:] @ OF_ROW[::-1],
        (ROWS,),
    ),
    "code of a float: column taken before, after the cast": Pair(
        "embedding",
        lambda x: embed(x[:, 0].astype(int)) @ OF_ROW + x[:, 1:] @ OF_ROW[::-1],
        lambda x: embed(x.astype(int)[:, 0]) @ OF_ROW + x[:, 1:] @ OF_ROW[::-1],
        (ROWS,),
    ),
    "code of a float: rows swapped before, after": Pair(
        "embedding",
        lambda x: embed(x[::-1, 0].astype(int)) @ OF_ROW,
        lambda x: embed(x[:, 0].astype(int))[::-1] @ OF_ROW,
        (ROWS,),
    ),
}

# Pixels of eight bits

PIXELS = np.random.default_rng(45).integers(1, 255, (2, 4, 3)).astype(np.uint8)


def pixels(one: Function, other: Function) -> Pair:
    return Pair("embedding", lambda p: read(one(p)), lambda p: read(other(p)), (PIXELS,))


IMAGES = mostly_slow(
    {
        "pixels: flipped before, after the cast": pixels(
            lambda p: p[:, ::-1].astype(float) / 255, lambda p: (p.astype(float) / 255)[:, ::-1]
        ),
        "pixels: channels turned before, after": pixels(
            lambda p: (p[..., ::-1] / 255).astype(float),
            lambda p: (p / 255)[..., ::-1].astype(float),
        ),
        "pixels: division, factor": pixels(
            lambda p: p.astype(float) / 255, lambda p: p.astype(float) * (1 / 255)
        ),
        "pixels: transposed before, after": pixels(
            lambda p: p.transpose(0, 2, 1).astype(float).transpose(0, 2, 1),
            lambda p: p.astype(float),
        ),
        "pixels: cropped before, after": pixels(
            lambda p: p[:, 1:3].astype(float), lambda p: p.astype(float)[:, 1:3]
        ),
        "pixels: padded before, after": pixels(
            lambda p: jnp.pad(p, ((0, 0), (1, 0), (0, 0)))[:, :4].astype(float),
            lambda p: jnp.pad(p.astype(float), ((0, 0), (1, 0), (0, 0)))[:, :4],
        ),
        "pixels: through int32": pixels(
            lambda p: p.astype(float), lambda p: p.astype(jnp.int32).astype(float)
        ),
    },
    "pixels: flipped before, after the cast",
    "pixels: transposed before, after",
)

# Quantizers of layers

WEIGHT = normal(4, 3, seed=46)
QUANTIZED = np.round(WEIGHT * 40).astype(np.int8)
INPUT = np.sign(normal(2, 4, seed=47)) * (0.3 + np.abs(normal(2, 4, seed=48)))
STEP = 0.02


def static_int8(x: jax.Array) -> jax.Array:
    q = jnp.round(x / STEP).astype(jnp.int8)
    z = lax.dot(q, QUANTIZED, preferred_element_type=jnp.int32)
    return z.astype(x.dtype) * (STEP / 40)


def dynamic_int8(x: jax.Array) -> jax.Array:
    step = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
    q = jnp.round(x / step).astype(jnp.int8)
    z = lax.dot(q, QUANTIZED, preferred_element_type=jnp.int32)
    return z.astype(x.dtype) * step / 40


QUANTIZERS = {
    "static int8: integer product, floats": Pair(
        "dense", lambda x: (jnp.round(x / STEP) * STEP) @ (QUANTIZED / 40), static_int8, (INPUT,),
        ("epsilon_plus", "attnlrp", "cp_lrp", "epsilon_alpha2_beta1", "all_epsilon"), 1e-4,
        why="epsilon in the units of the integer product",
    ),
    "dynamic int8: integer product, dequantized": Pair(
        "dense", lambda x: x @ (QUANTIZED / 40), dynamic_int8, (INPUT,),
        ("epsilon_plus", "attnlrp", "cp_lrp", "epsilon_alpha2_beta1", "all_epsilon"), 0.02,
        why="the steps of the quantizer, 1/127 of the greatest input",
    ),
}  # fmt: skip

PAIRS = LOOKUPS | CODES | IMAGES | QUANTIZERS
