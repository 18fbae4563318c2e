"""Aggregates relevance over bands, channels and segments.

The argument `how` is required, because its values answer different questions. "sum" is the signed sum:
it conserves relevance, and evidence for and against cancels. "mean_magnitude" is the mean
of |R|: it shows where relevance is large and conserves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count, check_mapping
from jaxlrp.inspection.bands import Bands

How = Literal["sum", "mean_magnitude"]


def per_band(relevance: Array, bands: Bands | Mapping[str, slice], *, axis: int, how: How) -> Array:
    """Relevance of bands of coefficients.

    Args:
      relevance: real, with K coefficients along `axis`.
      bands: `Bands` for K coefficients, or a mapping from names to slices, as in `Wavelet.subbands`.
      axis: axis of the coefficients.
      how: "sum" or "mean_magnitude", weighted by the weights of the bands.

    Returns:
      The same axes, with the bands in order along `axis`.

    Raises:
      ValueError: if `axis`, `how` or the number of coefficients is invalid.

    Example:
      >>> halves = {"low": slice(0, 2), "high": slice(2, 4)}
      >>> per_band(jnp.array([1.0, -3.0, 2.0, 2.0]), halves, axis=0, how="sum").tolist()
      [-2.0, 4.0]
    """
    r = jnp.moveaxis(relevance, _axis("axis", axis, relevance), -1)
    m = bands.weights if isinstance(bands, Bands) else _of_slices(bands, r.shape[-1])
    if m.shape[1] != r.shape[-1]:
        raise ValueError(
            f"bands are for {m.shape[1]} coefficients, but relevance has {r.shape[-1]} along axis={axis}"
        )
    return jnp.moveaxis(_reduced(r, jnp.asarray(m, r.dtype), how), -1, axis)


def per_segment(relevance: Array, segments: int | Sequence[int], *, axis: int, how: How) -> Array:
    """Relevance of segments of samples or frames.

    Args:
      relevance: real, with N entries along `axis`.
      segments: the length of a segment, in entries (the last may be shorter), or the start of each
        segment: increasing, the first 0.
      axis: axis of the entries.
      how: "sum" or "mean_magnitude".

    Returns:
      The same axes, with the segments in order along `axis`.

    Raises:
      ValueError: if `axis`, `how` or `segments` is invalid.

    Example:
      >>> per_segment(jnp.array([1.0, 2.0, -4.0]), 2, axis=0, how="mean_magnitude").tolist()
      [1.5, 4.0]
    """
    r = jnp.moveaxis(relevance, _axis("axis", axis, relevance), -1)
    n = r.shape[-1]
    if isinstance(segments, (int, np.integer)):
        check_count("segments", segments)
        starts = np.arange(0, n, segments)
    else:
        starts = np.asarray(segments)
        if starts.ndim != 1 or not len(starts) or starts[0] or (np.diff(starts) <= 0).any():
            raise ValueError(
                f"segments must be a length (an integer), or increasing starts from 0, got {segments!r}"
            )
        if starts[-1] >= n:
            raise ValueError(
                f"segments must start below {n}, the length of the axis, got {starts[-1]}"
            )
    return jnp.moveaxis(_runs(r, starts, how), -1, axis)


def per_event(
    relevance: Array,
    events: Array | np.ndarray,
    *,
    axis: int,
    number: int,
    how: How,
    against_mean: bool = False,
) -> Array:
    """Relevance of labeled events: fixations and saccades of a gaze, words of a sentence, heart beats.

    Unlike segments, events of one label may lie in many places, and each sample has its own.

    Args:
      relevance: real, with N entries along `axis`.
      events: integers, (N,), or of the shape of relevance up to axes of length 1: the label of each entry,
        from 0 to `number` - 1; -1 for entries that belong to none.
      axis: axis of the entries.
      number: how many labels there are, >= 1.
      how: "sum" or "mean_magnitude".
      against_mean: whether the mean over all entries that have a label is subtracted, so that events above
        it are positive: of "sum", the sum that each label would have if relevance were spread evenly.

    Returns:
      The same axes, with the labels in order along `axis`: 0 for a label without entries, which has no
      relevance; `nan` for its mean magnitude.

    Raises:
      ValueError: if `axis`, `how`, `number`, or the shape of `events` is invalid.
      TypeError: if `events` are no integers.

    References:
      Krakowczyk et al. (2023), https://doi.org/10.1145/3588015.3588412

    Example:
      >>> gaze = jnp.array([1.0, 2.0, -4.0, 3.0])  # fixation, fixation, saccade, fixation
      >>> per_event(gaze, jnp.array([0, 0, 1, 0]), axis=0, number=2, how="sum").tolist()
      [6.0, -4.0]
    """
    _check_how(how)
    check_count("number", number)
    place = _axis("axis", axis, relevance)
    labels = jnp.asarray(events)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"events must be integers, the label of each entry, got {labels.dtype}")
    if labels.ndim == 1:
        labels = labels.reshape([-1 if i == place else 1 for i in range(relevance.ndim)])
    if labels.ndim != relevance.ndim or any(
        n not in ((m,) if i == place else (1, m))
        for i, (n, m) in enumerate(zip(labels.shape, relevance.shape, strict=True))
    ):
        raise ValueError(
            f"events must have shape ({relevance.shape[place]},), or that of relevance, {relevance.shape}, "
            f"up to axes of length 1, got {jnp.shape(events)}"
        )
    r = jnp.moveaxis(relevance, place, -1)
    labels = jnp.broadcast_to(jnp.moveaxis(labels, place, -1), r.shape)
    member = (labels[..., None, :] == jnp.arange(number)[:, None]).astype(r.dtype)
    values = r if how == "sum" else jnp.abs(r)
    sums, counts = (member * values[..., None, :]).sum(-1), member.sum(-1)
    overall = sums.sum(-1, keepdims=True) / counts.sum(-1, keepdims=True)
    if how == "sum":
        found = sums - counts * jnp.nan_to_num(overall) if against_mean else sums
    else:
        found = sums / counts - overall if against_mean else sums / counts
    return jnp.moveaxis(found, -1, place)


def per_channel(relevance: Array, *, axis: int, how: How, batch_axis: int | None = 0) -> Array:
    """Relevance of channels, aggregated over all other axes.

    Args:
      relevance: real.
      axis: axis of the channels.
      how: "sum" or "mean_magnitude".
      batch_axis: an axis to keep; None for none.

    Returns:
      (batch, channels), or (channels,) with `batch_axis=None`.

    Raises:
      ValueError: if `axis`, `batch_axis` or `how` is invalid.

    Example:
      >>> per_channel(jnp.array([[[1.0, 2.0], [3.0, -4.0]]]), axis=2, how="sum").tolist()
      [[4.0, -2.0]]
    """
    _check_how(how)
    channel = _axis("axis", axis, relevance)
    kept = (channel,)
    if batch_axis is not None:
        batch = _axis("batch_axis", batch_axis, relevance)
        if batch == channel:
            raise ValueError(
                f"batch_axis must not be the axis of the channels, got {batch_axis}; pass "
                "batch_axis=None if there is no batch"
            )
        kept = (batch, channel)
    r = jnp.moveaxis(relevance, kept, range(len(kept)))
    rest = tuple(range(len(kept), r.ndim))
    return r.sum(axis=rest) if how == "sum" else jnp.abs(r).mean(axis=rest)


def _check_how(how: str) -> None:
    if how not in ("sum", "mean_magnitude"):
        raise ValueError(f"how must be 'sum' or 'mean_magnitude', got {how!r}")


def _axis(name: str, axis: int, relevance: Array) -> int:
    if (
        isinstance(axis, bool)
        or not isinstance(axis, int)
        or not -relevance.ndim <= axis < relevance.ndim
    ):
        raise ValueError(
            f"{name} must be an integer from {-relevance.ndim} to {relevance.ndim - 1} for relevance of "
            f"shape {relevance.shape}, got {axis!r}"
        )
    return axis % relevance.ndim


def _reduced(r: Array, m: Array, how: How) -> Array:
    _check_how(how)
    if how == "sum":
        return jnp.einsum("...k,bk->...b", r, m, precision="highest")
    # the mean of an empty band is zero
    total = jnp.maximum(m.sum(axis=1), jnp.finfo(r.dtype).tiny)
    return jnp.einsum("...k,bk->...b", jnp.abs(r), m, precision="highest") / total


def _runs(r: Array, starts: np.ndarray, how: How) -> Array:
    _check_how(how)
    lengths = np.diff(starts, append=r.shape[-1])
    index = np.repeat(np.arange(len(starts)), lengths)
    sums = jnp.zeros((*r.shape[:-1], len(starts)), r.dtype)
    if how == "sum":
        return sums.at[..., index].add(r)
    return sums.at[..., index].add(jnp.abs(r)) / jnp.asarray(lengths, r.dtype)


def _of_slices(slices: Mapping[str, slice], n: int) -> np.ndarray:
    check_mapping("bands", slices, '{"low": slice(0, 8)}')
    m = np.zeros((len(slices), n))
    for row, (name, where) in zip(m, slices.items(), strict=True):
        if not isinstance(where, slice):
            raise TypeError(
                f"bands[{name!r}] must be a slice within {n} coefficients, got {where!r}"
            )
        row[where] = 1.0
        if not row.any() or (where.stop or 0) > n:
            raise ValueError(
                f"bands[{name!r}] must be a slice within {n} coefficients, got {where!r}"
            )
    return m
