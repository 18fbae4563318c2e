"""Time and memory of spectral relevance analysis, and how they grow with the number of samples.

python benchmarks/spray.py [--samples 1000 10000 50000] [--features 1024] [--views pca tsne] [--quick]

Each N runs in a process of its own, so that its peak of resident memory is its own. The relevances are
maps of a few strategies: sparse positive patterns, with noise, L1-normalized. "above" is the peak without
the views, less that when the data was there and JAX had started. Growth is the exponent p of
N^p between two rows. ARI compares the clusters with the strategies.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sklearn.metrics import adjusted_rand_score

from jaxlrp import spray

STAGES = ("neighbors", "spectral", "kmeans")


def relevances(n: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(maps, strategy of each)."""
    rng = np.random.default_rng(seed)
    strategies = rng.gamma(0.3, size=(4, features)).astype(np.float32)
    which = rng.choice(4, n, p=[0.55, 0.3, 0.1, 0.05])
    maps = np.empty((n, features), np.float32)
    for start in range(0, n, 500):  # piece by piece, so that the peak of memory is not set here
        part = strategies[which[start : start + 500]]
        part = part * rng.gamma(4.0, 0.25, size=part.shape)
        maps[start : start + 500] = part / part.sum(axis=1, keepdims=True)
    return maps, which


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(found: dict[str, Any], stage: str, run: Callable[[], Any]) -> Any:
    """What `run` returns; its seconds, and those of all processors together, are noted."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    found[stage] = time.perf_counter() - wall
    found[f"{stage} cpu"] = time.process_time() - cpu
    return result


def measure(n: int, features: int, views: list[str], send: Any) -> None:
    """Seconds of each stage and MiB at the peak, of one N."""
    key = jax.random.key(0)
    maps, which = relevances(n, features)
    spray.neighbors(maps[:200], 10)  # starts JAX; the block of N is compiled within the time below
    before = peak_mib()
    found: dict[str, Any] = {"N": n, "data MiB": maps.nbytes / 2**20}
    near = timed(found, "neighbors", lambda: spray.neighbors(maps, 10))
    embedding = timed(found, "spectral", lambda: spray.spectral(spray.graph(near), key=key))
    k = spray.eigengap(embedding.eigenvalues, min_clusters=2)
    labels = timed(found, "kmeans", lambda: spray.KMeans()(embedding.values[:, :k], k, key))
    found["above the data MiB"] = peak_mib() - before
    for name in views:
        view = {"pca": spray.PCA(), "tsne": spray.TSNE(), "umap": spray.UMAP()}[name]
        shown = maps if view.base is None else embedding.values
        timed(found, name, lambda view=view, shown=shown: view(shown, key))
    found["peak MiB"] = peak_mib()
    found["k"], found["ARI"] = k, adjusted_rand_score(which, labels)
    send.send(found)


def in_a_process(n: int, args: argparse.Namespace) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(n, args.features, args.views, send))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise SystemExit(f"the process for N = {n} ended without a result") from None
    finally:
        process.join()


def growth(rows: list[dict[str, Any]], column: str) -> list[str]:
    """The exponent between each row and the one before."""
    pairs = itertools.pairwise(rows)
    return [
        "",
        *(f"{np.log(b[column] / a[column]) / np.log(b['N'] / a['N']):.2f}" for a, b in pairs),
    ]


def show(rows: list[dict[str, Any]], views: list[str]) -> None:
    stages = [*STAGES, *views]
    print(
        f"{'N':>8}{'data MiB':>10}" + "".join(f"{name + ', s (cpu)':>22}" for name in stages),
        end="",
    )
    print(f"{'above, MiB':>12}{'peak MiB':>10}{'k*':>4}{'ARI':>7}")
    for row in rows:
        print(f"{row['N']:8}{row['data MiB']:10.0f}", end="")
        cells = [f"{row[name]:.2f} ({row[f'{name} cpu']:.2f})" for name in stages]
        print("".join(f"{cell:>22}" for cell in cells), end="")
        print(
            f"{row['above the data MiB']:12.0f}{row['peak MiB']:10.0f}{row['k']:4}{row['ARI']:7.3f}"
        )
    print("\ngrowth, N^p, of the processors' seconds and of memory")
    columns = [*(f"{name} cpu" for name in stages), "above the data MiB"]
    for row, *cells in zip(rows, *(growth(rows, name) for name in columns), strict=True):
        *of_stages, of_memory = cells
        print(
            f"{row['N']:8}{'':10}"
            + "".join(f"{cell:>22}" for cell in of_stages)
            + f"{of_memory:>12}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 10000, 50000])
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--views", nargs="*", choices=("pca", "tsne", "umap"), default=["pca"])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--quick", action="store_true", help="try the script; times mean nothing")
    args = parser.parse_args()
    if args.quick:
        args.samples, args.features = [100, 200], 32
    print(
        f"{platform.processor() or platform.machine()}, jax {jax.__version__}, {args.features} features"
    )
    rows = [in_a_process(n, args) for n in args.samples]
    show(rows, args.views)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
