"""Metrics that remove the same sets of features whatever the attributions are."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.metrics import given
from jaxlrp.metrics.faithfulness.removing import Keep, Removed, ScoreMetric, keep_unchosen
from jaxlrp.metrics.faithfulness.sets import random_sets, removed_sum
from jaxlrp.metrics.metric import Case, Predict
from jaxlrp.metrics.work import over_draws


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
        return self._checked_run("prepare", type(self)._changes, case)

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
        return self._checked_run("score", type(self)._scored, case._replace(prepared=prepared))

    def _changes(self, case: Case) -> Changes:
        """What was prepared, or what the model says now."""
        if case.prepared is not None:
            return self._held_changes(case)
        after, _ = self._evaluated(case, lambda removed: ())
        return Changes(self._unchanged(case), after)

    def _evaluated(self, case: Case, read: Callable[[Removed], Any]) -> tuple[Array, Any]:
        """Scores after removal, and what is read, (n, sets, draws, ...)."""
        removing = case._replace(keys=self._removal_keys(case))
        return self._after(
            removing, *self._sets(case),
            lambda r: (self._score(case, r.outputs, r.sample), read(r)),
        )  # fmt: skip

    def _held_changes(self, case: Case) -> Changes:
        """What was prepared, if it is of these samples."""
        shape = (len(case.inputs), self._sets(case)[1], self.draws if self.removal.random else 1)
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RandomSetsMetric(FixedSetsMetric):
    """A metric that removes random sets of features, several of each size."""

    @property
    def random(self) -> bool:
        return True

    @abc.abstractmethod
    def _drawn(self, case: Case) -> tuple[Array, int]:
        """The sizes of the sets of each sample, (n, sizes), and how many sets of each are drawn.

        A size is at most the number of features of the sample.
        """

    def _removal_keys(self, case: Case) -> Array:
        return self._keys(case)[:, 1]

    def _keys(self, case: Case) -> Array:
        """Keys of sets and of removals, (n, 2)."""
        assert case.keys is not None
        return jax.vmap(jax.random.split)(case.keys)

    def _chosen(self, case: Case) -> Keep:
        """The features of each set, booleans (b, features)."""
        keys, present, (sizes, runs) = (
            self._keys(case)[:, 0],
            self._present(case),
            self._drawn(case),
        )

        def chosen(sample: Array, index: Array) -> Array:
            drawn = jax.vmap(jax.random.fold_in)(keys[sample], index)
            return random_sets(drawn, present[sample], sizes[sample, index // runs])

        return chosen

    def _sets(self, case: Case) -> tuple[Keep, int]:
        sizes, runs = self._drawn(case)
        keep = keep_unchosen(self.features, case.inputs.shape, self._chosen(case))
        return keep, sizes.shape[1] * runs

    def _changes_and_sums(self, case: Case) -> tuple[Changes, Array]:
        """What the model says, and the attribution of each set, (n, sets)."""
        if case.prepared is None:  # sets are drawn once for both
            after, sums = self._evaluated(case, lambda removed: removed_sum(case, removed))
            return Changes(self._unchanged(case), after), sums.mean(axis=2)
        changes, totals, chosen = self._held_changes(case), self._totals(case), self._chosen(case)

        def summed(sample: Array, index: Array) -> Array:
            return jnp.where(chosen(sample, index), totals[sample], 0).sum(axis=1)

        sets = changes.after.shape[1]
        return changes, over_draws(summed, len(totals), sets, self.batch_size)
