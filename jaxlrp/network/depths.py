"""How far values are from the input and from the output, in dense layers and convolutions.

Distances count along the longest path, through every nesting of control flow. A scan is as many steps as
it has: of a layer inside it, the depth is that of the last step and the height that of the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxlrp.network.analysis import Structure
from jaxlrp.network.control_flow import CONTROL_FLOW
from jaxlrp.network.graph import Op, Value

NOWAY = -np.inf


@dataclasses.dataclass(frozen=True, eq=False)
class Counted:
    """A graph with the operations that count.

    Attributes:
      structure: of the graph.
      anchors: the operations that are a dense layer or a convolution.
      bodies: of each live operation of control flow, its bodies.
    """

    structure: Structure
    anchors: Collection[Op]
    bodies: Mapping[Op, tuple[Counted, ...]]

    def depths(self, start: Mapping[Value, float]) -> dict[Value, float]:
        """The depth of each dependent value, from those of the graph's inputs."""
        found = dict(start)
        dependent = self.structure.dependent
        for op in self.structure.graph.ops:
            into = [found.get(v, NOWAY) for v in self._reads(op)]
            if op in self.bodies:
                outputs = self._through(op, into)
            else:
                outputs = [max(into, default=NOWAY) + (op in self.anchors)] * len(op.outputs)
            for v, depth in zip(op.outputs, outputs, strict=True):
                if v in dependent and depth > NOWAY:
                    found[v] = depth
        return found

    def heights(self, end: Mapping[Value, float]) -> dict[Value, float]:
        """The height of each live value, from those of the graph's outputs."""
        found = dict(end)
        for op in reversed(self.structure.graph.ops):
            above = [found.get(v, NOWAY) for v in op.outputs]
            if op in self.bodies:
                reached = self._back(op, above)
            else:
                height = max(above, default=NOWAY) + (op in self.anchors)
                reached = [height] * len(self._reads(op))
            for v, height in zip(self._reads(op), reached, strict=True):
                if v in self.structure.live and height > found.get(v, NOWAY):
                    found[v] = height
        return found

    def inner_depths(self, op: Op, found: Mapping[Value, float]) -> list[dict[Value, float]]:
        """For each body of an operation, the depths of its inputs, in the last step of a scan."""
        into = np.array([found.get(v, NOWAY) for v in CONTROL_FLOW[op.primitive].operands(op)])
        if (steps := self._steps(op)) is not None:
            into = steps.at_last(into)
        return [_known(body.structure.graph.inputs, into) for body in self.bodies[op]]

    def inner_heights(self, op: Op, found: Mapping[Value, float]) -> list[dict[Value, float]]:
        """For each body of an operation, the heights of its outputs, in the first step of a scan."""
        above = np.array([found.get(v, NOWAY) for v in op.outputs])
        if (steps := self._steps(op)) is not None:
            above = steps.at_first(above)
        return [_known(body.structure.graph.outputs, above) for body in self.bodies[op]]

    def gains(self) -> np.ndarray:
        """How much deeper each output is than each input, (inputs, outputs); -inf without a path."""
        graph = self.structure.graph
        rows = []
        for v in graph.inputs:
            found = self.depths({v: 0.0}) if v in self.structure.dependence.explained else {}
            rows.append([found.get(out, NOWAY) for out in graph.outputs])
        return np.array(rows, float).reshape(len(graph.inputs), len(graph.outputs))

    def _reads(self, op: Op) -> Sequence[Value]:
        """What relevance flows to: of a lookup, where its index comes from."""
        if op in self.structure.trails:
            return self.structure.trails[op].sources
        if op in self.bodies:
            return CONTROL_FLOW[op.primitive].operands(op)
        cuts = self.structure.cuts
        return [v for i, v in enumerate(op.inputs) if (op, i) not in cuts]

    def _through(self, op: Op, into: Sequence[float]) -> list[float]:
        arriving = np.array(into, float)
        if (steps := self._steps(op)) is not None:
            return list(steps.after(arriving))
        return list(np.max([_apply(arriving, body.gains()) for body in self.bodies[op]], axis=0))

    def _back(self, op: Op, above: Sequence[float]) -> list[float]:
        leaving = np.array(above, float)
        if (steps := self._steps(op)) is not None:
            return list(steps.before(leaving))
        parts = [_apply(leaving, body.gains().T) for body in self.bodies[op]]
        return list(np.max(parts, axis=0))

    def _steps(self, op: Op) -> _Steps | None:
        """The steps of a loop; None if the operation is not a loop."""
        flow = CONTROL_FLOW[op.primitive]
        length = flow.length(op)
        if length is None:
            return None
        (body,) = self.bodies[op]
        return _Steps(body.gains(), flow.carry(op), length)


class _Steps:
    """The steps of a loop, in (max, +) arithmetic."""

    def __init__(self, gains: np.ndarray, carry: slice, length: int) -> None:
        self.gains, self.carry, self.length = gains, carry, length
        self.n = carry.stop - carry.start
        around = gains[carry, : self.n]
        self.longest = _power(np.maximum(around, _identity(self.n)), length - 1)

    def at_last(self, into: np.ndarray) -> np.ndarray:
        """The depths of the body's inputs, in whichever step they are greatest."""
        entering = _apply(np.where(self._is_carry(len(into)), NOWAY, into), self.gains)[: self.n]
        carried = np.maximum(into[self.carry], _apply(entering, self._fewer()))
        carried = np.maximum(carried, _apply(into[self.carry], self.longest))
        found = into.copy()
        found[self.carry] = carried
        return found

    def after(self, into: np.ndarray) -> np.ndarray:
        """The depths of the results."""
        return _apply(self.at_last(into), self.gains)

    def at_first(self, above: np.ndarray) -> np.ndarray:
        """The heights of the body's outputs, in whichever step they are greatest."""
        stacked = np.where(np.arange(len(above)) < self.n, NOWAY, above)
        leaving = _apply(stacked, self.gains.T)[self.carry]
        carried = np.maximum(above[: self.n], _apply(leaving, self._fewer().T))
        carried = np.maximum(carried, _apply(above[: self.n], self.longest.T))
        found = above.copy()
        found[: self.n] = carried
        return found

    def before(self, above: np.ndarray) -> np.ndarray:
        """The heights of the operands."""
        return _apply(self.at_first(above), self.gains.T)

    def _is_carry(self, count: int) -> np.ndarray:
        places = np.arange(count)
        return (places >= self.carry.start) & (places < self.carry.stop)

    def _fewer(self) -> np.ndarray:
        """The longest ways around the loop from the step after the first on, where there is one."""
        around = np.maximum(self.gains[self.carry, : self.n], _identity(self.n))
        if self.length < 2:
            return np.full_like(around, NOWAY)
        return _power(around, self.length - 2)


def _identity(n: int) -> np.ndarray:
    return np.where(np.eye(n, dtype=bool), 0.0, NOWAY)


def _apply(values: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The longest way to each end, of vectors of starts."""
    if not len(values):
        return np.full(gains.shape[1], NOWAY)
    return np.max(values[:, None] + gains, axis=0)


def _power(gains: np.ndarray, times: int) -> np.ndarray:
    """The longest ways of at most so many steps, `gains` with zeros along the diagonal."""
    result = _identity(len(gains))
    while times > 0:
        if times & 1:
            result = np.stack([_apply(row, gains) for row in result]) if len(result) else result
        gains = np.stack([_apply(row, gains) for row in gains]) if len(gains) else gains
        times >>= 1
    return result


def _known(values: Sequence[Value], found: np.ndarray) -> dict[Value, float]:
    known: dict[Value, float] = {}
    for value, distance in zip(values, found, strict=True):
        if distance > NOWAY:
            known[value] = max(float(distance), known.get(value, NOWAY))
    return known
