"""Results of a screening: the clearest split of each class in each domain, and how surprising it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxlrp.spray.analysis import Analysis
from jaxlrp.spray.effects import Effect
from jaxlrp.spray.ranking import Candidate, Ranking

_SHOWN = 40  # lines of a table


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """The clearest split of a class in one domain, and its significance.

    Attributes:
      domain: the domain.
      candidate: the smaller side of the split, with its class, score and rows.
      t: how far log F is above that of other classes, in units of their standard deviation; see `surprise`.
        NaN if there are too few to compare with.
      p_value: corrected p-value in [0, 1]: the probability that any class in any domain has such a score by
        chance (Bonferroni). NaN if t is NaN.
      effect: effect on predictions; None if `screen` got no outputs.
    """

    domain: str
    candidate: Candidate
    t: float
    p_value: float
    effect: Effect | None = None

    @property
    def category(self) -> int:
        """The class."""
        return self.candidate.category

    @property
    def fisher(self) -> float:
        """The score, in [0, 1000]; see `fisher_score`."""
        return self.candidate.fisher

    @property
    def rows(self) -> np.ndarray:
        """(size,) rows of the data set, most typical first."""
        return self.candidate.rows


@dataclasses.dataclass(frozen=True, eq=False)
class Screening:
    """The results of `screen`, most surprising first. Prints as a table.

    Attributes:
      findings: one for each class and domain in which the class has a split.
      analyses: for each domain, the analyses of all classes.
      rankings: for each domain, all clusters.
      alpha: accepted probability of a false alarm in the whole screening.
    """

    findings: tuple[Finding, ...]
    analyses: Mapping[str, tuple[Analysis, ...]]
    rankings: Mapping[str, Ranking]
    alpha: float

    @property
    def surprising(self) -> tuple[Finding, ...]:
        """The findings with a corrected p-value of at most `alpha`."""
        return tuple(f for f in self.findings if f.p_value <= self.alpha)

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, in the order of their first finding."""
        return tuple(dict.fromkeys(f.category for f in self.findings))

    def of_class(self, category: int) -> tuple[Finding, ...]:
        """The findings of one class, in order: at most one per domain."""
        return tuple(f for f in self.findings if f.category == category)

    def __str__(self) -> str:
        lines = [
            f"{'rank':>4} {'class':>6} {'domain':<10} {'Fisher':>8} {'t':>6} {'p':>8} {'size':>7} "
            f"{'share':>6}  effect"
        ]
        for i, f in enumerate(self.findings[:_SHOWN], start=1):
            told = "" if f.effect is None else str(f.effect)
            mark = "*" if f.p_value <= self.alpha else " "
            lines.append(
                f"{i:4} {f.category:6} {f.domain:<10} {f.fisher:8.4g} {f.t:6.1f} {f.p_value:8.2g}{mark}"
                f"{f.candidate.size:7} {f.candidate.share:6.3f}  {told}"
            )
        if len(self.findings) > _SHOWN:
            lines.append(f"... and {len(self.findings) - _SHOWN} less surprising findings")
        lines.append(f"{len(self.surprising)} surprising (*): corrected p <= {self.alpha:g}")
        return "\n".join(line.rstrip() for line in lines)
