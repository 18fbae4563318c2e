"""Random integers that are the same everywhere."""

from __future__ import annotations

import numpy as np

from jaxlrp._checks import check_count


class Draws:
    """Integers made of the raw bits of PCG64.

    NumPy guarantees these bits for a seed, in all versions, but not what the methods of
    `numpy.random.Generator` make of them.

    Attributes:
      number: how many samples are drawn, the first axis of every result.
    """

    def __init__(self, number: int, seed: int) -> None:
        self.number = check_count("number", number)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
        self._bits = np.random.PCG64(int(seed))

    def below(self, high: int, *shape: int) -> np.ndarray:
        """Integers from 0 to high - 1, (number, *shape)."""
        return (self._raw(*shape) % np.uint64(high)).astype(np.int64)

    def around_zero(self, spread: int, *shape: int) -> np.ndarray:
        """Integers from -spread to spread, (number, *shape)."""
        return self.below(2 * spread + 1, *shape) - spread

    def orders(self, count: int) -> np.ndarray:
        """The integers from 0 to count - 1 in random order, (number, count)."""
        return np.argsort(self._raw(count), axis=1, kind="stable")

    def others(self, than: np.ndarray, high: int) -> np.ndarray:
        """Integers from 0 to high - 1 that differ from those given, of the same shape."""
        return (than + 1 + self.below(high - 1, *than.shape[1:])) % high

    def _raw(self, *shape: int) -> np.ndarray:
        size = (self.number, *shape)
        return self._bits.random_raw(int(np.prod(size))).reshape(size)
