"""Scores of concepts over a small data set, and runs that are killed, as a process of its own.

python tests/concept_runs.py run OUT
python tests/concept_runs.py kill FOLDER --kills 30
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlrp as lrp
from dataset_runs import network, samples, weights
from jaxlrp import concepts, dataset
from jaxlrp.concepts.opened import By
from jaxlrp.dataset import journal

SAMPLES = 120
EXPLAIN = lrp.explain(network, lrp.composites.epsilon_plus(), argnums=1)
FAMILIES = {
    "hidden": concepts.Channels("relu", axis=-1),
    "pairs": concepts.Heads("relu", 8, axis=-1),
}
WAYS: list[tuple[By, bool]] = [
    ("relevance", True),
    ("relevance_max", False),
    ("activation", False),
    ("activation_max", True),
]


def collect(out: Path | str, count: int = SAMPLES, **changes: Any) -> dataset.Summary:
    given = {
        "source": samples(count),
        "args": (weights(),),
        "batch_size": 16,
        "store": dataset.StoreOptions(chunk_size=changes.pop("chunk_size", 8)),
        "progress": "none",
    } | changes
    return concepts.collect(EXPLAIN, FAMILIES, given.pop("source"), out, **given)


def states(out: Path | str) -> list[np.ndarray]:
    """All states of a store, as arrays."""
    opened = concepts.open_scores(out)
    found = [
        opened.top(name, k=7, by=by, normalized=normalized, per_class=per_class)
        for name in opened
        for by, normalized in WAYS
        for per_class in (False, True)
    ]
    return jax.tree.leaves(found)


def begin(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "run", str(out)])


def chunks(out: Path) -> int:
    return len(journal.state(out).chunks) if (out / "manifest.json").exists() else 0


def kill(folder: Path, kills: int, seed: int) -> None:
    """Kills runs at random moments, resumes them, and compares the states with those of a whole run."""
    collect(folder / "whole")
    expected, rng = states(folder / "whole"), random.Random(seed)
    out, done, stores = folder / "killed", 0, 0
    while done < kills:
        running = begin(out)
        wanted = chunks(out) + rng.randrange(4)
        deadline = time.monotonic() + 60
        while chunks(out) < wanted and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        running.send_signal(signal.SIGKILL)
        done += running.wait() == -signal.SIGKILL
        if running.returncode == 0 or done == kills:  # it ended before, or it is the last
            collect(out)
            for a, b in zip(states(out), expected, strict=True):
                assert a.tobytes() == b.tobytes(), (a, b)
            shutil.rmtree(out)
            stores += 1
    print(f"{done} kills of runs on {stores} stores: the states are the same, bit for bit")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "kill"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=os.getpid())
    options = parser.parse_args()
    if options.what == "run":
        # slow enough to be killed on the way
        collect(options.out, prepare=lambda x: (time.sleep(0.005), x)[1],
                read=dataset.ReadOptions(workers=1))  # fmt: skip
    else:
        kill(options.out, options.kills, options.seed)


if __name__ == "__main__":
    main()
