"""Families of composites: some hyperparameters, and the composite that they make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from jaxlrp._checks import check_count, check_one_of, is_number
from jaxlrp.composites.entries import Composite
from jaxlrp.composites.given import GivenComposite, as_composite

Values = Mapping[str, float]
"""Hyperparameters by name."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a hyperparameter may have.

    Attributes:
      low, high: the ends, low < high; > 0 on a logarithmic scale.
      scale: "log", where equal ratios count alike, or "linear".

    Example:
      >>> [round(v, 3) for v in Range(0.01, 1.0).points(3)]
      [0.01, 0.1, 1.0]
    """

    low: float
    high: float
    scale: str = "log"

    def __post_init__(self) -> None:
        check_one_of("scale", self.scale, ("log", "linear"))
        for name, value in (("low", self.low), ("high", self.high)):
            if not is_number(value) or not math.isfinite(value):
                raise TypeError(f"{name} must be a finite number, got {value!r}")
        if not self.low < self.high:
            raise ValueError(f"low must be < high, got low={self.low!r} and high={self.high!r}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(
                f"low must be > 0 on a logarithmic scale, got {self.low!r}: pass scale='linear'"
            )

    def at(self, place: float) -> float:
        """The value at a place from 0 (the low end) to 1 (the high end)."""
        place = min(max(float(place), 0.0), 1.0)
        if self.scale == "linear":
            return self.low + place * (self.high - self.low)
        value = self.low * (self.high / self.low) ** place
        return min(max(value, self.low), self.high)

    def slope(self, value: float) -> float:
        """The derivative of the value with respect to its place."""
        if self.scale == "linear":
            return self.high - self.low
        return value * math.log(self.high / self.low)

    def points(self, count: int) -> list[float]:
        """Values at equal distances on the scale, both ends included; the middle, for one."""
        if check_count("count", count) == 1:
            return [self.at(0.5)]
        return [self.at(i / (count - 1)) for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Family:
    """Composites that differ in the values of hyperparameters alone.

    Attributes:
      build: from hyperparameters by name, which may be traced, to a composite. Which rule a layer gets must
        not depend on their values.
      ranges: of the hyperparameters, by name; none for a single composite.
    """

    build: Callable[..., GivenComposite]
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)

    def __call__(self, values: Mapping[str, float | Array]) -> Composite:
        """The composite with these values."""
        return as_composite(self.build(**values))


def family(build: Callable[..., GivenComposite], **ranges: Range) -> Family:
    """A family of composites for `search`.

    Args:
      build: from the hyperparameters, by name, to a composite. They are traced, so that all members share
        a compiled program: pass them on to rules, but do not compare them.
      **ranges: one `Range` for each.

    Raises:
      TypeError: if `build` cannot be called with these names, or a range is none.

    Example:
      >>> import jaxlrp as lrp
      >>> from jaxlrp import composites, tuning
      >>> gammas = tuning.family(
      ...     lambda gamma: composites.by_kind("conv", lrp.Gamma(gamma)), gamma=tuning.Range(0.01, 10.0)
      ... )
      >>> gammas({"gamma": 0.5}).entries[0].then
      Gamma(gamma=0.5, bias='absorb', stabilizer=1e-06)
    """
    if not callable(build):
        raise TypeError(
            f"build must be a function from hyperparameters to a composite, got {build!r}; a composite "
            "without hyperparameters is passed to search as it is"
        )
    if not ranges:
        raise TypeError(
            "family needs the range of at least one hyperparameter, such as "
            "gamma=tuning.Range(0.01, 10.0)"
        )
    for name, held in ranges.items():
        if not isinstance(held, Range):
            raise TypeError(f"{name} must be a tuning.Range(low, high), got {held!r}")
    made = Family(build, dict(ranges))
    try:
        made({name: held.at(0.5) for name, held in ranges.items()})
    except TypeError as error:
        raise TypeError(
            f"build must return a composite for {', '.join(ranges)}: {error}"
        ) from error
    return made


def as_families(given: Any) -> dict[str, Family]:
    """Candidates of `search` by name, all of them families.

    Raises:
      TypeError, ValueError: if there is none, or one stands for no composite.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            "candidates must be a dictionary from names to families or composites, such as "
            f'{{"default": "default"}}, got {type(given).__name__}'
        )
    if not given:
        raise ValueError("candidates is empty: pass at least one family or composite")
    found = {}
    for name, held in given.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"names of candidates must be nonempty strings, got {name!r}")
        if isinstance(held, Family):
            found[name] = held
            continue
        try:
            made = as_composite(held)
        except (TypeError, ValueError) as error:
            raise type(error)(f"candidates[{name!r}]: {error}") from None
        found[name] = Family(lambda made=made: made)
    return found
