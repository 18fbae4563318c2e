"""Relevance of given walks through a graph network (GNN-LRP), and enumeration of the walks of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.higher_order.stages import Stages, stages_of
from jaxlrp.network.model import Function
from jaxlrp.targets import Target


def walks(
    fun: Function,
    layers: Sequence[str],
    composite: CompositeLike = None,
    *,
    node_axis: int = 0,
    argnums: int | Sequence[int] | None = None,
    from_input: bool = True,
    batch_size: int = 32,
) -> Callable[..., Array]:
    r"""Relevance of walks through a graph network: which chain of nodes carried it (GNN-LRP).

    R_(J, K, L, ...) is the relevance that remains at node J of the input if, in the backward pass, only
    node K keeps its relevance at the output of the first of `layers`, only L at that of the second, and so
    on. If the network has a path around a layer, -1 stands for relevance that took this path. The
    relevance of all walks sums to that of the input.

    Args:
      fun: a function of arrays or an NNX module, of one graph.
      layers: paths of layers, from input to output, one per step: for example the last operation of
        each block, where its features are complete. `lrp.plan` lists paths.
      composite: the rules; `composites.default()` if None. The paper uses gamma, decreasing from layer to
        layer.
      node_axis: the axis of the nodes, in the explained argument and in the outputs of the layers. Their
        number may differ between layers: some may be atoms, others bonds.
      argnums: the position of the explained argument.
      from_input: whether a walk begins at a node of the explained argument. False: it begins at a
        layer, and includes all relevance that continues from there to the explained arguments. There may
        then be several arguments, of any shapes.
      batch_size: number of simultaneous backward passes, >= 1. Only affects memory and speed.

    Returns:
      A function `(*args, walks, target=None, **kwargs) -> (M,)`: relevance of each walk, summed over
      features. `walks` is an integer array (M, len(layers) + 1), not traced: the node at the input, then
      at each layer; without the first column if `from_input` is False. Each distinct suffix of a walk takes
      one backward pass through one block.

    Raises:
      ValueError: if a path is unknown or inside a scan, an axis has no nodes, or a node is out of range.

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
    stages = stages_of(fun, layers, composite, node_axis, argnums, from_input, batch_size)

    def of_walks(*args: Any, walks: ArrayLike, target: Target = None, **kwargs: Any) -> Array:
        given = np.asarray(walks)
        stages.check_single(args, kwargs)
        _check_walks(given, stages.nodes(args, kwargs), from_input)
        return _relevance(stages, args, kwargs, target, given)

    return of_walks


def _relevance(
    stages: Stages, args: tuple, kwargs: dict, target: Target, given: np.ndarray
) -> Array:
    """Propagates relevance from the output, once along each distinct suffix of a walk."""
    count = len(stages.layers)
    steps = given[:, given.shape[1] - count :]
    begins = given[:, 0] if stages.from_input else np.zeros(len(given), int)
    output = stages.from_output(args, kwargs, target)
    arrived = {count: jax.tree.map(lambda a: a[None], output)}
    # The last position of the relevance of each walk: the layer (`count`: the output), and the index of
    # its suffix there.
    last, end = np.full(len(given), count), np.zeros(len(given), int)
    for layer in range(count - 1, -1, -1):
        here = steps[:, layer] >= 0
        if not here.any():
            continue
        ends, which = np.unique(
            np.stack([last[here], end[here], steps[here, layer]], axis=1),
            axis=0,
            return_inverse=True,
        )
        features = _gather(ends, {came: a.layers[layer] for came, a in arrived.items()})
        arrived[layer] = stages.from_nodes(layer, args, kwargs, jnp.asarray(ends[:, 2]), features)
        last[here], end[here] = layer, which.reshape(-1)
    rows = np.stack([last, end, begins], axis=1)
    return _gather(rows, {came: a.input for came, a in arrived.items()})


def _gather(rows: np.ndarray, arrays: Mapping[int, Array]) -> Array:
    """`arrays[layer][index, node]` of each (layer, index, node) row."""
    order = np.argsort(rows[:, 0], kind="stable")
    parts = []
    for came in np.unique(rows[:, 0]).tolist():
        index, node = rows[rows[:, 0] == came, 1:].T
        parts.append(arrays[came][index, node])
    # sorted by layer; the inverse permutation restores the order of the rows
    return jnp.concatenate(parts)[np.argsort(order)]


def _check_walks(given: np.ndarray, nodes: list[int], from_input: bool) -> None:
    if given.ndim != 2 or given.shape[1] != len(nodes) or given.dtype.kind not in "iu":
        where = f"{len(nodes)} layers"
        if from_input:
            where = f"the input and one at each of the {len(nodes) - 1} layers"
        raise ValueError(
            f"walks must be integers of shape (M, {len(nodes)}), a node at {where}, got {given.dtype} "
            f"of shape {given.shape}"
        )
    for i, count in enumerate(nodes):
        least = 0 if from_input and i == 0 else -1
        if len(given) and (given[:, i].min() < least or given[:, i].max() >= count):
            around = "" if least == 0 else ", or -1 for a path around the layer"
            raise ValueError(
                f"walks must have nodes from 0 to {count - 1} at step {i}{around}, got "
                f"{given[:, i].min()} to {given[:, i].max()}"
            )


def walks_along(edges: ArrayLike, length: int, *, max_walks: int = 1_000_000) -> np.ndarray:
    """All walks of a given length along the edges of a graph.

    Args:
      edges: (N, N), nonzero where a step from a node (row) to a node (column) is possible. Graph
        networks that keep a node's own features have a nonzero diagonal.
      length: number of steps, >= 1.
      max_walks: maximum number of walks.

    Returns:
      Integers (M, length + 1), in lexicographic order.

    Raises:
      ValueError: if `edges` is not a square matrix, `length` < 1, or there are more walks.

    Example:
      >>> walks_along([[1, 1], [0, 1]], 2).tolist()
      [[0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]]
    """
    possible = np.asarray(edges) != 0
    check_count("length", length)
    if possible.ndim != 2 or possible.shape[0] != possible.shape[1]:
        raise ValueError(f"edges must be a square matrix, got shape {possible.shape}")
    count = np.ones(len(possible))
    for _ in range(length):
        count = possible @ count
    if count.sum() > max_walks:
        raise ValueError(
            f"there are {count.sum():.3g} walks, more than max_walks={max_walks}: raise max_walks, or "
            "use top_walks"
        )
    found = np.arange(len(possible))[:, None]
    for _ in range(length):
        walk, step = np.nonzero(possible[found[:, -1]])
        found = np.concatenate([found[walk], step[:, None]], axis=1)
    return found
