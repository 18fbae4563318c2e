"""From relevance to the points that are compared: pure functions of batches, one behind the other.

Each function takes a batch, (n, ...) with samples first, and returns one. What is relevant in a sample
is where its relevance lies, not how much there is of it: so the last step divides by the sum of
magnitudes. The signed sum would not do, as it may be near zero, or negative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.numerics import widen

Step = Callable[[Array], Array]


def absolute(relevance: Array) -> Array:
    """The magnitude: evidence for and against count alike.

    Args:
      relevance: real, any shape.

    Returns:
      The same shape and dtype.

    Example:
      >>> absolute(jnp.array([[-1.0, 2.0]])).tolist()
      [[1.0, 2.0]]
    """
    return jnp.abs(relevance)


def sum_channels(relevance: Array, *, axis: int = -1) -> Array:
    """The relevance of each pixel, sample or token: the signed sum over channels.

    Args:
      relevance: (n, ...), with channels along `axis`.
      axis: of the channels: -1 for (n, H, W, C) or token embeddings (n, T, D), 1 for (n, C, H, W).

    Returns:
      (n, ...), without that axis; 16-bit floats become float32.

    Raises:
      ValueError: if `axis` is the axis of samples, or none.

    Example:
      >>> sum_channels(jnp.array([[[1.0, 2.0, -4.0]]])).tolist()
      [[-1.0]]
    """
    if not -relevance.ndim <= axis < relevance.ndim or axis % relevance.ndim == 0:
        raise ValueError(
            f"axis must be that of the channels, of {relevance.ndim} axes with samples first, got {axis}"
        )
    return widen(relevance).sum(axis=axis)


def l1_normalize(relevance: Array) -> Array:
    """Divides each sample by its sum of magnitudes, so that the magnitudes sum to one.

    Args:
      relevance: (n, ...), real.

    Returns:
      The same shape; a sample that is zero stays zero. 16-bit floats become float32.

    Example:
      >>> l1_normalize(jnp.array([[1.0, -3.0], [0.0, 0.0]])).tolist()
      [[0.25, -0.75], [0.0, 0.0]]
    """
    r = widen(relevance)
    axes = tuple(range(1, r.ndim))
    # By the largest magnitude first: the sum of very small ones would be zero, of large ones infinite.
    largest = jnp.abs(r).max(axis=axes, keepdims=True)
    r = r / jnp.where(largest > 0, largest, 1)
    total = jnp.abs(r).sum(axis=axes, keepdims=True)
    return r / jnp.where(total > 0, total, 1)


def pool(relevance: Array, window: int | Sequence[int]) -> Array:
    """Sums up neighboring values, in windows that do not overlap. The sum of a sample stays.

    Args:
      relevance: (n, ...), real.
      window: entries along each axis but the first, >= 1; one number for all of them. The last window
        of an axis may be smaller. Sum over channels before, or give them a window of 1.

    Returns:
      (n, ...), each axis divided by its window and rounded up. 16-bit floats become float32.

    Raises:
      ValueError: if a window is no integer >= 1, or their number does not fit.

    Example:
      >>> pool(jnp.array([[1.0, 2.0, -3.0]]), 2).tolist()
      [[3.0, -3.0]]
    """
    r = widen(relevance)
    windows = [window] * (r.ndim - 1) if isinstance(window, int | np.integer) else list(window)
    if len(windows) != r.ndim - 1:
        raise ValueError(
            f"window must have one entry for each of the {r.ndim - 1} axes behind the samples, "
            f"got {window}"
        )
    for axis, w in enumerate(windows, start=1):
        check_count("window", w)
        filling = [(0, 0)] * r.ndim
        filling[axis] = (0, -r.shape[axis] % w)
        r = jnp.pad(r, filling)
        r = r.reshape(*r.shape[:axis], -1, w, *r.shape[axis + 1 :]).sum(axis=axis + 1)
    return r


def resize(relevance: Array, shape: Sequence[int]) -> Array:
    """Resizes each sample, linearly and without aliasing; values are means, so normalize behind it.

    Args:
      relevance: (n, ...), real.
      shape: the new lengths of the axes behind the samples, >= 1.

    Returns:
      (n, *shape). 16-bit floats become float32.

    Raises:
      ValueError: if `shape` does not fit.

    Example:
      >>> resize(jnp.array([[1.0, 1.0, 3.0, 3.0]]), (2,)).shape
      (1, 2)
    """
    r = widen(relevance)
    shape = tuple(check_count("shape", n) for n in shape)
    if len(shape) != r.ndim - 1:
        raise ValueError(
            f"shape must have one entry for each of the {r.ndim - 1} axes behind the samples, got {shape}"
        )
    return jax.image.resize(r, (r.shape[0], *shape), "linear")


@dataclasses.dataclass(frozen=True)
class Composition:
    """Functions of a batch, the first one first; made by `compose`.

    Attributes:
      steps: the functions.
    """

    steps: tuple[Step, ...]

    def __call__(self, relevance: Array) -> Array:
        for step in self.steps:
            relevance = step(relevance)
        return relevance


def compose(*steps: Step) -> Composition:
    """One function that does all steps, the first one first.

    Args:
      *steps: functions of a batch (n, ...) that `jax.jit` can trace; those of this module, also with
        some arguments fixed by `functools.partial`, or your own.

    Returns:
      A function of a batch.

    Raises:
      TypeError: if a step cannot be called.

    Example:
      >>> from functools import partial
      >>> prepare = compose(sum_channels, absolute, partial(pool, window=2), l1_normalize)
      >>> prepare(jnp.ones((1, 4, 4, 3))).tolist()
      [[[0.25, 0.25], [0.25, 0.25]]]
    """
    for step in steps:
        if not callable(step):
            raise TypeError(f"steps must be functions of a batch, got {step!r}")
    return Composition(steps)


def features(
    relevance: Any,
    prepare: Callable[..., Array] = l1_normalize,
    *,
    inputs: Any = None,
    rows: Any = None,
    batch: int = 256,
) -> np.ndarray:
    """Prepares relevance batch by batch and lays each sample out as a point.

    The relevance is read once, from front to back, in slices `relevance[a:b]`; slices without a row that
    is asked for are not read. In memory are the points and one batch.

    Args:
      relevance: anything with a `shape` that is sliced along its first axis: NumPy, JAX, Zarr, HDF5, a
        store of relevances.
      prepare: from a batch (n, ...) to a batch, traceable; see `compose`. With `inputs`, it is called with
        a batch of both.
      inputs: (N, ...), what was explained, in the order of `relevance` and sliced as it is; None for
        relevance alone.
      rows: (m,) integers, which samples; None for all.
      batch: samples at a time, >= 1, in one compiled call.

    Returns:
      (m, d) floats, in the order of `rows`.

    Raises:
      TypeError: if `relevance` has no shape or cannot be sliced.
      ValueError: if a row is out of range, or what comes out is not finite or has no samples first.

    Example:
      >>> features(np.array([[1.0, 3.0], [2.0, 2.0]]), rows=[1]).tolist()
      [[0.5, 0.5]]
    """
    total = length(relevance)
    rows = np.arange(total) if rows is None else as_rows("rows", rows, total)
    if not rows.size:
        raise ValueError(f"rows must name at least one of the {total} samples, got none")
    found: np.ndarray | None = None
    for where, values in prepared(relevance, prepare, rows, batch, inputs):
        points = values.reshape(len(values), -1)
        if found is None:
            found = np.empty((len(rows), points.shape[1]), points.dtype)
        found[where] = points
    assert found is not None
    return found


def prepared(
    relevance: Any, prepare: Callable[..., Array], rows: np.ndarray, batch: int, inputs: Any = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads and prepares the batches that hold a row that is asked for.

    Yields:
      (where, values): positions in `rows`, and those samples prepared, finite.
    """
    check_count("batch", batch)
    sources = [relevance] if inputs is None else [relevance, inputs]
    if len({length(source) for source in sources}) > 1:
        raise ValueError(
            f"inputs must have the {length(relevance)} samples of relevance, in its order, got "
            f"{length(inputs)}"
        )
    compiled = jax.jit(lambda *parts: _checked(prepare(*parts), batch))
    order = np.argsort(rows, kind="stable")
    for start in range(0, length(relevance), batch):
        first, last = np.searchsorted(rows[order], [start, start + batch])
        if first == last:
            continue
        where = order[first:last]
        parts = [_filled(source[start : start + batch], batch) for source in sources]
        values = np.asarray(compiled(*parts))[rows[where] - start]
        _check_finite(values, rows[where])
        yield where, values


def _filled(part: Any, batch: int) -> np.ndarray:
    """The last slice made as long as the others: all compile once."""
    part = np.asarray(part)
    return np.pad(part, [(0, batch - len(part))] + [(0, 0)] * (part.ndim - 1))


def _checked(values: Array, samples: int) -> Array:
    if not values.ndim or values.shape[0] != samples:
        raise ValueError(
            f"prepare must return a batch with its {samples} samples first, got shape {values.shape}"
        )
    return widen(values)


def length(relevance: Any) -> int:
    """How many samples there are.

    Raises:
      TypeError: if it is no array and nothing like one.
      ValueError: if there are no values behind the samples.
    """
    if not hasattr(relevance, "shape") or not hasattr(relevance, "__getitem__"):
        raise TypeError(
            "relevance must be an array, or anything with a shape that can be sliced, got "
            f"{type(relevance).__name__}; stack a list with np.stack"
        )
    if len(relevance.shape) < 2:
        raise ValueError(
            f"relevance must have samples first and values behind them, got shape {relevance.shape}"
        )
    return int(relevance.shape[0])


def as_rows(name: str, rows: Any, total: int) -> np.ndarray:
    """Rows of a data set of `total` samples as integers.

    Raises:
      TypeError: if they are no integers.
      ValueError: if one is out of range or named twice.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or not rows.size):
        raise TypeError(
            f"{name} must be a vector of integers, got {rows.dtype} of shape {rows.shape}; "
            "np.flatnonzero makes them from a mask"
        )
    rows = rows.astype(np.int64)
    outside = rows[(rows < 0) | (rows >= total)]
    if outside.size:
        raise ValueError(f"{name} must be in [0, {total - 1}], got {outside[0]}")
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{name} must name each sample once, got a row twice")
    return rows


def _check_finite(values: np.ndarray, rows: np.ndarray) -> None:
    bad = rows[~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))]
    if bad.size:
        raise ValueError(
            f"relevance must be finite, got NaN or infinity in row {bad.min()} ({bad.size} of "
            f"{len(rows)} rows of this batch); leave such samples out with rows="
        )
