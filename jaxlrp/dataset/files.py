"""Sources on disk: a folder of pictures, HDF5, NumPy."""

from __future__ import annotations

import zipfile
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
        return _of_hdf5(path)
    if path.suffix == ".npy":
        return arrays(_load(path, mmap_mode="r"))
    if path.suffix == ".npz":
        with _load(path) as held:
            found = dict(held)
        if "input" not in found:
            raise ValueError(
                f"{str(path)!r} has no array 'input': it has {sorted(found)}; save the inputs under that "
                "name, np.savez(path, input=...)"
            )
        return arrays(found.pop("input"), found.pop("target", None), found.pop("id", None), **found)
    raise ValueError(
        f"{str(path)!r} is no source: expected a folder of pictures, or a file .h5, .hdf5, .npy or "
        ".npz"
    )


def _of_hdf5(path: Path) -> Indexed:
    try:
        return hdf5(path)
    except KeyError as error:
        raise ValueError(
            f"{str(path)!r}: {error.args[0]}; rename one, or give jaxlrp.dataset.hdf5(path, input=...) "
            "as the source"
        ) from None
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read as HDF5: {error}") from error


def _load(path: Path, **how: Any) -> Any:
    """A NumPy file, or why it is none."""
    try:
        return np.load(path, **how)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{str(path)!r} is no {path.suffix} file of numbers that NumPy can read without pickle"
        ) from error


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
      (H, W, 3), uint8; of pictures with 16 bits the whole range is scaled to 8. A picture that cannot be
      read fails, and the others go on.

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
            pixels = rgb(opened)
        if labels is None:
            return Sample(name, pixels)
        return Sample(name, pixels, labels[name] if isinstance(labels, Mapping) else labels(name))

    def fetch(positions: Sequence[int]) -> list[Sample]:
        return [read(ids[i]) for i in positions]

    return Indexed(f"pictures in {root}", ids, fetch, slow=True)


def rgb(image: Any) -> np.ndarray:
    """The pixels of a Pillow image, (H, W, 3), uint8.

    Raises:
      ValueError: if its pixels are numbers of no known range, which Pillow would cut at 255.
    """
    # PNG and PGM of 16 bits are mode "I" in some versions of Pillow, "I;16" in others
    sixteen = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if sixteen:
        grey = np.rint(np.asarray(image, np.float32) / 257).astype(np.uint8)  # 65535 = 257 * 255
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are of mode {image.mode!r}, numbers of no known range: save it with 8 bits, or "
            "give the numbers as an array"
        )
    return np.asarray(image.convert("RGB"))


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
