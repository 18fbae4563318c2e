"""What a head is, and the checks and sums that all of them need."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import is_number
from jaxlrp.numerics import off_zero, wide

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def head(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a pytree of its fields."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))


class Head(abc.ABC):
    """A function of features, with the relevance of each feature.

    To write one: a frozen dataclass, registered as a pytree, with the two methods below.
    """

    explained_by: ClassVar[str] = "jaxlrp.heads.explain(head)"

    @abc.abstractmethod
    def __call__(self, features: ArrayLike) -> Array:
        """The outputs.

        Args:
          features: (N, D).

        Returns:
          (N,), or (N, K) for K outputs.
        """

    @abc.abstractmethod
    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        """The relevance of each feature for a weighted sum of the outputs.

        Args:
          features: (N, D).
          weights: of the shape of the outputs: 1 for one of K outputs and 0 for the others, say.

        Returns:
          (N, D), in the unit of the outputs.
        """


def as_array(name: str, value: Any, ndim: int, shape: str) -> Array:
    """A finite floating-point array.

    Args:
      name: of the argument.
      value: what was given.
      ndim: its number of axes.
      shape: in words, for messages.

    Raises:
      ValueError: if it has other axes, is empty or is not finite.
    """
    array = np.asarray(value)
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers, got {_what_is_wrong(array)}")
    return jnp.asarray(array if np.issubdtype(array.dtype, np.floating) else array.astype(float))


def _what_is_wrong(array: np.ndarray) -> str:
    if not np.issubdtype(array.dtype, np.number):
        return f"the dtype {array.dtype}"
    return f"{np.size(array) - np.isfinite(array).sum()} that are NaN or infinite"


def as_positive(name: str, value: Any) -> Array:
    """A positive number as an array.

    Raises:
      TypeError, ValueError: if it is anything else.
    """
    number = value.item() if isinstance(value, np.generic) else value
    if not is_number(number) and np.ndim(number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < float(number) < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return jnp.asarray(float(number))


def as_features(features: ArrayLike, size: int) -> Array:
    """Features of the size that a head was made for, in float32 at the least.

    Raises:
      ValueError: if they have another shape.
    """
    features = jnp.asarray(features)
    if features.ndim != 2 or features.shape[1] != size:
        raise ValueError(
            f"features must have shape (N, {size}), as those that the head was made from, got "
            f"{features.shape}"
        )
    return features.astype(wide(features.dtype))


def squared_distances(x: Array, points: Array) -> Array:
    """|x_n - u_k|^2, (N, K), of x (N, D) and points (K, D)."""
    points = points.astype(x.dtype)
    center = points.mean(0)  # differences of small numbers are more precise
    x, u = x - center, points - center
    return jnp.maximum((x**2).sum(-1)[:, None] - 2 * dot(x, u.T) + (u**2).sum(-1), 0)


def precision_of_distances(x: Array, points: Array) -> Array:
    """What `squared_distances` cannot tell from zero, (N, K)."""
    points = points.astype(x.dtype)
    center = points.mean(0)
    sizes = ((x - center) ** 2).sum(-1)[:, None] + ((points - center) ** 2).sum(-1)
    return 100 * jnp.finfo(x.dtype).eps * sizes


def by_feature(x: Array, points: Array, weights: Array) -> Array:
    """sum_k s_nk (x_ni - u_ki)^2 for each feature i, (N, D), of weights s, (N, K)."""
    points, weights = points.astype(x.dtype), weights.astype(x.dtype)
    center = points.mean(0)
    x, u = x - center, points - center
    return x**2 * weights.sum(-1)[:, None] - 2 * x * dot(weights, u) + dot(weights, u**2)


def soft_minimum(logits: Array, gamma: Array) -> Array:
    """-1 / gamma ln sum_j exp(logits_j) over the last axis: of ln w_j - gamma d_j a minimum of d."""
    return -jax.nn.logsumexp(logits, axis=-1) / gamma.astype(logits.dtype)


def dot(a: Array, b: Array) -> Array:
    """A product of matrices in full precision."""
    return jnp.dot(a, b, precision="highest")


def share(value: Array, total: Array) -> Array:
    """value / total, where a total of zero is nudged away from it."""
    return value / off_zero(total)
