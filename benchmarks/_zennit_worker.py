"""Zennit's side of `against_zennit.py`: runs in a Python that has torch and zennit, and no JAX.

python _zennit_worker.py case.npz result.npz

Reads from the first file "config" (JSON: the model's type and hyperparameters, composite names, the
input range, repeats), "x" (NHWC), "target" and the parameters of the Linen modules in `models.py`
by path. Writes the output and, for the gradient and each composite, seconds and relevance (NHWC).
"""

from __future__ import annotations

import json
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from _torchvision_stub import stub_torchvision

stub_torchvision()

from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import EpsilonGammaBox, EpsilonPlus  # noqa: E402
from zennit.layer import Sum  # noqa: E402

BATCH_NORM_EPSILON = 1e-5


class FlattenNHWC(nn.Module):
    """Flattens in the order of Flax: height, width, channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


def vgg16(size: int, width: int, hidden: int, classes: int, **options: bool) -> nn.Module:
    """The twin of `models.VGG16`, its parameters under the same names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, n = 3, 0
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        for _ in range(depth):
            out = width * min(2**stage, 8)
            layers[f"conv{n}"] = nn.Conv2d(channels, out, 3, padding=1)
            if options["batch_norm"]:
                layers[f"bn{n}"] = batch_norm(out)
            layers[f"relu{n}"] = nn.ReLU()
            channels, n = out, n + 1
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers["flatten"] = FlattenNHWC()
    layers["fc0"] = nn.Linear(channels * (size // 32) ** 2, hidden)
    layers["fc0_relu"] = nn.ReLU()
    layers["fc1"] = nn.Linear(hidden, hidden)
    layers["fc1_relu"] = nn.ReLU()
    layers["fc2"] = nn.Linear(hidden, classes)
    return nn.Sequential(layers)


class Bottleneck(nn.Module):
    """The twin of `models.Bottleneck`, with one module for each ReLU and a module for the sum."""

    def __init__(self, channels: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        wide = 4 * width
        self.conv0, self.bn0 = nn.Conv2d(channels, width, 1, bias=False), batch_norm(width)
        self.relu0 = nn.ReLU()
        self.conv1 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = batch_norm(width), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(width, wide, 1, bias=False), batch_norm(wide)
        self.project = project
        if project:
            self.shortcut = nn.Conv2d(channels, wide, 1, stride, bias=False)
            self.bn3 = batch_norm(wide)
        self.sum, self.relu2 = Sum(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu0(self.bn0(self.conv0(x)))
        y = self.relu1(self.bn1(self.conv1(y)))
        y = self.bn2(self.conv2(y))
        x = self.bn3(self.shortcut(x)) if self.project else x
        return self.relu2(self.sum(torch.stack([x, y], dim=-1)))


def resnet50(size: int, width: int, stages: list[int], classes: int) -> nn.Module:
    """The twin of `models.ResNet50`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    layers["bn"], layers["relu"] = batch_norm(width), nn.ReLU()
    layers["pool"] = nn.MaxPool2d(3, 2, 1)
    channels, n = width, 0
    for stage, depth in enumerate(stages):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            layers[f"block{n}"] = Bottleneck(channels, width * 2**stage, stride, i == 0)
            channels, n = 4 * width * 2**stage, n + 1
    layers["mean"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    layers["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


MODELS: dict[str, Callable[..., nn.Module]] = {"VGG16": vgg16, "ResNet50": resnet50}
NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
STATISTICS = {"mean": "running_mean", "var": "running_var"}


def load(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Copies parameters named by their path in the Linen module."""
    state = {}
    for path, array in arrays.items():
        _, *modules, name = path.split("/")
        if name == "kernel":
            array = array.transpose((1, 0) if array.ndim == 2 else (3, 2, 0, 1))
        key = ".".join([*modules, (NAMES | STATISTICS)[name]])
        state[key] = torch.from_numpy(np.ascontiguousarray(array))
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict(state | counters)


def composite_of(name: str, x: Tensor, low: float, high: float) -> Any:
    """A composite of Zennit, with BatchNorm merged into the convolutions."""
    canonizers = [SequentialMergeBatchNorm()]
    if name == "epsilon_plus":
        return EpsilonPlus(canonizers=canonizers)
    if name == "epsilon_gamma_box":
        bounds = {"low": torch.full_like(x, low), "high": torch.full_like(x, high)}
        return EpsilonGammaBox(**bounds, canonizers=canonizers)
    raise ValueError(f"no composite of Zennit is known here for {name!r}")


def seconds(call: Callable[[], Any], repeats: int) -> tuple[np.ndarray, Any]:
    """Seconds of each repeat, and the result."""
    result = call()
    found = np.empty(repeats)
    for r in range(repeats):
        start = time.perf_counter()
        call()
        found[r] = time.perf_counter() - start
    return found, result


def nhwc(x: Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def run(source: str, destination: str) -> None:
    with np.load(source) as file:
        arrays = dict(file)
    config = json.loads(str(arrays.pop("config")))
    torch.set_num_threads(config["threads"])
    x = torch.from_numpy(np.ascontiguousarray(arrays.pop("x").transpose(0, 3, 1, 2)))
    target = torch.from_numpy(arrays.pop("target").astype(np.int64))
    kind = config["model"].pop("type")
    model = MODELS[kind](x.shape[2], **config["model"]).eval()
    load(model, arrays)
    model.requires_grad_(False)  # relevance of the input alone: as in the other process
    one_hot = torch.nn.functional.one_hot(target, config["model"]["classes"]).to(x.dtype)

    def gradient() -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        return output, torch.autograd.grad(output, leaf, one_hot)[0]

    times, (output, _) = seconds(gradient, config["repeats"])
    result = {"output": output.detach().numpy(), "torch": np.array(torch.__version__)}
    result["seconds/gradient"] = times
    for name in config["composites"]:
        composite = composite_of(name, x, config["low"], config["high"])
        with Gradient(model, composite) as attributor:  # registers once: not in the time
            times, (_, relevance) = seconds(
                lambda attributor=attributor: attributor(x, lambda output: output * one_hot),
                config["repeats"],
            )
        result[f"seconds/{name}"], result[f"relevance/{name}"] = times, nhwc(relevance)
    np.savez(destination, **result)


if __name__ == "__main__":
    run(*sys.argv[1:])
