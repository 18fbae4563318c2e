"""The layers of a walk, and relevance that flows from one of them to the next.

Relevance that leaves a layer, or the output, arrives at the layers before it and at the input. A network
may have paths around a layer. Therefore "arrives" means: without passing another layer of the walk in
between. These layers are blocked, and relevance is recorded where it reaches them. Every share of relevance
thus passes the layers of exactly one walk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.errors import near
from jaxlrp.explanation.explainer import Explainer, explain
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.model import Function, Model
from jaxlrp.network.trace import trace
from jaxlrp.numerics import widen
from jaxlrp.propagation.blanks import Blanks, blanks
from jaxlrp.targets import Target


class Arrived(NamedTuple):
    """Relevance that arrived without passing a layer in between.

    Attributes:
      layers: at each layer before the one that it left, (nodes, features).
      input: at each node of the explained argument, (nodes,); if walks begin at a layer, the total over
        everything that is explained, (1,).
    """

    layers: tuple[Array, ...]
    input: Array


@dataclasses.dataclass(frozen=True)
class Stages:
    """A network cut into stages by layers, from the input to the output; see `walks`.

    Attributes:
      layers: their paths.
      explainers: one that begins at each layer and records those before it, and one for the output.
    """

    layers: tuple[str, ...]
    explainers: tuple[Explainer, ...]
    node_axis: int
    from_input: bool
    batch_size: int

    @property
    def model(self) -> Model:
        """The function, and the position of the explained argument."""
        return self.explainers[-1].model

    def _found(self, args: tuple, kwargs: dict) -> list[Blanks]:
        """The known facts of each layer."""
        found = blanks(trace(Arguments(self.model, args), kwargs).network)
        for path in self.layers:
            if path not in found:
                raise ValueError(f"there is no layer {path!r}: {near(path, found)}")
        return [found[path] for path in self.layers]

    def shapes(self, args: tuple, kwargs: dict) -> list[tuple[int, ...]]:
        """The shape of the output of each layer, for one iteration of a loop."""
        return [it.graph.avals[it.layer.output].shape for it in self._found(args, kwargs)]

    def check_single(self, args: tuple, kwargs: dict) -> None:
        """Refuses layers that run more than once: a walk has one node at each.

        Raises:
          ValueError: naming the layer.
        """
        for path, it in zip(self.layers, self._found(args, kwargs), strict=True):
            if it.shape != it.graph.avals[it.layer.output].shape:
                around = " and ".join(dict.fromkeys(f"`{op.primitive}`" for op in it.around))
                raise ValueError(
                    f"the layer {path!r} is inside {around} and runs several times, but a walk has "
                    "one node per layer: unroll the loop (`for w in ws: ...` instead of "
                    "`lax.scan` or `nn.scan`), so that each iteration has a layer of its own; "
                    "print(lrp.plan(...)) lists them"
                )

    def nodes(self, args: tuple, kwargs: dict) -> list[int]:
        """The number of nodes at the input (unless walks begin at a layer) and at each layer."""
        places = [f"layer {path!r}" for path in self.layers]
        shapes = self.shapes(args, kwargs)
        if self.from_input:
            places.insert(0, "the explained argument")
            shapes.insert(0, jnp.shape(args[self.model.argnums[0]]))
        for place, shape in zip(places, shapes, strict=True):
            if not -len(shape) <= self.node_axis < len(shape):
                raise ValueError(
                    f"node_axis must be an axis of {place}, of shape {shape}, got {self.node_axis!r}"
                )
        return [shape[self.node_axis] for shape in shapes]

    def from_output(self, args: tuple, kwargs: dict, target: Target) -> Arrived:
        """The relevance that arrives from the output."""
        return self._send(len(self.layers), args, kwargs, target)

    def from_nodes(
        self,
        layer: int,
        args: tuple,
        kwargs: dict,
        nodes: Array,
        relevance: Array,
        read: Callable[[Arrived], Any] = lambda arrived: arrived,
    ) -> Any:
        """The relevance that arrives from single nodes of a layer, for many nodes.

        Args:
          layer: the index of the layer.
          args, kwargs: of the function.
          nodes: (M,), integer.
          relevance: of the node's features, (M, features).
          read: selects what to keep of the relevance that arrives.

        Returns:
          What was kept, with a leading axis M. M backward passes.
        """
        shape = self.shapes(args, kwargs)[layer]
        axis = self.node_axis % len(shape)
        behind = (*shape[:axis], *shape[axis + 1 :])

        def one(it: tuple[Array, Array]) -> Any:
            node, features = it
            alone = jax.nn.one_hot(node, shape[axis], dtype=features.dtype)[:, None] * features
            target = jnp.moveaxis(alone.reshape(shape[axis], *behind), 0, axis)
            return read(self._send(layer, args, kwargs, target))

        return lax.map(one, (nodes, relevance), batch_size=self.batch_size)

    def _send(self, start: int, args: tuple, kwargs: dict, target: Target) -> Arrived:
        """Relevance that arrives from a layer, or from the output if `start` is the number of layers."""
        before = self.layers[:start]
        closed = dict.fromkeys(before, 0.0)
        result = self.explainers[start](*args, target=target, condition=closed, fun_kwargs=kwargs)
        return Arrived(
            tuple(self._by_node(result.records[path].relevance) for path in before),
            self._at_input(result.relevance),
        )

    def _by_node(self, relevance: Array) -> Array:
        first = jnp.moveaxis(widen(relevance), self.node_axis, 0)
        return first.reshape(len(first), -1)

    def _at_input(self, relevance: Any) -> Array:
        if self.from_input:
            return self._by_node(relevance).sum(axis=1)
        return jnp.stack([widen(leaf).sum() for leaf in jax.tree.leaves(relevance)]).sum()[None]


def stages_of(
    fun: Function,
    layers: Sequence[str],
    composite: CompositeLike,
    node_axis: int,
    argnums: int | Sequence[int] | None,
    from_input: bool,
    batch_size: int,
) -> Stages:
    """Checks the arguments that do not depend on a call of the function.

    Raises:
      ValueError: names the invalid argument.
    """
    if not layers or isinstance(layers, str) or len(set(layers)) < len(layers):
        raise ValueError(
            f"layers must be a sequence of one or more distinct paths of layers, got {layers!r}"
        )
    explainers = tuple(
        explain(fun, composite, argnums=argnums, record=layers[:i], start=start)
        for i, start in enumerate((*layers, None))
    )
    if from_input and not explainers[-1].model.single:
        raise ValueError(
            f"argnums must be one integer, because a walk begins at a node of one argument, got "
            f"{argnums!r}; explain one argument, or pass from_input=False to begin walks at a layer"
        )
    check_count("batch_size", batch_size)
    return Stages(tuple(layers), explainers, node_axis, from_input, batch_size)
