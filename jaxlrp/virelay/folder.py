"""Writes a folder completely or not at all."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import uuid
from collections.abc import Callable

_OURS = ("project*.yaml", "label_map.json", "dataset.h5", "attribution*.h5", "analysis*.h5")


def check_target(path: pathlib.Path, overwrite: bool) -> None:
    """Checks that a folder may be written there; only an earlier export may be replaced."""
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise FileExistsError(
            f"path must not exist yet, got {path}; pass overwrite=True to replace it"
        )
    if path.is_symlink() or not path.is_dir():
        raise FileExistsError(f"path must be a folder to be replaced, got {path}")
    foreign = [f.name for f in path.iterdir() if not any(f.match(pattern) for pattern in _OURS)]
    if foreign:
        raise FileExistsError(
            f"path must contain only an earlier export to be replaced, but {path} contains {foreign[0]!r}; "
            "choose another folder"
        )


def write_whole(path: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Fills a temporary folder beside `path` and renames it; on any error nothing remains.

    An existing folder at `path` is kept until the new one is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"
    unfinished.mkdir()
    try:
        fill(unfinished)
        if path.exists():
            old = unfinished.with_name(f"{unfinished.name}.old")
            path.rename(old)
            try:
                unfinished.rename(path)
            except OSError:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            unfinished.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(unfinished)
        raise
