"""Checking a store: is everything there, and exactly as it was written?"""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxlrp._checks import as_path
from jaxlrp.dataset import durable, journal, manifest, safe_files, store, zarr_arrays
from jaxlrp.dataset.durable import Lock, full_disk_as_error
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.source import Id
from jaxlrp.errors import counted


@dataclasses.dataclass(frozen=True)
class Report:
    """What `verify` found. `print` shows it in words.

    Attributes:
      samples, failed, chunks: counts.
      damaged: what is wrong with each damaged chunk, by its number.
      duplicates: ids of samples that are stored more than once.
      broken: number of journal lines that cannot be read. A kill leaves at most one per process; the
        samples of a broken line are computed again.
      metadata: names of arrays whose zarr.json was altered, "/" for the group; the next run, and
        `verify` with `repair`, write it again.
      orphans: number of files without a journal line, which a kill leaves and the next run removes.
      lost: which journal lines are missing, "" if none are known to be. The next run computes their
        samples again.
      links: symbolic links, which runs neither create nor follow. A run refuses a store with links.
    """

    samples: int
    failed: int
    chunks: int
    damaged: dict[int, str]
    duplicates: tuple[Id, ...]
    broken: int
    metadata: tuple[str, ...]
    orphans: int
    lost: str = ""
    links: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every chunk in the journals is as it was written, and no line is missing."""
        wrong = (self.damaged, self.duplicates, self.broken, self.metadata, self.lost, self.links)
        return not any(wrong)

    def __str__(self) -> str:
        lines = [
            f"samples     {self.samples}, failed {self.failed}",
            f"chunks      {self.chunks}, damaged {len(self.damaged)}",
        ]
        lines += [f"  chunk {number}: {what}" for number, what in self.damaged.items()]
        if self.duplicates:
            shown = ", ".join(map(repr, self.duplicates[:5]))
            lines.append(f"duplicates  {shown} ({len(self.duplicates)} in total)")
        if self.broken:
            lines.append(f"broken      {counted(self.broken, 'journal line')}")
        if self.lost:
            lines.append(f"lost        {self.lost}")
        if self.links:
            shown = ", ".join(map(repr, self.links))
            lines.append(f"links       {shown}: a store must not contain symbolic links")
        if self.metadata:
            lines.append(f"metadata    altered: zarr.json of {', '.join(self.metadata)}")
        if self.orphans:
            why = (
                "of chunks whose journal lines are lost"
                if self.lost
                else "left by an interrupted run, harmless"
            )
            lines.append(f"orphans     {counted(self.orphans, 'file')} {why}")
        return "\n".join(lines)


def verify(path: str | os.PathLike[str], *, repair: bool = False) -> Report:
    """Compares every chunk of a store with its checksum.

    Args:
      path: a store written by `attribute_dataset`.
      repair: discard damaged chunks, so that the next run computes them again.

    Returns:
      A `Report`; with `repair`, of the state before the repair.

    Raises:
      StoreError: if the folder is not a store, or, with `repair`, contains a symbolic link.
      DamagedError: if the manifest or a journal cannot be read.
      StoreLockedError: with `repair`, if a run is writing to the store.
    """
    folder = as_path("path", path)
    held = manifest.read(folder)
    if not repair:
        return report(folder, held, journal.state(folder))
    safe_files.refuse_links(folder, ours(held))
    lock = Lock(folder)
    try:
        state = journal.state(folder)
        found = report(folder, held, state)
        discard(folder, state, found.damaged)
        _accept_losses(folder, held, found)
        return found
    finally:
        lock.release()


def ours(held: Manifest) -> tuple[str, ...]:
    """Names of everything in a store that runs write."""
    return (*TOP, *held.members)


TOP = (durable.LOCK, durable.OWNER, manifest.FILE, journal.FOLDER, "zarr.json")
"""Names that every store has."""


def _accept_losses(folder: Path, held: Manifest, found: Report) -> None:
    """Rewrites altered metadata, and notes that missing lines are known. Needs the lock."""
    state = journal.state(folder)
    if found.metadata or found.lost or found.broken:
        store.set_metadata(folder, held.members, held.chunk_size, state)
    if found.lost or found.broken:
        lines = Journal(folder, 0, state.run + 1)
        try:
            lines.append("end", chunks=len(state.chunks))
        finally:
            lines.close()


def report(folder: Path, held: Manifest, state: State, *, full: bool = True) -> Report:
    """What is wrong with a store; with `full` checksums are compared, else only file sizes."""

    def wrong(number: int) -> str | None:
        return _wrong(folder, held, number, state.chunks[number], full)

    with ThreadPoolExecutor(_threads(), thread_name_prefix="jaxlrp-verify") as pool:
        found = zip(state.chunks, pool.map(wrong, state.chunks), strict=True)
        damaged = {number: what for number, what in found if what}
    counted = collections.Counter(state.ids)
    orphans = store.orphans(folder, held.members, state)
    links = [link for name in ours(held) for link in safe_files.tree(folder / name)[1]]
    return Report(
        samples=len(counted),
        failed=len(state.without_relevance),
        chunks=len(state.chunks),
        damaged=damaged,
        duplicates=tuple(name for name, times in counted.items() if times > 1),
        broken=state.broken,
        metadata=_metadata(folder, held, state, damaged),
        orphans=len(orphans),
        lost=_lost(state, store.numbers(folder, held.members, orphans)),
        links=tuple(str(link.relative_to(folder)) for link in links),
    )


def _metadata(
    folder: Path, held: Manifest, state: State, damaged: dict[int, str]
) -> tuple[str, ...]:
    # During a run, and after a kill, arrays may be longer or shorter than what is stored.
    known = state.ended and not damaged and not state.missing
    rows = store.length_of(state, held.chunk_size) if known else None
    return (
        *(() if zarr_arrays.group_holds(folder) else (zarr_arrays.GROUP,)),
        *(
            name
            for name, member in held.members.items()
            if not zarr_arrays.metadata_hold(folder, name, member, held.chunk_size, rows)
        ),
    )


def _lost(state: State, orphans: set[int]) -> str:
    """Which lines are missing from the journals.

    A kill leaves the files of at most one chunk per process without a line.
    """
    unexplained = orphans - state.discarded
    if not state.requests and not state.ended and (unexplained or state.runs or state.chunks):
        return "the journal of process 0 is missing or empty: its samples are unknown"
    if state.missing:
        return f"the lines of {state.missing} chunks that the last run had written are missing"
    writers = max((line["processes"] for line in state.runs), default=1)
    if not state.ended and len(unexplained) > writers:
        return f"the lines of at least {len(unexplained) - writers} chunks are missing, their files exist"
    return ""


def _threads() -> int:
    """Threads that hash: one per core, at most 8."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def _wrong(
    folder: Path, held: Manifest, number: int, line: dict[str, Any], full: bool
) -> str | None:
    if line.get("store", held.identity) != held.identity:
        return "it belongs to a different manifest: another model, composite or target policy"
    if len(line["ids"]) > held.chunk_size:
        return f"it lists {len(line['ids'])} samples, a chunk has {held.chunk_size} rows"
    if set(line["files"]) != set(held.members):
        other = sorted(set(line["files"]) ^ set(held.members))
        return f"{other[0]}: the journal and the manifest list different arrays"
    for name, member in held.members.items():
        size, expected = line["files"][name]
        path = folder / zarr_arrays.files(name, member, number)
        try:
            what = _wrong_file(path, size, expected, full)
        except (FileNotFoundError, NotADirectoryError):
            what = "the file is missing"
        except OSError as error:
            what = f"the file cannot be read: {error.strerror or error}"
        if what:
            return f"{name}: {what}"
    return None


def _wrong_file(path: Path, size: int, expected: str, full: bool) -> str:
    """What is wrong with one file of a chunk, "" if nothing; raises if it cannot be read."""
    found = path.lstat()
    if stat.S_ISREG(found.st_mode) and found.st_size != size:
        return f"{found.st_size} bytes, expected {size}"
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        return f"the file cannot be read: it is {kind}"
    return "wrong checksum" if full and safe_files.checksum(path) != expected else ""


def discard(folder: Path, state: State, damaged: dict[int, str]) -> None:
    """Notes that damaged chunks must be computed again, and removes broken journal lines.

    Needs the lock.
    """
    with full_disk_as_error(folder):
        for path in journal.paths(folder):
            journal.clean(path)
        if not damaged:
            return
        lines = Journal(folder, 0, state.run + 1)
        try:
            for number, what in damaged.items():
                lines.append("void", chunk=number, reason=what)
        finally:
            lines.close()
