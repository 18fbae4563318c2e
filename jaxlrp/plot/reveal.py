"""Images of which only the most relevant part is shown: stimuli for studies with people."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import check_one_of, is_number
from jaxlrp.plot.coarse import coarse
from jaxlrp.plot.given import Relevance
from jaxlrp.plot.pixels import photograph, sum_channels


def reveal(
    relevance: Relevance,
    image: ArrayLike,
    *,
    fraction: float = 0.1,
    dim: float = 0.1,
    by: Literal["relevance", "magnitude"] = "relevance",
    channel_axis: int | None = None,
    pool: int = 1,
    smooth: float = 0.0,
    rescale: bool = False,
    background: float = 0.5,
) -> np.ndarray:
    """The most relevant fraction of an image as it is, and the rest dimmed.

    Can people tell the class from what the model found relevant? `jaxlrp.study` asks them. Of n pixels,
    exactly round(fraction n) are shown, so that methods are compared at the same area. Where relevance is
    equal, a fixed random order decides, not the place in the image.

    pixel = image where shown, background + dim (image - background) elsewhere

    Args:
      relevance: (H, W), or with channels, which are summed; an array, real, finite, or an explanation of
        one sample. A batch of one is its only image. Not modified.
      image: (H, W), (H, W, 1 or 3), uint8 or float in [0, 1], of the same height and width. Not modified.
      fraction: of the pixels, in [0, 1]; the set of a smaller fraction is part of that of a larger one.
      dim: what is left of the contrast of the other pixels, in [0, 1]; 0 hides them.
      by: "relevance" shows what speaks for the output; "magnitude" shows what speaks against it as well.
      channel_axis, rescale: as in `overlay`.
      pool, smooth: coarser maps, as in `heatmap`, so that patches are shown and not single pixels. `pool`
        shows parts of a patch where the number of pixels is no multiple of it.
      background: the gray that other pixels fade to, in [0, 1].

    Returns:
      uint8 array of shape (H, W, 3).

    Raises:
      TypeError: if an array is traced or does not hold real numbers.
      ValueError: if a shape or a value is invalid; the message names the argument.

    References:
      Dawoud et al. (2023), https://arxiv.org/abs/2310.07534

    Example:
      >>> import numpy as np
      >>> photo = np.full((2, 2), 255, np.uint8)
      >>> reveal(np.array([[0.0, 3.0], [-5.0, 1.0]]), photo, fraction=0.5, dim=0.0)[..., 0].tolist()
      [[128, 255], [128, 255]]
    """
    for name, value in (("fraction", fraction), ("dim", dim), ("background", background)):
        if not is_number(value) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
    check_one_of("by", by, ("relevance", "magnitude"))
    values = coarse(sum_channels(relevance, channel_axis), pool, smooth)
    photo = photograph(image, channel_axis, rescale=rescale)
    if photo.shape[:2] != values.shape:
        raise ValueError(
            f"image must have the height and width of relevance, {values.shape}, got {photo.shape[:2]}; "
            "resize it to the input size of the model"
        )
    shown = _highest(np.abs(values) if by == "magnitude" else values, fraction)
    pixels = np.where(shown[..., None], photo, background + dim * (photo - background))
    return np.round(255.0 * pixels).astype(np.uint8)


def _highest(values: np.ndarray, fraction: float) -> np.ndarray:
    """Whether an entry is among the highest fraction, of the shape of `values`."""
    ties = np.random.default_rng(0).permutation(values.size)
    order = np.lexsort((ties, -values.ravel()))
    shown = np.zeros(values.size, bool)
    shown[order[: round(fraction * values.size)]] = True
    return shown.reshape(values.shape)
