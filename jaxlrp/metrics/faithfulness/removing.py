"""What metrics share that remove features and evaluate the model again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.metrics.features import Elements, Features
from jaxlrp.metrics.metric import Case, FaithfulnessMetric
from jaxlrp.metrics.removal import Constant, Removal
from jaxlrp.metrics.work import Score, class_scores, in_batches, over_draws

Keep = Callable[[Array, Array], Array]
"""From samples (b,) and sets (b,) to booleans (b, ...) that broadcast to the inputs: what is kept."""


class Removed(NamedTuple):
    """Inputs without a set of features.

    Attributes:
      sample: whose inputs they are, (b,).
      index: which set of features was removed, (b,).
      keep: booleans (b, ...) that broadcast to the inputs, False where a value was removed.
      inputs: changed, (b, ...).
      outputs: of the model for these; None if it was not evaluated.
    """

    sample: Array
    index: Array
    keep: Array
    inputs: Array
    outputs: Any


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RemovalMetric(FaithfulnessMetric):
    """A metric that removes sets of features.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      draws: how many random removals of each set are averaged, >= 1; a removal that draws nothing is done
        once.
      batch_size: how many changed inputs are in memory at once, >= 1.
    """

    features: Features = Elements()  # noqa: RUF009, frozen
    removal: Removal = Constant(0.0)  # noqa: RUF009, frozen
    draws: int = 1
    batch_size: int = 128

    def __post_init__(self) -> None:
        if not isinstance(self.features, Features):
            raise TypeError(
                "features must be a value of jaxlrp.metrics.features, such as features.Blocks((0, 1), "
                f"(4, 4)), got {self.features!r}"
            )
        if not isinstance(self.removal, Removal):
            raise TypeError(
                f"removal must be a value of jaxlrp.metrics.removal, got {self.removal!r}; for a "
                "number write removal.Constant(number)"
            )
        check_count("draws", self.draws)
        check_count("batch_size", self.batch_size)

    @property
    def random(self) -> bool:
        return self.removal.random

    def _after(
        self,
        case: Case,
        keep: Keep,
        sets: int,
        read: Callable[[Removed], Any],
        outputs: bool = True,
    ) -> Any:
        """What is read after the removal of each set of features, (n, sets, draws, ...).

        Args:
          keep: what is kept of a sample when a set is removed.
          sets: how many there are.
          read: from changed inputs and their outputs to a pytree of arrays (b, ...).
          outputs: whether the model is evaluated.
        """
        draws = self.draws if self.removal.random else 1

        def one(sample: Array, index: Array) -> Any:
            keys = None
            if case.keys is not None:
                keys = jax.vmap(jax.random.fold_in)(case.keys[sample], index)
            kept = keep(sample, index // draws)
            changed = self.removal(case.inputs[sample], kept, keys)
            found = case.outputs(changed, sample) if outputs else None
            return read(Removed(sample, index // draws, kept, changed, found))

        n = len(case.inputs)
        found = over_draws(one, n, sets * draws, self.batch_size)
        return jax.tree.map(lambda a: a.reshape(n, sets, draws, *a.shape[2:]), found)

    def _totals(self, case: Case) -> Array:
        """The attribution of each feature, (n, features)."""
        return self.features.total(case.attributions, case.inputs.shape)

    def _present(self, case: Case) -> Array:
        """Whether a sample has each feature, (n, features)."""
        present = self.features.present(case.inputs.shape)
        return jnp.broadcast_to(present, (len(case.inputs), present.shape[1]))

    def _own(self, case: Case) -> Array:
        """How many features each sample has, (n,)."""
        return self._present(case).sum(axis=1)

    def _check_leaves_some(self, case: Case, name: str, value: int) -> None:
        """Refuses to remove all features at once: the score would be undefined for every sample."""
        count = self.features.count(case.inputs.shape)
        if value >= count:
            raise ValueError(
                f"{name} must be less than the number of features, {count}, got {value}: all of them would "
                "be removed at once"
            )

    def _ordered(self, case: Case) -> Array:
        """Whether attributions of features differ, (n,)."""
        totals, present = self._totals(case), self._present(case)
        largest = jnp.where(present, totals, -jnp.inf).max(axis=1)
        return largest > jnp.where(present, totals, jnp.inf).min(axis=1)

    def _place(self, case: Case, values: Array, descending: bool) -> Array:
        """The place of the feature of each value in an order, from 0; without one, a very large number.

        Args:
          values: what features are ordered by, (n, features); ties go to the first feature.
          descending: largest first.

        Returns:
          Integers (n, ...) that broadcast to the inputs.
        """
        place = ranks(values, self._present(case), descending)
        absent = jnp.iinfo(place.dtype).max
        return self.features.spread(place, case.inputs.shape, absent)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreMetric(RemovalMetric):
    """A metric of the score of the target after sets of features are removed.

    Attributes:
      score: "probability" or "logit" of the target.
    """

    score: Score = "probability"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("score", self.score, ("probability", "logit"))

    def _score(self, case: Case, outputs: Array, sample: Array) -> Array:
        return class_scores(outputs, case.targets_of(sample), self.score)

    def _scores(self, case: Case, keep: Keep, sets: int) -> Array:
        """The score after the removal of each set, the mean of the draws, (n, sets)."""
        found = self._after(case, keep, sets, lambda r: self._score(case, r.outputs, r.sample))
        return found.mean(axis=2)

    def _unchanged(self, case: Case) -> Array:
        """The score of each sample, (n,)."""

        def one(sample: Array) -> Array:
            return self._score(case, case.outputs(case.inputs[sample], sample), sample)

        return in_batches(one, jnp.arange(len(case.inputs)), self.batch_size)

    def _cumulative(self, case: Case, place: Array, removed: Array) -> Array:
        """The score after the first features in an order are removed, (n, points).

        Args:
          place: of each value's feature in the order, as `_place` gives it.
          removed: how many features are removed at each point, (points,) or (n, points).
        """
        removed = jnp.broadcast_to(removed, (len(case.inputs), removed.shape[-1]))
        return self._scores(case, keep_last(place, removed), removed.shape[1])


def keep_last(place: Array, removed: Array) -> Keep:
    """Keeps all but the first features in an order.

    Args:
      place: of each value's feature in the order, (n, ...).
      removed: how many are removed in each set, (n, sets).
    """

    def keep(sample: Array, index: Array) -> Array:
        return place[sample] >= _beside(removed[sample, index], place)

    return keep


def keep_others(place: Array, step: int) -> Keep:
    """Removes one chunk of `step` consecutive features in an order at a time."""

    def keep(sample: Array, index: Array) -> Array:
        return place[sample] // step != _beside(index, place)

    return keep


def keep_unchosen(features: Features, shape: tuple[int, ...], chosen: Keep) -> Keep:
    """Removes the features that `chosen` says of each set, booleans (b, features).

    Args:
      features: to which values of an input belong.
      shape: of the inputs, (n, ...).
      chosen: the features in each set.
    """

    def keep(sample: Array, index: Array) -> Array:
        return features.spread(~chosen(sample, index), shape, True, sample)

    return keep


def ranks(values: Array, present: Array, descending: bool) -> Array:
    """The place of each feature in an order, (n, features); ties go to the first feature.

    Args:
      values: what features are ordered by, (n, features).
      present: whether a sample has the feature; those that it lacks come last.
      descending: largest first.
    """
    order = jnp.argsort(jnp.where(present, -values if descending else values, jnp.inf), axis=1)
    return jnp.argsort(order, axis=1)


def _beside(a: Array, values: Array) -> Array:
    """An array (b,) with further axes, so that it broadcasts to values (b, ...)."""
    return a.reshape(-1, *(1,) * (values.ndim - 1))
