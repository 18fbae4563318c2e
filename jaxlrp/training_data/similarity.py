"""Similarity of features: the simplest attributions to training samples."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.training_data import given


def dot_similarity(train: ArrayLike, test: ArrayLike) -> Array:
    """<phi(x_t), phi_i>: large for training samples with large features, whatever the test sample.

    Args:
      train: features (N, D).
      test: features (T, D).

    Returns:
      (T, N).

    Example:
      >>> dot_similarity([[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0]]).tolist()
      [[1.0, 2.0]]
    """
    phi = given.as_features("train", train)
    return jnp.matmul(
        given.as_features("test", test, phi.shape[1]).astype(phi.dtype), phi.T, precision="highest"
    )


def cosine_similarity(train: ArrayLike, test: ArrayLike) -> Array:
    """The cosine between features, from -1 to 1; 0 where one of the two is zero.

    Args:
      train: features (N, D).
      test: features (T, D).

    Returns:
      (T, N).

    Example:
      >>> cosine_similarity([[3.0, 4.0], [0.0, 0.0]], [[3.0, 4.0]]).tolist()
      [[1.0, 0.0]]
    """
    phi = given.as_features("train", train)
    other = given.as_features("test", test, phi.shape[1]).astype(phi.dtype)
    return jnp.matmul(unit(other), unit(phi).T, precision="highest")


def unit(rows: Array) -> Array:
    """Rows divided by their length; zeros as they are."""
    length = jnp.sqrt((rows * rows).sum(-1, keepdims=True))
    return rows / jnp.where(length > 0, length, 1)
