"""Time, compile time and memory of AttnLRP and CP-LRP on transformers, in units of `jax.grad`.

python benchmarks/attention.py [--models vit bert] [--batch 1] [--repeats 7] [--remat] [--quick]

ViT-B/16 at 224 pixels and a 12-layer BERT over 128 embedded tokens, with random weights.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp as lrp
from speed import UNIT, build, interleave
from transformer_models import TINY, Encoder, Size, inputs

COMPOSITES = {
    "attnlrp": lrp.composites.attnlrp(),
    "cp_lrp": lrp.composites.cp_lrp(),
    "attnlrp, gamma": lrp.composites.attnlrp(gamma=0.05, conv_gamma=0.25),
}
Function = Callable[[Any, Array], Array]


def functions(model: Encoder, target: int) -> dict[str, Function]:
    """(variables, x) -> gradient or relevance of x for one logit."""

    def logits(x: Array, variables: Any) -> Array:
        return model.apply(variables, x)[:, target].sum()  # pyright: ignore

    def gradient(variables: Any, x: Array) -> Array:
        return jax.grad(logits)(x, variables)

    def relevance(composite: lrp.Composite) -> Function:
        explain = lrp.explain(model.apply, composite)
        return lambda variables, x: explain(variables, x, target=target).relevance

    return {UNIT: gradient} | {name: relevance(c) for name, c in COMPOSITES.items()}


def measure(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    size = TINY if args.quick else Size()
    rows = []
    for remat in (False, True) if args.remat else (False,):
        model = Encoder(size, pictures=name == "vit", remat=remat)
        x = inputs(model, args.batch, jax.random.key(0))
        variables = jax.jit(model.init)(jax.random.key(1), x)
        programs = {n: build(f, variables, x) for n, f in functions(model, target=1).items()}
        calls = [lambda p=p, v=variables, x=x: p.run(v, x) for p in programs.values()]
        seconds = interleave(calls, args.repeats)
        unit = programs[UNIT]
        for (method, program), times in zip(programs.items(), seconds, strict=True):
            rows.append(
                {
                    "model": name + (", remat" if remat else ""),
                    "method": method,
                    "ms": 1e3 * float(np.median(times)),
                    "x grad": float(np.median(times / seconds[0])),
                    "compile x grad": (program.trace_s + program.compile_s)
                    / (unit.trace_s + unit.compile_s),
                    "temp MiB": (program.temp_bytes or 0) / 2**20,
                    "memory x grad": (program.temp_bytes or 0) / max(unit.temp_bytes or 0, 1),
                    "finite": bool(jnp.isfinite(program.run(variables, x)).all()),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=("vit", "bert"), default=["vit", "bert"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--remat", action="store_true", help="also with rematerialized blocks")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--quick", action="store_true", help="tiny models; times mean nothing")
    args = parser.parse_args()
    if args.quick:
        args.repeats = 2
    print(
        f"{platform.processor() or platform.machine()}, jax {jax.__version__}, batch {args.batch}"
    )
    print(f"{'':14}{'':16}{'ms':>9}{'x grad':>8}{'compile':>9}{'temp MiB':>10}{'memory':>8}")
    rows = []
    for name in args.models:
        for row in measure(name, args):
            rows.append(row)
            print(
                f"{row['model']:14}{row['method']:16}{row['ms']:9.1f}{row['x grad']:8.2f}"
                f"{row['compile x grad']:9.2f}{row['temp MiB']:10.1f}{row['memory x grad']:8.2f}"
                + ("" if row["finite"] else "  NOT FINITE")
            )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
