"""Activation patching: what hidden values of another run would change in the output."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.concepts.conditional import over
from jaxlrp.concepts.layers import planned, recorded
from jaxlrp.concepts.method import (
    ConceptExplainer,
    Shapes,
    check_explainer,
    check_from_output,
    no_check,
)
from jaxlrp.concepts.scores import Families, by_name
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.editing import edited
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.numerics import to_gradient_form, widen
from jaxlrp.targets import Target


def relevance_patching(explainer: Explainer, concepts: Families) -> ConceptExplainer[Any]:
    r"""Estimates the effect of patching each concept from a clean run into a corrupted one (RelP).

    effect_c = sum_(i in c) (h_i of the clean run - h_i) g_i,   g_i = R_i / h_i

    with the hidden values h and the relevance R of the corrupted run. R begins at the target, which is the
    metric, such as the difference of two logits (`targets.Contrast`). All concepts of all layers take two
    forward passes and one backward pass; `exact_patching` takes a forward pass for each concept.

    Args:
      explainer: the result of `jaxlrp.explain`. `composites.relp()` has the rules of the paper; with
        `composites.gradient()` this is plain attribution patching.
      concepts: the concepts of a layer, such as `Channels("blocks/0/add", axis=1)` for the tokens of a
        residual stream; or several of these, as a list or a dictionary by name.

    Returns:
      A function `(*args, clean, target=None, **kwargs)` that returns the effects (batch, concepts), for
      several families a dictionary. `args` are those of the corrupted run, `clean` is the explained
      argument of the clean run.

    Raises:
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Jafari et al. (2025), https://doi.org/10.48550/arXiv.2508.21258; attribution patching: Nanda (2023);
      Syed et al. (2023), https://doi.org/10.48550/arXiv.2310.10348

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import composites, concepts
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jnp.square(x @ w) @ v, composites.gradient())
      >>> hidden = concepts.Channels("square", axis=-1)
      >>> x, clean = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
      >>> concepts.relevance_patching(explain, hidden)(x, clean=clean).tolist()
      [[-12.0, -48.0]]
    """
    held = check_explainer(_reading_relevance(explainer))
    single = isinstance(concepts, Concepts)
    compute = functools.partial(_estimate, held, by_name(concepts), single)
    return ConceptExplainer("relevance_patching", held, compute, _clean, no_check)


def exact_patching(
    explainer: Explainer, concepts: Families, *, batch_size: int | None = None
) -> ConceptExplainer[Any]:
    """The effect of patching each concept from a clean run into a corrupted one, by doing it.

    effect_c = m(corrupted run with the units of c as in the clean run) - m(corrupted run)

    where m is the sum of the outputs in proportion to the relevance that the target gives them in the
    corrupted run: a logit, or with `targets.Contrast` a difference of logits. Rules play no role.

    Args:
      explainer: the result of `jaxlrp.explain`; it says which function, which argument and which target.
      concepts: as in `relevance_patching`.
      batch_size: concepts that are patched together, >= 1; None for all of a layer. It bounds memory.

    Returns:
      A function as that of `relevance_patching`.

    Raises:
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Vig et al. (2020), "Investigating Gender Bias in Language Models Using Causal Mediation Analysis";
      Meng et al. (2022), https://doi.org/10.48550/arXiv.2202.05262

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jnp.square(x @ w) @ v)
      >>> hidden = concepts.Channels("square", axis=-1)
      >>> x, clean = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
      >>> concepts.exact_patching(explain, hidden)(x, clean=clean).tolist()
      [[-12.0, -48.0]]
    """
    held = check_from_output(_reading_relevance(explainer), "patching")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    single = isinstance(concepts, Concepts)
    compute = functools.partial(_patched, held, by_name(concepts), single, batch_size)
    return ConceptExplainer("exact_patching", held, compute, _clean, no_check)


def _reading_relevance(explainer: Any) -> Any:
    """The same explainer; one that reads gradients gives what they make of the values."""
    if not isinstance(explainer, Explainer) or explainer.composite.readout == "relevance":
        return explainer
    return explainer.replace(
        composite=dataclasses.replace(explainer.composite, readout="relevance")
    )


def _clean(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "clean" not in kwargs:
        raise TypeError("clean is missing: pass the explained argument of the clean run, clean=x")
    return {"clean": kwargs.pop("clean")}


def with_explained(
    explainer: Explainer, args: tuple, value: Any, name: str, *, batch: bool = True
) -> tuple:
    """The arguments with another value of the explained one.

    Args:
      explainer, args: of the call.
      value: the new value, named `name` in messages.
      batch: whether the first axis must have the same length, too.

    Raises:
      ValueError: if the value has another structure or shape, so that its hidden values do not fit.
    """
    numbers = explainer.model.argnums
    values = (value,) if explainer.model.single else tuple(value)
    explainer.model.check_given(args)

    def shape(leaf: Any) -> tuple[int, ...]:
        return jnp.shape(leaf) if batch else jnp.shape(leaf)[1:]

    old, new = (jax.tree.map(shape, part) for part in (tuple(args[i] for i in numbers), values))
    if old != new:
        rest = "" if batch else " after the axis of samples"
        raise ValueError(
            f"{name} must have the shape of the explained argument{rest}, {old[0]}, got {new[0]}: its "
            "hidden layers must have the same shape"
        )
    given = dict(zip(numbers, values, strict=True))
    return tuple(given.get(i, arg) for i, arg in enumerate(args))


def _both(
    explainer: Explainer, families: dict[str, Concepts], args: tuple, kwargs: dict, clean: Any
) -> tuple[Any, dict[str, Array], dict[str, Array]]:
    """The corrupted run, and the hidden values of both."""
    layers = tuple(family.layer for family in families.values())
    planned(explainer, args, kwargs, families.values())
    pullback, activations = recorded(explainer, layers, args, kwargs)
    given = with_explained(explainer, args, clean, "clean")
    for family in families.values():
        family.count(activations[family.layer].shape)
    return pullback, activations, recorded(explainer, layers, given, kwargs)[1]


def _estimate(
    explainer: Explainer, families: dict[str, Concepts], single: bool,
    args: tuple, kwargs: dict, target: Target, *, clean: Any,
) -> tuple[Any, Shapes]:  # fmt: skip
    pullback, corrupted, other = _both(explainer, families, args, kwargs, clean)
    records = pullback(target=target).records
    found = {}
    for name, family in families.items():
        a, b = widen(corrupted[family.layer]), widen(other[family.layer])
        g = to_gradient_form(a, widen(records[family.layer].relevance))
        found[name] = family.total(a, (b - a) * g)
    return next(iter(found.values())) if single else found, (pullback.output, corrupted)


def _patched(
    explainer: Explainer, families: dict[str, Concepts], single: bool, batch_size: int | None,
    args: tuple, kwargs: dict, target: Target, *, clean: Any,
) -> tuple[Any, Shapes]:  # fmt: skip
    pullback, corrupted, other = _both(explainer, families, args, kwargs, clean)
    weights = initial_relevance.cotangent(pullback.output, target)
    found = {}
    for name, family in families.items():
        a, b = corrupted[family.layer], other[family.layer]
        n = family.count(a.shape)

        def effect(weight: Array, family: Concepts = family, a: Array = a, b: Array = b) -> Array:
            share = family.share(a, weight).astype(a.dtype)
            change = {family.layer: lambda h: h + share * (b - a)}
            new = run_edited(explainer, change, args, kwargs)
            return metric(family, weights, jax.tree.map(jnp.subtract, new, pullback.output))

        effects = over(effect, jnp.eye(n, dtype=a.dtype), n, batch_size)
        found[name] = jnp.moveaxis(effects, 0, -1)
    return next(iter(found.values())) if single else found, (pullback.output, corrupted)


def run_edited(explainer: Explainer, changes: Mapping[str, Any], args: tuple, kwargs: dict) -> Any:
    """The output of the explained function with hidden layers changed."""
    return explainer.model.split(edited(explainer.model, changes)(*args, **kwargs))[0]


def metric(family: Concepts, weights: Any, output: Any) -> Array:
    """What the target weighs, summed over outputs: (batch,), or () for a family without a batch."""

    def one(w: Array, z: Array) -> Array:
        axes = tuple(range(0 if family.batch is None else 1, z.ndim))
        return jnp.sum(widen(w) * widen(z), axis=axes)

    first, *rest = jax.tree.leaves(jax.tree.map(one, weights, output))
    return functools.reduce(jnp.add, rest, first)
