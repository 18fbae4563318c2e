"""Relevance of subgraphs: of all walks that stay inside a set of nodes (sGNN-LRP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.higher_order.stages import stages_of
from jaxlrp.network.model import Function
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def subgraph(
    fun: Function,
    layers: Sequence[str],
    composite: CompositeLike = None,
    *,
    node_axis: int = 0,
    argnums: int | Sequence[int] | None = None,
    from_input: bool = True,
    batch_size: int = 32,
) -> Callable[..., Array]:
    r"""Relevance of a set of nodes: the total of all walks that never leave it.

    R_S = sum of R_(J, K, L, ...) over J, K, L, ... in S

    It exceeds the relevance of the single nodes if they act together: compare
    R_S with the sum over its nodes of R_{n}. Walks are not enumerated: in the backward pass, the nodes
    outside of S lose their relevance at each layer, all at once.

    Args:
      fun, layers, composite, node_axis, argnums, from_input, batch_size: as in `walks`. Relevance that goes
        around a layer is kept, because it does not leave S at any of the given layers.

    Returns:
      A function `(*args, nodes, target=None, **kwargs)` that returns the relevance of each set, (S,), or
      (). `nodes` are booleans, (S, N), or (N,) for one set. If the layers have different nodes, they are a
      tuple of such arrays, one for each column of `walks`. One forward pass, and one backward pass per set.

    Raises:
      ValueError: if a path is unknown, an axis has no nodes, or `nodes` are invalid.

    References:
      Xiong et al. (2022), https://proceedings.mlr.press/v162/xiong22a.html

    Example:
      >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
      >>> net = lambda x: (edges @ (edges @ x)).sum()
      >>> explain = subgraph(net, ["dot_general", "dot_general:1"])
      >>> found = explain(jnp.ones((3, 1)), nodes=[[True, True, False], [True, True, True]])
      >>> jnp.rint(found).astype(int).tolist()
      [8, 17]
    """
    stages = stages_of(fun, layers, composite, node_axis, argnums, from_input, batch_size)
    explained = stages.explainers[-1]

    def of_sets(*args: Any, nodes: Any, target: Target = None, **kwargs: Any) -> Array:
        counts = stages.nodes(args, kwargs)
        inside = _inside(nodes, counts)
        shapes = stages.shapes(args, kwargs)

        def one(inside: list[Array]) -> Array:
            steps = inside[1:] if from_input else inside
            keep = {
                path: _along(mask, node_axis, len(shape))
                for path, mask, shape in zip(layers, steps, shapes, strict=True)
            }
            found = explained(*args, target=target, condition=keep, fun_kwargs=kwargs).relevance
            if from_input:
                found = found * _along(inside[0], node_axis, found.ndim).astype(found.dtype)
            return jnp.stack([widen(leaf).sum() for leaf in jax.tree.leaves(found)]).sum()

        single = inside[0].ndim == 1
        stacked = [jnp.atleast_2d(jnp.asarray(mask, jnp.float32)) for mask in inside]
        found = lax.map(one, stacked, batch_size=batch_size)
        return found[0] if single else found

    return of_sets


def _along(mask: Array, axis: int, ndim: int) -> Array:
    """A vector along one of several axes."""
    shape = [1] * ndim
    shape[axis] = mask.shape[0]
    return mask.reshape(shape)


def _inside(nodes: Any, counts: list[int]) -> list[np.ndarray]:
    """Booleans for the input and each layer.

    Raises:
      ValueError: if their shapes are wrong.
    """
    given = nodes if isinstance(nodes, tuple) else (nodes,) * len(counts)
    if len(given) != len(counts):
        raise ValueError(
            f"nodes must be one boolean array or a tuple of {len(counts)}, got a tuple of {len(given)}"
        )
    inside = [np.asarray(mask) for mask in given]
    for i, (mask, count) in enumerate(zip(inside, counts, strict=True)):
        if mask.dtype != bool or mask.ndim not in (1, 2) or mask.shape[-1] != count:
            raise ValueError(
                f"nodes must be booleans of shape (S, {count}) or ({count},) at step {i}, got {mask.dtype} "
                f"of shape {mask.shape}"
            )
        if mask.shape[:-1] != inside[0].shape[:-1]:
            raise ValueError(
                f"nodes must have the same number of sets at each step, got shapes "
                f"{[m.shape for m in inside]}"
            )
    return inside
