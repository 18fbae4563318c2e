"""In which order the members of a family are tried."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxlrp._checks import check_count, is_number
from jaxlrp.tuning.families import Family


class Asked(NamedTuple):
    """What is to be evaluated next.

    Attributes:
      values: of the hyperparameters, one dictionary for each candidate.
      slopes: whether derivatives of the objective are asked for.
    """

    values: list[dict[str, float]]
    slopes: bool = False


Proposals = Generator[Asked, "list[dict[str, float]]", None]
"""Yields what to evaluate; is sent the derivatives of each candidate, by name, if it asked for them."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """All combinations of values at equal distances on their scales.

    Attributes:
      points: values of each hyperparameter, >= 1.
    """

    points: int = 5

    def __post_init__(self) -> None:
        check_count("points", self.points)

    def propose(self, family: Family, name: str, key: Any) -> Proposals:
        """Members of the family; see `Proposals`."""
        del name, key
        each = [held.points(self.points) for held in family.ranges.values()]
        yield Asked(
            [dict(zip(family.ranges, row, strict=True)) for row in itertools.product(*each)]
        )


@dataclasses.dataclass(frozen=True)
class Random:
    """Values drawn at random, uniformly on their scales; needs `key`.

    With several hyperparameters, of which few matter, it finds good values earlier than a grid.

    Attributes:
      trials: how many candidates of each family, >= 1.

    References:
      Bergstra and Bengio (2012), https://jmlr.org/papers/v13/bergstra12a.html
    """

    trials: int = 20

    def __post_init__(self) -> None:
        check_count("trials", self.trials)

    def propose(self, family: Family, name: str, key: Any) -> Proposals:
        """Members of the family; see `Proposals`."""
        if not family.ranges:
            yield Asked([{}])
            return
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        places = np.asarray(jax.random.uniform(own, (self.trials, len(family.ranges))), float)
        yield Asked(
            [
                {n: held.at(u) for (n, held), u in zip(family.ranges.items(), row, strict=True)}
                for row in places
            ]
        )


@dataclasses.dataclass(frozen=True)
class Gradient:
    """Follows the derivative of the objective with respect to all hyperparameters at once (Adam).

    The objective must change smoothly with the relevance: `FaithfulnessCorrelation`, `Infidelity`,
    `SensitivityN` and `RelevanceMass` do; metrics of the order of features, such as `PixelFlipping`, do
    not. A step takes two to three times as long as an evaluation. Starts in the middle of all ranges; the
    best candidate on the way counts.

    Attributes:
      steps: evaluations of each family, >= 1.
      rate: the length of the first step, as a share of each range on its scale, > 0; it falls to 0.
    """

    steps: int = 10
    rate: float = 0.15

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if not is_number(self.rate) or not self.rate > 0:
            raise ValueError(f"rate must be a number > 0, got {self.rate!r}")

    def propose(self, family: Family, name: str, key: Any) -> Proposals:
        """Members of the family; see `Proposals`."""
        del name, key
        if not family.ranges:
            yield Asked([{}])
            return
        ranges = family.ranges
        rate = optax.cosine_decay_schedule(self.rate, self.steps)
        adam = optax.adam(rate, b1=0.7, b2=0.9)
        place = np.full(len(ranges), 0.5, np.float32)
        state = adam.init(place)
        for step in range(self.steps):
            values = {
                n: held.at(u) for (n, held), u in zip(ranges.items(), place.tolist(), strict=True)
            }
            (slopes,) = yield Asked([values], slopes=True)
            if step + 1 == self.steps:
                return
            ascent = np.array([slopes[n] * held.slope(values[n]) for n, held in ranges.items()])
            with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by counts
                update, state = adam.update(-ascent.astype(np.float32), state)
            place = np.clip(place + np.asarray(update), 0.0, 1.0)


Method = Grid | Random | Gradient
