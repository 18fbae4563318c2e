"""Where a graph computes a softmax."""

from __future__ import annotations

import dataclasses

from jaxlrp.network import primitives as P
from jaxlrp.network.alike import SHAPES, Alike, through_shapes
from jaxlrp.network.graph import Graph, Op, Value
from jaxlrp.network.mixtures import Mixture, MixtureFinder
from jaxlrp.network.quotients import CHOSEN, LOOK, Quotient, quotient_of, summed, trace_back

# A factor that carries no relevance is a mask.
_MASKED = LOOK | {P.MUL}


@dataclasses.dataclass(frozen=True, eq=False)
class Softmaxes:
    """The softmaxes of a graph.

    Attributes:
      ops: their operations, which autodiff treats as a whole.
      ends: those that give the weights.
      mixtures: values that are weighed by one that is normalized after the product.
    """

    ops: frozenset[Op]
    ends: frozenset[Op]
    mixtures: tuple[Mixture, ...]


def softmaxes(graph: Graph, dependent: frozenset[Value]) -> Softmaxes:
    """Finds exponentials divided by their own sum, and logarithms of sums of exponentials.

    The sum is over axes, or over segments: scattered to them, and gathered again. To a softmax belong
    what is subtracted from the scores for precision, a mask of its exponentials, and a
    second division by the sum of the values that are left over after masking or selection. The
    exponential of a log-softmax is one.
    """
    finder = _Finder(graph, dependent)
    finder.find()
    mixed = tuple(MixtureFinder(graph, dependent, finder.ops, finder.ends).find())
    finder.shifts()
    return Softmaxes(frozenset(finder.ops), frozenset(finder.ends), mixed)


class _Finder:
    def __init__(self, graph: Graph, dependent: frozenset[Value]) -> None:
        self.graph = graph
        self.dependent = dependent
        self.ops: set[Op] = set()
        self.ends: set[Op] = set()
        self.alike = Alike(graph)

    def find(self) -> None:
        moving = [op for op in self.graph.ops if op.outputs and op.outputs[0] in self.dependent]
        for op in moving:
            if op.primitive in P.LOGSUMEXP:
                self.ops.add(op)
            elif op.primitive is P.LOG:
                self._logsumexp(op)
            elif (quotient := self._quotient(op)) is not None:
                self._softmax(op, quotient)
        for op in moving:
            if op.primitive is P.EXP:
                self._exp_of_log(op)
            elif op not in self.ops and (quotient := self._quotient(op)) is not None:
                self._renormalized(op, quotient)

    def _enter(self, end: Op, *parts: Op) -> None:
        self.ops.update((end, *parts))
        self.ends.add(end)

    def _back(self, value: Value, through: frozenset) -> tuple[Op | None, list[Op]]:
        return trace_back(self.graph, value, through, self.dependent)

    def _quotient(self, op: Op) -> Quotient | None:
        return quotient_of(self.graph, op, self.dependent)

    def _logsumexp(self, op: Op) -> None:
        found = summed(self.graph, op.inputs[0], self.dependent)
        if found is None:
            return
        term, passed = found
        exp, below = self._back(term, LOOK)
        if exp is not None and exp.primitive is P.EXP:
            self.ops |= {op, exp, *passed, *below}

    def _softmax(self, op: Op, quotient: Quotient) -> None:
        exp, above = self._back(quotient.numerator, LOOK)
        other, below = self._back(quotient.term, LOOK)
        if self._are_exp(exp, other):
            self._enter(op, *filter(None, (exp, other)), *above, *below, *quotient.inner)
            return
        exp, above = self._back(quotient.numerator, _MASKED)
        other, below = self._back(quotient.term, _MASKED)
        if self._are_exp(exp, other) and self.alike.but_for_shape(
            quotient.numerator, quotient.term
        ):
            self._enter(op, *filter(None, (exp, other)), *above, *below, *quotient.inner)

    def _are_exp(self, a: Op | None, b: Op | None) -> bool:
        return (
            a is not None
            and b is not None
            and a.primitive is P.EXP
            and self.alike(a.outputs[0], b.outputs[0])
        )

    def _renormalized(self, op: Op, quotient: Quotient) -> None:
        """Values of a softmax, divided by the sum of these same values."""
        softmax, chosen = self._back(quotient.numerator, CHOSEN)
        if softmax not in self.ends:
            return
        on_the_way = [quotient.numerator, *(step.outputs[0] for step in chosen)]
        if any(self.alike.but_for_shape(value, quotient.term) for value in on_the_way):
            _, below = self._back(quotient.term, SHAPES)
            self._enter(op, *quotient.inner, *(set(below) - set(chosen)))

    def _exp_of_log(self, op: Op) -> None:
        """The exponential of a log-softmax: of scores, less the logarithm of the sum of theirs."""
        sub = self.graph.producer.get(op.inputs[0])
        if op in self.ops or sub is None or sub.primitive is not P.SUB:
            return
        scores, subtracted = sub.inputs
        log = self.graph.producer.get(through_shapes(self.graph, subtracted))
        fixed: Value | None = None
        if log is not None and log.primitive in P.ADD:  # what was subtracted is added again
            ends = [through_shapes(self.graph, v) for v in log.inputs]
            makers = [self.graph.producer.get(v) for v in ends]
            logs = [m for m in makers if m is not None and m.primitive is P.LOG]
            if len(logs) != 1:
                return
            (log,) = logs
            fixed = next(v for v, m in zip(ends, makers, strict=True) if m is not log)
        if log is None or log not in self.ops or log.primitive is not P.LOG:
            return
        found = summed(self.graph, log.inputs[0], self.dependent)
        exp = None if found is None else self._back(found[0], LOOK)[0]
        if exp is None:
            return
        below = exp.inputs[0]
        if fixed is not None:
            shifted = shift(self.graph, self.graph.producer.get(below))
            if not shifted or shifted[-1].outputs[0] != fixed:
                return
            below = shifted[0].inputs[0]
        if self.alike(scores, below):
            self._enter(op, sub)

    def shifts(self) -> None:
        """Adds to the operations those that subtract a fixed value from the scores, and add it again."""
        exps = [op for op in self.ops if op.primitive is P.EXP]
        found = {
            op for exp in exps for op in shift(self.graph, self.graph.producer.get(exp.inputs[0]))
        }
        fixed = {op.outputs[0] for op in found if op.primitive is P.STOP_GRADIENT}
        logs = {op.outputs[0] for op in self.ops if op.primitive is P.LOG}
        for op in self.graph.ops if logs else ():
            if op.primitive in P.ADD:
                ends = {through_shapes(self.graph, v) for v in op.inputs}
                if ends & fixed and ends & logs:
                    found.add(op)
        self.ops |= found


def shift(graph: Graph, op: Op | None) -> tuple[Op, ...]:
    """The operations that subtract a value which `stop_gradient` holds fixed, as softmaxes do.

    Args:
      graph: the graph.
      op: the subtraction.

    Returns:
      The subtraction, and back to the `stop_gradient`; empty if it is something else.
    """
    if op is None or op.primitive is not P.SUB:
        return ()
    ops, value = [op], op.inputs[1]
    while (maker := graph.producer.get(value)) is not None:
        ops.append(maker)
        if maker.primitive is P.STOP_GRADIENT:
            return tuple(ops)
        if maker.primitive not in P.SHAPE | P.VARY | {P.BROADCAST, P.GATHER}:
            break
        value = maker.inputs[0]
    return ()
