"""The user's cache folder, and JAX's cache of compiled programs in it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import jax

_LARGEST = 2**30
"""Bytes of compiled programs (about one MB each); the least recently used are deleted first."""


def folder() -> Path:
    """`JAXLRP_CACHE`; if it is not set, `jaxlrp` in `XDG_CACHE_HOME` or in `~/.cache`."""
    if found := os.environ.get("JAXLRP_CACHE"):
        return Path(found).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxlrp"


def keep_programs() -> None:
    """Lets JAX keep compiled programs on disk, for later processes.

    This changes settings of JAX for the whole process, so only the command line calls it. A folder that
    the user chose (`JAX_COMPILATION_CACHE_DIR`) stays, and `JAX_ENABLE_COMPILATION_CACHE=0` turns the
    cache off. JAX runs what it finds in the folder, so nobody else may write to it: it is created with
    mode 0700, and a folder that others own or may write to is not used.
    """
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if chosen or not getattr(jax.config, "jax_enable_compilation_cache", True):
        return
    path = folder() / "programs"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(path):
            return
    except OSError:  # a read-only home: compile as before
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    if importlib.util.find_spec("filelock"):  # without it JAX cannot limit the size
        jax.config.update("jax_compilation_cache_max_size", _LARGEST)


def _is_ours(path: Path) -> bool:
    """Whether only this user may write to a folder; Windows has no such bits and is trusted."""
    if not hasattr(os, "getuid"):
        return True
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022
