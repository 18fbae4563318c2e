"""Renders signals as images: a line over time, with relevance in the columns of the time steps."""

from __future__ import annotations

import numpy as np

from jaxlrp._checks import check_count
from jaxlrp.virelay.lazy import LazyArray, RenderedImages, Rows, as_rows
from jaxlrp.virelay.pixels import SMALLEST, is_range

_MARGIN = 0.08  # of a panel's height, above and below the line
_THICKNESS = 1.5  # pixels


def render_signals(
    signals: Rows,
    relevance: Rows,
    *,
    height: int = 128,
    width: int = 256,
    value_range: tuple[float, float] | None = None,
) -> RenderedImages:
    """Renders signals over time as images, with relevance at the same pixels.

    Time runs from left to right. Several channels are stacked, one panel each. The relevance of a time step
    is spread evenly over the pixels of its time and panel, so a map sums to the relevance of its signal.

    Args:
      signals: (N, T) or (N, T, C), real, finite; anything that can be sliced. T at least 2.
      relevance: same shape.
      height: image height in pixels; at least 8 per channel.
      width: image width in pixels. If smaller than T, each column shows the range of its values.
      value_range: the values at the lower and the upper edge of a panel, in the units of the signals. None:
        each channel of each signal fills its panel.

    Returns:
      `RenderedImages`, drawn when sliced: dark lines on white.

    Raises:
      ValueError: if shapes or sizes do not match, or values are not finite (detected when drawn).

    Example:
      >>> import numpy as np
      >>> wave = np.sin(np.linspace(0.0, 9.0, 100))[None]
      >>> pictures = render_signals(wave, wave**2)
      >>> pictures.images[:1].shape, bool(np.isclose(pictures.relevance[0].sum(), (wave**2).sum()))
      ((1, 128, 256), True)
    """
    signals, relevance = as_rows(signals, "signals"), as_rows(relevance, "relevance")
    shape = tuple(signals.shape)
    if len(shape) not in (2, 3) or shape[1] < 2:
        raise ValueError(f"signals must have shape (N, T) or (N, T, C) with T >= 2, got {shape}")
    if tuple(relevance.shape) != shape:
        raise ValueError(
            f"relevance must have the shape of signals, {shape}, got {tuple(relevance.shape)}"
        )
    panels = shape[2] if len(shape) == 3 else 1
    check_count("height", height)
    check_count("width", width)
    if height < 8 * panels or width < SMALLEST:
        raise ValueError(
            f"height must be at least {8 * panels} for {panels} channels and width at least {SMALLEST}, "
            f"got {height} and {width}"
        )
    if value_range is not None and not is_range(value_range):
        raise ValueError(
            f"value_range must be (lower, upper) with lower < upper, got {value_range}"
        )
    rows = np.diff(np.linspace(0, height, panels + 1).round().astype(int))

    def images(start: int, stop: int) -> np.ndarray:
        values = _channels(signals, start, stop, "signals")
        drawn = [_line(values[..., c], int(rows[c]), width, value_range) for c in range(panels)]
        return np.concatenate(drawn, axis=1)

    def maps(start: int, stop: int) -> np.ndarray:
        values = _channels(relevance, start, stop, "relevance")
        drawn = [_columns(values[..., c], int(rows[c]), width) for c in range(panels)]
        return np.concatenate(drawn, axis=1)

    whole = (shape[0], height, width)
    return RenderedImages(
        LazyArray(whole, np.dtype(np.uint8), images), LazyArray(whole, np.dtype(np.float32), maps)
    )


def _channels(source: Rows, start: int, stop: int, name: str) -> np.ndarray:
    """(b, T, C) float64."""
    values = np.asarray(source[start:stop]).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in rows {start} to {stop - 1}"
        )
    return values.reshape(*values.shape[:2], -1)


def _columns(relevance: np.ndarray, height: int, width: int) -> np.ndarray:
    """(b, height, width) float32: the relevance of each time step in the columns of its time.

    Step t covers the time from t to t + 1; a column gets the fraction of this time that it covers.
    """
    until = np.pad(np.cumsum(relevance, axis=1), ((0, 0), (1, 0)))  # at times 0, 1, ..., T
    edges = np.linspace(0.0, relevance.shape[1], width + 1)
    columns = np.diff(_between(until, edges), axis=1) / height
    return np.repeat(columns[:, None], height, axis=1).astype(np.float32)


def _line(
    values: np.ndarray, height: int, width: int, value_range: tuple[float, float] | None
) -> np.ndarray:
    """(b, height, width) uint8: the line through the points (t + 1/2, value at t), column by column."""
    b, length = values.shape
    at_edges = _between(values, np.linspace(0.0, length, width + 1) - 0.5)
    low = np.minimum(at_edges[:, :-1], at_edges[:, 1:])
    high = np.maximum(at_edges[:, :-1], at_edges[:, 1:])
    column = ((np.arange(length) + 0.5) * width / length).astype(int)
    occupied, first = np.unique(column, return_index=True)
    for edge, extreme in ((low, np.minimum), (high, np.maximum)):
        edge[:, occupied] = extreme(edge[:, occupied], extreme.reduceat(values, first, axis=1))

    if value_range is None:
        bottom, top = values.min(axis=1), values.max(axis=1)
        flat = bottom == top
        bottom, top = np.where(flat, bottom - 1, bottom), np.where(flat, top + 1, top)
    else:
        bottom, top = (np.full(b, v, np.float64) for v in value_range)
    margin = _MARGIN * height
    scale = (height - 1 - 2 * margin) / (top - bottom)

    def row_of(v: np.ndarray) -> np.ndarray:
        row = height - 1 - margin - (v - bottom[:, None]) * scale[:, None]
        return np.clip(row, -height, 2 * height)[:, None]

    pixel = np.arange(height)[:, None]
    distance = np.maximum(row_of(high) - pixel, pixel - row_of(low))
    ink = np.clip(_THICKNESS / 2 + 0.5 - distance, 0.0, 1.0)
    return np.rint(255 - 235 * ink).astype(np.uint8)


def _between(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation along the last axis; positions outside get the values at the ends."""
    positions = np.clip(positions, 0, values.shape[-1] - 1)
    left = np.minimum(positions.astype(int), values.shape[-1] - 2)
    share = positions - left
    return values[..., left] * (1 - share) + values[..., left + 1] * share
