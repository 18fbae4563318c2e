"""A small model and a small data set, and a run on them as a process of its own.

python tests/dataset_runs.py OUT [--samples 60] [--processes 2 --process 0 --port 1234] [--mesh split]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxlrp as lrp
from jaxlrp import dataset

SHAPE = (4, 3)
CLASSES = 5


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "hidden": rng.normal(size=(12, 16)).astype(np.float32),
        "bias": rng.normal(size=16).astype(np.float32),
        "out": rng.normal(size=(16, CLASSES)).astype(np.float32),
    }


def network(w: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x.reshape(x.shape[0], -1) @ w["hidden"] + w["bias"])
    return hidden @ w["out"]


def typed_network(w: Any, x: Any) -> Any:
    """The same, on a mesh whose axes are explicit."""
    hidden = jax.nn.relu(x.reshape(x.shape[0], -1) @ w["hidden"] + w["bias"])
    return jax.numpy.dot(hidden, w["out"], out_sharding=PartitionSpec("batch", None))


def samples(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """More samples begin with the same: a run that is widened goes on with the same source."""
    x = np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)
    return x, np.random.default_rng(seed + 1).integers(0, CLASSES, count)


def relevance(w: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """LRP-0 of the network by hand, in float64."""
    a0 = x.reshape(len(x), -1).astype(np.float64)
    z1 = a0 @ w["hidden"] + w["bias"]
    g1 = w["out"].T[labels] * (z1 > 0)
    return (a0 * (g1 @ w["hidden"].T)).reshape(x.shape)


LRP0 = lrp.composites.composite(lrp.composites.by_kind("dense", lrp.LRP0()), name="lrp0")
EXPLAIN = lrp.explain(network, LRP0, argnums=1)


def attribute(out: Path | str, count: int = 60, **changes: Any) -> dataset.Summary:
    """A run with small batches and smaller chunks. Fields of the options are given by their name."""
    given = {
        "explainer": EXPLAIN,
        "source": samples(count),
        "args": (weights(),),
        "batch_size": 16,
        "chunk_size": 8,
        "progress": "none",
    } | changes
    groups = (
        ("read", dataset.ReadOptions),
        ("compute", dataset.ComputeOptions),
        ("store", dataset.StoreOptions),
    )
    for group, options in groups:
        names = [field.name for field in dataclasses.fields(options) if field.name in given]
        given[group] = options(**{name: given.pop(name) for name in names})
    return dataset.attribute_dataset(output=out, **given)


def check(out: Path | str, count: int = 60) -> None:
    """Every sample exactly once, every checksum right, every number that of the formula."""
    found = dataset.verify(out)
    assert found.ok, str(found)
    assert not found.orphans
    opened = dataset.open_relevance(out)
    assert sorted(opened.ids) == list(range(count))
    x, labels = samples(count)
    order = np.asarray(opened.ids)
    wanted = relevance(weights(), x, labels)[order]
    np.testing.assert_allclose(opened.relevance[:], wanted, rtol=1e-5, atol=1e-5)
    assert (opened["target"][:] == labels[order]).all()


class Twice:
    """Samples that are fetched one by one, of which the last has the id of the first."""

    def __init__(self, count: int) -> None:
        self._held = samples(count)

    def __len__(self) -> int:
        return len(self._held[0])

    def __getitem__(self, i: int) -> tuple[int, np.ndarray, int]:
        x, labels = self._held
        return i % (len(self) - 1), x[i], labels[i]


def split(parallel: int, kind: AxisType = AxisType.Auto) -> tuple[Mesh, Any]:
    """A mesh over all devices that also cuts the hidden layer, and the weights cut by it."""
    devices = np.array(jax.devices()).reshape(-1, parallel)
    mesh = Mesh(devices, ("batch", "model"), axis_types=(kind, kind))
    specs = {
        "hidden": PartitionSpec(None, "model"),
        "bias": PartitionSpec("model"),
        "out": PartitionSpec("model"),
    }

    def put(a: np.ndarray, spec: PartitionSpec) -> jax.Array:
        return jax.make_array_from_callback(a.shape, NamedSharding(mesh, spec), lambda i: a[i])

    return mesh, {name: put(a, specs[name]) for name, a in weights().items()}


def _broken(count: int, at: int) -> Any:
    """A stream that raises an error."""
    x, labels = samples(count)
    for i in range(count):
        if i == at:
            raise OSError("the server is gone")
        yield i, x[i], labels[i]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--port", type=int)
    parser.add_argument("--mesh", choices=("own", "all", "split", "typed"), default="own")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to read a sample")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--breaks", type=int, help="the sample whose reading ends the run")
    parser.add_argument("--twice", action="store_true", help="the last id is the first again")
    options = parser.parse_args()
    if options.processes > 1:
        jax.distributed.initialize(
            f"localhost:{options.port}", options.processes, options.process,
            heartbeat_timeout_seconds=10, shutdown_timeout_seconds=20,
        )  # fmt: skip
    changes: dict[str, Any] = {}
    if options.mesh == "all":
        changes["mesh"] = Mesh(np.array(jax.devices()), ("batch",))
    if options.mesh == "split":
        mesh, cut = split(2)
        changes |= {"mesh": mesh, "args": (cut,)}
    if options.seed:
        changes["args"] = (weights(options.seed),)
    if options.breaks is not None:
        changes["source"] = _broken(options.samples, options.breaks)
    if options.mesh == "typed":
        mesh, cut = split(2, AxisType.Explicit)
        jax.set_mesh(mesh)
        explain = lrp.explain(typed_network, LRP0, argnums=1)
        changes |= {"mesh": mesh, "args": (cut,), "explainer": explain}
    if options.twice:
        changes["source"] = Twice(options.samples)
    if options.pause:
        changes["preprocess"] = lambda x: (time.sleep(options.pause), x)[1]
        changes["workers"] = 1
    summary = attribute(options.out, options.samples, **changes)
    assert summary.traces <= 1
    print(summary)


if __name__ == "__main__":
    main()
