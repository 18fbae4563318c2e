"""Elementwise nonlinear functions of one value."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.detect.regions import (
    is_literal_affine,
    is_nonlinear,
    is_quantizer,
    is_relu,
    region,
    region_name,
    spreads,
)
from jaxlrp.network.graph import Call, Op, Value
from jaxlrp.network.layers import Activation


def call_units(structure: Structure) -> dict[Op, Call]:
    """Calls that are elementwise nonlinear functions of one value, by their operations."""
    members: dict[Call, list[Op]] = {}
    for op in structure.graph.ops:
        for call in op.calls:
            members.setdefault(call, []).append(op)
    units: dict[Op, Call] = {}
    for call, ops in members.items():
        if ops[0] in units or len(call.outputs) != 1:
            continue  # an outer call is a unit already
        found = region(structure, call.outputs[0], inside=frozenset(ops))
        if found is not None and is_nonlinear(structure, found[1]) and found[2]:
            units.update(dict.fromkeys(found[1], call))
    return units


def elementwise(structure: Structure, taken: Taken) -> Iterator[Group]:
    finder = _Finder(structure, taken)
    finder.find()
    yield from finder.groups.values()


class _Finder:
    """Collects groups first: those that follow one another are joined before they are final.

    Attributes:
      groups: those found, by output.
    """

    def __init__(self, structure: Structure, taken: Taken) -> None:
        self.s = structure
        self.graph = structure.graph
        self.units = taken.units
        self.taken: dict[Op, Group] = dict(taken)
        self.groups: dict[Value, Group] = {}

    def find(self) -> None:
        # Regions that end in an operation on several values first: they contain the others. Operations
        # inside a call that is a unit wait for the call.
        for op in reversed(self.s.live_ops):
            merges = len([v for v in op.inputs if v in self.s.dependent]) > 1
            if (merges or op.primitive is P.SELECT) and op not in self.units:
                self._region_of(op)
        for op, call in self.units.items():
            if op not in self.taken and call.outputs[0] in self.s.flowing:
                self._add(self._activation(call.outputs[0], call))
        for op in reversed(self.s.live_ops):
            self._region_of(op)
        self._join_chains()
        for op in reversed(self.s.live_ops):
            if op not in self.taken:
                self._add(self._shared(op))

    def _add(self, group: Group | None) -> None:
        if group is not None:
            self.groups[group.output] = group
            self.taken.update(dict.fromkeys(group.owned, group))

    def _region_of(self, op: Op) -> None:
        if op not in self.taken and op.outputs[0] in self.s.dominator:
            self._add(self._activation(op.outputs[0]))

    def _activation(self, output: Value, call: Call | None = None) -> Group | None:
        inside = None
        if call is not None:
            inside = frozenset(op for op in self.graph.ops if call in op.calls)
        found = region(self.s, output, inside)
        if found is None:
            return None
        source, ops, closed = found
        if not closed or any(op in self.taken or op in self.s.softmax for op in ops):
            return None
        if not is_nonlinear(self.s, ops) or self.s.is_complex(source):
            return None
        name, detail = region_name(ops, call), Activation(relu=is_relu(self.s, source, ops))
        kind = "quantizer" if is_quantizer(self.s, ops) else "activation"
        after = self._literals_after(output, shifts=kind == "quantizer")
        if after:
            ops, output = (*ops, *after), after[-1].outputs[0]
        return Group(kind, ops, (source,), output, name, detail)

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

    def _shared(self, op: Op) -> Group | None:
        """A function of one value that shares intermediate results with others, as polynomials do.

        Each is a layer of that value; what several share, each evaluates for itself.
        """
        if len([v for v in op.inputs if v in self.s.dependent]) < 2:
            return None
        found = region(self.s, op.outputs[0])
        if found is None:
            return None
        source, ops, _ = found
        if any(o in self.s.softmax or o in self.s.trails for o in ops):
            return None
        if not is_nonlinear(self.s, ops) or self.s.is_complex(source):
            return None
        output, name = op.outputs[0], region_name(ops, None)
        return Group("activation", ops, (source,), output, name, Activation(), owned=(op,))

    def _join_chains(self) -> None:
        """Joins activations that follow one another through affine maps by literals.

        `clip(0.2 x + 0.5, 0, 1)` is one function, and 0.5 is not a bias of its own. Neither are the centers
        that each value is compared with in `exp(-(x[:, None] - centers) ** 2)`.
        """
        for group in sorted(self.groups.values(), key=lambda g: -g.ops[-1].index):
            if group.output not in self.groups:
                continue
            ops, source, kind = group.ops, group.inputs[0], group.kind
            while self._reads_alone(ops, source):
                before = self.groups.get(source)
                op = self.graph.producer.get(source)
                if before is not None:
                    del self.groups[source]
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
                self._add(Group(kind, ops, (source,), group.output, group.name, Activation()))

    def _reads_alone(self, ops: tuple[Op, ...], value: Value) -> bool:
        users = self.graph.users.get(value, ())
        return value not in self.graph.outputs and set(users) <= set(ops)
