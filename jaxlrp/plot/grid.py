"""Relevance of several images or methods, side by side."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure

from jaxlrp.plot.coarse import coarse
from jaxlrp.plot.figures import add_colorbar, finish, new_figure, root_figure
from jaxlrp.plot.given import relevance_of
from jaxlrp.plot.image import heatmap, to_rgb
from jaxlrp.plot.normalize import as_colormap, symmetric_limit
from jaxlrp.plot.pixels import photograph, sum_channels

_Read = Callable[..., np.ndarray]  # an image, and its name for messages, to (H, W, 3)


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
    percentile: float | None = None,
    pool: int = 1,
    smooth: float = 0.0,
    rescale: bool = False,
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
      explanations: maps as in `heatmap`, each (H, W) or with channels; arrays or explanations, in a
        dict also explanations of a batch. Not modified.
      images: the input images, as in `overlay`. For a dict or rows: one per row, drawn as the first
        column. For a list of maps: a list with one per map, drawn above it, or a single array,
        drawn first. Not modified.
      titles: one per method (default: the keys of the dict), or one per map for a list of maps.
      n_columns: panels per row for a list of maps, >= 1, including a single input image. None: up to
        five in one row, more in rows of about equal length.
      suptitle: title of the figure.
      share_limit: True: all maps saturate at the largest magnitude of all, so that colors are
        comparable between maps. False: each map saturates at its own, and the color scale says so.
      overlay: whether to draw each map over its image; needs `images`.
      percentile: the percentile of the nonzero magnitudes at which colors saturate, as in `heatmap`: of
        each map, or with `share_limit` of all.
      pool, smooth: coarser maps, as in `heatmap`.
      rescale: whether to map the smallest value of each image to black and its largest to white, as in
        `overlay`.
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
    if rescale and images is None:
        raise ValueError("rescale must be False without images, got True")
    read = functools.partial(photograph, channel_axis=channel_axis, rescale=rescale)
    maps, names = _maps(explanations, titles, channel_axis)
    if isinstance(maps[0], list):
        if n_columns is not None:
            raise ValueError(
                f"n_columns must be None for a dict or rows, got {n_columns}; they have one per method"
            )
        maps = [[coarse(m, pool, smooth) for m in row] for row in maps]
        cells = _arrange_rows(maps, names, images, read, overlay)
    else:
        maps = [coarse(m, pool, smooth) for m in maps]
        cells = _arrange_list(maps, names, images, read, overlay, n_columns)

    drawn = [c.relevance for row in cells for c in row if c.relevance is not None]
    together = symmetric_limit(np.concatenate([m.ravel() for m in drawn]), None, percentile)
    look = {"limit": together} if share_limit else {"percentile": percentile}
    if figure is None:
        figure = new_figure(drawn[0].shape, len(cells), len(cells[0]), suptitle is not None)
    spec = figure.add_gridspec(len(cells), len(cells[0]))
    panels = []
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            panels.append(figure.add_subplot(spec[i, j]))
            _draw_cell(panels[-1], cell, cmap=cmap, **look)
    add_colorbar(panels, as_colormap(cmap), together, numbers=share_limit, percentile=percentile)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return root_figure(panels[0])


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
        batch = "explanations" if hasattr(explanations, "shape") else "result.relevance"
        raise TypeError(
            "explanations must be a list of maps, a list of rows, or a dict from method to maps, "
            f"got {type(explanations).__name__}; convert a batch with list({batch})"
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


def _pictures(images: Any, count: int, read: _Read) -> list[np.ndarray]:
    images = _batch(images, "images")
    if len(images) != count:
        raise ValueError(f"images must have {count} entries, one per row or map, got {len(images)}")
    return [read(p, name=f"images[{i}]") for i, p in enumerate(images)]


def _check_equal(lengths: list[int], what: str) -> None:
    if len(set(lengths)) > 1:
        raise ValueError(
            f"explanations must have the same number of maps in all {what}, got {lengths}"
        )


def _batch(value: Any, name: str) -> list[Any]:
    """The images of a list, or of an array (N, H, W) or (N, H, W, C)."""
    value = relevance_of(value, name)
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
    read: _Read,
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
    pictures = _pictures(images, len(rows), read)
    return [
        [_Cell(image=picture, title="input" if i == 0 else None)]
        + [_Cell(m, picture if overlay else None, n) for m, n in zip(row, titled[i], strict=True)]
        for i, (row, picture) in enumerate(zip(rows, pictures, strict=True))
    ]


def _arrange_list(
    maps: list[np.ndarray],
    names: list[str | None],
    images: Any,
    read: _Read,
    overlay: bool,
    n_columns: int | None,
) -> list[list[_Cell]]:
    """In reading order: a single image first, or each map below its own image."""
    if n_columns is not None and n_columns < 1:
        raise ValueError(f"n_columns must be >= 1, got {n_columns}; None draws one row")
    if images is not None and (isinstance(images, list | tuple) or np.ndim(images) == 4):
        pictures = _pictures(images, len(maps), read)
        above = [_Cell(image=p, title=n) for p, n in zip(pictures, names, strict=True)]
        below = [_Cell(m, p if overlay else None) for m, p in zip(maps, pictures, strict=True)]
        pairs = zip(_wrap(above, n_columns), _wrap(below, n_columns), strict=True)
        return [row for pair in pairs for row in pair]
    picture = None if images is None else read(images, name="images")
    first = [] if picture is None else [_Cell(image=picture, title="input")]
    under = picture if overlay else None
    return _wrap(first + [_Cell(m, under, n) for m, n in zip(maps, names, strict=True)], n_columns)


def _wrap(cells: list[_Cell], n_columns: int | None) -> list[list[_Cell]]:
    width = min(n_columns or _columns(len(cells)), len(cells))
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def _columns(count: int) -> int:
    """Up to five panels in one row; more in about 1.6 times as many columns as rows."""
    rows = 1 if count <= 5 else round((count / 1.6) ** 0.5)
    return -(-count // rows)


def _draw_cell(ax: Axes, cell: _Cell, **look: Any) -> None:
    """Draws one panel; `look` are arguments of `heatmap`."""
    if cell.image is None:
        assert cell.relevance is not None
        heatmap(cell.relevance, ax=ax, title=cell.title, **look)
        return
    pixels = cell.image
    if cell.relevance is not None:
        pixels = to_rgb(cell.relevance, image=pixels, channel_axis=-1, **look)
    ax.imshow(pixels)
    finish(ax, cell.title)
