"""Finding the images in a folder, through symbolic links too, and listing what is left out."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

from jaxlrp.errors import counted

_Place = tuple[int, int]  # device and inode


@dataclasses.dataclass(frozen=True)
class Found:
    """The images in a folder.

    Attributes:
      names: paths relative to the folder, with "/", sorted. Images that cannot be read, such as
        broken links, are included: they fail during the run, with a reason.
      skipped: what was left out, with the reason, by its path; files that are not images by their
        extension.
    """

    names: list[str]
    skipped: dict[str, str]


def walk(root: Path, suffixes: Collection[str]) -> Found:
    """Looks for files with the given lower-case extensions in a folder and its subfolders.

    Symbolic links are followed, so an image or folder that is linked twice is found twice, under two
    names. A link to one of its own parent folders would never end and is skipped.
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
                skipped[f"{below}/"] = "a link to one of its parent folders"
                continue
            entries = sorted(os.listdir(folder))
        except OSError as error:
            skipped[f"{below}/"] = f"the folder cannot be read: {error.strerror or error}"
            continue
        for entry in entries:
            path, name = folder / entry, f"{below}/{entry}".lstrip("/")
            if os.path.isdir(path):  # unlike Path.is_dir, False where access is denied
                waiting.append((name, above | {place}))
            elif path.suffix.lower() in suffixes:
                names.append(name)
            elif os.path.islink(path) and not os.path.exists(path):
                skipped[name] = "a broken link"
            else:
                others[path.suffix.lower()] += 1
    for suffix, count in sorted(others.items()):
        skipped[f"*{suffix}"] = f"not an image file extension ({counted(count, 'file')})"
    return Found(sorted(names), skipped)


def _place(folder: Path) -> _Place:
    found = folder.stat()
    return found.st_dev, found.st_ino
