"""The runner of whole data sets: throughput next to a bare loop, and memory over many samples.

python benchmarks/dataset.py                        throughput, then memory over 50,000 samples
python benchmarks/dataset.py --size 224 --samples 256 --output pictures/
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

import jaxlrp as lrp
from jaxlrp import dataset
from models import case
from speed import composite_of, machine, markdown


def bare(explain: Any, variables: Any, batch: int) -> Any:
    """A function of samples in memory: a jitted loop over batches that discards the results."""

    def step(variables: Any, x: Any, target: Any) -> Any:
        result = explain(variables, x, target=target)
        return result.relevance, result.output

    args = jax.device_put(variables)
    compiled = jax.jit(step, donate_argnums=1)

    def loop(x: np.ndarray, target: np.ndarray) -> None:
        result = None
        for i in range(0, len(x), batch):
            result = compiled(args, *jax.device_put((x[i : i + batch], target[i : i + batch])))
        jax.block_until_ready(result)

    return loop


def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """The runner and the bare loop, alternating: samples per second, and CPU seconds per sample.

    On a shared machine CPU seconds are more reliable than wall time.
    """
    net = case(options.model, options.size, options.batch, tiny=options.tiny)
    explain = lrp.explain(net.module.apply, composite_of(options.composite))
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (options.samples, *net.x.shape[1:])).astype(np.float32)
    target = rng.integers(0, 10, options.samples).astype(np.int32)
    loop, runs = bare(explain, net.variables, options.batch), []
    loop(x[: options.batch], target[: options.batch])
    for _ in range(options.repeats):
        began, used = time.perf_counter(), time.process_time()
        loop(x, target)
        plain = time.perf_counter() - began, time.process_time() - used
        ours, summary = _runner(explain, net.variables, x, target, options)
        runs.append((*plain, *ours))
        assert summary.compilations == summary.traces == 1
    clock, cpu, our_clock, our_cpu = np.asarray(runs).T
    return {
        "bare": float(np.median(len(x) / clock)),
        "runner": float(np.median(len(x) / our_clock)),
        "ratio": float(np.median(clock / our_clock)),
        "bare CPU ms": float(np.median(cpu) / len(x) * 1e3),
        "runner CPU ms": float(np.median(our_cpu) / len(x) * 1e3),
        "CPU ratio": float(np.median(cpu / our_cpu)),
        "compilations": summary.compilations,
        "MiB": summary.bytes / 2**20,
    }


def _runner(
    explain: Any, variables: Any, x: np.ndarray, target: np.ndarray, options: argparse.Namespace
) -> tuple[tuple[float, float], dataset.Summary]:
    """Seconds of a run without compiling, and its CPU seconds minus those of a run over one batch."""
    cpu = []
    for count in (options.batch, options.batch + len(x)):
        source = np.resize(x, (count, *x.shape[1:])), np.resize(target, count)
        with tempfile.TemporaryDirectory(dir=options.disk) as folder:
            used = time.process_time()
            summary = dataset.attribute_dataset(
                explain, source, f"{folder}/out", args=(variables,),
                batch_size=options.batch, progress="none",
            )  # fmt: skip
            cpu.append(time.process_time() - used)
    return (len(x) / summary.throughput, cpu[1] - cpu[0]), summary


def memory(samples: int, every: float = 0.25) -> dict[str, Any]:
    """Resident memory while samples are read one by one, explained by a small model, and written."""
    shape, classes = (28, 28), 10
    rng = np.random.default_rng(0)
    w = {
        "hidden": rng.normal(size=(784, 128)).astype(np.float32),
        "out": rng.normal(size=(128, classes)).astype(np.float32),
    }

    def network(w: Any, x: Any) -> Any:
        return jax.nn.relu(x.reshape(x.shape[0], -1) @ w["hidden"]) @ w["out"]

    def items() -> Any:
        for i in range(samples):
            yield i, rng.normal(size=shape).astype(np.float32), i % classes

    process, done, seen = psutil.Process(), threading.Event(), []

    def watch(store: Path) -> None:
        while not done.is_set():
            lines = store / "journal" / "00000.jsonl"
            chunks = lines.read_bytes().count(b'"kind":"chunk"') if lines.exists() else 0
            seen.append((chunks * 256, process.memory_info().rss / 2**20))
            done.wait(every)

    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        watcher = threading.Thread(target=watch, args=(Path(folder) / "out",))
        watcher.start()
        try:
            summary = dataset.attribute_dataset(
                lrp.explain(network, argnums=1), items(), f"{folder}/out", args=(w,),
                batch_size=256, progress="none",
                store=dataset.StoreOptions(chunk_size=256),
            )  # fmt: skip
        finally:
            done.set()
            watcher.join()
    counts, resident = np.array(seen).T
    began = resident[counts >= min(samples // 10, counts.max())][0]
    return {
        "samples": summary.samples,
        "throughput": summary.throughput,
        "compilations": summary.compilations,
        "MiB after a tenth": float(began),
        "MiB at the end": float(resident[-1]),
        "written MiB": summary.bytes / 2**20,
        "done": counts.tolist(),
        "resident": resident.tolist(),
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Plots resident memory over the number of samples done."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(found["done"], found["resident"])
    limits = (0, 1.25 * max(found["resident"]))
    axes.set(xlabel="samples that are written", ylabel="resident memory, MiB", ylim=limits)
    axes.set_title(
        f"{found['samples']:,} samples, {found['written MiB']:.0f} MiB of relevance written"
    )
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--composite", default="epsilon_plus")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-samples", type=int, default=50_000)
    parser.add_argument("--disk", help="where the store is written, a temporary folder by default")
    parser.add_argument("--tiny", action="store_true", help="a narrow and shallow model")
    parser.add_argument("--quick", action="store_true", help="to try the script")
    parser.add_argument("--output", type=Path, help="a folder for the plot of memory")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    options = parser.parse_args(argv)
    if options.quick:
        options.tiny = True
        options.size, options.samples, options.repeats, options.memory_samples = 32, 32, 2, 2_000
    result: dict[str, Any] = {"machine": machine()}
    print(", ".join(f"{k} {v}" for k, v in result["machine"].items()))
    if options.samples:
        result["throughput"] = found = throughput(options)
        rows = [
            ["bare loop", f"{found['bare']:.1f}", "", f"{found['bare CPU ms']:.2f}", ""],
            ["runner", f"{found['runner']:.1f}", f"{found['ratio']:.3f}",
             f"{found['runner CPU ms']:.2f}", f"{found['CPU ratio']:.3f}"],
        ]  # fmt: skip
        header = ["", "samples/s", "of the bare loop", "CPU ms per sample", "bare / this"]
        print(markdown(header, rows))
        print(f"compilations {found['compilations']}, written {found['MiB']:.1f} MiB")
    if options.memory_samples:
        result["memory"] = seen = memory(options.memory_samples)
        words = {k: v for k, v in seen.items() if k not in ("done", "resident")}
        print(
            ", ".join(f"{k} {v if isinstance(v, int) else round(v, 1)}" for k, v in words.items())
        )
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            draw(seen, options.output / "dataset_memory.png")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
