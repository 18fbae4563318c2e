"""Tables of an evaluation: means or medians, bootstrap intervals, ranks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxlrp._checks import check_count, check_one_of
from jaxlrp._extras import need
from jaxlrp.errors import counted
from jaxlrp.metrics.metric import Metric

Statistic = Literal["mean", "median"]
_BLOCK = 2**22  # numbers drawn at once by the bootstrap


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A number for each explainer and metric. `print` shows it, with ranks in brackets.

    Arrays are (explainers, metrics), `nan` where no sample has a score.

    Attributes:
      explainers, metrics: their names.
      higher_is_better: of each metric; None where neither is better.
      statistic: of each metric, "mean" or "median", over the samples with a score.
      value: the statistic.
      low, high: the ends of its bootstrap interval, by percentiles.
      confidence: of the interval.
      rank: 1 for the best explainer, means of places for equal ones; `nan` without a direction.
      undefined: the share of samples without a score.
      samples: how many there are.
    """

    explainers: tuple[str, ...]
    metrics: tuple[str, ...]
    higher_is_better: tuple[bool | None, ...]
    statistic: tuple[Statistic, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    confidence: float
    rank: np.ndarray
    undefined: np.ndarray
    samples: int

    @property
    def mean_rank(self) -> np.ndarray:
        """The mean of an explainer's ranks over the metrics with a direction, (explainers,).

        It is `nan` for an explainer that one of them does not score.
        """
        ranked = [j for j, better in enumerate(self.higher_is_better) if better is not None]
        if not ranked:
            return np.full(len(self.explainers), np.nan)
        return self.rank[:, ranked].mean(axis=1)

    def _heads(self) -> list[str]:
        arrows = {True: " ↑", False: " ↓", None: ""}
        return [
            f"{name}{arrows[better]}" + (" (median)" if what == "median" else "")
            for name, better, what in zip(
                self.metrics, self.higher_is_better, self.statistic, strict=True
            )
        ]

    def _cell(self, i: int, j: int) -> str:
        value, low, high = self.value[i, j], self.low[i, j], self.high[i, j]
        if math.isnan(value):
            return "undefined"
        text = f"{_short(value)} [{_short(low)}, {_short(high)}]"
        if not math.isnan(self.rank[i, j]):
            text += f" ({self.rank[i, j]:g})"
        if self.undefined[i, j]:
            text += f" {100 * self.undefined[i, j]:.0f}% undefined"
        return text

    def _grid(self, bold: bool = False) -> list[list[str]]:
        """The cells with their heads; metrics are the rows where there are more of them than explainers."""
        cells = [
            [self._bold(i, j) if bold else self._cell(i, j) for j in range(len(self.metrics))]
            for i in range(len(self.explainers))
        ]
        ranks = [_rank(value) for value in self.mean_rank]
        rows = [["", *self._heads(), "mean rank"]]
        rows += [[n, *c, r] for n, c, r in zip(self.explainers, cells, ranks, strict=True)]
        if len(self.metrics) <= len(self.explainers):
            return rows
        return [list(column) for column in zip(*rows, strict=True)]

    def _bold(self, i: int, j: int) -> str:
        cell = self._cell(i, j)
        if self.rank[i, j] != np.nanmin(self.rank[:, j], initial=np.inf):
            return cell
        number, _, rest = cell.partition(" ")
        return f"**{number}** {rest}"

    def _note(self) -> str:
        return (
            f"value [{100 * self.confidence:g}% interval] (rank); ↑ higher is better, ↓ lower is better; "
            f"{counted(self.samples, 'sample')}"
        )

    def __str__(self) -> str:
        rows = self._grid()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self._note()])

    __repr__ = __str__

    def markdown(self) -> str:
        """The table in Markdown; the best value of each metric is bold."""
        head, *rows = self._grid(bold=True)
        lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
        return "\n".join([*lines, "", self._note()])

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def pandas(self) -> Any:
        """A DataFrame with explainers as rows and (metric, column) as columns.

        The columns are value, low, high, rank, undefined.

        Raises:
          ImportError: without pandas, an extra.
        """
        names = ("value", "low", "high", "rank", "undefined")
        columns = {
            (metric, name): getattr(self, name)[:, j]
            for j, metric in enumerate(self.metrics)
            for name in names
        }
        return need("pandas", "Table.pandas", "pandas").DataFrame(
            columns, index=list(self.explainers)
        )


def make_table(
    scores: np.ndarray,
    explainers: Sequence[str],
    metrics: Mapping[str, Metric],
    statistic: Sequence[Statistic],
    confidence: float,
    resamples: int,
    seed: int,
) -> Table:
    """See `Evaluation.table`."""
    for chosen in statistic:
        check_one_of("statistic", chosen, ("mean", "median"))
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be > 0 and < 1, got {confidence}")
    check_count("resamples", resamples)
    shape = scores.shape[:2]
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    rank = np.full(shape, np.nan)
    better = tuple(metric.higher_is_better for metric in metrics.values())
    for j, chosen in enumerate(statistic):
        for i in range(len(explainers)):
            held = scores[i, j][~np.isnan(scores[i, j])]
            if held.size:
                value[i, j] = _of(chosen, held[None])[0]
                drawn = _bootstrap(held, chosen, resamples, seed)
                ends = [50 * (1 - confidence), 50 * (1 + confidence)]
                # infinite scores have no interval between them
                method = "linear" if np.isfinite(drawn).all() else "nearest"
                low[i, j], high[i, j] = np.percentile(drawn, ends, method=method)
        if better[j] is not None:
            rank[:, j] = ranks(-value[:, j] if better[j] else value[:, j])
    return Table(
        tuple(explainers), tuple(metrics), better, tuple(statistic), value, low, high, confidence, rank,
        np.isnan(scores).mean(axis=2), scores.shape[2],
    )  # fmt: skip


def ranks(values: np.ndarray) -> np.ndarray:
    """Places from 1, smallest first; equal values share the mean of theirs, `nan` stays so."""
    below = (values[None] < values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return np.where(np.isnan(values), np.nan, below + (equal + 1) / 2)


def _bootstrap(held: np.ndarray, chosen: Statistic, resamples: int, seed: int) -> np.ndarray:
    """The statistic of samples drawn with replacement, (resamples,). Rows of equal length draw alike."""
    generator = np.random.default_rng(seed)
    block = max(_BLOCK // len(held), 1)
    drawn = [
        _of(chosen, held[generator.integers(0, len(held), (min(block, resamples - i), len(held)))])
        for i in range(0, resamples, block)
    ]
    return np.concatenate(drawn)


def _of(chosen: Statistic, values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return values.mean(axis=1) if chosen == "mean" else np.median(values, axis=1)


def _short(value: float) -> str:
    return f"{value:.3g}"


def _rank(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
