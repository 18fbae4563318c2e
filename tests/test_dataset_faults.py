"""Whole data sets when something goes wrong: kills, damage, full disks, two runs, another run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import jaxlrp as lrp
from dataset_runs import LRP0, attribute, check, network, samples, weights
from jaxlrp import dataset
from jaxlrp.dataset import durable, journal

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def python(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=ENVIRONMENT, text=True,
        capture_output=True, timeout=300, **options,
    )  # fmt: skip


# Kills


def test_kills(out):
    """A few of what `python tests/dataset_kills.py --steps --kills 200` does."""
    some = ["after the manifest is moved", "in the middle of a line",
            "after the fourth file of the third chunk"]  # fmt: skip
    done = python("tests/dataset_kills.py", "--kills", 3, "--each", 3, "--steps", *some)
    assert done.returncode == 0, done.stderr
    assert "3 steps, all resumed" in done.stdout
    assert "3 kills of runs on 1 stores: every id exactly once" in done.stdout


def test_a_run_that_raises_can_be_resumed(out):
    x, labels = samples(60)

    def items():
        for i in range(60):
            if i == 35:
                raise OSError("the server is gone")
            yield i, x[i], labels[i]

    with pytest.raises(OSError, match="the server is gone"):
        attribute(out, source=items())
    committed = len(dataset.open_relevance(out).ids)
    assert 8 <= committed <= 32
    assert committed % 8 == 0  # whole chunks
    assert attribute(out).new == 60 - committed
    check(out)


# Damage


def files(out):
    return sorted(p for p in out.glob("*/c/**/*") if p.is_file())


@pytest.mark.parametrize("seed", range(4))
def test_any_altered_byte_of_any_chunk_is_found_and_repaired(out, seed):
    attribute(out)
    rng = random.Random(seed)
    hit = set()
    for path in rng.sample(files(out), 3):
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        hit.add(int(path.relative_to(out).parts[2]))
    found = dataset.verify(out)
    assert set(found.damaged) == hit
    assert not found.ok
    assert "wrong checksum" in str(found)
    summary = attribute(out)
    assert summary.repaired == len(hit)
    assert summary.new > 0
    check(out)


def test_every_single_byte_counts(out):
    """All bytes of one chunk, one after the other."""
    attribute(out, 8)
    path = next(p for p in files(out) if p.parts[-5] == "relevance")
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert dataset.verify(out).damaged, place
    path.write_bytes(whole)
    assert dataset.verify(out).ok


@pytest.mark.parametrize("how", ["truncated", "emptied", "removed", "longer"])
def test_a_chunk_of_another_size_is_noticed_when_resuming(out, how):
    attribute(out)
    path = files(out)[7]
    data = path.read_bytes()
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-1], "emptied": b"", "longer": data + b"0"}[how])
    assert len(dataset.verify(out).damaged) == 1
    assert attribute(out).repaired == 1
    check(out)


def test_reading_a_damaged_chunk_raises(out):
    attribute(out)
    path = next(p for p in files(out) if p.parts[-5] == "relevance")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    opened = dataset.open_relevance(out)
    with pytest.raises(dataset.DamagedError, match=r"'relevance' cannot be read.*verify"):
        opened.relevance[:]
    path.unlink()
    with pytest.raises(dataset.DamagedError, match="cannot be read"):
        opened.relevance[:]


def test_a_swapped_chunk_is_found(out):
    """Chunks that are whole, but of other samples: only the journal's checksum can tell."""
    attribute(out)
    first, second = [p for p in files(out) if p.parts[-5] == "relevance"][:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert set(dataset.verify(out).damaged) == {0, 1}


def test_repair_discards_damaged_chunks_for_resume(out):
    attribute(out)
    path = files(out)[0]
    path.write_bytes(b"x" * path.stat().st_size)
    assert len(dataset.verify(out, repair=True).damaged) == 1
    assert dataset.verify(out).ok
    assert len(dataset.open_relevance(out).ids) < 60
    attribute(out)
    check(out)


@pytest.mark.parametrize("place", [3, 40, -2])
def test_a_damaged_line_of_the_journal_is_found(out, place):
    attribute(out)
    (path,) = journal.paths(out)
    lines = path.read_bytes().splitlines(keepends=True)
    broken = bytearray(lines[3])
    broken[place] ^= 1
    path.write_bytes(b"".join([*lines[:3], bytes(broken), *lines[4:]]))
    found = dataset.verify(out)
    assert found.broken >= 1
    assert not found.ok
    assert 0 < attribute(out).new <= 16
    check(out)


def test_a_damaged_manifest_is_found(out):
    attribute(out)
    path = out / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"chunk_size": 8', '"chunk_size": 9'))
    with pytest.raises(dataset.DamagedError, match=r"manifest\.json' is damaged: its checksum"):
        dataset.open_relevance(out)


def test_altered_metadata_of_zarr_are_found_and_written_anew(out):
    attribute(out)
    path = out / "relevance" / "zarr.json"
    path.write_text(path.read_text().replace('"float32"', '"float64"'))
    assert dataset.verify(out).metadata == ("relevance",)
    attribute(out)
    check(out)


# Full disks


def test_a_full_disk(tmp_path):
    """A real one where this process may mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not mount a file system")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(250_000))
        with pytest.raises(dataset.StoreFullError, match=r"the disk of .* is full"):
            attribute(disk / "store", 600)
        committed = len(dataset.open_relevance(disk / "store").ids)
        assert 0 < committed < 600
        with pytest.raises(dataset.StoreFullError):  # still full: still said, and nothing is lost
            attribute(disk / "store", 600)
        assert dataset.verify(disk / "store").samples >= committed
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        attribute(disk / "store", 600)
        check(disk / "store", 600)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_file_that_may_not_grow(out):
    """The journal meets the limit: it is the only file that grows."""
    code = (
        "import resource, signal, sys; from dataset_runs import attribute;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        f"attribute({str(out)!r}, 200)"
    )
    done = python("-c", code)
    assert done.returncode == 1
    assert "StoreFullError" in done.stderr
    assert 0 < len(dataset.open_relevance(out).ids) < 200
    attribute(out, 200)
    check(out, 200)


# Another run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"args": (weights(9),)},
            r"model: \d operations, 288 numbers in 3 arrays \(\w{8}\) now, \d operations",
        ),
        (
            {"explainer": lrp.explain(network, lrp.composites.epsilon_plus(), argnums=1)},
            r"composite: epsilon_plus \(\w{8}\) now, lrp0 \(\w{8}\) in the store",
        ),
        (
            {"explainer": lrp.explain(lambda w, x: network(w, 2 * x), LRP0, argnums=1)},
            "model: ",
        ),
        ({"target": 3}, r"target policy: 3 \(\w{8}\) now, None"),
        ({"conditions": [{"hidden": np.ones(16)}]}, "conditions: 0 "),
        ({"dtype": "float16"}, "dtype: float16 now, None in the store"),
        ({"chunk_size": 4}, "chunk_size: 4 now, 8 in the store"),
    ],
)
def test_another_run_is_refused(out, changes, message):
    attribute(out, 20)
    with pytest.raises(dataset.DifferentRunError, match=message):
        attribute(out, 40, **changes)
    assert attribute(out, 40).new == 20


def test_a_closed_over_parameter_counts(out):
    def explain(w):
        return lrp.explain(lambda x: network(w, x), LRP0)

    attribute(out, 20, explainer=explain(weights()), args=())
    assert attribute(out, 20, explainer=explain(weights()), args=()).new == 0
    with pytest.raises(dataset.DifferentRunError, match="model: "):
        attribute(out, 20, explainer=explain(weights(1)), args=())


def test_a_mask_counts(out):
    attribute(out, 20, conditions=[{"hidden": np.arange(16.0)}])
    with pytest.raises(dataset.DifferentRunError, match="conditions: "):
        attribute(out, 20, conditions=[{"hidden": np.arange(16.0) + 1}])


def test_an_nnx_module(out):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, seed):
            self.dense = nnx.Linear(12, 5, rngs=nnx.Rngs(seed))

        def __call__(self, x):
            return self.dense(x.reshape(x.shape[0], -1))

    attribute(out, 20, explainer=lrp.explain(Model(0), LRP0), args=())
    assert attribute(out, 20, explainer=lrp.explain(Model(0), LRP0), args=()).new == 0
    with pytest.raises(dataset.DifferentRunError, match="model: "):
        attribute(out, 20, explainer=lrp.explain(Model(1), LRP0), args=())


def test_other_samples_are_refused(out):
    attribute(out, 20)
    with pytest.raises(dataset.DifferentRunError, match="target policy: "):
        attribute(out, source=samples(20)[0], target=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(dataset.StoreError, match="is not empty and not a store of relevance"):
        attribute(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(dataset.StoreError, match=r"it has no manifest\.json"):
        dataset.open_relevance(tmp_path)


# Two runs


def test_two_runs_are_refused(out):
    attribute(out, 20)
    code = f"import dataset_runs; dataset_runs.attribute({str(out)!r})"
    lock = durable.Lock(out)
    try:
        done = python("-c", code)
        assert done.returncode == 1
        assert f"another run (process {os.getpid()}) is writing to" in done.stderr
        with pytest.raises(dataset.StoreLockedError, match="another run"):  # of the same process
            attribute(out)
        with pytest.raises(dataset.StoreLockedError, match="another run"):
            dataset.verify(out, repair=True)
        assert dataset.verify(out).ok  # readers are let in
        lock.share()
        assert "another run" in python("-c", code).stderr
    finally:
        lock.release()
    assert attribute(out).new == 40


def test_two_runs_in_threads(out):
    met = []

    def slow(x):
        started.set()
        ended.wait(20)
        return x

    started, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: met.append(attribute(out, 20, preprocess=slow)))
    thread.start()
    assert started.wait(60)
    with pytest.raises(dataset.StoreLockedError):
        attribute(out, 20)
    ended.set()
    thread.join()
    assert met[0].samples == 20
    check(out, 20)


def test_a_lock_dies_with_its_process_and_is_not_inherited(out):
    attribute(out, 20)
    code = (
        "import os, sys, time; from pathlib import Path; from jaxlrp.dataset import durable;"
        f"lock = durable.Lock(Path({str(out)!r}));"
        "child = os.fork();"
        "time.sleep(60) if child == 0 else print(child, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert process.wait(60) == -9
    try:
        assert attribute(out, 40).new == 20  # though a child of the killed run still lives
    finally:
        os.kill(child, 9)
        process.stdout.close()
