"""Relevance of named things by named things: layers by tokens, layers by heads, classes by bands."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from jaxlrp.plot.image import add_colorbar, new_axes
from jaxlrp.plot.normalize import as_colormap, as_real, symmetric_limit


def panel(
    relevance: ArrayLike,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    row_name: str = "",
    column_name: str = "",
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    normalize_rows: bool = False,
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws a table of relevances as colors, the first row at the bottom.

    With layers as rows and tokens as columns it is the flow of relevance through a network, read
    from the input upwards; with heads as columns it says which heads of which layers matter.

    Args:
      relevance: (rows, columns), real, finite. Not changed.
      rows, columns: their names. None: numbers.
      row_name, column_name: what they are: "layer", "head".
      ax: where to draw. None makes a Figure, which is ``panel(...).figure``.
      cmap: as in `heatmap`.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude.
      normalize_rows: whether each row is divided by its largest magnitude, so that layers which keep
        little of the relevance can be read beside the others.
      title: above the panel.
      colorbar: whether to draw the color scale.

    Returns:
      The Axes.

    Raises:
      TypeError: if `relevance` is traced or does not hold real numbers.
      ValueError: if a shape or a number of names does not fit.

    Example:
      >>> axes = panel([[1.0, 0.0], [0.5, 0.5]], columns=["good", "film"], row_name="layer")
      >>> [label.get_text() for label in axes.get_xticklabels()]
      ['good', 'film']
    """
    values = as_real(relevance, "relevance")
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
    _name(ax, "x", columns, values.shape[1], "columns", column_name)
    _name(ax, "y", rows, values.shape[0], "rows", row_name)
    ax.spines[:].set(linewidth=0.5, color="0.6")
    if title is not None:
        ax.set_title(title)
    if colorbar:
        add_colorbar([ax], colors, limit)
    return ax


def _name(
    ax: Axes, axis: str, names: Sequence[str] | None, count: int, argument: str, label: str
) -> None:
    ax.set(**{f"{axis}label": label})
    if names is None:
        return
    if len(names) != count:
        raise ValueError(f"{argument} must be {count} names, got {len(names)}")
    long = axis == "x" and any(len(name) > 3 for name in names)
    turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set(**{f"{axis}ticks": range(count)})
    (ax.set_xticklabels if axis == "x" else ax.set_yticklabels)(list(names), **turned)
