"""Two-dimensional views of an embedding or of the relevances, for a person to look at.

Each is a value that is called with points (n, d) and a key, and returns (n, 2). Its attribute `of` says
which points: the name of an embedding, or None for the prepared relevances themselves. Fewer than
five points are shown by their principal components, whatever was asked for.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from jax import Array

from jaxlrp._checks import check_at_least, check_count
from jaxlrp.spray import seeds
from jaxlrp.spray.extras import scikit_learn, threads, umap

_FEW = 5


class View(Protocol):
    """What a view must have."""

    @property
    def of(self) -> str | None:
        """The name of the embedding that is shown; None for the relevances."""
        ...

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        """The points in few dimensions, (n, 2) mostly."""
        ...


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components. Linear: distances in it can be trusted, what is not in it cannot be seen.

    Attributes:
      of: see the module.
      dimensions: how many components, >= 1.

    Example:
      >>> import jax
      >>> PCA()(np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0]]), jax.random.key(0)).tolist()
      [[3.0, 0.0], [-3.0, 0.0]]
    """

    of: str | None = None
    dimensions: int = 2

    def __post_init__(self) -> None:
        check_count("dimensions", self.dimensions)

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        kept = min(self.dimensions, *points.shape)
        found = np.zeros((len(points), self.dimensions))
        if np.ptp(points, axis=0).any():
            method = scikit_learn("decomposition").PCA(kept, random_state=seeds.seed(key))
            found[:, :kept] = method.fit_transform(np.asarray(points, np.float64))
        return found + 0.0  # no -0


@dataclasses.dataclass(frozen=True)
class TSNE:
    """t-SNE: neighbors stay neighbors; distances between groups and their sizes mean nothing.

    Attributes:
      of: see the module.
      perplexity: about how many neighbors count, > 0; less where there are few points.
      iterations: >= 250.

    Example:
      >>> import jax
      >>> points = np.random.default_rng(0).normal(size=(20, 3))
      >>> TSNE()(points, jax.random.key(0)).shape
      (20, 2)
    """

    of: str | None = "spectral"
    perplexity: float = 30.0
    iterations: int = 1000

    def __post_init__(self) -> None:
        check_at_least("iterations", check_count("iterations", self.iterations), 250)
        if not 0.0 < self.perplexity < np.inf:
            raise ValueError(f"perplexity must be positive and finite, got {self.perplexity}")

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        if len(points) < _FEW:
            return PCA()(points, key)
        method = scikit_learn("manifold").TSNE(
            perplexity=min(self.perplexity, (len(points) - 1) / 3),
            init=_start(points, key),
            max_iter=self.iterations,
            random_state=seeds.seed(key),
        )
        with threads(len(points)):
            return method.fit_transform(np.asarray(points, np.float32))


@dataclasses.dataclass(frozen=True)
class UMAP:
    """UMAP, of the package umap-learn (extra ``umap``): as t-SNE, faster for many points.

    Attributes:
      of: see the module.
      neighbors: how many count, >= 2; less where there are few points.
      least_distance: between points in the view, >= 0.

    Example:
      >>> UMAP(neighbors=5)
      UMAP(of='spectral', neighbors=5, least_distance=0.1)
    """

    of: str | None = "spectral"
    neighbors: int = 15
    least_distance: float = 0.1

    def __post_init__(self) -> None:
        check_count("neighbors", self.neighbors)
        check_at_least("neighbors", self.neighbors, 2)
        check_at_least("least_distance", self.least_distance, 0.0)

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        if len(points) < _FEW:
            return PCA()(points, key)
        method = umap().UMAP(
            n_neighbors=min(self.neighbors, len(points) - 1),
            min_dist=self.least_distance,
            init=_start(points, key),  # which it scales itself
            random_state=seeds.seed(key),
            n_jobs=1,  # a seed and several threads exclude each other
        )
        return method.fit_transform(np.asarray(points, np.float32))


def _start(points: np.ndarray, key: Array) -> np.ndarray:
    """Where the points of a view begin: principal components of small, fixed extent, with some noise.

    The noise parts points that are equal, as those of one component of a graph are.
    """
    start = PCA()(points, key)
    noise = seeds.generator(seeds.named(key, "start")).normal(size=start.shape)
    return (1e-4 * (start / max(start[:, 0].std(), 1e-300) + 1e-2 * noise)).astype(np.float32)
