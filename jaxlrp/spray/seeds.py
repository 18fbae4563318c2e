"""Every random choice comes from a key: of NumPy and scikit-learn too."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def check_key(key: Array) -> Array:
    """One random key.

    Raises:
      TypeError: if it is none.
    """
    typed = isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, Array) and key.dtype == jnp.uint32 and key.shape in ((2,), (4,))
    if not (raw or (typed and not key.shape)):
        raise TypeError(f"key must be one random key, such as jax.random.key(0), got {key!r}")
    return key


def named(key: Array, name: str) -> Array:
    """A key of its own for each name, whatever other names there are."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def seed(key: Array) -> int:
    """A seed below 2^32, as scikit-learn takes it."""
    return int(jax.random.bits(check_key(key), dtype=jnp.uint32))


def generator(key: Array) -> np.random.Generator:
    """A generator of NumPy."""
    return np.random.default_rng(seed(key))
