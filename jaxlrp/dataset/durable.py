"""Files that survive a kill: written completely or not at all, and on disk before they are referred to."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlrp.dataset.errors import StoreError, StoreFullError, StoreLockedError

LOCK, OWNER = ".jaxlrp.lock", ".jaxlrp.owner"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, value: Any) -> None:
    """Writes a temporary file, then renames it: readers see the old file or the new one."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with partial.open("x", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def full_disk_as_error(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk, here or inside tensorstore, into `StoreFullError`."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        words = [os.strerror(number) for number in _FULL]
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or any(word in str(error) for word in words):
            raise StoreFullError(
                f"the disk of {str(path)!r} is full, or a limit on file sizes was reached: {error}. "
                "Everything written so far is safe: free space, then start the same run again"
            ) from error
        raise


class Lock:
    """Lets one run at a time write to a store. The lock is released when its process ends.

    The first process of a run locks the store exclusively, prepares it, then shares the lock with the
    other processes of the run; a second run is refused. POSIX record locks are not inherited by child
    processes, so a forked reader cannot keep a store locked.

    Args:
      folder: the store.
      shared: True in all processes of a run but the first.

    Raises:
      StoreLockedError: if another run holds the lock.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        import fcntl  # POSIX alone

        self._fcntl = fcntl
        # A record lock does not exclude its own process, and closing the file anywhere releases it. So
        # the owner is checked first.
        self._owner = folder / OWNER
        self._token = f"{os.getpid()} {_started(os.getpid())}"
        if not shared and self._owner.exists() and self._owner.read_text() == self._token:
            raise self._taken(folder)
        self._fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock(fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            os.close(self._fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._taken(folder) from None
            raise
        self._shared = shared
        if not shared:
            self._owner.write_text(self._token)

    def _lock(self, kind: int) -> None:
        self._fcntl.lockf(self._fd, kind | self._fcntl.LOCK_NB)

    def _taken(self, folder: Path) -> StoreLockedError:
        try:
            owner = self._owner.read_text().partition(" ")[0]
        except OSError:
            owner = "unknown"
        return StoreLockedError(
            f"another run (process {owner}) is writing to {str(folder)!r}: wait until it ends, or choose "
            "another folder"
        )

    def share(self) -> None:
        """Lets the other processes of this run take the lock."""
        self._lock(self._fcntl.LOCK_SH)

    def release(self) -> None:
        if not self._shared:
            self._owner.unlink(missing_ok=True)
        os.close(self._fd)


def _started(pid: int) -> str:
    """Start time of a process, which tells it from an earlier one with the same id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
