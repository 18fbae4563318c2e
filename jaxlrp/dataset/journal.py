"""What a run has done, line by line. The journal is the truth: a chunk that it does not name is not there.

One file for each process, only ever appended to. A line is its CRC-32 in hexadecimal, a space, and JSON.
A line is written after the files of its chunk are on the disk, so that a kill at any moment leaves
either a chunk with its line, or files that no line speaks of and that a later run overwrites. The last
line may be torn; it is dropped when it is read, and cut off before the file is appended to.

Lines, by their "kind":
  asked   what a run was asked for, before it looks at what is there: limit, command
  run     a run began: versions, batch size, processes
  chunk   a chunk is whole: its number, the ids of its rows, size and checksum of each file
  failed  a sample has no relevance: its id, and why
  void    a chunk was found damaged: its samples are to be computed again
Each has the number of its "run"; what a later run says of a chunk holds. In a run, void comes first.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset.durable import sync_folder
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
        text = json.dumps({"run": self.run, "kind": kind, **fields}, separators=(",", ":"))
        body = text.encode("ascii")
        self._file.write(b"%08x %b\n" % (zlib.crc32(body), body))
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
    whole, broken = _lines(path)
    if not broken:
        return
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        file.writelines(whole)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _lines(path: Path) -> tuple[list[bytes], int]:
    """The whole lines, and the number of broken ones: 0 or, after a kill, 1 at the end."""
    whole = []
    broken = 0
    with path.open("rb") as file:
        for line in file:
            crc, _, body = line[:-1].partition(b" ")
            if line.endswith(b"\n") and crc == b"%08x" % zlib.crc32(body):
                whole.append(line)
            else:
                broken += 1
    return whole, broken


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What all journals of a store together say.

    Attributes:
      chunks: by number, the line of each chunk that is there.
      failed: why, by id.
      owed: ids of samples that were there, in chunks that were found damaged, and are not yet there
        again.
      asked: what each run was asked for, the earliest first.
      runs: the lines of the runs.
      run: the number of the last run, 0 if there was none.
      broken: how many lines cannot be read; a kill leaves one for each process at the most.
    """

    chunks: dict[int, dict[str, Any]]
    failed: dict[Id, str]
    owed: frozenset[Id]
    asked: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    run: int
    broken: int

    @property
    def limit(self) -> int | None:
        """The widest that a run was asked for: no sample that was ever there is beyond it."""
        limits = [line["limit"] for line in self.asked]
        return None if not limits or None in limits else max(limits)

    @property
    def ids(self) -> list[Id]:
        """Of all samples that are there, in the order of their rows."""
        return [name for c in sorted(self.chunks) for name in self.chunks[c]["ids"]]

    def rows(self, size: int) -> np.ndarray:
        """Where each sample is in the arrays, whose chunks have `size` rows."""
        found = [c * size + np.arange(len(self.chunks[c]["ids"])) for c in sorted(self.chunks)]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


def paths(store: Path) -> list[Path]:
    """The journals of a store."""
    return sorted((store / FOLDER).glob("*.jsonl"))


def state(store: Path) -> State:
    """Reads all journals of a store."""
    lines: list[dict[str, Any]] = []
    broken = 0
    for path in paths(store):
        whole, bad = _lines(path)
        lines += [json.loads(line.partition(b" ")[2]) for line in whole]
        broken += bad
    lines.sort(key=lambda line: (line["run"], line["kind"] != "void"))
    chunks: dict[int, dict[str, Any]] = {}
    failed: dict[Id, str] = {}
    owed: set[Id] = set()
    for line in lines:
        if line["kind"] == "chunk":
            chunks[line["chunk"]] = line
        elif line["kind"] == "void" and line["chunk"] in chunks:
            gone = chunks.pop(line["chunk"])["ids"]
            owed.update(gone)
            for name in gone:  # it may have failed before it was there: that is over
                failed.pop(name, None)
        elif line["kind"] == "failed":
            failed[line["id"]] = line["reason"]
            owed.discard(line["id"])
    for line in chunks.values():
        owed.difference_update(line["ids"])
        for name in line["ids"]:
            failed.pop(name, None)
    return State(
        dict(sorted(chunks.items())),
        failed,
        frozenset(owed),
        [line for line in lines if line["kind"] == "asked"],
        [line for line in lines if line["kind"] == "run"],
        max((line["run"] for line in lines), default=0),
        broken,
    )
