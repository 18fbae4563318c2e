"""Where the relevance of a map is large: blurring, boxes, masks."""

from __future__ import annotations

import numpy as np

Box = tuple[tuple[int, int], ...]
"""(start, stop) along each axis of positions, without the position `stop`."""


def smooth(relevance: np.ndarray, blur: float) -> np.ndarray:
    """A map, blurred by a Gaussian; relevance is zero beyond its border.

    Args:
      relevance: any number of axes.
      blur: standard deviation as a fraction of the length of each axis, >= 0; 0 for none.

    Raises:
      ValueError: if `blur` is negative.
    """
    if not blur >= 0:
        raise ValueError(f"blur must be >= 0, got {blur}")
    if blur == 0:
        return np.asarray(relevance)
    from scipy.ndimage import gaussian_filter

    sigma = [blur * length for length in np.shape(relevance)]
    return gaussian_filter(np.asarray(relevance, np.float64), sigma, mode="constant")


def above(heat: np.ndarray, share: float) -> np.ndarray:
    """Where a map exceeds a share of its largest value; nowhere if no value is positive.

    Raises:
      ValueError: if `share` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"threshold and dim must be in [0, 1), got {share}")
    largest = heat.max()
    return heat > share * largest if largest > 0 else np.zeros(heat.shape, bool)


def crop_box(heat: np.ndarray, *, threshold: float = 0.1, context: int = 0) -> Box:
    """The smallest box with all positions where a map exceeds a share of its largest value.

    Args:
      heat: a map of any number of axes.
      threshold: the share, in [0, 1).
      context: positions to add on each side, >= 0.

    Returns:
      (start, stop) along each axis; the last position above the threshold is inside. The whole map if no
      value is positive.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> concepts.crop_box(np.array([0.0, 1.0, 0.0, 0.5, 0.05]))
      ((1, 4),)
    """
    if context < 0:
        raise ValueError(f"context must be >= 0, got {context}")
    places = np.argwhere(above(heat, threshold))
    if not len(places):
        return tuple((0, length) for length in heat.shape)
    first = np.maximum(places.min(axis=0) - context, 0)
    last = np.minimum(places.max(axis=0) + 1 + context, heat.shape)
    return tuple((int(a), int(b)) for a, b in zip(first, last, strict=True))


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of each run of True.

    Raises:
      ValueError: if the mask has several axes.
    """
    if mask.ndim != 1:
        raise ValueError(
            f"spans is for tokens and signals, which have one axis of positions, got {mask.ndim} axes"
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
