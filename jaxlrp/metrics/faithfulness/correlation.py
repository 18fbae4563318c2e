"""Metrics that correlate the attribution of sets of features with the change when these are removed."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics.faithfulness.fixed import RandomSetsMetric
from jaxlrp.metrics.faithfulness.removing import ScoreMetric, keep_others, ranks
from jaxlrp.metrics.metric import Case, Predict, metric
from jaxlrp.metrics.removal import Removal, Uniform
from jaxlrp.metrics.statistics import pearson, spearman
from jaxlrp.metrics.work import Score


class Pairs(NamedTuple):
    """What is correlated, for each sample and each set of features.

    Attributes:
      attributions: of the set, (n, sets); `nan` for a set that a sample does not have.
      changes: of the score when the set is removed, (n, sets).
      score: of the unchanged sample, (n,).
    """

    attributions: Array
    changes: Array
    score: Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CorrelationMetric(ScoreMetric):
    """A metric that correlates attributions of sets with changes of the score."""

    bounds = (-1.0, 1.0)

    @property
    def higher_is_better(self) -> bool:
        return True

    def pairs(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Pairs:
        """What is correlated; arguments as in a call."""
        case = self._case(predict, inputs, attributions, targets, context, key)
        return self._checked_run("pairs", type(self)._pairs, case)

    @abc.abstractmethod
    def _pairs(self, case: Case) -> Pairs:
        """What is correlated."""

    def _of_chunks(
        self, case: Case, values: Array, step: int, descending: bool,
        mean: Callable[[Array, Array], Array],
    ) -> Pairs:  # fmt: skip
        """Pairs of chunks of consecutive features in the order of `values`, (n, features).

        Args:
          mean: from scores (n, 1), and those after removal (n, sets, draws), to changes (n, sets).
        """
        place = self._place(case, values, descending)
        count = values.shape[1]
        sets = math.ceil(count / step)
        order = ranks(values, self._present(case), descending)
        sums = jax.vmap(lambda a, i: jax.ops.segment_sum(a, i, sets))(values, order // step)
        exists = jnp.arange(sets) * step < self._own(case)[:, None]
        found = self._after(
            case, keep_others(place, step), sets,
            lambda r: self._score(case, r.outputs, r.sample),
        )  # fmt: skip
        score = self._unchanged(case)
        changes = mean(score[:, None, None], found)
        return Pairs(jnp.where(exists, sums, jnp.nan), changes, score)

    def _correlated(
        self, case: Case, pairs: Pairs, correlate: Callable[[Array, Array, Array], Array]
    ) -> Array:
        valid = jnp.isfinite(pairs.attributions)
        found = correlate(jnp.where(valid, pairs.attributions, 0), pairs.changes, valid)
        return jnp.where(self._ordered(case) & changing(pairs, valid), found, jnp.nan)


def changing(pairs: Pairs, valid: Array) -> Array:
    """Whether changes differ between sets by more than rounding, (n,)."""
    low = jnp.where(valid, pairs.changes, jnp.inf).min(axis=-1)
    high = jnp.where(valid, pairs.changes, -jnp.inf).max(axis=-1)
    scale = jnp.abs(pairs.score) + jnp.maximum(jnp.abs(low), jnp.abs(high))
    return high - low > 8 * float(jnp.finfo(low.dtype).eps) * scale


def _mean_fall(score: Array, after: Array) -> Array:
    return (score - after).mean(axis=2)


def _mean_size(score: Array, after: Array) -> Array:
    return jnp.sqrt(((score - after) ** 2).mean(axis=2))


@metric
class FaithfulnessCorrelation(RandomSetsMetric, CorrelationMetric):
    r"""Whether random sets of features matter as much as their attributions say.

    For random sets S of `size` features, drawn without replacement:

        Pearson correlation over S of   sum over i in S of a_i   and   f(x) - f(x without S)

    From -1 to 1, higher is better. It measures the joint effect of many features. Sets of a fixed size
    rarely isolate one feature, so differences between good attributions are small, and noisy with few runs.

    Undefined (`nan`) where attributions of all features are equal, where no removal changes the score
    differently from another, and where a sample has no more features than `size`.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      size: of the sets, >= 1; None for 224, or half of a sample's features if that is less.
      runs: how many sets are drawn, >= 2.
      score: "probability" or "logit" of the target.
      draws: how many random removals of each set are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Bhatt et al. (2020), https://doi.org/10.24963/ijcai.2020/417

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, w = jnp.ones((1, 6)), jnp.arange(6.0)
      >>> correlation = metrics.FaithfulnessCorrelation(size=2)
      >>> correlation(lambda x: x @ w, x, x * w, key=jax.random.key(0)).round(3).tolist()
      [1.0]
    """

    size: int | None = None
    runs: int = 100
    score: Score = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            check_count("size", self.size)
        if check_count("runs", self.runs) < 2:
            raise ValueError(f"runs must be an integer >= 2 for a correlation, got {self.runs}")

    def _sizes(self, case: Case) -> Array:
        """The size of the sets of each sample, (n,)."""
        own = self._own(case)
        if self.size is None:
            return jnp.clip(own // 2, 1, 224)
        return jnp.minimum(self.size, own)

    def _drawn(self, case: Case) -> tuple[Array, int]:
        return self._sizes(case)[:, None], self.runs

    def _pairs(self, case: Case) -> Pairs:
        (score, after), sums = self._changes_and_sums(case)
        return Pairs(sums, _mean_fall(score[:, None, None], after), score)

    def _compute(self, case: Case) -> Array:
        if self.size is not None:
            self._check_leaves_some(case, "size", self.size)
        found = self._correlated(case, self._pairs(case), pearson)
        return jnp.where(self._sizes(case) < self._own(case), found, jnp.nan)


@metric
class FaithfulnessEstimate(CorrelationMetric):
    r"""Whether each feature matters as much as its attribution says.

    Features are removed one at a time, or `step` at a time in the order of their attributions, and put
    back:

        Pearson correlation over sets S of   sum over i in S of a_i   and   f(x) - f(x without S)

    From -1 to 1, higher is better. Redundant features have no effect if they are removed one at a time.

    Undefined (`nan`) where attributions of all features are equal, and where no removal changes the score
    differently from another.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      step: features in each set, >= 1.
      score: "probability" or "logit" of the target.
      draws: how many random removals of each set are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Alvarez-Melis and Jaakkola (2018), https://arxiv.org/abs/1806.07538

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, w = jnp.ones((1, 6)), jnp.arange(6.0)
      >>> metrics.FaithfulnessEstimate(score="logit")(lambda x: x @ w, x, x * w).round(3).tolist()
      [1.0]
    """

    step: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("step", self.step)

    def _pairs(self, case: Case) -> Pairs:
        return self._of_chunks(case, self._totals(case), self.step, True, _mean_fall)

    def _compute(self, case: Case) -> Array:
        return self._correlated(case, self._pairs(case), pearson)


@metric
class MonotonicityCorrelation(CorrelationMetric):
    r"""Whether the score is more uncertain without features that have larger |a|.

    Features are removed one at a time, or `step` at a time in the order of |a|, by several random draws:

        Spearman correlation over sets S of   sum over i in S of |a_i|   and   E (f(x) - f(x without S))^2

    The paper divides the squares by f(x)^2, which changes no rank. From -1 to 1, higher is better. It
    ignores the sign of attributions, and costs draws x features / step evaluations.

    Undefined (`nan`) where |a| of all features is equal, and where no removal changes the score differently
    from another.

    Attributes:
      features: what is removed at once.
      removal: what takes its place, by default uniform random numbers from 0 to 1.
      step: features in each set, >= 1.
      score: "probability" or "logit" of the target.
      draws: how many random removals of each set are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Nguyen and Rodriguez Martinez (2020), https://arxiv.org/abs/2007.07584

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, w = jnp.ones((1, 4)), jnp.array([1.0, -2.0, 4.0, -8.0])
      >>> measure = metrics.MonotonicityCorrelation(score="logit")
      >>> measure(lambda x: x @ w, x, x * w, key=jax.random.key(0)).round(3).tolist()
      [1.0]
    """

    removal: Removal = Uniform(0.0, 1.0)
    step: int = 1
    draws: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("step", self.step)

    def _sizes_of(self, case: Case) -> Array:
        return jnp.abs(self._totals(case))

    def _pairs(self, case: Case) -> Pairs:
        return self._of_chunks(case, self._sizes_of(case), self.step, False, _mean_size)

    def _compute(self, case: Case) -> Array:
        return self._correlated(case, self._pairs(case), spearman)
