"""Which pictures a folder holds, behind symbolic links too, and what is left out of it."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

_Place = tuple[int, int]  # device and inode


@dataclasses.dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
      names: paths of the pictures below the folder, with "/", sorted. One that cannot be read, such as a
        link that leads nowhere, is among them: it fails in the run, with its reason.
      skipped: why, of what was left out, by its path; of files that are no pictures by their suffix.
    """

    names: list[str]
    skipped: dict[str, str]


def walk(root: Path, suffixes: Collection[str]) -> Found:
    """Looks for files with these suffixes, in lower case, in a folder and all folders in it.

    Links are followed, so a picture or folder that two links lead to is found twice, under two names.
    A link to a folder that it lies in would never end, and is left out.
    """
    names: list[str] = []
    skipped: dict[str, str] = {}
    others: collections.Counter[str] = collections.Counter()
    waiting: list[tuple[str, frozenset[_Place]]] = [("", frozenset())]
    while waiting:
        below, above = waiting.pop()
        folder = root / below
        try:
            place = _place(folder)
            if place in above:
                skipped[f"{below}/"] = "a link to a folder that it lies in"
                continue
            entries = sorted(os.listdir(folder))
        except OSError as error:
            skipped[f"{below}/"] = f"the folder cannot be read: {error.strerror or error}"
            continue
        for entry in entries:
            path, name = folder / entry, f"{below}/{entry}".lstrip("/")
            if os.path.isdir(path):  # unlike Path.is_dir, it says no where it may not look
                waiting.append((name, above | {place}))
            elif path.suffix.lower() in suffixes:
                names.append(name)
            elif os.path.islink(path) and not os.path.exists(path):
                skipped[name] = "a link that leads nowhere"
            else:
                others[path.suffix.lower()] += 1
    for suffix, count in sorted(others.items()):
        skipped[f"*{suffix}"] = f"no pictures by their names ({count})"
    return Found(sorted(names), skipped)


def _place(folder: Path) -> _Place:
    found = folder.stat()
    return found.st_dev, found.st_ino
