"""VGG16, VGG16 with BatchNorm and ResNet50 as Linen modules, with random parameters as NumPy.

Images are NHWC. Parameters come from a seed and from the shapes alone, so that a twin in another
framework can load the same: see `flatten` and `_zennit_worker.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

Variables = dict[str, Any]

BATCH_NORM_EPSILON = 1e-5


def _batch_norm(name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True, epsilon=BATCH_NORM_EPSILON, name=name)


class VGG16(nn.Module):
    """Thirteen convolutions, five max-pools, three dense layers (Simonyan & Zisserman, 2014).

    Attributes:
      width: channels of the first stage.
      hidden: units of the two hidden dense layers.
      classes: logits.
      batch_norm: whether a BatchNorm follows each convolution.
    """

    width: int = 64
    hidden: int = 4096
    classes: int = 1000
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n = 0
        for stage, depth in enumerate((2, 2, 3, 3, 3)):
            for _ in range(depth):
                x = nn.Conv(self.width * min(2**stage, 8), (3, 3), name=f"conv{n}")(x)
                x = _batch_norm(f"bn{n}")(x) if self.batch_norm else x
                x = nn.relu(x)
                n += 1
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, name="fc0")(x))
        x = nn.relu(nn.Dense(self.hidden, name="fc1")(x))
        return nn.Dense(self.classes, name="fc2")(x)


class Bottleneck(nn.Module):
    """A residual block of three convolutions; the stride is in the second.

    Attributes:
      width: channels of the first two convolutions; the third has four times as many.
      stride: of the block.
      project: whether a convolution stands in the shortcut.
    """

    width: int
    stride: int
    project: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        stride, wide = (self.stride, self.stride), 4 * self.width
        y = nn.Conv(self.width, (1, 1), use_bias=False, name="conv0")(x)
        y = nn.relu(_batch_norm("bn0")(y))
        padding = [(1, 1), (1, 1)]
        y = nn.Conv(self.width, (3, 3), stride, padding, use_bias=False, name="conv1")(y)
        y = nn.relu(_batch_norm("bn1")(y))
        y = nn.Conv(wide, (1, 1), use_bias=False, name="conv2")(y)
        y = _batch_norm("bn2")(y)
        if self.project:
            x = nn.Conv(wide, (1, 1), stride, use_bias=False, name="shortcut")(x)
            x = _batch_norm("bn3")(x)
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """ResNet50 (He et al., 2015), with the strides of version 1.5.

    Attributes:
      width: channels of the first convolution.
      stages: how many blocks each of the four stages has.
      classes: logits.
      remat: whether blocks are computed again on the way back.
    """

    width: int = 64
    stages: tuple[int, ...] = (3, 4, 6, 3)
    classes: int = 1000
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        padding = [(3, 3), (3, 3)]
        x = nn.Conv(self.width, (7, 7), (2, 2), padding, use_bias=False, name="conv")(x)
        x = nn.relu(_batch_norm("bn")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        block = nn.remat(Bottleneck) if self.remat else Bottleneck
        n = 0
        for stage, depth in enumerate(self.stages):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                x = block(self.width * 2**stage, stride, i == 0, name=f"block{n}")(x)
                n += 1
        x = x.mean(axis=(1, 2))
        return nn.Dense(self.classes, name="fc")(x)


_FULL: dict[str, nn.Module] = {
    "vgg16": VGG16(),
    "vgg16_bn": VGG16(batch_norm=True),
    "resnet50": ResNet50(),
}
_TINY: dict[str, nn.Module] = {
    "vgg16": VGG16(width=8, hidden=32, classes=10),
    "vgg16_bn": VGG16(width=8, hidden=32, classes=10, batch_norm=True),
    "resnet50": ResNet50(width=8, stages=(1, 1, 1, 1), classes=10),
}
MODELS = tuple(_FULL)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with its parameters, a batch of inputs and the explained classes.

    Attributes:
      module: the Linen module.
      variables: its parameters and statistics, NumPy arrays.
      x: inputs of shape (batch, size, size, 3), in [-3, 3].
      target: one class for each example.
    """

    module: nn.Module
    variables: Variables
    x: np.ndarray
    target: np.ndarray

    @property
    def config(self) -> dict[str, Any]:
        """The type of the module and its hyperparameters, for a twin to be built from."""
        fields = {
            f.name: getattr(self.module, f.name)
            for f in dataclasses.fields(self.module)
            if f.name not in ("parent", "name", "remat")
        }
        return {"type": type(self.module).__name__, **fields}


def case(name: str, size: int, batch: int, *, tiny: bool = False, seed: int = 0) -> Case:
    """A benchmark case.

    Args:
      name: one of `MODELS`.
      size: height and width of the input, a multiple of 32.
      batch: how many examples.
      tiny: few channels and blocks, to try the benchmarks themselves.
      seed: of parameters and inputs.

    Raises:
      ValueError: if the size does not fit.
    """
    if size % 32:
        raise ValueError(f"size must be a multiple of 32, got {size}")
    module = (_TINY if tiny else _FULL)[name]
    rng = np.random.default_rng(seed)
    shape = (batch, size, size, 3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    x = np.clip(rng.standard_normal(shape), -3, 3).astype(np.float32)
    classes: int = module.classes  # type: ignore[attr-defined]
    return Case(module, _fill(shapes, rng), x, np.arange(batch, dtype=np.int32) % classes)


def flatten(variables: Variables) -> dict[str, np.ndarray]:
    """The arrays by path: "params/block0/conv1/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _fill(shapes: Any, rng: np.random.Generator) -> Variables:
    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        *_, layer, name = (key.key for key in path)
        return _draw(layer, name, leaf.shape, rng).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def _draw(layer: str, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """He-normal kernels; biases and BatchNorm statistics of the magnitude of trained ones."""
    if name == "kernel":
        fan_in = np.prod(shape[:-1])
        return rng.standard_normal(shape, np.float32) * np.sqrt(2 / fan_in)
    if name == "var":
        return rng.uniform(0.5, 2.0, shape)
    if name == "scale":
        damp = 0.3 if layer == "bn2" else 1.0  # keeps the sum of many blocks in range
        return damp * rng.uniform(0.5, 1.5, shape)
    return 0.1 * rng.standard_normal(shape)  # bias, mean
