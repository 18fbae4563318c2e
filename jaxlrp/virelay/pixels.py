"""Batches of images and relevance in the format of the viewer's reader."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxlrp.virelay.lazy import Rows

SMALLEST = 4  # pixels: the reader takes the smallest axis as the channel axis

Range = tuple[float, float]


def is_range(limits: Any) -> bool:
    """Whether this is two numbers, the smaller one first."""
    return np.shape(limits) == (2,) and bool(limits[0] < limits[1])


class Allowed(NamedTuple):
    """Whether to write maps that the viewer shows incorrectly."""

    zero: bool
    negative: bool


def size_of(source: Rows, name: str, channel_axis: int) -> tuple[int, int, int]:
    """(C, H, W) of images or relevance; C is 0 without a channel axis."""
    shape = tuple(source.shape)
    if len(shape) == 3:
        channels, (height, width) = 0, shape[1:]
    elif len(shape) == 4:
        axis = range(4)[channel_axis] if -4 <= channel_axis < 4 else 0
        if axis == 0:
            raise ValueError(f"channel_axis must be 1, 2 or 3 (or -1), got {channel_axis}")
        channels = shape[axis]
        height, width = (shape[i] for i in (1, 2, 3) if i != axis)
    else:
        raise ValueError(
            f"{name} must have shape (N, H, W) or (N, H, W, C), got {shape}; "
            "render signals and text first with render_signals or render_tokens"
        )
    return channels, height, width


def check_size(name: str, height: int, width: int) -> None:
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"{name} must be at least {SMALLEST} pixels high and wide, got {height} x {width}: the viewer "
            "would take the smallest axis as the channel axis; repeat the pixels with numpy.repeat"
        )


def check_image_channels(channels: int, shape: tuple[int, ...]) -> None:
    if channels not in (0, 1, 3):
        raise ValueError(
            f"images must have 1 or 3 channels, got {channels} in shape {shape}; if the channels are on "
            "another axis, pass channel_axis=1 for (N, C, H, W)"
        )


def to_pixels(batch: np.ndarray, start: int, channel_axis: int, limits: Range | None) -> np.ndarray:
    """(b, 3, H, W) uint8. Gray is repeated; `limits` are mapped to 0 and 255."""
    if limits is None:
        if batch.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 unless image_range is given, got {batch.dtype}; pass the values of "
                "black and white, such as image_range=(0.0, 1.0) or (-1.0, 1.0)"
            )
        levels = batch
    else:
        levels = _to_levels(batch, start, limits)
    if levels.ndim == 3:
        levels, channel_axis = levels[..., None], -1
    levels = np.moveaxis(levels, channel_axis, 1)
    return np.broadcast_to(levels, (levels.shape[0], 3, *levels.shape[2:]))


def _to_levels(batch: np.ndarray, start: int, limits: Range) -> np.ndarray:
    """uint8 levels, after checking that all values are within half a level of the limits."""
    low, high = limits
    scaled = (np.asarray(batch, np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    outside = ~((scaled >= -0.5) & (scaled <= 255.5))  # NaN too
    if outside.any():
        at = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"images must be in image_range ({low}, {high}), got {batch[at]} in image {start + at[0]}; "
            "pass the smallest and the largest value that occurs"
        )
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def to_maps(batch: np.ndarray, start: int, channel_axis: int, allowed: Allowed) -> np.ndarray:
    """(b, 3, H, W) float32. Three channels are kept; any other number is summed into the first.

    The viewer adds up the channels, so zeros in the other two have no effect.
    """
    if batch.dtype.kind in "cOSUM":
        raise TypeError(f"relevance must be real, got {batch.dtype}")
    if batch.ndim == 4:
        batch = np.moveaxis(batch, channel_axis, 1)
    if batch.ndim == 4 and batch.shape[1] == 3:
        maps = batch.astype(np.float32)
    else:
        summed = batch if batch.ndim == 3 else batch.sum(axis=1, dtype=np.float64)
        maps = np.zeros((len(batch), 3, *batch.shape[-2:]), np.float32)
        maps[:, 0] = summed
    _check_maps(maps, start, allowed)
    return maps


def _check_maps(maps: np.ndarray, start: int, allowed: Allowed) -> None:
    finite = np.isfinite(maps).all(axis=(1, 2, 3))
    if not finite.all():
        raise ValueError(
            "relevance must be finite in float32, got NaN or infinity in "
            f"{_rows(np.logical_not(finite), start)}; "
            "exclude these rows: relevance[keep], prediction[keep], rows=numpy.flatnonzero(keep), "
            "index_of='images'"
        )
    summed = maps.sum(axis=1)
    zero = (summed == 0).all(axis=(1, 2))
    if zero.any() and not allowed.zero:
        raise ValueError(
            f"relevance must not be zero everywhere (summed over channels), but it is in "
            f"{_rows(zero, start)}: the viewer divides by its maximum; exclude these rows, or pass "
            "allow_zero=True to show them black"
        )
    negative = (summed <= 0).all(axis=(1, 2)) & ~zero
    if negative.any() and not allowed.negative:
        raise ValueError(
            f"relevance must be positive somewhere (summed over channels), but it is not in "
            f"{_rows(negative, start)}: the viewer's color maps 'gray-red', 'black-green' and "
            "'black-yellow' divide by its largest value; exclude these rows, or pass allow_negative=True "
            "and use one of the other five color maps"
        )


def _rows(found: np.ndarray, start: int) -> str:
    rows = [int(i) + start for i in np.flatnonzero(found)]
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:5]))}{more}"
