"""Ledger rows for operations outside layers: where else relevance is lost, or made.

An operation that is left to autodiff passes on what it receives if it is linear in what depends on the
input. Where it is not, or where it joins constants to it, it keeps a share. `audit` finds these
operations and gives each, or each softmax as a whole, a row in the ledger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp.network import primitives as P
from jaxlrp.network.control_flow import CONTROL_FLOW
from jaxlrp.network.dependence import carrying
from jaxlrp.network.discrete import evaluate, lifted, raw
from jaxlrp.network.graph import Call, Env, Graph, Op, Step, Value
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Account, Body, Booked, Network, Node, Plain
from jaxlrp.network.paths import place
from jaxlrp.network.softmax import shift
from jaxlrp.propagation.taps import PASSED, RECEIVED, book
from jaxlrp.rules import Rule

# Kinds of accounts, and why relevance ends there.
KINDS = {
    "softmax": "its first-order expansion, x (R - s sum R), does not conserve (AttnLRP, Prop. 3.1)",
    "constant": "values that do not depend on the input, joined to those that do, keep their share",
    "carry": "the initial state of a loop does not depend on the input and keeps the relevance it receives",
    "stopped": "constants made by a `stop_gradient`, a comparison or another cut keep their share",
    "autodiff": "not linear, and left to autodiff",
}


def audit(network: Network, rules: Mapping[str, Rule], outputs: Iterable[Value]) -> Network:
    """The same network, with `Booked` nodes wherever relevance is lost outside of layers.

    Args:
      network: the network.
      rules: the rule of each layer, by path.
      outputs: the outputs of the graph that carry relevance.
    """
    taken = {layer.path for layer in network.layers()}
    layers = network.layers()
    keeps_zero = all(la.kind in rules[la.path].keeps_zero for la in layers)
    return _Auditor(network, rules, taken, keeps_zero).audit(outputs, "", "output")


def evaluate_booked(
    node: Booked,
    env: Env,
    inside: dict[Account, Env],
    ledger: Mapping[str, Array],
    live: frozenset[Value],
) -> None:
    """Evaluates a node, and books what goes into its account and what comes out of it.

    Args:
      node: the node.
      env: all values, as seen from outside the account.
      inside: for each account, values as the operations of that account see them, so that nothing
        is booked on the way from one to the next.
      ledger: the accounts.
      live: the values that carry relevance.
    """
    account, inner = ledger[node.account.path], inside.setdefault(node.account, {})
    for v in node.sources - set(inner):
        inner[v] = book(env[v], account, PASSED)
    held = {v: lax.stop_gradient(raw(env[v])) for v in node.cut}
    local = {v: inner.get(v, env[v]) for step in node.steps for v in step.inputs if v in env} | held
    evaluate(node.steps, local, live | set(node.outputs))
    for v in (v for step in node.steps for v in step.outputs):
        inner[v] = env[v] = local[v]
    for v in node.outputs:
        env[v] = book(lifted(env[v]), account, RECEIVED)


class _Auditor:
    """Looks at one graph; those of control flow get auditors of their own."""

    def __init__(
        self, network: Network, rules: Mapping[str, Rule], taken: set[str], keeps_zero: bool
    ) -> None:
        self.network = network
        self.graph = network.graph
        self.rules = rules
        self.taken = taken  # the paths that are given away, in all graphs
        self.keeps_zero = keeps_zero  # whether no rule gives relevance to zeros
        self.reached = _reached(network, rules)
        self.units = _softmax_units(network)
        self.rows: dict[frozenset[Op], Account] = {}
        self.members: dict[Call, list[Op]] = {}
        for op in self.graph.ops:
            for call in op.calls:
                self.members.setdefault(call, []).append(op)

    def audit(self, outputs: Iterable[Value], scope: str, name: str) -> Network:
        nodes = [found for node in self.network.nodes for found in self._node(node)]
        for v in dict.fromkeys(outputs):
            if self._is_constant(v):
                account = Account(self._path(scope, name), "constant")
                nodes.append(Booked(account, (), frozenset(), frozenset(), (v,)))
        return dataclasses.replace(self.network, nodes=tuple(nodes))

    def _node(self, node: Node) -> list[Node]:
        if isinstance(node, Body):
            return [self._body(node)]
        if isinstance(node, Layer):
            freed = node.kind in ("normalizer", "unsupported") and self.rules[node.path].is_autodiff
            return [self._book(Account(node.path, node.kind), node.steps)] if freed else [node]
        if not isinstance(node, Plain):
            return [node]
        if node.cut:
            return [self._stopped(node)]
        if node.scaled is not None:
            return [node]
        found = [self._operation(op) for op in self._opened(node.steps)]
        return [node] if all(isinstance(n, Plain) for n in found) else found

    def _body(self, node: Body) -> Body:
        fixed, bodies = self._fixed(node), []
        carry = self._account(node.op, "carry", "carry") if fixed else None
        for body in node.bodies:
            pairs = zip(body.graph.outputs, node.op.outputs, strict=True)
            live = [inner for inner, outer in pairs if outer in self.reached]
            auditor = _Auditor(body, self.rules, self.taken, self.keeps_zero)
            bodies.append(auditor.audit(live, node.op.scope, f"{node.op.primitive}/output"))
        return dataclasses.replace(node, bodies=tuple(bodies), carry=carry, fixed=fixed)

    def _fixed(self, node: Body) -> tuple[int, ...]:
        """Which initial carries of a scan take relevance and hand none on."""
        carry = CONTROL_FLOW[node.op.primitive].carry(node.op)
        return tuple(
            i
            for i in range(carry.start, carry.stop)
            if all(body.graph.inputs[i] in body.dependent for body in node.bodies)
            and self._is_constant(node.op.inputs[i])
        )

    def _stopped(self, node: Plain) -> Node:
        (op,) = node.steps
        assert isinstance(op, Op)
        cut = frozenset(op.inputs[i] for i in node.cut)
        if not self._is_reached(op):
            return node
        unit = self.units.get(op)
        account = (
            self._account(op, "stopped", str(op.primitive)) if unit is None else self._row(unit)
        )
        return self._book(account, (op,), unit or frozenset({op}), cut)

    def _opened(self, steps: Iterable[Step]) -> Iterable[Op]:
        """The single operations of steps."""
        for step in steps:
            yield from (step,) if isinstance(step, Op) else self.members[step]

    def _operation(self, op: Op) -> Node:
        if not self._is_reached(op):
            return Plain((op,))
        if op in self.units:
            unit = self.units[op]
            return self._book(self._row(unit), (op,), unit)
        kind = self._kind(op)
        if kind is None:
            return Plain((op,))
        return self._book(self._account(op, kind, str(op.primitive)), (op,))

    def _kind(self, op: Op) -> str | None:
        """Why a single operation loses relevance; None if it passes all of it on."""
        if op.primitive in P.STRUCTURAL:
            constants = [v for i in carrying(op) if self._is_constant(v := op.inputs[i])]
            if not constants:
                return None
            touched = self.network.structure.dependence.touched
            return "stopped" if any(v in touched for v in constants) else "constant"
        moving = [i for i, v in enumerate(op.inputs) if v in self.network.dependent]
        if op.primitive in P.BILINEAR and len(moving) == 1:
            return None
        if op.primitive is P.DIV and moving == [0]:
            return None
        return "autodiff"

    def _is_constant(self, value: Value) -> bool:
        """Whether a value can take relevance and hands none on."""
        return (
            value not in self.network.dependent
            and self._is_number(value)
            and not (self.keeps_zero and _is_zero(self.graph, value))
        )

    def _is_number(self, value: Value) -> bool:
        dtype = getattr(self.graph.avals[value], "dtype", None)
        return dtype is not None and jnp.issubdtype(dtype, jnp.number)

    def _is_reached(self, step: Step) -> bool:
        return any(v in self.reached for v in step.outputs)

    def _book(
        self,
        account: Account,
        steps: tuple[Step, ...],
        unit: frozenset[Op] = frozenset(),
        cut: frozenset[Value] = frozenset(),
    ) -> Booked:
        written = {v for step in steps for v in step.outputs}
        inner = written | {v for op in unit for v in op.outputs}
        read = {v for step in steps for v in step.inputs}
        sources = {v for v in read if v in self.network.dependent} - inner - cut
        outputs = tuple(v for v in dict.fromkeys(written) if v in self.network.dependent)
        return Booked(account, steps, frozenset(sources), cut, outputs)

    def _row(self, unit: frozenset[Op]) -> Account:
        if unit not in self.rows:
            end = max(unit, key=lambda op: op.index)
            name = "logsumexp" if any(op.primitive is P.LOG for op in unit) else "softmax"
            self.rows[unit] = self._account(end, "softmax", name)
        return self.rows[unit]

    def _account(self, op: Op, kind: str, name: str) -> Account:
        return Account(self._path(op.scope, name), kind)

    def _path(self, scope: str, name: str) -> str:
        base = place(scope, name)
        path, count = base, 0
        while path in self.taken:
            count += 1
            path = f"{base}:{count}"
        self.taken.add(path)
        return path


def _reached(network: Network, rules: Mapping[str, Rule]) -> frozenset[Value]:
    """The values that receive relevance: more than the live ones where a normalizer is no rule's."""
    reached = set(network.live)
    freed = [
        node
        for node in network.nodes
        if isinstance(node, Layer)
        and node.kind == "normalizer"
        and rules[node.path].is_autodiff
        and node.output in reached
    ]
    stack = [v for node in freed for v in node.operands]
    while stack:
        v = stack.pop()
        if v in reached or v not in network.dependent:
            continue
        reached.add(v)
        op = network.graph.producer.get(v)
        if op is not None and op.primitive is not P.STOP_GRADIENT:
            stack.extend(op.inputs)
    return frozenset(reached)


def _softmax_units(network: Network) -> dict[Op, frozenset[Op]]:
    """For each operation of a softmax, all of that softmax: with what its scores are shifted by."""
    graph, found = network.graph, dict[Op, set[Op]]()
    for op in graph.ops:
        if op not in network.softmax:
            continue
        unit = {op}
        for maker in map(graph.producer.get, op.inputs):
            if maker in found and maker.primitive not in (P.DIV, P.LOG):
                unit |= found[maker]
        if op.primitive is P.EXP:
            unit.update(shift(graph, graph.producer.get(op.inputs[0])))
        for member in unit:
            found[member] = unit
    units = {id(unit): frozenset(unit) for unit in found.values()}
    return {op: units[id(unit)] for op, unit in found.items()}


def _is_zero(graph: Graph, value: Value) -> bool:
    """Whether a value is a zero that the program spells out, as padding is."""
    while (op := graph.producer.get(value)) is not None:
        if op.primitive not in P.SHAPE | {P.BROADCAST}:
            return False
        (value,) = op.inputs[:1]
    return value in graph.literals and not np.any(np.asarray(graph.constants[value]))
