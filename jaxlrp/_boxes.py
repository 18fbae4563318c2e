"""Boxes of images: top, left, bottom, right in pixels, the last two not included."""

from __future__ import annotations

import numpy as np


def sides(boxes: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns whose centers lie inside of boxes.

    Args:
      boxes: (..., 4).
      shape: of the image, (H, W).

    Returns:
      Booleans (..., H) and (..., W). A pixel is inside where both are true.
    """
    top, left, bottom, right = np.moveaxis(boxes, -1, 0)[..., None]
    rows, columns = (np.arange(length) + 0.5 for length in shape)
    return (rows > top) & (rows < bottom), (columns > left) & (columns < right)


def check_boxes(name: str, boxes: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuses boxes (..., 4) that are not integers, are empty, or reach beyond an image.

    Raises:
      ValueError: naming the argument.
    """
    if not np.issubdtype(boxes.dtype, np.integer):
        raise ValueError(
            f"{name} must be integers, top, left, bottom, right in pixels, got {boxes.dtype}"
        )
    top, left, bottom, right = np.moveaxis(boxes, -1, 0)
    bad = (top < 0) | (left < 0) | (bottom > shape[0]) | (right > shape[1])
    bad |= (top >= bottom) | (left >= right)
    if bad.any():
        raise ValueError(
            f"{name} must be top, left, bottom, right inside an image of {shape[0]} x {shape[1]} pixels, "
            f"with top < bottom and left < right, got {boxes[bad][0].tolist()}"
        )
