"""K targets of one input cost one forward and K backward passes, as XLA counts FLOPs.

`jax.vmap` over the target of `lrp.explain` leaves everything that does not depend on the target
outside of the batch: the forward pass, and the denominators of the rules.

python benchmarks/targets_share_forward.py [--model vgg16] [--composites all_epsilon] [--size 128]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp as lrp
from models import MODELS, Case, case
from speed import COMPOSITES, build, explanation_of, gradient_of, markdown, number, parser

TARGETS = (1, 2, 4, 8)


def flops(function: Any, *args: Any) -> float:
    """FLOPs of a compiled function.

    Raises:
      RuntimeError: if the backend does not count them.
    """
    found = build(function, *args).flops
    if not found:
        raise RuntimeError(f"XLA counts no FLOPs on {jax.default_backend()!r}: run with "
                           "JAX_PLATFORMS=cpu")  # fmt: skip
    return found


def of_targets(case: Case, composite: str) -> Any:
    """(variables, x, targets) -> the relevance of one input for each of several targets."""
    explain = explanation_of(case, composite)

    def explained(variables: Any, x: Array, targets: Array) -> Array:
        return jax.vmap(lambda target: explain(variables, x, target[None]))(targets)

    return explained


def measure(
    case: Case, composites: Sequence[str], targets: Sequence[int] = TARGETS
) -> dict[str, Any]:
    """FLOPs of the forward pass, of the backward pass of `jax.grad`, and of K targets."""
    args = jax.device_put((case.variables, case.x))
    one = jnp.asarray(case.target)
    forward = flops(case.module.apply, *args)
    backward = flops(gradient_of(case), *args, one) - forward
    result: dict[str, Any] = {"forward": forward, "backward": backward, "composites": {}}
    for name in composites:
        function = of_targets(case, name)
        counts = [flops(function, *args, jnp.arange(k)) for k in targets]
        slope, constant = np.polyfit(targets, counts, 1)
        result["composites"][name] = {
            "flops": dict(zip(targets, counts, strict=True)),
            "constant": float(constant),
            "slope": float(slope),
            "residual": float(np.abs(np.polyval((slope, constant), targets) / counts - 1).max()),
        }
    return result


def table(result: dict[str, Any]) -> str:
    """FLOPs for each K and the fit a + b K, a in forward and b in backward passes."""
    counted = next(iter(result["composites"].values()))["flops"]
    header = ["GFLOP", *(f"K = {k}" for k in counted), "a", "b", "a / forward", "b / backward"]
    header.append("worst misfit")
    rows = [
        [
            name,
            *(number(count, ".3f", 1e-9) for count in row["flops"].values()),
            number(row["constant"], ".3f", 1e-9),
            number(row["slope"], ".3f", 1e-9),
            number(row["constant"] / result["forward"]),
            number(row["slope"] / result["backward"]),
            number(row["residual"], ".1%"),
        ]
        for name, row in result["composites"].items()
    ]
    return markdown(header, rows)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__)
    options.add_argument("--model", choices=MODELS, default="vgg16")
    options.add_argument(
        "--composites",
        nargs="+",
        choices=tuple(lrp.composites.PRESETS),
        default=list(COMPOSITES),
    )
    args = options.parse_args(argv)
    size = 32 if args.quick else args.size
    composites, targets = args.composites, TARGETS
    if args.quick:
        composites, targets = composites[:2], TARGETS[:3]
    result = measure(case(args.model, size, 1, tiny=args.quick), composites, targets)
    print(f"{args.model} at {size} pixels, one example, FLOPs(K targets) = a + b K")
    print(f"forward {result['forward'] / 1e9:.3f} GFLOP, ", end="")
    print(f"backward (jax.grad less forward) {result['backward'] / 1e9:.3f} GFLOP\n")
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
