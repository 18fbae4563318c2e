"""Turning whatever the user passes as `source` into one of the three kinds of source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from jaxlrp.dataset.readers import READERS, Reader, hdf5, open_path
from jaxlrp.dataset.source import (
    Elements,
    Indexed,
    Source,
    Stream,
    arrays,
    is_array,
    of_mapping,
)

_NONE: Mapping[str, Reader] = MappingProxyType({})


class Sliceable(Protocol):
    """An array (N, ...): NumPy, JAX, HDF5, `LazyArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any, /) -> Any: ...


class RandomAccess(Protocol):
    """Samples by position, such as a list or a `grain.MapDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


SourceLike = (
    Source | Sliceable | RandomAccess | Mapping[str, Any] | Iterable[Any] | str | os.PathLike[str]
)
"""What `attribute_dataset` takes as a source; see there."""


def as_source(source: SourceLike, readers: Mapping[str, Reader] = _NONE) -> Source:
    """A source of one of the three kinds: `Indexed`, `Elements`, `Stream`.

    Args:
      source: what the user passed.
      readers: additional file types, over `READERS`.

    Raises:
      TypeError, ValueError: if it cannot be a source, listing what can.
      FileNotFoundError: if it is a path that does not exist.
    """
    if isinstance(source, (str, os.PathLike)):
        return _of_path(Path(source), readers)
    if isinstance(source, (Indexed, Elements, Stream)):
        return source
    if hdf5.is_group(source):
        return hdf5.hdf5(source)  # pyright: ignore[reportArgumentType]  # an h5py.Group
    if is_array(source):
        return arrays(source)
    if isinstance(source, Mapping):
        return of_mapping(source)
    if isinstance(source, tuple) and source and all(map(is_array, source)):
        if len(source) > 2:
            raise ValueError(
                f"a tuple of arrays must be (inputs,) or (inputs, targets), got {len(source)} arrays: "
                'pass a dictionary with the keys "input", "target", "id"'
            )
        return arrays(*source)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return Elements(_name(source), source)
    if isinstance(source, Iterable):
        return Stream(_name(source), source)
    raise TypeError(
        "source must be an array, (inputs, targets), a dictionary of arrays, a path, a grain data "
        f"set or loader, or an iterable of samples, got {source!r}"
    )


def _of_path(path: Path, readers: Mapping[str, Reader]) -> Source:
    opened = open_path(path, {**READERS, **readers})
    if isinstance(opened, (str, os.PathLike)):
        raise TypeError(
            f"the reader of {str(path)!r} returned the path {str(opened)!r}: it must return arrays or "
            "samples"
        )
    return as_source(opened)


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
