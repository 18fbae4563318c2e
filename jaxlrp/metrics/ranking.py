"""Ranks and correlations of the values of each sample."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def average_ranks(values: Array) -> Array:
    """The rank of each value within its row, from 1 on; tied values share the mean of their ranks.

    Args:
      values: floats (n, m), without NaN.

    Returns:
      Floats (n, m).
    """
    ordered = jnp.sort(values, axis=1)

    def places(side: str) -> Array:
        return jax.vmap(lambda row, v: jnp.searchsorted(row, v, side=side))(ordered, values)

    return ((places("left") + places("right") + 1) / 2).astype(values.dtype)


def pearson(a: Array, b: Array) -> Array:
    """The correlation of each pair of rows, (n,); `nan` where one of the two is constant.

    Args:
      a, b: floats (n, m).
    """
    varies = (a.max(axis=1) > a.min(axis=1)) & (b.max(axis=1) > b.min(axis=1))
    found = cosine(a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True))
    return jnp.where(varies, found, jnp.nan)


def cosine(a: Array, b: Array) -> Array:
    """The cosine of the angle between each pair of rows, (n,); `nan` where one of the two is zero.

    Args:
      a, b: floats (n, m).
    """

    def unit(v: Array) -> Array:
        # The largest first, so that squares neither overflow nor vanish.
        v = v / jnp.abs(v).max(axis=1, keepdims=True)
        return v / jnp.sqrt(jnp.square(v).sum(axis=1, keepdims=True))

    return jnp.clip((unit(a) * unit(b)).sum(axis=1), -1, 1)


def spearman(a: Array, b: Array) -> Array:
    """The rank correlation of each pair of rows, (n,); `nan` where one of the two is constant.

    Args:
      a, b: floats (n, m), without NaN.
    """
    return pearson(average_ranks(a), average_ranks(b))
