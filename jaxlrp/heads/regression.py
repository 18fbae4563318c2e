"""Predictions against a reference value."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.heads.head import Head, as_array, as_features, dot, head


@described
@head
class Regression(Head):
    """What a linear layer adds to a reference; `regression` makes it.

    Attributes:
      weight: w, (D, M).
      reference: features that stand for the reference, one row for each output, (M, D).
    """

    weight: Array
    reference: Array

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.weight.shape[0])
        weight, reference = self.weight.astype(x.dtype), self.reference.astype(x.dtype)
        return dot(x, weight) - (reference.T * weight).sum(0)

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.weight.shape[0])
        weight, reference = self.weight.astype(x.dtype), self.reference.astype(x.dtype)
        return x * dot(weights, weight.T) - dot(weights, weight.T * reference)


def regression(weight: ArrayLike, reference: ArrayLike) -> Regression:
    r"""How much a prediction differs from a reference value, in the unit of the prediction.

    f(a) - f(a'),   f(a) = sum_j a_j w_j + b,   R_j = (a_j - a'_j) w_j

    A regression has no class to explain: "why 300?" asks for a comparison, such as "rather than the mean of
    250". a' are features that a sample with the reference value has, see `mean_of_nearest`. R_j sums to
    f(a) - f(a'), exactly.

    Args:
      weight: w of the last layer, (D,), or (D, M) for M outputs.
      reference: a', (D,), or one row for each output, (M, D).

    Returns:
      A head of the inputs of the last layer, (N, D), with outputs f(a) - f(a'), (N, M).

    Raises:
      ValueError: if shapes do not fit.

    References:
      Letzgus et al. (2022), "Toward Explainable Artificial Intelligence for Regression Models",
      https://doi.org/10.1109/MSP.2022.3153277

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> price = heads.regression([2.0, 10.0], reference=[60.0, 3.0])
      >>> result = heads.explain(price)(np.array([[80.0, 2.0]]))
      >>> result.output.tolist(), result.relevance.tolist()  # 40 for size, -10 for rooms
      ([[30.0]], [[40.0, -10.0]])
    """
    ndim = np.ndim(weight)
    found = as_array("weight", weight, min(max(ndim, 1), 2), "(features,) or (features, outputs)")
    found = found[:, None] if found.ndim == 1 else found
    size, count = found.shape
    rows = as_array(
        "reference",
        reference,
        min(max(np.ndim(reference), 1), 2),
        "(features,) or (outputs, features)",
    )
    rows = jnp.broadcast_to(rows, (count, size)) if rows.shape == (size,) else rows
    if rows.shape != (count, size):
        raise ValueError(
            f"reference must have shape ({size},) or ({count}, {size}), to fit weight {found.shape}, got "
            f"{rows.shape}"
        )
    return Regression(found, rows)


def mean_of_nearest(
    features: ArrayLike, predictions: ArrayLike, value: float, count: int = 20
) -> Array:
    """The mean features of the samples whose predictions are nearest to a value.

    The mean of their predictions, not `value` itself, is then the reference of `regression`: a linear
    layer predicts the mean for mean features.

    Args:
      features: of samples, (N, D).
      predictions: of the same samples, (N,).
      value: the reference value, in the unit of the predictions.
      count: how many samples, 1 to N.

    Returns:
      (D,).

    Raises:
      ValueError: if shapes do not fit, there are fewer samples, or none is near: the value lies outside of
        all predictions.

    Example:
      >>> from jaxlrp import heads
      >>> features = [[1.0], [2.0], [3.0], [4.0]]
      >>> heads.mean_of_nearest(features, [10.0, 20.0, 30.0, 40.0], value=26.0, count=2).tolist()
      [2.5]
    """
    found = as_array("features", features, 2, "(samples, features)")
    outputs = np.asarray(as_array("predictions", predictions, 1, "(samples,)"))
    if outputs.shape != found.shape[:1]:
        raise ValueError(
            f"predictions must have shape ({len(found)},), one for each sample, got {outputs.shape}"
        )
    if check_count("count", count) > len(found):
        raise ValueError(f"count must be at most the number of samples, {len(found)}, got {count}")
    if not outputs.min() <= value <= outputs.max():
        raise ValueError(
            f"value must lie between the predictions, {outputs.min():.4g} to {outputs.max():.4g}, or no "
            f"sample stands for it, got {value!r}"
        )
    nearest = np.argsort(np.abs(outputs - value), kind="stable")[:count]
    return found[nearest].mean(0)
