"""One image file as pixels: RGB, 8 bits, upright, opaque."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.dataset.errors import need

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = (255, 255, 255)
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")
_ORIENTATION = 0x0112  # the tag of EXIF and TIFF


def read_image(path: Path, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The pixels of an image file, see `rgb`.

    Args:
      path: the file.
      background: red, green and blue, 0 to 255, see `rgb`.

    Returns:
      (H, W, 3), uint8.

    Raises:
      FileNotFoundError, ValueError, OSError: saying why the file cannot be read.
      ImportError: if Pillow is not installed.
    """
    image = need("PIL.Image", "reading images")
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"a broken link to {os.readlink(path)!r}")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ValueError(f"expected an image file, but {str(path)!r} is {kind}")
    if not path.stat().st_size:
        raise ValueError("the file is empty (0 bytes): save or copy the image again")
    try:
        with image.open(path) as opened:
            return rgb(opened, background)
    except image.DecompressionBombError as error:
        raise ValueError(f"{error}; reduce the size of the image") from error


def rgb(image: Image, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The pixels of a Pillow image, rotated upright and opaque.

    Args:
      image: an opened Pillow image.
      background: red, green and blue, 0 to 255, on which transparent pixels are composited.

    Returns:
      (H, W, 3), uint8.

    Raises:
      ValueError: if the range of the pixel values is unknown; Pillow would clip them at 255.
    """
    # 16-bit PNG and PGM have mode "I" in some versions of Pillow, "I;16" in others.
    sixteen = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if not sixteen and image.mode in ("I", "F"):
        raise ValueError(
            f"the range of pixel values is unknown for mode {image.mode!r}: save the image with 8 bits "
            "per channel, or pass the values as an array"
        )
    clear = image.info.get("transparency")
    if sixteen:
        raw = np.asarray(image)
        gray = np.rint(raw.astype(np.float32) / 257).astype(np.uint8)  # 65535 = 257 * 255
        pixels = np.repeat(gray[..., None], 3, axis=-1)
        if isinstance(clear, int):
            pixels[raw == clear] = background
    elif clear is not None or image.mode in _TRANSPARENT:
        pixels = _composited(image.convert("RGBA"), background)
    else:
        pixels = np.asarray(image.convert("RGB"))
    return _upright(pixels, _orientation(image))


def _composited(image: Any, background: tuple[int, int, int]) -> np.ndarray:
    """background + alpha (color - background), rounded."""
    whole = np.asarray(image, np.float32)
    alpha = whole[..., 3:] / 255
    below = np.asarray(background, np.float32)
    return np.rint(below + alpha * (whole[..., :3] - below)).astype(np.uint8)


def _orientation(image: Any) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where it is missing or the EXIF data are broken."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds of errors on broken EXIF data
        return 1
    return found if found in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotates and flips pixels (H, W, 3) as the orientations of EXIF 2.32 prescribe."""
    if orientation >= 5:  # the first row in the file is a vertical edge of the image
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
