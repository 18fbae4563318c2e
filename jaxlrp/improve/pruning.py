"""Pruning: units with the lowest scores are switched off. Masks are pytrees of booleans."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_count, check_mapping, check_one_of
from jaxlrp.concepts.scores import Families, by_name
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.editing import edit
from jaxlrp.network.model import Function

Masks = dict[str, Array]
"""(units,) booleans of each layer, True for units that stay, by the name of the family of concepts."""

_NORMS = {"l1": lambda s: jnp.abs(s).sum(), "l2": lambda s: jnp.sqrt(jnp.square(s).sum())}


def masks(
    scores: Mapping[str, ArrayLike],
    rate: ArrayLike,
    *,
    scope: str = "global",
    normalize: str | None = None,
) -> Masks:
    """Which units stay if the fraction `rate` of them with the lowest scores goes.

    Of n units, floor(rate n) go. In a tie the unit with the lower index stays; across layers, the one of
    the layer whose name comes first in alphabetical order.

    Args:
      scores: (units,) numbers of each layer by name, such as those of `unit_relevance`.
      rate: the fraction that goes, in [0, 1). It may be traced: `jax.vmap(lambda r: masks(scores, r))`.
      scope: `"global"` ranks units of all layers together, `"layer"` removes the same fraction of each.
      normalize: None; or `"l1"` or `"l2"`: scores of each layer are divided by this norm of them first.

    Returns:
      (units,) booleans by name: True for units that stay. A pytree.

    Raises:
      TypeError: if `scores` is no dictionary.
      ValueError: if the rate is outside of [0, 1), a score is NaN, or a whole layer would go. None of
        these is checked where values are traced.

    References:
      Yeom et al. (2021), https://doi.org/10.1016/j.patcog.2021.107899

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> scores = {"a": jnp.array([3.0, 1.0, 2.0]), "b": jnp.array([0.5, 4.0])}
      >>> found = improve.masks(scores, rate=0.4)
      >>> found["a"].tolist(), found["b"].tolist()
      ([True, False, True], [False, True])
    """
    check_one_of("scope", scope, ("global", "layer"))
    if normalize is not None:
        check_one_of("normalize", normalize, tuple(_NORMS))
    arrays, rate = checked_scores(scores), _checked_rate("rate", rate)
    if rate.ndim:
        raise ValueError(f"rate must be one number, got shape {rate.shape}: vmap over several")
    if normalize is not None:
        arrays = {name: _normalized(s, normalize) for name, s in arrays.items()}
    if scope == "layer":
        kept = {name: _kept(s, rate) for name, s in arrays.items()}
    else:
        ends = np.cumsum([len(s) for s in arrays.values()])
        parts = jnp.split(_kept(jnp.concatenate(list(arrays.values())), rate), ends[:-1])
        kept = dict(zip(arrays, parts, strict=True))
    for name, mask in kept.items():
        if not _compat.is_traced(mask) and not mask.any():
            raise ValueError(
                f"at rate={float(rate):g} all {len(mask)} units of {name!r} would go, which cuts the "
                'network: use a lower rate, or scope="layer"'
            )
    return {name: kept[name] for name in scores}


def switch_off(
    masks: Mapping[str, ArrayLike], concepts: Families
) -> dict[str, Callable[[Array], Array]]:
    """The edits that switch pruned units off: `jaxlrp.edit(f, switch_off(masks, concepts))`.

    A unit is multiplied by zero. With masks that keep all, the function is the same bit for bit.

    Args:
      masks: (units,) booleans by name, True for units that stay. Traced masks work.
      concepts: the families of concepts that the names belong to, as in `unit_relevance`.

    Returns:
      A function of the layer's output for each layer.

    Raises:
      TypeError, ValueError: if a mask has no family, or a mask is not (units,) booleans (when the edited
        function is called).

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts, improve
      >>> f, units = lambda x: jax.nn.relu(x).sum(-1), concepts.Channels("relu", axis=-1)
      >>> off = improve.switch_off({"relu": jnp.array([True, False])}, units)
      >>> lrp.edit(f, off)(jnp.array([[3.0, 1.0]])).tolist()
      [3.0]
    """
    check_mapping("masks", masks, '{"relu": booleans}')
    families = by_name(concepts)
    by_layer: dict[str, list[tuple[str, Concepts, Array]]] = {}
    for name, mask in masks.items():
        if name not in families:
            raise ValueError(
                f"masks has an entry {name!r}, but concepts has none of that name: got {sorted(families)}"
            )
        array = jnp.asarray(mask)
        if array.dtype != bool or array.ndim != 1:
            raise ValueError(
                f"masks[{name!r}] must be (units,) booleans, got {array.dtype} of shape {array.shape}"
            )
        by_layer.setdefault(families[name].layer, []).append((name, families[name], array))
    return {layer: functools.partial(_off, entries) for layer, entries in by_layer.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PruningCurve:
    """Accuracy against pruning rate. A pytree.

    Attributes:
      rates: (rates,), the fraction of units that went.
      accuracy: (rates,), of the pruned function.
    """

    rates: Array
    accuracy: Array

    @property
    def area(self) -> Array:
        """The area under the curve in units of the range of rates: accuracy averaged over rates."""
        if len(self.rates) == 1:
            return self.accuracy[0]
        steps = jnp.diff(self.rates)
        return (steps * (self.accuracy[1:] + self.accuracy[:-1]) / 2).sum() / steps.sum()


def pruning_curve(
    predict: Function,
    scores: Mapping[str, ArrayLike],
    concepts: Families,
    rates: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    scope: str = "global",
    normalize: str | None = None,
    batch_size: int | None = None,
) -> PruningCurve:
    """Accuracy of a function whose units are switched off, for one rate after the other.

    All rates share one compiled program. Layers may be removed as a whole at high rates: the curve then
    shows what that does.

    Args:
      predict: from samples to scores of classes, (batch, classes).
      scores, scope, normalize: as in `masks`.
      concepts: the families of concepts that the names of the scores belong to.
      rates: (rates,), increasing, in [0, 1).
      x: (samples, ...).
      y: (samples,), classes.
      batch_size: samples that are evaluated together, >= 1; None for all.

    Returns:
      A `PruningCurve`.

    Raises:
      TypeError, ValueError: naming the argument that is wrong.

    References:
      Hatefi et al. (2024), https://doi.org/10.48550/arXiv.2408.12568

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import concepts, improve
      >>> f, units = lambda x: jax.nn.relu(x), concepts.Channels("relu", axis=-1)
      >>> x, y = jnp.array([[3.0, 1.0], [1.0, 3.0]]), jnp.array([0, 1])
      >>> curve = improve.pruning_curve(f, {"relu": [2.0, 1.0]}, units, [0.0, 0.5], x, y)
      >>> curve.accuracy.tolist(), float(curve.area)
      ([1.0, 0.5], 0.75)
    """
    arrays, rates = checked_scores(scores), checked_rates(rates)
    x, y = jnp.asarray(x), jnp.asarray(y)
    if not x.ndim or not len(x) or y.shape != x.shape[:1]:
        raise ValueError(
            "x must be (samples, ...) and y a class for each sample, got shapes "
            f"{x.shape} and {y.shape}"
        )
    size = len(x) if batch_size is None else check_count("batch_size", batch_size)

    hits = hits_program(predict, concepts, scope, normalize)
    return PruningCurve(rates, accuracies(hits, arrays, rates, x, y, size))


Hits = Callable[[dict[str, Array], Array, Array, Array], Array]
"""From scores by name, a rate, samples and classes to how many samples are still classified correctly."""


def hits_program(
    predict: Function, concepts: Families, scope: str, normalize: str | None = None
) -> Hits:
    """One program for all scores, rates and batches of one shape; arguments as in `pruning_curve`."""

    @jax.jit
    def hits(arrays: dict[str, Array], rate: Array, x: Array, y: Array) -> Array:
        kept = masks(arrays, rate, scope=scope, normalize=normalize)
        z = edit(predict, switch_off(kept, concepts))(x)
        return (jnp.argmax(z, axis=-1) == y).sum()

    return hits


def accuracies(
    hits: Hits, scores: dict[str, Array], rates: Array, x: Array, y: Array, size: int
) -> Array:
    """The share of correct samples, (rates,), in batches of at most `size` samples."""
    # One program, called once for each rate: XLA runs convolutions in loops slowly on CPUs.
    found = [
        sum(hits(scores, rate, x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))
        for rate in rates
    ]
    return jnp.stack(found) / len(x)


def _off(entries: list[tuple[str, Concepts, Array]], a: Array) -> Array:
    for name, family, kept in entries:
        n = family.count(a.shape)
        if kept.shape != (n,):
            raise ValueError(
                f"masks[{name!r}] must have {n} entries, one for each unit of the layer "
                f"{family.layer!r}, got {len(kept)}"
            )
        removed = family.share(a, jnp.logical_not(kept).astype(a.dtype))
        a = a * (1 - removed.astype(a.dtype))
    return a


def checked_scores(scores: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Scores in the order of names, so that ties do not depend on how a dictionary was built."""
    check_mapping("scores", scores, '{"relu": scores}')
    if not scores:
        raise ValueError("scores must have at least one layer, got none")
    arrays = {name: jnp.asarray(scores[name]).astype(float) for name in sorted(scores)}
    for name, values in arrays.items():
        if values.ndim != 1 or not len(values):
            raise ValueError(
                f"scores[{name!r}] must be one number for each unit, got shape {values.shape}"
            )
        if not _compat.is_traced(values) and np.isnan(np.asarray(values)).any():
            raise ValueError(f"scores[{name!r}] must not have NaN: NaN has no rank")
    return arrays


def _checked_rate(name: str, rate: ArrayLike) -> Array:
    array = jnp.asarray(rate)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(float)
    if not _compat.is_traced(array):
        known = np.asarray(array)  # also inside of jit, where operations of JAX would trace it
        if not ((known >= 0) & (known < 1)).all():
            raise ValueError(f"{name} must be in [0, 1), got {known.tolist()}")
    return array


def checked_rates(rates: ArrayLike) -> Array:
    """(rates,) increasing numbers in [0, 1)."""
    array = _checked_rate("rates", rates)
    if array.ndim != 1 or not len(array) or (np.diff(np.asarray(array)) <= 0).any():
        raise ValueError(f"rates must be a sequence of increasing numbers, got {array.tolist()}")
    return array


def _normalized(scores: Array, norm: str) -> Array:
    size = _NORMS[norm](scores)
    return scores / jnp.where(size > 0, size, 1)


def _kept(scores: Array, rate: Array) -> Array:
    """Where the rank of a score, from the lowest, is at least the number of units that go."""
    n = len(scores)
    slack = 4 * float(jnp.finfo(rate.dtype).eps)  # 0.29 * 100 is 28.999...
    count = jnp.floor(rate * (n * (1 + slack))).astype(int)
    # lowest first, and of equal ones the last
    order = n - 1 - jnp.argsort(scores[::-1], stable=True)
    return jnp.argsort(order) >= count
