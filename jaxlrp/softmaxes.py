"""Where a graph computes a softmax: before it weighs values, or together with that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxlrp import primitives as P
from jaxlrp._compat import primitives as _named
from jaxlrp.graph import Graph, Op, Value

# What exponentials are seen through, and what sums are.
_LOOK = P.SHAPE | P.VARY | P.PSUM | {P.BROADCAST, P.SELECT}
# `logsumexp` takes the magnitude of its sum; sums of segments are kept off zero by a maximum.
_ON_SUMS = _LOOK | P.ADD | _named("abs") | {P.GATHER, P.MAX}
_SUMS = P.SCATTER | {P.REDUCE_SUM}


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Values weighed by a softmax that is normalised behind the product: `(e @ v) / sum(e)`.

    As a function of e and v it is the same as `(e / sum(e)) @ v`, derivatives included.

    Attributes:
      exp: the operation that makes e.
      values: v.
      ops: all operations from e and v on, in order.
      product: the one of them that multiplies e and v.
    """

    exp: Op
    values: Value
    ops: tuple[Op, ...]
    product: Op

    @property
    def end(self) -> Op:
        """The division, or the product with the inverse."""
        return self.ops[-1]


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


def units(graph: Graph, dependent: frozenset[Value]) -> frozenset[Op]:
    """Exponentials divided by their own sum, and logarithms of sums of exponentials.

    The sum is over axes, or over segments: scattered to them, and gathered again.
    """
    unit: set[Op] = set()
    for op in graph.ops:
        if op.outputs[0] not in dependent:
            continue
        if op.primitive in P.LOGSUMEXP:
            unit.add(op)
            continue
        if op.primitive is P.LOG:
            found = _sum_of_exp(graph, op.inputs[0], dependent)
            if found is not None:
                unit |= {op, found[0], *found[1]}
            continue
        normalised = _normalised(graph, op, dependent)
        if normalised is None:
            continue
        numerator, exp, below = normalised
        terms, above = trace_back(graph, numerator, _LOOK, dependent)
        if terms is exp:
            unit |= {op, exp, *below, *above}
    return frozenset(unit)


def _normalised(
    graph: Graph, op: Op, dependent: frozenset[Value]
) -> tuple[Value, Op, list[Op]] | None:
    """(what is divided, the exponential by whose sum, the operations from it on); None if it is not."""
    divided = _divided(graph, op, dependent)
    if divided is None:
        return None
    numerator, denominator, inverse = divided
    found = _sum_of_exp(graph, denominator, dependent)
    return None if found is None else (numerator, found[0], [*found[1], *inverse])


def _divided(
    graph: Graph, op: Op, dependent: frozenset[Value]
) -> tuple[Value, Value, list[Op]] | None:
    """(numerator, denominator, operations that invert it) of a / b and of a * (1 / b)."""
    if not all(v in dependent for v in op.inputs):
        return None
    if op.primitive is P.DIV:
        return op.inputs[0], op.inputs[1], []
    if op.primitive is not P.MUL:
        return None
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


def _sum_of_exp(
    graph: Graph, value: Value, dependent: frozenset[Value]
) -> tuple[Op, list[Op]] | None:
    """The exponential whose sum `value` is, and the operations behind it; None if it is none."""
    total, passed = trace_back(graph, value, _ON_SUMS, dependent)
    if total is None or total.primitive not in _SUMS:
        return None
    terms = [v for v in total.inputs if v in dependent]
    if len(terms) != 1:
        return None
    exp, below = trace_back(graph, terms[0], _LOOK, dependent)
    if exp is None or exp.primitive is not P.EXP:
        return None
    return exp, [total, *passed, *below]


def mixtures(graph: Graph, dependent: frozenset[Value]) -> tuple[Mixture, ...]:
    """All mixtures whose intermediate values nothing else reads."""
    return tuple(_mixtures(graph, dependent))


def _mixtures(graph: Graph, dependent: frozenset[Value]) -> Iterator[Mixture]:
    for op in graph.ops:
        normalised = _normalised(graph, op, dependent)
        if normalised is None:
            continue
        numerator, exp, of_sum = normalised
        mixed = _product(graph, numerator, dependent)
        if mixed is None:
            continue
        product, passed = mixed
        for side in (0, 1):
            maker, above = trace_back(graph, product.inputs[side], _LOOK, dependent)
            if maker is exp:
                inside = {op, product, *passed, *above, *of_sum}
                ops = tuple(sorted(inside, key=lambda o: o.index))
                if _is_closed(graph, ops):
                    yield Mixture(exp, product.inputs[1 - side], ops, product)
                break


def _product(graph: Graph, value: Value, dependent: frozenset[Value]) -> tuple[Op, list[Op]] | None:
    """The product of two moving values whose sum `value` is, and the operations behind it."""
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
