"""Circuits: how much of a prediction a few concepts carry, with all others switched off."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_count, check_mapping
from jaxlrp.concepts.conditional import over
from jaxlrp.concepts.layers import planned, recorded
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_from_output
from jaxlrp.concepts.patching import metric, run_edited, with_explained
from jaxlrp.concepts.scores import Families, by_name
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.targets import Target


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CircuitCurve:
    """How much of the metric the most relevant concepts keep. A pytree.

    Attributes:
      faithfulness: (sizes,), `(m(kept) - m(none)) / (m(all) - m(none))`, metrics averaged over the batch.
        1: the circuit does all; 0: no more than with every concept switched off. `nan` if that makes no
        difference.
      metric: (sizes, batch), m with the concepts of the circuit alone; () for families without a batch.
      whole: (batch,), m of the unchanged function.
      none: (batch,), m with all concepts switched off.
      sizes: (sizes,), integers, how many concepts are kept.
    """

    faithfulness: Array
    metric: Array
    whole: Array
    none: Array
    sizes: Array


def circuit_curve(
    explainer: Explainer, concepts: Families, *, batch_size: int | None = 1
) -> ConceptExplainer[CircuitCurve]:
    """Keeps the concepts with the highest scores and replaces all others by their mean: is that enough?

    Concepts of all layers are ranked together. A concept is switched off by the mean of its units over
    reference samples, at each position (mean ablation), in the forward pass. The metric m is that of
    `exact_patching`, with the weights that the target gives the outputs of the unchanged function.

    Args:
      explainer: the result of `jaxlrp.explain`; it says which function, which argument and which target.
      concepts: the concepts of a layer, or several of these, as a list or a dictionary by name.
      batch_size: sizes that are evaluated together, >= 1; None for all. It bounds memory.

    Returns:
      A function `(*args, scores, sizes, reference, target=None, **kwargs) -> CircuitCurve`:

      - `scores`: (concepts,) numbers, for several families a dictionary of these by name; higher is kept
        first. Relevance of a data set, for example, `concepts.scores(...).relevance.mean(axis=0)`.
      - `sizes`: how many concepts are kept, a sequence of integers.
      - `reference`: samples of the explained argument, whose hidden values are averaged over axis 0
        of the batch.

    Raises:
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Jafari et al. (2025), https://doi.org/10.48550/arXiv.2508.21258; Marks et al. (2024),
      https://doi.org/10.48550/arXiv.2403.19647

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> v = jnp.array([[1.0], [2.0], [0.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x) @ v)
      >>> hidden = concepts.Channels("relu", axis=-1)
      >>> x, reference = jnp.array([[3.0, 3.0, 3.0]]), jnp.zeros((1, 3))
      >>> curve = concepts.circuit_curve(explain, hidden)(
      ...     x, scores=jnp.array([3.0, 6.0, 0.0]), sizes=[1, 2], reference=reference
      ... )
      >>> [round(float(f), 3) for f in curve.faithfulness]
      [0.667, 1.0]
    """
    held = check_from_output(explainer, "ablation")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    families = by_name(concepts)
    layers = [family.layer for family in families.values()]
    if len(set(layers)) < len(layers):
        raise ValueError(
            f"concepts must have one family for each layer, got the layers {layers}: a unit that two "
            "families share would be kept by one and switched off by the other"
        )
    prepare = functools.partial(_options, tuple(families), isinstance(concepts, Concepts))
    compute = functools.partial(_curve, held, families, batch_size)
    return ConceptExplainer("circuit_curve", held, compute, prepare, _check)


def _options(names: tuple[str, ...], single: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in ("scores", "sizes", "reference") if name not in kwargs]
    if missing:
        raise TypeError(f"{missing[0]} is missing: pass scores=, sizes= and reference=")
    scores, sizes, reference = (kwargs.pop(name) for name in ("scores", "sizes", "reference"))
    scores = scores_by_name(names, single, scores)
    sizes = np.asarray(sizes)
    if sizes.ndim != 1 or not sizes.size or not np.issubdtype(sizes.dtype, np.integer):
        raise ValueError(f"sizes must be a sequence of integers, such as [1, 2, 5], got {sizes!r}")
    return {"ranks": ranks_of(scores), "sizes": jnp.asarray(sizes), "reference": reference}


def scores_by_name(names: tuple[str, ...], single: bool, scores: Any) -> dict[str, Any]:
    """The scores of each family, in the order of families.

    Args:
      names: of the families.
      single: whether there is one family that has no name of its own.
      scores: what a user gave.
    """
    if single:
        scores = {names[0]: scores}
    else:
        check_mapping("scores", scores, "{'name': scores}")
    if set(scores) != set(names):
        raise ValueError(
            f"scores must have an entry for each of {sorted(names)}, got {sorted(scores)}"
        )
    return {name: scores[name] for name in names}


def ranks_of(scores: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """The place of each concept among those of all families, 0 for the highest score."""
    arrays = {name: jnp.asarray(values) for name, values in scores.items()}
    for name, values in arrays.items():
        if values.ndim != 1:
            raise ValueError(
                f"scores[{name!r}] must be one number for each concept, got shape {values.shape}: average "
                "over the batch first"
            )
    order = jnp.argsort(
        -jnp.concatenate([values.astype(float) for values in arrays.values()]), stable=True
    )
    places = jnp.argsort(order)
    ends = np.cumsum([len(values) for values in arrays.values()])
    return dict(zip(arrays, jnp.split(places, ends[:-1]), strict=True))


def _check(options: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    total = sum(len(ranks) for ranks in options["ranks"].values())
    sizes = options["sizes"]
    if not _compat.is_traced(sizes) and not (sizes.min() >= 0 and sizes.max() <= total):
        raise ValueError(
            f"sizes must be in 0 to {total}, the number of concepts, got {sizes.tolist()}"
        )


def _curve(
    explainer: Explainer, families: dict[str, Concepts], batch_size: int | None,
    args: tuple, kwargs: dict, target: Target,
    *, ranks: dict[str, Array], sizes: Array, reference: Any,
) -> tuple[CircuitCurve, Shapes]:  # fmt: skip
    layers = tuple(family.layer for family in families.values())
    planned(explainer, args, kwargs, families.values())
    pullback, activations = recorded(explainer, layers, args, kwargs)
    given = with_explained(explainer, args, reference, "reference", batch=False)
    means = _means(families, recorded(explainer, layers, given, kwargs)[1])
    for name, family in families.items():
        check_scores(name, len(ranks[name]), family.count(activations[family.layer].shape))
    weights = initial_relevance.cotangent(pullback.output, target)
    first = next(iter(families.values()))

    def of(size: Array) -> Array:
        changes = {}
        for name, family in families.items():
            a = activations[family.layer]
            kept = (ranks[name] < size).astype(a.dtype)
            share = family.share(a, kept).astype(a.dtype)
            mean = means[name].astype(a.dtype)
            changes[family.layer] = functools.partial(_ablated, share=share, mean=mean)
        return metric(first, weights, run_edited(explainer, changes, args, kwargs))

    whole, none = metric(first, weights, pullback.output), of(jnp.zeros((), sizes.dtype))
    kept = over(of, sizes, len(sizes), batch_size)
    gained = kept.reshape(len(sizes), -1).mean(axis=1) - none.mean()
    curve = CircuitCurve(gained / (whole.mean() - none.mean()), kept, whole, none, sizes)
    return curve, (pullback.output, activations)


def _ablated(h: Array, share: Array, mean: Array) -> Array:
    return mean + share * (h - mean)


def _means(families: Mapping[str, Concepts], values: Mapping[str, Array]) -> dict[str, Array]:
    """Hidden values of reference samples, averaged over the axis of samples."""
    return {
        name: values[family.layer].mean(
            axis=family.batch_axes(values[family.layer].ndim), keepdims=True
        )
        for name, family in families.items()
    }


def check_scores(name: str, given: int, count: int) -> None:
    """Refuses another number of scores than concepts."""
    if given != count:
        raise ValueError(
            f"scores[{name!r}] must have {count} numbers, one for each concept of the layer, got {given}"
        )
