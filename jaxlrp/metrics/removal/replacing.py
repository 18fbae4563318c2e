"""What a removal is, and those whose values do not depend on what is kept."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


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
    """A removal whose values do not depend on what is kept."""

    def __call__(self, inputs: Array, keep: Array, keys: Array | None) -> Array:
        return jnp.where(keep, inputs, self.values(inputs, keys).astype(inputs.dtype))

    @abc.abstractmethod
    def values(self, inputs: Array, keys: Array | None) -> Array:
        """What takes the place of each value; broadcasts to the inputs, (b, ...)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Constant(Replacement):
    """A constant.

    Attributes:
      value: a number, or an array that broadcasts to one example, in units of the input.
    """

    value: ArrayLike = 0.0

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return jnp.asarray(self.value)


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
    """The least value of the sample ("black")."""

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return inputs.min(axis=of_batch(None, inputs.ndim), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Largest(Replacement):
    """The largest value of the sample ("white")."""

    def values(self, inputs: Array, keys: Array | None) -> Array:
        return inputs.max(axis=of_batch(None, inputs.ndim), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Uniform(Replacement):
    """Random numbers, drawn anew for each value.

    Attributes:
      low, high: in units of the input.
    """

    low: float = 0.0
    high: float = 1.0

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
      std: its standard deviation, in units of the input.
    """

    std: float = 0.1

    @property
    def random(self) -> bool:
        return True

    def values(self, inputs: Array, keys: Array | None) -> Array:
        drawn = for_each(keys, lambda k: jax.random.normal(k, inputs.shape[1:]))
        return inputs + (self.std * drawn).astype(inputs.dtype)


@dataclasses.dataclass(frozen=True)
class Blur(Replacement):
    """A Gaussian average of the sample; at the borders, of the values inside.

    Attributes:
      sigma: standard deviation of the Gaussian, in positions.
      axes: of an example along which it averages; (0, 1) of (height, width, channels).
    """

    sigma: float
    axes: tuple[int, ...] = (0, 1)

    def values(self, inputs: Array, keys: Array | None) -> Array:
        found = inputs
        for axis in self.axes:
            (axis,) = of_batch((axis,), inputs.ndim)
            position = jnp.arange(inputs.shape[axis], dtype=inputs.dtype)
            weight = jnp.exp(-0.5 * ((position[:, None] - position) / self.sigma) ** 2)
            weight = weight / weight.sum(axis=1, keepdims=True)
            found = jnp.moveaxis(jnp.tensordot(found, weight, axes=(axis, 1)), -1, axis)
        return found


def of_batch(axes: Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Axes of an example as axes of a batch."""
    return tuple(1 + a % (ndim - 1) for a in (range(ndim - 1) if axes is None else axes))


def for_each(keys: Array | None, draw: Callable[[Array], Array]) -> Array:
    assert keys is not None
    return jax.vmap(draw)(keys)
