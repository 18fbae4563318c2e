"""What a user may give as relevance: an array, or an explanation; a sample, or a batch of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.explanation.frames import only_array
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
    return only_array(value.relevance, name)


def without_batch(array: np.ndarray, ndim: int) -> np.ndarray:
    """An array of more than `ndim` axes without its leading axes of size 1, as far as they are too many."""
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    return array
