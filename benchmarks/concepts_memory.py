"""Does memory grow with the data set? Peak of `concepts.collect`, `top` and `statistics`.

    python benchmarks/concepts_memory.py [--samples 8000] [--concepts 1024] [--quick]

Each runs in a process of its own, on a small network, for N and for 4 N samples that are made as they are
read. Printed is the largest resident memory of the process beyond what it had before, after one small run
that compiled everything.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import concepts

PIXELS, CLASSES, BATCH, TOP = 64, 10, 64, 40
TASKS = ("collect", "top", "top per class", "statistics")


def samples(count: int) -> Iterator[tuple[int, np.ndarray, int]]:
    """(id, input, class), made from the id."""
    for i in range(count):
        yield i, np.random.default_rng(i).normal(size=PIXELS).astype(np.float32), i % CLASSES


def collect(folder: pathlib.Path, n_samples: int, n_concepts: int) -> None:
    """Stores scores of channels of a dense layer."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(PIXELS, n_concepts)).astype(np.float32)
    v = rng.normal(size=(n_concepts, CLASSES)).astype(np.float32)
    explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
    concepts.collect(
        explain, concepts.Channels("relu", axis=-1), samples(n_samples), folder, batch_size=BATCH,
        progress="none",
    )  # fmt: skip


def read(task: str, folder: pathlib.Path) -> None:
    """One of the tasks that read a store."""
    opened = concepts.open_scores(folder)
    if task == "statistics":
        opened.statistics("relu")
    else:
        opened.top("relu", k=TOP, per_class=task == "top per class")


def peak() -> float:
    """The largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(task: str, store: pathlib.Path, small: pathlib.Path, count: int, n_concepts: int) -> None:
    """Runs a task on a small data set, then on the one that is measured; prints the difference."""
    jnp.zeros(()).block_until_ready()
    if task == "collect":
        collect(small, BATCH, n_concepts)
    else:
        read(task, small)
    before = peak()
    if task == "collect":
        collect(store, count, n_concepts)
    else:
        read(task, store)
    print(peak() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8000, help="N")
    parser.add_argument("--concepts", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help="100 samples, 64 concepts")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.samples, options.concepts = 100, 64
    if options.work:
        task, store, small, count = options.work
        work(task, pathlib.Path(store), pathlib.Path(small), int(count), options.concepts)
        return
    counts = (options.samples, 4 * options.samples)
    table = Table(title=f"peak memory beyond that of a small run, MiB; {options.concepts} concepts")
    for column in ("", *(f"{count} samples" for count in counts)):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        root, rows = pathlib.Path(folder), {task: [] for task in TASKS}
        for count in counts:
            for task in TASKS:
                done = subprocess.run(
                    [sys.executable, __file__, "--concepts", str(options.concepts), "--work", task,
                     str(root / f"scores_{count}"), str(root / f"small_{count}"), str(count)],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                rows[task].append(f"{float(done.stdout):.0f}")
    for task, found in rows.items():
        table.add_row(task, *found)
    Console().print(table)


if __name__ == "__main__":
    main()
