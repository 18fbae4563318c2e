"""Facts about a graph: which values depend on the input, through which operations, in which range.

All of them follow from structure, never from the name of a function or a module.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container, Iterable, Iterator, Mapping

from jaxlrp.network import primitives as P
from jaxlrp.network.control_flow import CONTROL_FLOW
from jaxlrp.network.denominators import fixed_uses
from jaxlrp.network.dependence import (
    Dependence,
    Trail,
    carrying,
    depend,
    is_inexact,
    trail_of,
    trail_to,
)
from jaxlrp.network.dominators import dominators
from jaxlrp.network.graph import Graph, Op, Value
from jaxlrp.network.intervals import ANY, Bounds, intervals
from jaxlrp.network.mixtures import Mixture
from jaxlrp.network.softmax import softmaxes

__all__ = ["ANY", "Bounds", "Edge", "Structure", "analyze", "is_inexact"]

Edge = tuple[Op, int]  # an operation's use of its i-th operand


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """What analysis found in a graph.

    Attributes:
      graph: the graph itself.
      dependence: how values depend on the explained input.
      carrying: dependent values that the input reaches by uses that carry relevance.
      live: dependent values from which relevance can reach the input: not those whose only way to
        the output leads through a cut.
      cuts: uses that carry no relevance: a normalizer's denominator, an index, a predicate.
      trails: of each lookup, where its index comes from.
      codes: live integers and truth values that do nothing but look something up.
      renamed: of those that look up inside control flow, where they come from outside of it.
      softmax: the operations of softmaxes, which autodiff treats as a whole.
      weights: those of them that give the weights.
      mixtures: values that a softmax weighs, where it is normalized after the product.
      dominator: for the result of an elementwise operation, the one value that it is a function of.
      bounds: what is known of the range of each value.
      random: values drawn at random, and what is made of them without the explained input.
      given: values computed from inputs or captured arrays; all others are written in the program.
      bodies: of each live operation of control flow, its bodies.
    """

    graph: Graph
    dependence: Dependence
    carrying: frozenset[Value]
    live: frozenset[Value]
    cuts: frozenset[Edge]
    trails: Mapping[Op, Trail]
    codes: frozenset[Value]
    renamed: Mapping[Value, Trail]
    softmax: frozenset[Op]
    weights: frozenset[Op]
    mixtures: tuple[Mixture, ...]
    dominator: Mapping[Value, Value]
    bounds: Mapping[Value, Bounds]
    random: frozenset[Value]
    given: frozenset[Value]
    bodies: Mapping[Op, tuple[Structure, ...]]

    @functools.cached_property
    def flowing(self) -> frozenset[Value]:
        """The live values through whose operations relevance flows one by one."""
        return self.live - self.renamed.keys()

    @functools.cached_property
    def live_ops(self) -> tuple[Op, ...]:
        """The operations that give those values, in order."""
        return tuple(op for op in self.graph.ops if any(v in self.flowing for v in op.outputs))

    def open_ops(self, taken: Container[Op]) -> Iterator[tuple[Op, tuple[Value, ...]]]:
        """Those that may still become a layer, with the operands through which relevance flows."""
        for op in self.live_ops:
            if op in taken or op in self.softmax or op.primitive in P.BODIES:
                continue
            if sources := self.sources(op):
                yield op, sources

    def is_complex(self, value: Value) -> bool:
        """Whether a value is complex. Autodiff treats functions of it as linear over the reals."""
        return self.graph.avals[value].dtype.kind == "c"

    @property
    def dependent(self) -> frozenset[Value]:
        """The values from which relevance can flow to the explained input, of any dtype."""
        return self.dependence.dependent

    def sources(self, op: Op) -> tuple[Value, ...]:
        """The live operands of an operation through which relevance flows, in order."""
        return tuple(
            v
            for i, v in enumerate(op.inputs)
            if v in self.live and v in self.carrying and (op, i) not in self.cuts
        )


def analyze(
    graph: Graph,
    explained: Iterable[Value],
    bounds: Mapping[Value, Bounds] | None = None,
    outputs: Iterable[Value] | None = None,
) -> Structure:
    """Analyses a graph.

    Args:
      graph: the graph.
      explained: the inputs to explain.
      bounds: what is known of the range of the inputs.
      outputs: the outputs that carry relevance; all by default.
    """
    prepared = _prepare(depend(graph, explained), bounds or {})
    return _alive(prepared, graph.outputs if outputs is None else outputs)


def _prepare(dependence: Dependence, bounds: Mapping[Value, Bounds]) -> Structure:
    """All that does not depend on which outputs carry relevance."""
    graph, dependent = dependence.graph, dependence.dependent
    dominator = dominators(graph, dependent)
    found = softmaxes(graph, dependent)
    whole = found.ops | {mixture.end for mixture in found.mixtures}
    cuts = _positions(dependence) | fixed_uses(graph, dependent, dominator, whole)
    drawn = {v for op in graph.ops if op.primitive in P.RANDOM for v in op.outputs}
    return Structure(
        graph=graph,
        dependence=dependence,
        carrying=_carrying(dependence, cuts),
        live=frozenset(),
        cuts=cuts,
        trails={op: trail_of(dependence, op) for op in dependence.lookups},
        codes=frozenset(),
        renamed={},
        softmax=found.ops,
        weights=found.ends,
        mixtures=found.mixtures,
        dominator=dominator,
        bounds=intervals(graph, bounds),
        random=_derived(graph, drawn) - dependence.touched,
        given=_derived(graph, {*graph.inputs, *graph.constants} - graph.literals),
        bodies={},
    )


def _alive(structure: Structure, outputs: Iterable[Value]) -> Structure:
    """The structure with what is live if relevance begins at these outputs."""
    dependent, graph = structure.dependent, structure.graph
    numbers = {v for v in outputs if v in dependent}  # read otherwise than to look something up
    codes: set[Value] = set()
    renamed: dict[Value, Trail] = {}
    bodies: dict[Op, tuple[Structure, ...]] = {}
    for op in reversed(graph.ops):
        read = {v for v in op.outputs if v in numbers or v in codes}
        if not read or all(v in renamed and v not in numbers for v in read):
            continue
        if op in structure.trails:
            codes.update(structure.trails[op].sources)
        elif op in structure.dependence.bodies:
            bodies[op] = _bodies(structure, op, numbers | codes)
            for v, is_code in _wanted(op, bodies[op]).items():
                if v not in dependent:
                    continue
                if not is_code:
                    numbers.add(v)
                    continue
                codes.add(v)
                trail = trail_to(structure.dependence, (v,))
                if trail.sources != (v,):
                    renamed[v] = trail
                    codes.update(trail.sources)
        else:
            numbers.update(
                v
                for i, v in enumerate(op.inputs)
                if v in dependent and (op, i) not in structure.cuts
            )
    return dataclasses.replace(
        structure,
        live=frozenset(numbers | codes),
        codes=frozenset(v for v in codes - numbers if not is_inexact(graph, v)),
        renamed={v: trail for v, trail in renamed.items() if v not in numbers},
        bodies=bodies,
    )


def _bodies(structure: Structure, op: Op, live: set[Value]) -> tuple[Structure, ...]:
    """The bodies of an operation of control flow, some of whose results are live."""
    found, flow = [], CONTROL_FLOW[op.primitive]
    for dependence in structure.dependence.bodies[op]:
        graph = dependence.graph
        pairs = list(zip(graph.inputs, flow.operands(op), strict=True))
        carry = flow.carried(op, graph)
        del pairs[flow.carry(op)]  # what is known of an initial carry need not hold later
        known = {inner: structure.bounds[v] for inner, v in pairs if v in structure.bounds}
        prepared = _prepare(dependence, known)
        wanted = {a for a, b in zip(graph.outputs, op.outputs, strict=True) if b in live}
        while True:  # until all live values of the carry are known
            body = _alive(prepared, wanted)
            more = {b for a, b in carry if a in body.live} - wanted
            if not more:
                break
            wanted |= more
        found.append(body)
    return tuple(found)


def _wanted(op: Op, bodies: tuple[Structure, ...]) -> dict[Value, bool]:
    """The operands that are live in a body, and whether they are codes wherever they are."""
    found: dict[Value, bool] = {}
    operands = CONTROL_FLOW[op.primitive].operands(op)
    for body in bodies:
        for inner, outer in zip(body.graph.inputs, operands, strict=True):
            if inner in body.live:
                found[outer] = found.get(outer, True) and inner in body.codes
    return found


def _positions(dependence: Dependence) -> frozenset[Edge]:
    """Uses of dependent values as indices and predicates; a lookup's are followed by its trail."""
    return frozenset(
        (op, i)
        for op in dependence.graph.ops
        if op not in dependence.lookups
        for i in set(range(len(op.inputs))) - set(carrying(op))
        if op.inputs[i] in dependence.dependent
    )


def _carrying(dependence: Dependence, cuts: frozenset[Edge]) -> frozenset[Value]:
    found = set(dependence.explained)
    for op in dependence.graph.ops:
        if any(v in found and (op, i) not in cuts for i, v in enumerate(op.inputs)):
            found.update(v for v in op.outputs if v in dependence.dependent)
    return frozenset(found)


def _derived(graph: Graph, values: set[Value]) -> frozenset[Value]:
    """Those values and all that is computed from them."""
    found = set(values)
    for op in graph.ops:
        if any(v in found for v in op.inputs):
            found.update(op.outputs)
    return frozenset(found)
