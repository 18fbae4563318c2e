"""Writing a store: Zarr v3 arrays, a manifest, and journals.

    store/zarr.json               a Zarr group
    store/manifest.json           what the numbers depend on: composite, plan, model, target policy, ...
    store/relevance/zarr.json     one array per member, chunked by sample
    store/relevance/c/7/0/0/0     chunk 7
    store/journal/00000.jsonl     what process 0 has done: ids and checksums of each chunk
    store/.jaxlrp.lock            held by the run that writes

A chunk is committed in three steps, each durable before the next begins:

1. The chunk of each member is encoded in memory, and its checksum computed.
2. Each is written to its file by tensorstore: temporary name, fsync, rename, fsync of the folder.
3. One line in the journal lists the chunk, its ids, and the size and checksum of each file.

A kill before step 3 leaves files without a line: the number of the chunk stays free, and a later run
overwrites them. After step 3 the files are never touched again, unless `verify` finds them damaged and a
"void" line frees the number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxlrp.dataset import safe_files, zarr_arrays
from jaxlrp.dataset.durable import full_disk_as_error
from jaxlrp.dataset.errors import StoreError, need
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.members import Member
from jaxlrp.dataset.source import Failure, Id
from jaxlrp.dataset.zarr_arrays import Encoder, files

_TRIED = 100  # chunks whose place may be blocked by something that cannot be removed


def checksum(data: bytes) -> str:
    """The checksum of the bytes of a file: BLAKE2b, 128 bits, hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclasses.dataclass(eq=False)
class Tally:
    """Counts over the samples that this run has committed.

    Attributes:
      samples, failed, bytes: counts.
      error: the largest rounding error, relative to a sample's largest relevance.
    """

    samples: int = 0
    failed: int = 0
    bytes: int = 0
    error: float = 0.0


class Writer:
    """Collects samples and commits them chunk by chunk.

    Args:
      path: the store.
      members: its arrays, by name.
      chunk_size: rows per chunk.
      free: numbers of the chunks that this process may write, ascending.
      journal: the journal of this process.
      identity: of the store, see `Manifest.identity`.
    """

    def __init__(
        self,
        path: Path,
        members: Mapping[str, Member],
        chunk_size: int,
        free: Iterator[int],
        journal: Journal,
        identity: str,
    ) -> None:
        ts = need("tensorstore", "writing a store")
        self.tally = Tally()
        self._path, self._members, self._chunk_size = path, members, chunk_size
        self._free, self._journal, self._identity = free, journal, identity
        self._encoders = {name: Encoder(member, chunk_size) for name, member in members.items()}
        with full_disk_as_error(path):
            self._files = ts.KvStore.open({"driver": "file", "path": f"{path}/"}).result()
        self._ids: list[Id] = []
        self._held: dict[str, list[np.ndarray]] = {name: [] for name in members}
        self._error = 0.0

    def add(self, ids: list[Id], rows: Mapping[str, np.ndarray], error: float) -> None:
        """Adds samples, rows (samples, ...); full chunks are committed when this returns."""
        self._ids += ids
        self._error = max(self._error, error)
        for name, parts in self._held.items():
            parts.append(rows[name])
        while len(self._ids) >= self._chunk_size:
            self._commit(self._chunk_size)

    def fail(self, failure: Failure) -> None:
        """Notes a sample that has no relevance."""
        with full_disk_as_error(self._path):
            if failure.id is None:
                self._journal.append(
                    "unread", position=failure.position, reason=failure.reason, sync=False
                )
            else:
                kind = "again" if failure.duplicate else "failed"
                self._journal.append(kind, id=failure.id, reason=failure.reason, sync=False)
        self.tally.failed += 1

    def finish(self) -> None:
        """Commits the remaining samples as a partial chunk."""
        if self._ids:
            self._commit(len(self._ids))

    def _commit(self, count: int) -> None:
        number = self._number()
        encoded: dict[str, bytes] = {}
        for name, parts in self._held.items():
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            encoded[name] = self._encoders[name](whole[:count])
            self._held[name] = [whole[count:]]
        sums = {name: [len(data), checksum(data)] for name, data in encoded.items()}
        with full_disk_as_error(self._path):
            writes = [
                self._files.write(files(name, self._members[name], number), data)
                for name, data in encoded.items()
            ]
            for write in writes:
                write.result()
            ids, self._ids = self._ids[:count], self._ids[count:]
            self._journal.append(
                "chunk", chunk=number, ids=ids, files=sums, error=self._error, store=self._identity
            )
        self.tally.samples += count
        self.tally.bytes += sum(map(len, encoded.values()))
        self.tally.error = max(self.tally.error, self._error)
        self._error = 0.0

    def _number(self) -> int:
        """The number of the next chunk that can be written. Whatever blocks its files is removed.

        Raises:
          StoreError: if the files of many chunks in a row cannot be written.
        """
        for number in itertools.islice(self._free, _TRIED):
            paths = (self._path / files(name, m, number) for name, m in self._members.items())
            if all(safe_files.clear(self._path, path) for path in paths):
                return number
        raise StoreError(
            f"no chunk can be written to {str(self._path)!r}: make its folders writable, then start the "
            "same run again"
        )


def free_chunks(state: State, part: int, parts: int) -> Iterator[int]:
    """Numbers of the chunks that the `part`-th of `parts` processes may write, without end."""
    numbers = (c for c in itertools.count() if c not in state.chunks)
    return itertools.islice(numbers, part, None, parts)


def finish(path: Path, members: Mapping[str, Member], chunk_size: int, state: State) -> None:
    """Sets the length of the arrays to what was stored, and removes files without a journal line."""
    set_metadata(path, members, chunk_size, state)
    for orphan in [*orphans(path, members, state), *_unfinished(path)]:
        with contextlib.suppress(OSError):  # files that cannot be removed are harmless
            orphan.unlink(missing_ok=True)


def set_metadata(path: Path, members: Mapping[str, Member], chunk_size: int, state: State) -> None:
    """Rewrites the metadata of the group and of all arrays."""
    length = length_of(state, chunk_size)
    with full_disk_as_error(path):
        if not zarr_arrays.group_holds(path):
            zarr_arrays.set_group(path)
        for name, member in members.items():
            zarr_arrays.set_rows(path, name, member, chunk_size, length)


def length_of(state: State, chunk_size: int) -> int:
    """Number of rows of the arrays, up to the last one that holds a sample."""
    rows = state.rows(chunk_size)
    return int(rows[-1]) + 1 if len(rows) else 0


def _unfinished(path: Path) -> list[Path]:
    """Temporary files left by a kill: our own, and those of tensorstore, which end in ".__lock"."""
    return [*path.glob(".*.tmp"), *path.glob("journal/*.tmp"), *path.glob("*/*.__lock")]


def orphans(path: Path, members: Mapping[str, Member], state: State) -> list[Path]:
    """Files of chunks without a journal line, as a kill leaves them."""
    known = {
        path / files(name, member, number)
        for name, member in members.items()
        for number in state.chunks
    }
    found = (p for name in members for p in safe_files.tree(path / name / "c")[0])
    return [p for p in found if p not in known]


def numbers(path: Path, members: Mapping[str, Member], found: list[Path]) -> set[int]:
    """Numbers of the chunks to which files belong."""
    parts = [p.relative_to(path).parts for p in found]
    return {
        int(p[2])
        for p in parts
        if len(p) > 2 and p[2].isdecimal() and "/".join(p) == files(p[0], members[p[0]], int(p[2]))
    }
