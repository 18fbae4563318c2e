"""IROF: segments such as superpixels are removed, most relevant first."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxlrp.metrics.faithfulness.curves import CurveMetric, area
from jaxlrp.metrics.features import Features
from jaxlrp.metrics.metric import Case, metric
from jaxlrp.metrics.removal import Mean, Removal


@metric
class IROF(CurveMetric):
    r"""Iterative removal of features: the area over the curve while segments are removed.

    p_k = score of the target after k segments are removed, in the order of their mean attributions, and K
    is the number of segments of the sample:

        AOC = K - trapezoid rule over k = 0 .. K of p_k / p_0

    Higher is better, at most K where all scores are >= 0; 0 where no removal matters. A sample with more
    segments can score more. Quantus leaves k = 0 out of the trapezoid, so its score is larger by (1 + p_1 /
    p_0) / 2, and 1 if no removal matters.

    Undefined (`nan`) where mean attributions of all segments are equal, and where p_0 <= 0, as a logit can
    be.

    Attributes:
      features: the segments: `features.superpixels(images)`, or your own `features.Segments(labels)`.
      removal: what takes their place, by default the mean of the sample; `removal.Mean((0, 1))` is that of
        each channel of (height, width, channels).
      score: "probability" or "logit" of the target.
      draws: how many random removals are averaged at each step, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Rieger and Hansen (2020), https://arxiv.org/abs/2003.08747

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> segments = metrics.features.Segments(jnp.array([[0, 0, 1, 1]]))
      >>> irof = metrics.IROF(features=segments, removal=metrics.removal.Constant(0.0), score="logit")
      >>> irof(lambda x: x.sum(1), jnp.ones((1, 4)), jnp.array([[2.0, 2.0, 1.0, 1.0]])).tolist()
      [1.0]
    """

    features: Features = dataclasses.field()  # has no default
    removal: Removal = Mean()

    @property
    def higher_is_better(self) -> bool:
        return True

    def _removed(self, count: int) -> Array:
        return jnp.arange(count + 1)

    def _values(self, case: Case) -> Array:
        totals = self._totals(case)
        sizes = jnp.maximum(self.features.sizes(case.inputs.shape), 1)
        return totals / sizes.astype(totals.dtype)

    def _compute(self, case: Case) -> Array:
        values, present = self._values(case), self._present(case)
        largest = jnp.where(present, values, -jnp.inf).max(axis=1)
        ordered = largest > jnp.where(present, values, jnp.inf).min(axis=1)
        curve = self._curve(case, "morf")
        whole = curve[:, :1]
        lost = 1 - curve / jnp.where(whole > 0, whole, 1)
        found = area(lost, self._counted(case))
        return jnp.where(ordered & (whole[:, 0] > 0), found, jnp.nan)
