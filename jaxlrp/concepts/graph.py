"""Attribution graphs: which lower concepts a concept is made of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.concepts.conditional import over
from jaxlrp.concepts.extras import need
from jaxlrp.concepts.layers import at_layers, planned
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, no_options
from jaxlrp.concepts.scores import Families, by_name, normalize
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.plan import Plan
from jaxlrp.targets import Target

if TYPE_CHECKING:
    import networkx as nx

Node = tuple[str, int]
"""The name of a family of concepts, and the index of a concept."""


def graph(
    explainer: Explainer,
    concepts: Families,
    *,
    width: Sequence[int] = (4, 2),
    batch_size: int | None = None,
) -> Grower:
    r"""The attribution graph of a concept: the lower concepts that it uses, and those that they use.

    A node (l, c) is conditioned on {y, l: c}. Its relevance is recorded at the next lower layers that have
    concepts, on every path, residual connections included:

        weight((l, c) -> (l', c')) = R^(l')_(c')(x | y, l: c) / sum_(l'', c'') |R^(l'')_(c'')(x | y, l: c)|

    where the sum runs over the concepts of all these layers. Relevance that reaches one of these layers
    through another counts only for that other layer, so the layers share the relevance of the node. The
    `width[d]` children with the largest magnitude are kept and become nodes of level d + 1. All conditions
    of one layer and level share one forward pass.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: families of concepts, one for each layer: a list, or a dictionary by name.
      width: how many children each node has at each level below the first, each >= 1.
      batch_size: conditions whose backward passes run together, >= 1; None for all of a layer and level.

    Returns:
      A function `(*args, target=None, node, **kwargs) -> networkx.DiGraph` of a batch of one example.
      `node` is (name, concept), the concept at the top of the graph. Nodes of the graph are such pairs,
      with `layer`, `concept`, `level`, and `relevance`, the share of the concept in its layer without
      conditions. Edges lead to lower layers and have `weight`, see above, and `relevance` in units of the
      output.

    Raises:
      ImportError: without networkx.
      TypeError, ValueError, IndexError, KeyError: naming the argument that is wrong, and how to fix it.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, 1.0], [1.0, 1.0]]), jnp.array([[1.0], [3.0]])
      >>> explain = lrp.explain(lambda x: jnp.tanh(x @ w) @ v)
      >>> layers = [concepts.Channels(name, axis=-1) for name in ("tanh", "dot_general")]
      >>> found = concepts.graph(explain, layers)(jnp.array([[1.0, 2.0]]), node=("tanh", 1))
      >>> [(a, b, round(float(edge["weight"]), 3)) for a, b, edge in found.edges(data=True)][0]
      (('tanh', 1), ('dot_general', 1), 1.0)
    """
    held = check_explainer(explainer)
    families = by_name(concepts)
    width = (width,) if isinstance(width, int) else tuple(width)
    for w in width:
        check_count("width", w)
    if not len(width):
        raise ValueError(
            "width must have the number of children of at least one level, such as (4, 2), got ()"
        )
    if batch_size is not None:
        check_count("batch_size", batch_size)
    children, shares = stages("graph", held, families, batch_size, _one_example)
    return Grower(families, tuple(width), children, shares)


def stages(
    name: str, held: Explainer, families: dict[str, Concepts], batch_size: int | None, check: Any
) -> tuple[ConceptExplainer[Any], ConceptExplainer[Any]]:
    """What graphs are made of: relevance below the nodes of each family, and shares of all concepts.

    Both are means over the batch.

    Args:
      name: of the public function.
      held: the explainer.
      families: by name.
      batch_size: conditions whose backward passes run together.
      check: of (families, activations).
    """

    def checked(options: Any, activations: Mapping[str, Any]) -> None:
        check(families, activations)

    compute = functools.partial(_children, held, families, batch_size)
    shares = functools.partial(_shares, held, families)
    return (
        ConceptExplainer(name, held, compute, _options, checked),
        ConceptExplainer(name, held, shares, no_options, checked),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Grower:
    """Makes attribution graphs; `graph` returns it.

    Attributes:
      families: by name.
      width: children of a node, by level.
      children: to the relevance of the next lower concepts, of nodes by family.
      shares: to the relevance of all concepts for the target.
    """

    families: Mapping[str, Concepts]
    width: tuple[int, ...]
    children: ConceptExplainer[Any]
    shares: ConceptExplainer[Any]

    def __call__(self, *args: Any, target: Target = None, node: Node, **kwargs: Any) -> nx.DiGraph:
        """The graph at these arguments; see `graph`."""
        found = need("networkx", "concepts.graph").DiGraph()
        shares = {name: np.asarray(s) for name, s in
                  self.shares(*args, target=target, **kwargs).items()}  # fmt: skip
        level = [self._checked(node, shares)]
        self._add(found, level[0], 0, shares)
        for depth, width in enumerate(self.width):
            concepts: dict[str, list[int]] = {}
            for name, concept in level:
                concepts.setdefault(name, []).append(concept)
            nodes = {name: jnp.array(held, jnp.int32) for name, held in concepts.items()}
            below = self.children(*args, target=target, nodes=nodes, **kwargs)
            level = []
            for name, held in concepts.items():
                for i, concept in enumerate(held):
                    relevance = {lower: np.asarray(r[i]) for lower, r in below[name].items()}
                    for child, value, weight in _strongest(relevance, width):
                        if child not in found:
                            self._add(found, child, depth + 1, shares)
                            level.append(child)
                        found.add_edge((name, concept), child, weight=weight, relevance=value)
            if not level:
                break
        if not found.number_of_edges():
            if not float(shares[node[0]][node[1]]):
                raise ValueError(
                    f"concept {node[1]} of {node[0]!r} has no relevance for this target: choose "
                    "another, such as scores(...).top(1)"
                )
            raise ValueError(
                f"no family of concepts lies below {node[0]!r}, on {self.families[node[0]].layer!r}: pass "
                "families of layers that feed it"
            )
        return found

    def _checked(self, node: Node, shares: Mapping[str, np.ndarray]) -> Node:
        if not isinstance(node, tuple) or len(node) != 2:
            raise TypeError(
                f"node must be a pair (name of a family, index of a concept), got {node!r}"
            )
        name, concept = node
        if name not in self.families:
            raise KeyError(
                f"node must name one of the families {sorted(self.families)}, got {name!r}"
            )
        if not 0 <= concept < len(shares[name]):
            raise IndexError(
                f"concept {concept} of {name!r} is out of range: it has {len(shares[name])} concepts, 0 to "
                f"{len(shares[name]) - 1}"
            )
        return name, int(concept)

    def _add(
        self, found: nx.DiGraph, node: Node, level: int, shares: Mapping[str, np.ndarray]
    ) -> None:
        name, concept = node
        share = float(shares[name][concept])
        layer = self.families[name].layer
        found.add_node(node, layer=layer, concept=concept, level=level, relevance=share)


def _strongest(relevance: Mapping[str, np.ndarray], width: int) -> list[tuple[Node, float, float]]:
    """The children of largest magnitude: node, relevance and weight; of equal ones the first."""
    names = [(name, i) for name, r in relevance.items() for i in range(len(r))]
    if not names:
        return []
    values = np.concatenate([*relevance.values()])
    weights = np.asarray(normalize(jnp.asarray(values)))
    order = np.argsort(-np.abs(values), kind="stable")[:width]
    return [(names[i], float(values[i]), float(weights[i])) for i in order if values[i]]


def lower(plan: Plan, families: Mapping[str, Concepts], name: str) -> list[str]:
    """The families that feed a family, on some path without another family in between."""
    of = {family.layer: other for other, family in families.items()}
    before = {row.path: row.before for row in plan.rows}
    found: dict[str, None] = {}
    seen: set[str] = set()
    left = list(before[families[name].layer])
    while left:
        path = left.pop(0)
        if path in seen:
            continue
        seen.add(path)
        if path in of:
            found[of[path]] = None
        else:
            left += before[path]
    return list(found)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": kwargs.pop("nodes")}


def _one_example(families: Mapping[str, Concepts], activations: Mapping[str, Any]) -> None:
    for family in families.values():
        shape = activations[family.layer].shape
        size = [shape[axis] for axis in family.batch_axes(len(shape))]
        if size not in ([], [1]):
            raise ValueError(
                f"a graph needs a batch of one example, got {size[0]}: pass x[i : i + 1]"
            )


def _layers(families: Mapping[str, Concepts]) -> tuple[str, ...]:
    layers = tuple(family.layer for family in families.values())
    if len(set(layers)) < len(layers):
        raise ValueError(
            "concepts must have at most one family for each layer, got two of one layer"
        )
    return layers


def _at_output(
    explainer: Explainer,
    families: Mapping[str, Concepts],
    args: tuple,
    kwargs: dict,
    target: Target,
) -> tuple[Any, dict[str, Array], dict[str, Array]]:
    """The output; activations and relevance of the layers, for the target alone."""
    layers = _layers(families)
    pullback = explainer.replace(record=layers).vjp(*args, fun_kwargs=kwargs)
    activations = at_layers(pullback, layers)
    records = pullback(target=target).records
    return pullback.output, activations, {path: records[path].relevance for path in layers}


def _shares(
    explainer: Explainer,
    families: Mapping[str, Concepts],
    args: tuple,
    kwargs: dict,
    target: Target,
) -> tuple[dict[str, Array], Shapes]:
    """The normalized relevance of all concepts, (concepts,) for each family."""
    planned(explainer, args, kwargs, families.values())
    output, activations, relevance = _at_output(explainer, families, args, kwargs, target)
    found = {
        name: normalize(_total(family, activations, relevance)) for name, family in families.items()
    }
    return found, (output, activations)


def _total(
    family: Concepts, activations: Mapping[str, Array], relevance: Mapping[str, Array]
) -> Array:
    """(concepts,), the mean over the batch."""
    a = activations[family.layer]
    count = family.count(a.shape)
    return family.total(a, relevance[family.layer]).reshape(-1, count).mean(axis=0)


def _children(
    explainer: Explainer, families: Mapping[str, Concepts], batch_size: int | None,
    args: tuple, kwargs: dict, target: Target, *, nodes: Mapping[str, Array],
) -> tuple[dict[str, dict[str, Array]], Shapes]:  # fmt: skip
    """For each family, the relevance of the next lower concepts under K conditions on its own."""
    plan = planned(explainer, args, kwargs, families.values())
    output, activations, relevance = _at_output(explainer, families, args, kwargs, target)
    found: dict[str, dict[str, Array]] = {}
    for name, chosen in nodes.items():
        below = lower(plan, families, name)
        if not below:
            found[name] = {}
            continue
        family, layers = families[name], tuple(families[other].layer for other in below)
        a = activations[family.layer]
        stage = explainer.replace(record=layers, start=family.layer).vjp(
            *args, condition=layers, fun_kwargs=kwargs
        )
        blocked = {layer: jnp.zeros((), activations[layer].dtype) for layer in layers}

        def one(concept: Array, name: str = name, below: list[str] = below, a: Array = a,
                stage: Any = stage, blocked: dict[str, Array] = blocked) -> dict[str, Array]:  # fmt: skip
            family = families[name]
            mask = family.share(a, jax.nn.one_hot(concept, family.count(a.shape), dtype=a.dtype))
            begun = (relevance[family.layer] * mask).astype(a.dtype)
            records = stage(target=begun, condition=blocked).records
            arrived = {path: record.relevance for path, record in records.items()}
            return {other: _total(families[other], activations, arrived) for other in below}

        found[name] = over(one, chosen, len(chosen), batch_size)
    return found, (output, activations)
