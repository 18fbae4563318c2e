"""Writing a store: Zarr v3 arrays, a manifest, and journals.

    out/zarr.json                 a Zarr group
    out/manifest.json             what the store is: composite, plan, model, target policy, members, ...
    out/relevance/zarr.json       one array for each member, chunked by sample
    out/relevance/c/7/0/0/0       chunk 7
    out/journal/00000.jsonl       what process 0 has done: ids and checksums of each chunk
    out/.jaxlrp.lock              held by the run that writes

A chunk is committed in three steps, each durable before the next begins:

1. Each member's chunk is encoded in memory, and its checksum taken.
2. Each is written to its file, by tensorstore: to a temporary name, fsync, rename, fsync of the folder.
3. One line in the journal names the chunk, its ids, and size and checksum of its files.

A kill before 3 leaves files of which no line speaks: the chunk's number is free, a later run
overwrites them. A chunk's files are never touched after 3, but when `verify` found them damaged and a
`void` line made the number free again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import foreign
from jaxlrp.dataset.durable import full_disk_said, write_json
from jaxlrp.dataset.errors import StoreError, need
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.program import Member
from jaxlrp.dataset.source import Failure, Id

GROUP = "/"
"""The group's name in reports, as Zarr calls it."""
_METADATA = "zarr.json"
_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}
_TRIED = 100  # chunks in whose place something may stand that cannot be removed
_LEVEL = 1  # of Zstandard: faster than any disk, and nearly as small as with more


def checksum(data: bytes) -> str:
    """Of the bytes of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def metadata(member: Member, rows: int, chunk: int) -> dict[str, Any]:
    """The Zarr v3 metadata of a member with so many rows."""
    floating = "float" in member.dtype
    return {
        "shape": [rows, *member.shape],
        "data_type": member.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunk, *(max(n, 1) for n in member.shape)]},
        },
        "fill_value": "NaN" if floating else False if member.dtype == "bool" else 0,
        "codecs": [
            {"name": "bytes", **({"configuration": {"endian": "little"}} if _wide(member.dtype) else {})},
            {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}},
            {"name": "crc32c"},
        ],
        "dimension_names": list(member.dims),
    }  # fmt: skip


def _wide(dtype: str) -> bool:
    return dtype not in ("bool", "int8", "uint8")


def open_array(path: Path, name: str, member: Member, rows: int, chunk: int) -> Any:
    """A member for reading, as long as the journal says, whatever its own metadata say."""
    ts = need("tensorstore", "reading relevances")
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path / name}/"},
        "metadata": metadata(member, rows, chunk),
        "fill_missing_data_reads": False,  # a file that is gone is damage, not NaN
    }
    return ts.open(spec, open=True, read=True, assume_metadata=True).result()


def files(name: str, member: Member, chunk: int) -> str:
    """The file of a member's chunk, below the store."""
    return "/".join([name, "c", str(chunk), *("0" for _ in member.shape)])


def create(path: Path, members: Mapping[str, Member], chunk: int, rows: int) -> None:
    """Makes the group and its arrays, of which nothing is filled. Doing it again changes nothing."""
    set_group(path)
    for name, member in members.items():
        (path / name).mkdir(exist_ok=True)
        set_rows(path, name, member, chunk, rows)


def set_group(path: Path) -> None:
    """Writes the metadata of the group that holds the arrays."""
    foreign.clear(path, path / _METADATA)
    write_json(path / _METADATA, _GROUP)


def group_holds(path: Path) -> bool:
    """Whether the metadata of the group are those that were written."""
    try:
        return json.loads(foreign.read(path / _METADATA)) == _GROUP
    except (OSError, ValueError, RecursionError):
        return False


def set_rows(path: Path, name: str, member: Member, chunk: int, rows: int) -> None:
    """Writes a member's metadata, as tensorstore spells them, with so many rows."""
    ts = need("tensorstore", "writing relevances")
    foreign.clear(path, path / name / _METADATA)
    memory = ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "memory"},
            "metadata": metadata(member, rows, chunk),
        },
        create=True,
        context=ts.Context(),
    ).result()
    kvstore = ts.KvStore.open({"driver": "file", "path": f"{path / name}/"}).result()
    kvstore.write(_METADATA, memory.kvstore[_METADATA]).result()


def metadata_hold(path: Path, name: str, member: Member, chunk: int, rows: int | None) -> bool:
    """Whether a member's metadata on disk are those that were written, for `rows` if these are known."""
    try:
        found = json.loads(foreign.read(path / name / _METADATA))
        if rows is not None and found["shape"][0] != rows:
            return False
        return all(
            found[key] == value
            for key, value in metadata(member, found["shape"][0], chunk).items()
            if key != "codecs"
        ) and [c["name"] for c in found["codecs"]] == ["bytes", "zstd", "crc32c"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


class _Encoder:
    """Encodes chunks of one member."""

    def __init__(self, member: Member, chunk: int) -> None:
        ts = need("tensorstore", "writing relevances")
        self._shape = (chunk, *member.shape)
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "memory"},
            "metadata": metadata(member, chunk, chunk),
            "store_data_equal_to_fill_value": True,
        }
        self._array = ts.open(spec, create=True, context=ts.Context()).result()
        self._key = files("", member, 0).lstrip("/")
        self._fill = np.asarray(self._array.fill_value)

    def __call__(self, rows: np.ndarray) -> bytes:
        if len(rows) < self._shape[0]:
            rest = np.broadcast_to(self._fill, (self._shape[0] - len(rows), *self._shape[1:]))
            rows = np.concatenate([rows, rest.astype(rows.dtype)])
        self._array.write(rows).result()
        return self._array.kvstore[self._key]


@dataclasses.dataclass(eq=False)
class Tally:
    """Of the samples that this run has committed: how many, how many failed, and their worst.

    Attributes:
      samples, failed, bytes: counts.
      error: the greatest error of a smaller dtype, in units of a sample's largest relevance.
    """

    samples: int = 0
    failed: int = 0
    bytes: int = 0
    error: float = 0.0


class Writer:
    """Collects rows and commits them chunk by chunk.

    Args:
      path: the store.
      members: its arrays.
      chunk: rows of a chunk.
      free: the numbers of chunks that this process may write, ascending.
      journal: of this process.
      identity: of the store, see `Manifest.identity`.
    """

    def __init__(
        self,
        path: Path,
        members: Mapping[str, Member],
        chunk: int,
        free: Iterator[int],
        journal: Journal,
        identity: str,
    ) -> None:
        ts = need("tensorstore", "writing relevances")
        self.tally = Tally()
        self._path, self._members, self._chunk = path, members, chunk
        self._free, self._journal, self._identity = free, journal, identity
        self._encoders = {name: _Encoder(member, chunk) for name, member in members.items()}
        with full_disk_said(path):
            self._files = ts.KvStore.open({"driver": "file", "path": f"{path}/"}).result()
        self._ids: list[Id] = []
        self._held: dict[str, list[np.ndarray]] = {name: [] for name in members}
        self._error = 0.0

    def add(self, ids: list[Id], rows: Mapping[str, np.ndarray], error: float) -> None:
        """Takes samples; whole chunks are committed when this returns."""
        self._ids += ids
        self._error = max(self._error, error)
        for name, parts in self._held.items():
            parts.append(rows[name])
        while len(self._ids) >= self._chunk:
            self._commit(self._chunk)

    def fail(self, failure: Failure) -> None:
        """Lists a sample that has no relevance."""
        with full_disk_said(self._path):
            if failure.id is None:
                self._journal.append(
                    "unread", position=failure.position, reason=failure.reason, sync=False
                )
            else:
                kind = "again" if failure.again else "failed"
                self._journal.append(kind, id=failure.id, reason=failure.reason, sync=False)
        self.tally.failed += 1

    def finish(self) -> None:
        """Commits what is left, a chunk that is not full."""
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
        with full_disk_said(self._path):
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
        """The next chunk whose files can be written. A folder in the place of one is removed.

        Raises:
          StoreError: if there is none among the next few.
        """
        for number in itertools.islice(self._free, _TRIED):
            paths = (self._path / files(name, m, number) for name, m in self._members.items())
            if all(foreign.clear(self._path, path) for path in paths):
                return number
        raise StoreError(
            f"no chunk can be written to {str(self._path)!r}: make its folders writable, then start the "
            "same run again"
        )


def free_chunks(state: State, part: int, parts: int) -> Iterator[int]:
    """The numbers of chunks that the `part`-th of `parts` processes may write, for ever."""
    numbers = (c for c in itertools.count() if c not in state.chunks)
    return itertools.islice(numbers, part, None, parts)


def finish(path: Path, members: Mapping[str, Member], chunk: int, state: State) -> None:
    """Makes the arrays as long as what is there, and removes files of which no line speaks."""
    set_metadata(path, members, chunk, state)
    for orphan in [*orphans(path, members, state), *_unfinished(path)]:
        with contextlib.suppress(OSError):  # what may not be removed is harmless
            orphan.unlink(missing_ok=True)


def set_metadata(path: Path, members: Mapping[str, Member], chunk: int, state: State) -> None:
    """Writes the metadata of the group and of all arrays anew."""
    length = length_of(state, chunk)
    with full_disk_said(path):
        if not group_holds(path):
            set_group(path)
        for name, member in members.items():
            set_rows(path, name, member, chunk, length)


def length_of(state: State, chunk: int) -> int:
    """Rows of the arrays: up to the last one that holds a sample."""
    rows = state.rows(chunk)
    return int(rows[-1]) + 1 if len(rows) else 0


def _unfinished(path: Path) -> list[Path]:
    """Temporary files of a kill: ours, and those of tensorstore, which end in ".__lock"."""
    return [*path.glob(".*.tmp"), *path.glob("journal/*.tmp"), *path.glob("*/*.__lock")]


def orphans(path: Path, members: Mapping[str, Member], state: State) -> list[Path]:
    """Files among the chunks that no line of the journal speaks of: what a kill leaves."""
    known = {
        path / files(name, member, number)
        for name, member in members.items()
        for number in state.chunks
    }
    found = (p for name in members for p in foreign.tree(path / name / "c")[0])
    return [p for p in found if p not in known]


def numbers(path: Path, members: Mapping[str, Member], found: list[Path]) -> set[int]:
    """The numbers of the chunks that files belong to."""
    parts = [p.relative_to(path).parts for p in found]
    return {
        int(p[2])
        for p in parts
        if len(p) > 2 and p[2].isdecimal() and "/".join(p) == files(p[0], members[p[0]], int(p[2]))
    }
