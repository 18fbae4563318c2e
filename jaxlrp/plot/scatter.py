"""Relevance of one column of a table against its value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from jaxlrp.explanation.result import Explanation
from jaxlrp.plot.columns import Columns, read
from jaxlrp.plot.figures import new_axes
from jaxlrp.plot.rows import GRAY, missing_points, swarm, value_bar, value_colors, value_points

_POINT = 4.5  # points, diameter


def scatter(
    relevance: ArrayLike | Explanation,
    values: Any,
    feature: int | str,
    *,
    color: int | str | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
    cmap: str | Colormap = "value",
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws the relevance of one feature against its value, one point for each sample.

    The shape of the cloud is what the network made of the feature; where points of one value differ, it is
    because of other features, and `color` shows of which. A gray histogram at the bottom shows where the
    samples are. Categories stand side by side, their points spread within them.

    Args:
      relevance: (N, F), real, finite, or an `Explanation`, for its relevance. Not modified.
      values: (N, F), the table that was explained, as in `beeswarm`.
      feature: the name or position of the feature.
      color: the name or position of the feature that colors the points. None: gray.
      names: of the F features. None: the columns of `values`, or numbers.
      ax: the Axes to draw into. None creates a Figure, available as ``scatter(...).figure``.
      cmap: as in `beeswarm`. Categories have the colors of matplotlib's "tab10" and a legend.
      title: title of the panel.
      colorbar: whether to draw the color scale or legend.

    Returns:
      The Axes.

    Raises:
      TypeError: if relevance is traced or does not hold real numbers.
      ValueError: if a feature does not exist, or a shape does not match; the message names the argument.

    Example:
      >>> import numpy as np
      >>> x = np.linspace(-1.0, 1.0, 60).reshape(20, 3)
      >>> axes = scatter(x**3, x, "b", color="c", names=["a", "b", "c"])
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('b', 'relevance of b')
    """
    if values is None:
        raise ValueError("values must be the table that was explained, got None")
    table = read(relevance, values, names)
    assert table.values is not None
    x = table.find(feature, "feature")
    c = None if color is None else table.find(color, "color")
    numeric = c is not None and c not in table.labels
    ax = new_axes((4.0, 5.6), colorbar and numeric, 5.6) if ax is None else ax

    kept = ~np.isnan(table.values[:, x])
    if not kept.any():
        raise ValueError(f"values of {table.names[x]!r} must not all be missing")
    places = _places(table, x)
    ax.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
    _histogram(ax, table.values[kept, x], x in table.labels)
    chosen = Columns(table.relevance[kept], table.names, table.values[kept], table.labels)
    _points(ax, places[kept], chosen, x, c, cmap, colorbar)
    if x in table.labels:
        ax.set_xticks(range(len(table.labels[x])), list(table.labels[x]))
        ax.tick_params(axis="x", length=0)
    ax.set_xlabel(table.names[x])
    ax.set_ylabel(f"relevance of {table.names[x]}")
    ax.spines[["top", "right"]].set_visible(False)
    if title is not None:
        ax.set_title(title)
    return ax


def _places(table: Columns, x: int) -> np.ndarray:
    """Where on the axis: the value, or for a category, near its code."""
    assert table.values is not None
    places = table.values[:, x].copy()
    if x in table.labels:
        r = table.relevance[:, x]
        limits = (float(r.min()), float(r.max()))
        for code in range(len(table.labels[x])):
            held = places == code
            if held.any():
                places[held] += 0.8 * swarm(r[held], limits, bins=60)
    return places


def _points(
    ax: Axes, places: np.ndarray, table: Columns, x: int, c: int | None, cmap: Any, colorbar: bool
) -> None:
    heights, size = table.relevance[:, x], _POINT**2
    if c is None:
        ax.scatter(places, heights, s=size, c="0.35", linewidths=0)
        return
    assert table.values is not None
    tint = table.values[:, c]
    if c in table.labels:
        missing_points(ax, places, heights, tint, size)
        for code, label in enumerate(table.labels[c]):
            held = tint == code
            shade = colormaps["tab10"](code % 10)
            ax.scatter(places[held], heights[held], s=size, color=shade, linewidths=0, label=label)
        if colorbar:
            ax.legend(title=table.names[c], frameon=False, fontsize="small")
        return
    known = tint[~np.isnan(tint)]
    low, high = np.percentile(known, [5.0, 95.0]) if len(known) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    colors = value_colors(cmap)
    value_points(ax, places, heights, tint, size, colors, (float(low), float(high)))
    if colorbar:
        value_bar(ax, colors, (float(low), float(high)), table.names[c])


def _histogram(ax: Axes, values: np.ndarray, categories: bool) -> None:
    """How often values occur, at the bottom of the plot, behind the points."""
    edges = np.arange(-0.5, values.max() + 1.0) if categories else 30
    counts, ends = np.histogram(values, bins=edges)
    ax.bar(
        ends[:-1],
        0.2 * counts / counts.max(),
        width=np.diff(ends),
        align="edge",
        transform=ax.get_xaxis_transform(),
        color=GRAY,
        alpha=0.25,
        linewidth=0,
        zorder=0,
    )
