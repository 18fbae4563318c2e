"""The networks of the parity tests as numbers: layers, parameters, inputs, seeds, by formula.

Nothing is drawn at random and no weight is stored: both sides of a comparison (`make_zennit.py` in
PyTorch, `networks.py` in JAX) compute the same float64 arrays from here. NumPy only, and PyTorch's
axis order throughout.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BATCH_NORM_EPSILON = 1e-3  # large enough that a fold which forgets it misses a tolerance of 1e-6
LOW, HIGH = -1.25, 1.5  # the box of EpsilonGammaBox; every input lies strictly inside
GAMMA = 0.25
NO_BIAS = "-nobias"  # suffix of the composites and rules that ran with zero_params="bias"

IMAGE = (2, 3, 8, 6)  # batch of two, three channels, not square: a swapped axis cannot go unseen
TARGETS = (1, 3)  # the class explained in either image, of four
CLASSES = 4


@dataclass(frozen=True)
class Conv:
    """A convolution over images; its weight is (outputs, inputs / groups, size, size)."""

    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1
    dilation: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Dense:
    """A dense layer; its weight is (outputs, inputs)."""

    inputs: int
    outputs: int


@dataclass(frozen=True)
class Norm:
    """Batch normalization with fixed statistics; `gain` multiplies the scale."""

    features: int
    gain: float = 1.0


Layer = Conv | Dense | Norm


def _vgg(norm: bool) -> dict[str, Layer]:
    layers: dict[str, Layer] = {}
    for i, (inputs, outputs) in enumerate([(3, 4), (4, 4), (4, 6), (6, 6)], start=1):
        layers[f"conv{i}"] = Conv(inputs, outputs)
        if norm:
            layers[f"bn{i}"] = Norm(outputs)
    return layers | {"fc1": Dense(12, 10), "fc2": Dense(10, 8), "fc3": Dense(8, CLASSES)}


def _resnet(norm: bool) -> dict[str, Layer]:
    convolutions = {
        "conv1": Conv(3, 4),
        "layer1.conv1": Conv(4, 4),
        "layer1.conv2": Conv(4, 4),
        "layer2.conv1": Conv(4, 6, stride=2),
        "layer2.conv2": Conv(6, 6),
        "layer2.downsample": Conv(4, 6, size=1, stride=2, padding=0),
        "layer3.conv1": Conv(6, 4, size=1, padding=0),
        "layer3.conv2": Conv(4, 4),
        "layer3.conv3": Conv(4, 6, size=1, padding=0),
    }
    layers: dict[str, Layer] = {}
    for name, conv in convolutions.items():
        layers[name] = Conv(
            conv.inputs, conv.outputs, conv.size, conv.stride, conv.padding, bias=not norm
        )
        if norm:
            layers[norm_name(name)] = Norm(conv.outputs)
    return layers | {"fc": Dense(6, CLASSES)}


def norm_name(conv: str) -> str:
    """The name of the batch normalization behind a convolution of a ResNet."""
    return f"{conv}_bn" if conv.endswith("downsample") else conv.replace("conv", "bn")


def _dense_layer(name: str, inputs: int, width: int = 6, growth: int = 3) -> dict[str, Layer]:
    return {
        f"{name}.norm1": Norm(inputs),
        f"{name}.conv1": Conv(inputs, width, size=1, padding=0, bias=False),
        f"{name}.norm2": Norm(width),
        f"{name}.conv2": Conv(width, growth, bias=False),
    }


def _inverted_residual(name: str, inputs: int, outputs: int, stride: int) -> dict[str, Layer]:
    width = 2 * inputs
    return {
        f"{name}.expand": Conv(inputs, width, size=1, padding=0, bias=False),
        f"{name}.expand_bn": Norm(width, gain=2.0),
        f"{name}.depthwise": Conv(width, width, stride=stride, groups=width, bias=False),
        f"{name}.depthwise_bn": Norm(width, gain=2.0),
        f"{name}.project": Conv(width, outputs, size=1, padding=0, bias=False),
        f"{name}.project_bn": Norm(outputs),
    }


MODELS: dict[str, dict[str, Layer]] = {
    "vgg": _vgg(norm=False),
    "vgg_bn": _vgg(norm=True),
    "resnet": _resnet(norm=True),
    "resnet_nobn": _resnet(norm=False),
    "densenet": {
        "conv0": Conv(3, 6, bias=False),
        "norm0": Norm(6),
        **_dense_layer("dense1", 6),
        **_dense_layer("dense2", 9),
        "transition.norm": Norm(12),
        "transition.conv": Conv(12, 6, size=1, padding=0, bias=False),
        **_dense_layer("dense3", 6),
        "norm5": Norm(9),
        "fc": Dense(9, CLASSES),
    },
    # gains of 2 drive some units past 6, where ReLU6 is flat
    "mobile": {
        "stem": Conv(3, 4, bias=False),
        "stem_bn": Norm(4, gain=2.0),
        **_inverted_residual("block1", 4, 4, stride=1),
        **_inverted_residual("block2", 4, 6, stride=2),
        "fc": Dense(6, CLASSES),
    },
    "avgpool_tanh": {
        "conv1": Conv(3, 4),
        "conv2": Conv(4, 5),
        "conv3": Conv(5, 6),
        "fc1": Dense(24, 8),
        "fc2": Dense(8, 6),
        "fc3": Dense(6, CLASSES),
    },
    "dense": {"dense": Dense(7, 5)},
    "conv": {"conv": Conv(4, 6, stride=2, padding=2, groups=2, dilation=2)},
}

INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(MODELS, IMAGE),
    "dense": (2, 7),
    "conv": (2, 4, 5, 4),
}

SINGLE = ("dense", "conv")  # one layer each; the rest are whole networks

# Layers at whose output the relevance is frozen too.
HIDDEN: dict[str, tuple[str, ...]] = {
    "vgg": ("conv4", "fc1"),
    "vgg_bn": ("conv4", "fc1"),
    "resnet": ("layer2.downsample", "layer3.conv1"),
    "resnet_nobn": ("layer2.downsample", "layer3.conv1"),
    "densenet": ("dense2.conv2", "transition.conv"),
    "mobile": ("block1.project", "block2.depthwise"),
    "avgpool_tanh": ("conv3", "fc2"),
}


# Conditions on channels, layer by layer from the output back to the input.
CONDITIONS: dict[str, tuple[dict[str, tuple[int, ...]], ...]] = {
    "vgg": (
        {},
        {"conv4": (0,)},
        {"conv4": (1, 4)},
        {"conv2": (3,)},
        {"conv4": (4, 0), "conv2": (1, 2)},
    ),
    "resnet_nobn": (
        {},
        {"layer3.conv2": (2,)},
        {"layer2.conv2": (1, 3)},
        {"layer2.conv2": (5,), "layer1.conv1": (0, 2)},
    ),
}


def wave(shape: tuple[int, ...], phase: float) -> Array:
    """The chirp sin(pi phi k^2 + phase), k = 1, 2, ... in C order, phi the golden ratio.

    It spreads over [-1, 1] with variance 1/2. Were it linear in k, a matrix filled with it would
    have rank two.
    """
    k = np.arange(1, math.prod(shape) + 1, dtype=np.float64)
    golden = (1 + math.sqrt(5)) / 2
    return np.sin(math.pi * golden * k * k + phase).reshape(shape)


def _layer_parameters(layer: Layer, index: int) -> dict[str, Array]:
    if isinstance(layer, Norm):
        n = (layer.features,)
        return {
            "weight": layer.gain * (1 + 0.4 * wave(n, index + 0.1)),
            "bias": 0.3 * wave(n, index + 0.2),
            "running_mean": 0.3 * wave(n, index + 0.3),
            "running_var": 1 + 0.6 * wave(n, index + 0.4),
        }
    if isinstance(layer, Conv):
        shape = (layer.outputs, layer.inputs // layer.groups, layer.size, layer.size)
    else:
        shape = (layer.outputs, layer.inputs)
    he = math.sqrt(2 / math.prod(shape[1:]))  # standard deviation of He et al.
    parameters = {"weight": he * math.sqrt(2) * wave(shape, index)}
    if isinstance(layer, Dense) or layer.bias:
        parameters["bias"] = 0.2 * wave((layer.outputs,), index + 0.5)
    return parameters


def parameters(name: str) -> dict[str, dict[str, Array]]:
    """The parameters of a network by layer, under PyTorch's names and in PyTorch's axis order.

    Args:
      name: a key of `MODELS`.

    Returns:
      For each layer its "weight" and "bias" (where it has one) and, for `Norm`, "running_mean"
      and "running_var", the latter in [.4, 1.6].
    """
    return {key: _layer_parameters(layer, i) for i, (key, layer) in enumerate(MODELS[name].items())}


def inputs(name: str) -> Array:
    """The input batch, in (-1, 1) and of both signs; NCHW for images."""
    return wave(INPUTS[name], 1.2)


def one_hot() -> Array:
    """One row per image with a one at its class of `TARGETS`; times the logits it is the seed."""
    return np.eye(CLASSES)[list(TARGETS)]


def seed(shape: tuple[int, ...]) -> Array:
    """The initial relevance at the output of a single layer: of both signs, whatever the output."""
    return wave(shape, 1.9)


def bounds(name: str) -> tuple[Array, Array]:
    """Bounds of the z-box for a single layer as arrays: per feature (dense), per channel (conv)."""
    shape = (1, 7) if name == "dense" else (1, 4, 1, 1)
    return -1.2 + 0.2 * wave(shape, 0.3), 1.3 + 0.3 * wave(shape, 0.6)


def data_set() -> tuple[Array, npt.NDArray[np.int64]]:
    """60 images and the class that is explained of each: 15, 25, 15 and 5 of the classes 0 to 3."""
    classes = np.array([0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 3] * 5, dtype=np.int64)
    return wave((len(classes), *IMAGE[1:]), 0.4), classes
