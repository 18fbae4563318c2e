"""Initial carries that take relevance: what a loop over time begins with.

Going back through a `scan`, relevance of the first step flows on to the initial carry. If that depends
on the explained input it flows further; if not, as a learned initial state does not, it ends there. The
ledger says how much that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp import primitives as P
from jaxlrp import propagate
from jaxlrp.layers import Body, Network


def fixed(network: Network, prefix: tuple[int, ...] = ()) -> dict[str, tuple[Any, ...]]:
    """The shapes and dtypes of the initial carries in which relevance ends, by path of the ledger.

    Args:
      network: the network; what lies in branches of a `cond` is left out.
      prefix: the lengths of the scans around it, outermost first.

    Returns:
      `(shape, dtype)` of each; the shape begins with the lengths of the scans around that scan.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for node in network.nodes:
        if not isinstance(node, Body) or node.op.primitive is P.COND:
            continue
        if node.fixed:
            avals = [network.graph.avals[node.op.inputs[i]] for i in node.fixed]
            found[node.carry] = tuple(((*prefix, *aval.shape), aval.dtype) for aval in avals)
        scanned = node.op.primitive is P.SCAN
        inner = (*prefix, node.op.params["length"]) if scanned else prefix
        for body in node.bodies:
            found.update(fixed(body, inner))
    return found


def zeros(network: Network) -> Mapping[str, tuple[Array, ...]]:
    """Arrays of zeros like these carries, by path: taps, see `interpreter.Taps`."""
    return {
        path: tuple(jnp.zeros(shape, dtype) for shape, dtype in carries)
        for path, carries in fixed(network).items()
    }


def tap(
    node: Body, inputs: Sequence[Any], deltas: tuple[Array, ...]
) -> tuple[list[Any], tuple[Array, ...]]:
    """The inputs of a scan with taps on its fixed initial carries, and those carries."""
    tapped = list(inputs)
    for i, delta in zip(node.fixed, deltas, strict=True):
        tapped[i] = propagate.tap(jnp.asarray(inputs[i]), delta)
    return tapped, tuple(tapped[i] for i in node.fixed)
