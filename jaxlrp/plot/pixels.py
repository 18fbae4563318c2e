"""Images and relevance as arrays of pixels, and relevance drawn over an image."""

import jax.numpy as jnp
import numpy as np
from matplotlib.colors import Colormap, Normalize
from numpy.typing import ArrayLike

from jaxlrp.plot.given import Relevance
from jaxlrp.plot.normalize import as_real

_LUMA = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709, on the encoded values of the image


def _channels_last(array: np.ndarray, channel_axis: int | None, name: str) -> np.ndarray:
    """(H, W, C); two-dimensional input gets one channel, and a batch of one is its only image."""
    if array.ndim == 4 and array.shape[0] == 1:
        if channel_axis is not None and not (-4 < channel_axis < 0 or 0 < channel_axis < 4):
            raise ValueError(
                f"channel_axis must be in [-3, -1] or [1, 3] for {name} of shape {array.shape}, whose "
                f"first axis is that of samples, got {channel_axis}"
            )
        array = array[0]
        channel_axis = channel_axis and (channel_axis if channel_axis < 0 else channel_axis - 1)
    if array.ndim == 3 and channel_axis is None and array.shape[0] == 1 < array.shape[-1] != 3:
        array = array[0]
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(
            f"{name} must have shape (H, W) or three axes with channels, got {array.shape}; "
            f"select one image of a batch: {name}[0]"
        )
    if channel_axis is None:
        if array.shape[-1] not in (1, 3) or array.shape[0] in (1, 3):
            raise ValueError(
                f"channel_axis must be given for {name} of shape {array.shape}, because it is ambiguous; "
                "pass -1 for (H, W, C) or 0 for (C, H, W)"
            )
        channel_axis = -1
    if not -3 <= channel_axis < 3:
        raise ValueError(
            f"channel_axis must be in [-3, 2], got {channel_axis}; -1 is the last axis"
        )
    return np.moveaxis(array, channel_axis, -1)


def sum_channels(
    relevance: Relevance, channel_axis: int | None, name: str = "relevance"
) -> np.ndarray:
    """The relevance of each pixel: (H, W), float64."""
    return _channels_last(as_real(relevance, name), channel_axis, name).sum(axis=-1)


def photograph(
    image: ArrayLike, channel_axis: int | None, name: str = "image", rescale: bool = False
) -> np.ndarray:
    """The image as (H, W, 3), float64 in [0, 1]; `rescale` stretches any range to it."""
    values, dtype = as_real(image, name), np.asarray(image).dtype
    if rescale:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low if high > low else 1.0)
    elif dtype == np.uint8:
        values = values / 255.0
    elif jnp.issubdtype(dtype, jnp.integer) or values.min() < -1e-3 or values.max() > 1.001:
        raise ValueError(
            f"{name} must be uint8, or float in [0, 1], "
            f"got {dtype} in [{values.min():.4g}, {values.max():.4g}]; undo the preprocessing "
            "of the model, or pass rescale=True"
        )
    values = _channels_last(values, channel_axis, name)
    if values.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must have 1 or 3 channels, got {values.shape[-1]}; "
            f"drop an alpha channel: {name}[..., :3]"
        )
    return np.broadcast_to(np.clip(values, 0.0, 1.0), (*values.shape[:2], 3))


def as_gray(photo: np.ndarray) -> np.ndarray:
    """The luma (H, W) of an image (H, W, 3)."""
    return photo @ _LUMA


def blend(
    values: np.ndarray, gray: np.ndarray, cmap: Colormap, limit: float, alpha: float
) -> np.ndarray:
    """Draws the colors of `values` over `gray`, both (H, W); returns uint8 (H, W, 3).

    With n the neutral color and o the smallest opacity for which some film gives cmap(R) over n,

        cmap(R) = (1 - o) n + o film
        pixel = (1 - alpha o) gray + alpha o film = gray + alpha ((cmap(R) - n) - o (gray - n))
    """
    if gray.shape != values.shape:
        raise ValueError(
            f"image must have the height and width of relevance, {values.shape}, got {gray.shape}; "
            "resize it to the input size of the model"
        )
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}; 1 is the strongest")
    neutral = np.array(cmap(0.5)[:3])
    shift = cmap(Normalize(-limit, limit)(values))[..., :3] - neutral
    room = np.where(shift > 0, 1.0 - neutral, neutral)  # from neutral to the edge of the gamut
    opacity = np.max(np.abs(shift) / np.maximum(room, 1e-12), axis=-1, keepdims=True)
    pixels = gray[..., None] + alpha * (shift - opacity * (gray[..., None] - neutral))
    return np.round(255.0 * pixels).astype(np.uint8)
