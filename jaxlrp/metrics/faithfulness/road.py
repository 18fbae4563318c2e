"""ROAD: is the target still predicted after a share of the features is imputed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_one_of, check_sequence, is_number
from jaxlrp.metrics import given
from jaxlrp.metrics.faithfulness.removing import RemovalMetric, keep_last
from jaxlrp.metrics.features import Blocks, Features
from jaxlrp.metrics.metric import Case, Predict, metric
from jaxlrp.metrics.removal import Linear, Removal


class Accuracy(NamedTuple):
    """The share of samples whose target is still predicted.

    Samples without a score, see `ROAD`, are left out.

    Attributes:
      morf: when the most relevant features are removed, (percentages,).
      lerf: when the least relevant features are removed.
      percentages: of the features that are removed.
    """

    morf: Array
    lerf: Array
    percentages: Array


@metric
class ROAD(RemovalMetric):
    r"""Remove and debias: how often the target is still predicted after features are imputed.

    For each percentage p, floor(p / 100 * features) of a sample's features are removed at once and imputed
    from their neighbors, so that the shape of the removed area reveals less to the model:

        h_p = 1 if the target has the largest output afterwards, else 0 (the mean over several draws)

        morf      mean over p of h_p, most relevant features first         lower is better
        lerf      the same, least relevant features first                  higher is better
        between   lerf - morf                                              higher is better

    The paper reports the accuracy at each p, the mean of h_p over samples: `.accuracy(...)`. The mean of
    this score over samples is the mean of that accuracy over p. Targets that the model does not predict for
    the unchanged input count as misses: use the predicted class to evaluate explanations of predictions.

    Imputation works best for smooth inputs; a model may still react to the smoothness of imputed values.

    Undefined (`nan`) where attributions of all features are equal, because there is no order, and where an
    output is `nan`.

    Attributes:
      features: what is removed at once, by default the pixels of (height, width, channels).
      removal: what takes its place, by default noisy linear imputation along the same axes.
      percentages: of the features, each from 0 to 100.
      order: which of the three is returned.
      draws: how many random removals are averaged, >= 1.
      batch_size: how many changed inputs are in memory at once, >= 1.

    References:
      Rong et al. (2022), https://arxiv.org/abs/2202.00449

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> series = metrics.ROAD(
      ...     features=metrics.features.Blocks(0), removal=metrics.removal.Linear(0), percentages=(20, 40)
      ... )
      >>> x = jnp.array([[[0.0], [0.0], [9.0], [0.0], [0.0]]])
      >>> model = lambda x: jnp.stack([x.max((1, 2)), jnp.full(len(x), 5.0)], 1)
      >>> series(model, x, x, 0, key=jax.random.key(0)).tolist()
      [0.0]
    """

    bounds = (-1.0, 1.0)
    features: Features = Blocks((0, 1))
    removal: Removal = Linear((0, 1))
    percentages: Sequence[float] = tuple(range(1, 100, 2))
    order: Literal["morf", "lerf", "between"] = "morf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("order", self.order, ("morf", "lerf", "between"))
        check_sequence("percentages", self.percentages, "(10, 50, 90)")
        percentages = tuple(self.percentages)
        if not percentages or any(is_number(p) and not 0 <= p <= 100 for p in percentages):
            raise ValueError(
                f"percentages must be one or more numbers in [0, 100], got {percentages}"
            )
        object.__setattr__(self, "percentages", percentages)

    @property
    def higher_is_better(self) -> bool:
        return self.order != "morf"

    def accuracy(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        targets: ArrayLike,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Accuracy:
        """The accuracy at each percentage, in both orders; arguments as in a call."""
        case = self._case(predict, inputs, attributions, targets, context, key)
        return self._checked_run("accuracy", type(self)._accuracy, case)

    def _accuracy(self, case: Case) -> Accuracy:
        finite = given.finite(case.attributions)
        defined = (finite & self._ordered(case))[:, None]
        morf, lerf = (
            jnp.nanmean(jnp.where(defined, self._hits(case, order), jnp.nan), axis=0)
            for order in ("morf", "lerf")
        )
        return Accuracy(morf, lerf, jnp.asarray(self.percentages, morf.dtype))

    def _check(self, arguments: Any, shapes: Any) -> None:
        super()._check(arguments, shapes)
        if len(shapes.shape) != 2 or shapes.shape[1] < 2:
            raise ValueError(
                f"ROAD counts predictions, so predict must return (n, classes) with at least two classes, "
                f"got {shapes.shape}; use PixelFlipping for one output"
            )

    def _hits(self, case: Case, order: str) -> Array:
        """Whether the target is predicted at each percentage, the mean of the draws, (n, percentages)."""
        own = self._own(case)[:, None]
        share = jnp.asarray(self.percentages, float)
        removed = jnp.floor(share * own.astype(share.dtype) / 100).astype(own.dtype)
        place = self._place(case, self._totals(case), order == "morf")
        found = self._after(
            case, keep_last(place, removed), len(self.percentages),
            lambda r: _hit(r.outputs, case.targets_of(r.sample), case.attributions.dtype),
        )  # fmt: skip
        return found.mean(axis=2)

    def _compute(self, case: Case) -> Array:
        if self.order == "between":
            found = self._hits(case, "lerf") - self._hits(case, "morf")
        else:
            found = self._hits(case, self.order)
        return jnp.where(self._ordered(case), found.mean(axis=1), jnp.nan)


def _hit(outputs: Array, targets: Array | None, dtype: jnp.dtype) -> Array:
    """1 where the target has the largest output, else 0, (b,); `nan` where an output is `nan`."""
    hit = (outputs.argmax(axis=1) == targets).astype(dtype)
    return jnp.where(jnp.isnan(outputs).any(axis=1), jnp.nan, hit)
