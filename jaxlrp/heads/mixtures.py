"""Memberships in components of a Gaussian mixture."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.gaps import cost_weights, gaps_of
from jaxlrp.heads.head import Head, as_array, as_features, head


@described
@head
class GaussianMixture(Head):
    """The log odds of each component; `gaussian_mixture` makes it.

    Attributes:
      means: mu, (K, D).
      precisions: the inverse covariances, (K, D, D), or (K, D) if they are diagonal.
      offsets: what a component costs at its mean, (K,).
    """

    means: Array
    precisions: Array
    offsets: Array

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.means.shape[1])
        costs = self._energies(x).sum(-1) + self.offsets.astype(x.dtype)
        return -jax.nn.logsumexp(-gaps_of(costs), axis=-1)

    def _energies(self, x: Array) -> Array:
        """(x - mu)_i (P (x - mu))_i / 2 for each feature, (N, K, D)."""
        d = x[:, None, :] - self.means.astype(x.dtype)
        precisions = self.precisions.astype(x.dtype)
        if precisions.ndim == 2:
            return d * d * precisions / 2
        return d * jnp.einsum("kij,nkj->nki", precisions, d, precision="highest") / 2

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.means.shape[1])
        energies = self._energies(x)
        costs = energies.sum(-1) + self.offsets.astype(x.dtype)
        gaps = gaps_of(costs)
        output = -jax.nn.logsumexp(-gaps, axis=-1)
        of_gaps = jax.nn.softmax(-gaps, axis=-1) * (weights * output)[..., None]
        return jnp.einsum("nk,nkd->nd", cost_weights(of_gaps, costs), energies, precision="highest")


def gaussian_mixture(
    means: ArrayLike, covariances: ArrayLike, weights: ArrayLike
) -> GaussianMixture:
    r"""The log odds of a component of a Gaussian mixture: soft membership in a cluster.

    f_c(x) = ln p(c|x) / (1 - p(c|x)) = -ln sum_{k != c} exp(-h_k),   h_k = ln w_c N_c(x) / (w_k N_k(x))

    R_k = softmin(h)_k f_c, and h_k is shared among features in proportion to their terms
    (x - mu)_i (P (x - mu))_i / 2 of both log densities, P = Sigma^-1. What is due to the weights w and
    to the determinants of Sigma belongs to no feature: R_i sums to f_c if both are the same for all
    components.

    Args:
      means: mu, (K, D).
      covariances: Sigma: (K, D, D), or (D, D) for all; (K, D) diagonal; (K,) a variance for all features.
      weights: w, (K,), positive.

    Returns:
      A head with outputs f, (N, K).

    Raises:
      ValueError: if shapes do not fit, or a covariance is not positive definite.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> mixture = heads.gaussian_mixture([[0.0, 0.0], [4.0, 0.0]], np.ones(2), [0.5, 0.5])
      >>> result = heads.explain(mixture)(np.array([[1.0, 5.0]]), target=0)
      >>> result.output.tolist(), result.relevance.tolist()  # (9 - 1) / 2
      ([[4.0, -4.0]], [[4.0, 0.0]])
    """
    mean = as_array("means", means, 2, "(components, features)")
    portion = as_array("weights", weights, 1, "(components,)")
    count, size = mean.shape
    if count < 2 or portion.shape != (count,) or not (portion > 0).all():
        raise ValueError(
            f"weights must be positive, one for each of {count} components, two at the least, got "
            f"{weights!r}"
        )
    precisions, determinants = _precisions(np.asarray(covariances, float), count, size)
    offsets = determinants / 2 - np.log(np.asarray(portion))
    return GaussianMixture(mean, jnp.asarray(precisions), jnp.asarray(offsets))


def _precisions(covariances: np.ndarray, count: int, size: int) -> tuple[np.ndarray, Any]:
    """Inverses of the covariances, and the logarithms of their determinants."""
    shape = covariances.shape
    if shape == (count,):
        covariances = np.repeat(covariances[:, None], size, axis=1)
    elif shape == (size, size) and shape != (count, size):
        covariances = np.repeat(covariances[None], count, axis=0)
    elif shape not in ((count, size), (count, size, size)):
        raise ValueError(
            f"covariances of {count} components and {size} features must have shape "
            f"({count}, {size}, {size}), ({size}, {size}), ({count}, {size}) or ({count},), got {shape}"
        )
    if covariances.ndim == 2:
        if not (covariances > 0).all():
            raise ValueError("covariances must be positive, got a variance <= 0")
        return 1 / covariances, np.log(covariances).sum(-1)
    try:
        factors = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError as error:
        raise ValueError("covariances must be positive definite, but one is not") from error
    determinants = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(-1)
    return np.linalg.inv(covariances), determinants
