"""Layers that mix values: linear ones, norms, pools."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spellings.table import ALL, NO_FLAT, PLAIN_SUMS, B, Pair, V, W, X, mostly_slow, normal

Function = Callable[[jax.Array], jax.Array]

GAIN, OFFSET = 1 + normal(6, seed=10) * 0.3, normal(6, seed=11)
MEAN, VARIANCE = normal(6, seed=12), 1 + normal(6, seed=13) ** 2
SIX = normal(2, 6, seed=14)
IMAGE = normal(1, 4, 4, 2, seed=15)
KERNEL = normal(3, 3, 2, 3, seed=16)
NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: np.ndarray, **options) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, **options)


# Linear layers

FOLDED = GAIN / np.sqrt(VARIANCE + 1e-5)

LINEAR = mostly_slow(
{
    "dense: matmul, einsum": Pair(
        "dense", lambda x: jnp.tanh(x @ W + B) @ V,
        lambda x: jnp.einsum("nh,ho->no", jnp.tanh(B + jnp.einsum("hi,ni->nh", W.T, x)), V), (X,),
    ),
    "dense: batch by vmap": Pair(
        "dense", lambda x: jnp.tanh(x @ W + B) @ V,
        jax.vmap(lambda row: jnp.tanh(W.T @ row + B) @ V), (X,),
    ),
    "dense: bias as a row of the kernel": Pair(
        "dense", lambda x: x @ W + B,
        lambda x: jnp.concatenate([x, jnp.ones((2, 1))], -1) @ np.concatenate([W, B[None]]), (X,),
        NO_FLAT, why="a flat layer counts its inputs",
    ),
    "dense: outputs in two parts": Pair(
        "dense", lambda x: jnp.tanh(x @ W) @ V,
        lambda x: jnp.tanh(jnp.concatenate([x @ W[:, :2], x @ W[:, 2:]], -1)) @ V, (X,),
    ),
    "dense: BatchNorm folded": Pair(
        "dense", lambda x: (x @ W + B - MEAN) / np.sqrt(VARIANCE + 1e-5) * GAIN + OFFSET,
        lambda x: x @ (W * FOLDED) + ((B - MEAN) * FOLDED + OFFSET), (X,),
    ),
    "dense: permuted before and after": Pair(
        "dense", lambda x: x[:, ::-1] @ W, lambda x: x @ W[::-1], (X,)
    ),
    "conv: BatchNorm folded": Pair(
        "conv",
        lambda x: (conv(x, KERNEL) - MEAN[:3]) / np.sqrt(VARIANCE[:3] + 1e-5) * GAIN[:3] + OFFSET[:3],
        lambda x: conv(x, KERNEL * FOLDED[:3]) + (OFFSET - MEAN * FOLDED)[:3], (IMAGE,),
    ),
    "conv: channels last, first": Pair(
        "conv", lambda x: conv(x, KERNEL),
        lambda x: lax.conv(x.transpose(0, 3, 1, 2), KERNEL.transpose(3, 2, 0, 1), (1, 1), "SAME")
        .transpose(0, 2, 3, 1), (IMAGE,),
    ),
    "conv: depthwise in one, channel by channel": Pair(
        "conv", lambda x: conv(x, KERNEL[:, :, :1, :2], feature_group_count=2),
        lambda x: jnp.concatenate(
            [conv(x[..., c : c + 1], KERNEL[:, :, :1, c : c + 1]) for c in (0, 1)], -1
        ),
        (IMAGE,),
    ),
    "conv: padding by the convolution, before": Pair(
        "conv", lambda x: conv(x, KERNEL),
        lambda x: lax.conv_general_dilated(
            jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), KERNEL, (1, 1), "VALID", dimension_numbers=NHWC
        ), (IMAGE,), tuple(p for p in ALL if p not in ("epsilon_plus_flat", "epsilon_gamma_box")),
        why="padding that the layer sees has relevance under flat and z-box",
    ),
},
        "dense: matmul, einsum",
        "dense: BatchNorm folded",
        "conv: BatchNorm folded",
)  # fmt: skip

# Norms


def layer_norm(x: jax.Array) -> jax.Array:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def layer_norm_moments(x: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt((x**2).mean(-1, keepdims=True) - mean**2 + 1e-5)


def layer_norm_centered(x: jax.Array) -> jax.Array:
    centered = x - jnp.sum(x, -1, keepdims=True) / x.shape[-1]
    return centered / (jnp.mean(centered * centered, -1, keepdims=True) + 1e-5) ** 0.5


def norm(one: Function, other: Function) -> Pair:
    return Pair("normalizer", lambda x: one(x) @ V, lambda x: other(x) @ V, (SIX,))


def group_norm(x: jax.Array) -> jax.Array:
    return layer_norm(x.reshape(2, 2, 3)).reshape(2, 6)


def group_norm_parts(x: jax.Array) -> jax.Array:
    return jnp.concatenate([layer_norm(part) for part in jnp.split(x, 2, -1)], -1)


def mean_square(x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(x), -1, keepdims=True)


NORMS = mostly_slow(
    {
        "LayerNorm: variance, moments": norm(layer_norm, layer_norm_moments),
        "LayerNorm: mean of squares": norm(layer_norm, layer_norm_centered),
        "LayerNorm: jax.nn.standardize": norm(
            layer_norm, lambda x: jax.nn.standardize(x, epsilon=1e-5)
        ),
        "LayerNorm: gain and offset in two orders": norm(
            lambda x: layer_norm(x) * GAIN + OFFSET, lambda x: OFFSET + GAIN * layer_norm_moments(x)
        ),
        "RMSNorm: square, power": norm(
            lambda x: x * lax.rsqrt(mean_square(x) + 1e-6) * GAIN,
            lambda x: GAIN * (x / jnp.sqrt((x**2).sum(-1, keepdims=True) / 6 + 1e-6)),
        ),
        "RMSNorm: dot product": norm(
            lambda x: x * lax.rsqrt(mean_square(x) + 1e-6),
            lambda x: x * lax.rsqrt(jnp.einsum("ni,ni->n", x, x)[:, None] / 6 + 1e-6),
        ),
        "l2: norm, root": norm(
            lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
            lambda x: x * lax.rsqrt(jnp.sum(x * x, -1, keepdims=True)),
        ),
        "l2: kept off zero": norm(
            lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6),
            lambda x: x * (1 / jnp.clip(jnp.sqrt(jnp.sum(x**2, -1, keepdims=True)), 1e-6)),
        ),
        "GroupNorm: reshape, parts": norm(group_norm, group_norm_parts),
        "quotient: broadcast inside, before": Pair(
            "quotient",
            lambda x: (x[:, :4] / (1 + x[:, 4:5] ** 2)) @ V[:4],
            lambda x: (x[:, :4] / jnp.repeat(1 + jnp.square(x[:, 4:5]), 4, axis=1)) @ V[:4],
            (SIX,),
        ),
        "quotient: parts, slices": Pair(
            "quotient",
            lambda x: (jnp.split(x, 2, 1)[0] / jnp.cosh(jnp.split(x, 2, 1)[1])) @ V[:3],
            lambda x: (x[:, :3] / jnp.cosh(x)[:, 3:]) @ V[:3],
            (SIX,),
        ),
        "l1: division, product with the inverse": norm(
            lambda x: x / jnp.abs(x).sum(-1, keepdims=True),
            lambda x: x * (1 / jnp.sum(jnp.abs(x), -1, keepdims=True)),
        ),
    },
    "LayerNorm: variance, moments",
    "l2: norm, root",
)

# Pools


def image_pair(kind: str, one: Function, other: Function, presets: tuple[str, ...] = ALL) -> Pair:
    head = normal(8, 3, seed=17)
    return Pair(
        kind, lambda x: one(x).reshape(1, 8) @ head, lambda x: other(x).reshape(1, 8) @ head, (IMAGE,),
        presets,
    )  # fmt: skip


def blocks(x: jax.Array) -> jax.Array:
    return x.reshape(1, 2, 2, 2, 2, 2)


def window(x: jax.Array, start: float, operation) -> jax.Array:
    return lax.reduce_window(x, start, operation, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


TWO = normal(2, 4, seed=18)

POOLS = mostly_slow(
{
    "mean: sum and division": image_pair(
        "pool", lambda x: blocks(x).mean((2, 4)), lambda x: blocks(x).sum((2, 4)) / 4
    ),
    "mean: sum and factor": image_pair(
        "pool", lambda x: blocks(x).mean((2, 4)), lambda x: blocks(x).sum((2, 4)) * 0.25
    ),
    "mean: window, reshape": image_pair(
        "pool", lambda x: window(x, 0.0, lax.add) / 4, lambda x: blocks(x).mean((2, 4))
    ),
    "mean: two axes, one after the other": image_pair(
        "pool", lambda x: blocks(x).mean((2, 4)), lambda x: blocks(x).mean(4).mean(2), PLAIN_SUMS
    ),
    "maximum: window, reshape": image_pair(
        "maxpool", lambda x: window(x, -jnp.inf, lax.max), lambda x: blocks(x).max((2, 4))
    ),
    "maximum: minimum of negatives": image_pair(
        "maxpool", lambda x: blocks(x).max((2, 4)), lambda x: -(-blocks(x)).min((2, 4))
    ),
    "maximum: of two, of a stack": Pair(
        "maxpool", lambda x: jnp.maximum(x, x[:, ::-1] * TWO) @ V[:4],
        lambda x: jnp.stack([x, x[:, ::-1] * TWO]).max(0) @ V[:4], (X,),
    ),
    "maximum: where, maximum": Pair(
        "maxpool", lambda x: jnp.maximum(x, x[:, ::-1] * TWO) @ V[:4],
        lambda x: jnp.where(x >= x[:, ::-1] * TWO, x, x[:, ::-1] * TWO) @ V[:4], (X,),
    ),
    "maximum: last of the sorted": Pair(
        "maxpool", lambda x: x.max(-1, keepdims=True) * B, lambda x: jnp.sort(x, -1)[:, -1:] * B, (X,)
    ),
    "maximum: looked up at the argmax": Pair(
        "maxpool", lambda x: x.max(-1, keepdims=True) * B,
        lambda x: jnp.take_along_axis(x, x.argmax(-1)[:, None], -1) * B, (X,),
    ),
},
            "maximum: window, reshape",
        "maximum: looked up at the argmax",
)  # fmt: skip

PAIRS = LINEAR | NORMS | POOLS
