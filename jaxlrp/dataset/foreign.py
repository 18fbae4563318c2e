"""A store may come from anyone: what is read of it and written to it stays inside of it.

Runs write regular files alone. A symbolic link, a pipe or a device in a store is none of ours: manifest,
journals and checksums are not read through one, and nothing is written through one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jaxlrp.dataset.errors import StoreError

_BLOCK = 1 << 20
_KEPT = "\n\t"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    if path.is_dir():
        raise OSError(errno.EISDIR, "it is a folder", str(path))
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def _open(path: str, flags: int) -> int:
    """Without following a link that came in between, and without waiting for what writes to a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def read(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
      OSError: if it cannot be read, or is a link, a folder, a pipe or a device.
    """
    with _opened(path) as file:
        return file.read()


def checksum(path: Path) -> str:
    """That of the bytes of a regular file, as `store.checksum`, without holding all of them.

    Raises:
      OSError: as `read`.
    """
    found = hashlib.blake2b(digest_size=16)
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def tree(folder: Path) -> tuple[list[Path], list[Path]]:
    """(files, links) below a folder; no link is followed. What cannot be listed is left out."""
    if folder.is_symlink():
        return [], [folder]
    files, links = [], []
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # its chunks are reported as missing
            continue
        for entry in entries:
            if entry.is_symlink():
                links.append(Path(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                files.append(Path(entry.path))
    return files, links


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuses to write to a store with a link among the files and folders of these names.

    Raises:
      StoreError: naming the link.
    """
    links = [link for name in names for link in tree(folder / name)[1]]
    if links:
        raise StoreError(
            f"the store {str(folder)!r} holds the symbolic link {str(links[0].relative_to(folder))!r}, "
            "which a run neither makes nor follows, for it may lead anywhere: put what it leads to in "
            "its place, or remove it"
        )


def clear(folder: Path, path: Path) -> bool:
    """Removes what stands where a file of the store is to be written: a folder, a link, a file above it.

    Args:
      folder: the store.
      path: of the file, below it.

    Returns:
      Whether the file can be written now.
    """
    try:
        for parent in reversed(path.relative_to(folder).parents[:-1]):
            above = folder / parent
            if above.is_symlink() or (above.exists() and not above.is_dir()):
                above.unlink()
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)  # follows no links
    except OSError:
        return False
    nearest = next(p for p in path.parents if p.exists())
    return os.access(nearest, os.W_OK | os.X_OK)


def printable(text: str) -> str:
    """A text without control characters, with which a store could speak to the terminal."""
    return "".join(
        c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text
    )
