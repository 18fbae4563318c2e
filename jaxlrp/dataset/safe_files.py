"""Safe access to stores from untrusted sources: nothing outside the store is read or written.

Runs write regular files only. Manifest, journals and chunks are not read through a symbolic link, a pipe or
a device, and nothing is written through one.
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
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        yield file


def _open(path: str, flags: int) -> int:
    """Without following a link created in the meantime, and without blocking on a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def read(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
      OSError: if it cannot be read, or is a link, a folder, a pipe or a device.
    """
    with _opened(path) as file:
        return file.read()


def checksum(path: Path) -> str:
    """The checksum of a regular file, as `store.checksum`, read block by block.

    Raises:
      OSError: as `read`.
    """
    found = hashlib.blake2b(digest_size=16)
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def tree(folder: Path) -> tuple[list[Path], list[Path]]:
    """(files, links) below a folder; links are not followed. Folders that cannot be listed are left out."""
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
    """Refuses to write to a store that holds a symbolic link under one of these names.

    Raises:
      StoreError: naming the link.
    """
    links = [link for name in names for link in tree(folder / name)[1]]
    if links:
        raise StoreError(
            f"the store {str(folder)!r} contains the symbolic link {str(links[0].relative_to(folder))!r}, "
            "and runs do not follow links inside a store, since they may point anywhere: replace the link "
            "by the files it points to, or remove it"
        )


def clear(folder: Path, path: Path) -> bool:
    """Removes what blocks the place of a file: a folder, a link, a file where a parent folder belongs.

    Args:
      folder: the store.
      path: the file, inside the store.

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
            shutil.rmtree(path)  # does not follow links
    except OSError:
        return False
    nearest = next(p for p in path.parents if p.exists())
    return os.access(nearest, os.W_OK | os.X_OK)


def printable(text: str) -> str:
    """Escapes control characters, with which a store could manipulate the terminal."""
    return "".join(
        c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text
    )
