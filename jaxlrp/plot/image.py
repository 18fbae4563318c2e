"""Relevance of images: as a heatmap, over the image, side by side, and as an RGB array."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from jaxlrp.plot.normalize import (
    as_colormap,
    as_gray,
    blend,
    photograph,
    sum_channels,
    symmetric_limit,
)

_ALPHA = 0.9
_INCHES = 2.2  # width of one panel in a new figure


def to_rgb(
    relevance: ArrayLike,
    *,
    image: ArrayLike | None = None,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    alpha: float | None = None,
) -> np.ndarray:
    """Converts relevance to an RGB array, for example to save it without axes or margins.

    Args:
      relevance: (H, W), or with channels, which are summed. Real, finite, any units. Not modified.
      image: the image under the relevance, as in `overlay`. None: colors only, as in `heatmap`.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: "relevance" (white at zero), "relevance-dark" (black), "relevance-gray", or the name or
        object of a matplotlib color map.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude.
      alpha: strength of the colors over `image`, in (0, 1]. None: 0.9. Only with `image`.

    Returns:
      uint8 array of shape (H, W, 3).

    Raises:
      TypeError: if an array is traced or does not hold real numbers.
      ValueError: if a shape, a size or a value is invalid; the message names the argument.

    Example:
      >>> import numpy as np
      >>> to_rgb(np.array([[1.0, 0.0, -1.0]])).tolist()
      [[[179, 19, 24], [255, 255, 255], [19, 84, 188]]]
    """
    values = sum_channels(relevance, channel_axis)
    limit = symmetric_limit(values, limit)
    if image is None:
        if alpha is not None:
            raise ValueError(f"alpha must be None without an image, got {alpha}")
        return as_colormap(cmap)(Normalize(-limit, limit)(values), bytes=True)[..., :3]
    alpha = _ALPHA if alpha is None else alpha
    return blend(values, as_gray(photograph(image, channel_axis)), as_colormap(cmap), limit, alpha)


def heatmap(
    relevance: ArrayLike,
    *,
    ax: Axes | None = None,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    title: str | None = None,
    colorbar: bool = False,
) -> Axes:
    """Draws relevance as colors: red for, blue against, and exactly neutral at zero.

    If an outlier washes out the rest, lower `limit`, or draw ``normalize(r, percentile=99.5)`` of
    the sum over channels, ``r = relevance.sum(-1)``.

    Args:
      relevance: (H, W), or with channels, which are summed. Real, finite, any units. Not modified.
      ax: the Axes to draw into. None creates a Figure, available as ``heatmap(...).figure``.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: "relevance" (white at zero), "relevance-dark" (black), "relevance-gray", or the name or
        object of a matplotlib color map.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude.
      title: title of the panel.
      colorbar: whether to draw the color scale, in the units of `relevance`.

    Returns:
      The Axes; ``.images[0]`` holds the summed relevance, the color map and its limits.

    Raises:
      TypeError: if `relevance` is traced or does not hold real numbers.
      ValueError: if a shape or a value is invalid; the message names the argument.

    Example:
      >>> import numpy as np
      >>> axes = heatmap(np.array([[1.0, -3.0]]), title="epsilon")
      >>> [float(x) for x in axes.images[0].get_clim()]
      [-3.0, 3.0]
    """
    values = sum_channels(relevance, channel_axis)
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit)
    ax = new_axes(values.shape, colorbar) if ax is None else ax
    ax.imshow(values, cmap=colors, vmin=-limit, vmax=limit)
    _finish(ax, title)
    if colorbar:
        add_colorbar([ax], colors, limit)
    return ax


def overlay(
    relevance: ArrayLike,
    image: ArrayLike,
    *,
    ax: Axes | None = None,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    alpha: float = _ALPHA,
    title: str | None = None,
    colorbar: bool = False,
) -> Axes:
    """Draws relevance over the grayscale image; where relevance is zero, the image is visible.

    Each color of the map is drawn as the most transparent film that gives it over the neutral color n:

        cmap(R) = (1 - o) n + o film,        pixel = (1 - alpha o) gray + alpha o film

    The opacity o grows with |R| from 0. Weak relevance therefore tints the image without hiding it,
    and with ``alpha=1`` a blank image in the neutral color shows the heatmap itself.

    Args:
      relevance: (H, W), or with channels, which are summed. Real, finite, any units. Not modified.
      image: (H, W), or with 1 or 3 channels; uint8, or float in [0, 1] (values up to 0.001
        outside are clipped). Same height and width as `relevance`. Not modified.
      ax: the Axes to draw into. None creates a Figure, available as ``overlay(...).figure``.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: as in `heatmap`; colors are drawn as films, see above.
      limit: relevance at which color and opacity saturate, in its units, > 0. None: the largest
        magnitude.
      alpha: strength of the films, in (0, 1]. With 1, the image is almost hidden at the limit.
      title: title of the panel.
      colorbar: whether to draw the color scale, in the units of `relevance`.

    Returns:
      The Axes; ``.images[0]`` holds the pixels that `to_rgb` returns.

    Raises:
      TypeError: if an array is traced or does not hold real numbers.
      ValueError: if a shape, a size or a value is invalid; the message names the argument.

    Example:
      >>> import numpy as np
      >>> axes = overlay(np.array([[1.0, 0.0]]), np.array([[0.2, 0.2]]))
      >>> axes.images[0].get_array()[0, 1].tolist()  # no relevance: the image, 0.2 * 255
      [51, 51, 51]
    """
    values = sum_channels(relevance, channel_axis)
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit)
    pixels = blend(values, as_gray(photograph(image, channel_axis)), colors, limit, alpha)
    ax = new_axes(values.shape, colorbar) if ax is None else ax
    ax.imshow(pixels)
    _finish(ax, title)
    if colorbar:
        add_colorbar([ax], colors, limit)
    return ax


class _Cell(NamedTuple):
    """One panel of a grid: relevance (H, W), an image (H, W, 3), or both for an overlay."""

    relevance: np.ndarray | None = None
    image: np.ndarray | None = None
    title: str | None = None


def grid(
    explanations: Mapping[str, Any] | Sequence[Any],
    *,
    images: Any = None,
    titles: Sequence[str] | None = None,
    n_columns: int | None = None,
    suptitle: str | None = None,
    share_limit: bool = False,
    overlay: bool = False,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draws several explanations side by side with one shared color scale.

    The type of `explanations` determines the arrangement:

    * a dict, method -> N maps (a batch or a list): one row per sample, one column per method;
    * a list of rows, each a list of maps: the same arrangement, without names;
    * a list of maps: in reading order, `n_columns` per row.

    Args:
      explanations: maps as in `heatmap`, each (H, W) or with channels. Not modified.
      images: the input images, as in `overlay`. For a dict or rows: one per row, drawn as the first
        column. For a list of maps: a list with one per map, drawn above it, or a single array,
        drawn first. Not modified.
      titles: one per method (default: the keys of the dict), or one per map for a list of maps.
      n_columns: panels per row for a list of maps, >= 1, including a single input image. None:
        one row.
      suptitle: title of the figure.
      share_limit: True: all maps saturate at the largest magnitude of all, so that colors are
        comparable between maps. False: each map saturates at its own, and the color scale says so.
      overlay: whether to draw each map over its image; needs `images`.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: "relevance" (white at zero), "relevance-dark" (black), "relevance-gray", or the name or
        object of a matplotlib color map.
      figure: the Figure or SubFigure to draw into. None creates one of suitable size.

    Returns:
      The Figure; for a SubFigure, the Figure that contains it.

    Raises:
      TypeError: if `explanations` is a bare array, or an array is traced or not real.
      ValueError: if numbers of maps, images or titles do not match; the message names the argument.

    Example:
      >>> import numpy as np
      >>> maps = np.linspace(-1.0, 1.0, 2 * 8 * 8).reshape(2, 8, 8)
      >>> figure = grid({"epsilon": maps, "gamma": maps**3})
      >>> [axes.get_title() for axes in figure.axes[:4]]
      ['epsilon', 'gamma', '', '']
    """
    if overlay and images is None:
        raise ValueError("images must be given for overlay=True, got None; pass the input images")
    maps, names = _maps(explanations, titles, channel_axis)
    if isinstance(maps[0], list):
        if n_columns is not None:
            raise ValueError(
                f"n_columns must be None for a dict or rows, got {n_columns}; they have one per method"
            )
        cells = _arrange_rows(maps, names, images, channel_axis, overlay)
    else:
        cells = _arrange_list(maps, names, images, channel_axis, overlay, n_columns)

    drawn = [c.relevance for row in cells for c in row if c.relevance is not None]
    together = symmetric_limit(np.concatenate([m.ravel() for m in drawn]), None)
    if figure is None:
        figure = _new_figure(drawn[0].shape, len(cells), len(cells[0]), suptitle is not None)
    spec = figure.add_gridspec(len(cells), len(cells[0]))
    panels = []
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            panels.append(figure.add_subplot(spec[i, j]))
            _draw_cell(panels[-1], cell, cmap, together if share_limit else None)
    add_colorbar(panels, as_colormap(cmap), together, numbers=share_limit)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return root_figure(panels[0])


# --- arranging a grid -----------------------------------------------------------------------------


def _maps(
    explanations: Any, titles: Sequence[str] | None, channel_axis: int | None
) -> tuple[list[Any], list[Any]]:
    """The summed maps, as a list or as rows, and the titles of the maps or columns."""
    if isinstance(explanations, Mapping):
        named = [(f"explanations[{k!r}]", v) for k, v in explanations.items()]
        batches = [_sums(_batch(v, name), name, channel_axis) for name, v in named]
        _check_equal([len(b) for b in batches], "methods")
        maps, names = [list(row) for row in zip(*batches, strict=True)], list(explanations)
    elif not isinstance(explanations, list | tuple):
        raise TypeError(
            "explanations must be a list of maps, a list of rows, or a dict from method to maps, "
            f"got {type(explanations).__name__}; convert a batch with list(explanations)"
        )
    elif any(isinstance(e, list | tuple) for e in explanations):
        if not all(isinstance(e, list | tuple) for e in explanations):
            raise ValueError("explanations must be all maps or all rows, got a mixed list")
        _check_equal([len(row) for row in explanations], "rows")
        maps = [_sums(r, f"explanations[{i}]", channel_axis) for i, r in enumerate(explanations)]
        names = None
    else:
        maps, names = _sums(explanations, "explanations", channel_axis), None
    if not maps or (isinstance(maps[0], list) and not maps[0]):
        raise ValueError("explanations must contain at least one map, got none")
    count = len(maps[0]) if isinstance(maps[0], list) else len(maps)
    if titles is not None and len(titles) != count:
        raise ValueError(
            f"titles must have {count} entries, one per column or map, got {len(titles)}"
        )
    return maps, list(titles or names or [None] * count)


def _sums(maps: Sequence[Any], name: str, channel_axis: int | None) -> list[np.ndarray]:
    return [sum_channels(m, channel_axis, f"{name}[{i}]") for i, m in enumerate(maps)]


def _pictures(images: Any, count: int, channel_axis: int | None) -> list[np.ndarray]:
    images = _batch(images, "images")
    if len(images) != count:
        raise ValueError(f"images must have {count} entries, one per row or map, got {len(images)}")
    return [photograph(p, channel_axis, f"images[{i}]") for i, p in enumerate(images)]


def _check_equal(lengths: list[int], what: str) -> None:
    if len(set(lengths)) > 1:
        raise ValueError(
            f"explanations must have the same number of maps in all {what}, got {lengths}"
        )


def _batch(value: Any, name: str) -> list[Any]:
    """The images of a list, or of an array (N, H, W) or (N, H, W, C)."""
    if isinstance(value, list | tuple):
        return list(value)
    shape = np.shape(value)
    if len(shape) == 4 or (len(shape) == 3 and shape[-1] not in (1, 3)):
        return list(value)
    raise ValueError(
        f"{name} must be a list or a batch (N, H, W) or (N, H, W, C), got shape {shape}; "
        "add the batch axis to a single sample: x[None]"
    )


def _arrange_rows(
    rows: list[list[np.ndarray]],
    names: list[str | None],
    images: Any,
    channel_axis: int | None,
    overlay: bool,
) -> list[list[_Cell]]:
    """One row per sample, the image first; titles above the first row."""
    blank = [None] * len(names)
    titled = [names] + [blank] * (len(rows) - 1)
    if images is None:
        return [
            [_Cell(m, None, name) for m, name in zip(row, line, strict=True)]
            for row, line in zip(rows, titled, strict=True)
        ]
    pictures = _pictures(images, len(rows), channel_axis)
    return [
        [_Cell(image=picture, title="input" if i == 0 else None)]
        + [_Cell(m, picture if overlay else None, n) for m, n in zip(row, titled[i], strict=True)]
        for i, (row, picture) in enumerate(zip(rows, pictures, strict=True))
    ]


def _arrange_list(
    maps: list[np.ndarray],
    names: list[str | None],
    images: Any,
    channel_axis: int | None,
    overlay: bool,
    n_columns: int | None,
) -> list[list[_Cell]]:
    """In reading order: a single image first, or each map below its own image."""
    if n_columns is not None and n_columns < 1:
        raise ValueError(f"n_columns must be >= 1, got {n_columns}; None draws one row")
    if images is not None and (isinstance(images, list | tuple) or np.ndim(images) == 4):
        pictures = _pictures(images, len(maps), channel_axis)
        above = [_Cell(image=p, title=n) for p, n in zip(pictures, names, strict=True)]
        below = [_Cell(m, p if overlay else None) for m, p in zip(maps, pictures, strict=True)]
        pairs = zip(_wrap(above, n_columns), _wrap(below, n_columns), strict=True)
        return [row for pair in pairs for row in pair]
    picture = None if images is None else photograph(images, channel_axis, "images")
    first = [] if picture is None else [_Cell(image=picture, title="input")]
    under = picture if overlay else None
    return _wrap(first + [_Cell(m, under, n) for m, n in zip(maps, names, strict=True)], n_columns)


def _wrap(cells: list[_Cell], n_columns: int | None) -> list[list[_Cell]]:
    width = min(n_columns or len(cells), len(cells))
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def _draw_cell(ax: Axes, cell: _Cell, cmap: str | Colormap, limit: float | None) -> None:
    if cell.image is None:
        assert cell.relevance is not None
        heatmap(cell.relevance, ax=ax, cmap=cmap, limit=limit, title=cell.title)
        return
    pixels = cell.image
    if cell.relevance is not None:
        pixels = to_rgb(cell.relevance, image=pixels, channel_axis=-1, cmap=cmap, limit=limit)
    ax.imshow(pixels)
    _finish(ax, cell.title)


# --- figures --------------------------------------------------------------------------------------


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


class NotebookFigure(Figure):
    """A Figure that is not registered with pyplot and displays in a notebook."""

    def _repr_png_(self) -> bytes:
        return _png(self)


class _NotebookAxes(Axes):
    """Axes that display in a notebook as their whole Figure."""

    def _repr_png_(self) -> bytes:
        return _png(root_figure(self))


def root_figure(ax: Axes) -> Figure:
    """The Figure of `ax`, even if `ax` is in a SubFigure."""
    return ax.figure.canvas.figure


def _height_over_width(shape: tuple[float, ...]) -> float:
    return float(np.clip(shape[0] / shape[1], 0.2, 4.0))


def _new_figure(shape: tuple[int, ...], rows: int, columns: int, suptitle: bool) -> NotebookFigure:
    height = rows * _INCHES * _height_over_width(shape) + 0.3 + 0.3 * suptitle
    return NotebookFigure(figsize=(columns * _INCHES + 0.8, height), layout="compressed")


def new_axes(shape: tuple[float, ...], colorbar: bool, width: float = 4.0) -> Axes:
    """Axes of a new Figure, `width` inches wide, with the proportions (height, width)."""
    size = (width + 0.8 * colorbar, width * _height_over_width(shape) + 0.3)
    figure = NotebookFigure(figsize=size, layout="compressed")
    return figure.add_subplot(axes_class=_NotebookAxes)


def _finish(ax: Axes, title: str | None) -> None:
    """Removes ticks, draws a thin frame and the title."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color="0.6")
    if title is not None:
        ax.set_title(title)


def add_colorbar(panels: list[Axes], cmap: Colormap, limit: float, numbers: bool = True) -> None:
    """Draws a slim color scale beside `panels`; `numbers=False` if each panel has its own limit."""
    figure = panels[0].figure
    tall = Bbox.union([p.get_window_extent() for p in panels]).height / figure.dpi
    scale = ScalarMappable(Normalize(-limit, limit), cmap)
    bar = figure.colorbar(scale, ax=panels, aspect=max(tall / 0.12, 5.0), pad=0.02)
    end = f"{limit:.2g}" if numbers else "max"
    bar.set_ticks([-limit, 0.0, limit], labels=[f"\N{MINUS SIGN}{end}", "0", f"+{end}"])
    bar.ax.tick_params(length=2, labelsize="small")
    bar.outline.set(linewidth=0.5, edgecolor="0.6")
    bar.set_label("relevance", fontsize="small")
