"""Memberships in clusters of k-means, rewritten as neural networks (NEON)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.gaps import cost_weights, relevance_of_gaps, smallest_gaps
from jaxlrp.heads.head import (
    Head,
    as_array,
    as_features,
    as_positive,
    by_feature,
    head,
    soft_minimum,
    squared_distances,
)


@described
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
        return smallest_gaps(squared_distances(x, self.centers))

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.centers.shape[1])
        costs = squared_distances(x, self.centers)
        of_gaps = relevance_of_gaps(costs, self.beta, weights)
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


@described
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
        return smallest_gaps(
            soft_minimum(self._logits(squared_distances(x, self.points)), self.gamma)
        )

    def _logits(self, distances: Array) -> Array:
        """Those of the points of each cluster, -inf for other points, (N, K, P)."""
        dtype = distances.dtype
        return jnp.log(self.clusters.astype(dtype)) - self.gamma.astype(dtype) * distances[:, None]

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.points.shape[1])
        distances = squared_distances(x, self.points)
        logits = self._logits(distances)
        of_gaps = relevance_of_gaps(soft_minimum(logits, self.gamma), self.beta, weights)
        nearest = jax.nn.softmax(logits, axis=-1)
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
