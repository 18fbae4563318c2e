"""Values divided by a sum, and what lies between a value and the operation that made it."""

from __future__ import annotations

import dataclasses

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.alike import SHAPES
from jaxlrp.network.graph import Graph, Op, Value

# What exponentials are seen through, and what sums are.
LOOK = SHAPES | P.PSUM | {P.SELECT}
# What chooses among the weights of a softmax: masks, selections, moves.
CHOSEN = P.MOVES | P.VARY | P.PSUM | P.TOP_K | {P.SELECT, P.MUL, P.SORT}
# `logsumexp` takes the magnitude of its sum; sums of segments are kept off zero by a maximum.
_ON_SUMS = LOOK | P.ADD | _named("abs") | {P.GATHER, P.MAX}
SUMS = P.SCATTER | {P.REDUCE_SUM}


@dataclasses.dataclass(frozen=True, eq=False)
class Quotient:
    """What is divided by a sum.

    Attributes:
      numerator: what is divided.
      term: what is summed.
      inner: the operations from the term to the division, without it.
    """

    numerator: Value
    term: Value
    inner: tuple[Op, ...]


def quotient_of(graph: Graph, op: Op, dependent: frozenset[Value]) -> Quotient | None:
    """What an operation divides by a sum, by a division or a product with the inverse; None if nothing."""
    divided = _divided(graph, op, dependent)
    if divided is None:
        return None
    numerator, denominator, inverse = divided
    found = summed(graph, denominator, dependent)
    if found is None:
        return None
    return Quotient(numerator, found[0], (*found[1], *inverse))


def summed(
    graph: Graph, value: Value, dependent: frozenset[Value]
) -> tuple[Value, list[Op]] | None:
    """(the one moving value that is summed, the operations from it to `value`)."""
    total, passed = trace_back(graph, value, _ON_SUMS, dependent)
    if total is None or total.primitive not in SUMS:
        return None
    terms = [v for v in total.inputs if v in dependent]
    return (terms[0], [total, *passed]) if len(terms) == 1 else None


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
