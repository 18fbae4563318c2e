"""Representer points: a last layer with a squared norm is a sum over training samples."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.training_data import given
from jaxlrp.training_data.dual import OverSamples


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Representer(OverSamples):
    r"""A logistic regression as a sum over training samples; `fit_representer` makes it.

    Attributes:
      features: phi_i, (N, D).
      labels: (N,).
      alpha: -(p_i - onehot(y_i)) / (2 lam N), (N, K). None of them is zero.
      weights: w, (K, D).
      l2: lam, as given.
      residual: max |W - sum_i alpha_i phi_i| / max |W|. Zero at the minimum.
    """

    features: Array
    labels: Array
    alpha: Array
    weights: Array
    l2: Array
    residual: Array


def fit_representer(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    l2: float = 3e-3,
    tol: float = 1e-5,
    max_steps: int = 50,
) -> Representer:
    r"""Fits a logistic regression to features, and writes its weights as a sum over training samples.

    min_W 1/N sum_i CE(softmax(W phi_i), y_i) + lam |W|^2,   w_c = sum_i alpha_ic phi_i

    where the gradient is zero, alpha_i = -(p_i - onehot(y_i)) / (2 lam N). Newton's method with conjugate
    gradients; no matrix of N x N or of parameters squared.

    Args:
      features: (N, D).
      labels: integers (N,), every class from 0 to K - 1 among them.
      l2: lam, > 0.
      tol: `residual` at which it stops.
      max_steps: Newton steps at most.

    Returns:
      A `Representer`; its `residual` is what was reached, also if `max_steps` was not enough.

    Raises:
      ValueError: if features are not finite, a class has no sample, there is only one class, or an option
        is out of range.

    References:
      Yeh et al. (2018), "Representer Point Selection for Explaining Deep Neural Networks",
      https://arxiv.org/abs/1811.09720

    Example:
      >>> import jax.numpy as jnp
      >>> features = jnp.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.2, 2.0]])
      >>> points = fit_representer(features, jnp.array([0, 0, 1, 1]))
      >>> tau = points.attribute(features[:1], jnp.array([0]))
      >>> bool(jnp.allclose(tau.sum(1), points(features[:1])[:, 0], rtol=1e-3))
      True
    """
    phi = given.as_features("features", features)
    y = given.as_training_labels(labels, len(phi))
    for name, value in {"l2": l2, "tol": tol}.items():
        if not 0 < float(value) < np.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}")
    onehot = jax.nn.one_hot(y, int(y.max()) + 1, dtype=phi.dtype)
    lam = jnp.asarray(l2, phi.dtype)
    weights, alpha, residual = _newton(phi, onehot, lam, tol, check_count("max_steps", max_steps))
    return Representer(phi, jnp.asarray(y), alpha, weights, lam, residual)


@jax.jit
def _newton(phi: Array, onehot: Array, lam: Array, tol: float, max_steps: int) -> Any:
    def mul(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision="highest")

    def objective(w: Array) -> Array:
        logs = jax.nn.log_softmax(mul(phi, w.T))
        return -(logs * onehot).sum() / len(phi) + lam * (w * w).sum()

    def alphas(w: Array) -> Array:
        return (onehot - jax.nn.softmax(mul(phi, w.T))) / (2 * lam * len(phi))

    def residual(w: Array) -> Array:
        size = jnp.abs(w).max()
        return jnp.abs(w - mul(alphas(w).T, phi)).max() / jnp.where(size > 0, size, 1)

    def step(held: Any) -> Any:
        w, count = held
        p = jax.nn.softmax(mul(phi, w.T))
        g = mul((p - onehot).T, phi) / len(phi) + 2 * lam * w

        def hessian(v: Array) -> Array:
            z = mul(phi, v.T)
            return mul((p * (z - (p * z).sum(-1, keepdims=True))).T, phi) / len(phi) + 2 * lam * v

        norm = jnp.sqrt((g * g).sum())
        tol: Any = jnp.minimum(0.1, norm)
        direction, _ = jax.scipy.sparse.linalg.cg(hessian, -g, tol=tol, maxiter=200)
        slope, start = (g * direction).sum(), objective(w)
        slack = 10 * jnp.finfo(w.dtype).eps * jnp.abs(start)  # at the minimum only rounding is left

        def too_long(t: Array) -> Array:
            return (objective(w + t * direction) > start + 1e-4 * t * slope + slack) & (t > 1e-6)

        t = lax.while_loop(too_long, lambda t: t / 2, jnp.ones((), w.dtype))
        return w + t * direction, count + 1

    def go_on(held: Any) -> Array:
        w, count = held
        return (count == 0) | ((residual(w) > tol) & (count < max_steps))

    w, _ = lax.while_loop(go_on, step, (jnp.zeros((onehot.shape[1], phi.shape[1]), phi.dtype), 0))
    return w, alphas(w), residual(w)
