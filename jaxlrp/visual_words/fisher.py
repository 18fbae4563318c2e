"""Fisher vectors: how the descriptors of an image would change a mixture of Gaussians."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.head import as_array, dot, head
from jaxlrp.numerics import off_zero
from jaxlrp.visual_words.vocabulary import Vocabulary


@described
@head
class FisherVectors(Vocabulary):
    """Normalized derivatives of a log likelihood; `fisher_vectors` makes it.

    Attributes:
      means: mu, (K, D).
      variances: sigma^2, (K, D).
      weights: w, (K,), of sum 1.
      power: exponent of each entry.
    """

    means: Array
    variances: Array
    weights: Array
    power: Array

    @property
    def size(self) -> int:
        return self.means.shape[1]

    def responsibilities(self, descriptors: Array) -> Array:
        """gamma_k(l) = p(k | x_l) of descriptors (L, D), (L, K)."""
        x = descriptors
        mu, var = self.means.astype(x.dtype), self.variances.astype(x.dtype)
        center = mu.mean(0)  # differences of small numbers are more precise
        x, mu = x - center, mu - center
        squares = dot(x**2, (1 / var).T) - 2 * dot(x, (mu / var).T) + (mu**2 / var).sum(1)
        logs = jnp.log(self.weights.astype(x.dtype)) - (squares + jnp.log(var).sum(1)) / 2
        return jax.nn.softmax(logs, axis=1)

    def terms(self, descriptors: Array) -> Array:
        """Of the descriptors (L, D): those of all means, then those of all variances, (L, 2 K D)."""
        x = descriptors
        root = jnp.sqrt(self.weights.astype(x.dtype))
        gamma = (self.responsibilities(x) / root)[..., None]
        scaled = (x[:, None] - self.means.astype(x.dtype)) / jnp.sqrt(
            self.variances.astype(x.dtype)
        )
        of_means = gamma * scaled
        of_variances = gamma * (scaled**2 - 1) / np.sqrt(2).astype(x.dtype)
        parts = [part.reshape(len(x), -1) for part in (of_means, of_variances)]
        return jnp.concatenate(parts, axis=1)

    def normalize(self, z: Array) -> Array:
        """sgn(z) |z|^power over its norm."""
        size = jnp.abs(z)
        power = jnp.where(size > 0, jnp.where(size > 0, size, 1) ** self.power.astype(z.dtype), 0)
        v = jnp.where(z < 0, -power, power)
        square = (v**2).sum(-1, keepdims=True)
        return v / off_zero(jnp.sqrt(square))


def fisher_vectors(
    means: ArrayLike, variances: ArrayLike, weights: ArrayLike, *, power: float = 0.5
) -> FisherVectors:
    r"""Fisher vectors of a mixture of Gaussians with diagonal covariances.

    z_mu,k  = 1/L sum_l gamma_k(l) / sqrt(w_k)   (x_l - mu_k) / sigma_k
    z_var,k = 1/L sum_l gamma_k(l) / sqrt(2 w_k) ((x_l - mu_k)^2 / sigma_k^2 - 1)

    gamma_k(l) = p(k | x_l). Features are sgn(z) |z|^power, divided by their norm (improved Fisher vectors).
    Their relevance goes through the normalization as it is, and to descriptors in proportion to their terms
    of z. Terms have both signs: where they cancel, relevances of descriptors are large and of both signs,
    unless `epsilon` is above zero.

    Args:
      means: mu, (K, D), of a mixture fitted to descriptors.
      variances: sigma^2, (K, D), positive.
      weights: w, (K,), positive; they are divided by their sum.
      power: > 0; 1 leaves z as it is.

    Returns:
      A vocabulary with 2 K D features.

    Raises:
      ValueError: if shapes do not fit, or a variance, a weight or the power is not positive.

    References:
      Perronnin, Sánchez and Mensink (2010), https://doi.org/10.1007/978-3-642-15561-1_11; Lapuschkin et al.
      (2016), "Analyzing Classifiers: Fisher Vectors and Deep Neural Networks",
      https://doi.org/10.1109/CVPR.2016.318

    Example:
      >>> import numpy as np
      >>> from jaxlrp import visual_words
      >>> fisher = visual_words.fisher_vectors([[0.0], [4.0]], [[1.0], [1.0]], [0.5, 0.5])
      >>> descriptors = np.array([[[1.0], [4.0], [6.0]]])
      >>> features = fisher(descriptors)
      >>> features.shape, float((features**2).sum().round(5))
      ((1, 4), 1.0)
      >>> r = fisher.relevance(descriptors, features)
      >>> bool(np.allclose(r.sum(1), features.sum(1), rtol=1e-5))
      True
    """
    mu = as_array("means", means, 2, "(components, length of a descriptor)")
    var = as_array("variances", variances, 2, "(components, length of a descriptor)")
    w = as_array("weights", weights, 1, "(components,)")
    if var.shape != mu.shape or not (var > 0).all():
        raise ValueError(
            f"variances must be positive and have the shape of means, {mu.shape}, got shape {var.shape}"
        )
    if w.shape != mu.shape[:1] or not (w > 0).all():
        raise ValueError(f"weights must be positive, one for each of {len(mu)} components, got {w}")
    if not 0 < float(power) < np.inf:
        raise ValueError(f"power must be positive and finite, got {power!r}")
    return FisherVectors(mu, var, w / w.sum(), jnp.asarray(float(power)))
