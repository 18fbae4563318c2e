"""Reading a store: arrays that are read where they are sliced."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import journal, manifest
from jaxlrp.dataset.errors import DamagedError
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.program import Member
from jaxlrp.dataset.source import Id
from jaxlrp.dataset.store import open_array
from jaxlrp.errors import near


class LazyArray:
    """An array on disk, one row for each sample. What is sliced is read, as a NumPy array.

    The first axis takes an integer, a slice, integers, or a mask; the others whatever NumPy takes.

    Attributes:
      shape, dtype, ndim: as of a NumPy array.
      dims: a name for each axis, "sample" first.
    """

    def __init__(self, name: str, array: Any, rows: np.ndarray, member: Member, chunk: int) -> None:
        self._name, self._array, self._rows, self._chunk = name, array, rows, chunk
        self.shape: tuple[int, ...] = (len(rows), *member.shape)
        self.dtype: np.dtype = np.dtype(array.dtype.numpy_dtype)
        self.dims = member.dims

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if isinstance(key, tuple) and not key:
            return self._read(self._rows)
        if first is Ellipsis:
            return self._read(self._rows)[key]
        if first is None:
            raise IndexError("the first index speaks of samples: np.newaxis cannot stand there")
        if isinstance(first, (int, np.integer)) and not isinstance(first, bool):
            if not -len(self) <= first < len(self):
                raise IndexError(f"sample {first} is out of range: there are {len(self)}")
            block = self._read(self._rows[first : first + 1 or None])[0]
            return block[tuple(rest)] if rest else block
        if not isinstance(first, slice):
            first = np.asarray(first)
            first = first.astype(np.intp) if not first.size else first
        block = self._read(self._rows[first])
        return block[(slice(None), *rest)] if rest else block

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), self._chunk):
            yield from self[start : start + self._chunk]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on disk cannot be had without a copy")
        found = self._read(self._rows)
        return found if dtype is None else found.astype(dtype, copy=False)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, *self.shape[1:]), self.dtype)
        joined = len(rows) == 1 or bool((np.diff(rows) == 1).all())
        part = self._array[int(rows[0]) : int(rows[-1]) + 1] if joined else self._array[rows]
        try:
            return part.read().result()
        except (
            Exception
        ) as error:  # tensorstore has errors of several kinds for what it cannot read
            raise DamagedError(
                f"{self._name!r} cannot be read: {error}. Find what is damaged with "
                "jaxlrp.dataset.verify(path, mend=True), then resume the run"
            ) from error

    def __repr__(self) -> str:
        axes = ", ".join(f"{d}: {n}" for d, n in zip(self.dims, self.shape, strict=True))
        return f"<{self._name} ({axes}) {self.dtype}, on disk>"


class Relevance(Mapping[str, LazyArray]):
    """A store, as it was when it was opened. A mapping from names to lazy arrays.

    Rows of all arrays are the same samples, those that have a relevance. The arrays, where they apply:

    * `relevance`, or `relevance.NAME` for each leaf of an input that is a pytree;
    * `record.PATH` for each recorded layer, with "." for "/";
    * `output`, `prediction` (the class of the greatest output), `target` (the class or classes that
      were explained), `label` (what the source gave), `residual` (|begun - arrived| / |begun|).

    Attributes:
      path: the folder.
      manifest: what the numbers depend on: composite, plan, model, target policy, versions.
      failed: why samples have no relevance, by their id.
      error: the greatest error of storing relevances in fewer bits, in units of the largest relevance of
        the sample; None where they are stored as they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = manifest.read(path)
        state = journal.state(path)
        _check_journal(path, state, self.manifest)
        self.failed: dict[Id, str] = state.listed
        self.error: float | None = None
        if self.manifest.dtype is not None:
            self.error = max((line["error"] for line in state.chunks.values()), default=0.0)
        self._ids = state.ids
        rows, chunk = state.rows(self.manifest.chunk), self.manifest.chunk
        length = int(rows[-1]) + 1 if len(rows) else 0
        self._arrays = {
            name: LazyArray(
                name, open_array(path, name, member, length, chunk), rows, member, chunk
            )
            for name, member in self.manifest.members.items()
        }

    @property
    def ids(self) -> Sequence[Id]:
        """The id of each row."""
        return self._ids

    @property
    def relevance(self) -> LazyArray:
        """Of the explained input; see `dims` for its axes."""
        return self["relevance"]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of `relevance`."""
        return self["relevance"].dims

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names along the axis "condition"; none where there is no such axis."""
        return self.manifest.condition_names

    def find(self, ids: Sequence[Id]) -> np.ndarray:
        """The rows of samples.

        Raises:
          KeyError: if there is no such sample, or it failed, with the reason.
        """
        places = {name: row for row, name in enumerate(self._ids)}
        for name in ids:
            if name not in places:
                why = self.failed.get(name, near(str(name), map(str, places)))
                raise KeyError(f"there is no relevance of {name!r}: {why}")
        return np.array([places[name] for name in ids], np.intp)

    def __getitem__(self, name: str) -> LazyArray:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"the store has no array {name!r}: {near(name, self._arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        lines = [f"<relevances of {len(self._ids)} samples in {str(self.path)!r}>"]
        lines += [f"  {array!r}" for array in self._arrays.values()]
        if self.error is not None:
            lines.append(f"  rounding: at most {self.error:.2g} of a sample's largest relevance")
        return "\n".join(lines)


def _check_journal(path: Path, state: journal.State, held: Manifest) -> None:
    """Refuses a store that would look empty because its journals are gone."""
    chunks = (path / name / "c" for name in held.members)
    if not state.run and any(folder.is_dir() and any(folder.iterdir()) for folder in chunks):
        raise DamagedError(
            f"the store {str(path)!r} has chunks, but no journal says of which samples: put back "
            f"its folder {journal.FOLDER!r}, or start the run on it again, which computes all samples again"
        )


def open_relevance(path: str | os.PathLike[str]) -> Relevance:
    """Opens what `attribute_dataset` has written; also while a run still writes.

    Nothing but the manifest and the journals is read until an array is sliced.

    Args:
      path: the folder.

    Returns:
      A mapping from names to arrays; `opened.relevance[10:20]` is a NumPy array.

    Raises:
      StoreError: if the folder is no store.
      DamagedError: if its manifest or a journal cannot be read, or its journals are gone. A damaged
        chunk raises where it is read.
    """
    return Relevance(Path(path))
