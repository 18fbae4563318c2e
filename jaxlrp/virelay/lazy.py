"""Arrays that are read or computed slice by slice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Rows(Protocol):
    """Anything that has a shape and can be sliced along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class LazyArray:
    """An array that computes a slice when it is requested.

    Slice it along the first axis, or take one row; `numpy.asarray` computes all of it.

    Attributes:
      shape: shape of the whole array.
      dtype: dtype of the slices.
      draw: function from (start, stop) to these rows.

    Example:
      >>> import numpy as np
      >>> squares = LazyArray((4,), np.dtype(int), lambda start, stop: np.arange(start, stop) ** 2)
      >>> squares[1:3].tolist(), squares[-1].item(), np.asarray(squares).tolist()
      ([1, 4], 9, [0, 1, 4, 9])
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    draw: Callable[[int, int], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                raise IndexError(f"rows must be sliced with step 1, got step {step}")
            return self.draw(start, max(start, stop))
        row = range(len(self))[key]  # raises IndexError; negative indices count from the end
        return self.draw(row, row + 1)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


class RenderedImages(NamedTuple):
    """Data rendered as images, with its relevance at the same pixels.

    Attributes:
      images: (N, H, W) uint8, drawn on demand.
      relevance: (N, H, W) float32, drawn on demand.
    """

    images: LazyArray
    relevance: LazyArray


def as_rows(source: Any, name: str) -> Rows:
    """Converts lists and JAX arrays to NumPy arrays and returns everything else unchanged.

    A JAX array would compile a new program for each slice.
    """
    if isinstance(source, (jax.Array, list, tuple)):
        return np.asarray(source)
    if not isinstance(source, Rows):
        raise TypeError(
            f"{name} must be an array, or an object with a shape that can be sliced, got "
            f"{type(source).__name__}"
        )
    return source


def slices(source: Rows, name: str, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of each slice, after checking that it has the declared shape."""
    for start in range(0, source.shape[0], size):
        expected = (min(size, source.shape[0] - start), *source.shape[1:])
        part = np.asarray(source[start : start + expected[0]])
        if part.shape != expected:
            raise ValueError(
                f"{name}[{start}:{start + expected[0]}] must have shape {expected} to match its declared "
                f"shape {tuple(source.shape)}, got {part.shape}"
            )
        yield start, part
