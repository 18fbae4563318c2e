"""Signals longer than memory: processed piece by piece, with the same results as the whole signal."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.inspection.layer import cotangent
from jaxlrp.inspection.stdft import STDFT
from jaxlrp.inspection.transform import check_signal
from jaxlrp.numerics import widen


class Windows(NamedTuple):
    """A batch of windows of a long signal.

    Attributes:
      values: (batch, length, ...), zeros after the end of the signal.
      starts: (count,), the first sample of each window; windows after `count` are padding.
    """

    values: np.ndarray
    starts: np.ndarray


class Frames(NamedTuple):
    """A batch of frames of a long signal.

    Attributes:
      relevance: (..., count, length // 2 + 1).
      first: the number of the first of these frames.
      at_zero: relevance on samples of zero that these frames are the first to read; (...).
    """

    relevance: Array
    first: int
    at_zero: Array


def windows(source: Any, *, length: int, hop: int, batch_size: int = 32) -> Iterator[Windows]:
    """Cuts a long signal into batches of windows of one shape, for a model of windows.

    Every batch has the same shape, so an explainer is compiled once.

    Args:
      source: an array with time first that is read slice by slice (NumPy memory maps, HDF5 and Zarr
        data sets), or an iterable of consecutive arrays.
      length: window length in samples, >= 1.
      hop: samples from window to window, 1 <= hop <= length.
      batch_size: windows per batch, >= 1.

    Yields:
      `Windows`. Together they contain every sample; the last is padded with zeros.

    Raises:
      ValueError: if an argument is out of range, or there are no samples.

    Example:
      >>> [part.starts.tolist() for part in windows(np.arange(10.0), length=4, hop=2, batch_size=3)]
      [[0, 2, 4], [6]]
    """
    for name, value in (("length", length), ("hop", hop), ("batch_size", batch_size)):
        check_count(name, value)
    if hop > length:
        raise ValueError(
            f"hop must be <= length, {length}, got {hop}: samples between frames would be skipped"
        )
    return _windows(source, length, hop, batch_size)


def _windows(source: Any, length: int, hop: int, batch_size: int) -> Iterator[Windows]:
    span = (batch_size - 1) * hop + length
    start, held, read = 0, None, 0
    for chunk in _chunks(source, span):
        read += len(chunk)
        held = chunk if held is None else np.concatenate([held, chunk])
        # A batch is cut once more samples follow; the last one is cut below, complete or not.
        while len(held) > span:
            yield _cut(held, start, batch_size, length, hop, batch_size)
            held, start = held[batch_size * hop :], start + batch_size * hop
    if held is None or not read:
        raise ValueError("source must contain at least one sample, got none")
    count = -(-max(len(held) - length, 0) // hop) + 1
    filling = [(0, span - len(held))] + [(0, 0)] * (held.ndim - 1)
    yield _cut(np.pad(held, filling), start, count, length, hop, batch_size)


def _chunks(source: Any, size: int) -> Iterator[np.ndarray]:
    if hasattr(source, "shape") and hasattr(source, "__getitem__"):
        for start in range(0, source.shape[0], size):
            yield np.asarray(source[start : start + size])
    else:
        yield from map(np.asarray, source)


def _cut(
    held: np.ndarray, start: int, count: int, length: int, hop: int, batch_size: int
) -> Windows:
    values = np.stack([held[i * hop : i * hop + length] for i in range(batch_size)])
    return Windows(values, start + hop * np.arange(count))


def stream(
    transform: STDFT,
    chunks: Iterable[tuple[Any, Any]],
    *,
    frames: int = 256,
    floor: float = 0.0,
) -> Iterator[Frames]:
    """Converts relevance of a long signal in time to frames, piece by piece.

    The frames are those of `decompose(transform, x, relevance, axis=-1)` of the whole signal. Memory
    holds one chunk and `frames` frames, however long the signal is.

    Args:
      transform: an `STDFT` in its local form with `pad="both"`.
      chunks: pairs (x, relevance), (..., T) each, time last; T may differ between pairs.
      frames: frames per compiled call, >= 1.
      floor: as in `decompose`.

    Yields:
      `Frames`, in order.

    Raises:
      ValueError, TypeError: if an argument has the wrong type or shape, or there are no samples.

    Example:
      >>> chunks = [(jnp.ones(6), jnp.ones(6)), (jnp.ones(2), jnp.ones(2))]
      >>> [part.relevance.shape for part in stream(STDFT(length=4, hop=2), chunks, frames=3)]
      [(3, 3), (2, 3)]
    """
    if not isinstance(transform, STDFT) or transform.form != "local" or transform.pad != "both":
        raise TypeError(
            'stream needs an STDFT in its local form with pad="both", whose frames read only their own '
            f"samples, got {transform!r}"
        )
    check_count("frames", frames)
    return _stream(transform, chunks, frames, floor)


def _stream(
    transform: STDFT, chunks: Iterable[tuple[Any, Any]], frames: int, floor: float
) -> Iterator[Frames]:
    left, hop = transform.length - transform.hop, transform.hop
    span = (frames - 1) * hop + transform.length
    compute = jax.jit(transform.frame_relevance)
    held: np.ndarray | None = None  # x and c, (2, ..., samples), from the first unfinished frame on
    zeros = np.zeros(())
    first = samples = 0
    for x, relevance in chunks:
        both, at_zero = _signal_and_cotangent(x, relevance, floor)
        zeros = zeros + at_zero
        samples += both.shape[-1]
        if held is None:
            held = np.zeros((*both.shape[:-1], left), both.dtype)
        held = np.concatenate([held, both], axis=-1)
        while held.shape[-1] >= span:
            yield Frames(compute(*held[..., :span]), first, jnp.asarray(zeros))
            held, first, zeros = held[..., frames * hop :], first + frames, np.zeros(())
    if held is None or not samples:
        raise ValueError("chunks must contain at least one sample, got none")
    total = (samples - 1 + left) // hop + 1
    held = np.pad(held, [(0, 0)] * (held.ndim - 1) + [(0, span)])
    while first < total:
        relevance = compute(*held[..., :span])[..., : total - first, :]
        yield Frames(relevance, first, jnp.asarray(zeros))
        held, first, zeros = held[..., frames * hop :], first + frames, np.zeros(())


def _signal_and_cotangent(x: Any, relevance: Any, floor: float) -> tuple[np.ndarray, np.ndarray]:
    x, relevance = jnp.asarray(x), jnp.asarray(relevance)
    if x.shape != relevance.shape or not x.ndim:
        raise ValueError(
            f"x and relevance of a chunk must have the same shape, got {x.shape} and {relevance.shape}"
        )
    check_signal(x)
    c, at_zero = _cotangent(x, relevance, floor)
    return np.stack([np.asarray(widen(x)), np.asarray(c)]), np.asarray(at_zero.sum(axis=-1))


_cotangent = functools.partial(cotangent, reads=1)
