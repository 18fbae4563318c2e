r"""Exact nearest neighbors in little memory, and the graph that they form.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x . y

The product is one matrix multiplication on the device for each block of rows, so no N x N array exists. It
is not exact: if x and y are close, the difference of large numbers loses its digits. It therefore only
proposes candidates, more than requested. Their distances are recomputed as sums of (x - y)^2 and sorted. If
rounding may have excluded a true neighbor from the candidates of a row, that row is recomputed in float64.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import sparse

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.numerics import widen

_SPARE = 8  # candidates in addition to the requested number
_BLOCK = 2**26  # entries of the arrays of a block: 256 MiB in float32


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Neighbors:
    """The k nearest neighbors of each of n points, nearest first.

    Attributes:
      index: (n, k) integers. No point is its own neighbor, even if it has duplicates.
      distance: (n, k) floats, Euclidean.
    """

    index: np.ndarray
    distance: np.ndarray


def neighbors(points: Any, n_neighbors: int = 10) -> Neighbors:
    """Finds the nearest neighbors of each point, exactly, on the device.

    Memory holds the points, on the device and on the host, and the arrays of one block of rows, 256 MiB
    each (float32). Among neighbors at equal distance, those with a lower index come first.

    Args:
      points: (n, d) real floats, finite.
      n_neighbors: neighbors per point, 1 <= n_neighbors < n.

    Returns:
      `Neighbors`.

    Raises:
      ValueError: if a shape or `n_neighbors` is invalid, or a point is not finite.

    Example:
      >>> neighbors(np.array([[0.0], [0.0], [1.0], [5.0]]), n_neighbors=1).index.tolist()
      [[1], [0], [0], [2]]
    """
    k = check_count("n_neighbors", n_neighbors)
    x = widen(jnp.asarray(points))
    if x.ndim != 2:
        raise ValueError(f"points must have shape (n, d), got {x.shape}")
    n = x.shape[0]
    if k >= n:
        raise ValueError(f"n_neighbors must be < {n}, the number of points, got {k}")
    if not bool(jnp.isfinite(x).all()):
        raise ValueError("points must be finite, got NaN or infinity")
    squares = (x * x).sum(axis=1)
    m = min(k + _SPARE, n - 1)
    # Each row needs its distances and the differences to its candidates.
    rows = int(np.clip(_BLOCK // max(n, m * x.shape[1]), 1, n))
    index, square, sure = (np.empty((n, k), np.int32), np.empty((n, k), x.dtype), np.empty(n, bool))
    for start in range(0, n, rows):
        # The last block overlaps the previous one: all blocks have the same shape and compile once.
        start = min(start, n - rows)
        here = slice(start, start + rows)
        index[here], square[here], sure[here] = _block(x, squares, start, rows=rows, k=k, m=m)
    if not sure.all():
        again = np.flatnonzero(~sure)
        index[again], square[again] = _in_double(np.asarray(x), again, k)
    return Neighbors(index, np.sqrt(square))


@functools.partial(jax.jit, static_argnames=("rows", "k", "m"))
def _block(
    x: Array, squares: Array, start: Array, *, rows: int, k: int, m: int
) -> tuple[Array, Array, Array]:
    """(index, squared distance, whether it is certain) for a block of rows."""
    n, d = x.shape
    own = start + jnp.arange(rows, dtype=jnp.int32)
    part, part_squares = x[own], squares[own]
    # The default precision of accelerators has only three digits.
    product = jnp.matmul(part, x.T, precision=lax.Precision.HIGHEST)
    far = part_squares[:, None] + squares - 2 * product
    far = far.at[jnp.arange(rows), own].set(jnp.inf)
    # Without the barrier, XLA merges this with the following steps and sorts whole rows on a CPU.
    negative, index = lax.optimization_barrier(lax.top_k(-far, m))
    exact = ((part[:, None] - x[index]) ** 2).sum(axis=-1)
    exact, index = lax.sort((exact, index.astype(jnp.int32)), num_keys=2)
    exact, index = exact[:, :k], index[:, :k]
    # A point nearer than the k-th is at most |x| + d_k from the origin. This bounds the rounding error of
    # its proposed distance; a sum of d products is off by about sqrt(d) roundings.
    norm = jnp.sqrt(part_squares)
    reach = norm + jnp.sqrt(exact[:, -1])
    rounding = (4 + d**0.5) * jnp.finfo(x.dtype).eps * (norm**2 + reach**2)
    sure = (-negative[:, -1] - rounding > exact[:, -1]) | (exact[:, -1] == 0)
    return index, exact, sure | (m == n - 1)


def _in_double(x: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(index, squared distance) for some rows, in float64 on the host."""
    x = x.astype(np.float64)
    x -= x.mean(axis=0)  # smaller numbers, smaller rounding errors
    squares = (x * x).sum(axis=1)
    m = min(k + _SPARE, len(x) - 1)
    index, square = np.empty((len(rows), k), np.int32), np.empty((len(rows), k))
    size = max(1, _BLOCK // 4 // len(x))
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        far = squares[own, None] + squares - 2 * (x[own] @ x.T)
        far[np.arange(len(own)), own] = np.inf
        near = np.sort(np.argpartition(far, m - 1, axis=1)[:, :m], axis=1)
        exact = np.stack([((x[j] - x[i]) ** 2).sum(axis=1) for i, j in zip(own, near, strict=True)])
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        index[start : start + size] = np.take_along_axis(near, order, axis=1)
        square[start : start + size] = np.take_along_axis(exact, order, axis=1)
    return index, square


def graph(found: Neighbors) -> sparse.csr_array:
    """The symmetric graph of nearest neighbors, A = (C + C^T) / 2, where C_ij = 1 if j is a neighbor of i.

    An edge has weight 1 if both points are neighbors of each other, and 1/2 if only one is.

    Args:
      found: neighbors of n points.

    Returns:
      (n, n), sparse, float64, symmetric, with an empty diagonal.

    Example:
      >>> graph(neighbors(np.array([[0.0], [1.0], [3.0]]), n_neighbors=1)).toarray().tolist()
      [[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]]
    """
    n, k = found.index.shape
    ends = k * np.arange(n + 1, dtype=np.int32 if n * k < 2**31 else np.int64)
    near = sparse.csr_array((np.ones(n * k), found.index.ravel(), ends), shape=(n, n))
    return sparse.csr_array((near + near.T) / 2)
