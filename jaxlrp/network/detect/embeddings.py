"""Tables that integers look up."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.layers import Embedding


def embeddings(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op in structure.live_ops:
        if op in structure.trails:
            trail = structure.trails[op]
            name, output = str(op.primitive), op.outputs[0]
            yield Group("embedding", (op,), trail.sources, output, name, Embedding(trail))
