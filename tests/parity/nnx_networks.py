"""`vgg_bn` and `resnet` of `networks.py` in Flax NNX (NHWC), with the same parameters."""

from collections.abc import Callable
from operator import attrgetter

import jax
import jax.numpy as jnp
from flax import nnx

import formula
import networks

PADDING = ((1, 1), (1, 1))


def _conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, *, bias: bool = False, rngs: nnx.Rngs
) -> nnx.Conv:
    padding = PADDING if size == 3 else "VALID"
    return nnx.Conv(
        inputs, outputs, (size, size), (stride, stride), padding=padding, use_bias=bias, rngs=rngs
    )


def _norm(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    epsilon = formula.BATCH_NORM_EPSILON
    return nnx.BatchNorm(features, use_running_average=True, epsilon=epsilon, rngs=rngs)


class VGG(nnx.Module):
    """Four convolutions with batch normalization, three dense layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(3, 4, bias=True, rngs=rngs)
        self.bn1 = _norm(4, rngs)
        self.conv2 = _conv(4, 4, bias=True, rngs=rngs)
        self.bn2 = _norm(4, rngs)
        self.conv3 = _conv(4, 6, bias=True, rngs=rngs)
        self.bn3 = _norm(6, rngs)
        self.conv4 = _conv(6, 6, bias=True, rngs=rngs)
        self.bn4 = _norm(6, rngs)
        self.fc1 = nnx.Linear(12, 10, rngs=rngs)
        self.fc2 = nnx.Linear(10, 8, rngs=rngs)
        self.fc3 = nnx.Linear(8, formula.CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.bn3(self.conv3(x)))
        x = nnx.relu(self.bn4(self.conv4(x)))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc3(nnx.relu(self.fc2(x)))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(inputs, outputs, stride=stride, rngs=rngs)
        self.bn1 = _norm(outputs, rngs)
        self.conv2 = _conv(outputs, outputs, rngs=rngs)
        self.bn2 = _norm(outputs, rngs)
        self.has_downsample = stride != 1
        if self.has_downsample:
            self.downsample = _conv(inputs, outputs, size=1, stride=stride, rngs=rngs)
            self.downsample_bn = _norm(outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.has_downsample:
            x = self.downsample_bn(self.downsample(x))
        return nnx.relu(x + y)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions beside the identity."""

    def __init__(self, features: int, width: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(features, width, size=1, rngs=rngs)
        self.bn1 = _norm(width, rngs)
        self.conv2 = _conv(width, width, rngs=rngs)
        self.bn2 = _norm(width, rngs)
        self.conv3 = _conv(width, features, size=1, rngs=rngs)
        self.bn3 = _norm(features, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        return nnx.relu(x + self.bn3(self.conv3(y)))


class ResNet(nnx.Module):
    """Stem, two basic blocks, a bottleneck, a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(3, 4, rngs=rngs)
        self.bn1 = _norm(4, rngs)
        self.layer1 = BasicBlock(4, 4, 1, rngs)
        self.layer2 = BasicBlock(4, 6, 2, rngs)
        self.layer3 = Bottleneck(6, 4, rngs)
        self.fc = nnx.Linear(6, formula.CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), PADDING)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(axis=(1, 2)))


NNX: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {"vgg_bn": VGG, "resnet": ResNet}


def build(name: str) -> tuple[nnx.Module, formula.Array]:
    """A network with its parameters set, and its input batch. In float64 where x64 is enabled."""
    model = NNX[name](nnx.Rngs(0))
    for key in formula.MODELS[name]:
        module = attrgetter(key)(model)
        for leaf, value in networks.layer_parameters(name, key, "NHWC").items():
            kind = nnx.BatchStat if leaf in ("mean", "var") else nnx.Param
            setattr(module, leaf, kind(jnp.asarray(value)))
    return model, networks.to_layout(formula.inputs(name), "NHWC")
