"""What a run has done, line by line. The journal is authoritative: only chunks that it lists exist.

There is one append-only file per process; `lines` defines the format of a line. The line of a chunk is
written once the chunk's files are on disk. A kill therefore leaves either a chunk with its line, or files
without a line, which a later run overwrites. The last line may be incomplete; it is ignored when read, and
removed before the file is appended to.

Lines, by "kind":
  asked   the request, written before the run does anything: limit, command, marks of samples
  run     a run started: versions, batch size, processes, identity of the store, rows per chunk
  chunk   a chunk is complete: number, ids of its rows, size and checksum of each file, identity
  failed  a sample has no relevance: id, reason
  again   a sample repeats the id of an earlier one and has no relevance
  unread  an item of the source has no id and no relevance: position, reason
  void    a chunk was found damaged: its samples must be computed again
  end     a run ended, or damage was accepted as lost: number of chunks at that time
Each line has the number of its "run"; the latest run that mentions a chunk is right about it. Within a run,
"void" lines apply first and "end" last.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import lines, safe_files
from jaxlrp.dataset.durable import sync_folder
from jaxlrp.dataset.errors import DamagedError
from jaxlrp.dataset.source import Id

FOLDER = "journal"


class Journal:
    """The journal file of one process, open for appending.

    Args:
      store: the folder of the store.
      process: index of this process.
      run: number of this run.
    """

    def __init__(self, store: Path, process: int, run: int) -> None:
        folder = store / FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / f"{process:05d}.jsonl"
        path.touch()
        clean(path)
        self.run = run
        self._file = path.open("ab")
        sync_folder(folder)

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> None:
        """Adds a line; with `sync` it is on disk when this returns."""
        self._file.write(lines.written({"run": self.run, "kind": kind, **fields}))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full, which was reported when it was noticed
            self._file.raw.close()


def clean(path: Path) -> None:
    """Removes incomplete and invalid lines from a journal."""
    whole, broken = _read(path)
    if not broken:
        return
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        file.writelines(lines.written(line) for line in whole)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The valid lines, and the number of broken ones: 0 or, after a kill, 1 at the end."""
    try:
        data = safe_files.read(path)
    except OSError as error:
        raise DamagedError(
            f"the journal {str(path)!r} cannot be read: {error.strerror or error}. It lists what is in the "
            "store: make it readable, or restore a copy. Without a copy, remove it and start the same run "
            "again, which computes the samples of that process again"
        ) from error
    found = [lines.parse(line) for line in data.splitlines(keepends=True)]
    whole = [line for line in found if line is not None]
    return whole, len(found) - len(whole)


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """The contents of all journals of a store.

    Attributes:
      chunks: the line of each chunk, by number.
      failed: the reason, by id, of each sample that was tried and has no relevance.
      duplicates: the reason, by id, where a later sample repeats an id.
      unreadable: the reason, by position, of each item without an id, as found by the last run.
      pending: ids of samples whose chunks were found damaged and that are not yet stored again.
      discarded: numbers of chunks that were found damaged and are not yet written again.
      requests: the "asked" lines, earliest first.
      runs: the "run" lines.
      run: number of the last run, 0 if there was none.
      broken: number of lines that cannot be read; a kill leaves at most one per process.
      ended: whether the last run completed.
      missing: number of chunks that the last completed run had written and that have no line now.
    """

    chunks: dict[int, dict[str, Any]]
    failed: dict[Id, str]
    duplicates: dict[Id, str]
    unreadable: dict[int, str]
    pending: frozenset[Id]
    discarded: frozenset[int]
    requests: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    run: int
    broken: int
    ended: bool
    missing: int

    @property
    def limit(self) -> int | None:
        """The largest limit of any run, None if a run had none. No stored sample lies beyond it."""
        limits = [line.get("limit") for line in self.requests]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    @property
    def ids(self) -> list[Id]:
        """Ids of all stored samples, in the order of their rows."""
        return [name for c in sorted(self.chunks) for name in self.chunks[c]["ids"]]

    @property
    def without_relevance(self) -> dict[Id, str]:
        """The reason for everything that has no relevance, by a name that differs from all stored ids.

        A sample with an id of its own is listed under its id, a repeated id as "ID (duplicate)", an
        item without an id as "item POSITION". Where a sample has such a name as its id, " (duplicate)"
        or " (no id)" is appended once more.
        """
        taken: set[Id] = {*self.ids, *self.failed}
        found = dict(self.failed)
        for name, why in self.duplicates.items():
            found[_free(f"{name} (duplicate)", " (duplicate)", taken)] = why
        for position, why in sorted(self.unreadable.items()):
            found[_free(f"item {position}", " (no id)", taken)] = why
        return found

    @property
    def computed(self) -> bool:
        """Whether any run has stored or tried a sample."""
        return bool(self.chunks or self.failed or self.pending)

    def rows(self, size: int) -> np.ndarray:
        """The row of each sample in the arrays, whose chunks have `size` rows: (samples,), integers.

        Raises:
          DamagedError: if a line lists more samples than a chunk has rows.
        """
        found = []
        for c in sorted(self.chunks):
            held = len(self.chunks[c]["ids"])
            if held > size:
                raise DamagedError(
                    f"the journal lists {held} samples in chunk {c}, which has {size} rows: discard the "
                    "chunk with jaxlrp.dataset.verify(path, repair=True), then resume the run"
                )
            found.append(c * size + np.arange(held))
        return np.concatenate(found) if found else np.zeros(0, np.int64)


def _free(name: str, more: str, taken: set[Id]) -> str:
    while name in taken:
        name += more
    taken.add(name)
    return name


def paths(store: Path) -> list[Path]:
    """The journal files of a store."""
    return sorted((store / FOLDER).glob("*.jsonl"))


_ORDER = {"void": 0, "end": 2}


def state(store: Path) -> State:
    """Reads all journals of a store.

    Raises:
      DamagedError: if one cannot be read.
    """
    found: list[dict[str, Any]] = []
    broken = 0
    for path in paths(store):
        whole, bad = _read(path)
        found += whole
        broken += bad
    found.sort(key=lambda line: (line["run"], _ORDER.get(line["kind"], 1)))
    replay = _Replay()
    for line in found:
        replay.take(line)
    return replay.state(broken)


class _Replay:
    """Applies lines, earliest first, to build a `State`."""

    def __init__(self) -> None:
        self._of: dict[str, list[dict[str, Any]]] = {"asked": [], "run": []}
        self._chunks: dict[int, dict[str, Any]] = {}
        self._failed: dict[Id, str] = {}
        self._duplicates: dict[Id, str] = {}
        self._unreadable: list[dict[str, Any]] = []
        self._pending: set[Id] = set()
        self._discarded: set[int] = set()
        self._last = self._ended = self._missing = 0

    def take(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        self._last = max(self._last, line["run"])
        if kind in self._of:
            self._of[kind].append(line)
        elif kind == "chunk":
            self._chunks[line["chunk"]] = line
            self._discarded.discard(line["chunk"])
        elif kind == "void" and line["chunk"] in self._chunks:
            self._discard(line["chunk"])
        elif kind == "failed":
            self._failed[line["id"]] = line["reason"]
            self._pending.discard(line["id"])
        elif kind == "again":
            self._duplicates[line["id"]] = line["reason"]
        elif kind == "unread":
            self._unreadable.append(line)
        elif kind == "end":
            self._ended = line["run"]
            self._missing = max(0, line["chunks"] - len(self._chunks))

    def _discard(self, number: int) -> None:
        self._discarded.add(number)
        gone = self._chunks.pop(number)["ids"]
        self._pending.update(gone)
        for name in gone:  # it may have failed before it was stored; that no longer counts
            self._failed.pop(name, None)

    def state(self, broken: int) -> State:
        there = {name for line in self._chunks.values() for name in line["ids"]}
        began = max((line["run"] for line in self._of["run"]), default=0)
        return State(
            chunks=dict(sorted(self._chunks.items())),
            failed={name: why for name, why in self._failed.items() if name not in there},
            duplicates=self._duplicates,
            unreadable={x["position"]: x["reason"] for x in self._unreadable if x["run"] == began},
            pending=frozenset(self._pending - there),
            discarded=frozenset(self._discarded),
            requests=self._of["asked"],
            runs=self._of["run"],
            run=self._last,
            broken=broken,
            ended=bool(self._ended) and self._ended == self._last,
            missing=self._missing,
        )
