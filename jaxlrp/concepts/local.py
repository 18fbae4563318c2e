"""All concepts at once: the relevance of every concept in regions of the input."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.concepts.conditional import over
from jaxlrp.concepts.layers import planned, recorded
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, no_check, only_array
from jaxlrp.concepts.units import Concepts, check_family
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LocalRelevance:
    """The relevance of every concept in every region. A pytree.

    Attributes:
      relevance: (batch, regions, concepts); without the first axis if the concepts have `batch=None`.
      residual: (batch, regions), the relevance that passes through the layer and belongs to no concept.
        Zero up to rounding, except for a `Dictionary`.
    """

    relevance: Array
    residual: Array

    def atlas(self) -> Array:
        """The concept atlas: the most relevant concept of each region, (batch, regions)."""
        return jnp.argmax(self.relevance, axis=-1)

    def search(self, region: int, k: int) -> tuple[Array, Array]:
        """Reverse search: which concepts made a region relevant.

        Args:
          region: its index.
          k: how many concepts, >= 1.

        Returns:
          Relevances and concepts, (batch, k) each, the most relevant first.
        """
        check_count("k", k)
        if k > self.relevance.shape[-1]:
            raise ValueError(
                f"k must be <= {self.relevance.shape[-1]}, the number of concepts of the layer, got {k}"
            )
        if not -self.relevance.shape[-2] <= region < self.relevance.shape[-2]:
            raise IndexError(
                f"region {region} is out of range: there are {self.relevance.shape[-2]} regions, 0 to "
                f"{self.relevance.shape[-2] - 1}"
            )
        return jax.lax.top_k(self.relevance[..., region, :], k)


def local(
    explainer: Explainer, concepts: Concepts, *, batch_size: int | None = None
) -> ConceptExplainer[LocalRelevance]:
    r"""The relevance of every concept of a layer in regions of the input, for all concepts at once.

        R_B(c) = sum_(p in B) R_p(x | y, l: c) = sum_(i in c) R_i (back^T 1_B)_i

    where `back` propagates relevance from the layer's output to the input. Its transpose costs one pass for
    each region, whatever the number of concepts. Relevance that bypasses the layer, as on a skip
    connection, belongs to none of its concepts: this is `conditional(..., cut=True)`, summed over regions.

    Args:
      explainer: the result of `jaxlrp.explain`, with rules that are linear in relevance.
      concepts: the concepts of a layer.
      batch_size: regions whose passes run together, >= 1; None for all. It bounds memory.

    Returns:
      A function `(*args, target=None, regions, **kwargs) -> LocalRelevance`. `regions` is
      (regions, *shape of one example), or (regions, batch, *shape) for regions of each example;
      axes of length 1 are broadcast. Booleans or weights; see `jaxlrp.concepts.regions`.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, and how to fix it.

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
      >>> local = concepts.local(explain, concepts.Channels("relu", axis=-1))
      >>> found = local(jnp.array([[1.0, 2.0]]), regions=jnp.eye(2))
      >>> jnp.rint(found.relevance).astype(int).tolist()  # of both concepts in x_0 and in x_1
      [[[2, -2], [2, 12]]]
    """
    held = check_explainer(explainer)
    check_family(concepts)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    compute = functools.partial(compute_local, held, concepts, batch_size)
    return ConceptExplainer("local", held, compute, _options, no_check)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "regions" not in kwargs:
        raise TypeError("regions is missing: pass regions=..., (regions, *shape of one example)")
    regions = jnp.asarray(kwargs.pop("regions"))
    if not regions.ndim or not len(regions):
        raise ValueError(f"regions must contain at least one region, got shape {regions.shape}")
    return {"regions": regions}


def compute_local(
    explainer: Explainer, family: Concepts, batch_size: int | None,
    args: tuple, kwargs: dict, target: Target, *, regions: Array,
) -> tuple[LocalRelevance, Shapes]:  # fmt: skip
    layer = family.layer
    plan = planned(explainer, args, kwargs, (family,))
    pullback, activations = recorded(explainer, (layer,), args, kwargs)
    upstream = plan.upstream(layer)
    for row, rule in zip(plan.rows, plan.rules, strict=True):
        if not rule.linear_in_relevance and row.path in {*upstream, layer}:
            raise ValueError(
                f"the rule {rule!r} of the layer {row.path!r} is not linear in relevance, so that the "
                "relevance pass cannot be transposed: use another rule, or `conditional` for each concept"
            )
    a, relevance = activations[layer], pullback(target=target).records[layer].relevance
    family.count(a.shape)
    stage = explainer.replace(record=(), start=layer).vjp(*args, fun_kwargs=kwargs)

    def back(relevance: Array) -> Array:
        return only_array(stage(target=relevance).relevance)

    found, transposed = jax.vjp(back, relevance)
    whole = _checked(regions, found.shape, family)

    def of(region: Array) -> tuple[Array, Array]:
        (back,) = transposed(jnp.broadcast_to(region, found.shape).astype(found.dtype))
        values = relevance * back.astype(relevance.dtype)
        by_concept = family.total(a, values)
        axes = tuple(i for i in range(a.ndim) if i not in family.batch_axes(a.ndim))
        return by_concept, widen(values).sum(axis=axes) - by_concept.sum(axis=-1)

    by_concept, residual = over(of, whole, len(whole), batch_size)
    ahead = 0 if family.batch is None else 1  # the axis of the batch comes first
    result = LocalRelevance(jnp.moveaxis(by_concept, 0, ahead), jnp.moveaxis(residual, 0, ahead))
    return result, (pullback.output, activations)


def _checked(regions: Array, shape: tuple[int, ...], family: Concepts) -> Array:
    """Regions of all examples.

    Raises:
      ValueError: if they do not broadcast to the explained argument.
    """
    example = shape if family.batch is None else shape[1:]
    if regions.ndim == 1 + len(example) and family.batch is not None:
        regions = regions[:, None]
    try:
        fits = jnp.broadcast_shapes(regions.shape[1:], shape) == shape and regions.ndim == 1 + len(
            shape
        )
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"regions must have shape (regions, *{example}) up to axes of length 1, since the explained "
            f"argument has shape {shape}, got {regions.shape}"
        )
    return regions
