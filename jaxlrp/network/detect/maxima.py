"""Maxima and minima."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken


def maxima(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        of_two = op.primitive in (P.MAX, P.MIN) and len(sources) == 2
        if op.primitive in P.MAXIMA or of_two:
            yield Group("maxpool", (op,), sources, op.outputs[0], str(op.primitive))
