"""Relevance of one image: as a heatmap, over the image, and as an RGB array."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from numpy.typing import ArrayLike

from jaxlrp.plot.coarse import coarse
from jaxlrp.plot.figures import add_colorbar, finish, new_axes
from jaxlrp.plot.given import Relevance
from jaxlrp.plot.normalize import as_colormap, symmetric_limit
from jaxlrp.plot.pixels import as_gray, blend, photograph, sum_channels

_ALPHA = 0.9


def to_rgb(
    relevance: Relevance,
    *,
    image: ArrayLike | None = None,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    percentile: float | None = None,
    pool: int = 1,
    smooth: float = 0.0,
    rescale: bool = False,
    alpha: float | None = None,
) -> np.ndarray:
    """Converts relevance to an RGB array, for example to save it without axes or margins.

    Args:
      relevance: (H, W), or with channels, which are summed; an array, real, finite, any units, or an
        explanation of one sample. A batch of one is its only image. Not modified.
      image: the image under the relevance, as in `overlay`. None: colors only, as in `heatmap`.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: "relevance" (white at zero), "relevance-dark" (black), "relevance-gray", or the name or
        object of a matplotlib color map.
      limit, percentile: where colors saturate, as in `heatmap`.
      pool, smooth: coarser maps, as in `heatmap`.
      rescale: as in `overlay`. Only with `image`.
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
    values = coarse(sum_channels(relevance, channel_axis), pool, smooth)
    limit = symmetric_limit(values, limit, percentile)
    if image is None:
        if alpha is not None:
            raise ValueError(f"alpha must be None without an image, got {alpha}")
        if rescale:
            raise ValueError("rescale must be False without an image, got True")
        return as_colormap(cmap)(Normalize(-limit, limit)(values), bytes=True)[..., :3]
    alpha = _ALPHA if alpha is None else alpha
    gray = as_gray(photograph(image, channel_axis, rescale=rescale))
    return blend(values, gray, as_colormap(cmap), limit, alpha)


def heatmap(
    relevance: Relevance,
    *,
    ax: Axes | None = None,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    percentile: float | None = None,
    pool: int = 1,
    smooth: float = 0.0,
    title: str | None = None,
    colorbar: bool = False,
) -> Axes:
    """Draws relevance as colors: red for, blue against, and exactly neutral at zero.

    If an outlier washes out the rest, lower `limit`, or pass ``percentile=99.5``.

    Args:
      relevance: (H, W), or with channels, which are summed; an array, real, finite, any units, or an
        explanation of one sample. A batch of one is its only image. Not modified.
      ax: the Axes to draw into. None creates a Figure, available as ``heatmap(...).figure``.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: "relevance" (white at zero), "relevance-dark" (black), "relevance-gray", or the name or
        object of a matplotlib color map.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude, or
        `percentile`.
      percentile: the percentile of the nonzero magnitudes at which colors saturate, in (0, 100], in place
        of `limit`; the color scale says so.
      pool: side of square blocks, in pixels, >= 1, each drawn as the mean of its pixels: use it
        against the grid that strides and pools leave in a map. The sum is kept.
      smooth: standard deviation of a Gaussian, in pixels, >= 0, that spreads each pixel, after `pool`.
        The sum is kept. 0: none.
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
    values = coarse(sum_channels(relevance, channel_axis), pool, smooth)
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit, percentile)
    ax = new_axes(values.shape, colorbar) if ax is None else ax
    ax.imshow(values, cmap=colors, vmin=-limit, vmax=limit)
    finish(ax, title)
    if colorbar:
        clipped = bool(np.abs(values).max() > limit)
        add_colorbar([ax], colors, limit, percentile=percentile, clipped=clipped)
    return ax


def overlay(
    relevance: Relevance,
    image: ArrayLike,
    *,
    ax: Axes | None = None,
    channel_axis: int | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    percentile: float | None = None,
    pool: int = 1,
    smooth: float = 0.0,
    rescale: bool = False,
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
      relevance: (H, W), or with channels, which are summed; an array, real, finite, any units, or an
        explanation of one sample. A batch of one is its only image. Not modified.
      image: (H, W), or with 1 or 3 channels; uint8, or float in [0, 1] (values up to 0.001
        outside are clipped). Same height and width as `relevance`. Not modified.
      ax: the Axes to draw into. None creates a Figure, available as ``overlay(...).figure``.
      channel_axis: axis of the channels of three-dimensional input. None: the last, if it has size 1 or 3
        and the first has not.
      cmap: as in `heatmap`; colors are drawn as films, see above.
      limit, percentile: where color and opacity saturate, as in `heatmap`.
      pool, smooth: coarser maps, as in `heatmap`.
      rescale: whether to map the smallest value of `image` to black and its largest to white, for an
        image of any range, such as the preprocessed input of a network.
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
    values = coarse(sum_channels(relevance, channel_axis), pool, smooth)
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit, percentile)
    gray = as_gray(photograph(image, channel_axis, rescale=rescale))
    pixels = blend(values, gray, colors, limit, alpha)
    ax = new_axes(values.shape, colorbar) if ax is None else ax
    ax.imshow(pixels)
    finish(ax, title)
    if colorbar:
        clipped = bool(np.abs(values).max() > limit)
        add_colorbar([ax], colors, limit, percentile=percentile, clipped=clipped)
    return ax
