"""Circuits as graphs: which of the most relevant concepts of several layers use which."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.concepts.circuits import check_scores, ranks_of, scores_by_name
from jaxlrp.concepts.extras import need
from jaxlrp.concepts.graph import stages
from jaxlrp.concepts.method import ConceptExplainer, check_explainer
from jaxlrp.concepts.scores import Families, by_name, normalize
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.targets import Target

if TYPE_CHECKING:
    import networkx as nx

_NOTHING = 1e-9  # share of relevance: that of a unit without any is `tiny`, not zero


def circuit_graph(
    explainer: Explainer, concepts: Families, *, batch_size: int | None = None
) -> CircuitGrower:
    r"""The circuit of the concepts with the highest scores, as a graph: which of them use which.

    Its nodes are those that `circuit_curve` keeps at the same size. An edge leads from a node to one of the
    next lower layers with concepts, on every path, residual connections included:

        weight((l, c) -> (l', c')) = R^(l')_(c') / sum_(l'', c'') |R^(l'')_(c'')|,
        R^(l')_(c') = mean_x R^(l')_(c')(x | y, l: c)

    where the sum runs over all concepts of these layers, in the circuit or not. So the weights below a node
    say how much of what it uses is in the circuit. Relevance that reaches one of these layers through
    another counts only for that other layer. All conditions of a layer share one forward pass.

    Args:
      explainer: the result of `jaxlrp.explain`; `composites.relp()` has the rules of the paper.
      concepts: families of concepts, one for each layer: a list, or a dictionary by name.
      batch_size: conditions whose backward passes run together, >= 1; None for all of a layer. It bounds
        memory.

    Returns:
      A function `(*args, scores, size, target=None, **kwargs) -> networkx.DiGraph`:

      - `scores`: as in `circuit_curve`, higher is kept first.
      - `size`: the number of nodes, >= 1.

      Nodes of the graph are pairs (name, concept), with `layer`, `concept`, `level` (0 for the uppermost
      families), `rank` (0 for the highest score), `score`, and `relevance`, the share of the concept in its
      layer. Edges have `weight`, see above, and `relevance` in units of the output.

    Raises:
      ImportError: without networkx.
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Jafari et al. (2025), https://doi.org/10.48550/arXiv.2508.21258; Marks et al. (2024),
      https://doi.org/10.48550/arXiv.2403.19647

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, 1.0], [1.0, 1.0]]), jnp.array([[1.0], [3.0]])
      >>> explain = lrp.explain(lambda x: jnp.tanh(x @ w) @ v)
      >>> layers = [concepts.Channels(name, axis=-1) for name in ("tanh", "dot_general")]
      >>> scores = {"tanh": jnp.array([1.0, 3.0]), "dot_general": jnp.array([0.0, 2.0])}
      >>> found = concepts.circuit_graph(explain, layers)(jnp.ones((4, 2)), scores=scores, size=2)
      >>> [(a, b, round(float(weight), 3)) for a, b, weight in found.edges(data="weight")]
      [(('tanh', 1), ('dot_general', 1), 1.0)]
    """
    held = check_explainer(explainer)
    families = by_name(concepts)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    children, shares = stages("circuit_graph", held, families, batch_size, lambda f, a: None)
    return CircuitGrower(families, isinstance(concepts, Concepts), children, shares)


@dataclasses.dataclass(frozen=True, eq=False)
class CircuitGrower:
    """Makes graphs of circuits; `circuit_graph` returns it.

    Attributes:
      families: by name.
      single: whether scores are those of the only family, without its name.
      children: to the relevance of the next lower concepts, of nodes by family.
      shares: to the relevance of all concepts for the target.
    """

    families: Mapping[str, Concepts]
    single: bool
    children: ConceptExplainer[Any]
    shares: ConceptExplainer[Any]

    def __call__(
        self, *args: Any, scores: Any, size: int, target: Target = None, **kwargs: Any
    ) -> nx.DiGraph:
        """The graph at these arguments; see `circuit_graph`."""
        networkx = need("networkx", "concepts.circuit_graph")
        given = scores_by_name(tuple(self.families), self.single, scores)
        ranks = {name: np.asarray(rank) for name, rank in ranks_of(given).items()}
        total = sum(map(len, ranks.values()))
        if check_count("size", size) > total:
            raise ValueError(f"size must be in 1 to {total}, the number of concepts, got {size}")
        shares = {name: np.asarray(share) for name, share in
                  self.shares(*args, target=target, **kwargs).items()}  # fmt: skip
        for name, rank in ranks.items():
            check_scores(name, len(rank), len(shares[name]))
        kept = {name: np.flatnonzero(rank < size) for name, rank in ranks.items()}
        # A family without nodes takes part, so that it is known which families it feeds.
        nodes = {name: _padded(held) for name, held in kept.items()}
        below = self.children(*args, target=target, nodes=nodes, **kwargs)
        levels = _levels({name: list(lower) for name, lower in below.items()})
        found = networkx.DiGraph()
        for name in sorted(nodes, key=levels.__getitem__):
            for concept in kept[name].tolist():
                found.add_node(
                    (name, concept), layer=self.families[name].layer, concept=concept,
                    level=levels[name], rank=int(ranks[name][concept]),
                    score=float(np.asarray(given[name])[concept]),
                    relevance=float(shares[name][concept]),
                )  # fmt: skip
        for name in nodes:
            for i, concept in enumerate(kept[name].tolist()):
                lower = {other: np.asarray(r[i]) for other, r in below[name].items()}
                _add_edges(found, (name, concept), lower, kept)
        return found


def _padded(concepts: np.ndarray) -> Any:
    """Adds concept 0 up to a power of two, so that circuits of similar sizes share a program."""
    wanted = 1 << max(len(concepts) - 1, 0).bit_length()
    return jnp.asarray(np.pad(concepts, (0, wanted - len(concepts))), jnp.int32)


def _levels(below: Mapping[str, list[str]]) -> dict[str, int]:
    """The most steps from an uppermost family to each."""

    @functools.cache
    def level(name: str) -> int:
        above = [upper for upper, lower in below.items() if name in lower]
        return 1 + max(map(level, above), default=-1)

    return {name: level(name) for name in below}


def _add_edges(
    found: nx.DiGraph,
    node: tuple[str, int],
    below: Mapping[str, ArrayLike],
    kept: Mapping[str, np.ndarray],
) -> None:
    """Edges from a node to those of the circuit that get its relevance."""
    if not below:
        return
    values = np.concatenate([np.asarray(r) for r in below.values()])
    weights = np.asarray(normalize(jnp.asarray(values)))
    names = [(name, i) for name, r in below.items() for i in range(len(np.asarray(r)))]
    chosen = {(name, int(c)) for name, held in kept.items() for c in held}
    for child, value, weight in zip(names, values, weights, strict=True):
        if child in chosen and abs(weight) > _NOTHING:
            found.add_edge(node, child, weight=float(weight), relevance=float(value))
