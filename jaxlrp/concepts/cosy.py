"""How well a text explains a unit: activations on samples that show it, against control samples (CoSy)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.numerics import widen


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class CoSy:
    """Scores of an explanation, one for each unit. A pytree; `cosy` makes it.

    Attributes:
      auc: (units,), the probability that a sample that shows the text activates the unit more than a
        control sample does, in [0, 1]; ties count half. 0.5 is chance.
      mean_difference: (units,), the difference of mean activations in units of the standard deviation (with
        1/n) of the control samples; inf or NaN if that is zero.
    """

    auc: Any
    mean_difference: Any


def cosy(shown: ArrayLike, control: ArrayLike) -> CoSy:
    """How well a text explains units. May be traced.

    The published method generates the images that show the text. Here they are yours: samples that you name
    or retrieve, which must not be the samples from which the text was made.

    Args:
      shown: (samples, units), activations on samples that show the text; one number per sample and unit,
        such as `scores(...).activation`.
      control: (control samples, units), on samples that do not.

    Returns:
      The `CoSy`.

    Raises:
      ValueError: if shapes do not fit, or a value is not finite.

    References:
      Kopf et al. (2024), CoSy: Evaluating Textual Explanations of Neurons, https://arxiv.org/abs/2405.20331

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> found = concepts.cosy(np.array([[3.0], [1.0]]), np.array([[0.0], [2.0]]))
      >>> found.auc.tolist(), found.mean_difference.tolist()
      ([0.75], [1.0])
    """
    a, b = _activations("shown", shown), _activations("control", control)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"shown and control must have the same units, got {a.shape[1]} and {b.shape[1]}"
        )
    dtype = jnp.promote_types(a.dtype, b.dtype)
    a, b = a.astype(dtype), b.astype(dtype)
    return CoSy(
        auc=jax.vmap(_auc, in_axes=1)(a, b),
        mean_difference=(a.mean(axis=0) - b.mean(axis=0)) / b.std(axis=0),
    )


def _activations(name: str, given: ArrayLike) -> Array:
    found = widen(jnp.asarray(given))
    if found.ndim != 2 or not len(found) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be floats of shape (samples, units), at least one sample, got {found.dtype} of "
            f"shape {found.shape}"
        )
    if not _compat.is_traced(found) and not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, got NaN or inf")
    return found


def _auc(a: Array, b: Array) -> Array:
    """The share of pairs with a > b, ties counting half."""
    ordered = jnp.sort(b)
    below = jnp.searchsorted(ordered, a, side="left")
    up_to = jnp.searchsorted(ordered, a, side="right")
    return (below + up_to).astype(a.dtype).mean() / (2 * len(b))
