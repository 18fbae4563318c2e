"""Mean and variance of the scores of concepts over a data set, as states that can be merged."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and variance of values, for each concept. A pytree of NumPy arrays in float64.

    Attributes:
      count: (...), integers, number of samples.
      mean: (..., concepts); 0 where there is no sample.
      squares: (..., concepts), the sum of squared deviations from the mean.
    """

    count: Any
    mean: Any
    squares: Any

    @classmethod
    def of(cls, values: ArrayLike) -> Moments:
        """The moments of some samples.

        Args:
          values: (samples, concepts).
        """
        held = np.asarray(values, np.float64)
        mean = held.mean(axis=0) if len(held) else np.zeros(held.shape[1:])
        return cls(np.int64(len(held)), mean, np.square(held - mean).sum(axis=0))

    @property
    def variance(self) -> np.ndarray:
        """(..., concepts), the mean squared deviation from the mean; NaN where there is no sample."""
        count = np.where(self.count > 0, self.count, np.nan)[..., None]
        return self.squares / count

    def merge(self, other: Moments) -> Moments:
        """The moments of the samples of both: associative and commutative up to rounding in float64.

        References:
          Chan, Golub and LeVeque (1983), https://doi.org/10.1080/00031305.1983.10483115
        """
        count = self.count + other.count
        share = np.asarray(other.count / np.maximum(count, 1))[..., None]
        apart = other.mean - self.mean
        squares = self.squares + other.squares
        squares += apart**2 * share * np.asarray(self.count)[..., None]
        return Moments(count, self.mean + apart * share, squares)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """How relevant and how active each concept is over a data set. A pytree.

    Shapes are (classes, concepts), or (concepts,) if classes are taken together. It takes 48 bytes for each
    class and concept: 25 kB per class for a layer with 512 concepts.

    Attributes:
      relevance: moments of the relevance of each concept.
      activation: moments of its activation.
      normalized: moments of its share of the sample's relevance; see `normalize`.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> relevance = np.array([[1.0, 3.0], [4.0, 0.0]])
      >>> found = concepts.Statistics.of(relevance, np.ones((2, 2)))
      >>> found.relevance.mean.tolist(), np.round(found.prototypes, 3).tolist()
      ([2.5, 1.5], [0.625, 0.375])
    """

    relevance: Moments
    activation: Moments
    normalized: Moments

    @classmethod
    def of(cls, relevance: ArrayLike, activation: ArrayLike) -> Statistics:
        """The statistics of some samples.

        Args:
          relevance, activation: (samples, concepts).
        """
        return cls(
            Moments.of(relevance), Moments.of(activation), Moments.of(normalized_on_host(relevance))
        )

    @property
    def count(self) -> Any:
        """(classes,) or (): number of samples."""
        return self.relevance.count

    @property
    def prototypes(self) -> np.ndarray:
        """(classes, concepts) or (concepts,): mean normalized relevance; NaN for a class without samples.

        They show what a class usually relies on; a sample is unusual where its own normalized relevance
        differs.
        """
        return np.where(np.asarray(self.count > 0)[..., None], self.normalized.mean, np.nan)

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of the samples of both: associative and commutative up to rounding in float64."""
        return Statistics(
            self.relevance.merge(other.relevance),
            self.activation.merge(other.activation),
            self.normalized.merge(other.normalized),
        )


def normalized_on_host(scores: ArrayLike) -> np.ndarray:
    """`normalize` with NumPy. A sample's result does not depend on the others in the array."""
    held = np.ascontiguousarray(scores)
    held = held.astype(np.float32) if held.dtype.itemsize < 4 else held
    total = np.abs(held).sum(axis=-1, keepdims=True, dtype=np.float64)
    return (held / (total + 1e-10)).astype(held.dtype)
