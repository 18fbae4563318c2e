"""Relevance as a labeled matrix: layers by tokens, layers by heads, classes by bands."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from jaxlrp.plot.figures import add_colorbar, new_axes
from jaxlrp.plot.given import Relevance, without_batch
from jaxlrp.plot.normalize import as_colormap, as_real, symmetric_limit


def panel(
    relevance: Relevance,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    ylabel: str = "",
    xlabel: str = "",
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    normalize_rows: bool = False,
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws a matrix of relevance as colors, with the first row at the bottom.

    With layers as rows and tokens as columns, it shows the flow of relevance through a network, from
    the input upward. With heads as columns, it shows which heads of which layers matter.

    Args:
      relevance: (rows, columns) or (1, rows, columns), an array, real, finite, or an explanation. Not
        modified.
      row_labels, column_labels: names of the rows and columns. None: numbers.
      ylabel, xlabel: labels of the axes, such as "layer" and "head".
      ax: the Axes to draw into. None creates a Figure, available as ``panel(...).figure``.
      cmap: as in `heatmap`.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude.
      normalize_rows: whether to divide each row by its largest magnitude, so that layers with
        little relevance stay readable beside the others.
      title: title of the panel.
      colorbar: whether to draw the color scale.

    Returns:
      The Axes.

    Raises:
      TypeError: if `relevance` is traced or does not hold real numbers.
      ValueError: if a shape or a number of labels does not match.

    Example:
      >>> axes = panel([[1.0, 0.0], [0.5, 0.5]], column_labels=["good", "film"], ylabel="layer")
      >>> [label.get_text() for label in axes.get_xticklabels()]
      ['good', 'film']
    """
    values = without_batch(as_real(relevance, "relevance"), 2)
    if values.ndim != 2:
        raise ValueError(f"relevance must have shape (rows, columns), got {values.shape}")
    if normalize_rows:
        largest = np.abs(values).max(axis=1, keepdims=True)
        values = values / np.where(largest > 0, largest, 1.0)
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit)
    if ax is None:
        height, width = 0.28 * values.shape[0] + 1.2, 0.42 * values.shape[1] + 1.5
        ax = new_axes((height, width), colorbar, width=float(np.clip(width, 4.0, 14.0)))
    ax.imshow(values, cmap=colors, vmin=-limit, vmax=limit, origin="lower", aspect="auto")
    _label(ax, "x", column_labels, values.shape[1], "column_labels", xlabel)
    _label(ax, "y", row_labels, values.shape[0], "row_labels", ylabel)
    ax.spines[:].set(linewidth=0.5, color="0.6")
    if title is not None:
        ax.set_title(title)
    if colorbar:
        add_colorbar([ax], colors, limit, clipped=bool(np.abs(values).max() > limit))
    return ax


def _label(
    ax: Axes, axis: str, names: Sequence[str] | None, count: int, argument: str, label: str
) -> None:
    ax.set(**{f"{axis}label": label})
    if names is None:
        return
    if len(names) != count:
        raise ValueError(f"{argument} must have {count} entries, got {len(names)}")
    long = axis == "x" and any(len(name) > 3 for name in names)
    turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set(**{f"{axis}ticks": range(count)})
    (ax.set_xticklabels if axis == "x" else ax.set_yticklabels)(list(names), **turned)
