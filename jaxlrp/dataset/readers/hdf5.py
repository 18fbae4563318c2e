"""HDF5 files as sources."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp._checks import as_path
from jaxlrp.dataset.errors import need
from jaxlrp.dataset.source import Id, Indexed, arrays

if TYPE_CHECKING:
    import h5py


def read(path: Path) -> Indexed:
    """A file with the data sets "input" and, optionally, "target" and "id".

    Raises:
      ValueError: if the file is not HDF5, or has no data set "input".
    """
    try:
        return hdf5(path)
    except KeyError as error:
        raise ValueError(
            f"{str(path)!r}: {error.args[0]}; rename the data set of inputs, or pass "
            "jaxlrp.dataset.hdf5(path, input=...) as the source"
        ) from None
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read as HDF5: {error}") from error


def hdf5(
    file: str | os.PathLike[str] | h5py.Group,
    *,
    input: str = "input",
    target: str | None = "target",
    id: str | None = "id",
    extra: Mapping[str, str] | None = None,
) -> Indexed:
    """The data sets of an HDF5 file as a source. Rows are read only when they are needed.

    Args:
      file: a path, or an open `h5py.File` or group.
      input: name of the data set of inputs, (N, ...).
      target: name of the data set of targets, (N, ...); None or a missing data set means no targets.
      id: name of the data set of ids, (N,); where None or missing, the id is the position.
      extra: maps keyword arguments of the explained function to names of data sets, (N, ...).

    Raises:
      KeyError: if `input` or one of `extra` is not in the file; the message lists what is.
      ImportError: if h5py is not installed.
    """
    h5py = need("h5py", "reading HDF5 files")
    if isinstance(file, h5py.Group):
        group: Any = file
    elif not as_path("file", file).exists():
        raise FileNotFoundError(f"the file {str(file)!r} does not exist")
    else:
        group = h5py.File(file, "r")

    def get(name: str | None, optional: bool) -> Any:
        if name is not None and name in group:
            return group[name]
        if optional:
            return None
        raise KeyError(f"the HDF5 file has no data set {name!r}, only {sorted(group.keys())}")

    named = get(id, True)
    ids: list[Id] | None = None if named is None else np.asarray(named[()]).tolist()
    more = {key: get(name, False) for key, name in (extra or {}).items()}
    held = arrays(get(input, False), get(target, True), ids, **more)
    return Indexed(f"HDF5 {getattr(group, 'filename', group)}", held.ids, held.fetch)


def is_group(value: Any) -> bool:
    """Whether a value is an open HDF5 file or group. Does not import h5py."""
    h5py = sys.modules.get("h5py")
    return h5py is not None and isinstance(value, h5py.Group)
