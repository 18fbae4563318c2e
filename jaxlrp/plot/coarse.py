"""Coarser maps: what single pixels of a heat map say is often a grid that strides and pools have left.

    pool:    each pixel becomes the mean of its block B,   R'_p = sum_{q in B(p)} R_q / |B(p)|
    smooth:  each pixel is spread by a Gaussian,           R'_p = sum_q K_pq R_q,   sum_p K_pq = 1

Both keep the sum of relevance, also at the edges.
"""

import operator

import numpy as np


def coarse(values: np.ndarray, pool: int, smooth: float) -> np.ndarray:
    """A map (H, W), pooled and then smoothed, of the same shape.

    Raises:
      TypeError: if `pool` is not an integer.
      ValueError: if `pool` is below 1, or `smooth` is negative or not finite.
    """
    try:
        pool = operator.index(pool)
    except TypeError:
        raise TypeError(f"pool must be an integer, in pixels, got {pool!r}") from None
    if pool < 1:
        raise ValueError(f"pool must be >= 1, in pixels, got {pool}; 1 leaves the map as it is")
    if not 0.0 <= smooth < np.inf:
        raise ValueError(
            f"smooth must be >= 0 and finite, in pixels, got {smooth}; 0 leaves the map as it is"
        )
    if pool > 1:
        values = _block_means(_block_means(values, pool, 0), pool, 1)
    if smooth > 0:
        down, across = (_gaussian(side, smooth) for side in values.shape)
        values = down @ values @ across.T
    return values


def _block_means(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Each entry becomes the mean of its block along an axis; the last block may be shorter."""
    starts = np.arange(0, values.shape[axis], size)
    lengths = np.diff(starts, append=values.shape[axis])
    means = np.moveaxis(np.add.reduceat(values, starts, axis), axis, -1) / lengths
    return np.moveaxis(np.repeat(means, lengths, axis=-1), -1, axis)


def _gaussian(n: int, sigma: float) -> np.ndarray:
    """(n, n), each column a Gaussian with sum 1, mirrored at the edges: a constant stays constant."""
    to, of = np.arange(n)[:, None], np.arange(n)
    distances = (to - of, to + of + 1, 2 * n - 1 - to - of)  # of a pixel and of its mirror images
    kernel = np.sum([np.exp(-0.5 * (d / sigma) ** 2) for d in distances], axis=0)
    return kernel / kernel.sum(axis=0)
