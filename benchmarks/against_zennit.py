"""The same models, weights, inputs and composites in Zennit and in jaxlrp: time and difference.

python benchmarks/against_zennit.py --torch-python PATH [--models vgg16 vgg16_bn resnet50]

Zennit runs in a process of its own, in an environment with torch and zennit (`pip install torch
zennit`), before jaxlrp runs in this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from models import MODELS, Case, case, flatten
from speed import (
    HIGH,
    LOW,
    build,
    cores,
    explanation_of,
    gradient_of,
    interleave,
    machine,
    markdown,
    number,
    parser,
)
from torch_python import check_torch_python

COMPOSITES = ("epsilon_plus", "epsilon_gamma_box")
WORKER = Path(__file__).with_name("_zennit_worker.py")


def zennit(case: Case, composites: Sequence[str], repeats: int, python: str) -> dict[str, Any]:
    """What the worker gives back: output, and seconds and relevance of each composite."""
    config = {
        "model": case.config,
        "composites": list(composites),
        "low": LOW,
        "high": HIGH,
        "repeats": repeats,
        "threads": cores(),
    }
    arrays = flatten(case.variables)
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder, "case.npz"), Path(folder, "result.npz")
        np.savez(
            source, config=np.array(json.dumps(config)), x=case.x, target=case.target, **arrays
        )
        command = [python, "-W", "ignore", str(WORKER), str(source), str(destination)]
        subprocess.run(command, check=True)
        with np.load(destination) as file:
            return dict(file)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The greatest difference, in units of the greatest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def measure(case: Case, composites: Sequence[str], repeats: int, python: str) -> dict[str, Any]:
    """Seconds in both libraries, and how far outputs and relevances are apart."""
    theirs = zennit(case, composites, repeats, python)
    args = jax.device_put((case.variables, case.x, case.target))
    functions = [gradient_of(case), *(explanation_of(case, name) for name in composites)]
    programs = [build(function, *args).run for function in functions]
    seconds = interleave([lambda p=p: p(*args) for p in programs], repeats)
    output = np.asarray(jax.jit(case.module.apply)(*args[:2]))
    rows = [
        {
            "composite": name,
            "zennit_s": float(np.median(theirs[f"seconds/{name}"])),
            "zennit_ratio": float(
                np.median(theirs[f"seconds/{name}"]) / np.median(theirs["seconds/gradient"])
            ),
            "jaxlrp_s": float(np.median(times)),
            "jaxlrp_ratio": float(np.median(times) / np.median(seconds[0])),
            "difference": difference(np.asarray(program(*args)), theirs[f"relevance/{name}"]),
        }
        for name, times, program in zip(composites, seconds[1:], programs[1:], strict=True)
    ]
    return {
        "torch": str(theirs["torch"]),
        "torch_gradient_s": float(np.median(theirs["seconds/gradient"])),
        "jax_gradient_s": float(np.median(seconds[0])),
        "output_difference": difference(output, theirs["output"]),
        "rows": rows,
    }


def table(models: dict[str, dict[str, Any]]) -> str:
    """The results for people."""
    header = (
        "model", "composite", "Zennit ms", "x torch gradient", "jaxlrp ms", "x jax.grad",
        "Zennit / jaxlrp", "relevance differs by",
    )  # fmt: skip
    body = []
    for model, result in models.items():
        gradients = result["torch_gradient_s"], result["jax_gradient_s"]
        body.append(
            [
                model,
                "(gradient)",
                number(gradients[0], ".1f", 1e3),
                "1.00",
                number(gradients[1], ".1f", 1e3),
                "1.00",
                number(gradients[0] / gradients[1]),
                f"logits: {result['output_difference']:.1e}",
            ]
        )
        body += [
            [
                model,
                row["composite"],
                number(row["zennit_s"], ".1f", 1e3),
                number(row["zennit_ratio"]),
                number(row["jaxlrp_s"], ".1f", 1e3),
                number(row["jaxlrp_ratio"]),
                number(row["zennit_s"] / row["jaxlrp_s"]),
                number(row["difference"], ".1e"),
            ]
            for row in result["rows"]
        ]
    return markdown(header, body)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options.add_argument("--composites", nargs="+", choices=COMPOSITES, default=list(COMPOSITES))
    options.add_argument(
        "--torch-python",
        default=sys.executable,
        help="a Python that has torch and zennit; by default this one",
    )
    args = options.parse_args(argv)
    python = check_torch_python(args.torch_python, ("torch", "zennit"), "pip install torch zennit")
    size, batch, repeats = (32, 2, 3) if args.quick else (args.size, args.batch, args.repeats)
    settings = {"size": size, "batch": batch, "repeats": repeats, "quick": args.quick}
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "models": {}}
    print(", ".join(f"{k} {v}" for k, v in (result["machine"] | settings).items()))
    for name in args.models:
        of_model = case(name, size, batch, tiny=args.quick)
        result["models"][name] = measure(of_model, args.composites, repeats, python)
    print(f"\n{table(result['models'])}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
