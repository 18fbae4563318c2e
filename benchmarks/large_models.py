"""What an explanation of a large model takes on each device, compared with `jax.grad`, by compiling alone.

    python benchmarks/large_models.py [--models llama-70b] [--devices 8 16] [--axes auto explicit] [--quick]

Compiles AttnLRP, and its gradient with respect to the parameters, for devices that the CPU simulates, from
shapes and layouts: no parameter is ever allocated, and nothing is run. The program of XLA for each device
says how much memory it takes, what it sends to other devices and how many products it computes. All numbers
are ratios to the same of `jax.grad` (for AttnLRP) and of the gradient of a gradient (for its gradient).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DEVICES = 16
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={DEVICES}",
        # as other devices do; a CPU would begin early whatever it can, and hold it
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        # of the machine code, which is never run
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import Array  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as PS  # noqa: E402

import hlo  # noqa: E402
import jaxlrp as lrp  # noqa: E402
from large_networks import DATA, MODEL, SHAPES, Shape, count, embed, moved, network, structs  # noqa: E402
from speed import markdown  # noqa: E402

GRADIENT, SECOND = "jax.grad", "gradient of jax.grad"
AXES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
Program = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """What is explained: how many examples, of how many tokens, in which dtype."""

    batch: int
    tokens: int
    pixels: int
    dtype: Any


def make_mesh(devices: int, axes: str) -> Mesh:
    """Two along "data"."""
    kind = AXES[axes]
    return jax.make_mesh(
        (2, devices // 2), (DATA, MODEL), axis_types=(kind, kind), devices=jax.devices()[:devices]
    )


def arguments(of: Shape, mesh: Mesh, work: Work) -> tuple[Any, ...]:
    """(parameters, tokens or pictures, class indices), as shapes with layouts."""

    def struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PS(DATA)))

    if of.patch:
        x = struct((work.batch, work.pixels, work.pixels, 3), work.dtype)
    else:
        x = struct((work.batch, work.tokens), jnp.int32)
    return structs(of, mesh, work.dtype), x, struct((work.batch,), jnp.int32)


def programs(of: Shape) -> dict[str, Program]:
    """Each as a function of (parameters, tokens or pictures, class indices)."""

    def start(p: Any, x: Array) -> Array:
        return x if of.patch else embed(p, x)

    def score(x: Array, p: Any, target: Array) -> Array:
        chosen = moved(jax.nn.one_hot(target, of.classes), DATA, MODEL)
        return (network(of)(p, x).astype(jnp.float32) * chosen).sum()

    def by_gradient(p: Any, x: Array, target: Array) -> Array:
        x = start(p, x)
        return (x * jax.grad(score)(x, p, target)).astype(jnp.float32).sum(axis=-1)

    def by_relevance(keep: bool) -> Program:
        explain = lrp.explain(network(of, keep), lrp.composites.attnlrp(), argnums=1)

        def relevance(p: Any, x: Array, target: Array) -> Array:
            found = explain(p, start(p, x), target=target).relevance
            return found.astype(jnp.float32).sum(axis=-1)

        return relevance

    def gradient_of(explained: Program) -> Program:
        return jax.grad(lambda *args: (explained(*args) ** 2).mean())

    return {
        GRADIENT: by_gradient,
        "AttnLRP": by_relevance(False),
        "AttnLRP, last products kept": by_relevance(True),
        SECOND: gradient_of(by_gradient),
        "gradient of AttnLRP": gradient_of(by_relevance(False)),
    }


def build(program: Program, args: tuple[Any, ...], mesh: Mesh) -> dict[str, Any]:
    """Compiles a program, and says what it takes on each device: bytes, collectives, FLOPs."""
    begin = time.perf_counter()
    with jax.set_mesh(mesh):
        lowered = jax.jit(program).lower(*args)
        traced = time.perf_counter()
        compiled = lowered.compile()
    done = time.perf_counter()
    memory, found = compiled.memory_analysis(), hlo.counts(compiled.as_text())
    sizes = {
        name: getattr(memory, f"{name}_size_in_bytes") for name in ("argument", "output", "temp")
    }
    times = {"trace_s": traced - begin, "compile_s": done - traced}
    return sizes | times | dataclasses.asdict(found)


def measure(of: Shape, mesh: Mesh, work: Work, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each program takes."""
    args, found = arguments(of, mesh, work), programs(of)
    return {name: build(found[name], args, mesh) for name in names}


def ratios(of: dict[str, Any], unit: dict[str, Any]) -> dict[str, float]:
    """One program in units of another."""
    kinds = [kind for kind in hlo.COLLECTIVES if kind in of["collectives"] | unit["collectives"]]
    whole = {name: sum(row["moved"].values()) for name, row in (("of", of), ("unit", unit))}
    return {
        "temp": of["temp"] / unit["temp"],
        **{f"{k}s": of["collectives"].get(k, 0) / unit["collectives"].get(k, 0) for k in kinds},
        "elements moved": whole["of"] / whole["unit"],
        "FLOPs": of["flops"] / unit["flops"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """What the gradients take, and the others in units of them."""
    lines, header = [], ["program", "temp GiB", "all-gathers", "all-reduces", "others", "TFLOP"]
    for name, row in rows.items():
        kinds = row["collectives"]
        numbers = (row["temp"] / 2**30, kinds.get("all-gather", 0), kinds.get("all-reduce", 0))
        others = sum(kinds.values()) - sum(numbers[1:])
        told = [f"{numbers[0]:.3g}", *(f"{n:.0f}" for n in (*numbers[1:], others))]
        told.append(f"{row['flops'] / 1e12:.3g}")
        unit = rows.get(SECOND if name.startswith("gradient") else GRADIENT)
        if unit is not None and unit is not row:
            by = ratios(row, unit)
            keys = ("temp", "all-gathers", "all-reduces", None, "FLOPs")
            told = [
                f"{text} ({by[key]:.2f} x)" if key in by else text
                for text, key in zip(told, keys, strict=True)
            ]
        lines.append([name, *told])
    return markdown(header, lines)


def check(rows: dict[str, dict[str, Any]]) -> None:
    """What an explanation may add, see docs/howto/large_models.md.

    Raises:
      RuntimeError: if it adds more.
    """
    limits = {
        "AttnLRP": {"temp": 1.2, "all-gathers": 1.0, "all-reduces": 1.25, "FLOPs": 1.15},
        "AttnLRP, last products kept": {"all-gathers": 1.0, "all-reduces": 1.0, "FLOPs": 1.01},
    }
    for name, most in limits.items():
        by = ratios(rows[name], rows[GRADIENT])
        over = {key: round(by[key], 3) for key, limit in most.items() if by[key] > limit}
        if over:
            raise RuntimeError(f"{name} takes more than it should, x {GRADIENT}: {over}")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    large = [name for name in SHAPES if not name.startswith("tiny")]
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=large)
    parser.add_argument("--devices", nargs="+", type=int, choices=(8, 16), default=[8, 16])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--batch", type=int, default=4, help="examples, of all devices together")
    parser.add_argument("--tokens", type=int, default=2048, help="of each example of a decoder")
    parser.add_argument("--quick", action="store_true", help="a tiny decoder, first order only")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    args = parser.parse_args(argv)
    names = [GRADIENT, "AttnLRP", "AttnLRP, last products kept"]
    work = Work(args.batch, args.tokens, 224, jnp.bfloat16)
    if args.quick:
        args.models, args.devices, args.axes = ["tiny"], [8], ["auto"]
        work = Work(4, 16, 16, jnp.bfloat16)
    else:
        names += [SECOND, "gradient of AttnLRP"]
    result: dict[str, Any] = {"jax": jax.__version__, "work": str(work), "models": {}}
    for name in args.models:
        of = SHAPES[name]
        for devices in args.devices:
            for axes in args.axes:
                rows = measure(of, make_mesh(devices, axes), work, names)
                result["models"][f"{name}, {devices} devices, {axes}"] = rows
                held = rows[GRADIENT]["argument"] / 2**30
                print(
                    f"\n## {name}, {count(of) / 1e9:.2f} billion parameters, {devices} devices, {axes}"
                )
                print(f"\n{held:.3g} GiB of parameters on each device\n\n{table(rows)}", flush=True)
                if args.json:
                    args.json.write_text(json.dumps(result, indent=1) + "\n")
                check(rows)
    return result


if __name__ == "__main__":
    main()
