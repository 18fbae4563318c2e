"""Whether the score rises with each feature that is put back."""

from __future__ import annotations

import math
from typing import Literal

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_at_least, check_count, check_one_of
from jaxlrp.metrics.faithfulness.removing import ScoreMetric
from jaxlrp.metrics.metric import Case, metric


@metric
class Monotonicity(ScoreMetric):
    r"""Whether the score rises with each feature that is put back, least relevant first.

    p_k = score of the target when all features are removed but the k * step least relevant ones:

        all       1 if p_{k+1} >= p_k for each k >= 1, else 0
        share     the share of k for which this holds

    Higher is better. With many features, "all" is rarely 1, since a single small drop makes it 0. A model
    whose output hardly changes counts as monotone.

    Undefined (`nan`) where attributions of all features are equal, where there is a single step, and where
    a score is `nan`.

    Attributes:
      features: what is put back at once.
      removal: what takes the place of missing features.
      step: features put back at each step, >= 1.
      summary: "all", as in the paper, or "share".
      tolerance: how far the score may fall without counting as a fall, >= 0.
      score: "probability" or "logit" of the target.
      draws: how many random removals are averaged at each step, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Arya et al. (2019), https://arxiv.org/abs/1909.03012

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, w = jnp.ones((1, 4)), jnp.array([1.0, 2.0, 3.0, -4.0])
      >>> metrics.Monotonicity(score="logit")(lambda x: x @ w, x, x * w).tolist()
      [1.0]
      >>> metrics.Monotonicity(score="logit")(lambda x: x @ w, x, -x * w).tolist()
      [0.0]
    """

    bounds = (0.0, 1.0)
    step: int = 1
    summary: Literal["all", "share"] = "all"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("step", self.step)
        check_one_of("summary", self.summary, ("all", "share"))
        check_at_least("tolerance", self.tolerance, 0)

    @property
    def higher_is_better(self) -> bool:
        return True

    def _compute(self, case: Case) -> Array:
        totals, own = self._totals(case), self._own(case)[:, None]
        back = jnp.arange(1, math.ceil(totals.shape[1] / self.step) + 1) * self.step
        removed = jnp.maximum(own - back, 0)
        scores = self._cumulative(case, self._place(case, totals, True), removed)
        counted = back[:-1] < own
        rises = counted & (scores[:, 1:] - scores[:, :-1] >= -self.tolerance)
        steps = counted.sum(axis=1)
        share = rises.sum(axis=1).astype(scores.dtype) / steps.astype(scores.dtype)
        found = share if self.summary == "share" else (share == 1).astype(scores.dtype)
        defined = self._ordered(case) & (steps > 0) & ~jnp.isnan(scores).any(axis=1)
        return jnp.where(defined, found, jnp.nan)
