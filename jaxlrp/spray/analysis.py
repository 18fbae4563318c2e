"""What an analysis of many explanations holds: embeddings of them, and clusterings of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """Points, one for each sample.

    Attributes:
      values: (n, d) floats.
      eigenvalues: (d,) of a spectral embedding, ascending; None of any other.
      of: the name of the embedding that this one was made from; None if of the relevances themselves.
    """

    values: np.ndarray
    eigenvalues: np.ndarray | None = None
    of: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Clustering:
    """A cluster for each sample.

    Attributes:
      labels: (n,) integers; -1 is noise.
      of: the name of the embedding that was clustered.
      k: how many clusters were asked for; None where the method finds their number itself.
      columns: how many columns of the embedding were clustered, the first ones; None for the first k of a
        spectral embedding, and for all of any other.
    """

    labels: np.ndarray
    of: str
    k: int | None = None
    columns: int | None = None


def used_columns(clustering: Clustering, embedding: Embedding) -> int:
    """How many columns of its embedding, the first ones, a clustering was made of."""
    columns = int(np.shape(embedding.values)[1])
    if clustering.columns is not None:
        return min(clustering.columns, columns)
    if clustering.k is not None and embedding.eigenvalues is not None:
        return min(clustering.k, columns)
    return columns


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """The analysis of one class (or of any other part of a data set).

    Attributes:
      category: the class: what its samples are labeled with.
      index: (n,) integers, the rows of the data set that were analyzed: of the relevance that was given
        to `analyze`, whatever order that has.
      embeddings, clusterings: by name.
    """

    category: int
    index: np.ndarray
    embeddings: Mapping[str, Embedding]
    clusterings: Mapping[str, Clustering]
