"""Relevance of pairs of features as lines between two inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.plot.figures import finish, new_axes
from jaxlrp.plot.normalize import as_colormap, as_real
from jaxlrp.plot.pixels import photograph

_GAP = 0.25  # between two pictures, in widths of the left one
_WIDEST = 3.0  # points


def pairs(
    relevance: ArrayLike,
    left: Any,
    right: Any,
    *,
    top: int = 50,
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance",
    rescale: bool = False,
    title: str | None = None,
) -> Axes:
    """Draws the most relevant pairs of features of two inputs, such as those of BiLRP, as lines.

    Two sentences stand in two columns, two pictures side by side. A line is as wide and opaque as its
    share of the largest |relevance|: red for pairs that make the inputs similar, blue for pairs that make
    them differ.

    Args:
      relevance: (words, words) for two sentences, or (rows, columns, rows, columns) for two pictures that
        are divided into such tiles, real, finite. Not modified.
      left, right: the inputs: sequences of words, or images as in `overlay`, (H, W) or (H, W, C).
      top: how many pairs are drawn, those of largest |relevance|, >= 1.
      ax: the Axes to draw into. None creates a Figure, available as ``pairs(...).figure``.
      cmap: as in `heatmap`.
      rescale: of images, as in `overlay`.
      title: title of the panel.

    Returns:
      The Axes.

    Raises:
      TypeError: if relevance is traced or does not hold real numbers.
      ValueError: if its shape does not fit the inputs.

    Example:
      >>> axes = pairs([[2.0, 0.0], [0.0, -1.0]], ["a", "dog"], ["one", "cat"])
      >>> [text.get_text() for text in axes.texts]
      ['a', 'dog', 'one', 'cat']
    """
    values = as_real(relevance, "relevance")
    check_count("top", top)
    if values.ndim == 2:
        ax, begins, ends = _sentences(values.shape, left, right, ax)
    elif values.ndim == 4:
        ax, begins, ends = _pictures(values.shape, left, right, ax, rescale)
    else:
        raise ValueError(
            "relevance must have shape (words, words) or (rows, columns, rows, columns), got "
            f"{values.shape}"
        )
    flat = values.reshape(len(begins), len(ends))
    order = np.argsort(-np.abs(flat), axis=None, kind="stable")[:top]
    largest = np.abs(flat).max()
    drawn = [k for k in order[::-1] if flat.flat[k] != 0]  # the strongest last, on top
    shares = flat.ravel()[drawn] / (largest or 1.0)
    at = [np.unravel_index(k, flat.shape) for k in drawn]
    colors = as_colormap(cmap)((1 + np.sign(shares) * 0.8) / 2)
    colors[:, 3] = np.abs(shares)
    lines = [(begins[i], ends[j]) for i, j in at]
    ax.add_collection(
        LineCollection(lines, colors=colors, linewidths=_WIDEST * np.abs(shares), zorder=3)
    )
    finish(ax, title)
    return ax


def _sentences(
    shape: tuple[int, ...], left: Any, right: Any, ax: Axes | None
) -> tuple[Axes, np.ndarray, np.ndarray]:
    """Writes both sentences; where the lines of each word begin and end."""
    columns = [_words("left", left, shape[0]), _words("right", right, shape[1])]
    rows = max(shape)
    ax = new_axes((0.28 * rows, 4.0), False) if ax is None else ax
    ax.set(xlim=(-0.6, 1.6), ylim=(rows - 0.5, -0.5))
    points = []
    for x, words, side in zip((0.0, 1.0), columns, ("right", "left"), strict=True):
        heights = np.arange(len(words)) + (rows - len(words)) / 2
        for y, word in zip(heights, words, strict=True):
            ax.text(x + (-0.03, 0.03)[int(x)], y, word, ha=side, va="center")
        points.append(np.column_stack([np.full(len(words), x), heights]))
    return ax, *points


def _words(name: str, given: Any, count: int) -> Sequence[str]:
    words = [given] if isinstance(given, str) else list(given)
    if len(words) != count or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"{name} must be {count} words, as many as relevance has on this side, got {len(words)} "
            f"of {type(words[0]).__name__ if words else 'nothing'}"
        )
    return words


def _pictures(
    shape: tuple[int, ...], left: Any, right: Any, ax: Axes | None, rescale: bool
) -> tuple[Axes, np.ndarray, np.ndarray]:
    """Draws both pictures; the centers of their tiles, row by row."""
    images = [photograph(left, None, "left", rescale), photograph(right, None, "right", rescale)]
    (height, width), (other_height, other_width) = (image.shape[:2] for image in images)
    scale = height / other_height  # both are as high as the left one
    offset = (1 + _GAP) * width
    end = offset + scale * other_width
    ax = new_axes((height, end), False, width=6.0) if ax is None else ax
    ax.imshow(images[0], extent=(0, width, height, 0))
    ax.imshow(images[1], extent=(offset, end, height, 0))
    ax.set(xlim=(0, end), ylim=(height, 0), aspect="equal")
    begins = _centers(0.0, width, height, shape[:2])
    return ax, begins, _centers(offset, scale * other_width, height, shape[2:])


def _centers(begin: float, width: float, height: float, tiles: tuple[int, ...]) -> np.ndarray:
    """(rows * columns, 2): x and y."""
    rows, columns = tiles
    y = (np.arange(rows) + 0.5) / rows * height
    x = begin + (np.arange(columns) + 0.5) / columns * width
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
