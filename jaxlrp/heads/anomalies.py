"""How odd a sample is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.head import (
    Head,
    as_array,
    as_features,
    as_positive,
    by_feature,
    head,
    precision_of_distances,
    share,
    soft_minimum,
    squared_distances,
)


@described
@head
class KernelDensity(Head):
    """The soft distance to the nearest points; `kernel_density` makes it.

    Attributes:
      points: u, (P, D).
      log_weights: ln w, (P,).
      gamma: of the kernel.
      boundary: the output above which the fitted model calls a sample an outlier; NaN if it has none.
    """

    points: Array
    log_weights: Array
    gamma: Array
    boundary: Array

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.points.shape[1])
        return soft_minimum(self._logits(squared_distances(x, self.points)), self.gamma)

    def _logits(self, distances: Array) -> Array:
        dtype = distances.dtype
        return self.log_weights.astype(dtype) - self.gamma.astype(dtype) * distances

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.points.shape[1])
        distances = squared_distances(x, self.points)
        logits = self._logits(distances)
        # A point at the sample itself has no direction: the others take its share.
        apart = distances > precision_of_distances(x, self.points)
        some = apart.any(-1, keepdims=True)
        others = jnp.where(some, jnp.where(apart, logits, -jnp.inf), 0)
        shares = jnp.where(some, jax.nn.softmax(others, axis=-1), 0)
        of_points = shares * (weights * soft_minimum(logits, self.gamma))[:, None]
        return by_feature(x, self.points, share(of_points, distances))


def kernel_density(
    points: ArrayLike,
    gamma: float,
    weights: ArrayLike | None = None,
    boundary: float | None = None,
) -> KernelDensity:
    r"""How far a sample is from the data: kernel density estimate, or one-class SVM.

    o(x) = -1/gamma ln sum_j w_j exp(-gamma |x - u_j|^2),   sum_j w_j = 1

    R_i = sum_j p_j o (x_i - u_ji)^2 / |x - u_j|^2,   p_j = softmin of gamma |x - u_j|^2 - ln w_j

    o is a soft minimum of squared distances, and falls as the density rises. R_i sums to o. A point at x
    itself has no direction: the others take its share.

    Args:
      points: u, (P, D): training samples, or support vectors.
      gamma: of the kernel, > 0, in units of one over a squared distance; 1 / (2 h^2) of a bandwidth h.
      weights: w, (P,), >= 0; they are divided by their sum. None for equal ones.
      boundary: the value of o above which a sample is an outlier; kept as an attribute.

    Returns:
      A head with outputs o, (N,).

    Raises:
      ValueError: if weights do not fit the points, or none is positive.

    References:
      Kauffmann, Müller and Montavon (2020), "Towards explaining anomalies: A deep Taylor decomposition of
      one-class models", https://doi.org/10.1016/j.patcog.2020.107198

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> odd = heads.kernel_density([[0.0, 0.0], [100.0, 0.0]], gamma=1.0, weights=[1.0, 0.0])
      >>> result = heads.explain(odd)(np.array([[3.0, 4.0]]))
      >>> result.output.tolist(), result.relevance.tolist()
      ([25.0], [[9.0, 16.0]])
    """
    found = as_array("points", points, 2, "(points, features)")
    given = as_array("weights", np.ones(len(found)) if weights is None else weights, 1, "(points,)")
    if given.shape != found.shape[:1] or not (given >= 0).all() or not given.sum() > 0:
        raise ValueError(
            f"weights must be >= 0, one for each of {len(found)} points, and not all zero, got shape "
            f"{given.shape}"
        )
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.asarray(given) / float(given.sum()))
    edge = np.nan if boundary is None else float(boundary)
    return KernelDensity(
        found, jnp.asarray(log_weights), as_positive("gamma", gamma), jnp.asarray(edge)
    )


@described
@head
class Distance(Head):
    """The squared distance to a center; `distance` makes it."""

    center: Array

    def __call__(self, features: ArrayLike) -> Array:
        return self._terms(features).sum(-1)

    def _terms(self, features: ArrayLike) -> Array:
        x = as_features(features, self.center.shape[0])
        return (x - self.center.astype(x.dtype)) ** 2

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        return weights[:, None] * self._terms(features)


def distance(center: ArrayLike) -> Distance:
    r"""The squared distance to a center, as in deep one-class classification (Deep SVDD).

    o(x) = |x - c|^2,   R_i = (x_i - c_i)^2

    With a center of zeros it explains the reconstruction error of an autoencoder, if the encoder that is
    given to `explain` returns the error of each input, `lambda x: x - autoencoder(x)`, flat.

    Args:
      center: c, (D,).

    Returns:
      A head with outputs o, (N,).

    References:
      Ruff et al. (2018), https://proceedings.mlr.press/v80/ruff18a.html; Ruff et al. (2021),
      https://doi.org/10.1109/JPROC.2021.3052449

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> heads.explain(heads.distance([0.0, 1.0]))(np.array([[3.0, 5.0]])).relevance.tolist()
      [[9.0, 16.0]]
    """
    return Distance(as_array("center", center, 1, "(features,)"))
