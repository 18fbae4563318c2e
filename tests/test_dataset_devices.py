"""Whole data sets on several devices and in several processes: the numbers are those of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from dataset_runs import attribute, check
from jaxlrp import dataset
from jaxlrp.dataset import journal, placement

ROOT = Path(__file__).parent.parent


def environment(devices: int = 1) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths}


def begin(out, *words, devices=1):
    command = [sys.executable, "tests/dataset_runs.py", out, *words]
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment(devices), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(*processes):
    for process in processes:
        said, wrong = process.communicate(timeout=300)
        assert process.returncode == 0, wrong + said


def group(out, count, *words, devices=1, last=()):
    """Several processes that together are one run; `last` are further words for the last one alone."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    shared = ("--processes", count, "--port", port, *words)
    more = [()] * (count - 1) + [last]
    return [begin(out, "--process", i, *shared, *more[i], devices=devices) for i in range(count)]


def by_id(out):
    opened = dataset.open_relevance(out)
    return opened.relevance[:][np.argsort(opened.ids)]


@pytest.mark.parametrize("mesh", ["own", "split", "typed"])
def test_eight_devices_are_equal_to_one(tmp_path, mesh):
    """A batch cut in eight; or in four, with the hidden layer cut in two, in its type as well."""
    running = begin(tmp_path / "eight", "--mesh", mesh, devices=8)
    attribute(tmp_path / "one")
    finish(running)
    check(tmp_path / "eight")
    # sums over the cut layer are taken in another order: equal to the float32 rounding of a dozen terms
    np.testing.assert_allclose(
        by_id(tmp_path / "eight"), by_id(tmp_path / "one"), rtol=1e-5, atol=1e-5
    )


def test_the_batch_is_a_multiple_of_the_devices(tmp_path):
    code = (
        "from dataset_runs import attribute, check; import sys;"
        "summary = attribute(sys.argv[1], batch_size=10);"
        "assert (summary.batch_size, summary.devices) == (16, 8), summary;"
        "check(sys.argv[1])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out")]
    subprocess.run(words, cwd=ROOT, env=environment(8), check=True)


@pytest.mark.slow
def test_two_processes_one_killed(tmp_path):
    out = tmp_path / "out"
    kill_one(out, 2, "--mesh", "own")
    finish(*group(out, 2))
    check(out)


def test_an_id_in_the_parts_of_two_processes_is_listed(tmp_path):
    """What neither of them can see while it reads is said at the end, once."""
    out = tmp_path / "out"
    for _ in range(2):
        processes = group(out, 2, "--twice", "--samples", 16)
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        assert all(
            "failed      1\n  '0 (duplicate)': a sample of another process" in s for s, _ in said
        )
        assert all("samples     16 (" in s for s, _ in said)  # of both processes together
    opened = dataset.open_relevance(out)
    assert opened.failed.keys() == {"0 (duplicate)"}
    assert dataset.verify(out).duplicates == (0,)
    assert [r["id"] for r in failures(out)] == [0]


def failures(out):
    lines = [line for path in journal.paths(out) for line in path.read_text().splitlines()]
    found = [json.loads(line.partition(" ")[2]) for line in lines]
    return [line for line in found if line["kind"] in ("failed", "again")]


def kill_one(out, count, *words, devices=1):
    """Begins a run of several processes, kills one of them on the way, and ends the others."""
    processes = group(out, count, *words, "--pause", 0.1 * count, devices=devices)
    deadline = time.monotonic() + 120
    said = []
    try:
        while len(journal.state(out).chunks) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            if any(process.poll() is not None for process in processes):
                break  # what went wrong is said below
        processes[-1].send_signal(signal.SIGKILL)
        time.sleep(0.5)  # the others go on with their own part
    finally:
        for process in processes:
            process.kill()
            said.append(process.communicate()[1])
    assert (out / "manifest.json").exists(), said
    done = len(dataset.open_relevance(out).ids)
    assert 0 < done < 60


KILLED = [("own", 2), ("split", 4), ("own", 4), ("all", 2), ("all", 4), ("split", 2)]


@pytest.mark.parametrize(
    ("mesh", "count"),
    [
        pytest.param(*case, marks=pytest.mark.slow if i < 1 else pytest.mark.exhaustive)
        for i, case in enumerate(KILLED)
    ],
)
def test_processes_one_killed_and_resumed(tmp_path, mesh, count):
    """Each for itself; one mesh over all; and one that cuts the model across the processes as well."""
    out = tmp_path / "out"
    kill_one(out, count, "--mesh", mesh)
    finish(*group(out, count, "--mesh", mesh))
    check(out)


@pytest.mark.exhaustive
def test_another_number_of_processes_resumes(tmp_path):
    out = tmp_path / "out"
    kill_one(out, 4)
    finish(*group(out, 2, devices=2))
    check(out)


def test_where_a_process_is():
    own = placement.place(None, None)
    assert (own.part, own.parts, own.shards, own.lockstep) == (0, 1, len(jax.devices()), False)
    mesh = Mesh(np.array(jax.devices()).reshape(-1, 1), ("data", "model"))
    assert placement.place(mesh, None).axes == ("data",)
    assert placement.place(mesh, ("data", "model")).axes == ("data", "model")
    typed = jax.make_mesh((1, 1), ("data", "model"), devices=jax.devices()[:1])
    assert not placement.place(typed, None).explicit
    with jax.set_mesh(typed):
        assert placement.place(None, None).explicit
        assert placement.place(None, None).mesh == placement.place(typed, None).mesh == typed
        assert not placement.place(mesh, None).explicit
    with pytest.raises(ValueError, match=r"batch_axes must be axes of the mesh, .*, got 'x'"):
        placement.place(mesh, "x")
