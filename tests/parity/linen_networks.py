"""`vgg_bn` and `resnet` of `networks.py` in Flax Linen (NHWC), with the same parameters."""

from typing import Any, NamedTuple

import jax
from flax import linen as nn

import formula
import networks

PADDING = ((1, 1), (1, 1))


def _norm() -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True, epsilon=formula.BATCH_NORM_EPSILON)


class VGG(nn.Module):
    """Four convolutions with batch normalization, three dense layers."""

    def setup(self) -> None:
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv(features, (3, 3), padding=PADDING) for features in (4, 4, 6, 6)
        )
        self.bn1, self.bn2, self.bn3, self.bn4 = (_norm() for _ in range(4))
        self.fc1, self.fc2, self.fc3 = (nn.Dense(n) for n in (10, 8, formula.CLASSES))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(self.bn1(self.conv1(x)))
        x = nn.relu(self.bn2(self.conv2(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(self.bn3(self.conv3(x)))
        x = nn.relu(self.bn4(self.conv4(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc3(nn.relu(self.fc2(x)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        strides = (self.stride, self.stride)
        y = nn.Conv(self.features, (3, 3), strides, PADDING, use_bias=False, name="conv1")(x)
        y = nn.relu(_norm().copy(name="bn1")(y))
        y = nn.Conv(self.features, (3, 3), padding=PADDING, use_bias=False, name="conv2")(y)
        y = _norm().copy(name="bn2")(y)
        if self.stride != 1:
            x = nn.Conv(self.features, (1, 1), strides, use_bias=False, name="downsample")(x)
            x = _norm().copy(name="downsample_bn")(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the identity."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(self.width, (1, 1), use_bias=False, name="conv1")(x)
        y = nn.relu(_norm().copy(name="bn1")(y))
        y = nn.Conv(self.width, (3, 3), padding=PADDING, use_bias=False, name="conv2")(y)
        y = nn.relu(_norm().copy(name="bn2")(y))
        y = nn.Conv(x.shape[-1], (1, 1), use_bias=False, name="conv3")(y)
        return nn.relu(x + _norm().copy(name="bn3")(y))


class ResNet(nn.Module):
    """Stem, two basic blocks, a bottleneck, a dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (3, 3), padding=PADDING, use_bias=False, name="conv1")(x)
        x = nn.relu(_norm().copy(name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), PADDING)
        x = BasicBlock(4, name="layer1")(x)
        x = BasicBlock(6, stride=2, name="layer2")(x)
        x = Bottleneck(4, name="layer3")(x)
        return nn.Dense(formula.CLASSES, name="fc")(x.mean(axis=(1, 2)))


class LinenNetwork(NamedTuple):
    """A module, its variables (`params` and `batch_stats`) and the input batch."""

    module: nn.Module
    variables: dict[str, Any]
    x: formula.Array


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and running statistics of a nested dict, either without empty branches."""
    learned, statistics = {}, {}
    for key, value in params.items():
        if isinstance(value, dict):
            below = _split(value)
            for tree, branch in zip((learned, statistics), below, strict=True):
                if branch:
                    tree[key] = branch
        else:
            (statistics if key in ("mean", "var") else learned)[key] = value
    return learned, statistics


def _network(name: str, module: nn.Module) -> LinenNetwork:
    learned, statistics = _split(networks.make_params(name, "NHWC"))
    x = networks.to_layout(formula.inputs(name), "NHWC")
    return LinenNetwork(module, {"params": learned, "batch_stats": statistics}, x)


LINEN: dict[str, LinenNetwork] = {
    "vgg_bn": _network("vgg_bn", VGG()),
    "resnet": _network("resnet", ResNet()),
}
