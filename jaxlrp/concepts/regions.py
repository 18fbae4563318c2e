"""Regions of the input, for `jaxlrp.concepts.local`: tiles, superpixels, intervals, tokens, masks, boxes.

Each function returns (regions, *shape of one example), where axes that no region divides have length 1. All
except `masks` and `boxes` return booleans that partition the input: each value is in exactly one region.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._boxes import sides
from jaxlrp._checks import check_count


def grid(shape: Sequence[int], size: int | Sequence[int | None]) -> np.ndarray:
    """Tiles.

    Args:
      shape: of one example, without the batch.
      size: of a tile along each axis; None for an axis that is not divided, such as the channel axis. An
        integer applies to all axes. If the size does not divide the length of an axis, the last tile is
        smaller.

    Returns:
      Booleans (tiles, *shape), tiles in row-major order.

    Raises:
      ValueError: if there is not one size for each axis, or one is less than 1.

    Example:
      >>> from jaxlrp.concepts import regions
      >>> regions.grid((4, 4, 3), (2, 2, None)).shape
      (4, 4, 4, 1)
    """
    lengths = [check_count("shape", n) for n in shape]
    sizes = (
        [size] * len(lengths) if size is None or isinstance(size, (int, np.integer)) else list(size)
    )
    if len(sizes) != len(lengths) or not lengths:
        raise ValueError(
            f"size must be one integer, or one integer or None for each of the {len(lengths)} axes of "
            f"shape={tuple(shape)}, got {size!r}"
        )
    pieces = []
    for length, tile in zip(lengths, sizes, strict=True):
        tile = length if tile is None else min(check_count("size", tile), length)
        labels = np.arange(length) // tile
        pieces.append([labels == i for i in range(math.ceil(length / tile))])
    lengths = [n if len(found) > 1 else 1 for n, found in zip(lengths, pieces, strict=True)]
    tiles = np.zeros((math.prod(map(len, pieces)), *lengths), bool)
    for tile, parts in zip(tiles, itertools.product(*pieces), strict=True):
        parts = [part[:n] for part, n in zip(parts, lengths, strict=True)]
        tile[np.ix_(*parts)] = True
    return tiles


def intervals(length: int, size: int) -> np.ndarray:
    """Intervals of a signal with one axis; use `intervals(...)[..., None]` if a channel axis follows.

    Args:
      length: samples of the signal, >= 1.
      size: samples of an interval, >= 1; the last may be shorter.

    Returns:
      Booleans (intervals, length).

    Raises:
      ValueError: if an argument is less than 1.

    Example:
      >>> from jaxlrp.concepts import regions
      >>> regions.intervals(5, 2).astype(int).tolist()
      [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    """
    length, size = check_count("length", length), check_count("size", size)
    return np.arange(length) // size == np.arange(math.ceil(length / size))[:, None]


def tokens(length: int) -> np.ndarray:
    """Each token as its own region; use `tokens(...)[..., None]` if embeddings are explained.

    Args:
      length: number of tokens, >= 1.

    Returns:
      Booleans (length, length).

    Raises:
      ValueError: if `length` is less than 1.
    """
    return np.eye(check_count("length", length), dtype=bool)


def segments(labels: ArrayLike) -> np.ndarray:
    """The parts of a segmentation, one for each label.

    Args:
      labels: integers of the shape of one example, up to axes of length 1.

    Returns:
      Booleans (distinct labels, *shape of labels), in the order of the labels.

    Raises:
      TypeError: if labels are not integers.
      ValueError: if there are none.

    Example:
      >>> from jaxlrp.concepts import regions
      >>> regions.segments([[0, 7], [7, 7]]).astype(int).tolist()
      [[[1, 0], [0, 0]], [[0, 1], [1, 1]]]
    """
    found = np.asarray(labels)
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(
            f"labels must be integers, got {found.dtype}; for masks use regions.masks(...)"
        )
    if not found.ndim or not found.size:
        raise ValueError(f"labels must have at least one axis and one value, got {found.shape}")
    return found == np.unique(found).reshape(-1, *(1,) * found.ndim)


def superpixels(
    image: ArrayLike, n_segments: int, *, channel_axis: int | None = -1, compactness: float = 10.0
) -> np.ndarray:
    """Superpixels: connected parts of an image of similar color, by SLIC.

    Args:
      image: (height, width, channels), or volumes with one more axis; any real units, such as
        the preprocessed input: colors are scaled to [0, 1] first.
      n_segments: how many, >= 1; the number found may differ.
      channel_axis: the channel axis, -1 for the last; None if the image has none.
      compactness: weight of spatial distance relative to color, > 0.

    Returns:
      Booleans (superpixels, height, width, 1), with length 1 along the axis of the channels.

    Raises:
      ImportError: without scikit-image.
      ValueError: if an argument is invalid.

    References:
      Achanta et al. (2012), https://doi.org/10.1109/TPAMI.2012.120
    """
    from jaxlrp.concepts.extras import need

    values = np.asarray(image, np.float64)
    check_count("n_segments", n_segments)
    positions = values.ndim - (channel_axis is not None)
    if positions not in (2, 3):
        raise ValueError(
            f"image must have two or three axes besides that of the channels, channel_axis={channel_axis}, "
            f"got shape {values.shape}; choose one image of a batch, and channel_axis=None where there are "
            "no channels"
        )
    if not compactness > 0:
        raise ValueError(f"compactness must be > 0, got {compactness}")
    if not np.isfinite(values).all():
        raise ValueError("image must be finite, got NaN or infinity")
    spread = values.max() - values.min()
    values = (values - values.min()) / (spread or 1.0)
    labels = need("skimage.segmentation", "regions.superpixels").slic(
        values, n_segments=n_segments, compactness=compactness, channel_axis=channel_axis
    )
    if channel_axis is not None:
        labels = np.expand_dims(labels, channel_axis % values.ndim)
    return segments(labels)


def masks(array: ArrayLike | Sequence[ArrayLike], *, rest: bool = False) -> np.ndarray:
    """Your own masks, such as masks of objects.

    Args:
      array: (regions, *shape of one example), booleans or weights such as an alpha channel; or a list of
        masks. They may overlap. Axes of length 1 are broadcast, so for images with channels write
        `mask[..., None]`.
      rest: whether to add a last region for everything outside the masks, `1 - sum`.

    Returns:
      The masks as booleans or floats, one region each.

    Raises:
      TypeError: if masks are neither booleans nor floats.
      ValueError: if they are not finite, or overlap with `rest=True`.

    Example:
      >>> from jaxlrp.concepts import regions
      >>> regions.masks([[True, False, False]], rest=True).tolist()
      [[True, False, False], [False, True, True]]
    """
    found = np.asarray(array)
    boolean = found.dtype == bool
    if not boolean and not np.issubdtype(found.dtype, np.floating):
        raise TypeError(
            f"masks must be booleans or floats, got {found.dtype}: write mask > 0, or "
            "regions.segments(labels) for a segmentation"
        )
    if found.ndim < 2 or not len(found):
        raise ValueError(
            f"masks must have shape (regions, *shape of one example), got {found.shape}; write [mask] for "
            "a single one"
        )
    if not boolean and not np.isfinite(found).all():
        raise ValueError("masks must be finite, got NaN or infinity")
    if not rest:
        return found
    covered = found.sum(axis=0, dtype=None if not boolean else np.int64)
    if covered.max() > 1 + 1e-6:
        where = tuple(int(i) for i in np.argwhere(covered > 1 + 1e-6)[0])
        raise ValueError(
            f"with rest=True masks must not add up to more than 1, but they do at {where}: {covered[where]}"
        )
    left = covered == 0 if boolean else (1 - covered).astype(found.dtype)
    return np.concatenate([found, left[None]])


def boxes(shape: Sequence[int], corners: ArrayLike) -> np.ndarray:
    """The boxes of a detector as masks, such as for `context` and `targets.Segmentation`.

    Args:
      shape: (height, width) of the picture.
      corners: (boxes, 4), for each (top, left, bottom, right) in pixels; bottom and right are exclusive. A
        pixel belongs to a box if its center lies inside, so numbers need not be whole.

    Returns:
      Booleans (boxes, height, width).

    Raises:
      ValueError: if a box has no pixel, reaches beyond the picture, or is not finite.

    Example:
      >>> from jaxlrp.concepts import regions
      >>> regions.boxes((2, 4), [[0, 1, 2, 3]]).astype(int).tolist()
      [[[0, 1, 1, 0], [0, 1, 1, 0]]]
    """
    lengths = [check_count("shape", n) for n in shape]
    found = np.asarray(corners, float)
    if len(lengths) != 2 or found.ndim != 2 or found.shape[1] != 4 or not len(found):
        raise ValueError(
            "shape must be (height, width), and corners (boxes, 4): top, left, bottom, right of each; got "
            f"shape={tuple(shape)} and corners of shape {found.shape}"
        )
    height, width = lengths
    inside = (found >= 0) & (found <= [height, width, height, width])
    if not inside.all():  # NaN is not inside either
        i = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise ValueError(
            f"corners[{i}] = {found[i].tolist()} is not inside of the picture of {height} x {width} "
            "pixels: boxes are (top, left, bottom, right) in pixels of this picture; clip them, or scale "
            "them to it"
        )
    rows, columns = sides(found, (height, width))
    masks = rows[:, :, None] & columns[:, None, :]
    if not masks.any(axis=(1, 2)).all():
        i = int(np.flatnonzero(~masks.any(axis=(1, 2)))[0])
        raise ValueError(
            f"corners[{i}] = {found[i].tolist()} contains no pixel: bottom must be larger than top, and "
            "right larger than left"
        )
    return masks
