"""What it costs to attribute predictions to fifty thousand training samples.

    python benchmarks/training_data.py [--sizes 12500 25000 50000] [--features 1024] [--quick]

Features are ten Gaussian clusters in float32. For each number of samples N, in a process of its own: time
to fit the SVM (`fit_svm`), to attribute 100 predictions, and the self-influence of all samples; the gap,
epochs, and the largest resident memory less that before, beside the size of the features. Time of an epoch
and memory should grow as N, not N^2: N x N numbers would be 10 GB for 50,000.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

TESTS, CLASSES = 100, 10


def measure(n: int, d: int) -> dict[str, float]:
    """Of this process, which must be fresh: memory is the largest it ever had."""
    import jax
    import numpy as np

    from jaxlrp import training_data

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CLASSES, d)).astype(np.float32)
    y = rng.integers(0, CLASSES, n + TESTS)
    x = centers[y]
    for i in range(0, len(x), 1000):  # in parts, since noise of all would be another copy
        x[i : i + 1000] += 4 * rng.normal(size=x[i : i + 1000].shape).astype(np.float32)
    x /= np.float32(math.sqrt(d))
    features, test = jax.numpy.asarray(x[:n]), x[n:]
    y, targets = y[:n], y[n:]
    del x
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, cpu = time.perf_counter(), time.process_time()
    view = jax.block_until_ready(training_data.fit_svm(features, y, C=0.01))
    fitted, cpu = time.perf_counter(), time.process_time() - cpu
    jax.block_until_ready(view.attribute(test, targets))
    attributed = time.perf_counter()
    jax.block_until_ready(view.self_influence())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "fit, s": fitted - begun,
        "fit, s of CPU": cpu,
        "epochs": int(view.epochs),
        "per epoch, s": (fitted - begun) / int(view.epochs),
        "gap": float(view.gap),
        "zero rows": float((view.alpha == 0).all(1).mean()),
        "attribute, s": attributed - fitted,
        "self-influence, s": time.perf_counter() - attributed,
        "features, MB": n * d * 4 / 1e6,
        "memory above that before, MB": (after - before) * 1024 / 1e6,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[12500, 25000, 50000])
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.features)))
        return 0
    sizes, features = (
        ([1000, 2000], 64) if arguments.quick else (arguments.sizes, arguments.features)
    )
    rows = {}
    for n in sizes:
        command = [sys.executable, __file__, "--one", str(n), "--features", str(features)]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[n] = json.loads(made.stdout)
    print("| samples | " + " | ".join(f"{n:,}" for n in rows) + " |")
    print("|---|" + "---:|" * len(rows))
    for name in rows[sizes[0]]:
        print(f"| {name} | " + " | ".join(f"{row[name]:.3g}" for row in rows.values()) + " |")
    first, last = sizes[0], sizes[-1]
    squared = 4 * last * last / 1e6
    used = rows[last]["memory above that before, MB"]
    print(
        f"N x N numbers would take {squared:,.0f} MB; {first:,} to {last:,} samples took {used:,.0f} MB"
    )
    return 0 if arguments.quick or used < squared / 5 else 1


if __name__ == "__main__":
    raise SystemExit(main())
