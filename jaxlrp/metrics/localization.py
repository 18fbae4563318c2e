"""Does relevance lie on the object? Metrics that compare attributions with the object's mask.

Every metric pools channels first: `channels` says which axes of an example hold them, `pool` how they
become one number. Without `channels`, each value is a position.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.metrics.metric import LocalizationMetric, metric
from jaxlrp.metrics.pooling import POOLS, Pool, axes_of, pooled
from jaxlrp.metrics.statistics import mean_ranks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Pooled(LocalizationMetric):
    """A metric of the pooled relevance of positions.

    Attributes:
      pool: how the relevance of channels becomes one number.
      channels: the axes of an example that hold channels, such as -1; None to treat each value as a
        position. A position is inside the mask where one of its channels is.
    """

    pool: Pool = "sum"
    channels: int | Sequence[int] | None = None
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_one_of("pool", self.pool, POOLS)

    @property
    def higher_is_better(self) -> bool:
        return True

    def _compute(self, attributions: Array, masks: Array) -> Array:
        n = len(attributions)
        values = pooled(attributions, self.pool, self.channels).reshape(n, -1)
        axes = axes_of(self.channels, masks.ndim)
        inside = masks.any(axis=axes, keepdims=True).reshape(n, -1)
        return jnp.where(inside.all(axis=1), jnp.nan, self._of(values, inside))

    @abc.abstractmethod
    def _of(self, values: Array, inside: Array) -> Array:
        """The score of each sample, (n,), of values and booleans (n, positions)."""


def _where_ordered(values: Array, score: Array) -> Array:
    """A score that depends on an order: `nan` where all values are equal."""
    return jnp.where(values.max(axis=1) > values.min(axis=1), score, jnp.nan)


def _mass(values: Array, inside: Array) -> Array:
    """The share of the sum that lies inside, (n,); `nan` where the sum is zero up to rounding."""
    total = values.sum(axis=1)
    defined = jnp.abs(total) > 32 * jnp.finfo(values.dtype).eps * jnp.abs(values).sum(axis=1)
    found = jnp.where(inside, values, 0).sum(axis=1) / jnp.where(defined, total, 1)
    return jnp.where(defined, found, jnp.nan)


def _hits(values: Array, inside: Array, k: Array) -> Array:
    """How many of the k largest values lie inside, (n,); of tied ones, the average over their orders.

    Args:
      k: from 1 to the number of positions, (n,).
    """
    least = jnp.take_along_axis(-jnp.sort(-values, axis=1), k[:, None] - 1, axis=1)
    above, tied = values > least, values == least
    left = k - above.sum(axis=1)
    share = left.astype(values.dtype) / tied.sum(axis=1).astype(values.dtype)
    found = (above & inside).sum(axis=1), (tied & inside).sum(axis=1)
    return found[0].astype(values.dtype) + share * found[1].astype(values.dtype)


def _size_ratio(inside: Array, dtype: jnp.dtype) -> Array:
    """The number of positions over that of those inside, (n,)."""
    return inside.shape[1] / inside.sum(axis=1).astype(dtype)


@metric
class PointingGame(_Pooled):
    """Whether the most relevant position lies on the object: 1 or 0.

    If several positions share the largest value, one of them on the object suffices. The metric only uses
    one position, so it says little about the rest of the relevance. It hits an object by chance with a
    probability equal to the object's share of the area. For a tolerance, dilate the masks.

    Higher is better, from 0 to 1. Undefined (`nan`) where the mask is empty or covers everything, and where
    all positions have equal relevance.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.

    References:
      Zhang et al. (2018), https://doi.org/10.1007/s11263-017-1059-x

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a = jnp.array([[0.1, 0.9, 0.3], [0.5, 0.2, 0.1]])
      >>> metrics.PointingGame()(a, jnp.array([[False, True, True]] * 2)).tolist()
      [1.0, 0.0]
    """

    def _of(self, values: Array, inside: Array) -> Array:
        largest = values == values.max(axis=1, keepdims=True)
        return _where_ordered(values, (largest & inside).any(axis=1).astype(values.dtype))


@metric
class RelevanceMass(_Pooled):
    """The share of the relevance that lies on the object.

    sum_{i in s} R_i / sum_i R_i, where s is the mask. With `positive`, max(R_i, 0) replaces R_i. Without
    it, positive and negative relevance can cancel in the denominator, and the share can have any value.

    A model may rightly use the surroundings of an object: relevance outside the mask is an error only if
    nothing outside matters. Compare with the mask's share of the area, which is the score of a uniform map.

    Higher is better, from 0 to 1 (`positive`, or a pool without a sign). Undefined (`nan`) where the mask
    is empty or covers everything, and where the denominator is zero up to rounding.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.
      positive: whether negative relevance of a position is left out.

    References:
      Arras et al. (2022), https://doi.org/10.1016/j.inffus.2021.11.008

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a, mask = jnp.array([[3.0, 1.0, -2.0]]), jnp.array([[True, False, False]])
      >>> metrics.RelevanceMass()(a, mask).tolist()
      [0.75]
      >>> metrics.RelevanceMass(positive=False)(a, mask).tolist()
      [1.5]
    """

    positive: bool = True
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))

    def _of(self, values: Array, inside: Array) -> Array:
        return _mass(jnp.maximum(values, 0) if self.positive else values, inside)


@metric
class RelevanceRank(_Pooled):
    """The share of the |s| most relevant positions that lie on the object, which has |s| positions.

    |{the |s| largest R_i} and s| / |s|, where s is the mask. It does not depend on the scale of the
    relevance. Ties at the cutoff are averaged over all orders.

    Higher is better, from 0 to 1; a random map gets the share of the area. Undefined (`nan`) where the mask
    is empty or covers everything, and where all positions have equal relevance.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.

    References:
      Arras et al. (2022), https://doi.org/10.1016/j.inffus.2021.11.008

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a, mask = jnp.array([[4.0, 3.0, 2.0, 1.0]]), jnp.array([[True, False, True, False]])
      >>> metrics.RelevanceRank()(a, mask).tolist()
      [0.5]
    """

    def _of(self, values: Array, inside: Array) -> Array:
        size = inside.sum(axis=1)
        hits = _hits(values, inside, jnp.maximum(size, 1))
        return _where_ordered(values, hits / size.astype(values.dtype))


@metric
class TopKIntersection(_Pooled):
    """The share of the k most relevant positions that lie on the object.

    |{the k largest R_i} and s| / k, where s is the mask; `weighted`: times the number of positions over
    |s|, so that small objects count as much as large ones and a random map gets 1. If k is larger than the
    object, the score cannot reach 1. Ties as in `RelevanceRank`.

    Higher is better, from 0 to 1 without `weighted`. Undefined (`nan`) where the mask is empty or covers
    everything, and where all positions have equal relevance.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.
      k: how many positions, >= 1 and at most as many as there are.
      weighted: whether to divide by the share of the object's area.

    Raises:
      ValueError: if there are fewer than k positions.

    References:
      Theiner et al. (2022), https://doi.org/10.1109/WACV51458.2022.00154

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a, mask = jnp.array([[4.0, 3.0, 2.0, 1.0]]), jnp.array([[True, True, True, False]])
      >>> metrics.TopKIntersection(k=2)(a, mask).tolist()
      [1.0]
    """

    k: int = 1000
    weighted: bool = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("k", self.k)

    def _of(self, values: Array, inside: Array) -> Array:
        n, positions = values.shape
        if self.k > positions:
            raise ValueError(f"k must be <= {positions}, the number of positions, got {self.k}")
        found = _hits(values, inside, jnp.full(n, self.k)) / self.k
        if self.weighted:
            found = found * _size_ratio(inside, values.dtype)
        return _where_ordered(values, found)


@metric
class AttributionLocalization(_Pooled):
    """The share of positive relevance on the object, also relative to its share of the area.

    mu = sum_{i in s} max(R_i, 0) / sum_i max(R_i, 0), where s is the mask, and `weighted`:
    mu_w = mu n / |s| with n positions, which is 1 for a uniform map whatever the size of the object.

    Higher is better, from 0 to 1; `weighted`, from 0 to n / |s|. Undefined (`nan`) where the mask is empty
    or covers everything, and where no relevance is positive.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.
      weighted: whether to return mu_w.

    References:
      Kohlbrenner et al. (2020), https://doi.org/10.1109/IJCNN48605.2020.9206975

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a, mask = jnp.array([[3.0, 1.0, -2.0, 0.0]]), jnp.array([[True, False, False, False]])
      >>> metrics.AttributionLocalization()(a, mask).tolist()
      [0.75]
      >>> metrics.AttributionLocalization(weighted=True)(a, mask).tolist()
      [3.0]
    """

    weighted: bool = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def _of(self, values: Array, inside: Array) -> Array:
        found = _mass(jnp.maximum(values, 0), inside)
        return found * _size_ratio(inside, values.dtype) if self.weighted else found


@metric
class LocalizationAUC(_Pooled):
    """The area under the ROC curve of relevance as a detector of the object.

    The probability that a random position of the object has more relevance than a random one outside; ties
    count half. It depends on the order of all positions, including irrelevant ones, so it says little about
    the few most relevant positions.

    Higher is better, from 0 to 1; a random map gets 0.5. Undefined (`nan`) where the mask is empty or
    covers everything, and where all positions have equal relevance.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.

    References:
      Fawcett (2006), https://doi.org/10.1016/j.patrec.2005.10.010

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a, mask = jnp.array([[4.0, 3.0, 2.0, 1.0]]), jnp.array([[True, False, True, False]])
      >>> metrics.LocalizationAUC()(a, mask).tolist()
      [0.75]
    """

    def _of(self, values: Array, inside: Array) -> Array:
        size = inside.sum(axis=1).astype(values.dtype)
        # Mann and Whitney: the mean rank inside, less what it is if all others come after.
        mean = jnp.where(inside, mean_ranks(values), 0).sum(axis=1) / size
        found = (mean - (size + 1) / 2) / (inside.shape[1] - size)
        return _where_ordered(values, found)


@metric
class Focus(_Pooled):
    """On a mosaic of four samples, the share of positive relevance on those of the explained class.

    sum_{i in s} max(R_i, 0) / sum_i max(R_i, 0), where s holds the quadrants of the class: the masks of
    `jaxlrp.metrics.mosaics`, whose targets are to be explained. It needs no hand-drawn masks. A mosaic is
    an unusual input, though, and only useful if the model recognizes its parts: keep only mosaics for which
    the class is among the top two predictions.

    Higher is better, from 0 to 1; a random map gets the share of the quadrants, 0.5. Undefined (`nan`)
    where the mask is empty or covers everything, and where no relevance is positive.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.

    References:
      Arias-Duart et al. (2022), https://doi.org/10.1109/FUZZ-IEEE55066.2022.9882821

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a = jnp.array([[[3.0, 1.0], [0.0, -2.0]]])
      >>> metrics.Focus()(a, jnp.array([[[True, False], [False, True]]])).tolist()
      [0.75]
    """

    def _of(self, values: Array, inside: Array) -> Array:
        return _mass(jnp.maximum(values, 0), inside)
