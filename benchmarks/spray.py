"""Time and memory of spectral relevance analysis, and how they grow with the number of samples.

python benchmarks/spray.py [--samples 1000 10000 50000] [--features 1024] [--views pca tsne] [--quick]

Each N runs in a process of its own, so that its peak of resident memory is its own. The relevances are
maps of a few strategies: sparse positive patterns, with noise, L1-normalised. "above the data" is the peak
less what the process held when the data was there and nothing computed. Growth is the exponent p of
N^p between two rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlrp import spray

STAGES = ("neighbours", "spectral", "kmeans")


def relevances(n: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(maps, strategy of each)."""
    rng = np.random.default_rng(seed)
    strategies = rng.gamma(0.3, size=(4, features)).astype(np.float32)
    which = rng.choice(4, n, p=[0.55, 0.3, 0.1, 0.05])
    maps = strategies[which]
    maps *= rng.gamma(4.0, 0.25, size=(n, features)).astype(np.float32)
    maps /= maps.sum(axis=1, keepdims=True)
    return maps, which


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n: int, features: int, views: list[str], send: Any) -> None:
    """Seconds of each stage and MiB at the peak, of one N."""
    key = jax.random.key(0)
    maps, which = relevances(n, features)
    spray.neighbours(maps[:200], 10)  # starts JAX; the block of N is compiled within the time below
    before = peak_mib()
    found: dict[str, Any] = {"N": n, "data MiB": maps.nbytes / 2**20}

    start = time.perf_counter()
    near = spray.neighbours(maps, 10)
    found["neighbours"], start = time.perf_counter() - start, time.perf_counter()
    embedding = spray.spectral(spray.graph(near), key=key)
    found["spectral"], start = time.perf_counter() - start, time.perf_counter()
    assert embedding.eigenvalues is not None
    k = spray.eigengap(embedding.eigenvalues, least=2)
    labels = spray.KMeans()(embedding.values[:, :k], k, key)
    found["kmeans"] = time.perf_counter() - start
    found["above the data MiB"] = peak_mib() - before

    for name in views:
        view = {"pca": spray.PCA(), "tsne": spray.TSNE(), "umap": spray.UMAP()}[name]
        start = time.perf_counter()
        view(maps if view.of is None else embedding.values, key)
        found[name] = time.perf_counter() - start
    found["peak MiB"] = peak_mib()
    found["k"] = k
    # Whether every cluster holds samples of one strategy alone.
    found["pure"] = all(len(set(which[labels == c].tolist())) == 1 for c in range(k))
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
    pairs = zip(rows[:-1], rows[1:], strict=True)
    return [
        "",
        *(f"{np.log(b[column] / a[column]) / np.log(b['N'] / a['N']):.2f}" for a, b in pairs),
    ]


def show(rows: list[dict[str, Any]], views: list[str]) -> None:
    timed = [*STAGES, *views]
    print(f"{'N':>8}{'data MiB':>10}" + "".join(f"{name + ', s':>15}" for name in timed), end="")
    print(f"{'above, MiB':>12}{'peak MiB':>10}{'k*':>4}{'pure':>6}")
    for row in rows:
        print(f"{row['N']:8}{row['data MiB']:10.0f}", end="")
        print("".join(f"{row[name]:15.2f}" for name in timed), end="")
        print(
            f"{row['above the data MiB']:12.0f}{row['peak MiB']:10.0f}{row['k']:4}{row['pure']!s:>6}"
        )
    print("\ngrowth, N^p")
    exponents = [growth(rows, name) for name in (*timed, "above the data MiB")]
    for row, *cells in zip(rows, *exponents, strict=True):
        print(f"{row['N']:8}{'':10}" + "".join(f"{cell:>15}" for cell in cells))


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
