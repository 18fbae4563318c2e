"""Numbers and names of a report, from the scores of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlrp.concepts import findings
from jaxlrp.concepts.locate import Pair
from jaxlrp.concepts.opened import StoredScores


@dataclasses.dataclass(frozen=True, eq=False)
class Means:
    """Mean normalized relevance (classes, concepts) and number of samples (classes,)."""

    means: np.ndarray
    counts: np.ndarray

    @property
    def overall(self) -> np.ndarray:
        return np.average(self.means, axis=0, weights=self.counts)


def groups_of(scores: StoredScores) -> tuple[np.ndarray, list[int] | None]:
    """The index of each sample's class among those with samples, and these; None without classes."""
    if not len(scores.ids):
        raise ValueError(f"the store {str(scores.path)!r} has no samples: collect some first")
    if scores.targets is None:
        return np.zeros(len(scores.ids), np.int64), None
    classes, groups = np.unique(scores.targets, return_inverse=True)
    return groups, classes.tolist()


def means_of(scores: StoredScores, name: str, classes: list[int] | None) -> Means:
    """The means of each class, or of all samples."""
    found = scores.statistics(name, per_class=False if classes is None else classes)
    return Means(np.atleast_2d(found.prototypes), np.atleast_1d(found.count))


def names_of(labels: Any, classes: list[int] | None) -> list[str]:
    """The name of each class.

    Raises:
      ValueError: if one has none.
    """
    if classes is None:
        return ["all samples"]
    if labels is None or not len(labels):
        return [f"class {c}" for c in classes]
    try:
        return [f"{labels[c]} ({c})" for c in classes]
    except (KeyError, IndexError):
        raise ValueError(
            f"labels must name every class, up to {max(classes)}, got {len(labels)} names"
        ) from None


def top_pairs(scores: StoredScores, name: str, n: Mapping[int, int]) -> list[Pair]:
    """The samples with the largest normalized relevance of some concepts, if it is positive.

    Args:
      scores, name: of the family of concepts.
      n: samples of each concept, at most.
    """
    found = scores.top(name, k=min(max(n.values()), len(scores.ids)))
    return [
        (concept, int(row), float(value))
        for concept, count in n.items()
        for row, value in zip(
            found.rows[concept][:count], found.values[concept][:count], strict=True
        )
        if value > 0
    ]


def leading(means: np.ndarray, n: int) -> list[tuple[int, float]]:
    """(concept, share) of the n largest positive means (concepts,)."""
    order = findings.best(means)[:n]
    return [(c, float(means[c])) for c in order if means[c] > 0]
