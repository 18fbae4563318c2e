"""Time, compile time, memory and FLOPs of explanations, in units of `jax.grad`.

python benchmarks/speed.py [--models vgg16 resnet50] [--composites epsilon_plus] [--size 128]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp as lrp
from models import MODELS, Case, case

UNIT = "jax.grad"
COMPOSITES = ("all_epsilon", "epsilon_plus", "epsilon_gamma_box")
LOW, HIGH = -3.0, 3.0  # the range of the inputs in `models.case`

Function = Callable[[Any, Array, Array], Array]


def gradient_of(case: Case) -> Function:
    """(variables, x, target) -> the gradient of the sum of the target logits with respect to x."""

    def logits(x: Array, variables: Any, target: Array) -> Array:
        return jnp.take_along_axis(case.module.apply(variables, x), target[:, None], 1).sum()

    return lambda variables, x, target: jax.grad(logits)(x, variables, target)


def composite_of(name: str) -> lrp.composites.Composite:
    """A preset by its name."""
    preset = lrp.composites.PRESETS[name]
    return preset(LOW, HIGH) if name == "epsilon_gamma_box" else preset()


def explanation_of(case: Case, composite: str) -> Function:
    """(variables, x, target) -> the relevance of x for the target logits."""
    explain = lrp.explain(case.module.apply, composite_of(composite))
    return lambda variables, x, target: explain(variables, x, target=target).relevance


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function, and what it took to make.

    Attributes:
      run: the compiled function.
      trace_s: seconds to trace and lower it.
      compile_s: seconds that XLA took.
      temp_bytes: memory for intermediate values, None where the backend does not say.
      flops: as XLA counts them, None where it does not.
    """

    run: Callable[..., Array]
    trace_s: float
    compile_s: float
    temp_bytes: int | None
    flops: float | None


def build(function: Callable[..., Any], *args: Any) -> Program:
    """Traces and compiles a function, with all caches of JAX empty."""
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(function).trace(*args).lower()
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return Program(
        compiled,
        traced - start,
        done - traced,
        getattr(memory, "temp_size_in_bytes", None),
        cost.get("flops") if cost else None,
    )


def interleave(calls: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Seconds of each call, in turn: A B C, A B C, ...; shape (calls, repeats)."""
    for call in calls:
        jax.block_until_ready(call())
    seconds = np.empty((len(calls), repeats))
    for r in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[i, r] = time.perf_counter() - start
    return seconds


def measure(case: Case, composites: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """One row for `jax.grad` and one for each composite."""
    args = jax.device_put((case.variables, case.x, case.target))
    functions = {UNIT: gradient_of(case)}
    functions |= {name: explanation_of(case, name) for name in composites}
    programs = {name: build(function, *args) for name, function in functions.items()}
    calls = [lambda p=p: p.run(*args) for p in programs.values()]
    seconds = interleave(calls, repeats)
    unit = programs[UNIT]
    rows = []
    for (name, program), times in zip(programs.items(), seconds, strict=True):
        low, median, high = np.percentile(times, (25, 50, 75))
        rows.append(
            {
                "method": name,
                "median_s": float(median),
                "min_s": float(times.min()),
                "iqr_s": float(high - low),
                "ratio": float(np.median(times / seconds[0])),
                "trace_s": program.trace_s,
                "trace_ratio": program.trace_s / unit.trace_s,
                "compile_s": program.compile_s,
                "compile_ratio": program.compile_s / unit.compile_s,
                "temp_bytes": program.temp_bytes,
                "temp_ratio": quotient(program.temp_bytes, unit.temp_bytes),
                "flops": program.flops,
                "flops_ratio": quotient(program.flops, unit.flops),
            }
        )
    return rows


def quotient(a: float | None, b: float | None) -> float | None:
    """a / b, None where either is not known."""
    return a / b if a is not None and b else None


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "device": str(jax.devices()[0].device_kind),
        "cores": cores(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlrp": lrp.__version__,
    }


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column on the left and the others on the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, form: str = ".2f", scale: float = 1.0) -> str:
    """A number for a table; a dash where it is not known."""
    return "-" if value is None else format(value * scale, form)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `measure` for people."""
    header = (
        "method", "median ms", "min ms", "IQR ms", "x grad", "trace s", "x grad", "compile s",
        "x grad", "temp MiB", "x grad", "GFLOP", "x grad",
    )  # fmt: skip
    body = [
        [
            row["method"],
            number(row["median_s"], ".1f", 1e3),
            number(row["min_s"], ".1f", 1e3),
            number(row["iqr_s"], ".1f", 1e3),
            number(row["ratio"]),
            number(row["trace_s"]),
            number(row["trace_ratio"]),
            number(row["compile_s"]),
            number(row["compile_ratio"]),
            number(row["temp_bytes"], ".1f", 2**-20),
            number(row["temp_ratio"]),
            number(row["flops"], ".2f", 1e-9),
            number(row["flops_ratio"]),
        ]
        for row in rows
    ]
    return markdown(header, body)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", type=int, default=128, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", choices=MODELS, default=["vgg16", "resnet50"])
    options.add_argument(
        "--composites",
        nargs="+",
        choices=tuple(lrp.composites.PRESETS),
        default=list(COMPOSITES),
    )
    args = options.parse_args(argv)
    size, batch, repeats = (32, 2, 3) if args.quick else (args.size, args.batch, args.repeats)
    settings = {"size": size, "batch": batch, "repeats": repeats, "quick": args.quick}
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "models": {}}
    print(", ".join(f"{k} {v}" for k, v in (result["machine"] | settings).items()))
    measure(case("vgg16", 32, 1, tiny=True), args.composites, 1)  # first traces import modules
    for name in args.models:
        rows = measure(case(name, size, batch, tiny=args.quick), args.composites, repeats)
        result["models"][name] = rows
        print(f"\n## {name}\n\n{table(rows)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
