"""A graph cut up into nodes: layers, and the operations between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxlrp.network.analysis import Structure, is_inexact
from jaxlrp.network.dependence import Trail
from jaxlrp.network.graph import Graph, Op, Step, Value
from jaxlrp.network.layers import Layer


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """Operations left to autodiff, which is LRP-0 for them, or that carry no relevance at all.

    Attributes:
      steps: the operations.
      cut: the positions of operands whose use carries no relevance.
      scaled: the value that a single operation multiplies or divides by a constant, if it does.
    """

    steps: tuple[Step, ...]
    cut: frozenset[int] = frozenset()
    scaled: Value | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """Control flow: the operation and the layers of its bodies.

    Attributes:
      op: the operation.
      bodies: its bodies.
      carry: the row of the ledger for what a `scan` begins with.
      fixed: which inputs of the `scan` these are: initial carries that do not depend on the explained
        input and take relevance all the same, since the values that replace them later do depend on it.
    """

    op: Op
    bodies: tuple[Network, ...]
    carry: Account | None = None
    fixed: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Account:
    """A row of the ledger that is not a layer.

    Attributes:
      path: unique among the paths of layers and accounts.
      kind: one of `jaxlrp.propagation.ledger_rows.KINDS`, or that of the layer that it stands for.
    """

    path: str
    kind: str


@dataclasses.dataclass(frozen=True, eq=False)
class Booked:
    """Operations outside layers whose relevance the ledger books; see `jaxlrp.accounts`.

    Attributes:
      account: where it is booked; several nodes may have one account.
      steps: the operations; none where only values are booked, those that end the network.
      sources: the values that relevance flows to, where they come from outside the account.
      cut: the values whose use carries no relevance.
      outputs: the values that relevance comes from.
    """

    account: Account
    steps: tuple[Step, ...]
    sources: frozenset[Value]
    cut: frozenset[Value]
    outputs: tuple[Value, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Renamed:
    """An integer that looks something up inside control flow, and where it comes from outside.

    Attributes:
      value: the integer.
      trail: where it comes from.
    """

    value: Value
    trail: Trail


Node = Layer | Plain | Body | Booked | Renamed


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A graph cut up into nodes, in an order of evaluation.

    Attributes:
      graph: the graph.
      nodes: its operations, each in one node.
      structure: what analysis found in it.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    structure: Structure

    @property
    def live(self) -> frozenset[Value]:
        """The values that relevance can reach."""
        return self.structure.live

    @property
    def dependent(self) -> frozenset[Value]:
        """The values from which relevance can flow to the explained input."""
        return self.structure.dependent

    @property
    def softmax(self) -> frozenset[Op]:
        """The operations of softmax units."""
        return self.structure.softmax

    def is_discrete(self, value: Value) -> bool:
        """Whether a value is an integer or a truth value that carries relevance."""
        return value in self.live and not is_inexact(self.graph, value)

    def placed(self, around: tuple[Op, ...] = ()) -> Iterator[tuple[Layer, Graph, tuple[Op, ...]]]:
        """Each layer with the graph that it is in and the control flow around it, outermost first."""
        for node in self.nodes:
            if isinstance(node, Layer):
                yield node, self.graph, around
            elif isinstance(node, Body):
                for body in node.bodies:
                    yield from body.placed((*around, node.op))

    def layers(self) -> tuple[Layer, ...]:
        """All layers, those inside control flow included, in the order of evaluation."""
        return tuple(layer for layer, _, _ in self.placed())

    def paths(self) -> set[str]:
        """The paths of all layers and of all other rows of the ledger."""
        return {layer.path for layer in self.layers()} | set(self.accounts())

    def accounts(self) -> dict[str, str]:
        """The kinds of all accounts by path, those inside control flow included."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, Booked):
                found[node.account.path] = node.account.kind
            elif isinstance(node, Body):
                if node.carry is not None:
                    found[node.carry.path] = node.carry.kind
                for body in node.bodies:
                    found.update(body.accounts())
        return found
