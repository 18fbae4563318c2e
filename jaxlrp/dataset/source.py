"""Samples, and the three kinds of source: `Indexed`, `Elements`, `Stream`. Nothing here reads files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

Id = int | str


class Sample(NamedTuple):
    """One sample.

    Attributes:
      id: identifies the sample in the store; an integer or a string, unique in the source.
      input: an array or a pytree of arrays, without the batch axis.
      target: the target or label that belongs to the sample, None if it has none.
      extra: further keyword arguments of the explained function, without the batch axis.
    """

    id: Id
    input: Any
    target: Any = None
    extra: Mapping[str, Any] = {}


class Failure(NamedTuple):
    """A sample that cannot be explained, and why.

    Attributes:
      id: the sample's id, None if it is not known.
      reason: why it failed.
      duplicate: whether an earlier sample has the same id, so that the id does not identify this one.
      position: position in the source, where the id is not known.
    """

    id: Id | None
    reason: str
    duplicate: bool = False
    position: int | None = None

    @property
    def name(self) -> str:
        """How messages name it."""
        return repr(f"item {self.position}" if self.id is None else self.id)


@dataclasses.dataclass(frozen=True, eq=False)
class Indexed:
    """Samples with random access and known ids.

    Attributes:
      text: short description, noted in the manifest.
      ids: id of each sample, in order.
      fetch: from N positions to N samples. An exception fails the sample, not the run.
      slow: whether fetching a sample is slow enough to be worth a thread, as decoding an image is.
      skipped: what was left out and has no id, with the reason, by name.
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
    """Samples that come one after the other.

    Attributes:
      text: short description, noted in the manifest.
      items: an iterable of elements, see `element`.
    """

    text: str
    items: Iterable[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Elements:
    """Samples with random access, whose ids are only known once they are fetched.

    Attributes:
      text: short description, noted in the manifest.
      items: has a length and an index; see `element` for what an item can be.
    """

    text: str
    items: Any

    def __len__(self) -> int:
        return len(self.items)


Source = Indexed | Elements | Stream


def arrays(
    inputs: Any, targets: Any = None, ids: Sequence[Any] | None = None, **extra: Any
) -> Indexed:
    """A source of samples along the first axis of arrays. Memory maps and HDF5 are read lazily.

    Args:
      inputs: an array (N, ...), or a pytree of such arrays.
      targets: (N, ...), or None.
      ids: N unique integers or strings; by default the position.
      **extra: (N, ...), further keyword arguments of the explained function.

    Raises:
      TypeError: if an id is neither an integer nor a string.
      ValueError: if the lengths differ, or an id is repeated.
    """
    held = jax.tree.map(_on_host, (inputs, targets, extra))
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(held)}
    if len(sizes) != 1 or sizes == {()}:
        named = {"inputs": held[0], "targets": held[1], **held[2]}
        found = ", ".join(
            f"{name} {jax.tree.map(np.shape, values)}"
            for name, values in named.items()
            if values is not None
        )
        raise ValueError(
            f"all arrays must have the samples along axis 0, as many in each, got the shapes {found}"
        )
    ((length,),) = sizes
    names = checked_ids(range(length) if ids is None else ids, length)

    def fetch(positions: Sequence[int]) -> list[Sample]:
        leaves, tree = jax.tree.flatten(held)
        columns = [_take(leaf, positions) for leaf in leaves]
        rows = (jax.tree.unflatten(tree, [c[n] for c in columns]) for n in range(len(positions)))
        return [Sample(names[i], *row) for i, row in zip(positions, rows, strict=True)]

    shape = jax.tree.map(np.shape, inputs)
    return Indexed(f"arrays {shape}", names, fetch)


def of_mapping(source: Mapping[str, Any]) -> Indexed:
    """A source from a dictionary of arrays (N, ...).

    Raises:
      ValueError: if there is no key "input".
    """
    if "input" not in source:
        raise ValueError(
            'a dictionary of arrays must have the key "input", and may have "target", "id" and '
            f"keyword arguments of the explained function; got {sorted(source)}"
        )
    rest = {k: v for k, v in source.items() if k not in ("input", "target", "id")}
    return arrays(source["input"], source.get("target"), source.get("id"), **rest)


def element(item: Any, position: int) -> Sample:
    """An item of an iterable as a sample.

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
                f"a tuple must be (id, input, target), got {len(item)} items; or use a dictionary "
                'with the keys "input", "target", "id"'
            )
        return Sample(canonical(item[0]), item[1], item[2])
    if is_array(item):
        return Sample(position, item)
    raise TypeError(
        'an item must be (id, input, target), a dictionary with the key "input", or an array, '
        f"got {type(item).__name__}"
    )


def canonical(name: Any) -> Id:
    """An id in the form in which JSON holds it.

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
    """Ids in canonical form.

    Raises:
      TypeError: if an id is neither an integer nor a string.
      ValueError: if there are not `length` of them, or one is repeated.
    """
    if isinstance(ids, range):
        return ids
    # A Python list is not turned into an array, which would give all its ids the same type.
    names = [
        canonical(name) for name in (ids if isinstance(ids, list) else np.asarray(ids).tolist())
    ]
    if len(names) != length:
        raise ValueError(f"ids must have one id for each of the {length} samples, got {len(names)}")
    if len(set(names)) != length:
        seen: set[Id] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise ValueError(f"ids must be unique: {twice!r} is repeated")
    return names


def is_array(value: Any) -> bool:
    """Whether a value can be sliced like an array: it has a shape, a dtype and an index."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")


def _take(array: Any, positions: Sequence[int]) -> Any:
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):  # HDF5 and memory maps read a slice at once
        return np.asarray(array[first : last + 1])
    return [np.asarray(array[i]) for i in positions]


def _on_host(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (jax.Array, list)) else value
