"""The interval that each value of a graph is in, by interval arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Graph, Op, Value

Bounds = P.Range
ANY = P.ANY


def intervals(graph: Graph, given: Mapping[Value, Bounds]) -> dict[Value, Bounds]:
    """Bounds of the values of a graph; values without an entry may be anything.

    Args:
      graph: the graph.
      given: what is known of its inputs.
    """
    bounds = {v: found for v in graph.inputs if (found := _of_dtype(graph, v)) != ANY}
    bounds.update(given)
    for value in graph.literals:
        held = np.asarray(graph.constants[value])
        if not _is_real(held.dtype):
            continue
        held = held.astype(np.float64)  # bfloat16 too
        if held.size and np.all(np.isfinite(held)):
            bounds[value] = (float(held.min()), float(held.max()))
    for op in graph.ops:
        for value, found in _results(graph, op, bounds):
            if found != ANY:
                bounds[value] = found
    return bounds


def _is_real(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _of_dtype(graph: Graph, value: Value) -> Bounds:
    """What the dtype of a value tells: an unsigned integer is not negative, a truth value 0 or 1."""
    dtype = getattr(graph.avals[value], "dtype", None)
    if dtype == jnp.bool_:
        return 0.0, 1.0
    if dtype is not None and jnp.issubdtype(dtype, jnp.unsignedinteger):
        return 0.0, float(jnp.iinfo(dtype).max)
    return ANY


def _results(graph: Graph, op: Op, bounds: Mapping[Value, Bounds]) -> list[tuple[Value, Bounds]]:
    """The results of an operation, with their bounds."""
    given = [bounds.get(v, ANY) for v in op.inputs]
    if op.primitive is P.SORT:
        return list(zip(op.outputs, given, strict=True))
    if op.primitive in P.TOP_K:
        return [(op.outputs[0], given[0])]
    rule = _INTERVALS.get(op.primitive)
    if rule is None or (op.primitive in _WRAPPING and not _is_float(graph, op.outputs[0])):
        return [(v, _of_dtype(graph, v)) for v in op.outputs]
    return [(v, rule(op, given)) for v in op.outputs]


def _is_float(graph: Graph, value: Value) -> bool:
    return jnp.issubdtype(graph.avals[value].dtype, jnp.inexact)


def _product(op: Op, xs: list[Bounds]) -> Bounds:
    if op.inputs[0] == op.inputs[1]:
        return (0.0, math.inf)
    corners = [_times(p, q) for p in xs[0] for q in xs[1]]
    return min(corners), max(corners)


def _times(p: float, q: float) -> float:
    return 0.0 if p == 0.0 or q == 0.0 else p * q


def _quotient(op: Op, xs: list[Bounds]) -> Bounds:
    (a, b), (c, d) = xs
    if c > 0:
        corners = [_times(p, 1 / q) if math.isfinite(q) else 0.0 for p in (a, b) for q in (c, d)]
        return min(corners), max(corners)
    return (0.0, math.inf) if a >= 0 and c >= 0 else ANY


def _union(op: Op, xs: list[Bounds]) -> Bounds:
    return min(a for a, _ in xs), max(b for _, b in xs)


def _same(op: Op, xs: list[Bounds]) -> Bounds:
    return xs[0]


def _cast(op: Op, xs: list[Bounds]) -> Bounds:
    dtype = op.params["new_dtype"]
    if not jnp.issubdtype(dtype, jnp.integer):
        return (0.0, 1.0) if dtype == jnp.bool_ else xs[0]
    low, high = float(jnp.iinfo(dtype).min), float(jnp.iinfo(dtype).max)
    fits = low <= xs[0][0] and xs[0][1] <= high
    return xs[0] if fits else (low, high)  # it may wrap around


def _gathered(op: Op, xs: list[Bounds]) -> Bounds:
    """Positions out of bounds give what `fill_value` says; by default NaN, which satisfies no bound."""
    fill = op.params["fill_value"]
    return xs[0] if fill is None else (min(xs[0][0], fill), max(xs[0][1], fill))


def _sum(op: Op, xs: list[Bounds]) -> Bounds:
    a, b = xs[0]
    return (0.0 if a >= 0 else -math.inf, 0.0 if b <= 0 else math.inf)


def _power(op: Op, xs: list[Bounds]) -> Bounds:
    return (0.0, math.inf) if op.params["y"] % 2 == 0 or xs[0][0] >= 0 else ANY


# Of integers these may wrap around.
_WRAPPING = P.ADD | P.PRODUCTS | {
    P.SUB, P.NEG, P.MUL, P.REDUCE_SUM, P.WINDOW_SUM, P.CUMSUM, P.INTEGER_POW,
} | _named("square", "abs")  # fmt: skip


def _range(op: Op, xs: list[Bounds]) -> Bounds:
    return P.RANGES[op.primitive]


_INTERVALS: dict[object, Callable[[Op, list[Bounds]], Bounds]] = {
    **dict.fromkeys((p for p, bounds in P.RANGES.items() if bounds != ANY), _range),
    **dict.fromkeys(
        (P.MOVES - {P.GATHER}) | P.VARY | (P.MAXIMA - P.SCATTER_MAXIMA) | {P.STOP_GRADIENT}, _same
    ),
    P.GATHER: _gathered,
    P.CONVERT: _cast,
    P.CONCATENATE: _union,
    **dict.fromkeys(P.SCATTER_MAXIMA, lambda op, xs: _union(op, [xs[0], xs[2]])),
    P.PAD: _union,
    P.SELECT: lambda op, xs: _union(op, xs[1:]),
    **dict.fromkeys(_named("stack"), _union),
    P.DYNAMIC_UPDATE: lambda op, xs: _union(op, xs[:2]),
    **dict.fromkeys(P.ADD, lambda op, xs: (xs[0][0] + xs[1][0], xs[0][1] + xs[1][1])),
    P.SUB: lambda op, xs: (xs[0][0] - xs[1][1], xs[0][1] - xs[1][0]),
    P.NEG: lambda op, xs: (-xs[0][1], -xs[0][0]),
    P.MUL: _product,
    P.DIV: _quotient,
    P.REDUCE_SUM: _sum,
    P.WINDOW_SUM: _sum,
    P.CUMSUM: _sum,
    P.MAX: lambda op, xs: (max(xs[0][0], xs[1][0]), max(xs[0][1], xs[1][1])),
    P.MIN: lambda op, xs: (min(xs[0][0], xs[1][0]), min(xs[0][1], xs[1][1])),
    P.CLAMP: lambda op, xs: (max(xs[0][0], min(xs[1][0], xs[2][0])), min(xs[2][1], xs[1][1])),
    P.INTEGER_POW: _power,
}
