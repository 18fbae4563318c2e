"""Decoders like Llama and a ViT-g as functions of stacked parameters, with layouts on a mesh.

Layers are scanned and rematerialized. Each parameter is split over both axes of a mesh: "model" splits
heads and hidden units (tensor parallelism); "data" splits what is left, and a layer's parameters are
gathered over it when the layer runs (fully sharded data parallelism).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as PS

DATA, MODEL = "data", "model"
LAST = "last product of a layer"
Parameters = dict[str, Any]
Spec = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a transformer.

    Attributes:
      layers, width, hidden: how many blocks, features, features inside the MLP.
      heads, groups: heads of keys and values, and heads of queries for each.
      size: features of a head.
      classes: logits; of a decoder the size of its vocabulary.
      patch: height and width of a patch in pixels; 0 in a decoder.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    groups: int
    size: int
    classes: int
    patch: int = 0


SHAPES = {
    "llama-1b": Shape(16, 2048, 8192, 8, 4, 64, 128256),
    "llama-8b": Shape(32, 4096, 14336, 8, 4, 128, 128256),
    "llama-70b": Shape(80, 8192, 28672, 8, 8, 128, 128256),
    "vit-g": Shape(40, 1408, 6144, 16, 1, 88, 1000, patch=14),
    "tiny": Shape(4, 32, 64, 4, 2, 8, 64),
    "tiny-vit": Shape(4, 32, 64, 4, 1, 8, 16, patch=4),
}
"""Llama 3.2 1B, Llama 3.1 8B and 70B, ViT-g/14; and two to try the benchmark."""


def shapes_of(of: Shape) -> dict[str, tuple[tuple[int, ...], Spec]]:
    """The shape of each parameter, and along which axis of the mesh each dimension is split.

    Those of a layer begin with "layer/" and have the layers as a first dimension.
    """
    heads, width = (of.heads, of.groups, of.size), of.width
    layer: dict[str, tuple[tuple[int, ...], Spec]] = {
        "norm1": ((width,), (None,)),
        "norm2": ((width,), (None,)),
        "q": ((width, *heads), (DATA, MODEL, None, None)),
        "k": ((width, of.heads, of.size), (DATA, MODEL, None)),
        "v": ((width, of.heads, of.size), (DATA, MODEL, None)),
        "o": ((*heads, width), (MODEL, None, None, DATA)),
        "up": ((width, of.hidden), (DATA, MODEL)),
        "down": ((of.hidden, width), (MODEL, DATA)),
    }
    last: dict[str, tuple[tuple[int, ...], Spec]] = {
        "norm": ((width,), (None,)),
        "head": ((width, of.classes), (DATA, MODEL)),
    }
    if of.patch:
        layer |= {"up_bias": ((of.hidden,), (MODEL,)), "down_bias": ((width,), (None,))}
        last["patches"] = ((of.patch, of.patch, 3, width), (None, None, None, DATA))
    else:
        layer["gate"] = ((width, of.hidden), (DATA, MODEL))
        last["embed"] = ((of.classes, width), (None, MODEL))
    stacked = {f"layer/{k}": ((of.layers, *n), (None, *spec)) for k, (n, spec) in layer.items()}
    return stacked | last


def count(of: Shape) -> int:
    """How many parameters."""
    return sum(math.prod(shape) for shape, _ in shapes_of(of).values())


def structs(of: Shape, mesh: Mesh, dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters without their values."""
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PS(*spec)))
        for name, (shape, spec) in shapes_of(of).items()
    }


def _explicit() -> bool:
    return bool(jax.sharding.get_abstract_mesh().explicit_axes)


def on(*spec: str | None) -> dict[str, Any]:
    """How the result of a product lies, where this has to be said."""
    return {"out_sharding": PS(*spec)} if _explicit() else {}


def moved(x: Array, *spec: str | None) -> Array:
    """x, split in another way; as it is, where there is no mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    place = jax.sharding.reshard if _explicit() else lax.with_sharding_constraint
    return place(x, PS(*spec))


def gathered(p: Parameters, of: Shape) -> Parameters:
    """The parameters of one layer, whole along "data"."""
    specs = {name: spec for name, (_, spec) in shapes_of(of).items()}
    return {
        name: moved(value, *(None if axis == DATA else axis for axis in specs[f"layer/{name}"][1:]))
        for name, value in p.items()
    }


def rms_norm(x: Array, scale: Array) -> Array:
    wide = x.astype(jnp.float32)
    wide = wide * lax.rsqrt((wide * wide).mean(axis=-1, keepdims=True) + 1e-5)
    return wide.astype(x.dtype) * scale


def layer_norm(x: Array, scale: Array) -> Array:
    wide = x.astype(jnp.float32)
    wide = wide - wide.mean(axis=-1, keepdims=True)
    wide = wide * lax.rsqrt((wide * wide).mean(axis=-1, keepdims=True) + 1e-6)
    return wide.astype(x.dtype) * scale


def rotate(x: Array) -> Array:
    """Rotary positions: (batch, time, ..., size)."""
    half = x.shape[-1] // 2
    time = jnp.arange(x.shape[1], dtype=jnp.float32).reshape(-1, *[1] * (x.ndim - 2))
    angle = time * 5e5 ** -(jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def attention(p: Parameters, x: Array, causal: bool) -> Array:
    """Grouped queries: b examples, t and s positions, h heads of keys, g of queries each, d features."""
    q = jnp.einsum("btw,whgd->bthgd", x, p["q"])
    k, v = (jnp.einsum("bsw,whd->bshd", x, p[name]) for name in "kv")
    if causal:
        q, k = rotate(q), rotate(k)
    scores = jnp.einsum("bthgd,bshd->bhgts", q, k, preferred_element_type=jnp.float32)
    scores = scores / q.shape[-1] ** 0.5
    if causal:
        past = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        scores = jnp.where(past, scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
    h = jnp.einsum("bhgts,bshd->bthgd", weights, v)
    return jnp.einsum("bthgd,hgdw->btw", h, p["o"], **on(DATA, None, None))


def mlp(p: Parameters, x: Array, of: Shape) -> Array:
    up = jnp.einsum("btw,wh->bth", x, p["up"])
    if of.patch:
        h = jax.nn.gelu(up + p["up_bias"])
    else:
        h = jax.nn.silu(jnp.einsum("btw,wh->bth", x, p["gate"])) * up
    y = jnp.einsum("bth,hw->btw", h, p["down"], **on(DATA, None, None))
    y = checkpoint_name(y, LAST)
    return y + p["down_bias"] if of.patch else y


def body(of: Shape) -> Callable[[Array, Parameters], Array]:
    """One layer."""
    norm = layer_norm if of.patch else rms_norm

    def layer(x: Array, p: Parameters) -> Array:
        p = gathered(p, of)
        x = moved(x + attention(p, norm(x, p["norm1"]), not of.patch), DATA, None, None)
        return moved(x + mlp(p, norm(x, p["norm2"]), of), DATA, None, None)

    return layer


def network(of: Shape, keep: bool = False) -> Callable[[Parameters, Array], Array]:
    """(parameters, embedded tokens or pictures) -> logits, (N, classes).

    Those of a decoder are of the token that follows the last.

    Args:
      of: its shape.
      keep: whether the output of each layer's last product is kept for the way back.
    """
    policy = jax.checkpoint_policies.save_only_these_names(LAST) if keep else None
    layer = jax.checkpoint(body(of), prevent_cse=False, policy=policy)
    norm = layer_norm if of.patch else rms_norm

    def logits(p: Parameters, x: Array) -> Array:
        if of.patch:
            numbers = ("NHWC", "HWIO", "NHWC")
            kernel, steps = moved(p["patches"], None, None, None, None), (of.patch, of.patch)
            x = lax.conv_general_dilated(x, kernel, steps, "VALID", dimension_numbers=numbers)
            x = x.reshape(x.shape[0], -1, x.shape[-1])
        layers = {k.removeprefix("layer/"): v for k, v in p.items() if k.startswith("layer/")}
        x, _ = lax.scan(lambda x, p: (layer(x, p), None), x, layers)
        last = norm(x.mean(axis=1) if of.patch else x[:, -1], p["norm"])
        return jnp.einsum("nw,wc->nc", last, moved(p["head"], None, MODEL))

    return logits


def embed(p: Parameters, ids: Array) -> Array:
    """Token ids -> their embeddings."""
    return moved(p["embed"].at[ids].get(**on(DATA, None, MODEL)), DATA, None, None)
