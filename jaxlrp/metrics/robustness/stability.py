"""Stability: how much attributions change when inputs are perturbed a little.

All metrics of this file are statistics of one pass over perturbed inputs. With a = a(x) and a' = a(x + d),
each draw gives the ratios

    sensitivity               ||a' - a|| / ||a||
    lipschitz                 ||a' - a|| / ||d||
    relative_input            ||(a - a') / a|| / max(||(x - x') / x||, epsilon)
    relative_output           ||(a - a') / a|| / max(||h(x) - h(x')||, epsilon)          h: outputs
    relative_representation   ||(a - a') / a|| / max(||(L(x) - L(x')) / L(x)||, epsilon) L: hidden values

and a metric is the maximum, the mean or the median of one of them over draws. `ratios` returns them all.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_at_least, check_count, check_one_of
from jaxlrp.metrics.metric import Explain, Explained, Predict, RobustnessMetric, metric
from jaxlrp.metrics.robustness.distances import (
    NORMALIZE,
    Normalize,
    norm,
    normalized,
    relative_norm,
)
from jaxlrp.metrics.robustness.perturbation import Normal, Perturbation, Uniform
from jaxlrp.metrics.work import in_equal_batches, over_draws
from jaxlrp.numerics import widen

Over = Literal["max", "mean", "median"]


class Ratios(NamedTuple):
    """What each draw gave, (n, draws); None for what was not compared.

    A draw is `nan` where attributions are not finite, and where a denominator is zero.

    Attributes:
      sensitivity: change of the attributions in units of themselves.
      lipschitz: change of the attributions in units of that of the input.
      relative_input, relative_output, relative_representation: relative change of the attributions in
        units of that of the input, of the outputs, of the representation.
      unchanged: whether the predicted class is that of the unperturbed input.
    """

    sensitivity: Array
    lipschitz: Array
    relative_input: Array | None = None
    relative_output: Array | None = None
    relative_representation: Array | None = None
    unchanged: Array | None = None

    def statistics(self, relative: Over = "max") -> dict[str, Array]:
        """The score of each metric by its name, (n,) each.

        Args:
          relative: what relative ratios are summarized by; they have heavy tails.
        """
        found = {
            "MaxSensitivity": summary(self.sensitivity, None, "max"),
            "AvgSensitivity": summary(self.sensitivity, None, "mean"),
            "LocalLipschitz": summary(self.lipschitz, None, "max"),
        }
        for name in ("input", "output", "representation"):
            values = getattr(self, f"relative_{name}")
            if values is not None:
                full = f"Relative{name.capitalize()}Stability"
                found[full] = summary(values, self.unchanged, relative)
        return found


def summary(values: Array, used: Array | None, over: Over) -> Array:
    """The maximum, mean or median over draws, (n,); `nan` where no draw is used, or one that is is `nan`.

    Args:
      values: (n, draws).
      used: booleans (n, draws), None for all.
      over: which of the three.
    """
    check_one_of("over", over, ("max", "mean", "median"))
    used = jnp.ones(values.shape, bool) if used is None else used
    count = used.sum(axis=1)
    if over == "max":
        found = jnp.where(used, values, -jnp.inf).max(axis=1)
    elif over == "mean":
        found = jnp.where(used, values, 0).sum(axis=1) / count.astype(values.dtype)
    else:
        found = jnp.nanmedian(jnp.where(used, values, jnp.nan), axis=1)
    broken = (used & jnp.isnan(values)).any(axis=1) | (count == 0)
    return jnp.where(broken, jnp.nan, found)


@metric
class StabilityMetric(RobustnessMetric):
    """A statistic of one pass over perturbed inputs.

    Attributes:
      perturbation: what is added to the inputs.
      draws: perturbations of each sample, >= 1.
      normalize: attributions in units of their own sample: "max" of |a|, "rms", or "none".
      representation: from inputs (b, ...), and the context by name, to hidden values (b, ...), for
        `RelativeRepresentationStability`.
      epsilon: takes the place of zeros that relative changes divide by, >= 0.
      batch_size: how many perturbed inputs are explained at once, >= 1.
    """

    perturbation: Perturbation = Uniform(-0.2, 0.2)
    draws: int = 200
    normalize: Normalize = "none"
    representation: Callable[..., Array] | None = None
    epsilon: float | Array = 1e-6
    batch_size: int = 128
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        if not isinstance(self.perturbation, Perturbation):
            raise TypeError(
                "perturbation must be a value such as metrics.perturbation.Uniform(-0.2, 0.2), got "
                f"{self.perturbation!r}"
            )
        check_count("draws", self.draws)
        check_one_of("normalize", self.normalize, NORMALIZE)
        check_at_least("epsilon", self.epsilon, 0.0)
        check_count("batch_size", self.batch_size)

    @property
    def higher_is_better(self) -> bool:
        return False

    @property
    def random(self) -> bool:
        return True

    def ratios(
        self,
        explain: Explain,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        predict: Predict | None = None,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Ratios:
        """The ratios of all draws, from one pass; arguments as in a call.

        `Ratios.statistics` computes the scores of all metrics of this family from them. Without `predict`,
        outputs are not compared, and relative ratios are left out.
        """
        case = self._case(explain, predict, inputs, targets, context, key)
        return self._run("ratios", type(self)._measured, case)

    def _measured(self, case: Explained) -> tuple[Ratios, Any]:
        shapes = case.shapes()
        self._check(case, shapes)
        return self._ratios(case, case.predict is not None), shapes

    def _ratios(self, case: Explained, relative: bool) -> Ratios:
        """The pass.

        Args:
          relative: whether outputs are compared too, for relative ratios.
        """
        inputs = case.inputs

        def of(samples: Array) -> dict[str, Array]:
            plain = self._seen(case, inputs[samples], samples, relative)

            def one(place: Array, draw: Array) -> dict[str, Array]:
                assert case.keys is not None
                sample = samples[place]
                x = inputs[sample]
                keys = jax.vmap(jax.random.fold_in)(case.keys[sample], draw)
                changed = x + self.perturbation(x, keys).astype(x.dtype)
                seen = self._seen(case, changed, sample, relative)
                return self._compared(seen, jax.tree.map(lambda a: a[place], plain))

            return over_draws(one, len(samples), self.draws, self.batch_size)

        # Samples by batches first: what is compared, such as a representation, is never kept of all.
        return Ratios(**in_equal_batches(of, jnp.arange(len(inputs)), self.batch_size))

    def _seen(self, case: Explained, x: Array, which: Array, relative: bool) -> dict[str, Array]:
        """All that is compared, of inputs (b, ...) of the samples `which`."""
        seen = {"input": widen(x), "attributions": case.attributions(x, which)}
        seen["attributions"] = normalized(seen["attributions"], self.normalize)
        if relative:
            outputs = case.outputs(x, which)
            seen["output"] = widen(outputs).reshape(len(x), -1)
            if self.representation is not None:
                context = {name: a[which] for name, a in case.context.items()}
                seen["representation"] = widen(self.representation(x, **context))
        return seen

    def _compared(self, now: dict[str, Array], before: dict[str, Array]) -> dict[str, Array]:
        """The ratios of some draws, (b,) each."""
        a, b = now["attributions"], before["attributions"]
        change = norm(a - b)
        found = {
            "sensitivity": change / norm(b),
            "lipschitz": change / norm(now["input"] - before["input"]),
        }
        if "output" in now:
            change = relative_norm(a, b, self.epsilon)
            h, g = now["output"], before["output"]
            moved = {
                "input": relative_norm(now["input"], before["input"], self.epsilon),
                "output": norm(h - g),
            }
            if "representation" in now:
                moved["representation"] = relative_norm(
                    now["representation"], before["representation"], self.epsilon
                )
            for name, distance in moved.items():
                found[f"relative_{name}"] = change / jnp.maximum(distance, self.epsilon)
        found = {k: jnp.where(jnp.isfinite(v), v, jnp.nan) for k, v in found.items()}
        if "output" in now:
            found["unchanged"] = h.argmax(axis=1) == g.argmax(axis=1)
        return found

    @property
    def shares(self) -> Hashable:
        """What the pass depends on: metrics for which it is equal can use the same ratios."""
        return (
            self.perturbation, self.draws, self.normalize, self.representation, str(self.epsilon),
            self.batch_size,
        )  # fmt: skip

    @abc.abstractmethod
    def of(self, ratios: Ratios) -> Array:
        """The score of each sample, (n,), from the ratios of all draws."""

    def _compute(self, case: Explained) -> Array:
        return self.of(self._ratios(case, self.uses_outputs))


@metric
class MaxSensitivity(StabilityMetric):
    r"""The largest change of the attributions among perturbed inputs, in units of themselves.

        max over draws d of  ||a(x + d) - a(x)|| / ||a(x)||

    Lower is better, from 0 up. Constant attributions score best, so read it together with a faithfulness
    metric. It depends on the radius and grows with the number of draws. It does not depend on the scale of
    the attributions.

    Undefined (`nan`) where attributions of the input are all zero, or any are not finite.

    References:
      Yeh et al. (2019), https://arxiv.org/abs/1901.09392

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> square = lambda x, y: x**2
      >>> close = metrics.MaxSensitivity(perturbation=metrics.perturbation.Uniform(-0.1, 0.1))
      >>> wide = metrics.MaxSensitivity(perturbation=metrics.perturbation.Uniform(-0.4, 0.4))
      >>> x, key = jnp.ones((1, 3)), jax.random.key(0)
      >>> bool((close(square, x, key=key) < wide(square, x, key=key)).all())
      True
    """

    def of(self, ratios: Ratios) -> Array:
        return summary(ratios.sensitivity, None, "max")


@metric
class AvgSensitivity(StabilityMetric):
    r"""The mean change of the attributions among perturbed inputs, in units of themselves.

        mean over draws d of  ||a(x + d) - a(x)|| / ||a(x)||

    Lower is better, from 0 upward. Like `MaxSensitivity`, but it does not grow with the number of draws.

    Undefined (`nan`) where attributions of the input are all zero, or any are not finite.

    References:
      Yeh et al. (2019), https://arxiv.org/abs/1901.09392

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> avg = metrics.AvgSensitivity(draws=10)
      >>> avg(lambda x, y: jnp.ones_like(x), jnp.ones((2, 3)), key=jax.random.key(0)).tolist()
      [0.0, 0.0]
    """

    def of(self, ratios: Ratios) -> Array:
        return summary(ratios.sensitivity, None, "mean")


@metric
class LocalLipschitz(StabilityMetric):
    r"""The largest change of the attributions among perturbed inputs, in units of that of the input.

        max over draws d of  ||a(x + d) - a(x)||_2 / ||d||_2

    Lower is better, from 0 up. It depends on the scale of the attributions: to compare methods, pass
    `normalize="max"` or "rms". In many dimensions random directions rarely find the steepest one.

    Undefined (`nan`) where any attributions are not finite, or an input is not changed.

    References:
      Alvarez-Melis and Jaakkola (2018), https://arxiv.org/abs/1806.08049

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> lipschitz = metrics.LocalLipschitz(draws=10)
      >>> lipschitz(lambda x, y: 3 * x, jnp.zeros((1, 4)), key=jax.random.key(0)).round(4).tolist()
      [3.0]
    """

    perturbation: Perturbation = Normal(0.1)

    def of(self, ratios: Ratios) -> Array:
        return summary(ratios.lipschitz, None, "max")
