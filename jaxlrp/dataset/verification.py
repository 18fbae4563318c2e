"""Is all there, and as it was written?"""

from __future__ import annotations

import collections
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxlrp.dataset import journal, manifest, store
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
      metadata: arrays whose zarr.json is not what was written; the next run writes it anew.
      orphans: files that no journal speaks of, which a kill leaves and the next run removes.
    """

    samples: int
    failed: int
    chunks: int
    damaged: dict[int, str]
    twice: tuple[Id, ...]
    broken: int
    metadata: tuple[str, ...]
    orphans: int

    @property
    def ok(self) -> bool:
        """Whether every chunk that the journals name is as it was written, and every line whole."""
        return not (self.damaged or self.twice or self.broken or self.metadata)

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
        if self.metadata:
            lines.append(f"metadata altered: zarr.json of {', '.join(self.metadata)}")
        if self.orphans:
            lines.append(f"orphans  {self.orphans} files of no chunk, left by a kill, harmless")
        return "\n".join(lines)


def verify(path: str | os.PathLike[str], *, mend: bool = False) -> Report:
    """Reads every chunk and compares it with its checksum.

    Args:
      path: a store of `attribute_dataset`.
      mend: give up what is damaged, so that the next run computes it again.

    Returns:
      A `Report`. With `mend` it says what was damaged before.

    Raises:
      StoreError: if the folder is no store.
      StoreLockedError: with `mend`, if a run writes to it.
    """
    folder = Path(path)
    held = manifest.read(folder)
    if not mend:
        return report(folder, held, journal.state(folder))
    lock = Lock(folder)
    try:
        state = journal.state(folder)
        found = report(folder, held, state)
        void(folder, state, found.damaged)
        return found
    finally:
        lock.release()


def report(folder: Path, held: Manifest, state: State, *, full: bool = True) -> Report:
    """What is wrong with a store; without `full` only sizes of files are looked at."""

    def wrong(number: int) -> str | None:
        return _wrong(folder, held, number, state.chunks[number], full)

    with ThreadPoolExecutor(_threads(), thread_name_prefix="jaxlrp-verify") as pool:
        found = zip(state.chunks, pool.map(wrong, state.chunks), strict=True)
        damaged = {number: what for number, what in found if what}
    metadata = []
    for name, member in held.members.items():
        if not store.metadata_hold(folder, name, member, held.chunk):
            metadata.append(name)
    counted = collections.Counter(state.ids)
    return Report(
        samples=len(counted),
        failed=len(state.failed),
        chunks=len(state.chunks),
        damaged=damaged,
        twice=tuple(name for name, times in counted.items() if times > 1),
        broken=state.broken,
        metadata=tuple(metadata),
        orphans=len(store.orphans(folder, held.members, state)),
    )


def _threads() -> int:
    """Hashing gives way to other threads: as many as there are cores, and few enough for memory."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def _wrong(folder: Path, held: Manifest, number: int, line: dict, full: bool) -> str | None:
    for name, member in held.members.items():
        size, expected = line["files"][name]
        path = folder / store.files(name, member, number)
        try:
            found = path.stat().st_size
        except OSError:
            return f"{name}: the file is missing"
        if found != size:
            return f"{name}: {found} bytes, {size} were written"
        if full and store.checksum(path.read_bytes()) != expected:
            return f"{name}: the checksum differs"
    return None


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
