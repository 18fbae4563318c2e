"""Patches of images on a grid, and relevance of patches as relevance of pixels."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._boxes import check_boxes, sides
from jaxlrp._checks import check_count


class Patches(NamedTuple):
    """Patches of images.

    Attributes:
      values: (N, L, size, size, C), or (N, L, size, size) of images without channels.
      boxes: of each patch: top, left, bottom, right, (L, 4), the last two not included.
    """

    values: np.ndarray
    boxes: np.ndarray


def patches(images: ArrayLike, size: int, stride: int) -> Patches:
    """Square patches of images on a grid, from which descriptors are computed.

    Args:
      images: (N, H, W) or (N, H, W, C).
      size: pixels of a side, at most those of the image.
      stride: pixels from one patch to the next.

    Returns:
      `Patches`, of L = ((H - size) // stride + 1) ((W - size) // stride + 1).

    Raises:
      ValueError: if images have another shape, or are smaller than a patch.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import visual_words
      >>> found = visual_words.patches(np.zeros((2, 8, 8)), size=4, stride=2)
      >>> found.values.shape, found.boxes[1].tolist()
      ((2, 9, 4, 4), [0, 2, 4, 6])
    """
    held = np.asarray(images)
    check_count("size", size)
    check_count("stride", stride)
    if held.ndim not in (3, 4) or min(held.shape[1:3]) < size:
        raise ValueError(
            f"images must have shape (N, H, W) or (N, H, W, C), at least {size} pixels high and wide, got "
            f"{held.shape}"
        )
    tops, lefts = (np.arange(0, side - size + 1, stride) for side in held.shape[1:3])
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
    values = np.stack([held[:, a : a + size, b : b + size] for a, b in corners], axis=1)
    return Patches(values, np.hstack([corners, corners + size]))


def to_pixels(relevance: ArrayLike, boxes: ArrayLike, shape: tuple[int, int]) -> Array:
    r"""The relevance of pixels: that of each descriptor is shared evenly by the pixels of its box.

    R_p = sum_{l: p in box_l} R_l / |box_l|

    Args:
      relevance: R_l, (N, L).
      boxes: integers, top, left, bottom, right of each descriptor, (L, 4), or (N, L, 4) if they differ.
      shape: of the images, (H, W).

    Returns:
      (N, H, W), of the same sum.

    Raises:
      ValueError: if shapes do not fit, or a box is empty or reaches beyond the image.

    Example:
      >>> from jaxlrp import visual_words
      >>> visual_words.to_pixels([[4.0, 1.0]], [[0, 0, 2, 2], [0, 1, 1, 3]], (2, 3)).tolist()
      [[[1.0, 1.5, 0.5], [1.0, 1.0, 0.0]]]
    """
    r = jnp.asarray(relevance, float) if np.ndim(relevance) == 2 else None
    where = np.asarray(boxes)
    if r is None or where.shape not in ((r.shape[1], 4), (*r.shape, 4)):
        raise ValueError(
            "relevance must have shape (N, L) and boxes (L, 4) or (N, L, 4), got "
            f"{np.shape(relevance)} and {where.shape}"
        )
    check_boxes("boxes", where, shape)
    rows, columns = sides(np.broadcast_to(where, (*r.shape, 4)), shape)
    area = rows.sum(-1) * columns.sum(-1)
    each = (r / area.astype(r.dtype))[..., None] * rows.astype(r.dtype)
    return jnp.einsum("nlh,nlw->nhw", each, columns.astype(r.dtype), precision="highest")
