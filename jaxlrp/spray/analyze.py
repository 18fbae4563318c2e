"""Spectral relevance analysis of a data set, class by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from scipy import sparse

from jaxlrp._checks import check_count
from jaxlrp.spray import extras, seeds
from jaxlrp.spray.analysis import Analysis, Clustering, Embedding
from jaxlrp.spray.clusters import Clusterer, KMeans
from jaxlrp.spray.neighbors import graph, neighbors
from jaxlrp.spray.preprocess import Step, as_rows, features, l1_normalize
from jaxlrp.spray.spectral import eigengap, spectral
from jaxlrp.spray.views import PCA, TSNE, UMAP, View

SPECTRAL = "spectral"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How points are analyzed.

    Attributes:
      neighbors: k of the graph, >= 1. A class of at most k + 1 samples is one cluster: all its samples are
        neighbors of each other, and the graph does not tell them apart.
      eigenvalues: columns of the spectral embedding, >= 2; one more than there are components if that is
        more.
      least: the fewest clusters that the eigengap may find, >= 1; see `eigengap`.
      clusterings: by name. Each gets the first k* columns of the spectral embedding, or as many as its own
        `k` says.
      views: by name, in their order; one may be of another before it.
    """

    neighbors: int = 10
    eigenvalues: int = 32
    least: int = 2
    clusterings: Mapping[str, Clusterer] = dataclasses.field(
        default_factory=lambda: {"kmeans": KMeans()}
    )
    views: Mapping[str, View] = dataclasses.field(
        default_factory=lambda: {"pca": PCA(), "tsne": TSNE()}
    )

    def __post_init__(self) -> None:
        check_count("neighbors", self.neighbors)
        check_count("least", self.least)
        if check_count("eigenvalues", self.eigenvalues) <= self.least:
            raise ValueError(
                f"eigenvalues must be more than least, {self.least}, got {self.eigenvalues}: "
                "the gap behind the last cluster must be seen"
            )
        known = [SPECTRAL]
        for name, view in self.views.items():
            if name in known:
                raise ValueError(f"views must not be named {SPECTRAL!r}, which is the embedding")
            if view.of is not None and view.of not in known:
                raise ValueError(
                    f"views[{name!r}] must be of None or one of {known}, got of={view.of!r}"
                )
            known.append(name)


def analyze(
    relevance: Any,
    labels: Any,
    prepare: Step = l1_normalize,
    *,
    key: Array,
    settings: Settings | None = None,
    classes: Sequence[int] | None = None,
    rows: Any = None,
    batch: int = 256,
) -> tuple[Analysis, ...]:
    """Finds what kinds of explanations each class has.

    For each class: a graph of nearest neighbors of its prepared relevances, the smallest eigenpairs of the
    graph's normalized Laplacian, as many clusters as the widest relative gap between the eigenvalues
    tells of, and views of all that in two dimensions.

    In memory are the prepared relevances of all classes that are asked for, and of one class what
    `neighbors` needs. A class does not change with the other classes that are analyzed.

    Args:
      relevance: (N, ...), anything with a `shape` that is sliced along its first axis: NumPy, JAX, Zarr, a
        store. Of pictures, signals, tokens; read once, `batch` samples at a time.
      labels: (N,) integers >= 0, the class of each sample: what it is, or what was predicted. Or
        (N, classes) booleans; then a sample is analyzed with each of its classes.
      prepare: from a batch of relevance to a batch, traceable; see `compose`.
      key: a `jax.random.key`: the same key gives the same result.
      settings: numbers, clusterings and views; None for the defaults of `Settings`.
      classes: which classes; None for all that have a sample.
      rows: (m,) integers, which samples of the data set; None for all.
      batch: samples at a time, >= 1.

    Returns:
      An `Analysis` for each class, in ascending order, with the embedding "spectral", the views and the
      clusterings. Its `index` are rows of `relevance`, also where these are in another order than the
      pictures, as in a store.

    Raises:
      ImportError: if a clustering or view needs a package that is not installed.
      TypeError, ValueError: if an argument does not fit, or relevance is not finite.

    References:
      Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4
      Anders et al. (2022), https://doi.org/10.1016/j.inffus.2021.07.015

    Example:
      >>> maps = np.repeat(np.eye(4)[:2], 15, axis=0)
      >>> maps = maps + 0.1 * np.random.default_rng(0).uniform(size=(30, 4))
      >>> (found,) = analyze(maps, np.zeros(30, int), key=jax.random.key(0))
      >>> found.clusterings["kmeans"].k, found.clusterings["kmeans"].labels[[0, 29]].tolist()
      (2, [0, 1])
    """
    settings = Settings() if settings is None else settings
    seeds.check_key(key)
    extras.scikit_learn("cluster")
    if any(isinstance(view, UMAP) for view in settings.views.values()):
        extras.umap()
    of_class = members(labels, relevance, classes, rows)
    wanted = np.unique(np.concatenate(list(of_class.values())))
    points = features(relevance, prepare, rows=wanted, batch=batch)
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
    """The same of one class, from points that are prepared already.

    Args:
      points: (n, d) floats, finite.
      category: the class.
      index: (n,) integers >= 0, the rows of the data set that the points belong to.
      key: a `jax.random.key`.
      settings: as in `analyze`.

    Returns:
      `Analysis`.

    Raises:
      ImportError, ValueError: as `analyze` does.

    Example:
      >>> points = np.random.default_rng(0).normal(size=(20, 3))
      >>> found = analyze_points(points, 7, np.arange(20), key=jax.random.key(0))
      >>> sorted(found.embeddings)
      ['pca', 'spectral', 'tsne']
    """
    settings = Settings() if settings is None else settings
    points, index = np.asarray(points), np.asarray(index)
    if points.ndim != 2 or not len(points) or index.shape != points.shape[:1]:
        raise ValueError(
            f"points must have shape (n, d) and index (n,), got {points.shape} and {index.shape}"
        )
    k = min(settings.neighbors, len(points) - 1)
    affinity = graph(neighbors(points, k)) if k else sparse.csr_array((1, 1))
    embedding = spectral(affinity, settings.eigenvalues, key=seeds.named(key, SPECTRAL))
    assert embedding.eigenvalues is not None
    # Nothing to part: of equal points, whatever their graph looks like; and in a graph where all are
    # neighbors of all, whose eigenvectors are any.
    alike = k == len(points) - 1 or not np.ptp(points, axis=0).any()
    clusters = 1 if alike else eigengap(embedding.eigenvalues, least=settings.least)
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
    """Clusters the first columns alone: the others part what belongs together."""
    k = getattr(clusterer, "k", None) or clusters
    labels = np.asarray(clusterer(values[:, :k], clusters, key))
    if labels.shape != values.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"a clustering must return {len(values)} integers, got {labels.dtype} of shape "
            f"{labels.shape} from {clusterer!r}"
        )
    return Clustering(
        labels,
        of=SPECTRAL,
        k=k if hasattr(clusterer, "k") else None,
        columns=min(k, values.shape[1]),
    )


def _with_views(
    points: np.ndarray, embedding: Embedding, views: Mapping[str, View], key: Array
) -> dict[str, Embedding]:
    found = {SPECTRAL: embedding}
    for name, view in views.items():
        shown = points if view.of is None else found[view.of].values
        found[name] = Embedding(view(shown, seeds.named(key, f"view {name}")), of=view.of)
    return found


def members(labels: Any, relevance: Any, classes: Any, rows: Any) -> dict[int, np.ndarray]:
    """The rows of each class, ascending."""
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
            f"labels must be >= 0, got {labels[kept].min()}; leave samples without a class out with rows="
        )
    many = labels.ndim == 2
    present = np.flatnonzero(labels[kept].any(axis=0)) if many else np.unique(labels[kept])
    asked = present if classes is None else np.unique(np.asarray(classes))
    missing = np.setdiff1d(asked, present)
    if missing.size or not asked.size:
        raise ValueError(
            f"classes must have samples, got none of {missing.tolist() or 'any class'}; there are "
            f"{present[:10].tolist()}{' ...' if len(present) > 10 else ''}"
        )
    return {
        int(c): kept[labels[kept, c]] if many else kept[labels[kept] == c] for c in asked.tolist()
    }
