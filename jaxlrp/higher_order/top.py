"""The most relevant walks through a graph network, found without enumerating all walks."""

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
    """Walks sorted by relevance.

    Attributes:
      walks: in the format of `jaxlrp.higher_order.walks`, (K, steps), int32; -1 where a walk goes around
        a layer. K is the requested number, or fewer if there are not as many. Walks without relevance,
        which may be impossible in the network, come last.
      relevance: of each walk, (K,), exact.
      bound: upper bound for the magnitude of the relevance of all pruned walks, (). If it does not exceed
        that of the last walk, these are the most relevant walks. Infinite if walks were
        pruned without `bounded=True`; zero if none were pruned.
    """

    walks: Array
    relevance: Array
    bound: Array


class _Ends(NamedTuple):
    """Suffixes of walks that were kept at a layer: from a node there to the output.

    Attributes:
      steps: their nodes, (B, layers), -1 before the layer and where they went around one.
      relevance: the remaining relevance at the features of the node, (B, features).
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
    batch_size: int = 32,
) -> Callable[..., TopWalks]:
    r"""The k most relevant walks through a graph network, in polynomial time.

    A beam search from the output to the input extends suffixes of walks by one node, in all possible ways.
    At each layer, it keeps the `beam` suffixes with the most remaining relevance, sum |R| over features.
    Relevance is never approximated: that of each returned walk is exact, and if nothing was
    pruned, all walks were considered. Only the choice of what to prune may be wrong, because
    a small sum can hide large relevance of both signs, and a large one can cancel later.

    With `bounded`, the search knows whether the choice was right: u, an upper bound for what any path to
      the
    input can make of one unit of relevance at a feature, is computed from the input to the output. The
    suffixes with the largest sum u |R| are kept, and the largest pruned value is reported.

        u_d = max_J |sum_b T_(Jb,d)|               from a layer to the input
        u_d = max_K sum_e |T_(Ke,d)| u_(Ke)        from a layer to one before it, the maximum of all

    where T is the share of relevance that goes from feature d to feature e of node K. If no share is
    negative, as with z+ on non-negative features, then u <= 1, and a beam of R / R_k suffixes
    always suffices (R is the relevance of the output, R_k that of the k-th walk).

    Args:
      fun, layers, composite, node_axis, argnums, from_input, batch_size: as in `walks`.
      k: number of walks, >= 1.
      by: "magnitude", or "positive" or "negative" for the most relevant ones for and against.
      beam: number of suffixes kept at each layer, >= 1. More take longer and never find fewer walks.
      bounded: whether to compute u and select by it.

    Returns:
      A function `(*args, target=None, **kwargs) -> TopWalks`. For L layers, it needs at most L times `beam`
      backward passes through one block, or more if there are paths around layers. The total number of walks
      does not matter. `bounded` adds one pass for each feature of each node of each layer.

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
    stages = stages_of(fun, layers, composite, node_axis, argnums, from_input, batch_size)
    k, beam = check_count("k", k), check_count("beam", beam)
    check_one_of("by", by, tuple(_ORDERS))

    def of_top(*args: Any, target: Target = None, **kwargs: Any) -> TopWalks:
        stages.check_single(args, kwargs)
        stages.nodes(args, kwargs)
        most = _most(stages, args, kwargs) if bounded else None
        steps, relevance, bound = _search(stages, args, kwargs, target, beam, most)
        # A walk without any relevance may be impossible in the network.
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
    """(suffixes, (E, layers); relevance at the input nodes, (E, nodes); bound of what was pruned)."""
    count = len(stages.layers)
    output = stages.from_output(args, kwargs, target)
    none = jnp.full((1, count), -1, jnp.int32)
    # What has left the output and each layer: suffixes of walks, and where their relevance arrived.
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
    """The suffixes with the most remaining relevance at a layer, and the bound of the largest other."""
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
