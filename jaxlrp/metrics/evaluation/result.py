"""What an evaluation gives back."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp._extras import need
from jaxlrp.dataset.source import Id
from jaxlrp.errors import counted, near
from jaxlrp.metrics.evaluation.significance import Comparison, compare
from jaxlrp.metrics.evaluation.table import Statistic, Table, make_table
from jaxlrp.metrics.metric import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of explainers by metrics, for each sample. Printed, it is a table of means.

    Attributes:
      explainers: their names.
      metrics: by name.
      scores: float64, (explainers, metrics, samples); `nan` where a metric is undefined, and where a sample
        failed.
      ids: the id of each sample.
      targets: (explainers, samples), the class that was explained, -1 where a sample failed; None if no
        class was.
      failed: the reason for each sample without scores, by id.
    """

    explainers: tuple[str, ...]
    metrics: Mapping[str, Metric]
    scores: np.ndarray
    ids: Sequence[Id]
    targets: np.ndarray | None = None
    failed: Mapping[Id, str] = dataclasses.field(default_factory=dict)

    @property
    def undefined(self) -> np.ndarray:
        """The share of samples without a score, (explainers, metrics)."""
        return np.isnan(self.scores).mean(axis=2)

    def of(self, explainer: str, metric: str) -> np.ndarray:
        """The scores of one explainer by one metric, (samples,).

        Raises:
          KeyError: if there is no such explainer or metric.
        """
        return self.scores[self._place(explainer), self._column(metric)]

    def select(
        self, explainers: Sequence[str] | None = None, metrics: Sequence[str] | None = None
    ) -> Evaluation:
        """Some explainers and metrics, in this order.

        Args:
          explainers, metrics: their names; None for all.

        Raises:
          KeyError: if there is no such explainer or metric.
        """
        names = self.explainers if explainers is None else tuple(explainers)
        chosen = list(self.metrics) if metrics is None else list(metrics)
        rows, columns = [self._place(n) for n in names], [self._column(m) for m in chosen]
        return Evaluation(
            names,
            {m: self.metrics[m] for m in chosen},
            self.scores[np.ix_(rows, columns)],
            self.ids,
            None if self.targets is None else self.targets[rows],
            self.failed,
        )

    def table(
        self,
        statistic: Statistic | Mapping[str, Statistic] = "mean",
        *,
        confidence: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
    ) -> Table:
        """The mean or median score of each explainer by each metric, with intervals and ranks.

        Args:
          statistic: "mean" or "median" over samples with a score, or a dictionary from names of metrics to
            one of these ("mean" for the others). Use the median for scores with heavy tails, such as
            ratios.
          confidence: of the intervals, > 0 and < 1.
          resamples: of the bootstrap, >= 1.
          seed: of the bootstrap.

        Returns:
          A `Table`, with `.markdown()` and `.pandas()`.

        Raises:
          ValueError, KeyError: if an argument is invalid.
        """
        if isinstance(statistic, Mapping):
            for name in statistic:
                self._column(name)
            chosen: list[Statistic] = [statistic.get(name, "mean") for name in self.metrics]
        else:
            chosen = [statistic] * len(self.metrics)
        return make_table(
            self.scores, self.explainers, self.metrics, chosen, confidence, resamples, seed
        )

    def significance(self, metric: str, *, alpha: float = 0.05) -> Comparison:
        """Whether explainers differ by a metric: the Friedman test, and Nemenyi's of each pair.

        Args:
          metric: its name; one that says whether higher is better.
          alpha: level of the critical difference, > 0 and < 1.

        Returns:
          A `Comparison` of ranks (1 is best) over the samples for which all explainers have a score.

        Raises:
          KeyError: if there is no such metric.
          ValueError: if there are fewer than three explainers or two such samples, or neither direction
            of the metric is better.

        References:
          Demšar (2006), https://www.jmlr.org/papers/v7/demsar06a.html
        """
        column = self._column(metric)
        better = self.metrics[metric].higher_is_better
        return compare(self.scores[:, column], self.explainers, metric, better, alpha)

    def _place(self, name: str) -> int:
        if name not in self.explainers:
            raise KeyError(f"no explainer {name!r}: {near(str(name), self.explainers)}")
        return self.explainers.index(name)

    def _column(self, name: str) -> int:
        names = list(self.metrics)
        if name not in names:
            raise KeyError(f"no metric {name!r}: {near(str(name), names)}")
        return names.index(name)

    def __repr__(self) -> str:
        sizes = {"explainer": self.explainers, "metric": self.metrics, "sample": self.ids}
        named = ", ".join(counted(len(held), noun) for noun, held in sizes.items())
        lines = [f"<{named}>", str(self.table())]
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            lines.append(
                f"{counted(len(self.failed), 'sample')} failed, such as {name!r}: {reason}"
            )
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        return self.table().markdown()

    def csv(self) -> str:
        """Scores as CSV text: one line for each sample and explainer, one column for each metric."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["id", "explainer", *self.metrics])
        for k, name in enumerate(self.ids):
            for i, explainer in enumerate(self.explainers):
                writer.writerow([name, explainer, *self.scores[i, :, k].tolist()])
        return buffer.getvalue()

    def pandas(self) -> Any:
        """One row for each explainer, metric and sample: columns explainer, metric, id, score.

        Raises:
          ImportError: without pandas, an extra.
        """
        rows = [
            (explainer, metric, name, self.scores[i, j, k])
            for i, explainer in enumerate(self.explainers)
            for j, metric in enumerate(self.metrics)
            for k, name in enumerate(self.ids)
        ]
        pandas = need("pandas", "Evaluation.pandas", "pandas")
        return pandas.DataFrame(rows, columns=["explainer", "metric", "id", "score"])
