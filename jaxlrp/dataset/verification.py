"""Is all there, and as it was written?"""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxlrp.dataset import durable, foreign, journal, manifest, store
from jaxlrp.dataset.durable import Lock, full_disk_said
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.source import Id


@dataclasses.dataclass(frozen=True)
class Report:
    """What `verify` found; `print` it.

    Attributes:
      samples, failed, chunks: how many there are.
      damaged: by the number of a chunk, what is wrong with it.
      twice: ids of samples that are there more than once.
      broken: lines of the journals that cannot be read. A kill leaves one for each process at the most;
        the samples of a broken line are computed again.
      metadata: arrays whose zarr.json is not what was written, "/" for the group that holds them; the next
        run, and `mend`, write it anew.
      orphans: files that no journal speaks of, which a kill leaves and the next run removes.
      lost: what the journals no longer say, "" if nothing is known to be lost. The next run computes
        these samples again.
      links: symbolic links, which no run makes or follows. A run refuses a store that has one.
    """

    samples: int
    failed: int
    chunks: int
    damaged: dict[int, str]
    twice: tuple[Id, ...]
    broken: int
    metadata: tuple[str, ...]
    orphans: int
    lost: str = ""
    links: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every chunk that the journals name is as it was written, and no line is missing."""
        wrong = (self.damaged, self.twice, self.broken, self.metadata, self.lost, self.links)
        return not any(wrong)

    def __str__(self) -> str:
        lines = [
            f"samples  {self.samples}, failed {self.failed}",
            f"chunks   {self.chunks}, damaged {len(self.damaged)}",
        ]
        lines += [f"  chunk {number}: {what}" for number, what in self.damaged.items()]
        if self.twice:
            lines.append(
                f"twice    {', '.join(map(repr, self.twice[:5]))} ({len(self.twice)} in all)"
            )
        if self.broken:
            lines.append(f"broken   {self.broken} lines of the journals")
        if self.lost:
            lines.append(f"lost     {self.lost}")
        if self.links:
            lines.append(
                f"links    {', '.join(map(repr, self.links))}: a run makes and follows none"
            )
        if self.metadata:
            lines.append(f"metadata altered: zarr.json of {', '.join(self.metadata)}")
        if self.orphans:
            why = (
                "of chunks whose lines are lost"
                if self.lost
                else "of no chunk, left by a kill, harmless"
            )
            lines.append(f"orphans  {self.orphans} files {why}")
        return "\n".join(lines)


def verify(path: str | os.PathLike[str], *, mend: bool = False) -> Report:
    """Reads every chunk and compares it with its checksum.

    Args:
      path: a store of `attribute_dataset`.
      mend: give up what is damaged, so that the next run computes it again.

    Returns:
      A `Report`. With `mend` it says what was damaged before.

    Raises:
      StoreError: if the folder is no store, or, with `mend`, holds a symbolic link.
      DamagedError: if its manifest or a journal cannot be read.
      StoreLockedError: with `mend`, if a run writes to it.
    """
    folder = Path(path)
    held = manifest.read(folder)
    if not mend:
        return report(folder, held, journal.state(folder))
    foreign.refuse_links(folder, ours(held))
    lock = Lock(folder)
    try:
        state = journal.state(folder)
        found = report(folder, held, state)
        void(folder, state, found.damaged)
        _give_up(folder, held, found)
        return found
    finally:
        lock.release()


def ours(held: Manifest) -> tuple[str, ...]:
    """The names in a store that runs write."""
    return (*TOP, *held.members)


TOP = (durable.LOCK, durable.OWNER, manifest.FILE, journal.FOLDER, "zarr.json")
"""Those of any store."""


def _give_up(folder: Path, held: Manifest, found: Report) -> None:
    """Writes metadata anew, and notes that lost lines are known to be lost. While the store is locked."""
    state = journal.state(folder)
    if found.metadata or found.lost or found.broken:
        store.set_metadata(folder, held.members, held.chunk, state)
    if found.lost or found.broken:
        lines = Journal(folder, 0, state.run + 1)
        try:
            lines.append("end", chunks=len(state.chunks))
        finally:
            lines.close()


def report(folder: Path, held: Manifest, state: State, *, full: bool = True) -> Report:
    """What is wrong with a store; without `full` only sizes of files are looked at."""

    def wrong(number: int) -> str | None:
        return _wrong(folder, held, number, state.chunks[number], full)

    with ThreadPoolExecutor(_threads(), thread_name_prefix="jaxlrp-verify") as pool:
        found = zip(state.chunks, pool.map(wrong, state.chunks), strict=True)
        damaged = {number: what for number, what in found if what}
    counted = collections.Counter(state.ids)
    orphans = store.orphans(folder, held.members, state)
    links = [link for name in ours(held) for link in foreign.tree(folder / name)[1]]
    return Report(
        samples=len(counted),
        failed=len(state.listed),
        chunks=len(state.chunks),
        damaged=damaged,
        twice=tuple(name for name, times in counted.items() if times > 1),
        broken=state.broken,
        metadata=_metadata(folder, held, state, damaged),
        orphans=len(orphans),
        lost=_lost(state, store.numbers(folder, held.members, orphans)),
        links=tuple(str(link.relative_to(folder)) for link in links),
    )


def _metadata(
    folder: Path, held: Manifest, state: State, damaged: dict[int, str]
) -> tuple[str, ...]:
    # While a run goes on, and where a kill ended it, arrays may be longer or shorter than what is there.
    known = state.ended and not damaged and not state.short
    rows = store.length_of(state, held.chunk) if known else None
    return (
        *(() if store.group_holds(folder) else (store.GROUP,)),
        *(
            name
            for name, member in held.members.items()
            if not store.metadata_hold(folder, name, member, held.chunk, rows)
        ),
    )


def _lost(state: State, orphans: set[int]) -> str:
    """What the journals must have said and do not say any more.

    A kill leaves the files of one chunk of each process without a line, and no more.
    """
    unexplained = orphans - state.voided
    if not state.asked and not state.ended and (unexplained or state.runs or state.chunks):
        return "the journal of the first process is gone or was emptied: its samples are unknown"
    if state.short:
        return f"the lines of {state.short} chunks are gone, which the last run had written"
    writers = max((line["processes"] for line in state.runs), default=1)
    if not state.ended and len(unexplained) > writers:
        return f"the lines of {len(unexplained) - writers} chunks or more are gone, their files are there"
    return ""


def _threads() -> int:
    """Hashing gives way to other threads: as many as there are cores, and few enough for memory."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def _wrong(folder: Path, held: Manifest, number: int, line: dict, full: bool) -> str | None:
    if line.get("store", held.identity) != held.identity:
        return "it was computed for another manifest: by another model, composite or policy"
    if len(line["ids"]) > held.chunk:
        return f"it names {len(line['ids'])} samples, a chunk has {held.chunk} rows"
    if set(line["files"]) != set(held.members):
        other = sorted(set(line["files"]) ^ set(held.members))
        return f"{other[0]}: journal and manifest do not name the same arrays"
    for name, member in held.members.items():
        size, expected = line["files"][name]
        path = folder / store.files(name, member, number)
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
    """What is wrong with one file of a chunk, "" if nothing; raises what keeps it from being read."""
    found = path.lstat()
    if stat.S_ISREG(found.st_mode) and found.st_size != size:
        return f"{found.st_size} bytes, {size} were written"
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        return f"the file cannot be read: it is {kind}"
    return "the checksum differs" if full and foreign.checksum(path) != expected else ""


def void(folder: Path, state: State, damaged: dict[int, str]) -> None:
    """Notes that chunks are to be computed again, and drops lines of the journals that are broken.

    Only while the store is locked.
    """
    with full_disk_said(folder):
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
