"""Where samples come from: anything with a length and an index, or any iterable."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

Id = int | str


class Sample(NamedTuple):
    """One sample.

    Attributes:
      id: by which it is found again, an integer or a string.
      input: an array or a pytree of arrays, without the batch's axis.
      target: what the source says is to be explained; None if it says nothing.
      extra: further arguments of the explained function, by keyword.
    """

    id: Id
    input: Any
    target: Any = None
    extra: Mapping[str, Any] = {}


class Failure(NamedTuple):
    """A sample that cannot be explained, and why.

    Attributes:
      id: None of an item whose id is not known.
      reason: why.
      again: whether the id is that of an earlier sample, so that it does not name this one.
      position: in the source, of an item whose id is not known.
    """

    id: Id | None
    reason: str
    again: bool = False
    position: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return repr(f"item {self.position}" if self.id is None else self.id)


@dataclasses.dataclass(frozen=True, eq=False)
class Indexed:
    """Samples with a number.

    Attributes:
      text: what it is, for the manifest.
      ids: of every sample, in order.
      fetch: from several numbers to as many samples; may raise.
      slow: whether fetching one is worth a thread, as decoding a picture is.
      skipped: why, of what the source left out before it had an id, by name.
    """

    text: str
    ids: Sequence[Id]
    fetch: Callable[[Sequence[int]], list[Sample]]
    slow: bool = False
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Samples one after the other.

    Attributes:
      text: what it is, for the manifest.
      items: an iterable of elements, see `element`.
    """

    text: str
    items: Iterable[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Elements:
    """Samples with a number, whose ids are only known once they are fetched.

    Attributes:
      text: what it is, for the manifest.
      items: has a length and an index; see `element`.
    """

    text: str
    items: Any

    def __len__(self) -> int:
        return len(self.items)


Source = Indexed | Elements | Stream


def as_source(source: Any) -> Source:
    """What a user gives as a source, as one of the three kinds.

    Raises:
      TypeError, ValueError: if it is none, saying what can be one.
    """
    from jaxlrp.dataset import files

    if isinstance(source, (Indexed, Elements, Stream)):
        return source
    if isinstance(source, (str, os.PathLike)):
        return files.of_path(Path(source))
    if type(source).__module__.partition(".")[0] == "h5py" and hasattr(source, "keys"):
        return files.hdf5(source)
    if _is_array(source):
        return arrays(source)
    if isinstance(source, Mapping):
        return _of_mapping(source)
    if isinstance(source, tuple) and source and all(map(_is_array, source)):
        if len(source) > 2:
            raise ValueError(
                f"a tuple of arrays is (inputs,) or (inputs, targets), got {len(source)}: give a "
                'dictionary with the keys "input", "target", "id"'
            )
        return arrays(*source)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return Elements(_name(source), source)  # a grain MapDataset, a list
    if isinstance(source, Iterable):
        return Stream(_name(source), source)
    raise TypeError(
        "source must be an array, (inputs, targets), a dictionary of arrays, a folder of pictures, "
        f"an HDF5 file, a grain data set or loader, or an iterable of samples; got {source!r}"
    )


def arrays(
    inputs: Any, targets: Any = None, ids: Sequence[Any] | None = None, **extra: Any
) -> Indexed:
    """Samples along the first axis of arrays; memory maps and HDF5 are read as they are needed.

    Args:
      inputs: an array (N, ...), or a pytree of such.
      targets: (N, ...), or None.
      ids: N integers or strings; by default the position.
      **extra: (N, ...), further arguments of the explained function, by keyword.

    Raises:
      ValueError: if the lengths differ, or an id comes twice.
    """
    held = jax.tree.map(_on_host, (inputs, targets, extra))
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(held)}
    if len(sizes) != 1 or sizes == {()}:
        found = jax.tree.map(np.shape, held)
        raise ValueError(f"all arrays must have one length along their first axis, got {found}")
    ((length,),) = sizes
    names = checked_ids(range(length) if ids is None else ids, length)

    def fetch(positions: Sequence[int]) -> list[Sample]:
        leaves, tree = jax.tree.flatten(held)
        columns = [_take(leaf, positions) for leaf in leaves]
        rows = (jax.tree.unflatten(tree, [c[n] for c in columns]) for n in range(len(positions)))
        return [Sample(names[i], *row) for i, row in zip(positions, rows, strict=True)]

    shape = jax.tree.map(np.shape, inputs)
    return Indexed(f"arrays {shape}", names, fetch)


def _of_mapping(source: Mapping[str, Any]) -> Indexed:
    if "input" not in source:
        raise ValueError(
            'a dictionary of arrays must have the key "input", and may have "target", "id" and '
            f"keyword arguments of the explained function; got {sorted(source)}"
        )
    rest = {k: v for k, v in source.items() if k not in ("input", "target", "id")}
    return arrays(source["input"], source.get("target"), source.get("id"), **rest)


def element(item: Any, position: int) -> Sample:
    """One element of an iterable as a sample.

    Raises:
      TypeError, ValueError: if it is neither (id, input, target), nor a dictionary, nor an array.
    """
    if isinstance(item, Sample):
        return item
    if isinstance(item, Mapping):
        if "input" not in item:
            raise ValueError(f'a dictionary must have the key "input", got {sorted(item)}')
        rest = {k: v for k, v in item.items() if k not in ("input", "target", "id")}
        return Sample(canonical(item.get("id", position)), item["input"], item.get("target"), rest)
    if isinstance(item, tuple):
        if len(item) != 3:
            raise ValueError(
                f"a tuple must be (id, input, target), got {len(item)} items; or give a dictionary "
                'with the keys "input", "target", "id"'
            )
        return Sample(canonical(item[0]), item[1], item[2])
    if _is_array(item):
        return Sample(position, item)
    raise TypeError(
        'an element must be (id, input, target), a dictionary with the key "input", or an array, '
        f"got {type(item).__name__}"
    )


def canonical(name: Any) -> Id:
    """An id as JSON holds it.

    Raises:
      TypeError: if it is neither an integer nor a string.
    """
    if isinstance(name, np.ndarray) and name.ndim == 0:
        name = name.item()
    if isinstance(name, (bytes, np.bytes_)):
        return name.decode("utf-8", "surrogateescape")
    if isinstance(name, str):
        return str(name)
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        return int(name)
    raise TypeError(f"an id must be an integer or a string, got {name!r}")


def checked_ids(ids: Sequence[Any], length: int) -> Sequence[Id]:
    """Ids of one kind, none twice."""
    if isinstance(ids, range):
        return ids
    # a list of Python's own is not made an array, which would make one kind of all its ids
    names = [
        canonical(name) for name in (ids if isinstance(ids, list) else np.asarray(ids).tolist())
    ]
    if len(names) != length:
        raise ValueError(f"there must be one id for each of the {length} samples, got {len(names)}")
    if len(set(names)) != length:
        seen: set[Id] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise ValueError(f"every id must be its own, but {twice!r} comes twice")
    return names


def _take(array: Any, positions: Sequence[int]) -> Any:
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):  # HDF5 and the like read a slice in one go
        return np.asarray(array[first : last + 1])
    return [np.asarray(array[i]) for i in positions]


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")


def _on_host(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (jax.Array, list)) else value


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
