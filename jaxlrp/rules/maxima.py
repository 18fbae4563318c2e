"""The winner of a maximum, found by comparing values with their maximum.

XLA's own derivative of a pooled maximum (`select_and_scatter_add`) scans every window one by one:
on a CPU the comparisons here are several times faster.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Op
from jaxlrp.network.layers import Layer


def winner_takes_all(
    layer: Layer, inputs: tuple[Array, ...], z: Array, g: Array
) -> tuple[Array, ...]:
    """Sends the cotangent g of a maximum (or minimum) z to the first value equal to z."""
    (op,) = layer.ops
    if len(inputs) == 2:
        a, b = inputs
        left = a <= b if op.primitive is P.MIN else a >= b
        return jax.vjp(lambda a, b: jnp.where(left, a, b), a, b)[1](g)
    (x,) = inputs
    if "window_dimensions" in op.params:
        return (_window(op, x, z, g),)
    return (_reduction(op, x, g),)


def _reduction(op: Op, x: Array, g: Array) -> Array:
    axes = sorted(op.params["axes"])
    kept = [d for d in range(x.ndim) if d not in axes]
    shape = [x.shape[d] for d in kept]
    flat = x.transpose(*kept, *axes).reshape(*shape, math.prod(x.shape[d] for d in axes))
    pick = jnp.argmin if op.primitive in P.MINIMA else jnp.argmax
    winner = pick(flat, axis=-1)[..., None] == lax.broadcasted_iota(
        _index_dtype(), flat.shape, flat.ndim - 1
    )
    spread = jnp.where(winner, g[..., None], jnp.zeros_like(flat))
    moved = spread.reshape(*shape, *(x.shape[d] for d in axes))
    order = kept + axes
    return moved.transpose([order.index(d) for d in range(x.ndim)])


def _index_dtype() -> jnp.dtype:
    """The dtype of an index in the present precision: that of `jnp.argmax`."""
    return jnp.argmax(jnp.zeros(1)).dtype


def _window(op: Op, x: Array, z: Array, g: Array) -> Array:
    window, strides = op.params["window_dimensions"], op.params["window_strides"]
    dilation, padding = op.params["window_dilation"], op.params["padding"]
    if any(d != 1 for d in op.params["base_dilation"]):
        raise NotImplementedError(
            f"{op.primitive} with base_dilation {op.params['base_dilation']} is not supported: "
            "pool the values without dilating them"
        )
    worst = jnp.inf if op.primitive in P.MINIMA else -jnp.inf
    padded = lax.pad(x, jnp.asarray(worst, x.dtype), [(lo, hi, 0) for lo, hi in padding])
    taken = jnp.zeros(z.shape, bool)
    parts: dict[tuple[int, ...], Array] = {}
    for offset in itertools.product(*map(range, window)):
        start = [o * d for o, d in zip(offset, dilation, strict=True)]
        stop = [s + (n - 1) * st + 1 for s, n, st in zip(start, z.shape, strides, strict=True)]
        wins = (lax.slice(padded, start, stop, strides) == z) & ~taken
        taken = taken | wins
        parts[offset] = jnp.where(wins, g, jnp.zeros_like(g))
    if tuple(strides) == tuple(window) and all(d == 1 for d in dilation):
        whole = _interleave(parts, window, padded.shape)
    else:
        whole = _scatter(parts, strides, dilation, padded.shape)
    inner = [(-lo, -hi, 0) for lo, hi in padding]
    return lax.pad(whole, jnp.zeros((), g.dtype), inner)


def _interleave(
    parts: dict[tuple[int, ...], Array], window: tuple[int, ...], shape: tuple[int, ...]
) -> Array:
    """Puts the parts of windows that do not overlap side by side."""
    whole = _stack(parts, window, ())
    n = len(window)
    # axes: (offset_0, ..., offset_n-1, position_0, ..., position_n-1)
    whole = whole.transpose([axis for d in range(n) for axis in (n + d, d)])
    sizes = [whole.shape[2 * d] * whole.shape[2 * d + 1] for d in range(n)]
    rest = [(0, full - size, 0) for full, size in zip(shape, sizes, strict=True)]
    return lax.pad(whole.reshape(sizes), jnp.zeros((), whole.dtype), rest)


def _stack(parts: dict[tuple[int, ...], Array], window: tuple[int, ...], prefix: tuple) -> Array:
    if len(prefix) == len(window):
        return parts[prefix]
    n = window[len(prefix)]
    return jnp.stack([_stack(parts, window, (*prefix, i)) for i in range(n)])


def _scatter(
    parts: dict[tuple[int, ...], Array],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    shape: tuple[int, ...],
) -> Array:
    """Adds the parts of windows that overlap."""
    whole = jnp.zeros(shape, next(iter(parts.values())).dtype)
    for offset, part in parts.items():
        sizes = zip(offset, dilation, part.shape, strides, shape, strict=True)
        config = [(o * d, full - (o * d + (n - 1) * s + 1), s - 1) for o, d, n, s, full in sizes]
        spread = lax.pad(part, jnp.zeros((), part.dtype), config)
        whole = whole + spread
    return whole
