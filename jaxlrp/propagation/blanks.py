"""Zeros of the right shape for taps and for the ledger, wherever a layer is."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.network.control_flow import CONTROL_FLOW, leading_axes
from jaxlrp.network.graph import Graph, Op
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Body, Booked, Network
from jaxlrp.propagation.taps import COLUMNS


@dataclasses.dataclass(frozen=True, eq=False)
class Blanks:
    """Zeros for a tap at one layer, of the shape of what is recorded there.

    A scan around the layer puts its length before the layer's own axes. A `shard_map` puts there the
    size of each axis of its mesh, or 1 where all devices along that axis hold the same value.

    Attributes:
      layer: the layer.
      graph: the graph that holds it.
      around: the control flow around it, outermost first.
    """

    layer: Layer
    graph: Graph
    around: tuple[Op, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is recorded of the output."""
        aval = self.graph.avals[self.layer.output]
        return (*(size for size, _ in leading_axes(aval, self.around)), *aval.shape)

    @property
    def output(self) -> Array:
        """Like the layer's output."""
        aval = self.graph.avals[self.layer.output]
        dtype = aval.dtype if jnp.issubdtype(aval.dtype, jnp.inexact) else float
        blank = _compat.zeros(self.shape, dtype, _compat.varying_around(aval))
        return _compat.laid_out(blank, [axis for _, axis in leading_axes(aval, self.around)], aval)


def blanks(network: Network) -> dict[str, Blanks]:
    """The blanks of each layer, by path."""
    return {placed[0].path: Blanks(*placed) for placed in network.placed()}


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
    """For the path of each layer and row, the lengths of the loops around it, outermost first."""
    found: dict[str, tuple[int, ...]] = {}
    for node in network.nodes:
        if isinstance(node, Layer):
            found[node.path] = around
        elif isinstance(node, Booked):
            found[node.account.path] = around
        elif isinstance(node, Body):
            if node.carry is not None:
                found[node.carry.path] = around
            length = CONTROL_FLOW[node.op.primitive].length(node.op)
            inner = around if length is None else (*around, length)
            for body in node.bodies:
                found.update(_lengths(body, inner))
    return found
