"""Results of an analysis of many explanations: embeddings and clusterings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxlrp._described import described


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """One point per sample.

    Attributes:
      values: (n, d) floats.
      eigenvalues: (d,), ascending, for a spectral embedding; otherwise None.
      base: the name of the embedding that this one was computed from; None if computed from the relevance.
    """

    values: np.ndarray
    eigenvalues: np.ndarray | None = None
    base: str | None = None


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Clustering:
    """A cluster label for each sample.

    Attributes:
      labels: (n,) integers; -1 is noise.
      base: the name of the embedding that was clustered.
      n_clusters: the requested number of clusters; None if the method determines it.
      n_columns: the number of leading columns of the embedding that were clustered. None means the first
        `n_clusters` of a spectral embedding, and all columns of any other embedding.
    """

    labels: np.ndarray
    base: str
    n_clusters: int | None = None
    n_columns: int | None = None


def used_columns(clustering: Clustering, embedding: Embedding) -> int:
    """The number of leading columns of its embedding that a clustering used."""
    columns = int(np.shape(embedding.values)[1])
    if clustering.n_columns is not None:
        return min(clustering.n_columns, columns)
    if clustering.n_clusters is not None and embedding.eigenvalues is not None:
        return min(clustering.n_clusters, columns)
    return columns


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """The analysis of one class (or of any other subset of a data set).

    Attributes:
      category: the class label of the samples.
      index: (n,) integers, the analyzed rows of the relevance that was given to `analyze`, whatever its
        order.
      embeddings, clusterings: by name.
    """

    category: int
    index: np.ndarray
    embeddings: Mapping[str, Embedding]
    clusterings: Mapping[str, Clustering]
