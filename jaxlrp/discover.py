"""From an analysed graph to layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jaxlrp import _compat
from jaxlrp import primitives as P
from jaxlrp.errors import TrainingModeError, where
from jaxlrp.finding import Finder, Group
from jaxlrp.graph import Graph, Op, Value, call_sizes, flatten, regroup
from jaxlrp.layers import PARAMETERISED_KINDS, Body, Layer, LocalForm, Network, Node, Plain
from jaxlrp.naming import Namer, parameter_names
from jaxlrp.structure import ANY, Bounds, Structure, analyse, is_inexact


def network(
    graph: Graph,
    explained: Iterable[Value],
    namer: Namer,
    labels: Mapping[Value, str],
    *,
    bounds: Mapping[Value, Bounds] | None = None,
    outputs: Iterable[Value] | None = None,
    depth: int = 0,
    height: int = 0,
) -> Network:
    """Finds the layers of a graph.

    Args:
      graph: the graph.
      explained: its inputs whose relevance is asked for.
      namer: gives paths; shared with the graphs around this one.
      labels: names of the inputs that are parameters.
      bounds: what is known of the range of the inputs.
      outputs: the outputs that carry relevance; all by default.
      depth, height: of the graph itself where it is the body of another's operation.

    Raises:
      TrainingModeError: if the function was traced in training mode.
    """
    structure = analyse(graph, explained, bounds, outputs)
    _refuse_training_mode(structure, namer)
    finder = Finder(structure)
    groups = finder.find()
    return _Assembler(structure, groups, namer, labels, depth, height).assemble()


def _refuse_training_mode(structure: Structure, namer: Namer) -> None:
    graph = structure.graph
    for op in graph.ops:
        if not any(v in structure.live for v in op.outputs):
            continue
        path, module = namer.module(op)
        place = where(path or "", op.source)
        shape = graph.shape(op.outputs[0])
        masks = op.inputs[:1] if op.primitive is P.SELECT else op.inputs
        if op.primitive in (P.SELECT, P.MUL) and any(
            v in structure.random and graph.shape(v) == shape for v in masks
        ):
            raise TrainingModeError(
                f"the function masks values at random {place}, as dropout does in training mode; "
                "an explanation needs the model in evaluation mode: pass `deterministic=True` or "
                "`train=False` as your model spells it, or call `model.eval()` on an NNX module"
            )
        if "BatchNorm" in module and any((op, i) in structure.cuts for i in range(len(op.inputs))):
            raise TrainingModeError(
                f"BatchNorm normalises by the statistics of the batch {place}, as in training mode; "
                "an explanation needs the running ones: pass `use_running_average=True` or "
                "`train=False` as your model spells it, or call `model.eval()` on an NNX module"
            )


class _Assembler:
    """Names the groups, measures depth, and puts all operations in order."""

    def __init__(
        self,
        structure: Structure,
        groups: list[Group],
        namer: Namer,
        labels: Mapping[Value, str],
        depth: int,
        height: int,
    ) -> None:
        self.s = structure
        self.graph = structure.graph
        self.groups = groups
        self.namer = namer
        self.names = parameter_names(self.graph, labels)
        self.sizes = call_sizes(self.graph.ops)
        self.base_depth, self.base_height = depth, height
        self.group_of = {op: group for group in groups for op in group.ops}
        self.depths = self._depths()
        self.heights = self._heights()

    def assemble(self) -> Network:
        placed: list[tuple[int, Node]] = []
        for group in sorted(self.groups, key=lambda g: max(op.index for op in g.ops)):
            placed.append((max(op.index for op in group.ops), self._layer(group)))
        cut_ops = {op for op, _ in self.s.cuts} - set(self.group_of)
        bodies = [  # in order: it decides the names of the layers inside
            op
            for op in self.graph.ops
            if op.primitive in P.BODIES and any(v in self.s.live for v in op.outputs)
        ]
        plain = [op for op in self.graph.ops if op not in self.group_of and op not in bodies]
        for op in bodies:
            placed.append((op.index, self._body(op)))
        for op in cut_ops:
            cut = frozenset(i for o, i in self.s.cuts if o is op)
            placed.append((op.index, Plain((op,), cut)))
        rest = [op for op in plain if op not in cut_ops]
        last = {call: op.index for op in rest for call in op.calls}
        for step in regroup(rest, frozenset(cut_ops), self.sizes):
            placed.append((step.index if isinstance(step, Op) else last[step], Plain((step,))))
        placed.sort(key=lambda item: item[0])
        nodes = tuple(node for _, node in placed)
        s = self.s
        return Network(self.graph, nodes, dict(s.roots), s.live, s.dependent, s.softmax)

    def _layer(self, group: Group) -> Layer:
        first = group.ops[0]
        written = {v for op in group.ops for v in op.outputs}
        nonlinear = group.kind in ("activation", "maxpool", "unsupported")
        steps = regroup(group.ops, sizes=self.sizes, declared=nonlinear)
        read = (v for step in steps for v in step.inputs if v not in written)
        operands = tuple(dict.fromkeys(v for v in read if v not in group.inputs))
        kernel = group.form.kernel if group.form else None
        if group.kind == "embedding" and operands:
            kernel = operands[0]
        parameter = None
        if kernel is not None:
            found = self.names.get(kernel, frozenset())
            parameter = next(iter(found)) if len(found) == 1 else group.name
        path, module = self.namer.layer(first, group.name, parameter), self.namer.module(first)[1]
        source = group.inputs[0] if group.inputs else group.output
        local = self._local(group) if group.kind == "normaliser" else None
        low, _ = self.s.bounds.get(source, ANY)
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
            input_shapes=tuple(self.graph.shape(v) for v in group.inputs),
            output_shape=self.graph.shape(group.output),
            input_dtypes=tuple(self.graph.avals[v].dtype for v in group.inputs),
            dtype=str(self.graph.avals[group.output].dtype),
            absorbed=tuple(str(op.primitive) for op in group.ops[1:]),
            depth=self.depths.get(source, self.base_depth),
            height=self.heights.get(group.output, self.base_height),
            nonnegative=low >= 0,
            rectified=self._is_rectified(group.output),
            form=group.form,
            signal=group.signal,
            cheap=all(op.primitive in P.CHEAP for op in group.ops),
            after_normaliser=self._is_after_normaliser(source),
            relu=group.relu,
            local=local,
        )

    def _local(self, group: Group) -> LocalForm | None:
        """The parts of a normaliser whose statistic is a sum over a window of its own numerator."""
        (op,), (source,) = group.ops, group.inputs
        ops, stack = {op}, [v for v in op.inputs if v != source and v in self.s.dependent]
        while stack:
            found = self.graph.producer.get(stack.pop())
            if found is None or found.primitive not in P.ELEMENTWISE | {P.WINDOW_SUM}:
                return None
            ops.add(found)
            stack += [v for v in found.inputs if v != source and v in self.s.dependent]
        ordered = tuple(sorted(ops, key=lambda op: op.index))
        windows = [op for op in ordered if op.primitive is P.WINDOW_SUM]
        if len(windows) != 1:
            return None
        (window,) = windows
        written = {v for op in ordered for v in op.outputs}
        read = (v for op in ordered for v in op.inputs if v not in written and v != source)
        aval = self.graph.avals[source]
        whole = Layer(
            kind="normaliser", path="", name="local", module="", source=op.source,
            inputs=(source,), output=group.output, operands=tuple(dict.fromkeys(read)),
            steps=ordered, ops=ordered, input_dtypes=(aval.dtype,),
        )  # fmt: skip
        before = tuple(op for op in ordered if op.index < window.index)
        after = tuple(op for op in ordered if op.index > window.index)
        return LocalForm(whole, window, before, after)

    def _is_rectified(self, output: Value) -> bool:
        users = self.graph.users.get(output, ())
        if output in self.graph.outputs or len(users) != 1:
            return False
        group = self.group_of.get(users[0])
        return group is not None and group.relu and group.inputs[0] == output

    def _is_after_normaliser(self, value: Value) -> bool:
        op = self.graph.producer.get(value)
        while op is not None and op.primitive in P.SHAPE | {P.MUL, P.DIV}:
            if any((op, i) in self.s.cuts for i in (0, 1)):
                return True
            sources = self.s.sources(op)
            if len(sources) != 1:
                return False
            op = self.graph.producer.get(sources[0])
        return False

    def _counts(self, op: Op) -> int:
        group = self.group_of.get(op)
        return int(group is not None and group.kind in PARAMETERISED_KINDS and op is group.ops[0])

    def _depths(self) -> dict[Value, int]:
        depths: dict[Value, int] = {}
        for op in self.graph.ops:
            into = [depths.get(v, self.base_depth) for v in op.inputs if v in self.s.dependent]
            if into:
                inner = _parameterised(op) if op.primitive in P.BODIES else 0
                depths.update(dict.fromkeys(op.outputs, max(into) + self._counts(op) + inner))
        return depths

    def _heights(self) -> dict[Value, int]:
        heights: dict[Value, int] = {}
        for op in reversed(self.graph.ops):
            above = max((heights.get(v, self.base_height) for v in op.outputs), default=0)
            inner = _parameterised(op) if op.primitive in P.BODIES else 0
            for v in op.inputs:
                if v in self.s.dependent:
                    found = above + self._counts(op) + inner
                    heights[v] = max(heights.get(v, self.base_height), found)
        return heights

    def _body(self, op: Op) -> Body:
        depth = max((self.depths.get(v, self.base_depth) for v in self.s.sources(op)), default=0)
        height = max((self.heights.get(v, self.base_height) for v in op.outputs), default=0)
        bodies = op.params["branches"] if op.primitive is P.COND else (op.params["jaxpr"],)
        inputs = op.inputs[1:] if op.primitive is P.COND else op.inputs
        found = []
        for body in bodies:
            jaxpr, consts = _compat.open_jaxpr(body)
            graph = flatten(jaxpr, consts, op.scope, op.source)
            explained, outputs = self._flow(op, graph, inputs)
            labels = {
                inner: next(iter(self.names[outer]))
                for inner, outer in zip(graph.inputs, inputs, strict=True)
                if len(self.names.get(outer, ())) == 1
            }
            found.append(
                network(
                    graph, explained, self.namer, labels,
                    bounds=self._inner_bounds(op, graph, inputs), outputs=outputs,
                    depth=depth, height=height,
                )
            )  # fmt: skip
        return Body(op, tuple(found))

    def _flow(self, op: Op, graph: Graph, inputs: Sequence[Value]) -> tuple[set[Value], set[Value]]:
        """Which inputs of a body depend on the explained input, and which outputs are live."""
        pairs = list(zip(graph.inputs, inputs, strict=True))
        explained = {
            inner
            for inner, outer in pairs
            if outer in self.s.dependent and is_inexact(graph, inner)
        }
        outputs = {
            inner
            for inner, outer in zip(graph.outputs, op.outputs, strict=True)
            if outer in self.s.live
        }
        if op.primitive is not P.SCAN:
            return explained, outputs
        consts, carries = _compat.scan_counts(op.eqn)
        carry = list(zip(graph.inputs[consts : consts + carries], graph.outputs, strict=False))
        while True:  # until what goes round the loop is known to go round
            inner = analyse(graph, explained)
            more = {
                a for a, b in carry if b in inner.dependent and is_inexact(graph, a)
            } - explained
            outputs |= {b for _, b in carry if b in inner.dependent}
            if not more:
                return explained, outputs
            explained |= more

    def _inner_bounds(self, op: Op, graph: Graph, inputs: Sequence[Value]) -> dict[Value, Bounds]:
        pairs = list(zip(graph.inputs, inputs, strict=True))
        if op.primitive is P.SCAN:
            consts, carries = _compat.scan_counts(op.eqn)
            pairs = pairs[:consts] + pairs[consts + carries :]
        return {inner: self.s.bounds[outer] for inner, outer in pairs if outer in self.s.bounds}


def _parameterised(op: Op) -> int:
    """How many linear layers the longest way through a body holds, at the most."""
    bodies = op.params["branches"] if op.primitive is P.COND else (op.params["jaxpr"],)
    count = 0
    for body in bodies:
        jaxpr, consts = _compat.open_jaxpr(body)
        ops = flatten(jaxpr, consts).ops
        count = max(count, sum(o.primitive in P.LAYERS for o in ops))
    return count
