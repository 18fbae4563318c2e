"""Sources on disk: a folder of pictures, HDF5, NumPy."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import folders
from jaxlrp.dataset.errors import need
from jaxlrp.dataset.source import Id, Indexed, Sample, arrays

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File names that `images` takes for pictures, in lower case."""
WHITE = (255, 255, 255)


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
    if path.suffix not in (".h5", ".hdf5", ".npy", ".npz"):
        raise ValueError(
            f"{str(path)!r} is no source: expected a folder of pictures, or a file .h5, .hdf5, .npy or "
            ".npz"
        )
    if not path.stat().st_size:
        raise ValueError(f"{str(path)!r} is empty (0 bytes): save or copy it again")
    if path.suffix in (".h5", ".hdf5"):
        return _of_hdf5(path)
    if path.suffix == ".npy":
        return arrays(_load(path, mmap_mode="r"))
    return _of_npz(path)


def _of_npz(path: Path) -> Indexed:
    with _load(path) as held:
        found = {name: _array(path, held, name) for name in held.files}
    if "input" not in found:
        raise ValueError(
            f"{str(path)!r} has no array 'input': it has {sorted(found)}; save the inputs under that "
            "name, np.savez(path, input=...)"
        )
    ids = found.pop("id").tolist() if "id" in found else None
    return arrays(found.pop("input"), found.pop("target", None), ids, **found)


def _array(path: Path, held: Any, name: str) -> np.ndarray:
    """One array of an .npz file, or why there is none."""
    try:
        found = held[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if "pickle" in str(error).lower():
            raise ValueError(_OBJECTS.format(f"the array {name!r} of {str(path)!r}")) from error
        raise ValueError(
            f"the array {name!r} of {str(path)!r} is damaged ({error}): save or copy the file again"
        ) from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{name!r} in {str(path)!r} is no array of NumPy: save it with np.savez")
    return found


_OBJECTS = (
    "{} holds Python objects, which are not read, for that may run code: save numbers, such as "
    "np.stack(list_of_arrays) or np.asarray(labels, int); inputs of several shapes go into a folder of "
    "pictures or a list"
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
        if "Python objects" in str(error):
            raise ValueError(_OBJECTS.format(repr(str(path)))) from error
        raise ValueError(
            f"{str(path)!r} is no {path.suffix} file of numbers that NumPy can read without pickle"
        ) from error


def images(
    folder: str | Path,
    *,
    labels: Mapping[str, Any] | Callable[[str], Any] | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Indexed:
    """The pictures of a folder and of the folders in it, sorted by their path.

    Symbolic links to pictures and to folders are followed, but for those to a folder that they lie in.

    Args:
      folder: where they are. What ends in one of `SUFFIXES` is taken for a picture.
      labels: the target of each, by its id, or a function of that; for pictures in one folder per
        class, `lambda id: classes.index(id.partition("/")[0])`.

      background: red, green and blue, 0 to 255, on which transparent pixels are laid. White by default,
        as most viewers show them.

    Returns:
      A source: the id is the path below `folder`, with "/" between its parts, the input the picture,
      (H, W, 3), uint8, turned upright as its EXIF orientation says. Of pictures with 16 bits the whole
      range is scaled to 8. A picture that cannot be read fails, and the others go on; what is left out
      is listed in `skipped`.

    Raises:
      FileNotFoundError: if there is no picture in the folder.
      ImportError: if Pillow is missing.
      ValueError: if the background is no color.
    """
    image = need("PIL.Image", "reading pictures")
    if len(background) != 3 or not all(0 <= level <= 255 for level in background):
        raise ValueError(f"background must be three numbers from 0 to 255, got {background!r}")
    root = Path(folder)
    found = folders.walk(root, SUFFIXES)
    ids = found.names
    if not ids:
        more = "".join(f"; {name!r}: {why}" for name, why in found.skipped.items())
        raise FileNotFoundError(
            f"the folder {str(root)!r} holds no picture: looked for {', '.join(SUFFIXES)}{more}"
        )

    def read(name: str) -> Sample:
        pixels = picture(image, root / name, background)
        if labels is None:
            return Sample(name, pixels)
        return Sample(name, pixels, labels[name] if isinstance(labels, Mapping) else labels(name))

    def fetch(positions: Sequence[int]) -> list[Sample]:
        return [read(ids[i]) for i in positions]

    return Indexed(f"pictures in {root}", ids, fetch, slow=True, skipped=found.skipped)


def picture(image: Any, path: Path, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The pixels of a file, as `rgb`.

    Args:
      image: the module `PIL.Image`.
      path: of the file.
      background: as `rgb`.

    Raises:
      FileNotFoundError, ValueError, OSError: saying why it cannot be read.
    """
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"it is a link to {os.readlink(path)!r}, which is not there")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"{str(path)!r} is {kind}, not a picture")
    if not path.stat().st_size:
        raise ValueError("the file is empty (0 bytes): save or copy the picture again")
    try:
        with image.open(path) as opened:
            return rgb(opened, background)
    except image.DecompressionBombError as error:
        raise ValueError(f"{error}; make the picture smaller") from error


def rgb(image: Any, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The pixels of a Pillow image, upright and opaque.

    Args:
      image: what Pillow has opened.
      background: red, green and blue, on which transparent pixels are laid.

    Returns:
      (H, W, 3), uint8.

    Raises:
      ValueError: if its pixels are numbers of no known range, which Pillow would cut at 255.
    """
    # PNG and PGM of 16 bits are mode "I" in some versions of Pillow, "I;16" in others
    sixteen = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if not sixteen and image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are of mode {image.mode!r}, numbers of no known range: save it with 8 bits, or "
            "give the numbers as an array"
        )
    clear = image.info.get("transparency")
    if sixteen:
        raw = np.asarray(image)
        gray = np.rint(raw.astype(np.float32) / 257).astype(np.uint8)  # 65535 = 257 * 255
        pixels = np.repeat(gray[..., None], 3, axis=-1)
        if isinstance(clear, int):
            pixels[raw == clear] = background
    elif clear is not None or image.mode in _TRANSPARENT:
        pixels = _laid_on(image.convert("RGBA"), background)
    else:
        pixels = np.asarray(image.convert("RGB"))
    return _upright(pixels, _orientation(image))


_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def _laid_on(image: Any, background: tuple[int, int, int]) -> np.ndarray:
    """background + alpha (color - background), rounded."""
    whole = np.asarray(image, np.float32)
    alpha = whole[..., 3:] / 255
    below = np.asarray(background, np.float32)
    return np.rint(below + alpha * (whole[..., :3] - below)).astype(np.uint8)


_ORIENTATION = 0x0112  # the tag of EXIF and TIFF


def _orientation(image: Any) -> int:
    """From 1, upright, to 8; 1 where the picture does not say, or says it in EXIF that is broken."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises whatever the broken bytes lead to
        return 1
    return found if found in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels (H, W, 3) whose first row and column are where the tag says, as EXIF 2.32 lists them."""
    if orientation >= 5:  # the first row of the file is a side of the picture
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


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
