"""Arrays that are read, or made, one slice at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Rows(Protocol):
    """Whatever has a shape and can be sliced along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Rendered:
    """An array of which a slice is made when it is asked for.

    Slice it along the first axis, or take one row; `numpy.asarray` makes all of it.

    Attributes:
      shape: of the whole.
      dtype: of what is made.
      draw: from (start, stop) to these rows.

    Example:
      >>> import numpy as np
      >>> squares = Rendered((4,), np.dtype(int), lambda start, stop: np.arange(start, stop) ** 2)
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
                raise IndexError(f"rows must be sliced in steps of 1, got {step}")
            return self.draw(start, max(start, stop))
        row = range(len(self))[key]  # raises IndexError, counts negative ones from the end
        return self.draw(row, row + 1)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


class Pictures(NamedTuple):
    """What is not a picture, made one, with its relevance at the same places.

    Attributes:
      images: (N, H, W) uint8, drawn on demand.
      relevance: (N, H, W) float32, drawn on demand.
    """

    images: Rendered
    relevance: Rendered


def as_rows(source: Any, name: str) -> Rows:
    """A source of rows: lists and JAX arrays as NumPy arrays, everything else as it is.

    A JAX array would compile a program for each slice.
    """
    if isinstance(source, (jax.Array, list, tuple)):
        return np.asarray(source)
    if not isinstance(source, Rows):
        raise TypeError(
            f"{name} must have a shape and be sliceable, as arrays are, got {type(source).__name__}"
        )
    return source


def slices(source: Rows, name: str, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of each slice; each row as large as the whole said."""
    for start in range(0, source.shape[0], size):
        expected = (min(size, source.shape[0] - start), *source.shape[1:])
        part = np.asarray(source[start : start + expected[0]])
        if part.shape != expected:
            raise ValueError(
                f"{name}[{start}:{start + expected[0]}] must have shape {expected}, as its shape "
                f"{tuple(source.shape)} says, got {part.shape}"
            )
        yield start, part
