"""How much of a prediction is due to the surroundings of the object?"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._boxes import check_boxes, sides
from jaxlrp.metrics.localization import _Pooled
from jaxlrp.metrics.metric import metric


@metric
class ContextRatio(_Pooled):
    """How relevant a pixel of the surroundings is, compared with one of the object.

    mean_{i not in s} R_i / mean_{i in s} R_i, where s is the mask, or the box of the object
    (`box_masks`). With `positive`, max(R_i, 0) replaces R_i. Without it, sums can cancel, and the ratio can
    have any value.

    Neither direction is better: it says what a model uses, not whether the explanation is right. 0: only
    the object; 1: a pixel of the surroundings counts as much as one of the object, as in a random map. It
    depends on the explanation as well: compare models at the same resolution at the least, since relevance
    that is shared by the pixels of a patch reaches over the border of the object.

    Undefined (`nan`) where the mask is empty or covers everything, and where the mean inside is zero.

    Attributes:
      pool, channels: how channels become one number, and which axes of an example hold them.
      positive: whether negative relevance of a position is left out.

    References:
      Lapuschkin et al. (2016), "Analyzing Classifiers: Fisher Vectors and Deep Neural Networks",
      https://doi.org/10.1109/CVPR.2016.318

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a, mask = jnp.array([[3.0, 1.0, 1.0, -2.0]]), jnp.array([[True, True, False, False]])
      >>> metrics.ContextRatio()(a, mask).tolist()
      [0.25]
      >>> metrics.ContextRatio(positive=False)(a, mask).tolist()
      [-0.25]
    """

    positive: bool = True
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))

    @property
    def higher_is_better(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Neither direction is better."""

    def _of(self, values: Array, inside: Array) -> Array:
        held = jnp.maximum(values, 0) if self.positive else values
        size = inside.sum(axis=1).astype(values.dtype)
        within = jnp.where(inside, held, 0).sum(axis=1) / size
        beside = jnp.where(inside, 0, held).sum(axis=1) / (inside.shape[1] - size)
        defined = jnp.abs(within) > 32 * jnp.finfo(values.dtype).eps * jnp.abs(held).mean(axis=1)
        return jnp.where(defined, beside / jnp.where(defined, within, 1), jnp.nan)


def box_masks(boxes: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Masks of boxes, for metrics that compare relevance with the place of an object.

    Args:
      boxes: integers, top, left, bottom, right of one object in each image, (n, 4), the last two not
        included.
      shape: of the images, (H, W).

    Returns:
      Booleans (n, H, W); add an axis for channels: `box_masks(boxes, shape)[..., None]`.

    Raises:
      ValueError: if they are not integers, or a box is empty or reaches beyond the image.

    Example:
      >>> from jaxlrp import metrics
      >>> metrics.box_masks([[0, 1, 2, 3]], (2, 4)).astype(int).tolist()
      [[[0, 1, 1, 0], [0, 1, 1, 0]]]
    """
    held = np.asarray(boxes)
    if held.ndim != 2 or held.shape[1] != 4:
        raise ValueError(
            f"boxes must be (n, 4), top, left, bottom, right of each image, got shape {held.shape}"
        )
    check_boxes("boxes", held, shape)
    rows, columns = sides(held, shape)
    return rows[:, :, None] & columns[:, None, :]
