"""What the plots of tables draw with: rows with labels, swarms of points, colors of values."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

from jaxlrp.plot.figures import new_axes
from jaxlrp.plot.normalize import as_colormap

_ROW = 0.36  # inches, height of a row
_LETTER = 0.09  # inches, width of a letter
GRAY = "0.55"


def row_axes(ax: Axes | None, rows: float, labels: list[str], colorbar: bool = False) -> Axes:
    """`ax`, or Axes of a new figure with room for the rows and for their labels."""
    if ax is not None:
        return ax
    width = 5.0 + float(np.clip(_LETTER * max(map(len, labels)), 1.0, 5.0))
    return new_axes((_ROW * rows + 1.0, width), colorbar, width)


def widen(ax: Axes, places: np.ndarray, margin: float) -> None:
    """Limits around all places, with a margin for numbers, relative to the width; none beside zero.

    Matplotlib's own margins end at the feet of bars.
    """
    low, high = float(places.min()), float(places.max())
    high = high if high > low else low + 1.0
    room = margin * (high - low)
    ax.set_xlim(low - room * (low != 0.0), high + room * (high != 0.0))


def label_rows(ax: Axes, labels: list[str], xlabel: str, title: str | None) -> None:
    """One label for each row, the first on top, which is row 0."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=7)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if title is not None:
        ax.set_title(title)


def value_colors(cmap: str | Colormap) -> Colormap:
    """The color map of feature values; "value" has no blue and no red, which mean relevance."""
    if cmap != "value":
        return as_colormap(cmap)
    return LinearSegmentedColormap.from_list(
        "value", colormaps["viridis"](np.linspace(0.0, 0.9, 16))
    )


def value_bar(
    ax: Axes,
    cmap: Colormap,
    limits: tuple[float, float],
    label: str,
    ends: tuple[str, str] | None = None,
) -> None:
    """The color scale of feature values."""
    bar = ax.figure.colorbar(ScalarMappable(Normalize(*limits), cmap), ax=ax, aspect=40, pad=0.02)
    if ends is not None:
        bar.set_ticks(list(limits), labels=list(ends))
    bar.ax.tick_params(length=2, labelsize="small")
    bar.outline.set(linewidth=0.5, edgecolor="0.6")
    bar.set_label(label, fontsize="small")


def value_points(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    size: float,
    cmap: Colormap,
    limits: tuple[float, float],
) -> None:
    """Points colored by values between limits; those without a value (NaN) are gray."""
    missing_points(ax, x, y, values, size)
    known = ~np.isnan(values)
    ax.scatter(
        x[known],
        y[known],
        s=size,
        c=values[known],
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        linewidths=0,
    )


def missing_points(ax: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, size: float) -> None:
    """The points without a value, in gray."""
    unknown = np.isnan(values)
    if unknown.any():
        ax.scatter(x[unknown], y[unknown], s=size, c="0.75", linewidths=0, label="missing")


def swarm(positions: np.ndarray, limits: tuple[float, float], bins: int = 100) -> np.ndarray:
    """Offsets in [-0.5, 0.5] by which points of nearly equal position avoid each other.

    Points in the same of `bins` bins are spread evenly about zero; the fullest bin spans the whole range
    if it has at least ten points.
    """
    low, high = limits
    bin_of = np.floor((positions - low) / ((high - low) or 1.0) * bins).astype(int)
    _, members, counts = np.unique(bin_of, return_inverse=True, return_counts=True)
    order = np.lexsort((positions, members))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(positions), int)
    rank[order] = np.arange(len(positions)) - np.repeat(starts, counts)
    # Zigzag about the middle, so that neighbors on the axis are not on one slope.
    signed = np.where(rank % 2 == 1, (rank + 1) // 2, -(rank // 2))
    middle = np.where(counts % 2 == 0, 0.5, 0.0)[members]
    return (signed - middle) / max(int(counts.max()), 10)
