"""Relative stability: the relative change of the attributions in units of that of the model."""

from __future__ import annotations

import abc
from typing import ClassVar

from jax import Array

from jaxlrp._checks import check_one_of
from jaxlrp.metrics.metric import metric
from jaxlrp.metrics.robustness.perturbation import Perturbation, Uniform
from jaxlrp.metrics.robustness.stability import Over, Ratios, StabilityMetric, summary


@metric
class RelativeStability(StabilityMetric):
    """A statistic of a relative ratio over the draws that do not change the predicted class.

    A function with one output has no predicted class: all draws count.

    Attributes:
      over: "max", as in the paper, "mean" or "median" over draws. Ratios have heavy tails: where an
        attribution is zero, its relative change is in units of `epsilon`. The median is much more stable.
    """

    perturbation: Perturbation = Uniform(0.02, 0.2)
    over: Over = "max"
    uses_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("over", self.over, ("max", "mean", "median"))

    def of(self, ratios: Ratios) -> Array:
        return summary(self._of(ratios), ratios.unchanged, self.over)

    @abc.abstractmethod
    def _of(self, ratios: Ratios) -> Array:
        """The ratio of which this is the statistic, (n, draws)."""


@metric
class RelativeInputStability(RelativeStability):
    r"""RIS: the relative change of the attributions in units of the relative change of the input.

        max over draws of  ||(a - a') / a|| / max(||(x - x') / x||, epsilon)

    Lower is better, from 0 up. Zeros in denominators are replaced by `epsilon`, so scores of sparse
    attributions or inputs are huge and mostly noise: use `over="median"`, and only compare methods with the
    same zeros.

    Undefined (`nan`) where every draw changes the predicted class, or attributions are not finite.

    References:
      Agarwal et al. (2022), https://arxiv.org/abs/2203.06877

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> ris = metrics.RelativeInputStability(draws=10)
      >>> x, key = jnp.ones((1, 4)), jax.random.key(0)
      >>> predict = lambda x: 5 * x.sum(axis=1)
      >>> ris(lambda x, y: 5 * x, x, predict=predict, key=key).round(4).tolist()
      [1.0]
    """

    def _of(self, ratios: Ratios) -> Array:
        assert ratios.relative_input is not None
        return ratios.relative_input


@metric
class RelativeOutputStability(RelativeStability):
    r"""ROS: the relative change of the attributions in units of the change of the outputs.

        max over draws of  ||(a - a') / a|| / max(||h(x) - h(x')||, epsilon)

    h are the outputs of `predict`, which should be logits. Lower is better, from 0 up. It depends on the
    scale of the outputs, so compare it on one model only. Zeros as in `RelativeInputStability`.

    Undefined (`nan`) where every draw changes the predicted class, or attributions are not finite.

    References:
      Agarwal et al. (2022), https://arxiv.org/abs/2203.06877

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> ros = metrics.RelativeOutputStability(draws=10)
      >>> x, key = jnp.ones((1, 1)), jax.random.key(0)
      >>> ros(lambda x, y: x, x, predict=lambda x: 4 * x[:, 0], key=key).round(4).tolist()
      [0.25]
    """

    def _of(self, ratios: Ratios) -> Array:
        assert ratios.relative_output is not None
        return ratios.relative_output


@metric
class RelativeRepresentationStability(RelativeStability):
    r"""RRS: the relative change of the attributions in units of that of a hidden representation.

        max over draws of  ||(a - a') / a|| / max(||(L(x) - L(x')) / L(x)||, epsilon)

    L is `representation`. Lower is better, from 0 up. Zeros as in `RelativeInputStability`; a layer after a
    ReLU has many.

    Undefined (`nan`) where every draw changes the predicted class, or attributions are not finite.

    References:
      Agarwal et al. (2022), https://arxiv.org/abs/2203.06877

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> rrs = metrics.RelativeRepresentationStability(draws=10, representation=lambda x: 3 * x)
      >>> x, key = jnp.ones((1, 4)), jax.random.key(0)
      >>> rrs(lambda x, y: x, x, predict=lambda x: x.sum(axis=1), key=key).round(4).tolist()
      [1.0]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.representation is None:
            raise TypeError(
                "representation is missing: pass a function from inputs to hidden values to "
                "RelativeRepresentationStability"
            )

    def _of(self, ratios: Ratios) -> Array:
        assert ratios.relative_representation is not None
        return ratios.relative_representation
