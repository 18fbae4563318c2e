"""Elementwise regions: operations that compute one value from one other."""

from __future__ import annotations

from collections.abc import Sequence

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import ANY, Structure, is_inexact
from jaxlrp.network.dependence import varying_dims
from jaxlrp.network.graph import Call, Op, Value


def region(
    structure: Structure, output: Value, inside: frozenset[Op] | None = None
) -> tuple[Value, tuple[Op, ...], bool] | None:
    """(source, operations, closed) of the elementwise function that ends in `output`.

    With `inside`, the source is the one value that these operations read from outside.
    """
    source = structure.dominator.get(output)
    if source is None:
        return None
    while inside is not None and structure.graph.producer.get(source) in inside:
        source = structure.dominator.get(source)
        if source is None:
            return None
    dominated = _dominated_by(structure, source)
    ops: set[Op] = set()
    stack = [output]
    while stack:
        value = stack.pop()
        op = structure.graph.producer[value]
        if op in ops:
            continue
        ops.add(op)
        stack.extend(v for v in op.inputs if v != source and dominated(v))
    ordered = tuple(sorted(ops, key=lambda op: op.index))
    inner = {v for op in ops for v in op.outputs} - {output}
    closed = not any(v in structure.graph.outputs for v in inner) and all(
        user in ops for v in inner for user in structure.graph.users.get(v, ())
    )
    return source, ordered, closed


def _dominated_by(structure: Structure, source: Value):
    def dominated(value: Value | None) -> bool:
        while value is not None and value != source:
            value = structure.dominator.get(value)
        return value == source

    return dominated


def is_nonlinear(structure: Structure, ops: Sequence[Op]) -> bool:
    """Whether the operations of a region are together more than affine."""
    follows = {v for op in ops for v in op.outputs} | structure.dependent
    for op in ops:
        if op.primitive in P.NONLINEAR | P.BITS or is_rounding(structure, op):
            return True
        moving = [v for v in op.inputs if v in follows]
        if op.primitive in (P.MUL, P.DIV, P.SELECT) and len(moving) > 1:
            return True
        if op.primitive is P.DIV and op.inputs[1] in follows:
            return True
        if op.primitive is P.SELECT and op.inputs[0] in follows:
            return True
    return False


def is_rounding(structure: Structure, op: Op) -> bool:
    """Whether an operation rounds to whole numbers, perhaps by a cast to an integer."""
    whole = not is_inexact(structure.graph, op.outputs[0])
    cast = op.primitive is P.CONVERT and is_inexact(structure.graph, op.inputs[0])
    return op.primitive in P.ROUNDING or (whole and (cast or op.primitive is P.DIV))


def is_quantizer(structure: Structure, ops: Sequence[Op]) -> bool:
    """Whether a region rounds, and otherwise clips or scales at most."""
    allowed = P.AFFINE | P.ROUNDING | {P.MAX, P.MIN, P.CLAMP, P.BROADCAST}
    return any(is_rounding(structure, op) for op in ops) and all(
        op.primitive in allowed for op in ops
    )


def is_relu(structure: Structure, source: Value, ops: Sequence[Op]) -> bool:
    """`max(x, 0)`, perhaps clipped from above."""
    ops = [op for op in ops if op.primitive not in P.SAME]
    if not ops or ops[0].primitive is not P.MAX:
        return False
    zero = [v for v in ops[0].inputs if v not in structure.dependent]
    return (
        len(zero) == 1
        and structure.bounds.get(zero[0], ANY) == (0.0, 0.0)
        and all(op.primitive is P.MIN for op in ops[1:])
    )


def is_literal_affine(structure: Structure, op: Op) -> bool:
    """Whether an operation is an affine map by a number written in the program."""
    others = [v for v in op.inputs if v not in structure.dependent]
    return (
        op.primitive in P.ADD | {P.SUB, P.MUL, P.DIV, P.NEG, P.CONVERT}
        and op.outputs[0] in structure.dominator
        and op.outputs[0] in structure.flowing
        and not any((op, i) in structure.cuts for i in range(len(op.inputs)))
        and len(others) == len(op.inputs) - 1
        and all(v in structure.bounds and structure.graph.shape(v) == () for v in others)
    )


def spreads(structure: Structure, op: Op) -> bool:
    """Whether an operation adds to one value several constants, each for a result of its own."""
    graph = structure.graph
    moving = [v for v in op.inputs if v in structure.dependent]
    if op.primitive not in P.ADD | {P.SUB} or len(moving) != 1:
        return False
    if op.outputs[0] not in structure.dominator or op.outputs[0] not in structure.flowing:
        return False
    varying = varying_dims(graph, moving[0])
    return len(varying) < len(varying_dims(graph, op.outputs[0]))


def region_name(ops: Sequence[Op], call: Call | None) -> str:
    """What a person calls the function that a region computes."""
    if call is not None and call.name:
        return call.name.lstrip("_")
    common = [c for c in ops[-1].calls if all(c in op.calls for op in ops)]
    if common and common[-1].name:
        return common[-1].name.lstrip("_")
    nonlinear = [
        op for op in ops if op.primitive in P.NONLINEAR and op.primitive not in P.COMPARISONS
    ]
    return str((nonlinear or list(ops))[-1].primitive)
