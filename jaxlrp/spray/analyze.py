"""Spectral relevance analysis of a data set, class by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from scipy import sparse

from jaxlrp._checks import check_count, check_mapping
from jaxlrp.spray import extras, seeds
from jaxlrp.spray.analysis import Analysis, Clustering, Embedding
from jaxlrp.spray.clusters import Clusterer, KMeans
from jaxlrp.spray.features import as_rows, features
from jaxlrp.spray.neighbors import graph, neighbors
from jaxlrp.spray.preprocess import Step, l1_normalize
from jaxlrp.spray.spectral import eigengap, spectral
from jaxlrp.spray.views import PCA, TSNE, UMAP, View

SPECTRAL = "spectral"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an analysis.

    Attributes:
      n_neighbors: neighbors of each point in the graph, >= 1. A class of at most n_neighbors + 1 samples is
        one cluster: all samples are neighbors of each other, so the graph carries no information.
      n_components: columns of the spectral embedding, >= 2. If the graph has at least as many connected
        components, one more column than components is computed.
      min_clusters: the smallest number of clusters that the eigengap may return, >= 1; see `eigengap`.
      clusterings: by name. Each gets as many leading columns of the spectral embedding as there are
        clusters: its own `n_clusters`, or the number from the eigengap.
      views: by name, computed in this order; a view may be based on an earlier one.
    """

    n_neighbors: int = 10
    n_components: int = 32
    min_clusters: int = 2
    clusterings: Mapping[str, Clusterer] = dataclasses.field(
        default_factory=lambda: {"kmeans": KMeans()}
    )
    views: Mapping[str, View] = dataclasses.field(
        default_factory=lambda: {"pca": PCA(), "tsne": TSNE()}
    )

    def __post_init__(self) -> None:
        check_count("n_neighbors", self.n_neighbors)
        check_count("min_clusters", self.min_clusters)
        if check_count("n_components", self.n_components) <= self.min_clusters:
            raise ValueError(
                f"n_components must be > min_clusters ({self.min_clusters}), got {self.n_components}: "
                "the eigenvalue after the last cluster is needed to measure the gap"
            )
        check_mapping("clusterings", self.clusterings, '{"kmeans": KMeans()}')
        check_mapping("views", self.views, '{"pca": PCA()}')
        for name, made in (*self.clusterings.items(), *self.views.items()):
            if isinstance(made, type):
                raise TypeError(
                    f"{name!r} must be a value such as {made.__name__}(), got the class"
                )
        known = [SPECTRAL]
        for name, view in self.views.items():
            if name in known:
                raise ValueError(
                    f"views must not have the name {SPECTRAL!r} of the spectral embedding: rename it"
                )
            if view.base is not None and view.base not in known:
                raise ValueError(
                    f"views[{name!r}] must have base=None or one of {known}, got base={view.base!r}"
                )
            known.append(name)


def checked_settings(settings: Settings | None) -> Settings:
    """The settings, by default those of `Settings()`.

    Raises:
      TypeError: if they are something else.
    """
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise TypeError(f"settings must be a jaxlrp.spray.Settings, got {settings!r}")
    return settings


def analyze(
    relevance: Any,
    labels: Any,
    preprocess: Step = l1_normalize,
    *,
    key: Array,
    settings: Settings | None = None,
    classes: Sequence[int] | None = None,
    rows: Any = None,
    batch_size: int = 256,
) -> tuple[Analysis, ...]:
    """Finds clusters of similar explanations in each class.

    For each class, it builds the nearest-neighbor graph of the preprocessed relevance and computes the
    smallest eigenpairs of its normalized Laplacian. The widest relative gap between eigenvalues gives the
    number of clusters. It then clusters the embedding and computes two-dimensional views.

    Memory holds the preprocessed relevance of all requested classes and, for one class at a time, what
    `neighbors` needs. The result for a class does not depend on which other classes are analyzed.

    Args:
      relevance: (N, ...) of images, signals or tokens. Anything with a `shape` that can be sliced along its
        first axis: NumPy, JAX, Zarr, a store. Read once, `batch_size` samples at a time.
      labels: (N,) integers >= 0, the true or predicted class of each sample. Or (N, classes) booleans; a
        sample is then analyzed with each of its classes.
      preprocess: traceable function from a batch of relevance to a batch; see `compose`.
      key: a `jax.random.key`; the same key gives the same result.
      settings: numbers, clusterings and views; None for the defaults of `Settings`.
      classes: the classes to analyze; None for all that have samples.
      rows: (m,) integers, the samples to analyze; None for all.
      batch_size: samples per batch, >= 1.

    Returns:
      An `Analysis` for each class, in ascending order, with the embedding "spectral", the views and the
      clusterings. Its `index` holds rows of `relevance`, which may be ordered differently from the images,
      as in a store.

    Raises:
      ImportError: if a clustering or view needs a package that is not installed.
      TypeError, ValueError: if an argument is invalid, or relevance is not finite.

    References:
      Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4
      Anders et al. (2022), https://doi.org/10.1016/j.inffus.2021.07.015

    Example:
      >>> maps = np.repeat(np.eye(4)[:2], 15, axis=0)
      >>> maps = maps + 0.1 * np.random.default_rng(0).uniform(size=(30, 4))
      >>> (found,) = analyze(maps, np.zeros(30, int), key=jax.random.key(0))
      >>> found.clusterings["kmeans"].n_clusters, found.clusterings["kmeans"].labels[[0, 29]].tolist()
      (2, [0, 1])
    """
    settings = checked_settings(settings)
    seeds.check_key(key)
    extras.scikit_learn("cluster")
    if any(isinstance(view, UMAP) for view in settings.views.values()):
        extras.umap()
    of_class = members(labels, relevance, classes, rows)
    wanted = np.unique(np.concatenate(list(of_class.values())))
    points = features(relevance, preprocess, rows=wanted, batch_size=batch_size)
    return tuple(
        analyze_points(
            points[np.searchsorted(wanted, index)],
            category,
            index,
            key=jax.random.fold_in(key, category),
            settings=settings,
        )
        for category, index in of_class.items()
    )


def analyze_points(
    points: Any, category: int, index: Any, *, key: Array, settings: Settings | None = None
) -> Analysis:
    """Analyzes one class, given its preprocessed points.

    Args:
      points: (n, d) floats, finite.
      category: the class.
      index: (n,) integers >= 0, the rows of the data set that the points belong to.
      key: a `jax.random.key`.
      settings: as in `analyze`.

    Returns:
      `Analysis`.

    Raises:
      ImportError, ValueError: as in `analyze`.

    Example:
      >>> points = np.random.default_rng(0).normal(size=(20, 3))
      >>> found = analyze_points(points, 7, np.arange(20), key=jax.random.key(0))
      >>> sorted(found.embeddings)
      ['pca', 'spectral', 'tsne']
    """
    settings = checked_settings(settings)
    points, index = np.asarray(points), np.asarray(index)
    if points.ndim != 2 or not len(points) or index.shape != points.shape[:1]:
        raise ValueError(
            f"points must have shape (n, d) and index (n,), got {points.shape} and {index.shape}"
        )
    k = min(settings.n_neighbors, len(points) - 1)
    affinity = graph(neighbors(points, k)) if k else sparse.csr_array((1, 1))
    embedding = spectral(affinity, settings.n_components, key=seeds.named(key, SPECTRAL))
    assert embedding.eigenvalues is not None
    # One cluster if all points are equal, whatever their graph looks like. Also if every point is a
    # neighbor of every other: the eigenvectors of that graph are arbitrary.
    alike = k == len(points) - 1 or not np.ptp(points, axis=0).any()
    clusters = 1 if alike else eigengap(embedding.eigenvalues, min_clusters=settings.min_clusters)
    return Analysis(
        category=int(category),
        index=index,
        embeddings=_with_views(points, embedding, settings.views, key),
        clusterings={
            name: _clustered(embedding.values, clusters, clusterer, seeds.named(key, f"of {name}"))
            for name, clusterer in settings.clusterings.items()
        },
    )


def _clustered(values: np.ndarray, clusters: int, clusterer: Clusterer, key: Array) -> Clustering:
    """Clusters only the leading columns: further columns would split samples that belong together."""
    k = getattr(clusterer, "n_clusters", None) or clusters
    labels = np.asarray(clusterer(values[:, :k], clusters, key))
    if labels.shape != values.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"a clustering must return {len(values)} integers, got {labels.dtype} of shape "
            f"{labels.shape} from {clusterer!r}"
        )
    return Clustering(
        labels,
        base=SPECTRAL,
        n_clusters=k if hasattr(clusterer, "n_clusters") else None,
        n_columns=min(k, values.shape[1]),
    )


def _with_views(
    points: np.ndarray, embedding: Embedding, views: Mapping[str, View], key: Array
) -> dict[str, Embedding]:
    found = {SPECTRAL: embedding}
    for name, view in views.items():
        shown = points if view.base is None else found[view.base].values
        found[name] = Embedding(view(shown, seeds.named(key, f"view {name}")), base=view.base)
    return found


def members(labels: Any, relevance: Any, classes: Any, rows: Any) -> dict[int, np.ndarray]:
    """The rows of each class, in ascending order."""
    labels = np.asarray(labels)
    total = relevance.shape[0] if getattr(relevance, "shape", ()) else len(labels)
    if labels.ndim not in (1, 2) or len(labels) != total:
        raise ValueError(
            f"labels must have one entry for each of the {total} samples, got shape {labels.shape}"
        )
    if labels.dtype != bool and (labels.ndim == 2 or not np.issubdtype(labels.dtype, np.integer)):
        raise TypeError(
            "labels must be integers (N,) or booleans (N, classes), got "
            f"{labels.dtype} of shape {labels.shape}"
        )
    kept = np.arange(total) if rows is None else np.sort(as_rows("rows", rows, total))
    if labels.dtype != bool and len(kept) and labels[kept].min() < 0:
        raise ValueError(
            f"labels must be >= 0, got {labels[kept].min()}; exclude samples without a class with rows="
        )
    many = labels.ndim == 2
    present = np.flatnonzero(labels[kept].any(axis=0)) if many else np.unique(labels[kept])
    asked = present if classes is None else np.unique(np.asarray(classes))
    missing = np.setdiff1d(asked, present)
    if missing.size or not asked.size:
        raise ValueError(
            f"classes must be classes with samples, {present[:10].tolist()}"
            f"{' ...' if len(present) > 10 else ''}, got {missing.tolist() or 'none'}"
        )
    return {
        int(c): kept[labels[kept, c]] if many else kept[labels[kept] == c] for c in asked.tolist()
    }
