"""A folder of images as a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxlrp._checks import as_path
from jaxlrp.dataset.errors import need
from jaxlrp.dataset.readers import folders
from jaxlrp.dataset.readers.pixels import WHITE, read_image
from jaxlrp.dataset.source import Indexed, Sample

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File extensions that `images` takes for images, in lower case."""


def images(
    folder: str | os.PathLike[str],
    *,
    labels: Mapping[str, Any] | Callable[[str], Any] | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Indexed:
    """The images in a folder and its subfolders as a source, sorted by path.

    Symbolic links to images and folders are followed, except links to a parent folder.

    Args:
      folder: the folder. Files with an extension in `SUFFIXES` are taken for images.
      labels: the target of each image: a dictionary by id, or a function of the id. For one folder
        per class, use `lambda id: classes.index(id.partition("/")[0])`.
      background: red, green and blue, 0 to 255, on which transparent pixels are composited; white
        by default, as in most viewers.

    Returns:
      A source. The id is the path relative to `folder`, with "/"; the input is the image,
      (H, W, 3) uint8, rotated upright by its EXIF orientation. 16-bit images are scaled to 8 bits.
      An image that cannot be read fails, the others are explained. `skipped` lists what was left out.

    Raises:
      FileNotFoundError: if the folder holds no images.
      ImportError: if Pillow is not installed.
      ValueError: if `background` is not a color.
    """
    need("PIL.Image", "reading images")
    if len(background) != 3 or not all(0 <= level <= 255 for level in background):
        raise ValueError(f"background must be three numbers from 0 to 255, got {background!r}")
    root = as_path("folder", folder)
    if not root.is_dir():
        raise FileNotFoundError(f"the folder {str(root)!r} does not exist")
    found = folders.walk(root, SUFFIXES)
    ids = found.names
    if not ids:
        more = "".join(f"; {name!r}: {why}" for name, why in found.skipped.items())
        raise FileNotFoundError(
            f"the folder {str(root)!r} contains no images: looked for {', '.join(SUFFIXES)}{more}"
        )

    def read(name: str) -> Sample:
        pixels = read_image(root / name, background)
        if labels is None:
            return Sample(name, pixels)
        return Sample(name, pixels, labels[name] if isinstance(labels, Mapping) else labels(name))

    def fetch(positions: Sequence[int]) -> list[Sample]:
        return [read(ids[i]) for i in positions]

    return Indexed(f"images in {root}", ids, fetch, slow=True, skipped=found.skipped)
