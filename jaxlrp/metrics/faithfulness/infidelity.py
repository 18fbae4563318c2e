"""Infidelity: the squared error of the change that attributions predict."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_one_of
from jaxlrp.metrics.faithfulness.fixed import FixedSetsMetric
from jaxlrp.metrics.faithfulness.removing import Keep, Removed, keep_others
from jaxlrp.metrics.features import Blocks, Features
from jaxlrp.metrics.metric import Case, metric
from jaxlrp.metrics.work import Score


@metric
class Infidelity(FixedSetsMetric):
    r"""The error of the changes that attributions predict if one feature at a time is removed.

    With x_S the input without the feature S, and I = x - x_S the change of the input:

        mean over S of  (s_S - (f(x) - f(x_S)))^2

        sensitivity   s_S = sum_i a_i I_i              attributions per unit of the input, such as gradients
        relevance     s_S = sum over i in S of a_i     attributions that add up to the output, such as LRP

    The paper's formula is the first. Relevance already contains the factor x: the first formula would count
    it twice, and the result would be meaningless. Lower is better, from 0 upward, in squared units of the
    score: only compare it for the same samples and the same model. With `scaled`, the attributions of each
    sample are first multiplied by the factor that minimizes the error, as the authors do, so that only
    their proportions matter.

    Attributes:
      features: what is removed at once, by default 4 x 4 patches of (height, width, channels).
      removal: what takes its place.
      kind: "sensitivity" or "relevance", what the attributions are.
      scaled: whether they are scaled first. If all s_S are zero, attributions stay zero.
      score: "probability" or "logit" of the target.
      draws: how many random removals of each feature are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    Raises:
      TypeError: in a call, if kind is "sensitivity" and inputs are integers, which have no difference.
      ValueError: in a call, if kind is "sensitivity" and attributions do not have the shape of the inputs,
        such as one value for all channels.

    References:
      Yeh et al. (2019), https://arxiv.org/abs/1901.09392

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, w = 2 * jnp.ones((1, 3)), jnp.array([1.0, 2.0, 3.0])
      >>> infidelity = metrics.Infidelity(features=metrics.features.Elements(), score="logit")
      >>> infidelity(lambda x: x @ w, x, w[None]).tolist()
      [0.0]
    """

    bounds = (0.0, float("inf"))
    features: Features = Blocks((0, 1), 4)
    kind: Literal["sensitivity", "relevance"] = "sensitivity"
    scaled: bool = False
    score: Score = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("kind", self.kind, ("sensitivity", "relevance"))

    @property
    def higher_is_better(self) -> bool:
        return False

    def _check(self, arguments: Any, shapes: Any) -> None:
        super()._check(arguments, shapes)
        dtype = arguments.inputs.dtype
        if self.kind == "sensitivity" and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"the change of inputs must be a number, but inputs are {dtype}: for ids of tokens pass "
                'relevance, and Infidelity(kind="relevance")'
            )
        shape, whole = arguments.attributions.shape, arguments.inputs.shape
        if self.kind == "sensitivity" and shape != whole:
            raise ValueError(
                f"attributions must have the shape of the inputs, {whole}, since each change of an input "
                f"is multiplied by its own, got {shape}"
            )

    def _sets(self, case: Case) -> tuple[Keep, int]:
        count = self._totals(case).shape[1]  # which also checks that they tell features apart
        index = jnp.broadcast_to(jnp.arange(count), (len(case.inputs), count))
        place = self.features.spread(index, case.inputs.shape, absent=-1)
        return keep_others(place, 1), count

    def _compute(self, case: Case) -> Array:
        score, after = self._changes(case)
        change = score[:, None, None] - after
        predicted = jnp.broadcast_to(self._predicted(case), change.shape).astype(change.dtype)
        present = self._present(case)[:, :, None]
        if self.scaled:
            predicted, change = (jnp.where(present, a, 0) for a in (predicted, change))
            square = (predicted**2).sum(axis=(1, 2), keepdims=True)
            best = (predicted * change).sum(axis=(1, 2), keepdims=True)
            predicted = predicted * (best / jnp.where(square > 0, square, 1))
        error = jnp.where(present, (predicted - change) ** 2, 0).mean(axis=2).sum(axis=1)
        return error / self._own(case).astype(error.dtype)

    def _predicted(self, case: Case) -> Array:
        """The changes that the attributions predict, (n, features, draws or 1)."""
        if self.kind == "relevance":
            return self._totals(case)[:, :, None]

        def read(removed: Removed) -> Array:
            attributions = case.attributions[removed.sample]
            change = (case.inputs[removed.sample] - removed.inputs).astype(attributions.dtype)
            return (attributions * change).reshape(len(change), -1).sum(axis=1)

        return self._after(case, *self._sets(case), read, outputs=False)
