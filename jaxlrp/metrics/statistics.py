"""Correlations and ranks along the last axis, of a part of the values where asked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def pearson(a: Array, b: Array, where: Array | None = None) -> Array:
    """The linear correlation of two arrays (..., m), (...).

    Args:
      a, b: floats.
      where: booleans (..., m): which pairs count; None for all.

    Returns:
      From -1 to 1; `nan` where a or b is constant, or fewer than two pairs count.
    """
    valid = jnp.ones(a.shape, bool) if where is None else jnp.broadcast_to(where, a.shape)
    a, b = _centered(a, valid), _centered(b, valid)
    norm = jnp.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    r = (a * b).sum(axis=-1) / jnp.where(norm > 0, norm, 1)
    return jnp.where(norm > 0, jnp.clip(r, -1, 1), jnp.nan)


def spearman(a: Array, b: Array, where: Array | None = None) -> Array:
    """The correlation of the ranks of two arrays, as `pearson`; equal values share their mean rank."""
    valid = jnp.ones(a.shape, bool) if where is None else jnp.broadcast_to(where, a.shape)
    return pearson(mean_ranks(a, valid), mean_ranks(b, valid), valid)


def cosine(a: Array, b: Array) -> Array:
    """The cosine of the angle between two arrays (..., m), (...); `nan` where one of the two is zero."""

    def unit(v: Array) -> Array:
        # The largest first, so that squares neither overflow nor vanish.
        v = v / jnp.abs(v).max(axis=-1, keepdims=True)
        return v / jnp.sqrt(jnp.square(v).sum(axis=-1, keepdims=True))

    return jnp.clip((unit(a) * unit(b)).sum(axis=-1), -1, 1)


def mean_ranks(values: Array, where: Array | None = None) -> Array:
    """The rank of each value along the last axis, from 1; equal values share their mean rank.

    Ranks are among values where `where` is true, None for all; others have no meaning.
    """

    def one(row: Array) -> Array:
        ordered = jnp.sort(row)
        below = jnp.searchsorted(ordered, row, side="left")
        up_to = jnp.searchsorted(ordered, row, side="right")
        return (below + up_to + 1).astype(values.dtype) / 2

    if where is not None:
        values = jnp.where(where, values, jnp.inf)
    rows = values.reshape(-1, values.shape[-1])
    return jax.vmap(one)(rows).reshape(values.shape)


def _centered(a: Array, valid: Array) -> Array:
    """Values less their mean, in units of the largest of these; zero where they do not count."""
    low = jnp.where(valid, a, jnp.inf).min(axis=-1, keepdims=True)
    high = jnp.where(valid, a, -jnp.inf).max(axis=-1, keepdims=True)
    count = jnp.maximum(valid.sum(axis=-1, keepdims=True), 1).astype(a.dtype)
    mean = jnp.where(valid, a, 0).sum(axis=-1, keepdims=True) / count
    a = jnp.where(valid & (high > low), a - mean, 0)
    largest = jnp.abs(a).max(axis=-1, keepdims=True)
    return a / jnp.where(largest > 0, largest, 1)
