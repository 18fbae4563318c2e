"""Which values depend on the explained input, and through which uses relevance flows to it.

Integers and booleans are followed like floats. A value is *dependent* if relevance can flow from
it to the input. It is merely *touched* if it is computed from the input by an operation that ends
relevance: a comparison, the position of a maximum, `stop_gradient`. Such an operation is a *cut*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.control_flow import CONTROL_FLOW, ControlFlow
from jaxlrp.network.graph import Graph, Op, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Dependence:
    """How the values of a graph depend on its explained inputs.

    Attributes:
      graph: the graph.
      explained: those inputs.
      dependent: the values from which relevance can flow to them, of any dtype.
      touched: all values computed from them.
      lookups: operations on constants whose integer or boolean operand depends on the input: what they
        give is looked up by it.
      bodies: of each dependent operation of control flow, its bodies.
    """

    graph: Graph
    explained: frozenset[Value]
    dependent: frozenset[Value]
    touched: frozenset[Value]
    lookups: frozenset[Op]
    bodies: Mapping[Op, tuple[Dependence, ...]]

    def is_cut(self, op: Op) -> bool:
        """Whether an operation takes dependent values and relevance flows through none of its results."""
        return any(v in self.dependent for v in op.inputs) and not any(
            v in self.dependent for v in op.outputs
        )


def is_inexact(graph: Graph, value: Value) -> bool:
    """Whether a value is a real or complex number rather than an integer or a truth value."""
    dtype = getattr(graph.avals[value], "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def is_discrete(graph: Graph, value: Value) -> bool:
    """Whether a value is an integer or a truth value."""
    dtype = getattr(graph.avals[value], "dtype", None)
    return dtype is not None and (jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_)


def carrying(op: Op) -> tuple[int, ...]:
    """The positions of the operands that hold values; the others hold indices and predicates."""
    p, n = op.primitive, len(op.inputs)
    if p in (P.GATHER, P.DYNAMIC_SLICE):
        return (0,)
    if p is P.DYNAMIC_UPDATE:
        return (0, 1)
    if p in P.SCATTER | P.SCATTER_MAXIMA | {P.SCATTER_MUL}:
        return (0, 2)
    if p in (P.SELECT, P.COND):
        return tuple(range(1, n))
    if p is P.RAGGED_DOT:
        return (0, 1)
    return tuple(range(n))


def depend(graph: Graph, explained: Iterable[Value]) -> Dependence:
    """Follows the explained inputs through a graph and the bodies of its control flow."""
    return _Follower(graph, explained).follow()


class _Follower:
    def __init__(self, graph: Graph, explained: Iterable[Value]) -> None:
        self.graph = graph
        self.explained = frozenset(
            v for v in explained if is_inexact(graph, v) or is_discrete(graph, v)
        )
        self.dependent: set[Value] = set(self.explained)
        self.touched: set[Value] = set(self.explained)
        self.lookups: set[Op] = set()
        self.bodies: dict[Op, tuple[Dependence, ...]] = {}

    def follow(self) -> Dependence:
        for op in self.graph.ops:
            if any(v in self.touched for v in op.inputs):
                self.touched.update(op.outputs)
                self.dependent.update(v for v in self._results(op) if self._can_depend(v))
        return Dependence(
            self.graph,
            self.explained,
            frozenset(self.dependent),
            frozenset(self.touched),
            frozenset(self.lookups),
            self.bodies,
        )

    def _can_depend(self, value: Value) -> bool:
        return is_inexact(self.graph, value) or is_discrete(self.graph, value)

    def _results(self, op: Op) -> Sequence[Value]:
        """The results from which relevance can flow on to the input."""
        moving = [i for i, v in enumerate(op.inputs) if v in self.dependent]
        p = op.primitive
        if not moving or p is P.STOP_GRADIENT or p in P.CONSTANTS | P.RANDOM:
            return ()
        if (flow := CONTROL_FLOW.get(p)) is not None:
            return self._through_bodies(op, flow)
        if p in P.TESTS:
            if self._encodes(op):
                self.lookups.add(op)
                return op.outputs
            return ()
        if p is P.CONVERT:
            return self._cast(op)
        if p is P.SORT:
            return [op.outputs[i] for i in moving]
        if p in P.TOP_K:
            return op.outputs[:1]
        if set(moving) & set(carrying(op)):
            return op.outputs
        if p in P.LOOKUPS:
            self.lookups.add(op)
            return op.outputs
        return ()

    def _cast(self, op: Op) -> Sequence[Value]:
        from_truth = self.graph.avals[op.inputs[0]].dtype == jnp.bool_
        to_truth = op.params["new_dtype"] == jnp.bool_
        return () if to_truth and not from_truth else op.outputs

    def _encodes(self, op: Op) -> bool:
        """Whether integers are held equal with several numbers each, as for a one-hot vector.

        Other comparisons are masks: `ids > 0`, `ids == 3`, `arange(n) < length`.
        """
        if op.primitive not in P.EQUALITIES:
            return False
        moving = [v for v in op.inputs if v in self.dependent]
        if len(moving) != 1 or not is_discrete(self.graph, moving[0]) or len(op.inputs) != 2:
            return False
        (other,) = [v for v in op.inputs if v != moving[0]] or [moving[0]]
        return bool(varying_dims(self.graph, other) - varying_dims(self.graph, moving[0]))

    def _through_bodies(self, op: Op, flow: ControlFlow) -> list[Value]:
        found = []
        for body in flow.bodies(op):
            pairs = zip(body.inputs, flow.operands(op), strict=True)
            explained = {inner for inner, outer in pairs if outer in self.dependent}
            found.append(_until_stable(body, explained, flow.carried(op, body)))
        if op.primitive in P.BODIES:
            self.bodies[op] = tuple(found)
        return [
            outer
            for i, outer in enumerate(op.outputs)
            if any(flow.results(op, body.graph)[i] in body.dependent for body in found)
        ]


def _until_stable(
    graph: Graph, explained: set[Value], carry: Sequence[tuple[Value, Value]]
) -> Dependence:
    """The dependence in a body, following the carry of a loop until nothing more is found."""
    while True:
        found = depend(graph, explained)
        more = {a for a, b in carry if b in found.dependent} - explained
        if not more:
            return found
        explained |= more


def varying_dims(graph: Graph, value: Value, depth: int = 64) -> frozenset[int]:
    """The dimensions along which a value may vary, as far as broadcasts tell."""
    shape = graph.shape(value)
    wide = frozenset(d for d, n in enumerate(shape) if n != 1)
    op = graph.producer.get(value)
    if op is None or depth == 0 or not wide:
        return wide
    if op.primitive is P.BROADCAST:
        source = varying_dims(graph, op.inputs[0], depth - 1)
        dims = op.params["broadcast_dimensions"]
        return frozenset(dims[d] for d in source)
    if op.primitive in P.ELEMENTWISE:
        parts = (varying_dims(graph, v, depth - 1) for v in op.inputs if graph.shape(v))
        return frozenset().union(*parts)
    if op.primitive is P.TRANSPOSE:
        source = varying_dims(graph, op.inputs[0], depth - 1)
        return frozenset(d for d, p in enumerate(op.params["permutation"]) if p in source)
    return wide


# The positions that an index comes from


@dataclasses.dataclass(frozen=True, eq=False)
class Trail:
    """How an index, or a predicate, is computed from the values that it stands for.

    The relevance of what is looked up belongs to them: it goes back along the trail, from each position
    to those that it came from, through all integer arithmetic in between.

    Attributes:
      sources: where the trail begins: inputs of the graph, and floats that were cast to integers.
      ops: the operations of the trail, in order.
      ends: the operands of the lookup that it leads to.
    """

    sources: tuple[Value, ...]
    ops: tuple[Op, ...]
    ends: tuple[Value, ...]


_ALONG = P.ELEMENTWISE | P.MOVES | P.TOP_K | {P.SORT, P.PAD, P.CONCATENATE, P.DYNAMIC_UPDATE} | (
    P.SCATTER | _compat.primitives("stack")
)  # fmt: skip


def trail_of(dependence: Dependence, lookup: Op) -> Trail:
    """Where the index of a lookup comes from."""
    ends = dict.fromkeys(v for v in lookup.inputs if v in dependence.dependent)
    return trail_to(dependence, tuple(ends))


def trail_to(dependence: Dependence, ends: tuple[Value, ...]) -> Trail:
    """Where integers that look something up come from."""
    graph, dependent = dependence.graph, dependence.dependent
    sources: dict[Value, None] = {}
    ops: set[Op] = set()
    stack, seen = list(ends), set(ends)
    while stack:
        value = stack.pop()
        op = graph.producer.get(value)
        if op is None or is_inexact(graph, value) or op.primitive not in _ALONG:
            sources[value] = None
            continue
        if op in dependence.lookups:
            sources[value] = None
            continue
        ops.add(op)
        for i in carrying(op):
            v = op.inputs[i]
            if v in dependent and v not in seen:
                seen.add(v)
                stack.append(v)
    return Trail(tuple(sorted(sources)), tuple(sorted(ops, key=lambda op: op.index)), ends)


def cuts_before(dependence: Dependence, outputs: Iterable[Value]) -> tuple[Op, ...]:
    """The operations at which the way from these outputs to the explained input is cut."""
    found: dict[Op, None] = {}
    stack, seen = list(outputs), set[Value]()
    while stack:
        value = stack.pop()
        op = dependence.graph.producer.get(value)
        if value in seen or op is None or value not in dependence.touched:
            continue
        seen.add(value)
        if dependence.is_cut(op):
            found[op] = None
        elif value not in dependence.dependent:
            stack.extend(op.inputs)
    return tuple(sorted(found, key=lambda op: op.index))
