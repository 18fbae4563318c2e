"""Which values are elementwise functions of which one value."""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.dependence import carrying
from jaxlrp.network.graph import Graph, Op, Value

# Rearrange elements along some axes: elementwise for a source that has one element along each of them.
_ALONG_AXES = {P.CONCATENATE, P.PAD} | _named("slice", "rev")


def dominators(graph: Graph, dependent: frozenset[Value]) -> dict[Value, Value]:
    """Immediate dominators among elementwise operations.

    `d = dominator[v]` means that each element of v is a function of one element of d alone (and of
    constants), and that no value between the two has that property. Where d has one element along an
    axis, v may have several: `max(x[:, None], knots)`, and what is sliced from it along that axis.
    Booleans in between count: `where(x > 0, x, 0)`.
    """
    follows = set(dependent)
    found: dict[Value, Value] = {}
    depth: dict[Value, int] = {}

    def meet(a: Value, b: Value) -> Value | None:
        while a != b:
            if depth.get(a, 0) < depth.get(b, 0):
                a, b = b, a
            if a not in found:
                return None
            a = found[a]
        return a

    for op in graph.ops:
        moved = _moved_axes(graph, op)
        if moved is None or not any(v in follows for v in op.inputs):
            continue
        (out,) = op.outputs
        if op.primitive in P.ELEMENTWISE or all(v in follows for v in op.inputs):
            follows.add(out)
        operands = [v for v in op.inputs if v in follows]
        source = _common(graph, operands, out, moved, meet, found)
        if source is None:  # what carries no relevance is a constant: a predicate, a mask
            operands = [op.inputs[i] for i in carrying(op) if op.inputs[i] in dependent]
            source = _common(graph, operands, out, moved, meet, found)
        if source is not None:
            follows.add(out)
            found[out] = source
            depth[out] = depth.get(source, 0) + 1
    return found


def _moved_axes(graph: Graph, op: Op) -> frozenset[int] | None:
    """The axes along which an operation rearranges elements; None if it is not elementwise at all."""
    if op.primitive in P.ELEMENTWISE:
        return frozenset()
    shape = graph.shape(op.inputs[0]) if op.inputs else ()
    if op.primitive is P.BROADCAST:
        same = tuple(op.params["broadcast_dimensions"]) == tuple(range(len(op.params["shape"])))
        return frozenset() if same and len(op.inputs) == 1 else None
    if op.primitive not in _ALONG_AXES:
        return None
    params = op.params
    if op.primitive is P.CONCATENATE:
        return frozenset({params["dimension"]})
    if op.primitive is P.PAD:
        return frozenset(d for d, config in enumerate(params["padding_config"]) if any(config))
    if "dimensions" in params:
        return frozenset(params["dimensions"])
    strides = params["strides"] or (1,) * len(shape)
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return frozenset(d for d, end in enumerate(ends) if end != (0, shape[d], 1))


def _common(
    graph: Graph, operands: list[Value], out: Value, moved: frozenset[int], meet, found: Mapping
) -> Value | None:
    """The one value that these operands, and so the result, are elementwise functions of."""
    source: Value | None = operands[0] if operands else None
    for value in operands[1:]:
        if source is not None:
            source = meet(source, value)
    while source is not None:
        shape, result = graph.shape(source), graph.shape(out)
        aligned = len(shape) == len(result) and all(
            n == 1 or (n == m and d not in moved)
            for d, (n, m) in enumerate(zip(shape, result, strict=True))
        )
        if aligned:
            return source
        if not moved:
            return None
        source = found.get(source)
    return None
