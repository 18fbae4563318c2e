"""How much each concept matters: relevance and activation of all concepts of a layer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.concepts.layers import planned, recorded
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, no_check, no_options
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.numerics import widen
from jaxlrp.targets import Target

_FLOOR = 1e-10  # added to what relevance is normalized by


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """Relevance and activation of each concept of a layer. A pytree.

    "Position" means an index over the axes of the layer that belong neither to the batch nor to the
    concepts, flattened in row-major order: pixels of a channel, tokens of a head.

    Attributes:
      relevance: (batch, concepts), summed over positions.
      relevance_max: (batch, concepts), the largest over positions.
      position: (batch, concepts), int32, where that is; the first in case of ties.
      activation: (batch, concepts), summed over positions.
      activation_max: (batch, concepts), the largest over positions.
      activation_position: (batch, concepts), int32, where that is.
      residual: (batch,), the relevance of the layer that belongs to no concept. Zero up to rounding, except
        for a `Dictionary`.
    """

    relevance: Array
    relevance_max: Array
    position: Array
    activation: Array
    activation_max: Array
    activation_position: Array
    residual: Array

    @property
    def normalized(self) -> Array:
        """(batch, concepts), relevance divided by the sum of its magnitudes over concepts."""
        return normalize(self.relevance)

    def top(self, k: int) -> Array:
        """(batch, k), the most relevant concepts, largest first; ties keep the order of concepts."""
        check_count("k", k)
        if k > self.relevance.shape[-1]:
            raise ValueError(
                f"k must be <= {self.relevance.shape[-1]}, the number of concepts of the layer, got {k}"
            )
        return jax.lax.top_k(self.relevance, k)[1]


def normalize(relevance: Array) -> Array:
    """Relevance (..., concepts) in units of its sum of magnitudes: `R_c / (sum_c' |R_c'| + 1e-10)`.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8
    """
    return relevance / (jnp.abs(relevance).sum(axis=-1, keepdims=True) + _FLOOR)


Families = Concepts | Mapping[str, Concepts] | Sequence[Concepts]


def scores(explainer: Explainer, concepts: Families) -> ConceptExplainer[Any]:
    """Relevance and activation of every concept, in one forward and one backward pass.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: the concepts of a layer; or several of these, as a list or a dictionary by name.

    Returns:
      A function `(*args, target=None, **kwargs) -> Scores`. For several families it returns a
      dictionary, by name or by layer.

    Raises:
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
      >>> found = concepts.scores(explain, concepts.Channels("relu", axis=-1))(jnp.array([[1.0, 2.0]]))
      >>> jnp.rint(found.relevance).astype(int).tolist(), found.top(1).tolist()
      ([[4, 10]], [[1]])
    """
    held = check_explainer(explainer)
    single = isinstance(concepts, Concepts)
    compute = functools.partial(compute_scores, held, by_name(concepts), single)
    return ConceptExplainer("scores", held, compute, no_options, no_check)


def _no_family(given: Any) -> TypeError:
    return TypeError(f"concepts must be families such as Channels(layer, axis), got {given!r}")


def by_name(concepts: Families) -> dict[str, Concepts]:
    """Several families of concepts by name; the name of one that has none is its layer.

    Raises:
      TypeError: if one of them is no family of concepts.
      ValueError: if there is none, or two have the same name.
    """
    if isinstance(concepts, Concepts):
        found = {concepts.layer: concepts}
    elif isinstance(concepts, Mapping):
        found = dict(concepts)
    else:
        if isinstance(concepts, str) or not isinstance(concepts, Iterable):
            raise _no_family(concepts)
        found = {getattr(family, "layer", ""): family for family in concepts}
        if len(found) < len(concepts):
            raise ValueError(
                "concepts has two families of one layer: pass a dictionary from names to families"
            )
    for family in found.values():
        if not isinstance(family, Concepts):
            raise _no_family(family)
    if not found:
        raise ValueError(
            "concepts must contain at least one family such as Channels(layer, axis), got none"
        )
    return found


def compute_scores(
    explainer: Explainer, families: dict[str, Concepts], single: bool,
    args: tuple, kwargs: dict, target: Target,
) -> tuple[Any, Shapes]:  # fmt: skip
    """`scores` inside a program, with what is checked of it."""
    layers = tuple(family.layer for family in families.values())
    planned(explainer, args, kwargs, families.values())
    pullback, activations = recorded(explainer, layers, args, kwargs)
    records = pullback(target=target).records
    found = {
        name: score(family, activations[family.layer], records[family.layer].relevance)
        for name, family in families.items()
    }
    shapes = {f"{family.layer}": activations[family.layer] for family in families.values()}
    return next(iter(found.values())) if single else found, (pullback.output, shapes)


def score(family: Concepts, a: Array, relevance: Array) -> Scores:
    """The scores of the concepts of a layer, from its output and the relevance of that."""
    family.count(a.shape)
    by_position = _by_position(family, family.collect(a, relevance))
    active = _by_position(family, family.activations(a))
    total = widen(relevance).sum(axis=_all_but_batch(family, a.ndim))
    return Scores(
        relevance=by_position.sum(axis=-2),
        relevance_max=by_position.max(axis=-2),
        position=jnp.argmax(by_position, axis=-2).astype(jnp.int32),
        activation=active.sum(axis=-2),
        activation_max=active.max(axis=-2),
        activation_position=jnp.argmax(active, axis=-2).astype(jnp.int32),
        residual=total - by_position.sum(axis=(-2, -1)),
    )


def _by_position(family: Concepts, values: Array) -> Array:
    """(batch, positions, concepts)"""
    values = widen(values)
    ahead = values.shape[: 0 if family.batch is None else 1]
    return values.reshape(*ahead, -1, values.shape[-1])


def _all_but_batch(family: Concepts, ndim: int) -> tuple[int, ...]:
    return tuple(i for i in range(ndim) if i not in family.batch_axes(ndim))
