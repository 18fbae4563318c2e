"""Cluster memberships rewritten as neural networks (NEON)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.heads.head import (
    Head,
    as_array,
    as_features,
    as_positive,
    by_feature,
    head,
    share,
    squared_distances,
)  # fmt: skip


def gaps_of(costs: Array) -> Array:
    """h_ck = costs_k - costs_c, (N, K, K) of (N, K); infinite for k = c."""
    own = jnp.eye(costs.shape[-1], dtype=bool)
    return jnp.where(own, jnp.inf, costs[:, None, :] - costs[:, :, None])


def cost_weights(of_gaps: Array, energies: Array) -> Array:
    """Coefficients s of sum_k s_nk energies_nk, which is the sum of the relevances of the gaps.

    Args:
      of_gaps: R_ck, the relevance of each gap, (N, K, K); zero for k = c.
      energies: what is shared among features, (N, K). The gap has energies_k - energies_c.

    Returns:
      (N, K), which sum to zero over k.
    """
    gaps = energies[:, None, :] - energies[:, :, None]
    coefficients = share(of_gaps, gaps)
    return coefficients.sum(1) - coefficients.sum(2)


@head
class KMeans(Head):
    """The membership in each cluster; `kmeans` makes it.

    Attributes:
      centers: mu, (K, D).
      beta: stiffness of the softmin.
    """

    centers: Array
    beta: Array

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.centers.shape[1])
        return gaps_of(squared_distances(x, self.centers)).min(-1)

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.centers.shape[1])
        costs = squared_distances(x, self.centers)
        gaps = gaps_of(costs)
        shares = jax.nn.softmax(-self.beta.astype(x.dtype) * gaps, axis=-1)
        of_gaps = shares * (weights * gaps.min(-1))[..., None]
        return by_feature(x, self.centers, cost_weights(of_gaps, costs))


def kmeans(centers: ArrayLike, beta: float | None = None) -> KMeans:
    r"""How much closer a sample is to the center of a cluster than to any other (NEON).

    f_c(x) = min_{k != c} h_k,   h_k = |x - mu_k|^2 - |x - mu_c|^2

    R_k = softmin_beta(h)_k f_c,   R_i = sum_k ((x_i - mu_ki)^2 - (x_i - mu_ci)^2) / h_k R_k

    f_c is positive exactly where k-means assigns x to c. R_i sums to f_c. It is the midpoint rule on the
    linear functions h_k.

    Args:
      centers: mu, (K, D), two at the least.
      beta: stiffness of the softmin, > 0, in units of 1 / f. None: one over the mean, over clusters, of
        the squared distance to the nearest other center, which is f_c at the centers.

    Returns:
      A head with outputs f, (N, K). Its relevance takes memory for (N, K, K) numbers.

    Raises:
      ValueError: if there are fewer than two centers, two are equal, or one is not finite.

    References:
      Kauffmann et al. (2022), "From Clustering to Cluster Explanations via Neural Networks",
      https://doi.org/10.1109/TNNLS.2022.3185901

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> cluster = heads.kmeans([[0.0, 0.0], [4.0, 0.0]])
      >>> result = heads.explain(cluster)(np.array([[1.0, 5.0]]), target=0)
      >>> result.output.tolist(), result.relevance.tolist()  # 9 - 1; the second feature is the same
      ([[8.0, -8.0]], [[8.0, 0.0]])
    """
    found = as_array("centers", centers, 2, "(clusters, features)")
    if len(found) < 2:
        raise ValueError(
            "centers must be two at the least, got one: there is nothing to tell apart"
        )
    held = np.asarray(found, float)
    between = np.array([np.delete(((held - c) ** 2).sum(1), i).min() for i, c in enumerate(held)])
    if not between.min() > 0:
        raise ValueError(f"centers must differ, but center {between.argmin()} stands twice")
    stiffness = 1 / float(between.mean()) if beta is None else beta
    return KMeans(found, as_positive("beta", stiffness))


@head
class KernelKMeans(Head):
    """The membership in each cluster of points; `kernel_kmeans` makes it.

    Attributes:
      points: u, (P, D).
      clusters: one row for each cluster: 1 over its size for its points, 0 for others, (K, P).
      gamma: of the kernel.
      beta: stiffness of the softmin over clusters.
    """

    points: Array
    clusters: Array
    gamma: Array
    beta: Array

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.points.shape[1])
        return gaps_of(self._costs(squared_distances(x, self.points))).min(-1)

    def _costs(self, distances: Array) -> Array:
        """-1 / gamma ln mean_j exp(-gamma d_j) over the points of each cluster, (N, K)."""
        logits = -self.gamma.astype(distances.dtype) * distances[:, None, :]
        clusters = self.clusters.astype(distances.dtype)
        return -jax.nn.logsumexp(logits, axis=-1, b=clusters) / self.gamma.astype(distances.dtype)

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.points.shape[1])
        distances = squared_distances(x, self.points)
        costs = self._costs(distances)
        gaps = gaps_of(costs)
        shares = jax.nn.softmax(-self.beta.astype(x.dtype) * gaps, axis=-1)
        of_gaps = shares * (weights * gaps.min(-1))[..., None]
        members = (
            jnp.log(self.clusters.astype(x.dtype)) - self.gamma.astype(x.dtype) * distances[:, None]
        )
        nearest = jax.nn.softmax(members, axis=-1)  # (N, K, P)
        energies = jnp.einsum("nkp,np->nk", nearest, distances, precision="highest")
        of_points = jnp.einsum(
            "nk,nkp->np", cost_weights(of_gaps, energies), nearest, precision="highest"
        )
        return by_feature(x, self.points, of_points)


def kernel_kmeans(
    points: ArrayLike, labels: ArrayLike, gamma: float, beta: float | None = None
) -> KernelKMeans:
    r"""How much better a sample fits one cluster of points than any other, by a Gaussian kernel (NEON).

    f_c(x) = min_{k != c} h_k,   h_k = D_k - D_c,   D_k = -1/gamma ln mean_{j in k} exp(-gamma |x - u_j|^2)

    The relevance of h_k is that of `kmeans`. With p_j = softmin of gamma |x - u_j|^2 within a cluster, it
    is shared in proportion to sum_{j in k} p_j (x_i - u_ji)^2 - sum_{j in c} p_j (x_i - u_ji)^2. It sums to
    f_c, and is singular where these sums are equal although h_k is not zero.

    Args:
      points: u, (P, D).
      labels: the cluster of each point, (P,), integers from 0 on.
      gamma: of the kernel, > 0, in units of one over a squared distance.
      beta: stiffness of the softmin over clusters, > 0; None for gamma.

    Returns:
      A head with outputs f, (N, K). Its relevance takes memory for (N, K, P) numbers.

    Raises:
      TypeError, ValueError: if labels do not fit the points, or a cluster is empty.

    References:
      Kauffmann et al. (2022), https://doi.org/10.1109/TNNLS.2022.3185901

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> points = [[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]]
      >>> cluster = heads.kernel_kmeans(points, [0, 0, 1, 1], gamma=1.0)
      >>> heads.explain(cluster)(np.array([[1.0, 5.0]]), target=0).relevance.round(3).tolist()
      [[8.0, 0.0]]
    """
    found = as_array("points", points, 2, "(points, features)")
    labels = np.asarray(labels)
    if labels.shape != found.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of shape ({len(found)},), one for each point, got {labels.dtype} of "
            f"shape {labels.shape}"
        )
    count = int(labels.max()) + 1
    sizes = np.array([(labels == k).sum() for k in range(count)])
    if labels.min() < 0 or count < 2 or not sizes.all():
        raise ValueError(
            "labels must be 0 to K - 1 for K >= 2 clusters, each with a point, got "
            f"{sorted(set(labels.tolist()))}"
        )
    clusters = (labels == np.arange(count)[:, None]) / sizes[:, None]
    stiffness = gamma if beta is None else beta
    return KernelKMeans(
        found, jnp.asarray(clusters), as_positive("gamma", gamma), as_positive("beta", stiffness)
    )


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
