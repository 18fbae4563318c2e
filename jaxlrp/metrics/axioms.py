"""Axioms: properties that an explanation should have exactly. Metrics return the deviation from them."""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count, check_one_of, is_number
from jaxlrp.metrics.features import Elements, Features
from jaxlrp.metrics.metric import Case, FaithfulnessMetric, metric
from jaxlrp.metrics.removal import Constant, Removal
from jaxlrp.metrics.work import Score, class_scores, in_batches, over_draws


@metric
class Completeness(FaithfulnessMetric):
    r"""How far attributions are from summing to the score that they explain.

        residual = sum_i a_i - (f(x) - f(x'))         x': the baseline

        signed     residual                           0 is best, of either sign
        absolute   |residual|                         lower is better, from 0 up
        relative   |residual| / |f(x) - f(x')|        lower is better, from 0 up

    Rounding alone gives a small residual, so this is a deviation, not a test of equality. A complete
    explanation can still be wrong: it may put the relevance anywhere. Biases of the model absorb relevance,
    so most LRP rules leave a residual on networks with biases.

    Undefined (`nan`) for "relative" if the input has the same score as the baseline.

    Attributes:
      baseline: replaces all values of the input; None to compare with f(x) itself, as LRP promises.
      residual: which of the three is returned.
      score: "probability" or "logit" of the target.

    References:
      Sundararajan et al. (2017), https://arxiv.org/abs/1703.01365; Bach et al. (2015),
      https://doi.org/10.1371/journal.pone.0130140

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, a = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 2.5]])
      >>> metrics.Completeness(residual="signed")(lambda x: x.sum(axis=1), x, a).tolist()
      [0.5]
    """

    baseline: Removal | None = Constant(0.0)
    residual: Literal["signed", "absolute", "relative"] = "relative"
    score: Score = "logit"

    def __post_init__(self) -> None:
        check_one_of("residual", self.residual, ("signed", "absolute", "relative"))
        check_one_of("score", self.score, ("probability", "logit"))

    @property
    def higher_is_better(self) -> bool | None:
        return None if self.residual == "signed" else False

    @property
    def random(self) -> bool:
        return self.baseline is not None and self.baseline.random

    def _compute(self, case: Case) -> Array:
        x, everyone = case.inputs, jnp.arange(len(case.inputs))
        gained = class_scores(case.outputs(x, everyone), case.targets, self.score)
        if self.baseline is not None:
            without = self.baseline(x, jnp.zeros((1,) * x.ndim, bool), case.keys)
            outputs = case.outputs(without, everyone)
            gained = gained - class_scores(outputs, case.targets, self.score)
        total = case.attributions.reshape(len(x), -1).sum(axis=1)
        dtype = jnp.result_type(total.dtype, gained.dtype)
        residual = total.astype(dtype) - gained.astype(dtype)
        if self.residual == "signed":
            return residual
        if self.residual == "absolute":
            return jnp.abs(residual)
        return jnp.where(gained == 0, jnp.nan, jnp.abs(residual) / jnp.abs(gained).astype(dtype))


@metric
class NonSensitivity(FaithfulnessMetric):
    r"""How many features are relevant without any effect, or have an effect without being relevant.

        number of features i with   (|a_i| < epsilon)  xor  (|f(x) - f(x without i)| < output_epsilon)

    Lower is better, from 0 to the number of features. It evaluates the model once for each feature of each
    sample. It only asks whether a feature matters, not how much. It removes one feature at a time, so a
    redundant feature has no effect. Each threshold has the units of the quantity that it is compared with.

    Undefined (`nan`) if a score is `nan`, or if a sample has no feature.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      epsilon: attributions with a smaller magnitude count as zero, > 0.
      output_epsilon: changes of the score with a smaller magnitude count as zero, > 0.
      score: "probability" or "logit" of the target.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Nguyen and Martinez (2020), https://arxiv.org/abs/2007.07584

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> x, a = jnp.ones((1, 3)), jnp.array([[1.0, 0.0, 0.5]])
      >>> count = metrics.NonSensitivity(score="logit")
      >>> count(lambda x: x[:, 0] + x[:, 1], x, a).tolist()
      [2.0]
    """

    features: Features = Elements()
    removal: Removal = Constant(0.0)
    epsilon: float | Array = 1e-5
    output_epsilon: float | Array = 1e-5
    score: Score = "probability"
    batch_size: int = 128
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        for name in ("epsilon", "output_epsilon"):
            value = getattr(self, name)
            if is_number(value) and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value!r}")
        check_one_of("score", self.score, ("probability", "logit"))
        check_count("batch_size", self.batch_size)

    @property
    def higher_is_better(self) -> bool:
        return False

    @property
    def random(self) -> bool:
        return self.removal.random

    def _compute(self, case: Case) -> Array:
        shape = case.inputs.shape
        count = self.features.count(shape)
        total = self.features.total(case.attributions, shape)
        labels = self.features.labels(shape)
        of_sample = jnp.broadcast_to(labels, (shape[0], *labels.shape[1:]))

        def scores(x: Array, which: Array) -> Array:
            return class_scores(case.outputs(x, which), case.targets_of(which), self.score)

        def one(sample: Array, feature: Array) -> Array:
            label = feature.reshape(-1, *(1,) * (len(shape) - 1)).astype(labels.dtype)
            keys = None
            if case.keys is not None:
                keys = jax.vmap(jax.random.fold_in)(case.keys[sample], feature)
            keep = of_sample[sample] != label
            return scores(self.removal(case.inputs[sample], keep, keys), sample)

        before = in_batches(
            lambda i: scores(case.inputs[i], i), jnp.arange(shape[0]), self.batch_size
        )
        after = over_draws(one, shape[0], count, self.batch_size)
        idle = jnp.abs(after - before[:, None]) < self.output_epsilon
        present = self.features.present(shape)
        wrong = ((jnp.abs(total) < self.epsilon) ^ idle) & present
        broken = jnp.isnan(before) | jnp.isnan(after).any(axis=1) | ~present.any(axis=1)
        return jnp.where(broken, jnp.nan, wrong.sum(axis=1).astype(total.dtype))
