"""Sources on disk: a folder of pictures, HDF5, NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset.errors import need
from jaxlrp.dataset.source import Id, Indexed, Sample, arrays

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File names that `images` takes for pictures, in lower case."""


def of_path(path: Path) -> Indexed:
    """The source that a file or folder is.

    Raises:
      FileNotFoundError: if it does not exist.
      ValueError: if it is of no known kind.
    """
    if path.is_dir():
        return images(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    if path.suffix in (".h5", ".hdf5"):
        return hdf5(path)
    if path.suffix == ".npy":
        return arrays(np.load(path, mmap_mode="r"))
    if path.suffix == ".npz":
        with np.load(path) as held:
            found = dict(held)
        return arrays(found.pop("input"), found.pop("target", None), found.pop("id", None), **found)
    raise ValueError(
        f"{str(path)!r} is no source: expected a folder of pictures, or a file .h5, .hdf5, .npy or "
        ".npz"
    )


def images(
    folder: str | Path,
    *,
    labels: Mapping[str, Any] | Callable[[str], Any] | None = None,
) -> Indexed:
    """The pictures of a folder and of the folders in it, sorted by their path.

    Args:
      folder: where they are. What ends in one of `SUFFIXES` is taken for a picture.
      labels: the target of each, by its id, or a function of that; for pictures in one folder per
        class, `lambda id: classes.index(id.partition("/")[0])`.

    Returns:
      A source: the id is the path below `folder`, with "/" between its parts, the input the picture,
      (H, W, 3), uint8. A picture that cannot be read fails, and the others go on.

    Raises:
      FileNotFoundError: if there is no picture in the folder.
      ImportError: if Pillow is missing.
    """
    image = need("PIL.Image", "reading pictures")
    root = Path(folder)
    found = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    ids = sorted(path.relative_to(root).as_posix() for path in found)
    if not ids:
        raise FileNotFoundError(
            f"the folder {str(root)!r} holds no picture: looked for {', '.join(SUFFIXES)}"
        )

    def read(name: str) -> Sample:
        with image.open(root / name) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        if labels is None:
            return Sample(name, pixels)
        return Sample(name, pixels, labels[name] if isinstance(labels, Mapping) else labels(name))

    def fetch(positions: Sequence[int]) -> list[Sample]:
        return [read(ids[i]) for i in positions]

    return Indexed(f"pictures in {root}", ids, fetch, slow=True)


def hdf5(
    file: Any,
    *,
    input: str = "input",
    target: str | None = "target",
    id: str | None = "id",
    extra: Mapping[str, str] | None = None,
) -> Indexed:
    """The data sets of an HDF5 file, which are read as they are needed.

    Args:
      file: a path, or an open `h5py.File` or group.
      input, target, id: names of data sets, (N, ...); those of target and id may be missing from
        the file. Without ids, the position is the id.
      extra: from keyword arguments of the explained function to names of data sets.

    Raises:
      KeyError: if there is no such data set, naming those that there are.
      ImportError: if h5py is missing.
    """
    h5py = need("h5py", "reading HDF5")
    group = file if hasattr(file, "keys") else h5py.File(file, "r")

    def get(name: str | None, optional: bool) -> Any:
        if name is not None and name in group:
            return group[name]
        if optional:
            return None
        raise KeyError(f"the HDF5 file has no data set {name!r}: it has {sorted(group.keys())}")

    named = get(id, True)
    ids: list[Id] | None = None if named is None else np.asarray(named[()]).tolist()
    more = {key: get(name, False) for key, name in (extra or {}).items()}
    held = arrays(get(input, False), get(target, True), ids, **more)
    return Indexed(f"HDF5 {getattr(group, 'filename', group)}", held.ids, held.fetch)
