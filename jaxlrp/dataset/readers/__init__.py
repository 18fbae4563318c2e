"""File types that can be a source, one module each, and the table of them.

To add a file type: write its reader in a module of this package, and add one line to `READERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from jaxlrp.dataset.readers import hdf5, images, numpy_files
from jaxlrp.dataset.source import Source

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        ".h5": hdf5.read,
        ".hdf5": hdf5.read,
        ".npy": numpy_files.read_npy,
        ".npz": numpy_files.read_npz,
    }
)
"""The built-in readers, by file extension."""


class Reader(Protocol):
    """A function that opens a file (or a folder) as a source.

    It gets the path of a file that exists and is not empty, and returns anything that
    `attribute_dataset` takes as a source, except another path: arrays, a dictionary of arrays, an
    iterable of samples. Data should be read lazily where the format allows it.

    It raises `ValueError` or `OSError`, naming the path and what to do, if the file cannot be read.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import dataset
      >>> def read_csv(path):
      ...     table = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
      ...     return table[:, 1:], table[:, 0].astype(int)
      >>> dataset.ReadOptions(readers={".csv": read_csv}).readers[".csv"] is read_csv
      True
    """

    def __call__(self, path: Path, /) -> Any: ...


def check_readers(readers: Mapping[str, Reader]) -> None:
    """Checks a table of readers.

    Raises:
      TypeError, ValueError: naming the file extension.
    """
    for suffix, reader in readers.items():
        if not (isinstance(suffix, str) and len(suffix) > 1 and suffix[0] == "."):
            raise ValueError(
                f'readers must be a dictionary from file extensions such as ".csv" to functions, '
                f"got the key {suffix!r}"
            )
        if suffix != suffix.lower():
            raise ValueError(
                f"readers must have lower-case file extensions, got {suffix!r}: write {suffix.lower()!r}"
            )
        if not callable(reader):
            raise TypeError(
                f"the reader of {suffix!r} must be a function of a path, got {reader!r}"
            )


def open_path(path: Path, readers: Mapping[str, Reader]) -> Source | Any:
    """Opens a file or folder: with the reader of its extension, else as a folder of images.

    Args:
      path: the file or folder.
      readers: by extension, lower case. Where several match, the longest one wins.

    Raises:
      FileNotFoundError: if the path does not exist.
      ValueError: if the file is empty, or no reader matches.
    """
    if not path.exists():
        raise FileNotFoundError(f"the file or folder {str(path)!r} does not exist")
    matching = [suffix for suffix in readers if path.name.lower().endswith(suffix)]
    if path.is_dir() and not matching:
        return images.images(path)
    if not matching:
        if path.suffix.lower() in images.SUFFIXES:
            raise ValueError(
                f"{str(path)!r} is one image: put it into a folder, or explain it alone (jaxlrp explain)"
            )
        raise ValueError(
            f"{str(path)!r} cannot be used as a source: expected a folder of images, or a file of type "
            f"{', '.join(readers)}; in Python, ReadOptions(readers=...) adds a file type"
        )
    if path.is_file() and not path.stat().st_size:
        raise ValueError(f"the file {str(path)!r} is empty (0 bytes): save or copy it again")
    return readers[max(matching, key=len)](path)
