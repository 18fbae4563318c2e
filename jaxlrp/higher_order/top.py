"""The most relevant walks through a graph network, found without making them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.higher_order.stages import Arrived, Stages, stages_of
from jaxlrp.network.model import Function
from jaxlrp.targets import Target

_ORDERS = {
    "magnitude": jnp.abs,
    "positive": lambda relevance: relevance,
    "negative": lambda relevance: -relevance,
}


class TopWalks(NamedTuple):
    """Walks in order of their relevance.

    Attributes:
      walks: as `jaxlrp.higher_order.walks` takes them, (K, steps), int32; -1 where a walk goes around
        a layer. K is what was asked for, or fewer if so many were not seen; those without relevance, which
        may be no ways through the network, come last.
      relevance: of each, (K,), exact.
      bound: no walk that the search gave up has a relevance of greater magnitude, (). So if it is no
        greater than that of the last walk, these are the most relevant ones. Infinite where walks were
        given up and no bound was asked for; zero where none was.
    """

    walks: Array
    relevance: Array
    bound: Array


class _Ends(NamedTuple):
    """Ends of walks that were kept at a layer: from a node there to the output.

    Attributes:
      steps: their nodes, (B, layers), -1 before the layer and where they went around one.
      relevance: what is left at the features of the node, (B, features).
    """

    steps: Array
    relevance: Array


def top_walks(
    fun: Function,
    layers: Sequence[str],
    composite: CompositeLike = None,
    *,
    k: int = 10,
    by: str = "magnitude",
    beam: int = 64,
    bounded: bool = False,
    node_axis: int = 0,
    argnums: int | Sequence[int] | None = None,
    from_input: bool = True,
    chunk: int = 32,
) -> Callable[..., TopWalks]:
    r"""The k most relevant walks through a graph network, in polynomial time.

    From the output to the input, ends of walks are made longer by one node, in all possible ways, and
    of those that have come to a layer the `beam` with the most relevance left, sum |R| over features,
    are kept. So relevance is never approximated: that of each walk found is exact, and if no end had
    to be given up all walks were seen. It is the choice of what to give up that may be wrong, since
    relevance of both signs can hide in little, and much of it can cancel later on.

    With `bounded` it is known when the choice was right: u, the most that any way on to the input can
    make of one unit of relevance at a feature, is computed from the input to the output, the ends with
    the greatest sum u |R| are kept, and the greatest of those given up is reported.

        u_d = max_J |sum_b T_(Jb,d)|               from a layer to the input
        u_d = max_K sum_e |T_(Ke,d)| u_(Ke)        from a layer to one before it, by the greater of all

    where T is the share of relevance that goes from feature d to feature e of node K. Where shares are
    not negative, such as with z+ on features that are not negative, u <= 1, and a beam of R / R_k ends,
    the relevance of the output over that of the k-th walk, is enough for sure.

    Args:
      fun, layers, composite, node_axis, argnums, from_input, chunk: as in `walks`.
      k: how many walks, >= 1.
      by: "magnitude", or "positive" or "negative" for the most relevant ones for and against.
      beam: how many ends are kept at each layer, >= 1. More take longer and find no fewer.
      bounded: compute u and choose by it.

    Returns:
      A function `(*args, target=None, **kwargs) -> TopWalks`. For L layers, at most L times `beam`
      backward passes through one block, or more where there are ways around: the number of all walks
      does not matter. With `bounded` there is one more for each feature of each node of each layer.

    Raises:
      ValueError: if a path is unknown or inside a scan, an axis has no nodes, or a number is out of range.

    References:
      Xiong et al. (2023), https://proceedings.mlr.press/v202/xiong23b.html, whose search is exact for
      walks from neuron to neuron and approximates the relevance of walks from node to node.

    Example:
      >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 1.0]])
      >>> net = lambda x: (edges @ (edges @ x)).sum()
      >>> find = top_walks(net, ["dot_general", "dot_general:1"], k=2)
      >>> found = find(jnp.array([[1.0], [2.0], [-1.0]]))
      >>> found.walks[0].tolist(), round(found.relevance[0].item())
      ([1, 1, 1], 8)
    """
    stages = stages_of(fun, layers, composite, node_axis, argnums, from_input, chunk)
    k, beam = check_count("k", k), check_count("beam", beam)
    check_one_of("by", by, tuple(_ORDERS))

    def of_top(*args: Any, target: Target = None, **kwargs: Any) -> TopWalks:
        stages.check_single(args, kwargs)
        stages.nodes(args, kwargs)
        most = _most(stages, args, kwargs) if bounded else None
        steps, relevance, bound = _search(stages, args, kwargs, target, beam, most)
        # What has none at all may be no way through the network.
        value = jnp.where(relevance == 0, -jnp.inf, _ORDERS[by](relevance))
        at = lax.top_k(value.reshape(-1), min(k, value.size))[1]
        end, node = jnp.unravel_index(at, value.shape)
        found = steps[end]
        if from_input:
            found = jnp.concatenate([node[:, None].astype(found.dtype), found], axis=1)
        return TopWalks(found, relevance.reshape(-1)[at], bound)

    return of_top


def _search(
    stages: Stages, args: tuple, kwargs: dict, target: Target, beam: int, most: list[Array] | None
) -> tuple[Array, Array, Array]:
    """(ends, (E, layers); relevance at the nodes of the input, (E, nodes); bound of what was given up)."""
    count = len(stages.layers)
    output = stages.from_output(args, kwargs, target)
    none = jnp.full((1, count), -1, jnp.int32)
    # What has left the output and each layer: ends of walks, and where their relevance arrived.
    sent = [(none, jax.tree.map(lambda a: a[None], output))]
    bound = jnp.zeros((), output.input.dtype)
    for layer in range(count - 1, -1, -1):
        arrivals = [(steps, arrived.layers[layer]) for steps, arrived in sent]
        ends, given_up = _keep(arrivals, layer, beam, None if most is None else most[layer])
        bound = jnp.maximum(bound, given_up)
        nodes = ends.steps[:, layer]
        sent.append((ends.steps, stages.from_nodes(layer, args, kwargs, nodes, ends.relevance)))
    steps = jnp.concatenate([steps for steps, _ in sent])
    return steps, jnp.concatenate([arrived.input for _, arrived in sent]), bound


def _keep(
    arrivals: list[tuple[Array, Array]], layer: int, beam: int, most: Array | None
) -> tuple[_Ends, Array]:
    """The ends with the most relevance left at a layer, and what the greatest of the others may be."""
    scores = [
        (jnp.abs(relevance) * (1.0 if most is None else most)).sum(axis=-1)
        for _, relevance in arrivals
    ]
    flat = jnp.concatenate([score.reshape(-1) for score in scores])
    kept = min(beam, flat.size)
    best, at = lax.top_k(flat, min(beam + 1, flat.size))
    given_up = best[kept] if flat.size > kept else jnp.zeros((), flat.dtype)
    if most is None:
        given_up = jnp.where(given_up > 0, jnp.inf, 0.0).astype(flat.dtype)
    steps, nodes, features = [], [], []
    for before, relevance in arrivals:
        ends, count, _ = relevance.shape
        steps.append(jnp.repeat(before, count, axis=0))
        nodes.append(jnp.tile(jnp.arange(count, dtype=jnp.int32), ends))
        features.append(relevance.reshape(ends * count, -1))
    at = at[:kept]
    chosen = jnp.concatenate(steps)[at].at[:, layer].set(jnp.concatenate(nodes)[at])
    return _Ends(chosen, jnp.concatenate(features)[at]), given_up


def _most(stages: Stages, args: tuple, kwargs: dict) -> list[Array]:
    """u of each layer, (nodes, features): see `top_walks`."""
    found: list[Array] = []

    def read(arrived: Arrived) -> Array:
        ways = [(abs(r) * u).sum(axis=1).max() for r, u in zip(arrived.layers, found, strict=True)]
        return jnp.stack([*ways, abs(arrived.input).max()]).max()

    shapes = stages.shapes(args, kwargs)
    for layer, shape in enumerate(shapes):
        nodes = shape[stages.node_axis]
        features = math.prod(shape) // nodes
        node, feature = jnp.divmod(jnp.arange(nodes * features), features)
        unit = jax.nn.one_hot(feature, features)
        most = stages.from_nodes(layer, args, kwargs, node, unit, read)
        found.append(most.reshape(nodes, features))
    return found
