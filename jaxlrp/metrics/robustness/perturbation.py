"""How inputs are changed a little: what is added to them.

* `Uniform(low, high)`: independent uniform numbers.
* `Normal(std)`: independent normal numbers.

Your own perturbation is a subclass of `Perturbation` with one method.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
from jax import Array

from jaxlrp._checks import check_at_least, check_range


class Perturbation(abc.ABC):
    """What is added to the inputs."""

    @abc.abstractmethod
    def __call__(self, inputs: Array, keys: Array) -> Array:
        """The change of each input.

        Args:
          inputs: floats (b, ...).
          keys: one random key for each sample, (b,).

        Returns:
          Like inputs, in their units.
        """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Perturbation):
    """Uniform numbers, drawn independently for each value.

    Attributes:
      low, high: in units of the input, low < high; -0.2 and 0.2 is a radius of 0.2.
    """

    low: float | Array = -0.2
    high: float | Array = 0.2

    def __post_init__(self) -> None:
        check_range(self.low, self.high)

    def __call__(self, inputs: Array, keys: Array) -> Array:
        def draw(key: Array) -> Array:
            return jax.random.uniform(
                key, inputs.shape[1:], inputs.dtype, minval=self.low, maxval=self.high
            )

        return jax.vmap(draw)(keys)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Perturbation):
    """Normal numbers with mean zero, drawn independently for each value.

    Attributes:
      std: their standard deviation, >= 0, in units of the input.
    """

    std: float | Array = 0.1

    def __post_init__(self) -> None:
        check_at_least("std", self.std, 0.0)

    def __call__(self, inputs: Array, keys: Array) -> Array:
        drawn = jax.vmap(lambda key: jax.random.normal(key, inputs.shape[1:], inputs.dtype))(keys)
        return self.std * drawn
