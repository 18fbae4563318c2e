"""The same transformers and weights in LXT and in jaxlrp: time of AttnLRP, and how far apart they are.

python benchmarks/against_lxt.py --torch-python PATH [--models vit bert] [--batch 1] [--repeats 7]

ViT-B/16 at 224 pixels and a 12-layer BERT over 128 embedded tokens, with random weights. LXT runs in
a process of its own, in an environment with torch, transformers, zennit and lxt; the two take turns.
CPU time is that of all threads: on a busy machine, pin both to one core (`taskset -c 0 python ...`) and
read that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlrp as lrp
from models import flatten
from speed import build, cores, machine, markdown, number
from torch_python import check_torch_python
from transformer_models import TINY, Encoder, Size, inputs

WORKER = Path(__file__).with_name("_lxt_worker.py")
TARGET = 1
LXT = {"torch gradient": "gradient", "LXT, efficient": "efficient", "LXT, explicit": "explicit"}
INSTALL = (
    "pip install torch 'transformers==4.57.*' && "
    "pip install --no-deps --ignore-requires-python lxt==2.1 zennit==1.0.0"
)
Seconds = tuple[float, float]  # by the clock, and of the CPU in all threads


@contextmanager
def lxt(model: Encoder, variables: Any, x: jax.Array, python: str) -> Iterator[tuple[Any, Any]]:
    """(seconds of a method, what each method found), while the worker lives."""
    config = {
        "size": dataclasses.asdict(model.size),
        "pictures": model.pictures,
        "target": TARGET,
        "threads": cores(),
    }
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder, "case.npz"), Path(folder, "result.npz")
        np.savez(source, config=np.array(json.dumps(config)), x=x, **flatten(variables))
        command = [python, "-W", "ignore", str(WORKER), str(source), str(destination)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            if worker.stdout.readline().strip() != "ready":
                raise SystemExit("the worker died: its message is above")

            def seconds(method: str) -> Seconds:
                print(method, file=worker.stdin, flush=True)
                clock, cpu = map(float, worker.stdout.readline().split())
                return clock, cpu

            with np.load(destination) as file:
                yield seconds, dict(file)
            worker.stdin.close()


def ours(model: Encoder, variables: Any, x: jax.Array) -> dict[str, Callable[..., Any]]:
    """The compiled gradient and explanation of (variables, x)."""

    def gradient(variables: Any, x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: model.apply(variables, x)[:, TARGET].sum())(x)  # pyright: ignore

    explain = lrp.explain(model.apply, lrp.composites.attnlrp())
    functions = {
        "jax.grad": gradient,
        "jaxlrp, attnlrp": lambda variables, x: explain(variables, x, target=TARGET).relevance,
    }
    return {name: build(function, variables, x).run for name, function in functions.items()}


def agreement(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """The greatest difference in units of the greatest value, and the correlation."""
    return {
        "difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        "correlation": float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]),
    }


def measure(model: Encoder, batch: int, repeats: int, python: str) -> list[dict[str, Any]]:
    """One row for each method, its seconds taken in turn with the others'."""
    x = inputs(model, batch, jax.random.key(0))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    programs = ours(model, variables, x)

    def timed(run: Callable[..., Any]) -> Seconds:
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(variables, x))
        return time.perf_counter() - start[0], time.process_time() - start[1]

    with lxt(model, variables, x, python) as (seconds, found):
        calls: dict[str, Callable[[], Seconds]] = {
            name: lambda m=m: seconds(m) for name, m in LXT.items()
        }
        calls |= {name: lambda run=run: timed(run) for name, run in programs.items()}
        times = np.array([[call() for call in calls.values()] for _ in range(repeats + 1)])[1:]
    gradient, relevance = (np.asarray(run(variables, x)) for run in programs.values())
    compared = {
        "torch gradient": agreement(gradient, found["relevance/gradient"]),
        "LXT, efficient": agreement(relevance, found["relevance/efficient"]),
        "LXT, explicit": agreement(relevance, found["relevance/explicit"]),
    }
    ratios = times / times[:, [list(calls).index("jaxlrp, attnlrp")]]
    return [
        {
            "method": name,
            "seconds": float(np.median(times[:, i, 0])),
            "x jaxlrp": float(np.median(ratios[:, i, 0])),
            "cpu_seconds": float(np.median(times[:, i, 1])),
            "cpu x jaxlrp": float(np.median(ratios[:, i, 1])),
            **compared.get(name, {}),
        }
        for i, name in enumerate(calls)
    ]


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The results for people."""
    header = (
        "model", "method", "ms", "x jaxlrp", "CPU ms", "x jaxlrp", "differs from ours by", "correlation",
    )  # fmt: skip
    body = [
        [
            model,
            row["method"],
            number(row["seconds"], ".1f", 1e3),
            number(row["x jaxlrp"]),
            number(row["cpu_seconds"], ".1f", 1e3),
            number(row["cpu x jaxlrp"]),
            number(row.get("difference"), ".1e"),
            number(row.get("correlation"), ".6f"),
        ]
        for model, rows in results.items()
        for row in rows
    ]
    return markdown(header, body)


def main(argv: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=("vit", "bert"), default=["vit", "bert"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--torch-python",
        default=sys.executable,
        help="a Python that has torch, transformers and lxt; by default this one",
    )
    parser.add_argument("--quick", action="store_true", help="tiny models; times mean nothing")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    args = parser.parse_args(argv)
    python = check_torch_python(
        args.torch_python, ("torch", "transformers", "lxt", "zennit"), INSTALL
    )
    size, repeats = (TINY, 2) if args.quick else (Size(), args.repeats)
    settings = machine() | {"batch": args.batch, "repeats": repeats}
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    results = {
        name: measure(Encoder(size, pictures=name == "vit"), args.batch, repeats, python)
        for name in args.models
    }
    print(f"\n{table(results)}")
    if args.json is not None:
        args.json.write_text(json.dumps(settings | {"models": results}, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
