"""What a user may give as relevance: an array, or an explanation; a sample, or a batch of one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.explanation.result import Explanation, Record

Relevance = ArrayLike | Explanation | Record
"""What plots take as relevance: an array, or an explanation or a record, whose relevance is one array."""


def relevance_of(value: Any, name: str = "relevance") -> Any:
    """The relevance of an explanation or a record; anything else as it is.

    Raises:
      TypeError: if the relevance is a pytree of several arrays, naming them.
    """
    if not isinstance(value, Explanation | Record):
        return value
    found, structure = value.relevance, jax.tree.structure(value.relevance)
    if structure == jax.tree.structure(0):
        return found
    paths, _ = jax.tree_util.tree_flatten_with_path(found)
    parts = [f"result.relevance{jax.tree_util.keystr(path)}" for path, _ in paths]
    raise TypeError(
        f"{name} must be one array, but this explanation has {len(parts)}: pass one of them, "
        f"{', '.join(parts[:8])}"
    )


def without_batch(array: np.ndarray, ndim: int) -> np.ndarray:
    """An array of more than `ndim` axes without its leading axes of size 1, as far as they are too many."""
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    return array
