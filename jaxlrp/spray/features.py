"""Reads relevance in batches, preprocesses it and flattens each sample to a point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.numerics import widen
from jaxlrp.spray.preprocess import l1_normalize


def features(
    relevance: Any,
    preprocess: Callable[..., Array] = l1_normalize,
    *,
    inputs: Any = None,
    rows: Any = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Preprocesses relevance batch by batch and flattens each sample to a point.

    The relevance is read once, sequentially, in slices `relevance[a:b]`. Slices without a requested row are
    skipped. Memory holds the points and one batch.

    Args:
      relevance: anything with a `shape` that can be sliced along its first axis: NumPy, JAX, Zarr, HDF5, a
        store.
      preprocess: traceable function from a batch (n, ...) to a batch; see `compose`. With `inputs`, it is
        called with a batch of relevance and a batch of inputs.
      inputs: (N, ...), the explained inputs, in the order of `relevance`; None for relevance alone.
      rows: (m,) integers, the samples to read; None for all.
      batch_size: samples per compiled call, >= 1.

    Returns:
      (m, d) floats, in the order of `rows`.

    Raises:
      TypeError: if `relevance` has no shape or cannot be sliced.
      ValueError: if a row is out of range, or the preprocessed values are not finite or do not have samples
        first.

    Example:
      >>> features(np.array([[1.0, 3.0], [2.0, 2.0]]), rows=[1]).tolist()
      [[0.5, 0.5]]
    """
    total = length(relevance)
    rows = np.arange(total) if rows is None else as_rows("rows", rows, total)
    if not rows.size:
        raise ValueError(f"rows must name at least one of the {total} samples, got none")
    found: np.ndarray | None = None
    for where, values in preprocessed(relevance, preprocess, rows, batch_size, inputs):
        points = values.reshape(len(values), -1)
        if found is None:
            found = np.empty((len(rows), points.shape[1]), points.dtype)
        found[where] = points
    assert found is not None
    return found


def preprocessed(
    relevance: Any,
    preprocess: Callable[..., Array],
    rows: np.ndarray,
    batch_size: int,
    inputs: Any = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads and preprocesses the batches that contain a requested row.

    Yields:
      (where, values): positions in `rows`, and the preprocessed samples, all finite.
    """
    check_count("batch_size", batch_size)
    if not callable(preprocess):
        raise TypeError(
            f"preprocess must be a function of a batch such as l1_normalize, got {preprocess!r}"
        )
    sources = [relevance] if inputs is None else [relevance, inputs]
    if len({length(source) for source in sources}) > 1:
        raise ValueError(
            f"inputs must have the {length(relevance)} samples of relevance, in its order, got "
            f"{length(inputs)}"
        )
    compiled = jax.jit(lambda *parts: _checked(preprocess(*parts), batch_size))
    order = np.argsort(rows, kind="stable")
    for start in range(0, length(relevance), batch_size):
        first, last = np.searchsorted(rows[order], [start, start + batch_size])
        if first == last:
            continue
        where = order[first:last]
        parts = [_filled(source[start : start + batch_size], batch_size) for source in sources]
        values = np.asarray(compiled(*parts))[rows[where] - start]
        _check_finite(values, rows[where])
        yield where, values


def _filled(part: Any, batch_size: int) -> np.ndarray:
    """Pads the last slice to the length of the others, so that there is only one compilation."""
    part = np.asarray(part)
    return np.pad(part, [(0, batch_size - len(part))] + [(0, 0)] * (part.ndim - 1))


def _checked(values: Array, samples: int) -> Array:
    if not values.ndim or values.shape[0] != samples:
        raise ValueError(
            f"preprocess must return a batch with its {samples} samples first, got shape {values.shape}"
        )
    return widen(values)


def length(relevance: Any) -> int:
    """The number of samples.

    Raises:
      TypeError: if it is not array-like.
      ValueError: if there are no value axes after the samples.
    """
    if not hasattr(relevance, "shape") or not hasattr(relevance, "__getitem__"):
        raise TypeError(
            "relevance must be an array or another object with a shape that can be sliced, got "
            f"{type(relevance).__name__}; convert a list with np.stack"
        )
    if len(relevance.shape) < 2:
        raise ValueError(
            f"relevance must have samples first and values after them, got shape {relevance.shape}"
        )
    return int(relevance.shape[0])


def as_rows(name: str, rows: Any, total: int) -> np.ndarray:
    """Row indices of a data set of `total` samples as an array of integers.

    Raises:
      TypeError: if they are not integers.
      ValueError: if an index is out of range or repeated.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or not rows.size):
        raise TypeError(
            f"{name} must be a vector of integers, got {rows.dtype} of shape {rows.shape}; "
            "convert a mask with np.flatnonzero"
        )
    rows = rows.astype(np.int64)
    outside = rows[(rows < 0) | (rows >= total)]
    if outside.size:
        raise ValueError(f"{name} must be in [0, {total - 1}], got {outside[0]}")
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{name} must be unique, got a repeated row")
    return rows


def _check_finite(values: np.ndarray, rows: np.ndarray) -> None:
    bad = rows[~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))]
    if bad.size:
        raise ValueError(
            f"relevance must be finite, got NaN or infinity in row {bad.min()} ({bad.size} of "
            f"{len(rows)} rows of this batch); exclude such samples with rows="
        )
