"""Norms of samples, and attributions on a common scale."""

from __future__ import annotations

import math
from typing import Literal

import jax.numpy as jnp
from jax import Array

Normalize = Literal["none", "max", "rms"]
NORMALIZE = ("none", "max", "rms")


def norm(values: Array) -> Array:
    """The Euclidean norm of each sample, (b,), of values (b, ...)."""
    flat = values.reshape(len(values), -1)
    largest = jnp.abs(flat).max(axis=1)
    # In units of the largest, so that squares neither overflow nor vanish.
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return unit * jnp.sqrt(jnp.square(flat / unit[:, None]).sum(axis=1))


def relative_norm(new: Array, old: Array, epsilon: float | Array) -> Array:
    """The norm of the relative change of each value, (b,): || (old - new) / old ||.

    Args:
      new, old: floats (b, ...).
      epsilon: takes the place of old values that are zero.
    """
    return norm((old - new) / jnp.where(old == 0, epsilon, old))


def normalized(attributions: Array, by: Normalize) -> Array:
    """Attributions (b, ...) in units of their own sample; those of a sample without any stay zero.

    Args:
      by: "max" divides by the largest |a|, "rms" by the root of the mean of a squared, "none" by nothing.
    """
    if by == "none":
        return attributions
    flat = attributions.reshape(len(attributions), -1)
    unit = jnp.abs(flat).max(axis=1) if by == "max" else norm(flat) / math.sqrt(flat.shape[1])
    unit = jnp.where(unit > 0, unit, 1)
    return attributions / unit.reshape(-1, *(1,) * (attributions.ndim - 1))
