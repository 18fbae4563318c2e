"""The same PyTorch modules explained by Zennit and, converted, by jaxlrp: time and difference.

python benchmarks/from_pytorch.py [--models VGG16 ResNet50]

Both run in this process, which needs `pip install "jaxlrp[torch]" zennit`. The modules are those of
`_zennit_worker.py`, with BatchNorm, drawn at random; nothing is downloaded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

import jaxlrp as lrp
from _zennit_worker import MODELS, composite_of
from jaxlrp import pytorch
from speed import HIGH, LOW, cores, interleave, machine, markdown, number, parser
from speed import composite_of as ours_of

from zennit.attribution import Gradient  # isort: skip  # after the stub of torchvision

COMPOSITES = ("epsilon_plus", "epsilon_gamma_box")
CLASSES = 1000
CONFIGS: dict[str, dict[str, Any]] = {
    "VGG16": {"width": 64, "hidden": 4096, "classes": CLASSES, "batch_norm": True},
    "ResNet50": {"width": 64, "stages": [3, 4, 6, 3], "classes": CLASSES},
}
TINY: dict[str, dict[str, Any]] = {
    "VGG16": {"width": 4, "hidden": 16, "classes": CLASSES, "batch_norm": True},
    "ResNet50": {"width": 4, "stages": [1, 1, 1, 1], "classes": CLASSES},
}


def drawn(name: str, config: dict[str, Any], size: int, batch: int) -> tuple[nn.Module, Tensor]:
    """A module with random weights and statistics, in evaluation mode, and images."""
    torch.manual_seed(0)
    module = MODELS[name](size, **config).eval()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.normal_(child.running_mean, std=0.1)
            nn.init.uniform_(child.running_var, 0.5, 1.5)
    return module.requires_grad_(False), torch.rand(batch, 3, size, size) * (HIGH - LOW) + LOW


def zennit_call(
    module: nn.Module, x: Tensor, target: Tensor, name: str
) -> tuple[Gradient, Callable[[], Tensor]]:
    """An attributor, to be entered before it is called, and the call."""
    attributor = Gradient(module, composite_of(name, x, LOW, HIGH))
    one_hot = nn.functional.one_hot(target, CLASSES).to(x.dtype)
    return attributor, lambda: attributor(x, lambda output: output * one_hot)[1]


def measure(module: nn.Module, x: Tensor, composite: str, repeats: int) -> dict[str, float]:
    """Seconds of the fastest call of both and the first of jaxlrp; the difference of their relevances."""
    target = torch.arange(len(x))
    attributor, theirs = zennit_call(module, x, target, composite)
    explain = lrp.explain(pytorch.convert(module), ours_of(composite))
    pixels, classes = x.numpy(), target.numpy()

    def ours() -> jax.Array:
        return explain(pixels, target=classes).relevance

    start = time.perf_counter()
    found = np.asarray(ours())
    first = time.perf_counter() - start
    with attributor:  # registers once: not in the time
        expected = theirs().numpy()
        zennit, jaxlrp = np.min(interleave([theirs, ours], repeats), axis=1)
    return {
        "zennit_s": float(zennit),
        "jaxlrp_s": float(jaxlrp),
        "jaxlrp_first_s": first,
        "difference": float(np.abs(found - expected).max() / np.abs(expected).max()),
    }


def table(rows: Sequence[tuple[str, str, dict[str, float]]]) -> str:
    """The results for people."""
    header = (
        "module", "composite", "Zennit ms", "jaxlrp ms", "Zennit / jaxlrp", "first call of jaxlrp, s",
        "relevance differs by",
    )  # fmt: skip
    body = [
        [
            model,
            composite,
            number(row["zennit_s"], ".0f", 1e3),
            number(row["jaxlrp_s"], ".0f", 1e3),
            number(row["zennit_s"] / row["jaxlrp_s"], ".1f"),
            number(row["jaxlrp_first_s"], ".1f"),
            number(row["difference"], ".0e"),
        ]
        for model, composite, row in rows
    ]
    return markdown(header, body)


def main(argv: Sequence[str] | None = None) -> list[tuple[str, str, dict[str, float]]]:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    options.add_argument("--composites", nargs="+", choices=COMPOSITES, default=list(COMPOSITES))
    args = options.parse_args(argv)
    size, batch, repeats = (64, 2, 3) if args.quick else (args.size, args.batch, args.repeats)
    torch.set_num_threads(cores())
    settings = {"size": size, "batch": batch, "repeats": repeats, "torch": torch.__version__}
    print(", ".join(f"{k} {v}" for k, v in (machine() | settings).items()))
    rows = []
    for name in args.models:
        module, x = drawn(name, (TINY if args.quick else CONFIGS)[name], size, batch)
        for composite in args.composites:
            rows.append((name, composite, measure(module, x, composite, repeats)))
    print(f"\n{table(rows)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
