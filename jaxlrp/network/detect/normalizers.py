"""Values divided by a statistic, or another value, that is held fixed."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.denominators import is_statistic_of
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.graph import Op, Value
from jaxlrp.network.layers import Layer, LocalForm, Normalizer


def normalizers(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        if op.primitive not in (P.MUL, P.DIV):
            continue
        held = [i for i in (0, 1) if (op, i) in structure.cuts]
        if not held:
            continue
        name, output = str(op.primitive), op.outputs[0]
        if op.primitive is P.MUL or _by_own_statistic(structure, op, held[0]):
            local = _local(structure, op, sources[0])
            yield Group("normalizer", (op,), sources, output, name, Normalizer(local))
        else:
            yield Group("quotient", (op,), sources, output, name)


def _by_own_statistic(structure: Structure, op: Op, held: int) -> bool:
    """Whether what is held fixed is a statistic of the value that it divides."""
    fixed, value = op.inputs[held], op.inputs[1 - held]
    return is_statistic_of(structure.graph, fixed, value, structure.dependent)


def _local(structure: Structure, op: Op, source: Value) -> LocalForm | None:
    """The parts of a normalizer whose statistic is a sum over a window of its own numerator."""
    graph, dependent = structure.graph, structure.dependent
    ops, stack = {op}, [v for v in op.inputs if v != source and v in dependent]
    while stack:
        found = graph.producer.get(stack.pop())
        if found is None or found.primitive not in P.ELEMENTWISE | {P.WINDOW_SUM}:
            return None
        ops.add(found)
        stack += [v for v in found.inputs if v != source and v in dependent]
    ordered = tuple(sorted(ops, key=lambda op: op.index))
    windows = [op for op in ordered if op.primitive is P.WINDOW_SUM]
    if len(windows) != 1:
        return None
    (window,) = windows
    written = {v for op in ordered for v in op.outputs}
    read = (v for op in ordered for v in op.inputs if v not in written and v != source)
    whole = Layer(
        kind="normalizer",
        path="",
        name="local",
        module="",
        source=op.source,
        inputs=(source,),
        output=op.outputs[0],
        operands=tuple(dict.fromkeys(read)),
        steps=ordered,
        ops=ordered,
        input_avals=(graph.avals[source],),
        output_aval=graph.avals[op.outputs[0]],
    )
    before = tuple(op for op in ordered if op.index < window.index)
    after = tuple(op for op in ordered if op.index > window.index)
    return LocalForm(whole, window, before, after)
