"""What a report says about concepts: numbers from the scores of a data set, without images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._described import described

_MIN_SAMPLES = 3
"""Samples of a class below which none of them can be called odd."""

_LEAST = 1e-6
"""The share of the largest length below which a concept is alike to nothing: its values are rounding."""


@dataclasses.dataclass(frozen=True)
class Odd:
    """A sample whose concepts are unlike those of its class.

    Attributes:
      row: of the sample.
      group: the index of its class.
      distance: see `distances`.
      differ: (concept, its normalized relevance in the sample, mean of the other samples of the class),
        those that differ most first.
    """

    row: int
    group: int
    distance: float
    differ: tuple[tuple[int, float, float], ...]


def choose(means: ArrayLike, counts: ArrayLike, per_class: int, most: int) -> list[int]:
    """The concepts that get a card: the top one of each class, then the second of each, and so on.

    Args:
      means: (classes, concepts), mean normalized relevance.
      counts: (classes,), samples.
      per_class: concepts of each class, at most.
      most: concepts in all, at most.

    Returns:
      Concepts, sorted by their mean over all samples, largest first. A concept is only chosen for a class
      if its mean in that class is positive.
    """
    held = np.asarray(means)
    ranked = [[c for c in best(row) if row[c] > 0] for row in held]
    rounds = itertools.zip_longest(*(found[:per_class] for found in ranked))
    found = list(dict.fromkeys(c for one in rounds for c in one if c is not None))[:most]
    overall = np.average(held, axis=0, weights=np.asarray(counts))
    return sorted(found, key=lambda c: (-overall[c], c))


def best(values: np.ndarray) -> list[int]:
    """The indices of values (n,), largest first; equal values keep their order."""
    return np.argsort(-values, kind="stable").tolist()


def distances(
    normalized: ArrayLike, groups: ArrayLike, means: ArrayLike, counts: ArrayLike
) -> np.ndarray:
    """How far each sample lies from its class.

    The Euclidean distance of its normalized relevance nu from the mean of the other samples of its class:
    `|nu - mean of the others| = n / (n - 1) |nu - mean|`. -inf in classes of fewer than three samples.

    Args:
      normalized: (samples, concepts).
      groups: (samples,), the index of each sample's class in `means`.
      means: (classes, concepts), with the sample itself.
      counts: (classes,), samples.

    Returns:
      (samples,), float64.
    """
    n = np.asarray(counts, np.float64)[np.asarray(groups)]
    away = np.asarray(normalized, np.float64) - np.asarray(means)[np.asarray(groups)]
    found = np.linalg.norm(away, axis=-1) * n / np.maximum(n - 1, 1)
    return np.where(n >= _MIN_SAMPLES, found, -np.inf)


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Profiles:
    """What one pass over the scores finds.

    Attributes:
      odd: the farthest samples, the farthest first.
      cosine: (shown, concepts), of the normalized relevance of each shown concept over samples with that of
        every concept of the layer. Zero for a concept with less than a millionth of the largest.
    """

    odd: list[Odd]
    cosine: np.ndarray


def profiles(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    groups: ArrayLike,
    means: ArrayLike,
    counts: ArrayLike,
    shown: Sequence[int],
    n_odd: int,
    n_differ: int = 3,
) -> Profiles:
    """Looks for odd samples and for concepts that are used for the same samples, in one pass.

    Args:
      blocks: of (rows, normalized relevance (rows, concepts)).
      groups: (samples,), the index of each row's class in `means`.
      means, counts: as in `distances`.
      shown: the concepts to compare with all others.
      n_odd: samples, at most.
      n_differ: concepts that are named for each of them.
    """
    groups, means, counts = np.asarray(groups), np.asarray(means), np.asarray(counts)
    gram, squares, odd = np.zeros((len(shown), means.shape[1])), np.zeros(means.shape[1]), []
    for rows, normalized in blocks:
        values = normalized.astype(np.float64)
        gram += values[:, list(shown)].T @ values
        squares += np.square(values).sum(axis=0)
        far = distances(normalized, groups[rows], means, counts)
        for i in best(far)[:n_odd]:
            if np.isfinite(far[i]):
                found = _odd(
                    int(rows[i]), groups, float(far[i]), normalized[i], means, counts, n_differ
                )
                odd.append(found)
        odd = sorted(odd, key=lambda found: (-found.distance, found.row))[:n_odd]
    length = np.sqrt(squares)
    length = np.where(length > _LEAST * length.max(initial=0.0), length, 0.0)
    both = np.outer(length[list(shown)], length)
    return Profiles(odd, np.divide(gram, both, out=np.zeros_like(gram), where=both > 0))


def _odd(
    row: int, groups: np.ndarray, distance: float, own: np.ndarray, means: np.ndarray,
    counts: np.ndarray, n: int,
) -> Odd:  # fmt: skip
    group = int(groups[row])
    count = int(counts[group])
    others = (means[group] * count - own) / (count - 1)
    most = best(np.abs(own - others))[:n]
    differ = tuple((c, float(own[c]), float(others[c])) for c in most)
    return Odd(row, group, float(distance), differ)


def unit(vectors: ArrayLike) -> np.ndarray:
    """Vectors (n, d) divided by their lengths; those of length zero stay zero."""
    held = np.asarray(vectors, np.float64)
    length = np.linalg.norm(held, axis=-1, keepdims=True)
    return np.divide(held, length, out=np.zeros_like(held), where=length > 0)


def pairs(
    cosine: np.ndarray, rows: Sequence[int], columns: Sequence[int], n: int
) -> list[tuple[int, int, float]]:
    """(concept, concept, cosine) of the n pairs that are most alike, each pair once.

    Args:
      cosine: (rows, columns).
      rows, columns: the concept of each.
      n: pairs, at most. None whose cosine is 0 to three decimals, or negative, is named.
    """
    found: dict[frozenset[int], tuple[int, int, float]] = {}
    for at in np.argsort(-cosine, axis=None, kind="stable"):
        i, j = divmod(int(at), len(columns))
        if cosine[i, j] < 5e-4 or len(found) == n:
            break
        if rows[i] != columns[j]:
            found.setdefault(
                frozenset((rows[i], columns[j])), (rows[i], columns[j], float(cosine[i, j]))
            )
    return list(found.values())
