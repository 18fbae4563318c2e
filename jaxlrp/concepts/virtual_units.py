"""Purer features: units that mean several things, split by the circuits that feed them (PURE)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_count
from jaxlrp.concepts.extras import need, one_thread
from jaxlrp.concepts.layers import at_layers, planned
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer
from jaxlrp.concepts.scores import normalize
from jaxlrp.concepts.units import Concepts, check_family
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.targets import Target


def unit_circuits(
    explainer: Explainer, units: Concepts, lower: Concepts
) -> ConceptExplainer[Array]:
    r"""The circuit of a unit in each sample: which concepts of a lower layer activate it.

    Relevance starts at the unit j as its positive activation, `relu(a_j)` at all positions, and is
    propagated to the lower layer only:

        r_i = sum_p a_i(p) c_i(p),   normalized by sum_i |r_i|

    where c is the coefficient of relevance that arrives at position p of the lower layer.

    Args:
      explainer: the result of `jaxlrp.explain`, without `start=`.
      units: the concepts of the upper layer, such as channels.
      lower: the concepts of a layer below it, usually the closest.

    Returns:
      A function `(*args, unit, **kwargs) -> Array` of shape (batch, concepts of the lower layer). `unit` is
      the index of a unit, or (batch,) indices, one for each sample. Zero for samples in which the unit is
      not active.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, and how to fix it.

    References:
      Dreyer et al. (2024), PURE: Turning Polysemantic Neurons Into Pure Features by Identifying Relevant
      Circuits, https://arxiv.org/abs/2404.06453

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[1.0], [1.0]]), jnp.array([[1.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(jnp.tanh(x) @ w) @ v)
      >>> channels = [concepts.Channels(layer, axis=-1) for layer in ("relu", "tanh")]
      >>> circuits = concepts.unit_circuits(explain, *channels)
      >>> circuits(jnp.array([[5.0, 0.0], [0.0, 5.0]]), unit=0).round(3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    held = check_explainer(explainer)
    if held.start is not None:
        raise ValueError(
            f"explainer must not have start=, got {held.start!r}: relevance starts at units.layer; leave "
            "start out"
        )
    check_family(units)
    check_family(lower)
    compute = functools.partial(_circuits, held, units, lower)
    return ConceptExplainer(
        "unit_circuits", held, compute, _options, functools.partial(_in_range, units)
    )


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "unit" not in kwargs:
        raise TypeError("unit is missing: pass unit=3, or the index of a unit for each sample")
    unit = kwargs.pop("unit")
    if not jnp.issubdtype(jnp.asarray(unit).dtype, jnp.integer):
        raise TypeError(f"unit must be an integer or integers of shape (batch,), got {unit!r}")
    return {"unit": jnp.asarray(unit)}


def _circuits(
    explainer: Explainer, units: Concepts, lower: Concepts,
    args: tuple, kwargs: dict, target: Target, *, unit: Array,
) -> tuple[Array, Shapes]:  # fmt: skip
    if target is not None:
        raise ValueError("target must be left out: relevance starts at a unit, not at the output")
    plan = planned(explainer, args, kwargs, (units, lower))
    layers = (lower.layer, units.layer)
    pullback = explainer.replace(record=layers, start=units.layer).vjp(*args, fun_kwargs=kwargs)
    activations = at_layers(pullback, layers)
    if lower.layer not in plan.upstream(units.layer):
        raise ValueError(
            f"lower must be a layer that feeds {units.layer!r}, but {lower.layer!r} does not: see "
            "print(explainer.plan(...))"
        )
    a = activations[units.layer]
    start = jnp.maximum(a, 0) * units.share(a, _one_hot(units, a, unit)).astype(a.dtype)
    relevance = pullback(target=start).records[lower.layer].relevance
    found = normalize(lower.total(activations[lower.layer], relevance))
    return found, (pullback.output, activations)


def _in_range(units: Concepts, options: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Refuses indices of units that do not exist, unless they are traced."""
    unit, count = options["unit"], units.count(shapes[units.layer].shape)
    if not _compat.is_traced(unit) and not ((unit >= 0) & (unit < count)).all():
        raise IndexError(f"unit must be in 0 to {count - 1}, got {np.asarray(unit).tolist()}")


def _one_hot(units: Concepts, a: Array, unit: Array) -> Array:
    """Weights of concepts that select a unit, (batch, concepts)."""
    count = units.count(a.shape)
    axes = units.batch_axes(a.ndim)
    batch = a.shape[axes[0]] if axes else 1
    if unit.shape not in ((), (batch,)):
        raise ValueError(
            f"unit must be one index, or indices of shape ({batch},), one for each sample, got shape "
            f"{unit.shape}"
        )
    return jax.nn.one_hot(jnp.broadcast_to(unit, (batch,)), count, dtype=a.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VirtualUnits:
    """The virtual units into which one unit was split. A pytree; `purify` makes it.

    Attributes:
      centers: (k, d), the mean vector of each cluster, the largest cluster first.
      labels: (samples,), integers, the virtual unit of each sample that was clustered.
      silhouette: the mean silhouette of each number of clusters that was tried, in [-1, 1].
    """

    centers: Any
    labels: Any
    silhouette: Mapping[int, float]

    def __len__(self) -> int:
        return len(self.centers)

    def assign(self, vectors: ArrayLike) -> Array:
        """The virtual unit of new samples: that of the nearest center. May be traced.

        Args:
          vectors: (samples, d), from the function that made those that were clustered.

        Returns:
          (samples,), int32.

        Raises:
          ValueError: if the shape does not fit.
        """
        x, centers = jnp.asarray(vectors), jnp.asarray(self.centers)
        if x.ndim != 2 or x.shape[1] != centers.shape[1]:
            raise ValueError(
                f"vectors must have shape (samples, {centers.shape[1]}), got {x.shape}"
            )
        apart = x.astype(centers.dtype)[:, None] - centers
        return jnp.argmin(jnp.square(apart).sum(-1), axis=-1).astype(jnp.int32)


def purify(
    vectors: ArrayLike, n_clusters: int | Sequence[int] = (2, 3, 4, 5), *, n_init: int = 10,
    seed: int = 0,
) -> VirtualUnits:  # fmt: skip
    """Splits a unit into virtual units: k-means of a vector for each of its reference samples.

    The number of clusters is that with the largest mean silhouette. A silhouette does not exist for one
    cluster: every unit is split, and a low silhouette says that it should not have been.

    Args:
      vectors: (samples, d): circuits of the unit by `unit_circuits`, in the samples in which it is most
        active. As a baseline, the activations of the lower layer.
      n_clusters: how many virtual units, >= 2; or several numbers to choose from.
      n_init: k-means starts; the best is kept.
      seed: of these, an integer.

    Returns:
      The `VirtualUnits`.

    Raises:
      ValueError: if there are not more different samples than clusters, or a value is not finite.
      ImportError: if scikit-learn is missing.

    References:
      Dreyer et al. (2024), https://arxiv.org/abs/2404.06453

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> circuits = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.0, 1.0]])
      >>> units = concepts.purify(circuits, (2, 3))
      >>> len(units), units.labels.tolist(), units.assign([[0.2, 0.8]]).tolist()
      (2, [1, 1, 0, 0, 0], [0])
    """
    x = np.asarray(vectors)
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"vectors must be floats of shape (samples, d), got {x.dtype} of shape {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("vectors must be finite, got NaN or inf: leave out these samples")
    x = x.astype(np.float64)
    check_count("n_init", n_init)
    tried = _numbers(n_clusters, len(np.unique(x, axis=0)))
    cluster = need("sklearn.cluster", "concepts.purify")
    measure = need("sklearn.metrics", "concepts.purify").silhouette_score
    with one_thread():
        found = {k: cluster.KMeans(k, n_init=n_init, random_state=seed).fit(x) for k in tried}
    silhouette = {k: float(measure(x, model.labels_)) for k, model in found.items()}
    best = found[max(silhouette, key=silhouette.__getitem__)]
    order = np.argsort(-np.bincount(best.labels_), kind="stable")
    return VirtualUnits(best.cluster_centers_[order], np.argsort(order)[best.labels_], silhouette)


def _numbers(n_clusters: int | Sequence[int], different: int) -> list[int]:
    """The numbers of clusters to try; of several, those that are possible."""
    several = not isinstance(n_clusters, int | np.integer)
    tried = [check_count("n_clusters", k) for k in (n_clusters if several else [n_clusters])]
    if not tried or min(tried) < 2:
        raise ValueError(f"n_clusters must be >= 2, or several such numbers, got {n_clusters!r}")
    possible = [k for k in tried if k < different]
    if not possible:
        raise ValueError(
            f"vectors has {different} different samples, too few for n_clusters={n_clusters!r}: there must "
            "be more samples than clusters"
        )
    return possible
