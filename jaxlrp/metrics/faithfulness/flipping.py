"""Pixel flipping, and the same with patches: region perturbation and selectivity."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.metrics.faithfulness.curves import CurveMetric, area, mean_of
from jaxlrp.metrics.features import Blocks, Features
from jaxlrp.metrics.metric import Case, metric
from jaxlrp.metrics.removal import Removal, Uniform


@metric
class PixelFlipping(CurveMetric):
    r"""How the score falls while features are removed in the order of their attributions.

    p_k = score of the target after k steps. MoRF removes the most relevant features first, LeRF the least
    relevant:

        between   mean over k >= 1 of  p_k(LeRF) - p_k(MoRF)      area between the curves, higher is better
        morf      trapezoid rule over k >= 1 of p_k(MoRF)         lower is better
        lerf      the same of p_k(LeRF)                           higher is better

    The area between the curves does not reward a removal that destroys any input, since both curves then
    fall. All three depend on the removal: the remaining input may be unlike anything that the model was
    trained on.

    Undefined (`nan`) if the attributions of all features are equal, because there is no order, or if a
    sample has at most `step` features, because all are removed at once.

    Attributes:
      features: what is removed at once.
      removal: what takes its place.
      step: features removed at each step, >= 1.
      order: which of the three is returned.
      score: "probability" or "logit" of the target.
      draws: how many random removals are averaged at each step, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Bach et al. (2015), https://doi.org/10.1371/journal.pone.0130140

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> w = jnp.array([[1.0], [2.0], [3.0]])
      >>> x = jnp.ones((1, 3))
      >>> flip = metrics.PixelFlipping(score="logit")
      >>> found = flip(lambda x: (x @ w)[:, 0], x, jnp.array([[1.0, 2.0, 3.0]]))
      >>> round(float(found[0]), 3)
      1.333
    """

    step: int = 1
    order: Literal["between", "morf", "lerf"] = "between"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("order", self.order, ("between", "morf", "lerf"))
        check_count("step", self.step)

    @property
    def higher_is_better(self) -> bool:
        return self.order != "morf"

    def _removed(self, count: int) -> Array:
        return jnp.minimum(jnp.arange(math.ceil(count / self.step) + 1) * self.step, count)

    def _compute(self, case: Case) -> Array:
        self._check_leaves_some(case, "step", self.step)
        counted = self._counted(case)
        if self.order == "between":
            morf, lerf = self._curve(case, "morf"), self._curve(case, "lerf")
            found = mean_of((lerf - morf)[:, 1:], counted)
        else:
            found = area(self._curve(case, self.order)[:, 1:], counted[:, 1:])
        defined = self._ordered(case) & (self._own(case) > self.step)
        return jnp.where(defined, found, jnp.nan)


@metric
class RegionPerturbation(CurveMetric):
    r"""How far the score has fallen, on average, while the first regions are replaced: AOPC.

    p_k = score of the target after k regions are replaced, in the order of the sums of their attributions:

        AOPC = 1 / (L + 1)  sum over k = 0 .. L of  p_0 - p_k        L = min(regions, how many there are)

    With random replacement, each p_k is the mean of several draws. Higher is better with the most relevant
    regions first, lower with the least relevant first; with random order it is the baseline to compare
    with. It rewards attributions whose regions match the blocks, and replacements unlike any data.

    Undefined (`nan`) where attributions of all regions are equal, unless the order is random, and where a
    sample has no region.

    Attributes:
      features: the regions, by default 8 x 8 patches of (height, width, channels).
      removal: what takes their place, by default uniform random numbers from 0 to 1; adapt it to the range
        of the inputs.
      regions: how many are replaced, >= 1.
      order: "morf", "lerf" or "random".
      score: "probability" or "logit" of the target.
      draws: how many random removals are averaged at each step, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Samek et al. (2017), https://doi.org/10.1109/TNNLS.2016.2599820

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> aopc = metrics.RegionPerturbation(
      ...     features=metrics.features.Blocks(0, 2), removal=metrics.removal.Constant(0.0), score="logit"
      ... )
      >>> x = jnp.ones((1, 4))
      >>> aopc(lambda x: x @ jnp.array([0.0, 0.0, 3.0, 3.0]), x, jnp.array([[0.0, 0.0, 3.0, 3.0]])).tolist()
      [4.0]
    """

    features: Features = Blocks((0, 1), 8)
    removal: Removal = Uniform(0.0, 1.0)
    regions: int = 100
    order: Literal["morf", "lerf", "random"] = "morf"
    draws: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("order", self.order, ("morf", "lerf", "random"))
        check_count("regions", self.regions)

    @property
    def higher_is_better(self) -> bool | None:
        return {"morf": True, "lerf": False}.get(self.order)

    @property
    def random(self) -> bool:
        return self.removal.random or self.order == "random"

    def _removed(self, count: int) -> Array:
        return jnp.arange(min(self.regions, count) + 1)

    def _compute(self, case: Case) -> Array:
        if self.order == "random":
            assert case.keys is not None
            keys = jax.vmap(jax.random.split)(case.keys)
            count = self.features.count(case.inputs.shape)
            drawn = jax.vmap(lambda k: jax.random.uniform(k, (count,)))(keys[:, 0])
            place = self._place(case, drawn, True)
            case = case._replace(keys=keys[:, 1])
            curve = self._cumulative(case, place, self._removed(count))
        else:
            curve = self._curve(case, self.order)
        counted = self._counted(case)
        fallen = jnp.where(counted, curve[:, :1] - curve[:, 1:], 0).sum(axis=1)
        found = fallen / (counted.sum(axis=1) + 1).astype(fallen.dtype)
        defined = self._own(case) > 0 if self.order == "random" else self._ordered(case)
        return jnp.where(defined, found, jnp.nan)


@metric
class Selectivity(CurveMetric):
    r"""The area under the curve of scores while patches are removed, most relevant first.

    p_k = score of the target after k patches are removed, in the order of the sums of their attributions:

        trapezoid rule over k >= 1 of p_k              lower is better

    The area grows with the number of patches, and falls with any removal that destroys the input;
    `PixelFlipping(features=features.Blocks((0, 1), 8))` compares both orders instead.

    Undefined (`nan`) where attributions of all patches are equal.

    Attributes:
      features: the patches, by default 8 x 8 of (height, width, channels).
      removal: what takes their place.
      score: "probability" or "logit" of the target.
      draws: how many random removals are averaged at each step, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Montavon et al. (2018), https://doi.org/10.1016/j.dsp.2017.10.011

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> area = metrics.Selectivity(features=metrics.features.Elements(), score="logit")
      >>> area(lambda x: x.sum(1), jnp.ones((1, 3)), jnp.array([[3.0, 2.0, 1.0]])).tolist()
      [2.0]
    """

    features: Features = Blocks((0, 1), 8)

    @property
    def higher_is_better(self) -> bool:
        return False

    def _removed(self, count: int) -> Array:
        return jnp.arange(count + 1)

    def _compute(self, case: Case) -> Array:
        found = area(self._curve(case, "morf")[:, 1:], self._counted(case)[:, 1:])
        return jnp.where(self._ordered(case), found, jnp.nan)
