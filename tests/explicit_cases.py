"""Functions that say how their values lie on a mesh, and nothing of it where there is none."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as PS

DATA, MODEL = "data", "model"


class Case(NamedTuple):
    """A function of (parameters, x); each parameter, and x, with its sharding."""

    fun: Callable[[dict, Any], jax.Array]
    parameters: dict[str, tuple[np.ndarray, PS]]
    x: np.ndarray
    spec: PS = PS(DATA)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def explicit() -> set[str]:
    """The explicit axes of the mesh around; none on one device."""
    return set(jax.sharding.get_abstract_mesh().explicit_axes)


def spec(*axes: str | None) -> PS:
    return PS(*(axis if axis in explicit() else None for axis in axes))


def on(*axes: str | None) -> dict[str, Any]:
    return {"out_sharding": spec(*axes)} if explicit() else {}


def moved(x: jax.Array, *axes: str | None) -> jax.Array:
    return jax.sharding.reshard(x, spec(*axes)) if explicit() else x


def dense(p: dict, x: jax.Array) -> jax.Array:
    """Hidden units on the devices of "model": columns of one kernel, rows of the next."""
    h = jax.nn.relu(x @ p["hidden"] + p["hidden_bias"])
    return jnp.dot(h, p["out"], **on(DATA, None)) + p["out_bias"]


DENSE = {
    "hidden": (draw(1, 6, 8), PS(None, MODEL)),
    "hidden_bias": (draw(2, 8), PS(MODEL)),
    "out": (draw(3, 8, 4), PS(MODEL)),
    "out_bias": (draw(4, 4), PS()),
}


def resharded(p: dict, x: jax.Array) -> jax.Array:
    """A bias, one for each example, behind a `reshard`; an activation in another layout."""
    bias = jnp.broadcast_to(p["hidden_bias"], (8, 8), **on(DATA, None))
    h = moved(x @ p["hidden"], DATA, None) + bias
    h = jax.nn.silu(moved(h, None, MODEL))
    return jnp.einsum("nh,ho->no", h, p["out"], **on(DATA, None)) + p["out_bias"]


def wide(p: dict, x: jax.Array) -> jax.Array:
    """A contracted dimension on several devices; joined, broadcast and reshaped to a layout."""
    h = jax.nn.relu(jnp.dot(x, p["w"], **on(DATA, None)) + p["b"])
    h = jnp.concatenate([h, h[:, ::-1]], axis=1)
    h = jnp.broadcast_to(h[:, None], (8, 3, 16), **on(DATA, None, MODEL)) * p["scale"][:, None]
    return jnp.dot(jnp.reshape(h, (8, 48), **on(DATA, None)), p["out"], **on(DATA, None))


WIDE = {
    "w": (draw(1, 6, 8), PS(MODEL)),
    "b": (draw(2, 8), PS()),
    "scale": (draw(3, 3), PS()),
    "out": (draw(4, 48, 4), PS()),
}


def conv(p: dict, x: jax.Array) -> jax.Array:
    """Data-parallel: convolution and BatchNorm, pools, a convolution over patches, pixels."""
    numbers = ("NHWC", "HWIO", "NHWC")
    z = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu((z - p["mean"]) * lax.rsqrt(p["variance"] + 1e-3) + p["shift"])
    h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = lax.conv_general_dilated(h, p["patches"], (2, 2), "VALID", dimension_numbers=numbers)
    return h.max(axis=(1, 2)) @ p["out"] + h.mean(axis=(1, 2)) @ p["out"]


CONV = {
    "kernel": (draw(5, 3, 3, 2, 4), PS()),
    "mean": (draw(6, 4), PS()),
    "variance": (draw(7, 4) ** 2, PS()),
    "shift": (draw(8, 4), PS()),
    "patches": (draw(9, 2, 2, 4, 6), PS()),
    "out": (draw(10, 6, 4), PS()),
}


def local(p: dict, x: jax.Array) -> jax.Array:
    """Local response normalization over units that lie on one device."""
    h = x @ p["w"]
    total = lax.reduce_window(h * h, 0.0, lax.add, (1, 3), (1, 1), ((0, 0), (1, 1)))
    return (h / (1.0 + 0.1 * total) ** 0.75) @ p["out"]


LOCAL = {"w": (draw(1, 6, 8), PS()), "out": (draw(3, 8, 4), PS())}


def attention(p: dict, x: jax.Array) -> jax.Array:
    """Heads on the devices of "model", RMSNorm before, a residual and gated units behind."""
    normed = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["scale"]
    q, k, v = (jnp.einsum("nte,ehd->nthd", normed, p[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", q, k) / 2.0, axis=-1)
    mixed = jnp.einsum("nhts,nshd->nthd", weights, v)
    h = x + jnp.einsum("nthd,hde->nte", mixed, p["o"], **on(DATA, None, None)) + p["bias"]
    gated = jax.nn.sigmoid(h @ p["gate"]) * jnp.tanh(h @ p["up"])
    return (h + jnp.dot(gated, p["down"], **on(DATA, None, None))).mean(1)


ATTENTION = {
    "scale": (draw(11, 6), PS()),
    **{name: (draw(12 + i, 6, 4, 3), PS(None, MODEL)) for i, name in enumerate("qkv")},
    "o": (draw(15, 4, 3, 6), PS(MODEL)),
    "bias": (draw(16, 6), PS()),
    "gate": (draw(17, 6, 8), PS(None, MODEL)),
    "up": (draw(18, 6, 8), PS(None, MODEL)),
    "down": (draw(19, 8, 6), PS(MODEL)),
}


def layers(p: dict, x: jax.Array) -> jax.Array:
    """A scan over rematerialized layers, each sharded; a branch; maxima and sums of units."""

    def step(h: jax.Array, layer: tuple) -> tuple[jax.Array, None]:
        up, down, bias = layer
        return h + jnp.dot(jnp.tanh(h @ up + bias), down, **on(DATA, None)), None

    h, _ = lax.scan(jax.checkpoint(step), x, (p["up"], p["down"], p["bias"]))
    h = lax.cond(p["flag"] > 0, lambda h: h @ p["one"], lambda h: jax.nn.relu(h) @ p["two"], h)
    h = moved(h, None, MODEL)
    return jnp.stack([h.max(axis=-1), h.sum(axis=-1), jnp.maximum(h, 0.5 * h).mean(-1)], axis=1)


LAYERS = {
    "up": (draw(20, 3, 6, 8), PS(None, None, MODEL)),
    "down": (draw(21, 3, 8, 6), PS(None, MODEL)),
    "bias": (draw(22, 3, 8), PS(None, MODEL)),
    "one": (draw(23, 6, 4), PS()),
    "two": (draw(24, 6, 4), PS()),
    "flag": (np.float64(-1), PS()),
}


def automatic(p: dict, x: jax.Array) -> jax.Array:
    """A scan over a part in which the compiler chooses: `jax.sharding.auto_axes`."""

    def inside(h: jax.Array, w: jax.Array) -> jax.Array:
        return jax.nn.gelu((h.reshape(-1, 2, 3) @ w + 0.5).reshape(-1, 6))

    if explicit():
        inside = cast(Any, jax.sharding.auto_axes(inside, out_sharding=PS(DATA, None)))
    h, _ = lax.scan(lambda h, w: (h + inside(h, w), None), x, p["small"])
    return jnp.dot(jax.nn.relu(h @ p["up"] + p["shift"]), p["out"], **on(DATA, None))


AUTOMATIC = {
    "small": (draw(25, 2, 3, 3), PS()),
    "up": (draw(26, 6, 8), PS(None, MODEL)),
    "shift": (draw(27, 8), PS(MODEL)),
    "out": (draw(28, 8, 4), PS(MODEL)),
}


def lookup(p: dict, tokens: jax.Array) -> jax.Array:
    """A table whose columns lie on the devices of "model", and position embeddings."""
    h = p["table"].at[tokens].get(**on(DATA, None, MODEL)) + p["positions"]
    return jnp.einsum("nte,eo->no", jnp.tanh(h), p["out"], **on(DATA, None))


LOOKUP = {
    "table": (draw(29, 10, 6), PS(None, MODEL)),
    "positions": (draw(30, 5, 6), PS(None, MODEL)),
    "out": (draw(31, 6, 4), PS(MODEL)),
}


def mapped(p: dict, x: jax.Array) -> jax.Array:
    """A `shard_map` over one axis of the mesh; the other is explicit inside."""
    if not explicit():
        return dense(p, x)

    def part(p: dict, x: jax.Array) -> jax.Array:
        h = jax.nn.relu(x @ p["hidden"] + p["hidden_bias"])
        return jnp.dot(h, p["out"], out_sharding=PS()) + p["out_bias"]

    return jax.shard_map(part, in_specs=(PS(), PS(DATA)), out_specs=PS(DATA), axis_names={DATA})(
        p, x
    )


def unreduced(p: dict, x: jax.Array) -> jax.Array:
    """A product whose sum over devices comes later."""
    w = p["w"]
    asked: dict[str, Any] = {}
    if explicit():
        asked = {"out_sharding": PS(DATA, None, unreduced=frozenset({MODEL}))}
    h = jax.nn.relu(jax.nn.relu(x @ w) @ p["up"])
    return moved(jnp.dot(h, p["down"], **asked), DATA, None) + p["bias"]


UNREDUCED = {
    "w": (draw(1, 6, 5), PS()),
    "up": (draw(2, 5, 8), PS(None, MODEL)),
    "down": (draw(3, 8, 4), PS(MODEL)),
    "bias": (draw(4, 4), PS()),
}

CASES = {
    "dense": Case(dense, DENSE, draw(33, 8, 6)),
    "resharded": Case(resharded, DENSE | {"hidden_bias": (draw(2, 8), PS())}, draw(34, 8, 6)),
    "wide": Case(wide, WIDE, draw(33, 8, 6), PS(DATA, MODEL)),
    "conv": Case(conv, CONV, draw(35, 4, 9, 8, 2)),
    "local": Case(local, LOCAL, draw(33, 8, 6)),
    "attention": Case(attention, ATTENTION, draw(36, 8, 5, 6)),
    "layers": Case(layers, LAYERS, draw(37, 8, 6)),
    "automatic": Case(automatic, AUTOMATIC, draw(38, 8, 6)),
    "lookup": Case(lookup, LOOKUP, np.random.default_rng(32).integers(0, 10, (8, 5))),
    "mapped": Case(mapped, DENSE, draw(33, 8, 6)),
    "unreduced": Case(unreduced, UNREDUCED, draw(33, 8, 6)),
}
