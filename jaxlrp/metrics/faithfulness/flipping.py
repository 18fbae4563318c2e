"""Pixel flipping: features are removed one after the other, in the order of their attributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.metrics.features import Elements, Features
from jaxlrp.metrics.metric import Case, FaithfulnessMetric, Predict, metric
from jaxlrp.metrics.removal import Constant, Removal
from jaxlrp.metrics.work import Score, class_scores, over_draws


class Curves(NamedTuple):
    """Scores of the target while features are removed.

    Attributes:
      morf: most relevant features first, (n, steps + 1), from the unchanged input on.
      lerf: least relevant features first.
      removed: how many features are removed at each point, (steps + 1,).
    """

    morf: Array
    lerf: Array
    removed: Array


def ranks(totals: Array, present: Array, descending: bool) -> Array:
    """The place of each feature in the order of removal, (n, features); ties go to the first feature.

    Args:
      totals: the attribution of each feature, (n, features).
      present: whether a sample has the feature; those that it lacks come last.
      descending: largest first.
    """
    order = jnp.argsort(jnp.where(present, -totals if descending else totals, jnp.inf), axis=1)
    return jnp.argsort(order, axis=1)


def removal_curve(
    case: Case, place: Array, removed: Array, features: Features, removal: Removal, score: Score,
    batch_size: int,
) -> Array:  # fmt: skip
    """The score of the target after the first features are removed, (n, points).

    Args:
      place: of each feature in the order of removal, (n, features).
      removed: how many features are removed at each point, (points,).
    """
    shape = case.inputs.shape
    of_value = features.spread(place, shape, absent=jnp.iinfo(place.dtype).max)

    def one(sample: Array, point: Array) -> Array:
        count = removed[point].reshape(-1, *(1,) * (len(shape) - 1))
        keep = of_value[sample] >= count
        keys = None
        if case.keys is not None:
            keys = jax.vmap(jax.random.fold_in)(case.keys[sample], point)
        changed = removal(case.inputs[sample], keep, keys)
        outputs = case.outputs(changed, sample)
        return class_scores(outputs, case.targets_of(sample), score)

    return over_draws(one, len(case.inputs), len(removed), batch_size)


@metric
class PixelFlipping(FaithfulnessMetric):
    r"""How the score falls while features are removed in the order of their attributions.

    p_k = score of the target after k steps. MoRF removes the most relevant features first, LeRF the least
    relevant:

        between   mean over k >= 1 of  p_k(LeRF) - p_k(MoRF)      area between the curves, higher is better
        morf      trapezoid rule over k >= 1 of p_k(MoRF)         lower is better
        lerf      the same of p_k(LeRF)                           higher is better

    The area between the curves does not reward a removal that destroys any input, since both curves fall
    then.

    Undefined (`nan`) where attributions of all features are equal, because there is no order.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      step: features removed at each step, >= 1.
      order: which of the three is returned.
      score: "probability" or "logit" of the target.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Bach et al. (2015), https://doi.org/10.1371/journal.pone.0130140

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> w = jnp.array([[1.0], [2.0], [3.0]])
      >>> x = jnp.ones((1, 3))
      >>> flip = metrics.PixelFlipping(score="logit")
      >>> flip(lambda x: (x @ w)[:, 0], x, jnp.array([[1.0, 2.0, 3.0]])).round(3).tolist()
      [1.333]
    """

    features: Features = Elements()
    removal: Removal = Constant(0.0)
    step: int = 1
    order: Literal["between", "morf", "lerf"] = "between"
    score: Score = "probability"
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_one_of("order", self.order, ("between", "morf", "lerf"))
        check_one_of("score", self.score, ("probability", "logit"))
        check_count("step", self.step)
        check_count("batch_size", self.batch_size)

    @property
    def higher_is_better(self) -> bool:
        return self.order != "morf"

    @property
    def random(self) -> bool:
        return self.removal.random

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
        """The whole curves; arguments as in a call."""
        case = self._case(predict, inputs, attributions, targets, context, key)
        return self._run("curves", type(self)._curves, case)

    def _curves(self, case: Case) -> tuple[Curves, Any]:
        shapes = jax.eval_shape(case.predict, case.inputs, **case.context)
        self._check(case, shapes)
        return Curves(*self._removed(case, ("morf", "lerf"))), shapes

    def _removed(self, case: Case, orders: tuple[str, ...]) -> tuple[Array, ...]:
        """The curve of each order, and how many features are removed at each point."""
        shape = case.inputs.shape
        count = self.features.count(shape)
        totals = self.features.total(case.attributions, shape)
        present = self.features.present(shape)
        points = math.ceil(count / self.step) + 1
        removed = jnp.minimum(jnp.arange(points) * self.step, count)
        curves = [
            removal_curve(
                case, ranks(totals, present, order == "morf"), removed, self.features, self.removal,
                self.score, self.batch_size,
            )
            for order in orders
        ]  # fmt: skip
        return *curves, removed

    def _compute(self, case: Case) -> Array:
        if self.order == "between":
            morf, lerf, _ = self._removed(case, ("morf", "lerf"))
            found = (lerf - morf)[:, 1:].mean(axis=1)
        else:
            curve, _ = self._removed(case, (self.order,))
            found = jnp.trapezoid(curve[:, 1:], axis=1)
        return jnp.where(self._ordered(case), found, jnp.nan)

    def _ordered(self, case: Case) -> Array:
        """Whether attributions of features differ, (n,)."""
        totals = self.features.total(case.attributions, case.inputs.shape)
        present = self.features.present(case.inputs.shape)
        largest = jnp.where(present, totals, -jnp.inf).max(axis=1)
        return largest > jnp.where(present, totals, jnp.inf).min(axis=1)
