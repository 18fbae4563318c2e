"""Where a graph computes a softmax: before it weighs values, or together with that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.alike import SHAPES, Alike, through_shapes
from jaxlrp.network.graph import Graph, Op, Value

# What exponentials are seen through, and what sums are.
_LOOK = SHAPES | P.PSUM | {P.SELECT}
# A factor that carries no relevance is a mask.
_MASKED = _LOOK | {P.MUL}
_CHOSEN = P.MOVES | P.VARY | P.PSUM | P.TOP_K | {P.SELECT, P.MUL, P.SORT}
# `logsumexp` takes the magnitude of its sum; sums of segments are kept off zero by a maximum.
_ON_SUMS = _LOOK | P.ADD | _named("abs") | {P.GATHER, P.MAX}
_SUMS = P.SCATTER | {P.REDUCE_SUM}


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


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Values weighed by a softmax that is normalized after the product: `(e @ v) / sum(e)`.

    As a function of e and v it is the same as `(e / sum(e)) @ v`, derivatives included.

    Attributes:
      weights: e.
      values: v.
      ops: all operations from e and v on, in order.
      product: the one of them that multiplies e and v.
    """

    weights: Value
    values: Value
    ops: tuple[Op, ...]
    product: Op

    @property
    def end(self) -> Op:
        """The division, or the product with the inverse."""
        return self.ops[-1]


def softmaxes(graph: Graph, dependent: frozenset[Value]) -> Softmaxes:
    """Finds exponentials divided by their own sum, and logarithms of sums of exponentials.

    The sum is over axes, or over segments: scattered to them, and gathered again. To a softmax belong
    what is subtracted from the scores for precision, a mask of its exponentials, and a
    second division by the sum of the values that are left over after masking or selection. The
    exponential of a log-softmax is one.
    """
    finder = _Finder(graph, dependent)
    finder.find()
    mixed = tuple(finder.mixtures())
    finder.shifts()
    return Softmaxes(frozenset(finder.ops), frozenset(finder.ends), mixed)


@dataclasses.dataclass(frozen=True, eq=False)
class _Quotient:
    """What is divided by a sum.

    Attributes:
      numerator: what is divided.
      term: what is summed.
      inner: the operations from the term to the division, without it.
    """

    numerator: Value
    term: Value
    inner: tuple[Op, ...]


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

    def _logsumexp(self, op: Op) -> None:
        found = self._sum(op.inputs[0])
        if found is None:
            return
        term, passed = found
        exp, below = self._back(term, _LOOK)
        if exp is not None and exp.primitive is P.EXP:
            self.ops |= {op, exp, *passed, *below}

    def _sum(self, value: Value) -> tuple[Value, list[Op]] | None:
        """(the one moving value that is summed, the operations from it to `value`)."""
        total, passed = self._back(value, _ON_SUMS)
        if total is None or total.primitive not in _SUMS:
            return None
        terms = [v for v in total.inputs if v in self.dependent]
        return (terms[0], [total, *passed]) if len(terms) == 1 else None

    def _quotient(self, op: Op) -> _Quotient | None:
        divided = _divided(self.graph, op, self.dependent)
        if divided is None:
            return None
        numerator, denominator, inverse = divided
        found = self._sum(denominator)
        if found is None:
            return None
        return _Quotient(numerator, found[0], (*found[1], *inverse))

    def _softmax(self, op: Op, quotient: _Quotient) -> None:
        exp, above = self._back(quotient.numerator, _LOOK)
        other, below = self._back(quotient.term, _LOOK)
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

    def _renormalized(self, op: Op, quotient: _Quotient) -> None:
        """Values of a softmax, divided by the sum of these same values."""
        softmax, chosen = self._back(quotient.numerator, _CHOSEN)
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
        found = self._sum(log.inputs[0])
        exp = None if found is None else self._back(found[0], _LOOK)[0]
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

    def mixtures(self) -> Iterator[Mixture]:
        """All mixtures whose intermediate values nothing else reads."""
        for op in self.graph.ops:
            quotient = None if op in self.ops else self._quotient(op)
            mixed = None
            if quotient is not None:
                mixed = _product(self.graph, quotient.numerator, self.dependent)
            if quotient is None or mixed is None:
                continue
            product, passed = mixed
            for side in (0, 1):
                weights = self._weights(product.inputs[side], quotient.term)
                if weights is None:
                    continue
                value, between = weights
                inside = {op, product, *passed, *between, *quotient.inner}
                ops = tuple(sorted(inside, key=lambda o: o.index))
                if _is_closed(self.graph, ops):
                    yield Mixture(value, product.inputs[1 - side], ops, product)
                break

    def _weights(self, value: Value, term: Value) -> tuple[Value, list[Op]] | None:
        """(what both a factor and the terms of a sum are made of, the operations between), if weights."""
        exp, above = self._back(value, _LOOK)
        other, below = self._back(term, _LOOK)
        if exp is not None and exp is other and exp.primitive is P.EXP:
            self.ops.add(exp)
            return exp.outputs[0], [*above, *below]
        weights = through_shapes(self.graph, value)
        if weights != through_shapes(self.graph, term):
            return None
        maker, masks = self._back(weights, _CHOSEN)
        if maker is None or not (maker in self.ends or maker.primitive is P.EXP) or not masks:
            return None
        if maker.primitive is P.EXP:
            self.ops.add(maker)
        _, above = self._back(value, SHAPES)
        _, below = self._back(term, SHAPES)
        made = self.graph.producer.get(weights)
        between = [o for o in (*above, *below) if made is None or o.index > made.index]
        return weights, between


def trace_back(
    graph: Graph, value: Value, through: frozenset, dependent: frozenset[Value]
) -> tuple[Op | None, list[Op]]:
    """The operation that made `value`, and those with one moving operand that it was seen through."""
    op, passed = graph.producer.get(value), []
    while op is not None and op.primitive in through:
        moving = [v for v in op.inputs if v in dependent]
        if len(moving) != 1:
            break
        passed.append(op)
        op = graph.producer.get(moving[0])
    return op, passed


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


def _divided(
    graph: Graph, op: Op, dependent: frozenset[Value]
) -> tuple[Value, Value, list[Op]] | None:
    """(numerator, denominator, operations that invert it) of a / b and of a * (1 / b)."""
    if op.primitive not in (P.DIV, P.MUL) or not all(v in dependent for v in op.inputs):
        return None
    if op.primitive is P.DIV:
        return op.inputs[0], op.inputs[1], []
    for side in (0, 1):
        inverse, passed = trace_back(
            graph, op.inputs[side], P.SHAPE | P.VARY | {P.BROADCAST}, dependent
        )
        if inverse is None:
            continue
        (*_, denominator) = inverse.inputs[:2]
        is_inverse = inverse.primitive is P.DIV and inverse.inputs[0] not in dependent
        if is_inverse or (inverse.primitive is P.INTEGER_POW and inverse.params["y"] == -1):
            return op.inputs[1 - side], denominator, [inverse, *passed]
    return None


def _product(graph: Graph, value: Value, dependent: frozenset[Value]) -> tuple[Op, list[Op]] | None:
    """The product of two moving values whose sum `value` is, and the operations after it."""
    mix, passed = trace_back(graph, value, P.SHAPE | P.VARY, dependent)
    if mix is not None and mix.primitive in _SUMS:
        terms = [v for v in mix.inputs if v in dependent]
        if len(terms) != 1:
            return None
        product, below = trace_back(graph, terms[0], P.SHAPE | P.VARY, dependent)
        mix, passed = product, [mix, *passed, *below]
        if mix is not None and mix.primitive is not P.MUL:
            return None
    elif mix is not None and mix.primitive is not P.DOT:
        return None
    if mix is None or not all(v in dependent for v in mix.inputs):
        return None
    return mix, passed


def _is_closed(graph: Graph, ops: tuple[Op, ...]) -> bool:
    inner = {v for op in ops[:-1] for v in op.outputs}
    inside = set(ops)
    return not any(v in graph.outputs for v in inner) and all(
        user in inside for v in inner for user in graph.users.get(v, ())
    )
