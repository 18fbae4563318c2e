"""Photographs of scikit-image, single and in pairs, where the position of each class is known.

In an image of two photographs side by side, the evidence for the class of one photograph is in its own
half. This ground truth evaluates explanations without annotations and without retraining.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import skimage.data
from PIL import Image

SIZE = 224
LAYOUTS = ("beside", "stacked")
MIN_PROBABILITY = 0.04
"""The classes of both photographs must reach this summed probability for a pair to count."""

CLASSES: dict[str, tuple[int, ...]] = {
    "chelsea": (281, 282, 285),  # tabby, tiger cat, Egyptian cat
    "coffee": (967, 968, 504),  # espresso, cup, coffee mug
    "rocket": (657, 744),  # missile, projectile
    "camera": (872,),  # tripod
    "motorcycle": (665, 670),  # moped, motor scooter
}
"""The ImageNet classes that each photograph shows."""


@dataclasses.dataclass(frozen=True, eq=False)
class TwoPhotographs:
    """An image made of two photographs, with its ground truth.

    Attributes:
      names: the photographs, left or upper one first.
      layout: "beside" or "stacked".
      picture: (224, 224, 3), uint8.
      targets: for each photograph, the one of its classes with the largest logit.
      regions: for each photograph, the pixels that it fills, (2, 224, 224), bool; they partition the image.
      absent: the classes of the photographs that are not in the image, as a negative control.
    """

    names: tuple[str, str]
    layout: str
    picture: np.ndarray = dataclasses.field(repr=False)
    targets: tuple[int, int]
    regions: np.ndarray = dataclasses.field(repr=False)
    absent: tuple[int, ...]


def photograph(name: str) -> np.ndarray:
    """Loads one of the photographs named in `CLASSES`.

    Args:
      name: a key of `CLASSES`.

    Returns:
      The photograph, (H, W, 3), uint8; a gray one has three equal channels.

    Raises:
      ValueError: if there is no such photograph.
    """
    if name not in CLASSES:
        raise ValueError(f"expected one of {', '.join(CLASSES)}, got {name!r}")
    if name == "motorcycle":
        return skimage.data.stereo_motorcycle()[0]
    image = getattr(skimage.data, name)()
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def two_photograph_composites(
    predict: Callable[[np.ndarray], np.ndarray],
) -> list[TwoPhotographs]:
    """Combines all ordered pairs of photographs in both layouts, and keeps the recognized ones.

    Args:
      predict: function from an image, (224, 224, 3), uint8, to the logits of the 1000 ImageNet classes.

    Returns:
      The pairs, of 40, in which the classes of each photograph have a summed probability
      above `MIN_PROBABILITY`.
    """
    photographs = {name: photograph(name) for name in CLASSES}
    composites = []
    for layout, names in itertools.product(LAYOUTS, itertools.permutations(CLASSES, 2)):
        picture = _compose([photographs[name] for name in names], layout)
        logits = np.asarray(predict(picture), np.float64)
        groups = [list(CLASSES[name]) for name in names]
        if all(_softmax(logits)[group].sum() > MIN_PROBABILITY for group in groups):
            first, second = (group[logits[group].argmax()] for group in groups)
            absent = tuple(c for name in CLASSES if name not in names for c in CLASSES[name])
            composites.append(
                TwoPhotographs(names, layout, picture, (first, second), _regions(layout), absent)
            )
    return composites


def _compose(photographs: list[np.ndarray], layout: str) -> np.ndarray:
    height, width = _part_shape(layout)
    axis = 1 if layout == "beside" else 0
    return np.concatenate([_crop_to(p, height, width) for p in photographs], axis)


def _part_shape(layout: str) -> tuple[int, int]:
    return (SIZE, SIZE // 2) if layout == "beside" else (SIZE // 2, SIZE)


def _crop_to(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crops the largest central rectangle with the ratio height : width and resizes it (bicubic)."""
    rows = min(image.shape[0], image.shape[1] * height // width)
    columns = min(image.shape[1], image.shape[0] * width // height)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    part = Image.fromarray(np.ascontiguousarray(image[top : top + rows, left : left + columns]))
    return np.asarray(part.resize((width, height), Image.Resampling.BICUBIC))


def _regions(layout: str) -> np.ndarray:
    height, width = _part_shape(layout)
    first = np.zeros((SIZE, SIZE), bool)
    first[:height, :width] = True
    return np.stack([first, ~first])


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max())
    return exp / exp.sum()
