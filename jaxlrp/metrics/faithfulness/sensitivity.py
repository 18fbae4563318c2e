"""Sensitivity-n: correlations for sets of each of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count, check_sequence
from jaxlrp.metrics.faithfulness.correlation import Pairs, changing
from jaxlrp.metrics.faithfulness.fixed import RandomSetsMetric
from jaxlrp.metrics.metric import Case, Predict, metric
from jaxlrp.metrics.statistics import pearson
from jaxlrp.metrics.work import Score

_SIZES = 8  # how many sizes there are by default
_MOST = 0.8  # the largest of them, as a share of the features


class Correlations(NamedTuple):
    """Correlations for sets of several sizes.

    Attributes:
      sizes: of the sets, (n, sizes).
      correlations: of attributions and changes over sets of this size, (n, sizes).
    """

    sizes: Array
    correlations: Array


@metric
class SensitivityN(RandomSetsMetric):
    r"""Whether sets of n features matter as much as their attributions say, for several n.

    For each n, over random sets S of n features drawn without replacement:

        r_n = Pearson correlation over S of   sum over i in S of a_i   and   f(x) - f(x without S)

    The score is the mean of r_n over the sizes; `.correlations(...)` gives each. From -1 to 1, higher is
    better. Attributions that are exact for a linear model reach 1 at all n.

    This follows the paper: the correlation is over sets, for each sample, and samples are averaged
    afterwards. Quantus removes features cumulatively, most relevant first, and correlates over the samples
    of a batch at each step. Its score depends on the batch, is undefined for a single sample, and also
    reflects differences between samples, so it is not available here.

    A size is undefined if a sample has no more features than that, if all features have the same
    attribution, or if all removals change the score equally. The score is the mean over the other sizes,
    `nan` if there are none.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      sizes: the numbers n, each >= 1; None for eight from 1 to 80% of a sample's features, in equal ratios.
      runs: how many sets of each size are drawn, >= 2.
      score: "probability" or "logit" of the target.
      draws: how many random removals of each set are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Ancona et al. (2018), https://arxiv.org/abs/1711.06104

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, w = jnp.ones((1, 6)), jnp.arange(6.0)
      >>> measure = metrics.SensitivityN(sizes=(1, 2, 4))
      >>> measure(lambda x: x @ w, x, x * w, key=jax.random.key(0)).round(3).tolist()
      [1.0]
    """

    bounds = (-1.0, 1.0)
    sizes: Sequence[int] | None = None
    runs: int = 100
    score: Score = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sizes is not None:
            check_sequence("sizes", self.sizes, "(1, 10, 100)")
            if not tuple(self.sizes):
                raise ValueError("sizes must have at least one size of a set, got ()")
            object.__setattr__(self, "sizes", tuple(check_count("sizes", s) for s in self.sizes))
        if check_count("runs", self.runs) < 2:
            raise ValueError(f"runs must be an integer >= 2 for a correlation, got {self.runs}")

    @property
    def higher_is_better(self) -> bool:
        return True

    def correlations(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Correlations:
        """The correlation for each size; arguments as in a call."""
        case = self._case(predict, inputs, attributions, targets, context, key)
        return self._checked_run("correlations", type(self)._correlations, case)

    def _sizes_of(self, own: Array) -> Array:
        """The sizes of the sets of each sample, (n, sizes)."""
        if self.sizes is not None:
            return jnp.broadcast_to(jnp.asarray(tuple(self.sizes)), (len(own), len(self.sizes)))
        exponent = jnp.linspace(0.0, 1.0, _SIZES)
        largest = jnp.maximum(_MOST * own.astype(exponent.dtype), 1)
        return jnp.round(largest[:, None] ** exponent).astype(own.dtype)

    def _drawn(self, case: Case) -> tuple[Array, int]:
        own = self._own(case)
        return jnp.minimum(self._sizes_of(own), own[:, None]), self.runs

    def _correlations(self, case: Case) -> Correlations:
        (score, after), sums = self._changes_and_sums(case)
        sizes, own = self._sizes_of(self._own(case)), self._own(case)
        sums, after = (a.reshape(*sizes.shape, self.runs) for a in (sums, after.mean(axis=2)))
        changes = score[:, None, None] - after
        defined = changing(Pairs(sums, changes, score[:, None]), jnp.ones(sums.shape, bool))
        defined &= self._ordered(case)[:, None] & (sizes < own[:, None])
        return Correlations(sizes, jnp.where(defined, pearson(sums, changes), jnp.nan))

    def _compute(self, case: Case) -> Array:
        return jnp.nanmean(self._correlations(case).correlations, axis=1)
