"""Derives every random choice, also those of NumPy and scikit-learn, from a JAX key."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def check_key(key: Array) -> Array:
    """Checks that this is one random key.

    Raises:
      TypeError: if it is not.
    """
    typed = isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, Array) and key.dtype == jnp.uint32 and key.shape in ((2,), (4,))
    if not (raw or (typed and not key.shape)):
        raise TypeError(f"key must be one random key such as jax.random.key(0), got {key!r}")
    return key


def named(key: Array, name: str) -> Array:
    """A separate key for each name, independent of other names."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def seed(key: Array) -> int:
    """A seed below 2^32, as scikit-learn requires."""
    return int(jax.random.bits(check_key(key), dtype=jnp.uint32))


def generator(key: Array) -> np.random.Generator:
    """A NumPy random generator."""
    return np.random.default_rng(seed(key))
