"""Scores of parts that can be removed one at a time: how much each matters, and for which class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from jaxlrp.metrics.faithfulness.correlation import FaithfulnessEstimate
from jaxlrp.metrics.metric import Case, metric
from jaxlrp.metrics.removal import Constant, Removal
from jaxlrp.metrics.statistics import spearman
from jaxlrp.metrics.truth.benchmark import Benchmark
from jaxlrp.metrics.truth.creatures import CODE, PARTS
from jaxlrp.metrics.work import Score


@metric
class SinglePartDrops(FaithfulnessEstimate):
    r"""Correctness: does the ranking of parts follow from what the network loses without each?

    Parts are removed one at a time:

        Spearman correlation over parts p of   sum over i in p of a_i   and   f(x) - f(x without p)

    From -1 to 1, higher is better; random attributions score 0. No threshold has to be chosen, and the sum
    of all attributions may be 0.

    Undefined (`nan`) where attributions of all parts are equal, and where no removal changes the score
    differently from another.

    Attributes:
      features: what is removed at once. In `evaluate`, the segments of the data.
      removal: what takes its place; 0, the mean of the background, by default.
      step: parts in each set, >= 1.
      score: "probability" or "logit" of the target.
      draws: how many random removals of each part are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Hesse et al. (2023), https://doi.org/10.1109/ICCV51070.2023.00367 ("single deletion")

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.metrics import features, truth
      >>> x, w = jnp.ones((1, 6)), jnp.arange(6.0)
      >>> drops = truth.SinglePartDrops(features=features.Segments(jnp.array([[0, 0, 1, 1, 2, -1]])))
      >>> drops(lambda x: x @ w, x, x * w).round(3).tolist()
      [1.0]
    """

    removal: Removal = dataclasses.field(default_factory=Constant)
    score: Score = "logit"

    def _compute(self, case: Case) -> Array:
        return self._correlated(case, self._pairs(case), spearman)


def contrastivity(
    benchmark: Benchmark, attribute: Callable[[np.ndarray, np.ndarray], Any]
) -> np.ndarray:
    """Contrastivity: is a part more relevant for a class that has it than for one that does not?

    Two other classes c and d are explained in each picture. For each part whose variant c has and d does
    not, or the other way around: does it have more relevance for the class that has it? There is no
    threshold; what does not depend on the class scores 0.5.

    Args:
      benchmark: from `creatures`.
      attribute: from (inputs, targets) to attributions (n, 14, 39, 3) or an `Explanation`; the question
        stays the same.

    Returns:
      The share of parts for which it has, (n,); a tie counts half. `nan` where c and d differ in no such
      part.

    Raises:
      ValueError: if the benchmark is another one.

    References:
      Hesse et al. (2023), https://doi.org/10.1109/ICCV51070.2023.00367 ("target sensitivity")
    """
    if benchmark.name != "creatures":
        raise ValueError(f"benchmark must be of truth.creatures, got {benchmark.name!r}")
    own = benchmark.answers
    first, second = (((own + i) % len(CODE)).astype(np.int32) for i in (1, 2))
    more = part_relevance(benchmark, attribute(benchmark.inputs, first))
    more = (more - part_relevance(benchmark, attribute(benchmark.inputs, second)))[:, : len(PARTS)]
    has_first, has_second = (CODE[c] == CODE[own] for c in (first, second))
    differs = has_first != has_second
    right = np.where(more == 0, 0.5, (more > 0) == has_first)
    count = differs.sum(axis=1)
    share = (right * differs).sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, share, np.nan)


def part_relevance(benchmark: Benchmark, attributions: Any) -> np.ndarray:
    """The relevance of each part, the sum over its pixels and channels, (n, parts).

    Args:
      benchmark: one with segments.
      attributions: (n, ...) of the shape of the inputs, or an `Explanation`.

    Raises:
      ValueError: if the benchmark has no segments, or shapes do not fit.
    """
    found = np.asarray(getattr(attributions, "relevance", attributions))
    if benchmark.segments is None or found.shape != benchmark.inputs.shape:
        raise ValueError(
            f"benchmark must have segments, and attributions the shape {benchmark.inputs.shape}, got "
            f"{benchmark.name!r} and {found.shape}"
        )
    numbers = range(len(benchmark.parts))
    axes = tuple(range(1, found.ndim))
    return np.stack([(found * (benchmark.segments == i)).sum(axis=axes) for i in numbers], axis=1)
