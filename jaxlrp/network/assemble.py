"""From an analyzed graph to layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp

from jaxlrp.network import primitives as P
from jaxlrp.network.affine import LinearForm
from jaxlrp.network.analysis import ANY, Structure, analyze, is_inexact
from jaxlrp.network.control_flow import CONTROL_FLOW
from jaxlrp.network.depths import Counted
from jaxlrp.network.detect import Group, find
from jaxlrp.network.graph import Graph, Op, Value, call_sizes, regroup
from jaxlrp.network.layers import PARAMETERIZED_KINDS, Activation, Embedding, Layer
from jaxlrp.network.nodes import Body, Network, Node, Plain, Renamed
from jaxlrp.network.paths import Namer, parameter_names
from jaxlrp.network.training_mode import refuse_training_mode


def network(
    graph: Graph,
    explained: Iterable[Value],
    namer: Namer,
    labels: Mapping[Value, str],
    outputs: Iterable[Value] | None = None,
) -> Network:
    """Finds the layers of a graph.

    Args:
      graph: the graph.
      explained: its inputs to explain.
      namer: gives paths.
      labels: names of the inputs that are parameters.
      outputs: the outputs that carry relevance; all by default.

    Raises:
      TrainingModeError: if the function was traced in training mode.
    """
    outputs = graph.outputs if outputs is None else tuple(outputs)
    found = _find(analyze(graph, explained, outputs=outputs), namer)
    return _assemble(
        found,
        namer,
        labels,
        dict.fromkeys(found.structure.dependence.explained, 0.0),
        dict.fromkeys(outputs, 0.0),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """A structure with its operations in groups, bodies of control flow included."""

    structure: Structure
    groups: Sequence[Group]
    bodies: Mapping[Op, tuple[_Found, ...]]
    counted: Counted


def _find(structure: Structure, namer: Namer) -> _Found:
    refuse_training_mode(structure, namer)
    groups = find(structure)
    bodies = {
        op: tuple(_find(body, namer) for body in inner) for op, inner in structure.bodies.items()
    }
    anchors = {group.ops[0] for group in groups if group.kind in PARAMETERIZED_KINDS}
    inner = {op: tuple(body.counted for body in found) for op, found in bodies.items()}
    return _Found(structure, groups, bodies, Counted(structure, anchors, inner))


def _assemble(
    found: _Found,
    namer: Namer,
    labels: Mapping[Value, str],
    depths: Mapping[Value, float],
    heights: Mapping[Value, float],
    loops: int = 0,
    repeats: int = 1,
) -> Network:
    return _Assembler(found, namer, labels, depths, heights, loops, repeats).assemble()


class _Assembler:
    """Names the groups, measures depth, and puts all operations in order."""

    def __init__(
        self,
        found: _Found,
        namer: Namer,
        labels: Mapping[Value, str],
        depths: Mapping[Value, float],
        heights: Mapping[Value, float],
        loops: int,
        repeats: int,
    ) -> None:
        self.found = found
        self.s = found.structure
        self.graph = self.s.graph
        self.groups = found.groups
        self.namer = namer
        self.names = parameter_names(self.graph, labels)
        self.sizes = call_sizes(self.graph.ops)
        self.group_of = {op: group for group in self.groups for op in group.owned}
        self.depths = found.counted.depths(depths)
        self.heights = found.counted.heights(heights)
        self.loops = loops
        self.repeats = repeats

    def assemble(self) -> Network:
        placed: list[tuple[float, Node]] = []
        for group in sorted(self.groups, key=lambda g: max(op.index for op in g.ops)):
            placed.append((max(op.index for op in group.ops), self._layer(group)))
        cut_ops = {op for op, _ in self.s.cuts} - set(self.group_of)
        bodies = [op for op in self.graph.ops if op in self.s.bodies]
        plain = [op for op in self.graph.ops if op not in self.group_of and op not in bodies]
        for op in bodies:  # in order: it decides the names of the layers inside
            placed.append((op.index, self._body(op)))
        for op in cut_ops - set(bodies):
            cut = frozenset(i for o, i in self.s.cuts if o is op)
            placed.append((op.index, Plain((op,), cut)))
        rest = [op for op in plain if op not in cut_ops]
        scaled = {op: v for op in rest if (v := self._scaled(op)) is not None}
        for v, trail in self.s.renamed.items():
            placed.append((self.graph.producer[v].index + 0.5, Renamed(v, trail)))
        trails = [*self.s.trails.values(), *self.s.renamed.values()]
        # what these compute again must be readable, not hidden in a call that is evaluated whole
        again = [group.ops for group in self.groups if group.owned != group.ops]
        opened = {
            call
            for ops in (*again, *(trail.ops for trail in trails))
            for op in ops
            for call in op.calls
        }
        single = frozenset(
            op
            for op in rest
            if self._is_discrete(op) or op in scaled or not opened.isdisjoint(op.calls)
        )
        last = {call: op.index for op in rest for call in op.calls}
        for step in regroup(rest, frozenset(cut_ops) | single, self.sizes):
            if isinstance(step, Op):
                placed.append((step.index, Plain((step,), scaled=scaled.get(step))))
            else:
                placed.append((last[step], Plain((step,))))
        placed.sort(key=lambda item: item[0])
        return Network(self.graph, tuple(node for _, node in placed), self.s)

    def _scaled(self, op: Op) -> Value | None:
        """The live value that an operation before the first layer multiplies or divides by a constant.

        There rules for inputs give relevance to zeros too.
        """
        if op.primitive not in (P.MUL, P.DIV) or op.outputs[0] not in self.s.live:
            return None
        moving = [v for v in op.inputs if v in self.s.dependent]
        if len(moving) != 1 or (op.inputs[0] != moving[0] and op.primitive is P.DIV):
            return None
        real = jnp.issubdtype(self.graph.avals[moving[0]].dtype, jnp.floating)
        return moving[0] if real and self.depths.get(moving[0], 0.0) == 0 else None

    def _is_discrete(self, op: Op) -> bool:
        """Whether an operation passes on relevance of integers or booleans."""
        return any(v in self.s.flowing for v in op.outputs) and any(
            v in self.s.live and not is_inexact(self.graph, v) for v in (*op.inputs, *op.outputs)
        )

    def _layer(self, group: Group) -> Layer:
        first = group.ops[0]
        written = {v for op in group.ops for v in op.outputs}
        nonlinear = group.kind in ("activation", "quantizer", "maxpool", "unsupported")
        steps = regroup(group.ops, sizes=self.sizes, declared=nonlinear)
        read = (v for step in steps for v in step.inputs if v not in written)
        operands = tuple(dict.fromkeys(v for v in read if v not in group.inputs))
        if isinstance(group.detail, Embedding):
            trail = group.detail.trail
            made = {v for op in trail.ops for v in op.outputs} | {*group.inputs, *operands}
            along = (v for op in trail.ops for v in op.inputs if v not in made)
            operands += tuple(dict.fromkeys(along))
        kernel = self._kernel(group)
        parameter = None
        if kernel is not None:
            found = self.names.get(kernel, frozenset())
            parameter = next(iter(found)) if len(found) == 1 else ""
        path, module = self.namer.layer(first, group.name, parameter), self.namer.module(first)[1]
        low, _ = self.s.bounds.get(group.inputs[0], ANY)
        return Layer(
            kind=group.kind,
            path=path,
            name=group.name,
            module=module,
            source=first.source,
            inputs=group.inputs,
            output=group.output,
            operands=operands,
            steps=steps,
            ops=group.ops,
            input_avals=tuple(self.graph.avals[v] for v in group.inputs),
            output_aval=self.graph.avals[group.output],
            depth=int(max(self.depths.get(v, 0.0) for v in group.inputs)),
            height=int(self.heights.get(group.output, 0.0)),
            loops=self.loops,
            repeats=self.repeats,
            nonnegative=low >= 0,
            rectified=self._is_rectified(group.output),
            detail=group.detail,
        )

    def _kernel(self, group: Group) -> Value | None:
        """The value that may give a layer its name: its kernel or its table."""
        if isinstance(group.detail, LinearForm):
            return group.detail.kernel
        if isinstance(group.detail, Embedding):
            table = group.ops[0].inputs[0]
            return table if is_inexact(self.graph, table) else None
        return None

    def _is_rectified(self, output: Value) -> bool:
        users = self.graph.users.get(output, ())
        if output in self.graph.outputs or len(users) != 1:
            return False
        group = self.group_of.get(users[0])
        if group is None or group.inputs[0] != output:
            return False
        return group.detail == Activation(relu=True)

    def _body(self, op: Op) -> Body:
        counted, found = self.found.counted, []
        depths = counted.inner_depths(op, self.depths)
        heights = counted.inner_heights(op, self.heights)
        flow = CONTROL_FLOW[op.primitive]
        loops, repeats, length = self.loops, self.repeats, flow.length(op)
        if length is not None:
            loops += 1
            sliced = flow.operands(op)[flow.carry(op).stop :]
            repeats *= length if any(v in self.s.live for v in sliced) else 1
        for body, depth, height in zip(self.found.bodies[op], depths, heights, strict=True):
            labels = {
                inner: next(iter(self.names[outer]))
                for inner, outer in zip(body.structure.graph.inputs, flow.operands(op), strict=True)
                if len(self.names.get(outer, ())) == 1
            }
            found.append(_assemble(body, self.namer, labels, depth, height, loops, repeats))
        return Body(op, tuple(found))
