"""Additive kernels: k(x, y) = sum_d k_d(x_d, y_d). scikit-learn takes these functions as `kernel=`.

`SVC(kernel=kernels.intersection)` can then be read by `heads.fitted`. All but `linear` are for features
that are not negative, such as histograms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_one_of

__all__ = ["chi2", "hellinger", "intersection"]


def _intersection(u: Any, x: Any) -> Any:
    return _numpy_of(u).minimum(u, x)


def _chi2(u: Any, x: Any) -> Any:
    return 2 * u * x / _or_one(u + x)


def _additive_chi2(u: Any, x: Any) -> Any:
    return -((u - x) ** 2) / _or_one(u + x)


def _hellinger(u: Any, x: Any) -> Any:
    xp, product = _numpy_of(u), u * x
    none = product <= 0  # so that derivatives are finite; NaN stays NaN
    return xp.where(none, 0, xp.sqrt(xp.where(none, 1, product)))


def _or_one(values: Any) -> Any:
    return _numpy_of(values).where(values > 0, values, 1)


def _numpy_of(values: Any) -> Any:
    """NumPy, or that of JAX: terms are computed in float64 for scikit-learn, without its 64-bit mode."""
    return values.__array_namespace__()


TERMS: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda u, x: u * x,
    "intersection": _intersection,
    "chi2": _chi2,
    "additive_chi2": _additive_chi2,
    "hellinger": _hellinger,
}
"""k_d of each kernel; "additive_chi2" is scikit-learn's -(u - x)^2 / (u + x)."""

NAMES = tuple(TERMS)


def check_kernel(name: str, kernel: str) -> str:
    """The name of an additive kernel; anything else is refused."""
    check_one_of(name, kernel, NAMES)
    return kernel


@functools.partial(jax.jit, static_argnames="kernel")
def gram(kernel: str, x: Array, points: Array) -> Array:
    """k(x_n, u_p), (N, P), of x (N, D) and points (P, D); memory for (P, D) numbers at a time."""
    if kernel == "linear":
        return jnp.dot(x, points.T, precision="highest")
    return jax.lax.map(lambda one: TERMS[kernel](points, one).sum(-1), x)


def _matrix(kernel: str, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """For scikit-learn, in NumPy and float64."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"x and y must have shapes (N, D) and (P, D), got {a.shape} and {b.shape}")
    if min(a.min(initial=0), b.min(initial=0)) < 0:
        raise ValueError(
            f"the kernel {kernel!r} needs features >= 0, such as histograms, got "
            f"{min(a.min(), b.min()):g}"
        )
    rows = [TERMS[kernel](b, one).sum(1) for one in a]
    return np.array(rows).reshape(len(a), len(b))


def intersection(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """The histogram intersection, sum_d min(x_d, y_d).

    Args:
      x: (N, D), >= 0.
      y: (P, D), >= 0.

    Returns:
      (N, P).

    Raises:
      ValueError: if a feature is negative, or shapes do not fit.

    Example:
      >>> from jaxlrp.heads import kernels
      >>> kernels.intersection([[0.5, 0.5]], [[0.2, 0.8]]).tolist()
      [[0.7]]
    """
    return _matrix("intersection", x, y)


def chi2(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """The additive chi-squared kernel, sum_d 2 x_d y_d / (x_d + y_d).

    scikit-learn's `chi2_kernel` is the exponential of another one, which is not additive.

    Args:
      x: (N, D), >= 0.
      y: (P, D), >= 0.

    Returns:
      (N, P).

    Raises:
      ValueError: if a feature is negative, or shapes do not fit.

    Example:
      >>> from jaxlrp.heads import kernels
      >>> kernels.chi2([[1.0, 0.0]], [[1.0, 2.0]]).tolist()
      [[1.0]]
    """
    return _matrix("chi2", x, y)


def hellinger(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """The Hellinger kernel, sum_d sqrt(x_d y_d).

    Args:
      x: (N, D), >= 0.
      y: (P, D), >= 0.

    Returns:
      (N, P).

    Raises:
      ValueError: if a feature is negative, or shapes do not fit.

    Example:
      >>> from jaxlrp.heads import kernels
      >>> kernels.hellinger([[4.0, 1.0]], [[1.0, 9.0]]).tolist()
      [[5.0]]
    """
    return _matrix("hellinger", x, y)
