"""Whether two values of a graph are computed in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Graph, Value

# What changes the shape of a value, or nothing.
SHAPES = P.SHAPE | P.VARY | {P.BROADCAST}


class Alike:
    """Compares values of one graph; each comparison is remembered."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[Value, Value], bool] = {}

    def __call__(self, a: Value, b: Value, depth: int = 16) -> bool:
        """Whether two values are computed by the same operations from the same values."""
        if a == b:
            return True
        if (a, b) not in self._known:
            self._known[a, b] = depth > 0 and self._made_alike(a, b, depth)
        return self._known[a, b]

    def but_for_shape(self, a: Value, b: Value) -> bool:
        """Whether two values are alike, apart from their shape."""
        return self(through_shapes(self.graph, a), through_shapes(self.graph, b))

    def _made_alike(self, a: Value, b: Value, depth: int) -> bool:
        graph = self.graph
        one, other = graph.producer.get(a), graph.producer.get(b)
        if one is None or other is None:
            held = graph.constants
            return a in graph.literals and b in graph.literals and _equal(held[a], held[b])
        return (
            one.primitive is other.primitive
            and one.outputs.index(a) == other.outputs.index(b)
            and _equal_params(one.params, other.params)
            and all(self(v, w, depth - 1) for v, w in zip(one.inputs, other.inputs, strict=True))
        )


def through_shapes(graph: Graph, value: Value) -> Value:
    """The value that `value` is, apart from its shape."""
    while (op := graph.producer.get(value)) is not None and op.primitive in SHAPES:
        value = op.inputs[0]
    return value


def _equal(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b))


def _equal_params(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    try:
        return bool(dict(a) == dict(b))
    except ValueError:  # arrays among them
        return False
