"""Checks of what the functions of this package are given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.errors import counted
from jaxlrp.numerics import wide


def as_features(name: str, value: Any, size: int | None = None) -> Array:
    """Finite features (N, D), in float32 at the least.

    Args:
      name: of the argument.
      value: what was given.
      size: D, if it is known.

    Raises:
      ValueError: if they have another shape, are empty or are not finite.
    """
    array = jnp.asarray(value)
    if array.ndim != 2 or not array.size or (size is not None and array.shape[1] != size):
        raise ValueError(f"{name} must have shape (N, {size or 'D'}), got {array.shape}")
    array = array.astype(wide(array.dtype))
    if not bool(jnp.isfinite(array).all()):
        raise ValueError(
            f"{name} must be finite, got {int((~jnp.isfinite(array)).sum())} NaN or inf"
        )
    return array


def as_labels(name: str, value: Any, count: int, classes: int | None = None) -> np.ndarray:
    """Class indices, (count,).

    Args:
      name: of the argument.
      value: what was given.
      count: how many.
      classes: their number; None: anything from 0 on.

    Raises:
      ValueError: if they are no integers, are of another number, or lie outside of the classes.
    """
    labels = np.asarray(value)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name} must be {counted(count, 'integer')}, of shape ({count},), got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        upper = "" if classes is None else f" and below {classes}"
        raise ValueError(
            f"{name} must be at least 0{upper}, got values from {labels.min()} to {labels.max()}"
        )
    return labels.astype(jax.dtypes.canonicalize_dtype(int))


def as_training_labels(value: Any, count: int) -> np.ndarray:
    """Labels of training samples, (count,), with every class from 0 to the largest among them.

    Raises:
      ValueError: if there is a single class, or one without a sample.
    """
    labels = as_labels("labels", value, count)
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(
            f"labels must have two classes at the least, got only class {present[0]} in "
            f"{counted(count, 'sample')}"
        )
    missing = np.setdiff1d(np.arange(present[-1] + 1), present)
    if len(missing):
        raise ValueError(
            f"labels must have a sample of each class from 0 to {present[-1]}, got none of "
            f"{missing.tolist()}: number the classes anew, np.unique(labels, return_inverse=True)[1]"
        )
    return labels


def count_of(name: str, samples: Any) -> int:
    """The length of the leading axis that all leaves share.

    Raises:
      ValueError: if they have none, or different ones.
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(samples)}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        raise ValueError(
            f"{name} must be arrays with one leading axis for the samples, such as (x, y), got shapes "
            f"{jax.tree.map(np.shape, samples)}"
        )
    return lengths.pop()[0]
