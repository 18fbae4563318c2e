"""Clusterings of an embedding. scikit-learn does them; here are their defaults and their seeds.

Each is a value that is called with points (n, d), the number of clusters that the eigengap found, and a
key, and returns `labels` (n,): 0 is the largest cluster, -1 is noise. A function of your own that
takes and returns the same will do as well.
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
    """k-means, the best of several starts.

    Attributes:
      k: how many clusters, >= 1; None for the number that the eigengap found.
      starts: how many, >= 1.

    Example:
      >>> import jax
      >>> points = np.array([[0.0], [0.1], [0.2], [9.0]])
      >>> KMeans()(points, 2, jax.random.key(0)).tolist()
      [0, 0, 0, 1]
    """

    k: int | None = None
    starts: int = 10

    def __post_init__(self) -> None:
        _check_k(self.k)
        check_count("starts", self.starts)

    def __call__(self, points: np.ndarray, k: int, key: Array) -> np.ndarray:
        k = min(self.k or k, _different(points))
        method = scikit_learn("cluster").KMeans(
            k, n_init=self.starts, random_state=seeds.seed(key), algorithm="lloyd"
        )
        with threads(len(points)):
            return by_size(method.fit_predict(points))


@dataclasses.dataclass(frozen=True)
class Agglomerative:
    """Clusters that are merged pair by pair. Needs memory for all pairs: 10 GB for 50,000 points.

    Attributes:
      k: how many clusters, >= 1; None for the number that the eigengap found.
      linkage: which pair is merged: "ward" (least growth of variance), "complete", "average", "single".

    Example:
      >>> import jax
      >>> Agglomerative(k=2)(np.array([[0.0], [0.1], [9.0]]), 1, jax.random.key(0)).tolist()
      [0, 0, 1]
    """

    k: int | None = None
    linkage: Literal["ward", "complete", "average", "single"] = "ward"

    def __post_init__(self) -> None:
        _check_k(self.k)
        known = ("ward", "complete", "average", "single")
        if self.linkage not in known:
            raise ValueError(f"linkage must be one of {known}, got {self.linkage!r}")

    def __call__(self, points: np.ndarray, k: int, key: Array) -> np.ndarray:
        if len(points) < 2:
            return np.zeros(len(points), np.int64)
        method = scikit_learn("cluster").AgglomerativeClustering(
            min(self.k or k, len(points)), linkage=self.linkage
        )
        return by_size(method.fit_predict(points))


@dataclasses.dataclass(frozen=True)
class DBSCAN:
    """Regions that are dense, and noise between them; finds the number of clusters itself.

    Attributes:
      radius: of a neighborhood, > 0, in the units of the embedding. None: the distance to the
        `least`-th neighbor of which 95 % of the points stay below.
      least: points in the neighborhood of one in a dense region, itself included, >= 1.

    Example:
      >>> import jax
      >>> points = np.array([[0.0], [0.1], [0.2], [9.0]])
      >>> DBSCAN(radius=0.5, least=2)(points, 1, jax.random.key(0)).tolist()
      [0, 0, 0, -1]
    """

    radius: float | None = None
    least: int = 5

    def __post_init__(self) -> None:
        if self.radius is not None and not 0.0 < self.radius < np.inf:
            raise ValueError(f"radius must be positive and finite, got {self.radius}")
        check_count("least", self.least)

    def __call__(self, points: np.ndarray, k: int, key: Array) -> np.ndarray:
        # Equal points (those of a component are) are taken as one with a weight: in a neighborhood of
        # thousands of points all pairs of them would be stored.
        different, which, weight = _unique(points)
        method = scikit_learn("cluster").DBSCAN(
            eps=self.radius or self._radius(points), min_samples=self.least
        )
        return by_size(method.fit(different, sample_weight=weight).labels_[which])

    def _radius(self, points: np.ndarray) -> float:
        near = scikit_learn("neighbors").NearestNeighbors(n_neighbors=min(self.least, len(points)))
        distance = (
            near.fit(points).kneighbors()[0] if len(points) > self.least else np.zeros((1, 1))
        )
        extent = np.ptp(points, axis=0).max()
        return max(float(np.quantile(distance[:, -1], 0.95)), 1e-6 * float(extent), 1e-12)


@dataclasses.dataclass(frozen=True)
class HDBSCAN:
    """Regions that stay connected over the widest range of densities, and noise between them.

    Attributes:
      least: points of the smallest cluster, >= 2.

    Example:
      >>> import jax
      >>> points = np.array([[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2]])
      >>> HDBSCAN(least=2)(points, 1, jax.random.key(0)).tolist()
      [0, 0, 0, 0, 1, 1, 1]
    """

    least: int = 5

    def __post_init__(self) -> None:
        check_count("least", self.least)
        if self.least < 2:
            raise ValueError(f"least must be >= 2, got {self.least}")

    def __call__(self, points: np.ndarray, k: int, key: Array) -> np.ndarray:
        if len(points) < 2 * self.least:  # no room for two clusters
            return np.zeros(len(points), np.int64)
        method = scikit_learn("cluster").HDBSCAN(min_cluster_size=self.least, copy=True)
        return by_size(method.fit_predict(points))


def by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered from the largest on; of equal ones the first to appear comes first.

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


def _check_k(k: int | None) -> None:
    if k is not None:
        check_count("k", k)


def _unique(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points, index of each one's, how many) up to rounding."""
    extent = max(float(np.abs(points).max()), 1e-300)
    rounded = np.round(points / extent, 9)
    _, first, which, count = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    return points[first], which.ravel(), count


def _different(points: np.ndarray) -> int:
    """How many points differ, up to rounding: k-means cannot make more clusters."""
    return len(_unique(points)[0])
