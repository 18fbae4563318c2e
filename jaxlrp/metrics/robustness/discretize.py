"""Discrete codes of explanations: when two attributions count as the same explanation.

* `Signs()`: the sign of every feature.
* `Top(count)`: which features have the largest |a|, and their signs.
* `Ranks()`: the order of all features.
* `Rounded(decimals)`: all attributions, rounded.

Your own function from attributions (n, features) to codes (n, k) also works.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count


@dataclasses.dataclass(frozen=True)
class Signs:
    """The sign of every feature."""

    def __call__(self, attributions: Array) -> Array:
        return jnp.sign(attributions)


@dataclasses.dataclass(frozen=True)
class Top:
    """Which features have the largest |a|, in any order, and their signs.

    Attributes:
      count: how many, >= 1; ties go to the first feature.
    """

    count: int = 5

    def __post_init__(self) -> None:
        check_count("count", self.count)

    def __call__(self, attributions: Array) -> Array:
        order = jnp.argsort(-jnp.abs(attributions), axis=1)
        place = jnp.argsort(order, axis=1)
        return jnp.where(place < self.count, jnp.sign(attributions), 0)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The order of all features; ties go to the first feature."""

    def __call__(self, attributions: Array) -> Array:
        return jnp.argsort(-attributions, axis=1)


@dataclasses.dataclass(frozen=True)
class Rounded:
    """All attributions, rounded.

    Attributes:
      decimals: how many are kept.
    """

    decimals: int = 2

    def __call__(self, attributions: Array) -> Array:
        return jnp.round(attributions, self.decimals)
