"""Metrics of explanations: time and memory, compared with Quantus on the same model and explainer.

python benchmarks/metrics.py [--quantus-python PATH] [--cases digits pictures] [--n 64] [--draws 50]

Where `--quantus-python` has Quantus, JAX and Flax (`pip install quantus==0.6.0 jax flax`), each metric is
computed there too, through `jaxlrp.metrics.quantus`, in turn with jaxlrp: ours, theirs, ours, theirs.
Weights are random. The robustness family is five metrics of Quantus, and one pass here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import metrics
from jaxlrp.metrics import perturbation, removal
from metrics_cases import Case, case
from speed import machine, markdown, number, parser

WORKER = Path(__file__).with_name("_quantus_worker.py")
ROBUSTNESS = (
    "MaxSensitivity",
    "AvgSensitivity",
    "LocalLipschitz",
    "RelativeInputStability",
    "RelativeOutputStability",
)
INPUTS = {"digits": 64, "perceptron": 64, "pictures": 32}
IMPOSSIBLE = {  # on these pictures: what takes hours on any library
    "pictures": ("NonSensitivity",)
}
FAMILY = "robustness family"


class Worker:
    """Quantus in another process, which computes one metric for each request."""

    def __init__(self, python: str, **options: Any) -> None:
        root = Path(__file__).resolve().parents[1]
        paths = [str(root), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(WORKER), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"--quantus-python: the worker ended with {self._process.wait()}")
        return line

    def __call__(self, name: str) -> dict[str, Any]:
        """Seconds and more of one call, or why it fails."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return json.loads(self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def worker(python: str | None, **options: Any) -> Iterator[Worker | None]:
    if python is None:
        yield None
        return
    found = Worker(python, **options)
    try:
        yield found
    finally:
        found.close()


class Program(NamedTuple):
    """One of our metrics, and what it is called with."""

    call: Callable[..., Any]
    args: tuple[Any, ...]

    def __call__(self) -> Any:
        return self.call(*self.args)

    def temporary_mib(self) -> float:
        """MiB that the compiled program takes for what is in between."""
        memory = jax.jit(self.call).lower(*self.args).compile().memory_analysis()
        return memory.temp_size_in_bytes / 2**20


def programs(case: Case, batch_size: int) -> dict[str, Program]:
    """Our metrics by name, with the settings that Quantus gets."""
    variables = jax.device_put(case.variables)
    x, y, key = jnp.asarray(case.x), jnp.asarray(case.y), jax.random.key(0)

    def predict(x: jax.Array) -> jax.Array:
        return case.apply(variables, x)

    def explain(x: jax.Array, y: jax.Array) -> jax.Array:
        return case.explain(variables, x, y)

    a = jnp.concatenate([jax.jit(explain)(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)])
    held: dict[str, Any] = {"batch_size": batch_size}
    few, black = held | {"draws": case.draws}, held | {"removal": removal.Least()}
    of_outputs = {
        "PixelFlipping": metrics.PixelFlipping(
            step=case.x[0].size // case.steps, order="morf", **black
        ),
        "ROAD": metrics.ROAD(percentages=case.percentages, **held),
        "NonSensitivity": metrics.NonSensitivity(**black),
        "FaithfulnessCorrelation": metrics.FaithfulnessCorrelation(
            size=min(224, case.x[0].size // 2), **black
        ),
    }
    small = perturbation.Uniform(0.02, 0.2)
    of_attributions = {
        "MaxSensitivity": metrics.MaxSensitivity(**few),
        "AvgSensitivity": metrics.AvgSensitivity(**few),
        "LocalLipschitz": metrics.LocalLipschitz(**few),
        "RelativeInputStability": metrics.RelativeInputStability(perturbation=small, **few),
        FAMILY: metrics.MaxSensitivity(**few).ratios,
    }
    found = {
        name: Program(lambda x, y, a, m=m: m(predict, x, a, y, key=key), (x, y, a))
        for name, m in of_outputs.items()
    }
    found |= {
        name: Program(lambda x, y, m=m: m(explain, x, y, predict=predict, key=key), (x, y))
        for name, m in of_attributions.items()
    }
    return found | {"Sparseness": Program(metrics.Sparseness(), (a,))}


def seconds_of(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of one call, by the clock and of all processors together."""
    start, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return time.perf_counter() - start, time.process_time() - cpu


def measure(name: str, ours: Program, theirs: Worker | None, repeats: int) -> dict[str, Any]:
    """Seconds of ours and theirs, in turn, and the ratios of the medians."""
    found: dict[str, Any] = {"first_s": seconds_of(ours)[0]}
    times, other = [], []
    for _ in range(repeats):
        times.append(seconds_of(ours))
        if theirs is None or "failed" in found:
            continue
        answers = [theirs(one) for one in (ROBUSTNESS if name == FAMILY else (name,))]
        failed = [one["failed"] for one in answers if "failed" in one]
        if failed:
            found["failed"] = failed[0]
        else:
            other.append([sum(one[kind] for one in answers) for kind in ("seconds", "cpu_s")])
            found["quantus_mib"] = max(one["mib"] for one in answers)
    found["seconds"], found["cpu_s"] = (float(t) for t in np.median(times, axis=0))
    if other:
        found["quantus_s"], found["quantus_cpu_s"] = (float(t) for t in np.median(other, axis=0))
        found["ratio"] = found["quantus_s"] / found["seconds"]
        found["cpu_ratio"] = found["quantus_cpu_s"] / found["cpu_s"]
    found["mib"] = ours.temporary_mib()
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    rows = [
        [name, number(r["seconds"], ".3f"), number(r["first_s"], ".1f"), number(r["mib"], ".1f"),
         r.get("failed") or number(r.get("quantus_s"), ".3f"), number(r.get("quantus_mib"), ".1f"),
         number(r.get("ratio"), ".1f"), number(r.get("cpu_ratio"), ".1f")]
        for name, r in found.items()
    ]  # fmt: skip
    names = (
        "metric", "s", "first call s", "temporary MiB", "Quantus s", "Quantus MiB", "times faster",
        "in CPU time",
    )  # fmt: skip
    return markdown(names, rows)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.set_defaults(repeats=3)
    made.add_argument("--cases", nargs="+", default=["digits", "perceptron"], choices=tuple(INPUTS))
    made.add_argument("--n", type=int, help="how many inputs; by default 64 digits, 32 pictures")
    made.add_argument("--draws", type=int, default=50, help="perturbations of each input")
    made.add_argument("--batch-size", type=int, help="by default 256 for digits, 8 for pictures")
    made.add_argument("--metrics", nargs="+", help="names, by default all")
    made.add_argument("--quantus-python", help="a Python that has Quantus, JAX and Flax")
    return made.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = options(argv)
    result: dict[str, Any] = {"machine": machine()}
    print(", ".join(f"{key} {v}" for key, v in result["machine"].items()))
    for name in args.cases:
        n = args.n or INPUTS[name]
        settings = {
            "n": 2 if args.quick else n,
            "draws": 2 if args.quick else args.draws,
            "quick": args.quick,
        }
        of = case(name, **settings)
        batch_size = args.batch_size or (8 if name == "pictures" else 256)
        found = {}
        with worker(args.quantus_python, name=name, **settings) as theirs:
            for metric, ours in programs(of, batch_size).items():
                if metric in IMPOSSIBLE.get(name, ()) or metric not in (args.metrics or [metric]):
                    continue
                found[metric] = measure(metric, ours, theirs, 1 if args.quick else args.repeats)
                print(metric, file=sys.stderr, flush=True)
                if args.json:
                    args.json.write_text(json.dumps(result | {name: found}, indent=1) + "\n")
        result[name] = found
        shown = f"{settings['n']} of {of.x.shape[1:]}, {of.steps} steps of pixel flipping, "
        shown += f"{len(of.percentages)} percentages, {of.draws} draws, batches of {batch_size}"
        print(f"\n{name}: {shown}\n\n{table(found)}")
    return result


if __name__ == "__main__":
    main()
