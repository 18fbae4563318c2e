"""Which operations make up which layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from jaxlrp._compat import primitives as _named
from jaxlrp.network import primitives as P
from jaxlrp.network.affine import LinearForm, absorb, absorb_scale
from jaxlrp.network.analysis import ANY, Structure
from jaxlrp.network.denominators import is_statistic_of
from jaxlrp.network.dependence import Trail
from jaxlrp.network.graph import Call, Op, Value
from jaxlrp.network.regions import (
    is_literal_affine,
    is_nonlinear,
    is_quantizer,
    is_relu,
    region,
    region_name,
    spreads,
)

_AFFINE_OF_ONE = P.MOVES | P.VARY | P.ADD | {P.SUB, P.NEG, P.MUL, P.DIV, P.PAD}
_JOINS = {P.CONCATENATE, P.SELECT, P.DYNAMIC_UPDATE} | _named("stack")


@dataclasses.dataclass(eq=False)
class Group:
    """Operations that make up one layer, before it has a name.

    Attributes:
      owned: those of its operations that no other layer evaluates; the others are computed from the
        layer's own input, and read elsewhere as well.
    """

    kind: str
    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    output: Value
    name: str
    form: LinearForm | None = None
    signal: int = 0
    relu: bool = False
    trail: Trail | None = None
    owned: tuple[Op, ...] = ()

    def __post_init__(self) -> None:
        self.owned = self.owned or self.ops


class Finder:
    """Assigns operations to layers; what is assigned first is closed to the rest."""

    def __init__(self, structure: Structure) -> None:
        self.s = structure
        self.graph = structure.graph
        self.groups: list[Group] = []
        self.taken: dict[Op, Group] = {}
        self.live_ops = [
            op for op in self.graph.ops if any(v in structure.flowing for v in op.outputs)
        ]

    def find(self) -> list[Group]:
        for op in self.live_ops:
            if op in self.s.trails:
                trail, name = self.s.trails[op], str(op.primitive)
                self.add(Group("embedding", (op,), trail.sources, op.outputs[0], name, trail=trail))
        for mixture in self.s.mixtures:
            if mixture.end.outputs[0] in self.s.live:
                values, name = mixture.values, str(mixture.product.primitive)
                inputs = (mixture.weights, values)
                output = mixture.end.outputs[0]
                self.add(Group("attention", mixture.ops, inputs, output, name, signal=1))
        units = self._call_units()
        self._linear_layers(units)
        self._activations(units, merges=True)
        for op, call in units.items():
            if op not in self.taken and call.outputs[0] in self.s.flowing:
                self._activation(call.outputs[0], call)
        self._activations(units, merges=False)
        self._join_chains()
        self._shared_activations()
        self._others()
        return self.groups

    def add(self, group: Group) -> None:
        self.groups.append(group)
        self.taken.update(dict.fromkeys(group.owned, group))

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
            found = region(self.s, call.outputs[0], inside=frozenset(ops))
            if found is not None and is_nonlinear(self.s, found[1]) and found[2]:
                units.update(dict.fromkeys(found[1], call))
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
            self.add(Group(kind, ops, self.s.sources(op), last.outputs[0], str(op.primitive), form))

    def _activation(self, output: Value, call: Call | None = None) -> bool:
        inside = None
        if call is not None:
            inside = frozenset(op for op in self.graph.ops if call in op.calls)
        found = region(self.s, output, inside)
        if found is None:
            return False
        source, ops, closed = found
        if not closed or any(op in self.taken or op in self.s.softmax for op in ops):
            return False
        if not is_nonlinear(self.s, ops) or self._is_linear_over_reals(source):
            return False
        name, relu = region_name(ops, call), is_relu(self.s, source, ops)
        kind = "quantizer" if is_quantizer(self.s, ops) else "activation"
        after = self._literals_after(output, shifts=kind == "quantizer")
        if after:
            ops, output = (*ops, *after), after[-1].outputs[0]
        self.add(Group(kind, ops, (source,), output, name, relu=relu))
        return True

    def _shared_activations(self) -> None:
        """Functions of one value that share what they compute on the way, as polynomials of it do.

        Each is a layer of that value; what several share, each evaluates.
        """
        for op in reversed(self.live_ops):
            if op in self.taken or len([v for v in op.inputs if v in self.s.dependent]) < 2:
                continue
            found = region(self.s, op.outputs[0])
            if found is None:
                continue
            source, ops, _ = found
            if any(o in self.s.softmax or o in self.s.trails for o in ops):
                continue
            if is_nonlinear(self.s, ops) and not self._is_linear_over_reals(source):
                name = region_name(ops, None)
                output = op.outputs[0]
                self.add(Group("activation", ops, (source,), output, name, owned=(op,)))

    def _literals_after(self, value: Value, shifts: bool) -> list[Op]:
        """The products with literals that alone read an activation: `relu6(x + 3) / 6` is one.

        With `shifts` literals are added as well: `round(x / 0.1 + 3) - 3`.
        """
        affine = {P.MUL, P.DIV} | (P.ADD | {P.SUB, P.CONVERT} if shifts else set())
        found: list[Op] = []
        while True:
            users = self.graph.users.get(value, ())
            if len(users) != 1 or value in self.graph.outputs or users[0] in self.taken:
                return found
            (user,) = users
            if user.primitive not in affine or not is_literal_affine(self.s, user):
                return found
            if user.primitive in (P.DIV, P.SUB) and user.inputs[0] != value:
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

        `clip(0.2 x + 0.5, 0, 1)` is one function, and 0.5 is no bias of its own. Neither are the centers
        that each value is compared with in `exp(-(x[:, None] - centers) ** 2)`.
        """
        made_by = {g.output: g for g in self.groups if g.kind in ("activation", "quantizer")}
        for group in sorted(made_by.values(), key=lambda g: -g.ops[-1].index):
            if group not in self.groups:
                continue
            ops, source, kind = group.ops, group.inputs[0], group.kind
            while self._reads_alone(ops, source):
                before = made_by.get(source)
                op = self.graph.producer.get(source)
                if before is not None and before in self.groups:
                    self.groups.remove(before)
                    ops, source = before.ops + ops, before.inputs[0]
                    kind = kind if before.kind == kind else "activation"
                elif (
                    op is not None
                    and op not in self.taken
                    and (is_literal_affine(self.s, op) or spreads(self.s, op))
                ):
                    ops, source = (op, *ops), self.s.dominator[source]
                else:
                    break
            if ops is not group.ops:
                self.groups.remove(group)
                self.add(Group(kind, ops, (source,), group.output, group.name))

    def _reads_alone(self, ops: tuple[Op, ...], value: Value) -> bool:
        users = self.graph.users.get(value, ())
        return value not in self.graph.outputs and set(users) <= set(ops)

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

    def _other(self, op: Op, sources: tuple[Value, ...]) -> Group | None:
        out = op.outputs[0]
        name = str(op.primitive)
        if op.primitive in P.MAXIMA:
            return Group("maxpool", (op,), sources, out, name)
        if op.primitive in (P.MAX, P.MIN) and len(sources) == 2:
            return Group("maxpool", (op,), sources, out, name)
        if op.primitive in P.PRODUCTS:
            return Group("product", (op,), sources, out, name)
        if op.primitive in P.BILINEAR and len(sources) == 2:
            kind, signal = self._product(op)
            return Group(kind, (op,), sources, out, name, signal=signal)
        if op.primitive in (P.MUL, P.DIV) and any((op, i) in self.s.cuts for i in (0, 1)):
            return Group(self._quotient(op), (op,), sources, out, name)
        if op.primitive in (P.REDUCE_SUM, P.WINDOW_SUM):
            return self._pool(op, sources, name)
        if op.primitive in P.ADD and len(sources) == 2:
            return Group("sum", (op,), sources, out, name)
        if op.primitive in P.ADD | {P.SUB, P.MUL, P.DIV} and len(sources) == 1:
            return self._scale(op, sources)
        if self._is_supported(op) or not any(v in self.s.carrying for v in sources):
            return None
        return Group("unsupported", (op,), sources, out, name)

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

    def _quotient(self, op: Op) -> str:
        """Whether what is held fixed is a statistic of the value that it divides, or of others."""
        held = next(i for i in (0, 1) if (op, i) in self.s.cuts)
        fixed, value = op.inputs[held], op.inputs[1 - held]
        if op.primitive is P.MUL or is_statistic_of(self.graph, fixed, value, self.s.dependent):
            return "normalizer"
        return "quotient"

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
                return op in self.s.weights
            moving = [v for v in op.inputs if v in self.s.dependent]
            if op.primitive not in P.STRUCTURAL | P.BILINEAR | {P.DIV} or len(moving) != 1:
                return False
            (value,) = moving

    def _is_gate(self, value: Value) -> bool:
        """Whether a value is bounded, from zero up, and made of activations alone by affine maps and moves.

        So are `1 - z`, and the parts of a squashed vector.
        """
        low, high = self.s.bounds.get(value, ANY)
        return low >= 0 and math.isfinite(high) and self._is_squashed(value)

    def _is_squashed(self, value: Value) -> bool:
        while (producer := self.graph.producer.get(value)) is not None:
            group = self.taken.get(producer)
            if group is not None and group.kind == "activation":
                return True
            moving = [v for v in producer.inputs if v in self.s.dependent]
            if producer.primitive in _JOINS:
                return bool(moving) and all(map(self._is_squashed, dict.fromkeys(moving)))
            if producer.primitive not in _AFFINE_OF_ONE or len(moving) != 1:
                return False
            (value,) = moving
        return False

    def _pool(self, op: Op, sources: tuple[Value, ...], name: str) -> Group | None:
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
            return None  # the mean of a normalizer: linear, and left to autodiff with it
        return Group("pool", tuple(ops), sources, value, name)

    def _is_subtracted(self, value: Value) -> bool:
        for user in self.graph.users.get(value, ()):
            if user.primitive is P.SUB and user.inputs[0] in self.s.dependent:
                return user.inputs[1] == value
            others = [v for v in user.inputs if v != value]
            scales = user.primitive is P.MUL or (
                user.primitive is P.DIV and user.inputs[0] == value
            )
            if scales and any(v in self.s.dependent for v in others):
                continue
            moves = user.primitive in P.SHAPE | {P.BROADCAST}
            if (scales or moves) and self._is_subtracted(user.outputs[0]):
                return True
        return False

    def _scale(self, op: Op, sources: tuple[Value, ...]) -> Group | None:
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
        return Group(kind, ops, sources, ops[-1].outputs[0], kind, form)
