"""What a run has done, line by line. The journal is the truth: a chunk that it does not name is not there.

One file for each process, only ever appended to; see `lines` for how a line is spelled.
A line is written after the files of its chunk are on the disk, so that a kill at any moment leaves
either a chunk with its line, or files that no line speaks of and that a later run overwrites. The last
line may be torn; it is dropped when it is read, and cut off before the file is appended to.

Lines, by their "kind":
  asked   what a run was asked for, before it looks at what is there: limit, command, marks of samples
  run     a run began: versions, batch size, processes, identity of the store, rows of a chunk
  chunk   a chunk is whole: its number, the ids of its rows, size and checksum of each file, identity
  failed  a sample has no relevance: its id, and why
  again   a sample has the id of an earlier one, and no relevance
  unread  an item of the source has no id, and no relevance: its position, and why
  void    a chunk was found damaged: its samples are to be computed again
  end     a run ended, or damage was given up: how many chunks there were then
Each has the number of its "run"; what a later run says of a chunk holds. In a run, void comes first, and
the end last.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import foreign, lines
from jaxlrp.dataset.durable import sync_folder
from jaxlrp.dataset.errors import DamagedError
from jaxlrp.dataset.source import Id

FOLDER = "journal"


class Journal:
    """One process's file, open for appending.

    Args:
      store: the folder of the store.
      process: the number of this process.
      run: the number of this run.
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
        """Adds a line; with `sync` it is on the disk when this returns."""
        self._file.write(lines.written({"run": self.run, "kind": kind, **fields}))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full, which was said where it was noticed
            self._file.raw.close()


def clean(path: Path) -> None:
    """Drops the lines of a journal that are torn or broken."""
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
    """The whole lines, and the number of broken ones: 0 or, after a kill, 1 at the end."""
    try:
        data = foreign.read(path)
    except OSError as error:
        raise DamagedError(
            f"the journal {str(path)!r} cannot be read: {error.strerror or error}. It says what is in the "
            "store: make it readable, or put back a copy; without it the samples of its process are "
            "computed again, if you remove it and start the same run"
        ) from error
    found = [lines.parse(line) for line in data.splitlines(keepends=True)]
    whole = [line for line in found if line is not None]
    return whole, len(found) - len(whole)


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What all journals of a store together say.

    Attributes:
      chunks: by number, the line of each chunk that is there.
      failed: why, by the id of each sample that was tried and has no relevance.
      again: why, by the id that a later sample has again.
      unread: why, by the position of each item whose id is not known, as the last run met them.
      owed: ids of samples that were there, in chunks that were found damaged, and are not yet there
        again.
      voided: numbers of the chunks that were found damaged and are not yet there again.
      asked: what each run was asked for, the earliest first.
      runs: the lines of the runs.
      run: the number of the last run, 0 if there was none.
      broken: how many lines cannot be read; a kill leaves one for each process at the most.
      ended: whether the last run came to its end.
      short: how many chunks there were at the end of the last run that came to it, of which no line
        speaks any more.
    """

    chunks: dict[int, dict[str, Any]]
    failed: dict[Id, str]
    again: dict[Id, str]
    unread: dict[int, str]
    owed: frozenset[Id]
    voided: frozenset[int]
    asked: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    run: int
    broken: int
    ended: bool
    short: int

    @property
    def limit(self) -> int | None:
        """The widest that a run was asked for: no sample that was ever there is beyond it."""
        limits = [line.get("limit") for line in self.asked]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    @property
    def ids(self) -> list[Id]:
        """Of all samples that are there, in the order of their rows."""
        return [name for c in sorted(self.chunks) for name in self.chunks[c]["ids"]]

    @property
    def listed(self) -> dict[Id, str]:
        """Why, of everything that has no relevance, each under a name that no sample has for its id.

        What has an id of its own is listed under it. A sample whose id came before is "ID (again)", an
        item without an id "item POSITION", with " (again)" or " (no id)" once more where a sample is
        called so.
        """
        taken: set[Id] = {*self.ids, *self.failed}
        found = dict(self.failed)
        for name, why in self.again.items():
            found[_free(f"{name} (again)", " (again)", taken)] = why
        for position, why in sorted(self.unread.items()):
            found[_free(f"item {position}", " (no id)", taken)] = why
        return found

    @property
    def computed(self) -> bool:
        """Whether any run has left something."""
        return bool(self.chunks or self.failed or self.owed)

    def rows(self, size: int) -> np.ndarray:
        """Where each sample is in the arrays, whose chunks have `size` rows.

        Raises:
          DamagedError: if a line names more samples than a chunk has rows.
        """
        found = []
        for c in sorted(self.chunks):
            held = len(self.chunks[c]["ids"])
            if held > size:
                raise DamagedError(
                    f"the journal names {held} samples of chunk {c}, which has {size} rows: give it up "
                    "with jaxlrp.dataset.verify(path, mend=True), then resume the run"
                )
            found.append(c * size + np.arange(held))
        return np.concatenate(found) if found else np.zeros(0, np.int64)


def _free(name: str, more: str, taken: set[Id]) -> str:
    while name in taken:
        name += more
    taken.add(name)
    return name


def paths(store: Path) -> list[Path]:
    """The journals of a store."""
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
    """Goes through lines, the earliest first."""

    def __init__(self) -> None:
        self._of: dict[str, list[dict[str, Any]]] = {"asked": [], "run": []}
        self._chunks: dict[int, dict[str, Any]] = {}
        self._failed: dict[Id, str] = {}
        self._again: dict[Id, str] = {}
        self._unread: list[dict[str, Any]] = []
        self._owed: set[Id] = set()
        self._voided: set[int] = set()
        self._last = self._ended = self._short = 0

    def take(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        self._last = max(self._last, line["run"])
        if kind in self._of:
            self._of[kind].append(line)
        elif kind == "chunk":
            self._chunks[line["chunk"]] = line
            self._voided.discard(line["chunk"])
        elif kind == "void" and line["chunk"] in self._chunks:
            self._void(line["chunk"])
        elif kind == "failed":
            self._failed[line["id"]] = line["reason"]
            self._owed.discard(line["id"])
        elif kind == "again":
            self._again[line["id"]] = line["reason"]
        elif kind == "unread":
            self._unread.append(line)
        elif kind == "end":
            self._ended = line["run"]
            self._short = max(0, line["chunks"] - len(self._chunks))

    def _void(self, number: int) -> None:
        self._voided.add(number)
        gone = self._chunks.pop(number)["ids"]
        self._owed.update(gone)
        for name in gone:  # it may have failed before it was there: that is over
            self._failed.pop(name, None)

    def state(self, broken: int) -> State:
        there = {name for line in self._chunks.values() for name in line["ids"]}
        began = max((line["run"] for line in self._of["run"]), default=0)
        return State(
            chunks=dict(sorted(self._chunks.items())),
            failed={name: why for name, why in self._failed.items() if name not in there},
            again=self._again,
            unread={x["position"]: x["reason"] for x in self._unread if x["run"] == began},
            owed=frozenset(self._owed - there),
            voided=frozenset(self._voided),
            asked=self._of["asked"],
            runs=self._of["run"],
            run=self._last,
            broken=broken,
            ended=bool(self._ended) and self._ended == self._last,
            short=self._short,
        )
