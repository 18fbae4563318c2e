"""Freeze what Zennit computes for the networks of `formula.py` into `zennit.npz`.

Run `python tests/parity/make_zennit.py` where torch and zennit 1.0.0 are installed (torchvision
need not be). Zennit is used as a program: nothing of its code is here.

Keys, all float64 and in PyTorch's axis order (NCHW):

- `{network}/logits`: (2, 4).
- `{network}/{composite}/relevance`: of the input, (2, 3, 8, 6), from the seed logits * one_hot().
- `{network}/{composite}/hidden/{layer}`: of the output of a layer in `formula.HIDDEN`, for the
  composites in `HIDDEN`.
- `{layer}/output`, `{layer}/{rule}/relevance`: for the single layers "dense" and "conv", from the
  seed `formula.seed`.

The suffix `-nobias` marks zero_params="bias". GuidedBackprop, DeconvNet and BetaSmooth know only
`torch.nn.ReLU` (ReLU6 is no subclass of it), so in a network without one they are the gradient;
that is checked here and not stored.

A canonizer folds BatchNorm into the convolution right before it. In a VGG, a ResNet or a MobileNet
the order in which modules were registered tells which that is. In a DenseNet it does not:
`dense1.conv2` is registered right before `dense2.norm1`, which normalizes a *concatenation* that
the convolution made only a part of, and `dense2.conv2` reaches nothing but `transition.norm`,
again by way of a concatenation; neither may be merged. `conv0, norm0` and `conv1, norm2` are true
pairs. So there the true pairs are named, and the other norms remain, as layers that pass relevance
on unchanged.
"""

import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import formula

# Zennit needs of torchvision a few class names only: where it is missing, empty modules serve.
if find_spec("torchvision") is None:
    for path, classes in {
        "torchvision": (),
        "torchvision.ops": ("FrozenBatchNorm2d",),
        "torchvision.ops.misc": ("FrozenBatchNorm2d",),
        "torchvision.models": (),
        "torchvision.models.resnet": ("Bottleneck", "BasicBlock"),
    }.items():
        sys.modules[path] = types.ModuleType(path)
        for cls in classes:
            setattr(sys.modules[path], cls, type(cls, (nn.Module,), {}))
        parent, _, child = path.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[path])


from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.canonizers import (
    Canonizer,
    NamedMergeBatchNorm,
    SequentialMergeBatchNorm,
)
from zennit.core import Composite, Hook
from zennit.layer import Sum

OUTPUT = Path(__file__).parent / "zennit.npz"
HIDDEN = ("EpsilonPlus", "EpsilonAlpha2Beta1", "EpsilonGammaBox")
RELU_ONLY = ("GuidedBackprop", "DeconvNet", "BetaSmooth")
MARGIN = 1e-4  # of every ReLU and max-pool to its kink


def layer(spec: formula.Layer) -> nn.Module:
    """The PyTorch module of a layer, its parameters not yet set."""
    if isinstance(spec, formula.Norm):
        return nn.BatchNorm2d(spec.features, eps=formula.BATCH_NORM_EPSILON)
    if isinstance(spec, formula.Dense):
        return nn.Linear(spec.inputs, spec.outputs)
    return nn.Conv2d(
        spec.inputs,
        spec.outputs,
        spec.size,
        spec.stride,
        spec.padding,
        spec.dilation,
        spec.groups,
        spec.bias,
    )


def children(specs: dict[str, formula.Layer], prefix: str) -> dict[str, nn.Module]:
    """Modules of the layers below `prefix`, by the rest of their name."""
    return {
        name.removeprefix(prefix): layer(spec)
        for name, spec in specs.items()
        if name.startswith(prefix)
    }


class Add(nn.Module):
    """A residual sum that Zennit sees: a stack and its `Sum`."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum(dim=-1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(torch.stack([a, b], dim=-1))


class Residual(nn.Module):
    """main(x) + shortcut(x), then an activation. Modules are registered in the order they run."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None, activation: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut
        self.add = Add()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.activation(self.add(shortcut, self.main(x)))


class DenseLayer(nn.Module):
    """x and main(x) side by side in the channels."""

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.main(x)], dim=1)


def sequential(*parts: tuple[str, nn.Module]) -> nn.Sequential:
    """A Sequential of named parts."""
    return nn.Sequential(OrderedDict(parts))


def conv_norm(modules: dict[str, nn.Module], conv: str, norm: str) -> list[tuple[str, nn.Module]]:
    """A convolution and, where the network has one, the batch normalization behind it."""
    return [(name, modules[name]) for name in (conv, norm) if name in modules]


def vgg(specs: dict[str, formula.Layer]) -> nn.Module:
    """Four convolutions, with batch normalization where `specs` has it, and three dense layers."""
    modules = children(specs, "")
    parts: list[tuple[str, nn.Module]] = []
    for i in range(1, 5):
        parts += [*conv_norm(modules, f"conv{i}", f"bn{i}"), (f"relu{i}", nn.ReLU())]
        if i % 2 == 0:
            parts.append((f"pool{i}", nn.MaxPool2d(2)))
    parts += [("flatten", nn.Flatten()), ("fc1", modules["fc1"]), ("relu5", nn.ReLU())]
    parts += [("fc2", modules["fc2"]), ("relu6", nn.ReLU()), ("fc3", modules["fc3"])]
    return sequential(*parts)


def resnet(specs: dict[str, formula.Layer]) -> nn.Module:
    """Stem, two basic blocks (the second strided, with a downsampling shortcut), a bottleneck."""

    def block(name: str) -> nn.Module:
        modules = children(specs, f"{name}.")
        convolutions = [key for key in modules if key.startswith("conv")]
        main: list[tuple[str, nn.Module]] = []
        for conv in convolutions:
            main += conv_norm(modules, conv, formula.norm_name(conv))
            if conv != convolutions[-1]:
                main.append((f"relu_{conv}", nn.ReLU()))
        shortcut = conv_norm(modules, "downsample", "downsample_bn")
        return Residual(sequential(*main), sequential(*shortcut) if shortcut else None, nn.ReLU())

    modules = children(specs, "")
    return sequential(
        *conv_norm(modules, "conv1", "bn1"),
        ("relu", nn.ReLU()),
        ("maxpool", nn.MaxPool2d(3, 2, 1)),
        ("layer1", block("layer1")),
        ("layer2", block("layer2")),
        ("layer3", block("layer3")),
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", modules["fc"]),
    )


def densenet(specs: dict[str, formula.Layer]) -> nn.Module:
    """Stem, two dense layers, a transition, one dense layer: normalization before activation."""

    def dense_layer(name: str) -> nn.Module:
        modules = children(specs, f"{name}.")
        return DenseLayer(
            sequential(
                ("norm1", modules["norm1"]),
                ("relu1", nn.ReLU()),
                ("conv1", modules["conv1"]),
                ("norm2", modules["norm2"]),
                ("relu2", nn.ReLU()),
                ("conv2", modules["conv2"]),
            )
        )

    modules = children(specs, "")
    transition = sequential(
        ("norm", modules["transition.norm"]),
        ("relu", nn.ReLU()),
        ("conv", modules["transition.conv"]),
        ("pool", nn.AvgPool2d(2)),
    )
    return sequential(
        ("conv0", modules["conv0"]),
        ("norm0", modules["norm0"]),
        ("relu0", nn.ReLU()),
        ("dense1", dense_layer("dense1")),
        ("dense2", dense_layer("dense2")),
        ("transition", transition),
        ("dense3", dense_layer("dense3")),
        ("norm5", modules["norm5"]),
        ("relu5", nn.ReLU()),
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", modules["fc"]),
    )


def mobile(specs: dict[str, formula.Layer]) -> nn.Module:
    """Stem and two inverted residual blocks with ReLU6, the first with a residual sum."""

    def block(name: str, residual: bool) -> nn.Module:
        modules = children(specs, f"{name}.")
        main = sequential(
            *conv_norm(modules, "expand", "expand_bn"),
            ("relu1", nn.ReLU6()),
            *conv_norm(modules, "depthwise", "depthwise_bn"),
            ("relu2", nn.ReLU6()),
            *conv_norm(modules, "project", "project_bn"),
        )
        return Residual(main, None, nn.Identity()) if residual else main

    modules = children(specs, "")
    return sequential(
        *conv_norm(modules, "stem", "stem_bn"),
        ("relu", nn.ReLU6()),
        ("block1", block("block1", residual=True)),
        ("block2", block("block2", residual=False)),
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", modules["fc"]),
    )


def avgpool_tanh(specs: dict[str, formula.Layer]) -> nn.Module:
    """Smooth activations of both signs and average pools; some with f(0) != 0."""
    modules = children(specs, "")
    return sequential(
        ("conv1", modules["conv1"]),
        ("tanh", nn.Tanh()),
        ("pool1", nn.AvgPool2d(2)),
        ("conv2", modules["conv2"]),
        ("gelu", nn.GELU()),
        ("pool2", nn.AvgPool2d(3, stride=2, padding=1)),  # padding counts: the divisor is always 9
        ("conv3", modules["conv3"]),
        ("silu", nn.SiLU()),
        ("pool3", nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)),
        ("flatten", nn.Flatten()),
        ("fc1", modules["fc1"]),
        ("softplus", nn.Softplus()),
        ("fc2", modules["fc2"]),
        ("sigmoid", nn.Sigmoid()),
        ("fc3", modules["fc3"]),
    )


def single(specs: dict[str, formula.Layer]) -> nn.Module:
    """One layer."""
    return nn.Sequential(OrderedDict(children(specs, "")))


BUILDERS: dict[str, Callable[[dict[str, formula.Layer]], nn.Module]] = {
    "vgg": vgg,
    "vgg_bn": vgg,
    "resnet": resnet,
    "resnet_nobn": resnet,
    "densenet": densenet,
    "mobile": mobile,
    "avgpool_tanh": avgpool_tanh,
    "dense": single,
    "conv": single,
}


def short_name(name: str) -> str:
    """The name of a layer in `formula.MODELS`, from its path among the modules here."""
    return ".".join(part for part in name.split(".") if part not in ("main", "shortcut"))


def build(name: str) -> nn.Module:
    """A fresh network with its parameters set, in float64 and evaluation mode."""
    network = BUILDERS[name](formula.MODELS[name]).double().eval()
    parameters = formula.parameters(name)
    state = network.state_dict()
    missing = {key.rpartition(".")[0] for key in state}
    for key in state:
        path, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        state[key] = torch.from_numpy(parameters[short_name(path)][leaf].copy())
    if {short_name(path) for path in missing} != set(parameters):
        raise RuntimeError(f"{name}: layers of the module and of the formula differ")
    network.load_state_dict(state)
    return network


def canonizers(name: str) -> list[Canonizer]:
    """What folds the batch normalizations that directly follow a convolution."""
    if name != "densenet":
        return [SequentialMergeBatchNorm()]
    pairs = [(("conv0",), "norm0")]
    pairs += [((f"dense{i}.main.conv1",), f"dense{i}.main.norm2") for i in (1, 2, 3)]
    return [NamedMergeBatchNorm(pairs)]


def all_composites(name: str) -> dict[str, Composite | None]:
    """The composites to run on a network; None is the plain gradient."""
    merge = {"canonizers": canonizers(name)}
    box = {"low": formula.LOW, "high": formula.HIGH, "gamma": formula.GAMMA}
    found = {
        "EpsilonPlus": composites.EpsilonPlus(**merge),
        "EpsilonPlusFlat": composites.EpsilonPlusFlat(**merge),
        "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(**merge),
        "EpsilonAlpha2Beta1Flat": composites.EpsilonAlpha2Beta1Flat(**merge),
        "EpsilonGammaBox": composites.EpsilonGammaBox(**box, **merge),
        "ExcitationBackprop": composites.ExcitationBackprop(**merge),
        "GuidedBackprop": composites.GuidedBackprop(**merge),
        "DeconvNet": composites.DeconvNet(**merge),
        "BetaSmooth": composites.BetaSmooth(**merge),
        "Gradient": None,
    }
    found["EpsilonPlus" + formula.NO_BIAS] = composites.EpsilonPlus(zero_params="bias", **merge)
    return found


def single_rules(name: str) -> dict[str, Hook]:
    """The rules to run on a single layer."""
    low, high = (torch.from_numpy(bound) for bound in formula.bounds(name))
    makers: dict[str, Callable[..., Hook]] = {
        "Epsilon": rules.Epsilon,
        "Epsilon(0.25)": lambda **kw: rules.Epsilon(0.25, **kw),
        "ZPlus": rules.ZPlus,
        "AlphaBeta(2,1)": lambda **kw: rules.AlphaBeta(2, 1, **kw),
        "AlphaBeta(1,0)": lambda **kw: rules.AlphaBeta(1, 0, **kw),
        "Gamma(0.25)": lambda **kw: rules.Gamma(0.25, **kw),
        "Gamma(1)": lambda **kw: rules.Gamma(1.0, **kw),
        "ZBox(scalar)": lambda **kw: rules.ZBox(formula.LOW, formula.HIGH, **kw),
        "ZBox(array)": lambda **kw: rules.ZBox(low, high, **kw),
        "WSquare": rules.WSquare,
        "Flat": rules.Flat,
    }
    found = {key: maker() for key, maker in makers.items()}
    return found | {
        key + formula.NO_BIAS: maker(zero_params="bias") for key, maker in makers.items()
    }


def attribute(
    name: str,
    composite: Composite | None,
    seed: Callable[[Tensor], Tensor],
    hidden: tuple[str, ...] = (),
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Output, relevance of the input, and relevance at the outputs of the layers in `hidden`.

    Each call builds its own network: once a canonizer was removed, `state_dict` is not what it was.
    """
    network = build(name)
    found: dict[str, np.ndarray] = {}
    lookup = {short_name(path): module for path, module in network.named_modules()}

    def watch(key: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            output.register_hook(lambda relevance: found.update({key: relevance.numpy().copy()}))

        return hook

    with Gradient(network, composite) as attributor:
        for key in hidden:
            lookup[key].register_forward_hook(watch(key))
        output, relevance = attributor(torch.from_numpy(formula.inputs(name)), seed)
    if set(found) != set(hidden):
        raise RuntimeError(f"{name}: no relevance seen at {set(hidden) - set(found)}")
    return output.detach().numpy(), relevance.numpy(), found


def check_margins(name: str) -> None:
    """Refuse a network where rounding could decide on which side of a kink a value falls.

    Exact ties between zeros in a max-pool are left in on purpose: the first entry wins.
    """
    margins: list[Tensor] = []

    def relu(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        margins.append(args[0].abs().min())
        if isinstance(module, nn.ReLU6):
            margins.append((args[0] - 6).abs().min())

    def max_pool(module: nn.MaxPool2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        padding = (module.padding,) * 4
        x = nn.functional.pad(args[0], padding, value=-torch.inf)
        windows = x.unfold(2, module.kernel_size, module.stride)
        windows = windows.unfold(3, module.kernel_size, module.stride).flatten(4)
        first, second = windows.topk(2).values.unbind(-1)
        margins.append((first - second)[first > 0].min())

    network = build(name)
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.register_forward_hook(relu)
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(max_pool)
    network(torch.from_numpy(formula.inputs(name)))
    if margins and min(margins) < MARGIN:
        raise RuntimeError(f"{name}: a kink is {min(margins):.1e} away, less than {MARGIN}")


def freeze_network(name: str) -> dict[str, np.ndarray]:
    """All composites on one network."""
    check_margins(name)
    one_hot = torch.from_numpy(formula.one_hot())
    has_relu = any(isinstance(module, nn.ReLU) for module in build(name).modules())
    found: dict[str, np.ndarray] = {}
    relevances: dict[str, np.ndarray] = {}
    for key, composite in all_composites(name).items():
        layers = formula.HIDDEN[name] if key in HIDDEN else ()
        logits, relevances[key], hidden = attribute(
            name, composite, lambda output: output * one_hot, layers
        )
        found.setdefault(f"{name}/logits", logits)
        np.testing.assert_allclose(logits, found[f"{name}/logits"], rtol=1e-12, atol=1e-13)
        found |= {f"{name}/{key}/hidden/{path}": value for path, value in hidden.items()}
    if not has_relu:
        for key in RELU_ONLY:
            np.testing.assert_allclose(relevances.pop(key), relevances["Gradient"], rtol=1e-9)
    return found | {f"{name}/{key}/relevance": value for key, value in relevances.items()}


def freeze_single(name: str) -> dict[str, np.ndarray]:
    """All rules on one layer."""
    found: dict[str, np.ndarray] = {}
    for key, rule in single_rules(name).items():
        composite = composites.NameMapComposite([((name,), rule)])
        output, relevance, _ = attribute(
            name, composite, lambda z: torch.from_numpy(formula.seed(tuple(z.shape)))
        )
        found[f"{name}/output"] = output
        found[f"{name}/{key}/relevance"] = relevance
    return found


def main() -> None:
    """Write `zennit.npz`."""
    torch.set_num_threads(1)
    if version("zennit") != "1.0.0":
        raise RuntimeError(f"needs zennit 1.0.0, got {version('zennit')}")
    found: dict[str, np.ndarray] = {}
    for name in formula.MODELS:
        found |= freeze_single(name) if name in formula.SINGLE else freeze_network(name)
    for key, value in found.items():
        if value.dtype != np.float64 or not np.isfinite(value).all():
            raise RuntimeError(f"{key}: not finite float64")
    np.savez_compressed(OUTPUT, **found)
    print(f"{len(found)} arrays, {OUTPUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
