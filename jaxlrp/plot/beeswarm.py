"""Relevance of the columns of a table, one point for each sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from jaxlrp.explanation.result import Explanation
from jaxlrp.plot.columns import others, read, shown
from jaxlrp.plot.rows import (
    GRAY,
    label_rows,
    row_axes,
    swarm,
    value_bar,
    value_colors,
    value_points,
)

_POINT = 3.6  # points, diameter


def beeswarm(
    relevance: ArrayLike | Explanation,
    values: Any = None,
    *,
    names: Sequence[str] | None = None,
    max_display: int = 10,
    ax: Axes | None = None,
    cmap: str | Colormap = "value",
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws the relevance of each feature for all samples: one point per sample, colored by its value.

    It shows how much a feature matters, for how many samples, and in which direction: if points to the
    right have the color of high values, a high value is evidence for the output. Features are sorted by
    mean |relevance|; those after the first `max_display` - 1 share the last row, their sum, in gray.

    Args:
      relevance: (N, F), real, finite, or an `Explanation`, for its relevance. Not modified.
      values: (N, F), the table that was explained, for the colors: an array, or a pandas or polars frame,
        whose columns give the names. Labels, categories and missing values (NaN, None; gray) are allowed.
        It need not be what the network saw: pass the table before it was standardized. None: no colors.
      names: of the F features. None: the columns of `values`, or numbers.
      max_display: the number of rows, >= 1.
      ax: the Axes to draw into. None creates a Figure, available as ``beeswarm(...).figure``.
      cmap: "value", or the name or object of a matplotlib color map. The colors of a feature span its 5th
        to 95th percentile.
      title: title of the panel.
      colorbar: whether to draw the color scale.

    Returns:
      The Axes.

    Raises:
      TypeError: if relevance is traced or does not hold real numbers.
      ValueError: if a shape or a number of names does not match; the message names the argument.

    Example:
      >>> import numpy as np
      >>> x = np.linspace(-1.0, 1.0, 60).reshape(20, 3)
      >>> axes = beeswarm(x * [1.0, -4.0, 2.0], x, names=["a", "b", "c"])
      >>> [label.get_text() for label in axes.get_yticklabels()]
      ['b', 'c', 'a']
    """
    table = read(relevance, values, names)
    own, rest = shown(table, max_display)
    rows = [table.relevance[:, i] for i in own]
    labels = [table.names[i] for i in own]
    if rest:
        rows.append(table.relevance[:, rest].sum(axis=1))
        labels.append(others(rest))
    colored = table.values is not None
    ax = row_axes(ax, len(rows), labels, colorbar and colored)
    colors = value_colors(cmap)
    everything = np.concatenate(rows)
    limits = (float(everything.min()), float(everything.max()))
    ax.axvline(0.0, color="0.6", linewidth=0.5, zorder=0)
    for row, points in enumerate(rows):
        ax.axhline(row, color="0.85", linewidth=0.5, linestyle=":", zorder=0)
        places = row + 0.8 * swarm(points, limits)
        if table.values is None or row >= len(own):
            ax.scatter(points, places, s=_POINT**2, c=GRAY, linewidths=0)
            continue
        level = _levels(table.values[:, own[row]])
        value_points(ax, points, places, level, _POINT**2, colors, (0.0, 1.0))
    label_rows(ax, labels, "relevance", title)
    if colorbar and colored:
        value_bar(ax, colors, (0.0, 1.0), "value of the feature", ("low", "high"))
    return ax


def _levels(values: np.ndarray) -> np.ndarray:
    """Values as numbers in [0, 1] between their 5th and 95th percentile; NaN stays."""
    known = values[~np.isnan(values)]
    if not len(known) or known.min() == known.max():
        return np.where(np.isnan(values), np.nan, 0.5)
    low, high = np.percentile(known, [5.0, 95.0])
    if low == high:
        low, high = known.min(), known.max()
    return np.clip((values - low) / (high - low), 0.0, 1.0)
