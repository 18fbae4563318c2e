"""What is nonlinear and belongs to no other layer."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.graph import Op


def unsupported(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        reached = any(v in structure.carrying for v in sources)
        if reached and not _is_linear(structure, op):
            yield Group("unsupported", (op,), sources, op.outputs[0], str(op.primitive))


def _is_linear(structure: Structure, op: Op) -> bool:
    """Whether autodiff is LRP-0 for an operation, given what no layer has taken."""
    if op.primitive in P.STRUCTURAL | P.BILINEAR | {P.DIV}:
        return True
    if op.primitive in P.PARTLY_LINEAR:
        linear = P.linear_operands(op.primitive, op.params, len(op.inputs))
        moving = {i for i, v in enumerate(op.inputs) if v in structure.dependent}
        return moving <= set(linear) and (op.primitive is not P.SCATTER_MUL or len(moving) == 1)
    # the magnitude of a complex value is homogeneous of degree one
    return op.primitive is P.ABS and structure.is_complex(op.inputs[0])
