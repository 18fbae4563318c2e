"""How much of a concept is used outside of an object: its context score (L-CRP)."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count, check_flag
from jaxlrp.concepts.conditional import over
from jaxlrp.concepts.layers import planned, recorded
from jaxlrp.concepts.local import compute_local
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, no_check, only_array
from jaxlrp.concepts.units import Concepts, check_family
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def context(
    explainer: Explainer,
    concepts: Concepts,
    *,
    signed: bool = False,
    batch_size: int | None = None,
) -> ConceptExplainer[Array]:
    r"""The share of each concept's relevance that lies outside of an object: does it read the background?

    ctx_c = sum_(p not in M) |R_p(x|c)| / sum_p |R_p(x|c)|

    0: the concept is inside the object; 1: it is context alone. Relevance of channels and other axes that
    the mask does not have is summed first. `nan` if the concept has no relevance.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: the concepts of a layer.
      signed: False takes magnitudes at each position, with a backward pass for each concept. True sums the
        relevance inside and outside of the object first, `|R_out| / (|R_in| + |R_out|)`, for all concepts
        in two passes; relevance of opposite signs on the same side cancels.
      batch_size: backward passes that run together, >= 1; None for all. It bounds memory.

    Returns:
      A function `(*args, target=None, mask, **kwargs) -> (batch, concepts)`. `mask` is M, the object:
      booleans (batch, *positions), the leading axes of the explained argument, or all of them.
      `targets.Segmentation` and `targets.Detection` are the targets of L-CRP.

    Raises:
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Dreyer et al. (2023), https://doi.org/10.48550/arXiv.2211.11426

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # unit 1 reads the second and third input
      >>> explain = lrp.explain(lambda x: jnp.tanh(x @ w).sum(-1))
      >>> score = concepts.context(explain, concepts.Channels("tanh", axis=-1))
      >>> x, mask = jnp.ones((1, 3)), jnp.array([[True, True, False]])
      >>> [round(float(c), 3) for c in score(x, mask=mask)[0]]
      [0.0, 0.5]
    """
    held = check_explainer(explainer)
    check_family(concepts)
    check_flag("signed", signed)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    compute = functools.partial(_signed if signed else _absolute, held, concepts, batch_size)
    return ConceptExplainer("context", held, compute, _options, no_check)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "mask" not in kwargs:
        raise TypeError("mask is missing: pass mask=, the object, of shape (batch, *positions)")
    mask = jnp.asarray(kwargs.pop("mask"))
    if mask.dtype != bool:
        raise TypeError(f"mask must be booleans, True inside of the object, got dtype {mask.dtype}")
    return {"mask": mask}


def _leading(mask: Array, shape: tuple[int, ...]) -> int:
    """The number of axes of the explained argument that the mask has."""
    if not mask.ndim or mask.shape != shape[: mask.ndim]:
        raise ValueError(
            f"mask must have the leading axes of the explained argument, of shape {shape}, such as "
            f"{shape[:-1] or shape}, got shape {mask.shape}"
        )
    return mask.ndim


def _absolute(
    explainer: Explainer, family: Concepts, batch_size: int | None,
    args: tuple, kwargs: dict, target: Target, *, mask: Array,
) -> tuple[Array, Shapes]:  # fmt: skip
    layer = family.layer
    planned(explainer, args, kwargs, (family,))
    pullback, activations = recorded(explainer, (layer,), args, kwargs)
    a, relevance = activations[layer], pullback(target=target).records[layer].relevance
    stage = explainer.replace(record=(), start=layer).vjp(*args, fun_kwargs=kwargs)
    n = family.count(a.shape)

    def one(weights: Array) -> Array:
        share = family.share(a, weights)
        found = widen(only_array(stage(target=relevance * share.astype(relevance.dtype)).relevance))
        ahead = _leading(mask, found.shape)
        size = jnp.abs(found.sum(axis=tuple(range(ahead, found.ndim))))
        axes = tuple(range(0 if family.batch is None else 1, ahead))
        return jnp.sum(jnp.where(mask, 0, size), axis=axes) / jnp.sum(size, axis=axes)

    scores = over(one, jnp.eye(n, dtype=relevance.dtype), n, batch_size)
    return jnp.moveaxis(scores, 0, -1), (pullback.output, activations)


def _signed(
    explainer: Explainer, family: Concepts, batch_size: int | None,
    args: tuple, kwargs: dict, target: Target, *, mask: Array,
) -> tuple[Array, Shapes]:  # fmt: skip
    (value,) = (args[i] for i in explainer.model.argnums)
    shape = jnp.shape(only_array(jnp.asarray(value)))
    whole = mask.reshape(*mask.shape, *[1] * (len(shape) - _leading(mask, shape)))
    regions = jnp.stack([whole, ~whole])
    found, shapes = compute_local(
        explainer, family, batch_size, args, kwargs, target, regions=regions
    )
    inside, outside = jnp.abs(found.relevance[..., 0, :]), jnp.abs(found.relevance[..., 1, :])
    return outside / (inside + outside), shapes
