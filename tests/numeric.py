"""How numbers are compared in tests, and functions of other libraries that promote dtypes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def promoting(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a test within which dtypes may be promoted: say why where it is used."""

    @functools.wraps(fun)
    def inner(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return fun(*args, **kwargs)

    return inner


def close(actual: Any, expected: Any, rtol: float = 1e-10) -> None:
    """Fails where an entry differs by more than `rtol` of itself plus `rtol` of the largest one."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
