"""Metrics that remove the same sets of features whatever the attributions are."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.metrics import given
from jaxlrp.metrics.faithfulness.removing import Keep, ScoreMetric
from jaxlrp.metrics.metric import Case, Predict


class Changes(NamedTuple):
    """Scores of a model, which do not depend on attributions.

    Attributes:
      score: of the target for each unchanged sample, (n,).
      after: the same after the removal of each set of features, (n, sets, draws).
    """

    score: Array
    after: Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FixedSetsMetric(ScoreMetric):
    """A metric that removes sets of features which attributions do not choose.

    All calls of the model can be made once, for any number of explanations of the same samples:

        changes = metric.prepare(predict, inputs, targets, key=key)
        metric(predict, inputs, attributions, targets, key=key, prepared=changes)
    """

    prepares: ClassVar[bool] = True

    def prepare(
        self,
        predict: Predict,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Changes:
        """What a call needs of the model; arguments and exceptions as in a call."""
        x = given.as_inputs(inputs)
        case = self._case(predict, x, jnp.zeros(x.shape), targets, context, key)
        return self._run("prepare", type(self)._checked_changes, case)

    def __call__(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
        prepared: Changes | None = None,
    ) -> Array:
        """The score of each sample.

        Args:
          predict, inputs, attributions, targets, context, key: as of any metric of faithfulness.
          prepared: what `prepare` returned for the same predict, inputs, targets, context and key; the
            model is not called then. None to compute it.

        Returns:
          (n,), `nan` where attributions are not finite, and where the metric says so.

        Raises:
          TypeError, ValueError, IndexError: naming the argument that is wrong.
        """
        case = self._case(predict, inputs, attributions, targets, context, key)
        if prepared is not None and not isinstance(prepared, Changes):
            raise TypeError(
                f"prepared must be what {self.name}.prepare returns, got {type(prepared).__name__}"
            )
        return self._run("score", type(self)._scored, case._replace(prepared=prepared))

    def _checked_changes(self, case: Case) -> tuple[Changes, Any]:
        shapes = self._shapes(case)
        return self._changes(case), shapes

    def _changes(self, case: Case) -> Changes:
        """What was prepared, or what the model says now."""
        keep, sets = self._sets(case)
        if case.prepared is None:
            removing = case._replace(keys=self._removal_keys(case))
            after = self._after(
                removing, keep, sets, lambda r: self._score(case, r.outputs, r.sample)
            )
            return Changes(self._unchanged(case), after)
        shape = (len(case.inputs), sets, self.draws if self.removal.random else 1)
        if jnp.shape(case.prepared.after) != shape:
            raise ValueError(
                f"prepared must be of these samples and this metric, with scores {shape} (n, sets, draws) "
                f"after removals, got {jnp.shape(case.prepared.after)}"
            )
        return case.prepared

    def _removal_keys(self, case: Case) -> Array | None:
        """From which a removal draws, (n,)."""
        return case.keys

    @abc.abstractmethod
    def _sets(self, case: Case) -> tuple[Keep, int]:
        """What is kept when a set is removed, and how many sets there are."""
