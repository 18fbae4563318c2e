"""Relevance of the columns of a table as bars."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from jaxlrp.explanation.result import Explanation
from jaxlrp.plot.columns import Columns, number, one_sample, others, read, shown
from jaxlrp.plot.normalize import as_colormap
from jaxlrp.plot.rows import GRAY, label_rows, row_axes, widen
from jaxlrp.tables import members_by_class


def bar(
    relevance: ArrayLike | Explanation,
    values: Any = None,
    *,
    names: Sequence[str] | None = None,
    sample: int | None = None,
    by: Sequence[Any] | None = None,
    max_display: int = 10,
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance",
    title: str | None = None,
) -> Axes:
    """Draws which features matter: the mean |relevance| of each, or the relevance for one sample.

    Features are sorted by size; those after the first `max_display` - 1 share the last bar, their sum.

    Args:
      relevance: (N, F): the bars show means of |relevance|. (F,), (1, F) or an (N, F) with `sample`: they
        show the relevance of one sample, red for, blue against. Or an `Explanation`, for its relevance.
        Not modified.
      values: the table that was explained, as in `beeswarm`. Its column names label the bars; for one
        sample, its values do too.
      names: of the F features. None: the columns of `values`, or numbers.
      sample: the position of one sample. None: all.
      by: (N,), the class of each sample: one bar for each class, from the mean over its samples.
      max_display: the number of bars, >= 1.
      ax: the Axes to draw into. None creates a Figure, available as ``bar(...).figure``.
      cmap: as in `heatmap`, for one sample.
      title: title of the panel.

    Returns:
      The Axes.

    Raises:
      TypeError: if relevance is traced or does not hold real numbers.
      ValueError: if a shape or a number of names does not match; the message names the argument.

    Example:
      >>> axes = bar([[1.0, -3.0, 0.5], [1.0, 5.0, 0.5]], names=["a", "b", "c"], max_display=2)
      >>> [label.get_text() for label in axes.get_yticklabels()]
      ['b', '2 other features']
      >>> [float(bar.get_width()) for bar in axes.patches]
      [4.0, 1.5]
    """
    table = read(relevance, values, names)
    if by is not None and sample is not None:
        raise ValueError("by must be None for one sample, got both by and sample")
    if by is None and (sample is not None or len(table.relevance) == 1):
        return _of_one(one_sample(table, sample, "the plot"), max_display, ax, cmap, title)
    return _of_many(table, by, max_display, ax, title)


def _of_one(
    table: Columns, max_display: int, ax: Axes | None, cmap: str | Colormap, title: str | None
) -> Axes:
    own, rest = shown(table, max_display)
    amounts = [table.relevance[0, i] for i in own]
    labels = [table.described(i) for i in own]
    if rest:
        amounts.append(table.relevance[0, rest].sum())
        labels.append(others(rest))
    ax = row_axes(ax, len(amounts), labels)
    colors = as_colormap(cmap)
    ax.barh(
        range(len(amounts)),
        amounts,
        height=0.7,
        color=[colors(0.9 if amount > 0 else 0.1) for amount in amounts],
    )
    ax.axvline(0.0, color="0.6", linewidth=0.5, zorder=0)
    _write(ax, amounts, sign=True)
    label_rows(ax, labels, "relevance", title)
    return ax


def _of_many(
    table: Columns, by: Sequence[Any] | None, max_display: int, ax: Axes | None, title: str | None
) -> Axes:
    labels, members = members_by_class(by, len(table.relevance))
    own, rest = shown(table, max_display)
    magnitude = np.abs(table.relevance)
    means = np.stack([magnitude[members == k].mean(axis=0) for k in range(len(labels))])
    amounts = means[:, own]
    if rest:
        amounts = np.concatenate([amounts, means[:, rest].sum(axis=1, keepdims=True)], axis=1)
    rows = amounts.shape[1]
    named = [table.names[i] for i in own] + ([others(rest)] if rest else [])
    ax = row_axes(ax, rows if by is None else rows * (0.4 + 0.5 * len(labels)), named)
    height = 0.75 / len(labels)
    for k, (label, part) in enumerate(zip(labels, amounts, strict=True)):
        places = np.arange(rows) + (k - (len(labels) - 1) / 2) * height
        color = GRAY if by is None else colormaps["tab10"](k % 10)
        ax.barh(places, part, height=height, color=color, label=f"{label} ({sum(members == k)})")
    if by is None:
        _write(ax, list(amounts[0]), sign=False)
    else:
        ax.legend(frameon=False)
    label_rows(ax, named, "mean |relevance|", title)
    return ax


def _write(ax: Axes, amounts: list[Any], sign: bool) -> None:
    """The amounts as numbers at the ends of their bars."""
    for row, amount in enumerate(amounts):
        ax.annotate(
            number(amount, sign=sign),
            (amount, row),
            (3 if amount >= 0 else -3, 0),
            textcoords="offset points",
            ha="left" if amount >= 0 else "right",
            va="center",
            fontsize="small",
        )
    widen(ax, np.array([0.0, *amounts]), 0.16)
