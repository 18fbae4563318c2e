"""Sums and means over windows and axes."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.graph import Op, Value


def pools(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        if op.primitive not in (P.REDUCE_SUM, P.WINDOW_SUM):
            continue
        ops = _with_scales(structure, taken, op)
        output = ops[-1].outputs[0]
        if not _is_subtracted(structure, output):  # else the mean of a normalizer, left to autodiff
            yield Group("pool", ops, sources, output, str(op.primitive))


def _with_scales(structure: Structure, taken: Taken, op: Op) -> tuple[Op, ...]:
    """A sum, with the factors by constants that alone read it: it may be a mean."""
    ops, value = [op], op.outputs[0]
    users = structure.graph.users.get(value, ())
    while len(users) == 1 and users[0].primitive in (P.MUL, P.DIV):
        user = users[0]
        others = [v for v in user.inputs if v in structure.dependent and v != value]
        same = structure.graph.shape(user.outputs[0]) == structure.graph.shape(value)
        if others or user in taken or not same or user.inputs[0] != value:
            break
        ops.append(user)
        value = user.outputs[0]
        users = structure.graph.users.get(value, ())
    return tuple(ops)


def _is_subtracted(structure: Structure, value: Value) -> bool:
    for user in structure.graph.users.get(value, ()):
        if user.primitive is P.SUB and user.inputs[0] in structure.dependent:
            return user.inputs[1] == value
        others = [v for v in user.inputs if v != value]
        scales = user.primitive is P.MUL or (user.primitive is P.DIV and user.inputs[0] == value)
        if scales and any(v in structure.dependent for v in others):
            continue
        moves = user.primitive in P.SHAPE | {P.BROADCAST}
        if (scales or moves) and _is_subtracted(structure, user.outputs[0]):
            return True
    return False
