"""Whether explainers differ: ranks over samples, the Friedman test, Nemenyi's test of pairs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxlrp.metrics.evaluation.table import ranks


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Ranks of explainers by one metric, and tests of their differences.

    Samples are the blocks of the tests, so the tests only apply to this model on such samples.

    Attributes:
      explainers: their names.
      metric: its name.
      mean_ranks: (explainers,), 1 is the best, over samples for which all have a score.
      statistic, p: of the Friedman test that all explainers rank equally, corrected for ties.
      pairs: (explainers, explainers), p of Nemenyi's test that two explainers rank equally.
      critical_difference: two explainers differ at level `alpha` if their mean ranks differ by more.
      alpha: the level.
      samples: how many were ranked.
    """

    explainers: tuple[str, ...]
    metric: str
    mean_ranks: np.ndarray
    statistic: float
    p: float
    pairs: np.ndarray
    critical_difference: float
    alpha: float
    samples: int

    def __str__(self) -> str:
        order = np.argsort(self.mean_ranks, kind="stable")
        width = max(map(len, self.explainers))
        lines = [
            f"{self.metric}: Friedman chi2({len(self.explainers) - 1}) = {self.statistic:.3g}, "
            f"p = {self.p:.3g}, {self.samples} samples; mean ranks (1 is the best) differ beyond "
            f"{self.critical_difference:.3g} (Nemenyi, alpha = {self.alpha:g})",
            *(f"  {self.explainers[i].ljust(width)}  {self.mean_ranks[i]:.2f}" for i in order),
        ]
        return "\n".join(lines)

    __repr__ = __str__


def compare(
    scores: np.ndarray, explainers: Sequence[str], metric: str, better: bool | None, alpha: float
) -> Comparison:
    """See `Evaluation.significance`; scores (explainers, samples)."""
    from scipy import stats

    if better is None:
        raise ValueError(
            f"the metric {metric!r} has no better direction: its scores cannot be ranked"
        )
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be > 0 and < 1, got {alpha}")
    held = scores[:, ~np.isnan(scores).any(axis=0)]
    k, n = held.shape
    if k < 3 or n < 2:
        raise ValueError(
            f"the test needs at least 3 explainers, and 2 samples for which all have a score by "
            f"{metric!r}: got {k} and {n}"
        )
    placed = np.stack([ranks(-column if better else column) for column in held.T], axis=1)
    mean = placed.mean(axis=1)
    statistic, p = _friedman(placed)
    scale = math.sqrt(k * (k + 1) / (6 * n))
    differences = np.abs(mean[:, None] - mean) / scale * math.sqrt(2)
    pairs = np.asarray(stats.studentized_range.sf(differences, k, np.inf))
    critical = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2) * scale
    return Comparison(
        tuple(explainers), metric, mean, statistic, p, np.clip(pairs, 0.0, 1.0), critical, alpha, n
    )


def _friedman(placed: np.ndarray) -> tuple[float, float]:
    """Statistic and p of ranks (explainers, samples), corrected for ties.

    chi2 = 12 n sum_j (mean rank_j - (k + 1) / 2)^2 / (k (k + 1) c),  c = 1 - sum of t^3 - t / (n (k^3 - k))
    """
    from scipy import stats

    k, n = placed.shape
    ties = 0.0
    for column in placed.T:
        counts = np.unique(column, return_counts=True)[1]
        ties += float((counts**3 - counts).sum())
    correction = 1 - ties / (n * (k**3 - k))
    if correction <= 0:  # every sample is a tie of all
        return 0.0, 1.0
    spread = ((placed.mean(axis=1) - (k + 1) / 2) ** 2).sum()
    statistic = float(12 * n * spread / (k * (k + 1) * correction))
    return statistic, float(stats.chi2.sf(statistic, k - 1))
