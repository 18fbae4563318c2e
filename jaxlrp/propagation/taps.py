"""What is put on the way of the relevance, and the values read there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Graph, Op
from jaxlrp.network.layers import Body, Booked, Layer, Network

# The columns of an account.
RECEIVED, PASSED, BIAS, STABILIZER, MAGNITUDE = range(5)
COLUMNS = 5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Activations:
    """The values at the taps, of layers' outputs, by path."""

    outputs: dict[str, Array] = dataclasses.field(default_factory=dict)

    def update(self, other: Activations) -> None:
        self.outputs.update(other.outputs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Taps:
    """What to put on the way of the relevance, by layer path.

    Attributes:
      outputs: arrays like the layer's output, whose cotangent is that of the output; the layers'
        outputs are given back as well.
      masks: what the relevance of the layer's output is multiplied by.
      ledger: arrays of zeros, one for each column, whose cotangents are the accounts, those of what is
        no layer as well. See `propagate.book`.
    """

    outputs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def of(self, network: Network) -> Taps:
        """Those that lie in a network."""
        paths = {layer.path for layer in network.layers()} | set(network.accounts())
        return jax.tree.map(
            lambda taps: {p: t for p, t in taps.items() if p in paths},
            self,
            is_leaf=lambda node: isinstance(node, Mapping),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Blanks:
    """Zeros to be put on the way at one layer, of the shape of what is recorded there.

    A scan around the layer puts its length before the layer's own axes. A `shard_map` puts there the
    size of each axis of its mesh, or 1 where all devices along that axis hold the same value.

    Attributes:
      layer: the layer.
      graph: the graph that it lies in.
      around: the control flow around it, outermost first.
    """

    layer: Layer
    graph: Graph
    around: tuple[Op, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is recorded of the output."""
        aval = self.graph.avals[self.layer.output]
        return (*_leading(aval, self.around), *aval.shape)

    @property
    def output(self) -> Array:
        """Like the layer's output."""
        return self._zeros(self.graph.avals[self.layer.output])

    def _zeros(self, aval: Any) -> Array:
        leading = _leading(aval, self.around)
        axes = [axis for op in self.around for axis in _leading_axes(aval, op)]
        dtype = aval.dtype if jnp.issubdtype(aval.dtype, jnp.inexact) else float
        blank = _compat.zeros((*leading, *aval.shape), dtype, _compat.varying_around(aval))
        return _compat.laid_out(blank, axes, aval)


def blanks(network: Network) -> dict[str, Blanks]:
    """The blanks of each layer, by path."""
    return {placed[0].path: Blanks(*placed) for placed in _placed(network, ())}


def empty_ledger(network: Network) -> dict[str, Array]:
    """An account of zeros for each layer and whatever else has one, in the order of evaluation.

    A scan puts its length before them. The devices of a `shard_map` inside the function share them.
    """
    lengths = _lengths(network, ())
    axes = axes_around(network)
    return {
        path: _compat.zeros((*before, COLUMNS), float, axes) for path, before in lengths.items()
    }


def axes_around(network: Network) -> frozenset[str]:
    """The axes of a mesh around the function along which anything in it varies."""
    avals = network.graph.avals
    return frozenset().union(*(_compat.varying_around(avals[v]) for v in network.live))


def _lengths(network: Network, around: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """For each layer's and account's path, the lengths of the scans around it, outermost first."""
    found: dict[str, tuple[int, ...]] = {}
    for node in network.nodes:
        if isinstance(node, Layer):
            found[node.path] = around
        elif isinstance(node, Booked):
            found[node.account.path] = around
        elif isinstance(node, Body):
            if node.carry is not None:
                found[node.carry.path] = around
            scanned = node.op.primitive is P.SCAN
            inner = (*around, node.op.params["length"]) if scanned else around
            for body in node.bodies:
                found.update(_lengths(body, inner))
    return found


def _placed(
    network: Network, around: tuple[Op, ...]
) -> Iterator[tuple[Layer, Graph, tuple[Op, ...]]]:
    """Each layer with the graph that it lies in and the control flow around it."""
    for node in network.nodes:
        if isinstance(node, Layer):
            yield node, network.graph, around
        elif isinstance(node, Body):
            for body in node.bodies:
                yield from _placed(body, (*around, node.op))


def _leading_axes(aval: Any, op: Op) -> tuple[str | None, ...]:
    """The axes of the mesh along which the dimensions lie that an operation around a layer adds."""
    if op.primitive is P.SHARD_MAP:
        return shards(aval, op)
    return (None,) if op.primitive is P.SCAN else ()


def _leading(aval: Any, around: tuple[Op, ...]) -> tuple[int, ...]:
    sizes: list[int] = []
    for op in around:
        if op.primitive is P.SCAN:
            sizes.append(op.params["length"])
        elif op.primitive is P.SHARD_MAP:
            mesh = _compat.shard_mesh(op.eqn)
            sizes += [mesh[axis] if axis else 1 for axis in shards(aval, op)]
    return tuple(sizes)


def shards(aval: Any, op: Op) -> tuple[str | None, ...]:
    """For each axis of a `shard_map`'s mesh: its name, or None where a value is the same along it."""
    held = _compat.varying(aval) if _compat.tracks_varying(op.eqn) else _compat.shard_mesh(op.eqn)
    return tuple(axis if axis in held else None for axis in _compat.shard_mesh(op.eqn))


def placements(network: Network, op: Op) -> dict[str, Any]:
    """By path, how the output of each layer in a body of `shard_map` lies on the mesh."""
    return {
        layer.path: _compat.partition(shards(graph.avals[layer.output], op))
        for layer, graph, _ in _placed(network, ())
    }
