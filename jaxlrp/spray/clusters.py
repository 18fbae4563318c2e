"""Clusterings of an embedding, computed by scikit-learn with our defaults and explicit random keys.

A clustering is called with points (n, d), the number of clusters from the eigengap, and a key. It returns
`labels` (n,): 0 is the largest cluster, -1 is noise. Any function with this signature also works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.spray import seeds
from jaxlrp.spray.extras import scikit_learn, threads

Clusterer = Callable[[np.ndarray, int, Array], np.ndarray]


@dataclasses.dataclass(frozen=True)
class KMeans:
    """k-means, the best of several initializations.

    Attributes:
      n_clusters: number of clusters, >= 1; None for the number from the eigengap.
      n_init: number of initializations, >= 1.

    Example:
      >>> import jax
      >>> points = np.array([[0.0], [0.1], [0.2], [9.0]])
      >>> KMeans()(points, 2, jax.random.key(0)).tolist()
      [0, 0, 0, 1]
    """

    n_clusters: int | None = None
    n_init: int = 10

    def __post_init__(self) -> None:
        _check_n_clusters(self.n_clusters)
        check_count("n_init", self.n_init)

    def __call__(self, points: np.ndarray, n_clusters: int, key: Array) -> np.ndarray:
        k = min(self.n_clusters or n_clusters, _different(points))
        method = scikit_learn("cluster").KMeans(
            k, n_init=self.n_init, random_state=seeds.seed(key), algorithm="lloyd"
        )
        with threads(len(points)):
            return by_size(method.fit_predict(points))


@dataclasses.dataclass(frozen=True)
class Agglomerative:
    """Agglomerative clustering. Needs memory for all pairs of points: 10 GB for 50,000 points.

    Attributes:
      n_clusters: number of clusters, >= 1; None for the number from the eigengap.
      linkage: which pair to merge: "ward" (smallest increase of variance), "complete", "average", "single".

    Example:
      >>> import jax
      >>> Agglomerative(n_clusters=2)(np.array([[0.0], [0.1], [9.0]]), 1, jax.random.key(0)).tolist()
      [0, 0, 1]
    """

    n_clusters: int | None = None
    linkage: Literal["ward", "complete", "average", "single"] = "ward"

    def __post_init__(self) -> None:
        _check_n_clusters(self.n_clusters)
        known = ("ward", "complete", "average", "single")
        if self.linkage not in known:
            raise ValueError(f"linkage must be one of {known}, got {self.linkage!r}")

    def __call__(self, points: np.ndarray, n_clusters: int, key: Array) -> np.ndarray:
        if len(points) < 2:
            return np.zeros(len(points), np.int64)
        method = scikit_learn("cluster").AgglomerativeClustering(
            min(self.n_clusters or n_clusters, len(points)), linkage=self.linkage
        )
        return by_size(method.fit_predict(points))


@dataclasses.dataclass(frozen=True)
class DBSCAN:
    """Density-based clustering with noise; determines the number of clusters itself.

    Attributes:
      eps: radius of a neighborhood, > 0, in the units of the embedding. None: the 95th percentile of the
        distances to the `min_samples`-th neighbor.
      min_samples: points in the neighborhood of a core point, including itself, >= 1.

    Example:
      >>> import jax
      >>> points = np.array([[0.0], [0.1], [0.2], [9.0]])
      >>> DBSCAN(eps=0.5, min_samples=2)(points, 1, jax.random.key(0)).tolist()
      [0, 0, 0, -1]
    """

    eps: float | None = None
    min_samples: int = 5

    def __post_init__(self) -> None:
        if self.eps is not None and not 0.0 < self.eps < np.inf:
            raise ValueError(f"eps must be positive and finite, got {self.eps}")
        check_count("min_samples", self.min_samples)

    def __call__(self, points: np.ndarray, n_clusters: int, key: Array) -> np.ndarray:
        # Equal points, such as those of one connected component, are merged into one weighted point:
        # otherwise all pairs in a neighborhood of thousands of points would be stored.
        different, which, weight = _unique(points)
        method = scikit_learn("cluster").DBSCAN(
            eps=self.eps or self._radius(points), min_samples=self.min_samples
        )
        return by_size(method.fit(different, sample_weight=weight).labels_[which])

    def _radius(self, points: np.ndarray) -> float:
        near = scikit_learn("neighbors").NearestNeighbors(
            n_neighbors=min(self.min_samples, len(points))
        )
        distance = (
            near.fit(points).kneighbors()[0] if len(points) > self.min_samples else np.zeros((1, 1))
        )
        extent = np.ptp(points, axis=0).max()
        return max(float(np.quantile(distance[:, -1], 0.95)), 1e-6 * float(extent), 1e-12)


@dataclasses.dataclass(frozen=True)
class HDBSCAN:
    """Density-based clustering over all density levels, with noise; determines the number of clusters.

    Attributes:
      min_cluster_size: size of the smallest cluster, >= 2.

    Example:
      >>> import jax
      >>> points = np.array([[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2]])
      >>> HDBSCAN(min_cluster_size=2)(points, 1, jax.random.key(0)).tolist()
      [0, 0, 0, 0, 1, 1, 1]
    """

    min_cluster_size: int = 5

    def __post_init__(self) -> None:
        check_count("min_cluster_size", self.min_cluster_size)
        if self.min_cluster_size < 2:
            raise ValueError(f"min_cluster_size must be >= 2, got {self.min_cluster_size}")

    def __call__(self, points: np.ndarray, n_clusters: int, key: Array) -> np.ndarray:
        if len(points) < 2 * self.min_cluster_size:  # too few points for two clusters
            return np.zeros(len(points), np.int64)
        method = scikit_learn("cluster").HDBSCAN(min_cluster_size=self.min_cluster_size, copy=True)
        return by_size(method.fit_predict(points))


def by_size(labels: np.ndarray) -> np.ndarray:
    """Renumbers clusters by size, largest first; among equal sizes, by first appearance.

    Example:
      >>> by_size(np.array([7, 3, -1, 3])).tolist()
      [1, 0, -1, 0]
    """
    found, first, which, size = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -size, found < 0))  # noise last
    new = np.empty(len(found), np.int64)
    new[order] = np.arange(len(found))
    new[found < 0] = -1
    return new[which]


def _check_n_clusters(n_clusters: int | None) -> None:
    if n_clusters is not None:
        check_count("n_clusters", n_clusters)


def _unique(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distinct points, index of the distinct point of each point, counts), up to rounding."""
    extent = max(float(np.abs(points).max()), 1e-300)
    rounded = np.round(points / extent, 9)
    _, first, which, count = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    return points[first], which.ravel(), count


def _different(points: np.ndarray) -> int:
    """The number of distinct points, up to rounding: k-means cannot make more clusters."""
    return len(_unique(points)[0])
