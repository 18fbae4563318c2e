"""Products of values that all depend on the input: attention, gates and others."""

from __future__ import annotations

import math
from collections.abc import Iterator

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import ANY, Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.graph import Op, Value
from jaxlrp.network.layers import Product

_AFFINE_OF_ONE = P.MOVES | P.VARY | P.ADD | {P.SUB, P.NEG, P.MUL, P.DIV, P.PAD}
_JOINS = {P.CONCATENATE, P.SELECT, P.DYNAMIC_UPDATE} | _named("stack")


def products(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        output, name = op.outputs[0], str(op.primitive)
        if op.primitive in P.PRODUCTS:
            yield Group("product", (op,), sources, output, name, Product())
        elif op.primitive in P.BILINEAR and len(sources) == 2:
            kind, signal = _kind(structure, taken, op)
            yield Group(kind, (op,), sources, output, name, Product(signal))


def _kind(structure: Structure, taken: Taken, op: Op) -> tuple[str, int]:
    """The kind of a product, and which operand is the signal if just the other one weighs it."""
    weights = [_is_attention_weight(structure, v) for v in op.inputs]
    if weights.count(True) == 1:
        return "attention", weights.index(False)
    if op.primitive is P.MUL:
        gates = [_is_gate(structure, taken, v) for v in op.inputs]
        if gates.count(True) == 1:
            return "gate", gates.index(False)
    return "product", 0


def _is_attention_weight(structure: Structure, value: Value) -> bool:
    """Whether a value is made of one softmax alone, by what is linear in it: masks, mixes, casts."""
    while True:
        op = structure.graph.producer.get(value)
        if op is None:
            return False
        if op in structure.softmax:
            return op in structure.weights
        moving = [v for v in op.inputs if v in structure.dependent]
        if op.primitive not in P.STRUCTURAL | P.BILINEAR | {P.DIV} or len(moving) != 1:
            return False
        (value,) = moving


def _is_gate(structure: Structure, taken: Taken, value: Value) -> bool:
    """Whether a value is bounded, from zero up, and made of activations alone by affine maps and moves.

    So are `1 - z`, and the parts of a squashed vector.
    """
    low, high = structure.bounds.get(value, ANY)
    return low >= 0 and math.isfinite(high) and _is_squashed(structure, taken, value)


def _is_squashed(structure: Structure, taken: Taken, value: Value) -> bool:
    while (producer := structure.graph.producer.get(value)) is not None:
        group = taken.get(producer)
        if group is not None and group.kind == "activation":
            return True
        moving = [v for v in producer.inputs if v in structure.dependent]
        if producer.primitive in _JOINS:
            parts = dict.fromkeys(moving)
            return bool(parts) and all(_is_squashed(structure, taken, v) for v in parts)
        if producer.primitive not in _AFFINE_OF_ONE or len(moving) != 1:
            return False
        (value,) = moving
    return False
