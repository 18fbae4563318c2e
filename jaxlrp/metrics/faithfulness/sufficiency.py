"""Sufficiency: do samples with similar attributions have the same prediction?"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.metrics.metric import Case, FaithfulnessMetric, metric
from jaxlrp.metrics.work import in_batches


@metric
class Sufficiency(FaithfulnessMetric):
    r"""The share of samples with similar attributions for which the model predicts the same class.

    With d_ij the distance of the attributions of samples i and j, each value in units of its standard
    deviation over the samples:

        neighbors of i    j != i with d_ij <= threshold * max over all pairs of d
        score of i        the share of its neighbors with the same predicted class

    From 0 to 1, higher is better. Unlike any other metric of this family, the score of a sample depends on
    the other samples: pass the whole set in one call, and only compare scores of the same set. The metric
    rewards attributions that encode only the class. A single outlier makes all other samples neighbors.

    The class is that of the largest output; for a single output, whether it is > 0. Targets are not used.

    Undefined (`nan`) for a sample without neighbors, and where all samples have the same attributions. A
    sample whose attributions are not finite is left out.

    Attributes:
      threshold: of the distance, as a share of the largest, from 0 to 1.
      batch_size: how many samples are evaluated at once, >= 1.

    References:
      Dasgupta et al. (2022), https://arxiv.org/abs/2202.00734

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x = jnp.array([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.8]])
      >>> metrics.Sufficiency()(lambda x: x, x, x, jnp.zeros(4, int)).tolist()
      [1.0, 1.0, 1.0, 1.0]
    """

    bounds = (0.0, 1.0)
    compares_samples = True
    threshold: float = 0.6
    batch_size: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {self.threshold!r}")
        check_count("batch_size", self.batch_size)

    @property
    def higher_is_better(self) -> bool:
        return True

    def _check(self, arguments: Any, shapes: Any) -> None:
        super()._check(arguments, shapes)
        if len(arguments.inputs) < 2:
            raise ValueError(
                "Sufficiency compares samples: pass the whole set in one call, got one sample"
            )

    def _compute(self, case: Case) -> Array:
        n = len(case.inputs)
        distance = _distances(case.attributions.reshape(n, -1))
        largest = jnp.where(jnp.isfinite(distance), distance, 0).max()
        near = (distance <= self.threshold * largest) & ~jnp.eye(n, dtype=bool)

        def predicted(sample: Array) -> Array:
            outputs = case.outputs(case.inputs[sample], sample).reshape(len(sample), -1)
            return outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs > 0)[:, 0]

        classes = in_batches(predicted, jnp.arange(n), self.batch_size)
        same = (near & (classes == classes[:, None])).sum(axis=1)
        number = near.sum(axis=1)
        share = same.astype(distance.dtype) / jnp.maximum(number, 1).astype(distance.dtype)
        return jnp.where((number > 0) & (largest > 0), share, jnp.nan)


def _distances(attributions: Array) -> Array:
    """Standardized distances of all pairs, (n, n); inf to those that are not finite.

    Values that are equal in all samples do not count.
    """
    finite = jnp.isfinite(attributions).all(axis=1)
    a = jnp.where(finite[:, None], attributions, 0)
    count = jnp.maximum(finite.sum(), 1).astype(a.dtype)
    mean = a.sum(axis=0) / count
    deviation = jnp.where(finite[:, None], a - mean, 0)
    std = jnp.sqrt((deviation**2).sum(axis=0) / count)
    scaled = deviation / jnp.where(std > 0, std, 1)
    found = lax.map(lambda row: jnp.sqrt(((row - scaled) ** 2).sum(axis=1)), scaled)
    return jnp.where(finite & finite[:, None], found, jnp.inf)
