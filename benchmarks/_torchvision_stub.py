"""Zennit and LXT import torchvision for the names of a few classes alone: empty ones will do."""

from __future__ import annotations

import sys
import types

import torch


def stub_torchvision() -> None:
    """Where torchvision is missing, empty modules with the names that Zennit and LXT import."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name, classes in {
            "torchvision": (),
            "torchvision.ops": ("FrozenBatchNorm2d",),
            "torchvision.ops.misc": ("FrozenBatchNorm2d",),
            "torchvision.models": (),
            "torchvision.models.resnet": ("Bottleneck", "BasicBlock"),
            "torchvision.models.vision_transformer": (),
        }.items():
            module = sys.modules[name] = types.ModuleType(name)
            for cls in classes:
                setattr(module, cls, type(cls, (torch.nn.Module,), {}))
            module.nn = torch.nn  # pyright: ignore
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
