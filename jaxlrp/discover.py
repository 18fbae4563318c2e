"""From an analysed graph to layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from jaxlrp import _compat
from jaxlrp import primitives as P
from jaxlrp.errors import TrainingModeError, where
from jaxlrp.folding import LinearForm, absorb, absorb_scale
from jaxlrp.graph import Call, Graph, Op, Value, call_sizes, flatten, regroup
from jaxlrp.layers import PARAMETERISED_KINDS, Body, Layer, LocalForm, Network, Node, Plain
from jaxlrp.naming import Namer, parameter_names
from jaxlrp.structure import ANY, Bounds, Structure, analyse, is_inexact


@dataclasses.dataclass(eq=False)
class _Group:
    """Operations that make up one layer, before it has a name."""

    kind: str
    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    output: Value
    name: str
    form: LinearForm | None = None
    signal: int = 0
    relu: bool = False


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
    finder = _Finder(structure)
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


class _Finder:
    """Assigns operations to layers; what is assigned first is closed to the rest."""

    def __init__(self, structure: Structure) -> None:
        self.s = structure
        self.graph = structure.graph
        self.groups: list[_Group] = []
        self.taken: dict[Op, _Group] = {}
        self.live_ops = [
            op for op in self.graph.ops if any(v in structure.live for v in op.outputs)
        ]

    def find(self) -> list[_Group]:
        for op in self.live_ops:
            if op.outputs[0] in self.s.roots:
                self.add(_Group("embedding", (op,), (), op.outputs[0], str(op.primitive)))
        units = self._call_units()
        self._linear_layers(units)
        self._activations(units, merges=True)
        for op, call in units.items():
            if op not in self.taken:
                self._activation(call.outputs[0], call)
        self._activations(units, merges=False)
        self._join_chains()
        self._others()
        return self.groups

    def add(self, group: _Group) -> None:
        self.groups.append(group)
        self.taken.update(dict.fromkeys(group.ops, group))

    def _call_units(self) -> dict[Op, Call]:
        """Calls that are elementwise nonlinear functions of one value, by their operations."""
        members: dict[Call, list[Op]] = {}
        for op in self.graph.ops:
            for call in op.calls:
                members.setdefault(call, []).append(op)
        units: dict[Op, Call] = {}
        for call, ops in members.items():
            if ops[0] in units or len(call.outputs) != 1:
                continue  # an outer call is a unit already
            region = self._region(call.outputs[0], inside=frozenset(ops))
            if region is not None and self._is_nonlinear(region[1]) and region[2]:
                units.update(dict.fromkeys(region[1], call))
        return units

    def _linear_layers(self, units: Mapping[Op, Call]) -> None:
        for op in self.live_ops:
            if op.primitive not in P.LAYERS or len(self.s.sources(op)) != 1:
                continue
            if not any(v in self.s.given for v in op.inputs if v not in self.s.dependent):
                continue  # a kernel that the program spells out, as `jax.image.resize` does
            form = absorb(self.s, op, frozenset(units) | frozenset(self.taken))
            chain = tuple(link.op for link in form.chain)
            last = chain[-1] if chain else op
            kind = "conv" if op.primitive is P.CONV else "dense"
            ops = (op, *chain)
            self.add(
                _Group(kind, ops, self.s.sources(op), last.outputs[0], str(op.primitive), form)
            )

    # Elementwise regions

    def _region(
        self, output: Value, inside: frozenset[Op] | None = None
    ) -> tuple[Value, tuple[Op, ...], bool] | None:
        """(source, operations, closed) of the elementwise function that ends in `output`.

        With `inside`, the source is the one value that these operations read from outside.
        """
        source = self.s.dominator.get(output)
        if source is None:
            return None
        while inside is not None and self.graph.producer.get(source) in inside:
            source = self.s.dominator.get(source)
            if source is None:
                return None
        dominated = self._dominated_by(source)
        ops: set[Op] = set()
        stack = [output]
        while stack:
            value = stack.pop()
            op = self.graph.producer[value]
            if op in ops:
                continue
            ops.add(op)
            stack.extend(v for v in op.inputs if v != source and dominated(v))
        ordered = tuple(sorted(ops, key=lambda op: op.index))
        inner = {v for op in ops for v in op.outputs} - {output}
        closed = not any(v in self.graph.outputs for v in inner) and all(
            user in ops for v in inner for user in self.graph.users.get(v, ())
        )
        return source, ordered, closed

    def _dominated_by(self, source: Value):
        def dominated(value: Value | None) -> bool:
            while value is not None and value != source:
                value = self.s.dominator.get(value)
            return value == source

        return dominated

    def _is_nonlinear(self, ops: Sequence[Op]) -> bool:
        follows = {v for op in ops for v in op.outputs} | self.s.dependent
        for op in ops:
            if op.primitive in P.NONLINEAR and op.primitive not in P.COMPARISONS:
                return True
            moving = [v for v in op.inputs if v in follows]
            if op.primitive in (P.MUL, P.DIV, P.SELECT) and len(moving) > 1:
                return True
            if op.primitive is P.DIV and op.inputs[1] in follows:
                return True
            if op.primitive is P.SELECT and op.inputs[0] in follows:
                return True
        return False

    def _activation(self, output: Value, call: Call | None = None) -> bool:
        inside = None
        if call is not None:
            inside = frozenset(op for op in self.graph.ops if call in op.calls)
        region = self._region(output, inside)
        if region is None:
            return False
        source, ops, closed = region
        if not closed or any(op in self.taken or op in self.s.softmax for op in ops):
            return False
        if not self._is_nonlinear(ops) or self._is_linear_over_reals(source):
            return False
        name, relu = _region_name(ops, call), self._is_relu(source, ops)
        factors = self._literal_factors(output)
        if factors:
            ops, output = (*ops, *factors), factors[-1].outputs[0]
        self.add(_Group("activation", ops, (source,), output, name, relu=relu))
        return True

    def _literal_factors(self, value: Value) -> list[Op]:
        """The products with literals that alone read an activation: `relu6(x + 3) / 6` is one."""
        found: list[Op] = []
        while True:
            users = self.graph.users.get(value, ())
            if len(users) != 1 or value in self.graph.outputs or users[0] in self.taken:
                return found
            (user,) = users
            if user.primitive not in (P.MUL, P.DIV) or not self._is_literal_affine(user):
                return found
            if user.primitive is P.DIV and user.inputs[0] != value:
                return found
            found.append(user)
            value = user.outputs[0]

    def _is_linear_over_reals(self, source: Value) -> bool:
        # the magnitude of a complex value: homogeneous of degree one, left to autodiff
        return self.graph.avals[source].dtype.kind == "c"

    def _activations(self, units: Mapping[Op, Call], merges: bool) -> None:
        """Regions that end in an operation on several values first: they hold the others.

        What lies inside a call that is a unit waits for the call.
        """
        for op in reversed(self.live_ops):
            if op in self.taken or op.outputs[0] not in self.s.dominator:
                continue
            moving = [v for v in op.inputs if v in self.s.dependent]
            if not merges or ((len(moving) > 1 or op.primitive is P.SELECT) and op not in units):
                self._activation(op.outputs[0])

    def _join_chains(self) -> None:
        """Joins activations that follow one another through affine maps by literals.

        `clip(0.2 x + 0.5, 0, 1)` is one function, and 0.5 is no bias of its own.
        """
        made_by = {g.output: g for g in self.groups if g.kind == "activation"}
        for group in sorted(made_by.values(), key=lambda g: -g.ops[-1].index):
            if group not in self.groups:
                continue
            ops, source = group.ops, group.inputs[0]
            while len(self.graph.users.get(source, ())) == 1 and source not in self.graph.outputs:
                before = made_by.get(source)
                op = self.graph.producer.get(source)
                if before is not None and before in self.groups:
                    self.groups.remove(before)
                    ops, source = before.ops + ops, before.inputs[0]
                elif op is not None and op not in self.taken and self._is_literal_affine(op):
                    ops, source = (op, *ops), self.s.dominator[source]
                else:
                    break
            if ops is not group.ops:
                self.groups.remove(group)
                self.add(_Group("activation", ops, (source,), group.output, group.name))

    def _is_literal_affine(self, op: Op) -> bool:
        others = [v for v in op.inputs if v not in self.s.dependent]
        return (
            op.primitive in P.ADD | {P.SUB, P.MUL, P.DIV, P.NEG, P.CONVERT}
            and op.outputs[0] in self.s.dominator
            and op.outputs[0] in self.s.live
            and not any((op, i) in self.s.cuts for i in range(len(op.inputs)))
            and len(others) == len(op.inputs) - 1
            and all(v in self.s.bounds and self.graph.shape(v) == () for v in others)
        )

    def _is_relu(self, source: Value, ops: Sequence[Op]) -> bool:
        """`max(x, 0)`, perhaps clipped from above."""
        ops = [op for op in ops if op.primitive not in (P.CONVERT, P.COPY)]
        if not ops or ops[0].primitive is not P.MAX:
            return False
        zero = [v for v in ops[0].inputs if v not in self.s.dependent]
        return (
            len(zero) == 1
            and self.s.bounds.get(zero[0], ANY) == (0.0, 0.0)
            and all(op.primitive is P.MIN for op in ops[1:])
        )

    # Everything else

    def _others(self) -> None:
        for op in self.live_ops:
            if op in self.taken or op in self.s.softmax or op.primitive in P.BODIES:
                continue
            sources = self.s.sources(op)
            if not sources:
                continue
            group = self._other(op, sources)
            if group is not None:
                self.add(group)

    def _other(self, op: Op, sources: tuple[Value, ...]) -> _Group | None:
        out = op.outputs[0]
        name = str(op.primitive)
        if op.primitive in P.MAXIMA:
            return _Group("maxpool", (op,), sources, out, name)
        if op.primitive in (P.MAX, P.MIN) and len(sources) == 2:
            return _Group("maxpool", (op,), sources, out, name)
        if op.primitive in P.PRODUCTS:
            return _Group("product", (op,), sources, out, name)
        if op.primitive in P.BILINEAR and len(sources) == 2:
            kind, signal = self._product(op)
            return _Group(kind, (op,), sources, out, name, signal=signal)
        if op.primitive in (P.MUL, P.DIV) and any((op, i) in self.s.cuts for i in (0, 1)):
            return _Group("normaliser", (op,), sources, out, name)
        if op.primitive in (P.REDUCE_SUM, P.WINDOW_SUM):
            return self._pool(op, sources, name)
        if op.primitive in P.ADD and len(sources) == 2:
            return _Group("sum", (op,), sources, out, name)
        if op.primitive in P.ADD | {P.SUB, P.MUL, P.DIV} and len(sources) == 1:
            return self._scale(op, sources)
        if self._is_supported(op) or not any(v in self.s.carrying for v in sources):
            return None
        return _Group("unsupported", (op,), sources, out, name)

    def _is_supported(self, op: Op) -> bool:
        if op.primitive in P.STRUCTURAL:
            return True
        if op.primitive in P.BILINEAR | {P.DIV}:
            return True
        if op.primitive in P.PARTLY_LINEAR:
            linear = P.linear_operands(op.primitive, op.params, len(op.inputs))
            moving = {i for i, v in enumerate(op.inputs) if v in self.s.dependent}
            return moving <= set(linear) and (op.primitive is not P.SCATTER_MUL or len(moving) == 1)
        complex_source = self.graph.avals[op.inputs[0]].dtype.kind == "c"
        return str(op.primitive) == "abs" and complex_source

    def _product(self, op: Op) -> tuple[str, int]:
        """The kind of a product, and which operand is the signal if just the other one weighs it."""
        kinds = {"attention": self._is_attention_weight}
        if op.primitive is P.MUL:
            kinds["gate"] = self._is_gate
        for kind, weighs in kinds.items():
            weights = [weighs(v) for v in op.inputs]
            if any(weights) and not all(weights):
                return kind, weights.index(False)
        return "product", 0

    def _is_attention_weight(self, value: Value) -> bool:
        """Whether a value is made of one softmax alone, by what is linear in it: masks, mixes, casts."""
        while True:
            op = self.graph.producer.get(value)
            if op is None:
                return False
            if op in self.s.softmax:
                return op.primitive is P.DIV
            moving = [v for v in op.inputs if v in self.s.dependent]
            if op.primitive not in P.STRUCTURAL | P.BILINEAR | {P.DIV} or len(moving) != 1:
                return False
            (value,) = moving

    def _is_gate(self, value: Value) -> bool:
        """Whether a value is bounded, from zero up, and an activation or affine in one: 1 - z, too."""
        low, high = self.s.bounds.get(value, ANY)
        if low < 0 or not math.isfinite(high):
            return False
        while (producer := self.graph.producer.get(value)) is not None:
            group = self.taken.get(producer)
            if group is not None and group.kind == "activation":
                return True
            moving = [v for v in producer.inputs if v in self.s.dependent]
            if producer.primitive not in _AFFINE_OF_ONE or len(moving) != 1:
                return False
            (value,) = moving
        return False

    def _pool(self, op: Op, sources: tuple[Value, ...], name: str) -> _Group | None:
        ops, value = [op], op.outputs[0]
        users = self.graph.users.get(value, ())
        while len(users) == 1 and users[0].primitive in (P.MUL, P.DIV):
            user = users[0]
            others = [v for v in user.inputs if v in self.s.dependent and v != value]
            same = self.graph.shape(user.outputs[0]) == self.graph.shape(value)
            if others or user in self.taken or not same or user.inputs[0] != value:
                break
            ops.append(user)
            value = user.outputs[0]
            users = self.graph.users.get(value, ())
        if self._is_subtracted(value):
            return None  # the mean of a normaliser: linear, and left to autodiff with it
        return _Group("pool", tuple(ops), sources, value, name)

    def _is_subtracted(self, value: Value) -> bool:
        for user in self.graph.users.get(value, ()):
            if user.primitive is P.SUB and user.inputs[0] in self.s.dependent:
                return user.inputs[1] == value
            if user.primitive in P.SHAPE | {P.BROADCAST} and self._is_subtracted(user.outputs[0]):
                return True
        return False

    def _scale(self, op: Op, sources: tuple[Value, ...]) -> _Group | None:
        form = absorb_scale(self.s, op, frozenset(self.taken))
        if form is None:
            return None
        ops = tuple(link.op for link in form.chain)
        if not any(o.primitive in P.ADD | {P.SUB} for o in ops):
            return None  # a factor alone: linear, and left to autodiff
        # A number that the program spells out, as in scores / 8 + mask, makes no BatchNorm.
        scales = any(
            o.primitive in (P.MUL, P.DIV)
            and any(v in self.s.given for v in o.inputs if v not in self.s.dependent)
            for o in ops
        )
        kind = "scale" if scales else "shift"
        return _Group(kind, ops, sources, ops[-1].outputs[0], kind, form)


def _region_name(ops: Sequence[Op], call: Call | None) -> str:
    if call is not None and call.name:
        return call.name.lstrip("_")
    common = [c for c in ops[-1].calls if all(c in op.calls for op in ops)]
    if common and common[-1].name:
        return common[-1].name.lstrip("_")
    nonlinear = [
        op for op in ops if op.primitive in P.NONLINEAR and op.primitive not in P.COMPARISONS
    ]
    return str((nonlinear or list(ops))[-1].primitive)


_AFFINE_OF_ONE = P.SHAPE | P.ADD | {P.BROADCAST, P.SUB, P.NEG, P.MUL, P.DIV}


class _Assembler:
    """Names the groups, measures depth, and puts all operations in order."""

    def __init__(
        self,
        structure: Structure,
        groups: list[_Group],
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
        bodies = {
            op
            for op in self.graph.ops
            if op.primitive in P.BODIES and any(v in self.s.live for v in op.outputs)
        }
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

    def _layer(self, group: _Group) -> Layer:
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

    def _local(self, group: _Group) -> LocalForm | None:
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
