"""Kernel machines whose kernels are sums over features: histogram intersection, chi-squared, linear."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.head import Head, as_array, as_features, dot, head
from jaxlrp.heads.kernels import TERMS, check_kernel, gram


def _kernel() -> Any:
    return dataclasses.field(metadata={"static": True})


@described
@head
class KernelMachine(Head):
    """A sum of additive kernels; `kernel_machine` makes it.

    Attributes:
      points: u, (P, D).
      coefficients: (P, K).
      intercept: b, (K,).
      kernel: its name.
    """

    points: Array
    coefficients: Array
    intercept: Array
    kernel: str = _kernel()

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.points.shape[1])
        held = gram(self.kernel, x, self.points.astype(x.dtype))
        return dot(held, self.coefficients.astype(x.dtype)) + self.intercept.astype(x.dtype)

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.points.shape[1])
        weights, size = weights.astype(x.dtype), x.shape[1]
        points, coefficients = self.points.astype(x.dtype), self.coefficients.astype(x.dtype)
        of_points = dot(weights, coefficients.T)
        bias = dot(weights, self.intercept.astype(x.dtype))[:, None] / size
        if self.kernel == "linear":
            return x * dot(of_points, points) + bias

        def one(given: tuple[Array, Array]) -> Array:
            return dot(given[1], TERMS[self.kernel](points, given[0]))

        return jax.lax.map(one, (x, of_points)) + bias


def kernel_machine(
    points: ArrayLike,
    coefficients: ArrayLike,
    intercept: ArrayLike = 0.0,
    kernel: str = "intersection",
) -> KernelMachine:
    r"""A support vector machine, or any sum of kernels, whose kernel is a sum over features.

    f(x) = b + sum_i c_i k(u_i, x),   k(u, x) = sum_d k_d(u_d, x_d),   c_i = alpha_i y_i

    R_d = sum_i c_i k_d(u_i, x) + b / D

    R_d sums to f exactly: nothing is approximated. Where a feature says nothing by itself it still has its
    share of the bias, and of the kernel if k_d(u, 0) is not zero ("additive_chi2").

    | kernel | k_d(u, x) |
    |---|---|
    | `"linear"` | u x |
    | `"intersection"` | min(u, x) |
    | `"chi2"` | 2 u x / (u + x) |
    | `"additive_chi2"`, of scikit-learn | -(u - x)^2 / (u + x) |
    | `"hellinger"` | sqrt(u x) |

    Args:
      points: u, (P, D): support vectors. Not negative, except for "linear".
      coefficients: c, (P,), or (P, K) for K outputs.
      intercept: b, a number, or (K,).
      kernel: its name in the table.

    Returns:
      A head with outputs f, (N, K). Explained features of the same kernels must not be negative either;
      this is not checked.

    Raises:
      ValueError: if shapes do not fit, a point is negative, or there is no such kernel.

    References:
      Bach et al. (2015), equations 24 to 27, https://doi.org/10.1371/journal.pone.0130140

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> machine = heads.kernel_machine([[0.5, 0.5], [0.0, 1.0]], [1.0, -1.0], intercept=0.5)
      >>> result = heads.explain(machine)(np.array([[0.75, 0.25]]))
      >>> result.output.tolist(), result.relevance.tolist()
      ([[1.0]], [[0.75, 0.25]])
    """
    check_kernel("kernel", kernel)
    found = as_points(points, kernel)
    weights, bias = as_coefficients(len(found), coefficients, intercept)
    return KernelMachine(found, weights, bias, kernel)


def as_points(points: ArrayLike, kernel: str) -> Array:
    """Points (P, D) that a kernel can take.

    Raises:
      ValueError: if one is negative where it must not be.
    """
    found = as_array("points", points, 2, "(points, features)")
    if kernel != "linear" and not (np.asarray(found) >= 0).all():
        raise ValueError(
            f"points must be >= 0 for the kernel {kernel!r}, such as histograms, got "
            f"{float(found.min()):g}"
        )
    return found


def as_coefficients(
    count: int, coefficients: ArrayLike, intercept: ArrayLike
) -> tuple[Array, Array]:
    """Coefficients (P, K) and intercepts (K,).

    Raises:
      ValueError: if they do not fit the number of points or each other.
    """
    ndim = 2 if np.ndim(coefficients) == 2 else 1
    weights = as_array("coefficients", coefficients, ndim, "(points,) or (points, outputs)")
    weights = weights[:, None] if ndim == 1 else weights
    if len(weights) != count:
        raise ValueError(
            f"coefficients must have a row for each of {count} points, got shape "
            f"{np.shape(coefficients)}"
        )
    outputs = weights.shape[1]
    bias = as_array("intercept", np.atleast_1d(intercept), 1, "() or (outputs,)")
    if bias.shape not in ((1,), (outputs,)):
        raise ValueError(
            f"intercept must be a number or have shape ({outputs},), one for each output, got {bias.shape}"
        )
    return weights, jnp.broadcast_to(bias, (outputs,))


@described
@head
class KernelDistance(Head):
    """The squared distance to a center in the space of a kernel; `kernel_distance` makes it.

    Attributes:
      points: u, (P, D).
      weights: (P,), of sum 1.
      own: sum_ij w_i w_j k_d(u_i, u_j), (D,).
      kernel: its name.
    """

    points: Array
    weights: Array
    own: Array
    kernel: str = _kernel()

    def __call__(self, features: ArrayLike) -> Array:
        return self._terms(features).sum(-1)

    def _terms(self, features: ArrayLike) -> Array:
        x = as_features(features, self.points.shape[1])
        points, weights = self.points.astype(x.dtype), self.weights.astype(x.dtype)
        term = TERMS[self.kernel]
        cross = jax.lax.map(lambda one: dot(weights, term(points, one)), x)
        return term(x, x) - 2 * cross + self.own.astype(x.dtype)

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        terms = self._terms(features)
        return weights.astype(terms.dtype)[:, None] * terms


def kernel_distance(
    points: ArrayLike, weights: ArrayLike | None = None, kernel: str = "intersection"
) -> KernelDistance:
    r"""How far a sample is from a center in the space of an additive kernel: a one-class model.

    o(x) = |phi(x) - c|^2 = k(x, x) - 2 sum_i w_i k(u_i, x) + sum_ij w_i w_j k(u_i, u_j)

    c = sum_i w_i phi(u_i)

    R_d = k_d(x, x) - 2 sum_i w_i k_d(u_i, x) + sum_ij w_i w_j k_d(u_i, u_j)

    R_d sums to o exactly, and none is negative: each is the squared distance in the space of k_d.

    Args:
      points: u, (P, D): training samples, or support vectors. Not negative, except for "linear".
      weights: w, (P,), >= 0; they are divided by their sum. None for equal ones: c is the mean.
      kernel: "linear", "intersection", "chi2" or "hellinger", see `kernel_machine`.

    Returns:
      A head with outputs o, (N,).

    Raises:
      ValueError: if shapes do not fit, a point or a weight is negative, or there is no such kernel.

    References:
      Tax and Duin (2004), "Support Vector Data Description", https://doi.org/10.1023/B:MACH.0000008084.60811.49

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> odd = heads.kernel_distance([[0.5, 0.5], [0.5, 0.5]])
      >>> heads.explain(odd)(np.array([[1.0, 0.0]])).relevance.tolist()
      [[0.5, 0.5]]
    """
    check_kernel("kernel", kernel)
    if kernel == "additive_chi2":
        raise ValueError(
            "kernel must be positive definite, which 'additive_chi2' is not: take 'chi2'"
        )
    found = as_points(points, kernel)
    given = as_array("weights", np.ones(len(found)) if weights is None else weights, 1, "(points,)")
    if given.shape != found.shape[:1] or not (given >= 0).all() or not given.sum() > 0:
        raise ValueError(
            f"weights must be >= 0, one for each of {len(found)} points, and not all zero, got shape "
            f"{given.shape}"
        )
    w = given / given.sum()
    own = jax.lax.map(lambda pair: pair[1] * dot(w, TERMS[kernel](found, pair[0])), (found, w))
    return KernelDistance(found, w, own.sum(0), kernel)
