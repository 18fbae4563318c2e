"""Which factors and denominators are held fixed: statistics of the input that values are divided by."""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Graph, Op, Value

_REDUCTIONS = frozenset({P.REDUCE_SUM, P.WINDOW_SUM}) | P.MAXIMA
_ON_A_STATISTIC = (
    P.AFFINE
    | P.SHAPE
    | P.VARY
    | P.PSUM
    | {P.BROADCAST, P.MAX, P.MIN, P.CLAMP, P.SQRT, P.RSQRT, P.POW, P.INTEGER_POW}
    | _named("square", "abs")
)
_ELEMENT_BY_ELEMENT = P.ELEMENTWISE | P.SHAPE | {P.BROADCAST}


def fixed_uses(
    graph: Graph,
    dependent: frozenset[Value],
    dominator: Mapping[Value, Value],
    whole: frozenset[Op],
) -> frozenset[tuple[Op, int]]:
    """Uses of dependent values that are held fixed.

    They are: the denominator of a quotient; a factor that is the reciprocal of a statistic; and the
    statistic itself where it multiplies what was divided by it, as when a quantized or normalized value
    is scaled back.

    Args:
      graph: the graph.
      dependent: its dependent values.
      dominator: of elementwise operations, which are layers of one value.
      whole: operations that are part of a softmax.
    """
    cuts: set[tuple[Op, int]] = set()
    divided: dict[Op, list[Op]] = {}  # by statistic: the operations that divide by it
    products: list[Op] = []
    for op in graph.ops:
        if op.primitive not in (P.MUL, P.DIV) or op in whole or op.outputs[0] in dominator:
            continue
        if not all(v in dependent for v in op.inputs):
            continue
        found = [_statistic(graph, v, dependent) for v in op.inputs]
        if op.primitive is P.DIV or (found[1] is not None and found[1][1]):
            held = 1
        elif found[0] is not None and found[0][1]:
            held = 0
        else:
            products.append(op)
            continue
        cuts.add((op, held))
        if (statistic := found[held]) is not None:
            divided.setdefault(statistic[0], []).append(op)
    for op in products:
        for side, value in enumerate(op.inputs):
            statistic = _statistic(graph, value, dependent)
            if statistic is None or statistic[0] not in divided:
                continue
            made_by = {v for d in divided[statistic[0]] for v in d.outputs}
            if _reaches(graph, op.inputs[1 - side], made_by, dependent):
                cuts.add((op, side))
                break
    return frozenset(cuts)


def _statistic(graph: Graph, value: Value, dependent: frozenset[Value]) -> tuple[Op, bool] | None:
    """(the reduction that `value` is a function of, whether it is inverted), times constants."""
    op, inverted = graph.producer.get(value), False
    while op is not None:
        moving = [v for v in op.inputs if v in dependent]
        if op.primitive in _REDUCTIONS or (op.primitive is P.DOT and len(moving) == 2):
            return op, inverted
        inverted |= (
            op.primitive is P.RSQRT
            or (op.primitive is P.DIV and op.inputs[0] not in dependent)
            or (op.primitive is P.INTEGER_POW and op.params["y"] < 0)
            or op.primitive is P.POW
        )
        if op.primitive not in _ON_A_STATISTIC or not moving:
            return None
        # Of a variance E[x^2] - E[x]^2 either term leads back to a reduction.
        op = graph.producer.get(moving[0])
    return None


def is_statistic_of(
    graph: Graph, denominator: Value, numerator: Value, dependent: frozenset[Value]
) -> bool:
    """Whether a denominator is a statistic of the values that the numerator is made of."""
    found = _statistic(graph, denominator, dependent)
    if found is None:
        return False
    reduced = {v for v in found[0].inputs if v in dependent}
    stack = list(reduced)
    while stack:
        op = graph.producer.get(stack.pop())
        if op is not None and op.primitive in _ELEMENT_BY_ELEMENT:
            more = {v for v in op.inputs if v in dependent} - reduced
            reduced |= more
            stack += more
    return _reaches(graph, numerator, reduced, dependent)


def _reaches(graph: Graph, value: Value, ends: set[Value], dependent: frozenset[Value]) -> bool:
    """Whether a value is one of `ends`, or computed from one."""
    first = min((graph.producer[v].index for v in ends if v in graph.producer), default=-1)
    if any(v not in graph.producer for v in ends):
        first = -1
    stack, seen = [value], {value}
    while stack:
        v = stack.pop()
        if v in ends:
            return True
        op = graph.producer.get(v)
        if op is None or op.index < first:
            continue
        more = {u for u in op.inputs if u in dependent} - seen
        seen |= more
        stack += more
    return False
