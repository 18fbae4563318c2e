"""Reading a store: lazy arrays, which read what is sliced."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp._checks import as_path
from jaxlrp.dataset import journal, manifest
from jaxlrp.dataset.errors import DamagedError
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.members import Member
from jaxlrp.dataset.source import Id
from jaxlrp.dataset.zarr_arrays import open_array
from jaxlrp.errors import counted, near


class LazyArray:
    """An array on disk, (samples, ...). Slicing reads the slice, as a NumPy array.

    The first axis takes an integer, a slice, an array of integers, or a mask; the others any NumPy index.

    Attributes:
      shape, dtype, ndim, size: as in NumPy.
      dims: name of each axis, "sample" first.
    """

    def __init__(
        self, name: str, array: Any, rows: np.ndarray, member: Member, chunk_size: int
    ) -> None:
        self._name, self._array, self._rows, self._chunk_size = name, array, rows, chunk_size
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
            raise IndexError("the first index selects samples, so it cannot be np.newaxis")
        if isinstance(first, (int, np.integer)) and not isinstance(first, bool):
            if not -len(self) <= first < len(self):
                raise IndexError(
                    f"sample {first} is out of range: there are {len(self)} samples, 0 to {len(self) - 1}"
                )
            block = self._read(self._rows[first : first + 1 or None])[0]
            return block[tuple(rest)] if rest else block
        if not isinstance(first, slice):
            first = np.asarray(first)
            first = first.astype(np.intp) if not first.size else first
        block = self._read(self._rows[first])
        return block[(slice(None), *rest)] if rest else block

    def take(self, order: np.ndarray) -> LazyArray:
        """The same array with some of its rows, in another order, still on disk.

        Args:
          order: (rows,), indices of samples.
        """
        member = Member(self.shape[1:], self.dtype.name, self.dims)
        return LazyArray(self._name, self._array, self._rows[order], member, self._chunk_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), self._chunk_size):
            yield from self[start : start + self._chunk_size]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "an array on disk cannot be converted without a copy: leave out copy=False"
            )
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
        ) as error:  # tensorstore raises several kinds of errors for unreadable files
            raise DamagedError(
                f"{self._name!r} cannot be read: {error}. Discard damaged chunks with "
                "jaxlrp.dataset.verify(path, repair=True), then resume the run"
            ) from error

    def __repr__(self) -> str:
        axes = ", ".join(f"{d}: {n}" for d, n in zip(self.dims, self.shape, strict=True))
        return f"<{self._name} ({axes}) {self.dtype}, on disk>"


class Relevance(Mapping[str, LazyArray]):
    """The contents of a store when it was opened: a mapping from names to lazy arrays.

    All arrays have the same rows: the samples that have relevance. The arrays, where they apply:

    * `relevance`, or `relevance.NAME` for each leaf of an input that is a pytree;
    * `record.PATH` for each recorded layer, with "." for "/";
    * `output`, `prediction` (the class with the largest output), `target` (the class or classes that
      were explained), `label` (the target from the source), `residual`
      (|R_output - R_input| / |R_output|, of the summed relevance of the sample).

    Attributes:
      path: the folder.
      manifest: what the numbers depend on: composite, plan, model, target policy, versions.
      failed: the reason for each sample without relevance, by id.
      error: the largest rounding error of relevance stored in fewer bits, relative to the largest
        relevance of the sample; None if relevance is stored as computed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = manifest.read(path)
        state = journal.state(path)
        _check_journal(path, state, self.manifest)
        self.failed: dict[Id, str] = state.without_relevance
        self.error: float | None = None
        if self.manifest.dtype is not None:
            self.error = max((line["error"] for line in state.chunks.values()), default=0.0)
        self._ids = state.ids
        rows, chunk_size = state.rows(self.manifest.chunk_size), self.manifest.chunk_size
        length = int(rows[-1]) + 1 if len(rows) else 0
        self._arrays = {
            name: LazyArray(
                name, open_array(path, name, member, length, chunk_size), rows, member, chunk_size
            )
            for name, member in self.manifest.members.items()
        }

    @property
    def ids(self) -> Sequence[Id]:
        """The id of each row: (samples,)."""
        return self._ids

    @property
    def relevance(self) -> LazyArray:
        """Relevance of the explained input; `dims` names its axes."""
        return self["relevance"]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of `relevance`."""
        return self["relevance"].dims

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names along the axis "condition", empty if there is no such axis."""
        return self.manifest.condition_names

    def find(self, ids: Sequence[Id]) -> np.ndarray:
        """The rows of the samples with the given ids: (len(ids),), integers.

        Raises:
          KeyError: if there is no such sample, or it failed, with the reason.
        """
        places = {name: row for row, name in enumerate(self._ids)}
        for name in ids:
            if name not in places:
                why = self.failed.get(name, near(str(name), map(str, places)))
                raise KeyError(f"no relevance for {name!r}: {why}")
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
        lines = [f"<relevance of {counted(len(self._ids), 'sample')} in {str(self.path)!r}>"]
        lines += [f"  {array!r}" for array in self._arrays.values()]
        if self.error is not None:
            lines.append(f"  rounding: at most {self.error:.2g} of a sample's largest relevance")
        return "\n".join(lines)


def _check_journal(path: Path, state: journal.State, held: Manifest) -> None:
    """Refuses a store that would look empty because its journals are missing."""
    chunks = (path / name / "c" for name in held.members)
    if not state.run and any(folder.is_dir() and any(folder.iterdir()) for folder in chunks):
        raise DamagedError(
            f"the store {str(path)!r} has chunks, but no journal that lists their samples: restore the "
            f"folder {journal.FOLDER!r}, or start the run again, which computes all samples again"
        )


def open_relevance(path: str | os.PathLike[str]) -> Relevance:
    """Opens a store written by `attribute_dataset`, even while a run is writing to it.

    Only the manifest and the journals are read until an array is sliced.

    Args:
      path: the folder of the store.

    Returns:
      A mapping from names to lazy arrays; `opened.relevance[10:20]` is a NumPy array.

    Raises:
      StoreError: if the folder is not a store.
      DamagedError: if the manifest or a journal cannot be read, or the journals are missing. A damaged
        chunk raises when it is read.
    """
    return Relevance(as_path("path", path))
