"""What a search found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp import composites
from jaxlrp._checks import as_path
from jaxlrp._described import described
from jaxlrp.composites.entries import Composite
from jaxlrp.metrics import Metric

_NORMAL = 1.96  # half of a 95 % interval, in standard errors


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A composite that was tried.

    Attributes:
      family: the name of its family.
      values: of its hyperparameters.
      composite: ready for `jaxlrp.explain`.
      scores: by metric, of each sample that chose, (n,); `nan` where undefined.
      held_out: the same of each sample that reports; None if it was not scored there.
    """

    family: str
    values: Mapping[str, float]
    composite: Composite
    scores: Mapping[str, np.ndarray]
    held_out: Mapping[str, np.ndarray] | None = None

    @property
    def label(self) -> str:
        """Its family and values, such as "gamma (gamma=0.1)"."""
        shown = ", ".join(f"{name}={value:.3g}" for name, value in self.values.items())
        return f"{self.family} ({shown})" if shown else self.family


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """The result of `search`.

    Attributes:
      candidates: all that were tried, in order.
      metrics: by name.
      objective: the metric that decides.
      selecting, reporting: how many samples chose, and how many report.
    """

    candidates: tuple[Candidate, ...]
    metrics: Mapping[str, Metric]
    objective: str
    selecting: int
    reporting: int

    @property
    def best(self) -> Candidate:
        """The candidate with the best mean of the objective on the samples that choose.

        Raises:
          ValueError: if the objective is undefined for all.
        """
        found = best_of(self.candidates, self.objective, self._better(self.objective))
        if found is None:
            raise ValueError(f"{self.objective!r} is undefined for every sample of every candidate")
        return found

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The Pareto front: candidates that no other one equals or exceeds in all metrics."""
        signs = np.array([1.0 if self._better(name) else -1.0 for name in self.metrics])
        means = np.stack([means_of(self.candidates, name) for name in self.metrics], axis=1) * signs
        kept = []
        for i, own in enumerate(means):
            if np.isnan(own).any():
                continue
            exceeded = (means >= own).all(axis=1) & (means > own).any(axis=1)
            if not exceeded.any():
                kept.append(self.candidates[i])
        return tuple(kept)

    def best_of_family(self, name: str) -> Candidate | None:
        """The best member of a family; None if the objective is undefined for all."""
        own = [c for c in self.candidates if c.family == name]
        if not own:
            known = ", ".join(dict.fromkeys(c.family for c in self.candidates))
            raise ValueError(f"name must be one of {known}, got {name!r}")
        return best_of(own, self.objective, self._better(self.objective))

    def code(self) -> str:
        """The best composite as Python code, to paste into a script; see `composites.code`."""
        return composites.code(self.best.composite)

    def save(self, path: Any) -> None:
        """Writes `code()` to a file, with what was measured as comments."""
        lines = [f"# {line}".rstrip() for line in str(self).splitlines()]
        as_path("path", path).write_text("\n".join(lines) + f"\n\n{self.code()}", encoding="utf-8")

    def table(self) -> str:
        """The best of each family in Markdown: means on both parts, difference to the best.

        Intervals are 95 % of a mean over samples (1.96 standard errors).
        """
        head = ["candidate", f"{self.objective}, selecting"]
        head += [f"{name}, held out" for name in self.metrics] if self.reporting else []
        head += ["best minus this"] if self.reporting else []
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        names = dict.fromkeys(c.family for c in self.candidates)
        found = {name: self.best_of_family(name) for name in names}
        shown = [one for one in found.values() if one is not None]
        lines += [self._row(one) for one in sorted(shown, key=self._place)]
        lines += [f"| {name} | undefined |" for name, one in found.items() if one is None]
        return "\n".join(lines)

    def _place(self, one: Candidate) -> float:
        """By which rows are sorted: the best first."""
        return -self._sign * float(np.nanmean(one.scores[self.objective]))

    def _row(self, one: Candidate) -> str:
        cells = [one.label, f"{np.nanmean(one.scores[self.objective]):.3f}"]
        if one.held_out is not None and self.best.held_out is not None:
            cells += [_interval(one.held_out[name]) for name in self.metrics]
            gap = self.best.held_out[self.objective] - one.held_out[self.objective]
            cells.append("" if one is self.best else _interval(gap))
        return "| " + " | ".join(cells) + " |"

    def __str__(self) -> str:
        better = "higher" if self._better(self.objective) else "lower"
        parts = [
            f"{len(self.candidates)} candidates; {self.objective} decides, {better} is better",
            f"{self.selecting} samples chose, {self.reporting} others report",
            "",
            self.table(),
        ]
        if len(self.metrics) > 1:
            parts += ["", "Pareto front of " + ", ".join(self.metrics) + ":"]
            # derivatives lead to values that are the same as printed
            parts += [f"  {label}" for label in dict.fromkeys(c.label for c in self.front)]
        return "\n".join(parts)

    __repr__ = __str__

    @property
    def _sign(self) -> float:
        return 1.0 if self._better(self.objective) else -1.0

    def _better(self, name: str) -> bool:
        return bool(self.metrics[name].higher_is_better)


def means_of(candidates: Sequence[Candidate], metric: str) -> np.ndarray:
    """The mean score of each candidate, over samples for which any of them has one.

    A candidate without a score for one of these has none: leaving out samples would flatter it.
    """
    scores = np.stack([c.scores[metric] for c in candidates])
    used = np.isfinite(scores).any(axis=0)
    if not used.any():
        return np.full(len(scores), np.nan)
    held = np.where(np.isfinite(scores), scores, np.nan)
    return held[:, used].mean(axis=1)


def best_of(candidates: Sequence[Candidate], metric: str, higher: bool) -> Candidate | None:
    """The candidate with the best mean, the first of several; None if no mean is defined."""
    means = means_of(candidates, metric)
    if np.isnan(means).all():
        return None
    return candidates[int(np.nanargmax(means if higher else -means))]


def _interval(values: np.ndarray) -> str:
    used = values[np.isfinite(values)]
    if len(used) < 2:
        return f"{used.mean():.3f}" if len(used) else "undefined"
    return f"{used.mean():.3f} ± {_NORMAL * used.std(ddof=1) / np.sqrt(len(used)):.3f}"
