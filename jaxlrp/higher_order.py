"""Relevance of several things together: walks through a graph network, pairs of inputs' features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlrp.composites import Composite
from jaxlrp.errors import near
from jaxlrp.explanation import explain, plan
from jaxlrp.numerics import wide, widen
from jaxlrp.planning import Plan

__all__ = ["pairs", "walks", "walks_along"]


def walks(
    fun: Any,
    layers: Sequence[str],
    composite: Composite | Plan | None = None,
    *,
    node_axis: int = 0,
    argnums: int = 0,
    chunk: int = 32,
) -> Callable[..., Array]:
    r"""Relevance of walks through a graph network: which chain of nodes carried it (GNN-LRP).

    R_(J, K, L, ...) is what is left at node J of the input when, on the way back, only node K keeps
    its relevance at the output of the first of `layers`, only L at that of the second, and so on. The
    relevance of all walks together is that of the input.

    Args:
      fun: a function of arrays or an NNX module, of one graph.
      layers: paths of layers, from the input to the output, one for each step: the last operation of
        each block, say, where its features are complete. `lrp.plan` lists paths.
      composite: the rules; `composites.default()` if None. The paper has gamma, falling from layer to
        layer.
      node_axis: the axis of the nodes, in the explained argument and in the outputs of the layers.
      argnums: the position of the explained argument.
      chunk: how many backward passes run at once, >= 1. Changes memory and speed alone.

    Returns:
      A function `(*args, walks, target=None, **kwargs) -> (M,)`: relevance of each walk, summed over
      features. `walks` is an integer array (M, len(layers) + 1), not traced: the node at the input, then
      at each layer. One forward pass, and one backward pass for each different walk behind the first
      node.

    Raises:
      ValueError: if a path is unknown, an axis has no nodes, or a node is out of range.

    References:
      Schnake et al. (2021), https://doi.org/10.1109/TPAMI.2021.3115452

    Example:
      >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
      >>> net = lambda x: (edges @ (edges @ x)).sum()
      >>> explain = walks(net, ["dot_general", "dot_general:1"])
      >>> found = explain(jnp.ones((3, 1)), walks=[[0, 1, 2], [0, 2, 2]])
      >>> jnp.rint(found).astype(int).tolist()
      [1, 0]
    """
    if not layers or isinstance(layers, str):
        raise ValueError(f"layers must be paths of one or more layers, got {layers!r}")
    explained = explain(fun, composite, argnums=argnums)

    def of_walks(*args: Any, walks: ArrayLike, target: Any = None, **kwargs: Any) -> Array:
        given = np.asarray(walks)
        nodes = _nodes(fun, composite, layers, args, kwargs, argnums, node_axis)
        _check_walks(given, nodes)
        behind, which = np.unique(given[:, 1:], axis=0, return_inverse=True)

        def passed_by(step: Array) -> Array:
            keep = {
                path: jax.nn.one_hot(node, count).reshape(shape)
                for path, node, (count, shape) in zip(layers, step, nodes[1:], strict=True)
            }
            found = explained(*args, target=target, condition=keep, **kwargs).relevance
            rest = tuple(a for a in range(found.ndim) if a != node_axis % found.ndim)
            return widen(found).sum(axis=rest)

        relevance = lax.map(passed_by, jnp.asarray(behind), batch_size=chunk)
        return relevance[which.reshape(-1), given[:, 0]]

    return of_walks


def _nodes(
    fun: Any,
    composite: Any,
    layers: Sequence[str],
    args: tuple,
    kwargs: dict,
    argnums: int,
    axis: int,
) -> list[tuple[int, tuple[int, ...]]]:
    """How many nodes there are at the input and at each layer, and the shape of a mask over them."""
    rows = {row.path: row for row in plan(fun, composite, *args, argnums=argnums, **kwargs).rows}
    found = []
    for path, shape in [("", jnp.shape(args[argnums])), *((p, None) for p in layers)]:
        if shape is None:
            if path not in rows:
                raise ValueError(f"there is no layer {path!r}: {near(path, rows)}")
            shape = rows[path].output_shape
        if not -len(shape) <= axis < len(shape):
            place = f"layer {path!r}" if path else "the explained argument"
            raise ValueError(f"node_axis={axis} is no axis of {place}, of shape {shape}")
        mask = [1] * len(shape)
        mask[axis] = shape[axis]
        found.append((shape[axis], tuple(mask)))
    return found


def _check_walks(given: np.ndarray, nodes: list[tuple[int, tuple[int, ...]]]) -> None:
    if given.ndim != 2 or given.shape[1] != len(nodes) or given.dtype.kind not in "iu":
        raise ValueError(
            f"walks must be integers of shape (M, {len(nodes)}), a node at the input and one at each of "
            f"the {len(nodes) - 1} layers, got {given.dtype} of shape {given.shape}"
        )
    for i, (count, _) in enumerate(nodes):
        if len(given) and (given[:, i].min() < 0 or given[:, i].max() >= count):
            raise ValueError(
                f"walks must name nodes from 0 to {count - 1} at step {i}, got {given[:, i].min()} to "
                f"{given[:, i].max()}"
            )


def walks_along(edges: ArrayLike, length: int, *, most: int = 1_000_000) -> np.ndarray:
    """All walks of a length along the edges of a graph.

    Args:
      edges: (N, N), not zero where a step from a node (row) to a node (column) is possible. Graph
        networks that keep a node's own features have a diagonal that is not zero.
      length: how many steps, >= 1.
      most: how many walks to make at most.

    Returns:
      Integers (M, length + 1), in lexicographic order.

    Raises:
      ValueError: if `edges` is no square matrix, `length` < 1, or there are more walks.

    Example:
      >>> walks_along([[1, 1], [0, 1]], 2).tolist()
      [[0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]]
    """
    possible = np.asarray(edges) != 0
    if possible.ndim != 2 or possible.shape[0] != possible.shape[1] or length < 1:
        raise ValueError(
            f"edges must be a square matrix and length >= 1, got shape {possible.shape}, {length=}"
        )
    count = np.ones(len(possible))
    for _ in range(length):
        count = possible @ count
    if count.sum() > most:
        raise ValueError(f"there are {count.sum():.3g} walks, more than most={most}")
    found = np.arange(len(possible))[:, None]
    for _ in range(length):
        walk, step = np.nonzero(possible[found[:, -1]])
        found = np.concatenate([found[walk], step[:, None]], axis=1)
    return found


def pairs(
    embed: Any,
    composite: Composite | Plan | None = None,
    *,
    pool: Callable[[Array], Array] | None = None,
    chunk: int = 32,
) -> Callable[[Array, Array], Array]:
    r"""Which features of two inputs make them alike (BiLRP): a second-order explanation.

    y = <phi(x), phi(x')>,   R_ij = sum_m R_i(phi_m(x)) R'_j(phi_m(x'))

    where R(phi_m) is the relevance of the input for the m-th output alone. Up to what rules absorb, it
    sums to y.

    Args:
      embed: phi, of one example: an array to an array, of any shape.
      composite: the rules; `composites.default()` if None.
      pool: from relevance of the input's shape to a smaller array, such as sums over patches. The result
        has as many entries as two of these multiplied.
      chunk: how many outputs are explained at once, >= 1. Changes memory and speed alone.

    Returns:
      A function of two inputs (x, x') to R, (*shape of pooled x, *shape of pooled x').

    References:
      Eberle et al. (2020), https://doi.org/10.1109/TPAMI.2020.3020738

    Example:
      >>> w = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> found = pairs(lambda x: x @ w)(jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0]))
      >>> jnp.rint(found).astype(int).tolist()
      [[3, 1], [6, 4]]
    """
    explained = explain(embed, composite)

    def each(x: Array) -> Array:
        size = np.prod(jax.eval_shape(embed, x).shape, dtype=int)

        def of_output(m: Array) -> Array:
            def alone(out: Array) -> Array:
                return jnp.where(jnp.arange(size).reshape(out.shape) == m, out, jnp.zeros_like(out))

            found = explained(x, target=alone).relevance
            return widen(found if pool is None else pool(found))

        return lax.map(of_output, jnp.arange(size), batch_size=min(chunk, size))

    def of_pair(x: Array, other: Array) -> Array:
        a, b = each(jnp.asarray(x)), each(jnp.asarray(other))
        if len(a) != len(b):
            raise ValueError(f"both inputs must have as many outputs, got {len(a)} and {len(b)}")
        dtype = wide(a.dtype, b.dtype)
        return jnp.tensordot(a.astype(dtype), b.astype(dtype), axes=(0, 0), precision="highest")

    return of_pair
