"""NumPy files as sources: .npy (one array) and .npz (named arrays)."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset.source import Indexed, arrays

_OBJECTS = (
    "{} contains pickled Python objects, which are refused because loading them can run code: save "
    "numeric arrays, such as np.stack(list_of_arrays) or np.asarray(labels, int); for inputs of "
    "different shapes, use a folder of images or a list"
)


def read_npy(path: Path) -> Indexed:
    """The rows of an array (N, ...), memory-mapped.

    Raises:
      ValueError: if the file is not a numeric .npy file.
    """
    return arrays(_load(path, mmap_mode="r"))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Named arrays (N, ...): "input", and optionally "target", "id" and further arguments.

    Raises:
      ValueError: if the file is not a numeric .npz file, is damaged, or has no array "input".
    """
    with _load(path) as opened:
        found = {name: _array(path, opened, name) for name in opened.files}
    if "input" not in found:
        raise ValueError(
            f"{str(path)!r} has no array 'input', only {sorted(found)}: save the inputs under that "
            "name, np.savez(path, input=...)"
        )
    return found


def _array(path: Path, opened: Any, name: str) -> np.ndarray:
    try:
        found = opened[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if "pickle" in str(error).lower():
            raise ValueError(_OBJECTS.format(f"the array {name!r} in {str(path)!r}")) from error
        raise ValueError(
            f"the array {name!r} in {str(path)!r} is damaged ({error}): save or copy the file again"
        ) from error
    if not isinstance(found, np.ndarray):
        raise ValueError(
            f"{name!r} in {str(path)!r} is not a NumPy array: write the file with np.savez"
        )
    return found


def _load(path: Path, **options: Any) -> Any:
    try:
        return np.load(path, **options)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "Python objects" in str(error):
            raise ValueError(_OBJECTS.format(repr(str(path)))) from error
        raise ValueError(
            f"{str(path)!r} is not a numeric {path.suffix} file (pickled objects are refused)"
        ) from error
