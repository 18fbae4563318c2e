"""What a removal is, and those whose values do not depend on what is kept."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_at_least, check_not_text, check_range
from jaxlrp._compat import is_traced
from jaxlrp.metrics.pooling import axes_of


class Removal(abc.ABC):
    """What takes the place of the values that are removed.

    Attributes:
      random: whether it draws random numbers.
    """

    @property
    def random(self) -> bool:
        """Whether it draws random numbers."""
        return False

    @abc.abstractmethod
    def __call__(self, inputs: Array, keep: Array, keys: Array | None) -> Array:
        """Inputs without some of their values.

        Args:
          inputs: (b, ...).
          keep: booleans (b, ...) that broadcast to the inputs: False where a value is removed.
          keys: one random key for each sample, None if it draws nothing.

        Returns:
          Like inputs.
        """


class Replacement(Removal):
    """A removal whose values do not depend on what is kept.

    Raises:
      TypeError: in a call, if inputs are integers and what takes their place is not.
    """

    def __call__(self, inputs: Array, keep: Array, keys: Array | None) -> Array:
        values = self.values(inputs, keys)
        if not _is_float(inputs.dtype) and _is_float(values.dtype):
            raise TypeError(
                f"removal.{type(self).__name__} returns {values.dtype}, but inputs are {inputs.dtype}: "
                "for ids of tokens use removal.Constant(mask_id) or removal.Donors(data)"
            )
        return jnp.where(keep, inputs, values.astype(inputs.dtype))

    @abc.abstractmethod
    def values(self, inputs: Array, keys: Array | None) -> Array:
        """What takes the place of each value; broadcasts to the inputs, (b, ...)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Constant(Replacement):
    """A constant.

    Attributes:
      value: a number, or an array that broadcasts to one example, in units of the input.

    Raises:
      ValueError: in a call, if the value does not broadcast to one example, or is no value of inputs that
        are integers.
    """

    value: ArrayLike = 0.0

    def values(self, inputs: Array, keys: Array | None) -> Array:
        check_not_text("value of removal.Constant", self.value)
        shape, example = jnp.shape(self.value), inputs.shape[1:]
        if not _broadcasts(shape, example):
            raise ValueError(
                f"value of removal.Constant must broadcast to one example, {example}, got shape {shape}"
            )
        if _is_float(inputs.dtype) or is_traced(self.value):
            return jnp.asarray(self.value)
        held = np.asarray(self.value)
        with np.errstate(invalid="ignore"):
            found = held.astype(inputs.dtype)
        if (found != held).any():
            raise ValueError(
                f"value of removal.Constant must be a value of the inputs, which are {inputs.dtype}, got "
                f"{self.value}"
            )
        return jnp.asarray(found)


@dataclasses.dataclass(frozen=True)
class Mean(Replacement):
    """The mean of the sample.

    Attributes:
      axes: over which axes of an example; (0, 1) of (height, width, channels) gives one for each channel.
        None for all.
    """

    axes: tuple[int, ...] | None = None

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return inputs.mean(axis=of_batch(self.axes, inputs.ndim), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Least(Replacement):
    """The smallest value of the sample ("black")."""

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return inputs.min(axis=of_batch(None, inputs.ndim), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Largest(Replacement):
    """The largest value of the sample ("white")."""

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return inputs.max(axis=of_batch(None, inputs.ndim), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Uniform(Replacement):
    """Random numbers, drawn independently for each value.

    Attributes:
      low, high: in units of the input.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_range(self.low, self.high)

    @property
    def random(self) -> bool:
        return True

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return for_each(
            keys,
            lambda k: jax.random.uniform(k, inputs.shape[1:], minval=self.low, maxval=self.high),
        )


@dataclasses.dataclass(frozen=True)
class Noise(Replacement):
    """The values themselves, plus normal noise.

    Attributes:
      std: its standard deviation, >= 0, in units of the input.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        check_at_least("std", self.std, 0)

    @property
    def random(self) -> bool:
        return True

    def values(self, inputs: Array, keys: Array | None) -> Array:
        drawn = for_each(keys, lambda k: jax.random.normal(k, inputs.shape[1:]))
        return inputs.astype(drawn.dtype) + self.std * drawn


@dataclasses.dataclass(frozen=True)
class Blur(Replacement):
    """A Gaussian average of the sample; at the borders, of the values inside.

    Attributes:
      sigma: standard deviation of the Gaussian, > 0, in positions.
      axes: of an example along which it averages; (0, 1) of (height, width, channels).
    """

    sigma: float
    axes: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        if self.sigma is None or isinstance(self.sigma, str) or not self.sigma > 0:
            raise ValueError(f"sigma must be a number > 0, got {self.sigma!r}")

    def values(self, inputs: Array, keys: Array | None) -> Array:
        found = inputs if _is_float(inputs.dtype) else inputs.astype(float)
        for axis in of_batch(self.axes, inputs.ndim):
            position = jnp.arange(inputs.shape[axis], dtype=found.dtype)
            weight = jnp.exp(-0.5 * ((position[:, None] - position) / self.sigma) ** 2)
            weight = weight / weight.sum(axis=1, keepdims=True)
            found = jnp.moveaxis(jnp.tensordot(found, weight, axes=(axis, 1)), -1, axis)
        return found


def of_batch(axes: Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Axes of an example as axes of a batch; all of them for None.

    Raises:
      ValueError: if there is no such axis, or one comes twice.
    """
    return axes_of(range(ndim - 1) if axes is None else axes, ndim, "axes")


def _is_float(dtype: jnp.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


def _broadcasts(shape: tuple[int, ...], example: tuple[int, ...]) -> bool:
    """Whether an array of this shape broadcasts to an example, perhaps with one axis of length 1 more."""
    if len(shape) == len(example) + 1 and shape[0] == 1:
        shape = shape[1:]
    behind = example[len(example) - len(shape) :]
    return len(shape) <= len(example) and all(
        a in (1, b) for a, b in zip(shape, behind, strict=True)
    )


def for_each(keys: Array | None, draw: Callable[[Array], Array]) -> Array:
    assert keys is not None
    return jax.vmap(draw)(keys)
