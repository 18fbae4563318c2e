"""Sums of two values, as residual connections are."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken


def sums(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        if op.primitive in P.ADD and len(sources) == 2:
            yield Group("sum", (op,), sources, op.outputs[0], str(op.primitive))
