"""Gaussian mixtures: fitted by scikit-learn, evaluated by JAX."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._described import described
from jaxlrp.concepts.extras import need, one_thread

# Our words for those of scikit-learn. A shrunk covariance is that of a diagonal mixture's components.
COVARIANCES = {"diagonal": "diag", "full": "full", "shrunk": "diag"}


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A mixture of K Gaussians in d dimensions, as NumPy arrays in float64.

    Attributes:
      weights: (K,), they sum to 1.
      means: (K, d).
      whitening: (K, d), one over the standard deviations; or (K, d, d), a matrix W with
        `W W^T = inverse of the covariance`.
      bic: the Bayesian information criterion of each number of components that was tried; lower is better.
    """

    weights: np.ndarray
    means: np.ndarray
    whitening: np.ndarray
    bic: dict[int, float]


def fit(
    x: np.ndarray,
    tried: list[int],
    covariance: str,
    floor: float,
    n_init: int,
    seed: int,
    name: str,
) -> Fitted:
    """The mixture with the lowest BIC.

    Args:
      x: (samples, d), float64.
      tried: numbers of components, each <= samples.
      covariance: a key of `COVARIANCES`.
      floor: added to variances, > 0.
      n_init: k-means starts of each fit.
      seed: of these.
      name: of the samples, for a warning if the fit has not converged.
    """
    mixture = need("sklearn.mixture", "concepts.prototypes")
    converged = need("sklearn.exceptions", "concepts.prototypes").ConvergenceWarning
    models = {}
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore", converged)  # of candidates that are not chosen
        for k in tried:
            models[k] = mixture.GaussianMixture(
                k, covariance_type=COVARIANCES[covariance], reg_covar=floor, n_init=n_init,
                max_iter=500, random_state=seed,
            ).fit(x)  # fmt: skip
    bic = {k: float(model.bic(x)) for k, model in models.items()}
    best = models[min(bic, key=bic.__getitem__)]
    if not best.converged_:
        warnings.warn(
            f"the mixture of {name} has not converged after 500 steps: use fewer components, or a larger "
            "min_variance",
            stacklevel=3,
        )
    whitening = best.precisions_cholesky_
    if covariance == "shrunk":
        whitening = _shrunk(x, best.predict(x), best.means_, best.covariances_, floor)
    order = np.argsort(-best.weights_, kind="stable")  # the most common strategy first
    return Fitted(best.weights_[order], best.means_[order], whitening[order], bic)


def _shrunk(
    x: np.ndarray, component: np.ndarray, means: np.ndarray, variances: np.ndarray, floor: float
) -> np.ndarray:
    """Whitening matrices (K, d, d) of components whose correlations are shrunk.

        Sigma = D C D,   D: standard deviations of the mixture,
        C = (1 - s) correlation + s m I,   s, m by Ledoit and Wolf's formula

    Concepts have very different variances: shrinking covariances instead would give each the mean variance.

    Args:
      x: (samples, d).
      component: (samples,), to which each belongs.
      means: (K, d).
      variances: (K, d), with the floor.
      floor: added to the variances of Sigma, so that rounding cannot make it singular.
    """
    covariance = need("sklearn.covariance", "concepts.prototypes")
    found = []
    for k, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        own, deviation = x[component == k], np.sqrt(variance)
        correlation = np.eye(len(mean))
        if len(own) > 1:
            fitted = covariance.LedoitWolf(assume_centered=True).fit((own - mean) / deviation)
            correlation = fitted.covariance_ + np.diag(floor / variance)
        # W W^T = inverse of Sigma, upper triangular as that of scikit-learn's mixtures
        lower = np.linalg.cholesky(correlation * np.outer(deviation, deviation))
        found.append(np.linalg.inv(lower).T)
    return np.stack(found)


def log_density(x: Array, means: Any, whitening: Any) -> Array:
    r"""`log N(x; mu_k, Sigma_k)` of each component.

        log N = -d/2 log 2 pi + log |W| - 1/2 |W^T (x - mu)|^2

    Args:
      x: (..., d).
      means: (..., K, d).
      whitening: (..., K, d) or (..., K, d, d); see `Fitted`.

    Returns:
      (..., K)
    """
    apart = x[..., None, :] - means
    if jnp.ndim(whitening) == jnp.ndim(means):
        z, scale = apart * whitening, whitening
    else:
        z = jnp.einsum("...kd,...kde->...ke", apart, whitening)
        scale = jnp.diagonal(whitening, axis1=-2, axis2=-1)
    constant = 0.5 * x.shape[-1] * math.log(2 * math.pi)
    return jnp.log(scale).sum(-1) - 0.5 * jnp.square(z).sum(-1) - constant
