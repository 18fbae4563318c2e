"""Inputs outside the bounds that z-box was given."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp import _compat
from jaxlrp.explanation.plan import Plan
from jaxlrp.network import primitives as P
from jaxlrp.network.layers import Layer
from jaxlrp.network.quotients import trace_back
from jaxlrp.network.trace import Traced
from jaxlrp.rules import ZBox

_SAME_VALUES = P.SHAPE | {P.CONVERT}
_SLACK = 1e-5  # of the width of a box: rounding errors of the preprocessing


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """The bounds of a layer that reads the explained input itself.

    Attributes:
      path: of the layer.
      low, high: the bounds.
      value: which of `Arguments.values` it reads.
    """

    path: str
    low: np.ndarray
    high: np.ndarray
    value: int


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """All boxes of a plan; to JAX one value that is no array."""

    each: tuple[Box, ...]

    def warn(self, values: Sequence[Any], stacklevel: int) -> None:
        """Warns if a concrete input is outside of its box.

        Args:
          values: `Arguments.values`.
          stacklevel: as in `warnings.warn`, seen from the caller.
        """
        for box in self.each:
            x = values[box.value]
            whole = not _compat.is_traced(x) and getattr(x, "is_fully_addressable", True)
            if whole and (found := _outside(box, x)) is not None:
                warnings.warn(found, stacklevel=stacklevel + 1)


def boxes_of(traced: Traced, plan: Plan) -> Boxes:
    """The layers with z-box whose input is an explained argument, unchanged but for shape and dtype."""
    graph, explained = traced.network.graph, traced.arguments.explained
    index = {graph.inputs[n]: n for n in explained}
    rules = dict(zip(plan.paths, plan.rules, strict=True))
    found = []
    for node in traced.network.nodes:
        rule = rules[node.path] if isinstance(node, Layer) else None
        if (
            not isinstance(rule, ZBox)
            or _compat.is_traced(rule.low)
            or _compat.is_traced(rule.high)
        ):
            continue
        assert isinstance(node, Layer)
        op, passed = trace_back(graph, node.inputs[0], _SAME_VALUES, traced.network.dependent)
        source = passed[-1].inputs[0] if passed else node.inputs[0]
        if op is None and source in index:
            low, high = np.asarray(rule.low, np.float64), np.asarray(rule.high, np.float64)
            if passed:
                low, high = low.min(), high.max()
            found.append(Box(node.path, low, high, index[source]))
    return Boxes(tuple(found))


def _outside(box: Box, x: Any) -> str | None:
    """What is wrong with an input, None if nothing."""
    width = max(box.low.ndim, box.high.ndim)
    shape = np.broadcast_shapes(box.low.shape, box.high.shape)
    shared = tuple(i for i in range(x.ndim) if i < x.ndim - width or shape[i - x.ndim] == 1)
    least, most = (np.asarray(f(axis=shared, keepdims=True), np.float64) for f in (x.min, x.max))
    slack = _SLACK * np.max(box.high - box.low)
    if (least >= box.low - slack).all() and (most <= box.high + slack).all():
        return None
    return (
        f"the input of layer {box.path!r} has values from {least.min():.4g} to {most.max():.4g}, outside "
        f"of its z-box, low={_shown(box.low)} and high={_shown(box.high)}: pass the least and the greatest "
        "value that an input can have, in its units after preprocessing"
    )


def _shown(bound: np.ndarray) -> str:
    return f"{float(bound):.4g}" if bound.ndim == 0 else f"{bound.min():.4g} to {bound.max():.4g}"
