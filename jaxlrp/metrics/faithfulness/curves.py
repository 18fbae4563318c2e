"""Metrics that remove features one after another and use the curve of scores."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.metrics import given
from jaxlrp.metrics.faithfulness.removing import ScoreMetric
from jaxlrp.metrics.metric import Case, Predict


class Curves(NamedTuple):
    """Scores of the target while features are removed.

    Samples are `nan` if their attributions have no order: if all are equal or not finite.

    Attributes:
      morf: most relevant features first, (n, steps + 1), starting with the unchanged input.
      lerf: least relevant features first.
      removed: the number of features removed at each point, (steps + 1,); all, if a sample has fewer.
    """

    morf: Array
    lerf: Array
    removed: Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CurveMetric(ScoreMetric):
    """A metric of a curve of scores."""

    def curves(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Curves:
        """The whole curves, in both orders; arguments as in a call."""
        case = self._case(predict, inputs, attributions, targets, context, key)
        return self._checked_run("curves", type(self)._curves, case)

    def _curves(self, case: Case) -> Curves:
        finite = given.finite(case.attributions)
        defined = (finite & self._ordered(case))[:, None]
        morf, lerf = (
            jnp.where(defined, self._curve(case, order), jnp.nan) for order in ("morf", "lerf")
        )
        return Curves(morf, lerf, self._removed(self.features.count(case.inputs.shape)))

    @abc.abstractmethod
    def _removed(self, count: int) -> Array:
        """How many features of `count` are removed at each point, (points,), from 0."""

    def _values(self, case: Case) -> Array:
        """What features are ordered by, (n, features)."""
        return self._totals(case)

    def _curve(self, case: Case, order: str) -> Array:
        """The scores in an order of removal, "morf" or "lerf", (n, points)."""
        place = self._place(case, self._values(case), order == "morf")
        return self._cumulative(case, place, self._removed(self.features.count(case.inputs.shape)))

    def _counted(self, case: Case) -> Array:
        """Whether a sample still has something to remove at each point after the first, (n, points - 1)."""
        removed = self._removed(self.features.count(case.inputs.shape))
        return removed[:-1] < self._own(case)[:, None]


def mean_of(values: Array, counted: Array) -> Array:
    """The mean of those that count along the last axis."""
    return jnp.where(counted, values, 0).sum(axis=-1) / counted.sum(axis=-1).astype(values.dtype)


def area(curve: Array, counted: Array) -> Array:
    """The area under a curve by the trapezoid rule, steps of length 1.

    Args:
      curve: (n, points).
      counted: whether the step to each point but the first counts, (n, points - 1).
    """
    return jnp.where(counted, (curve[:, 1:] + curve[:, :-1]) / 2, 0).sum(axis=1)
