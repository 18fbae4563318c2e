"""Two-dimensional views of an embedding or of the relevance, for display.

A view is called with points (n, d) and a key, and returns (n, 2). Its attribute `base` selects the points:
the name of an embedding, or None for the preprocessed relevance. Fewer than five points are always shown by
their principal components.
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
    """Interface of a view."""

    @property
    def base(self) -> str | None:
        """The name of the embedding to show; None for the relevance."""
        ...

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        """The points in few dimensions, usually (n, 2)."""
        ...


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components. Linear: distances are meaningful, but only the leading components are visible.

    Attributes:
      base: see the module.
      n_components: number of components, >= 1.

    Example:
      >>> import jax
      >>> PCA()(np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0]]), jax.random.key(0)).tolist()
      [[3.0, 0.0], [-3.0, 0.0]]
    """

    base: str | None = None
    n_components: int = 2

    def __post_init__(self) -> None:
        check_count("n_components", self.n_components)

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        kept = min(self.n_components, *points.shape)
        found = np.zeros((len(points), self.n_components))
        if np.ptp(points, axis=0).any():
            method = scikit_learn("decomposition").PCA(kept, random_state=seeds.seed(key))
            found[:, :kept] = method.fit_transform(np.asarray(points, np.float64))
        return found + 0.0  # no -0


@dataclasses.dataclass(frozen=True)
class TSNE:
    """t-SNE. Preserves neighbors; distances between groups and sizes of groups mean nothing.

    Attributes:
      base: see the module.
      perplexity: approximate number of neighbors, > 0; reduced for few points.
      max_iter: maximum number of iterations, >= 250.

    Example:
      >>> import jax
      >>> points = np.random.default_rng(0).normal(size=(20, 3))
      >>> TSNE()(points, jax.random.key(0)).shape
      (20, 2)
    """

    base: str | None = "spectral"
    perplexity: float = 30.0
    max_iter: int = 1000

    def __post_init__(self) -> None:
        check_at_least("max_iter", check_count("max_iter", self.max_iter), 250)
        if not 0.0 < self.perplexity < np.inf:
            raise ValueError(f"perplexity must be positive and finite, got {self.perplexity}")

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        if len(points) < _FEW:
            return PCA()(points, key)
        method = scikit_learn("manifold").TSNE(
            perplexity=min(self.perplexity, (len(points) - 1) / 3),
            init=_start(points, key),
            max_iter=self.max_iter,
            random_state=seeds.seed(key),
        )
        with threads(len(points)):
            return method.fit_transform(np.asarray(points, np.float32))


@dataclasses.dataclass(frozen=True)
class UMAP:
    """UMAP, from the package umap-learn (extra ``umap``): like t-SNE, but faster for many points.

    Attributes:
      base: see the module.
      n_neighbors: number of neighbors, >= 2; reduced for few points.
      min_dist: minimum distance between points in the view, >= 0.

    Example:
      >>> UMAP(n_neighbors=5)
      UMAP(base='spectral', n_neighbors=5, min_dist=0.1)
    """

    base: str | None = "spectral"
    n_neighbors: int = 15
    min_dist: float = 0.1

    def __post_init__(self) -> None:
        check_count("n_neighbors", self.n_neighbors)
        check_at_least("n_neighbors", self.n_neighbors, 2)
        check_at_least("min_dist", self.min_dist, 0.0)

    def __call__(self, points: np.ndarray, key: Array) -> np.ndarray:
        if len(points) < _FEW:
            return PCA()(points, key)
        method = umap().UMAP(
            n_neighbors=min(self.n_neighbors, len(points) - 1),
            min_dist=self.min_dist,
            init=_start(points, key),  # UMAP rescales it
            random_state=seeds.seed(key),
            n_jobs=1,  # a seed requires a single thread
        )
        return method.fit_transform(np.asarray(points, np.float32))


def _start(points: np.ndarray, key: Array) -> np.ndarray:
    """Initial points of a view: principal components of small, fixed extent, with some noise.

    The noise separates equal points, such as those of one connected component of a graph.
    """
    start = PCA()(points, key)
    noise = seeds.generator(seeds.named(key, "start")).normal(size=start.shape)
    return (1e-4 * (start / max(start[:, 0].std(), 1e-300) + 1e-2 * noise)).astype(np.float32)
