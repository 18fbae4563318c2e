r"""The multiclass support vector machine of Crammer and Singer, solved in its dual.

    primal:  1/2 |W|^2 + C sum_i max_m (w_m . phi_i + 1[m != y_i] - w_{y_i} . phi_i)
    dual:    minimize 1/2 |W|^2 + sum_i sum_{m != y_i} alpha_im,   w_m = sum_i alpha_im phi_i
             subject to sum_m alpha_im = 0 and alpha_im <= C 1[m = y_i]

One row of alpha has a closed form while the others are kept: with A = |phi_i|^2 and
b = W phi_i + 1[m != y_i] - A alpha_i, it is min(C 1[m = y_i], (beta - b) / A); beta makes its sum zero.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.training_data import given
from jaxlrp.training_data.dual import DualView


def fit_svm(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    C: float = 0.1,
    tol: float = 1e-3,
    max_epochs: int = 1000,
    key: Array | None = None,
) -> DualView:
    r"""Fits a multiclass SVM, whose dual variables say what each training sample adds (DualView).

    min_W 1/2 |W|^2 + C sum_i max_m (w_m . phi_i + 1[m != y_i] - w_{y_i} . phi_i)

    There is no bias. To allow for one, append a constant feature; its share is attributed like any
    other. The solver goes over the samples in random order and solves for the K dual variables of one
    at a time (Keerthi et al.), until the duality gap is at most `tol` times the primal objective. Memory
    is that of the features and of (N, K) dual variables.

    Args:
      features: phi, (N, D), such as the activations of the last hidden layer of a network.
      labels: integers (N,), every class from 0 to K - 1 among them. Labels that the network predicts
        explain the network, given labels the task.
      C: weight of errors, > 0, in units of one over |phi|^2. The smaller, the more samples carry each
        prediction, and the less the SVM agrees with the network.
      tol: relative duality gap at which it stops, > 0. In float32, about 1e-5 can be reached.
      max_epochs: how often it goes over all samples at most.
      key: for the order of samples, `jax.random.key(0)` if None.

    Returns:
      A `DualView`. Its `gap` is what was reached; there is a warning if `max_epochs` was not enough.

    Raises:
      ValueError: if features are not finite, a class has no sample, there is only one class, or an option
        is out of range.

    References:
      Yolcu et al. (2025), "DualXDA: Towards Sparse, Efficient and Explainable Data Attribution in Large AI
      Models", https://arxiv.org/abs/2402.12118; Crammer and Singer (2001),
      https://www.jmlr.org/papers/v2/crammer01a.html; Keerthi et al. (2008),
      https://doi.org/10.1145/1401890.1401942

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import training_data
      >>> features = jnp.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.2, 2.0]])
      >>> view = training_data.fit_svm(features, jnp.array([0, 0, 1, 1]), C=1.0)
      >>> tau = view.attribute(jnp.array([[1.0, 0.5]]), jnp.array([0]))
      >>> tau.shape
      (1, 4)
      >>> bool(jnp.allclose(tau.sum(1), jnp.array([1.0, 0.5]) @ view.weights[0], atol=1e-5))
      True
    """
    phi = given.as_features("features", features)
    y = given.as_training_labels(labels, len(phi))
    for name, value in {"C": C, "tol": tol}.items():
        if not 0 < float(value) < np.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}")
    key = jax.random.key(0) if key is None else key
    state = _solve(
        phi, jnp.asarray(y), jnp.asarray(C, phi.dtype), tol, check_count("max_epochs", max_epochs), key,
        classes=int(y.max()) + 1,
    )  # fmt: skip
    alpha, weights, gap, epochs = state
    if float(gap) > tol:
        warnings.warn(
            f"the SVM reached a relative duality gap of {float(gap):.2g}, not tol={tol:g}, in "
            f"{int(epochs)} epochs: divide the features by their mean length, lower C, or raise max_epochs",
            stacklevel=2,
        )
    return DualView(phi, jnp.asarray(y), alpha, weights, jnp.asarray(C, phi.dtype), gap, epochs)


@partial(jax.jit, static_argnames="classes")
def _solve(
    phi: Array, y: Array, C: Array, tol: float, max_epochs: int, key: Array, *, classes: int
) -> Any:
    squares = (phi * phi).sum(-1)
    alpha = jnp.zeros((len(phi), classes), phi.dtype)
    held = alpha, _weights(alpha, phi), jnp.asarray(jnp.inf, phi.dtype), jnp.asarray(0)

    def go_on(held: Any) -> Array:
        return (held[2] > tol) & (held[3] < max_epochs)

    def epoch(held: Any) -> Any:
        alpha, w, _, count = held
        order = jax.random.permutation(jax.random.fold_in(key, count), len(phi))

        def visit(w: Array, one: tuple[Array, Array]) -> tuple[Array, Array]:
            i, old = one
            row = _row(old, w @ phi[i], squares[i], y[i], C)
            return w + (row - old)[:, None] * phi[i], row

        # Rows are outputs, not a part of the carry, of which XLA would copy all for each of them.
        _, rows = lax.scan(visit, w, (order, alpha[order]))
        alpha = jnp.zeros_like(alpha).at[order].set(rows)
        w = _weights(alpha, phi)  # anew, since rounding errors of the updates add up
        return alpha, w, relative_gap(phi, y, alpha, w, C), count + 1

    return lax.while_loop(go_on, epoch, held)


def _row(alpha: Array, scores: Array, square: Array, y: Array, C: Array) -> Array:
    """The best dual variables of one sample, (K,), while those of all others are kept."""
    own = jnp.arange(len(alpha)) == y
    cap = jnp.where(own, C, 0)
    safe = jnp.where(square > 0, square, 1)
    b = scores + jnp.where(own, 0, 1) - square * alpha
    # Variable m is below its cap where d_m > beta. The sum is zero for the largest of these quotients.
    d = jnp.sort(b + safe * cap)[::-1]
    beta = ((jnp.cumsum(d) - safe * C) / jnp.arange(1, len(d) + 1, dtype=d.dtype)).max()
    row = jnp.minimum(cap, (beta - b) / safe)
    row = jnp.where(own, -jnp.where(own, 0, row).sum(), row)  # sums to zero exactly
    # Without features nothing is gained but the constant 1 - 1[m = y]: all at their bounds.
    return jnp.where(square > 0, row, jnp.where(own, C, -C / (len(d) - 1)))


def _weights(alpha: Array, phi: Array) -> Array:
    return jnp.matmul(alpha.T, phi, precision="highest")


def relative_gap(phi: Array, y: Array, alpha: Array, w: Array, C: Array) -> Array:
    """(primal - dual objective) / primal objective, >= 0 up to rounding."""
    scores = jnp.matmul(phi, w.T, precision="highest")
    own = jnp.arange(alpha.shape[1]) == y[:, None]
    margins = jnp.where(own, scores, scores + 1).max(-1) - jnp.where(own, scores, 0).sum(-1)
    half = (w * w).sum() / 2
    primal = half + C * margins.sum()
    return (primal + half + jnp.where(own, 0, alpha).sum()) / primal
