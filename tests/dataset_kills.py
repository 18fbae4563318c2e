"""Kills runs with SIGKILL, resumes them, and checks that every sample is there exactly once.

python tests/dataset_kills.py --kills 200     at random moments
python tests/dataset_kills.py --steps         between each two steps of the commit protocol
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorstore as ts

import dataset_runs
from jaxlrp.dataset import durable, journal, store, zarr_arrays

SAMPLES = 200
_SLOWEST = 60.0  # seconds for one run; a run that takes longer hangs


def forked(function: Callable[[], Any]) -> int:
    """Calls a function in a process of its own, forked before JAX has a device. Returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run(out: Path, before: Callable[[], None] = lambda: None) -> int:
    """A run in a process of its own."""

    def attribute() -> None:
        before()
        dataset_runs.attribute(out, SAMPLES, batch_size=8, chunk_size=2)

    return forked(attribute)


def ended(child: int) -> int | None:
    """The status of a process, negative for a signal; None while it runs."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def finish(child: int) -> int:
    deadline = time.monotonic() + _SLOWEST
    while (status := ended(child)) is None:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError("a run hangs")
        time.sleep(0.01)
    return status


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in journal.paths(out))


def kill_somewhere(out: Path, rng: random.Random) -> bool:
    """Kills a run at a random moment; False if it had ended before."""
    child = run(out)
    wanted = lines(out) + rng.choice((0, 1, rng.randrange(2, 40)))
    deadline = time.monotonic() + _SLOWEST
    while lines(out) < wanted and not has_ended(child) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05) if wanted else rng.uniform(0, 2.0))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def has_ended(child: int) -> bool:
    """Whether a process has ended; it can still be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def settle(out: Path) -> None:
    """Resumes to the end, and checks, in processes of their own."""
    assert finish(run(out)) == 0, "a resumed run failed"
    checker = forked(lambda: dataset_runs.check(out, SAMPLES))
    assert finish(checker) == 0, "the store is wrong after resuming"


def random_kills(count: int, each: int, seed: int, folder: Path) -> tuple[int, int]:
    """Kills `count` runs, at most `each` of one store. Returns (kills, stores)."""
    rng = random.Random(seed)
    kills = stores = 0
    while kills < count:
        out = folder / f"store{stores}"
        for _ in range(min(each, count - kills)):
            kills += kill_somewhere(out, rng)
        settle(out)
        stores += 1
        print(f"{kills} kills, {stores} stores", flush=True)
    return kills, stores


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _counted(function: Callable[..., Any], at: int, before: bool) -> Callable[..., Any]:
    """A function at whose `at`-th call the process dies, before or after it is done."""
    calls = 0

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and before:
            _die()
        result = function(*args, **kwargs)
        if calls == at:
            _die()
        return result

    return replaced


def _torn(self: Any, kind: str, *, sync: bool = True, **fields: Any) -> None:
    self._file.write(b'0123abcd {"run":1,"kind":"chunk","chunk":3,"ids":[1')
    self._file.flush()
    os.fsync(self._file.fileno())
    _die()


class _Files:
    """A tensorstore file store that dies at its `at`-th write, before it or after."""

    def __init__(self, held: Any, at: int, before: bool) -> None:
        self._held = held
        self.write = _counted(lambda k, v: _Done(held.write(k, v)), at, before)


class _Done:
    def __init__(self, future: Any) -> None:
        self._value = future.result()

    def result(self) -> Any:
        return self._value


def _files(at: int, before: bool) -> Callable[[], None]:
    def patch() -> None:
        opened = ts.KvStore.open

        class Opened:
            def __init__(self, *args: Any) -> None:
                self._args = args

            def result(self) -> Any:
                return _Files(opened(*self._args).result(), at, before)

        class KvStore:
            open = Opened

        ts.KvStore = KvStore

    return patch


def _patch(owner: Any, name: str, at: int, before: bool) -> Callable[[], None]:
    def patch() -> None:
        setattr(owner, name, _counted(getattr(owner, name), at, before))

    return patch


def steps() -> dict[str, Callable[[], None]]:
    """Where to die: in making the store, in each step of a commit, at the end."""
    found: dict[str, Callable[[], None]] = {}
    for before in (True, False):
        when = "before" if before else "after"
        found[f"{when} the lock"] = _patch(durable.Lock, "_lock", 1, before)
        found[f"{when} the group's metadata"] = _patch(os, "replace", 1, before)
        found[f"{when} the manifest is moved"] = _patch(os, "replace", 2, before)
        found[f"{when} the first array"] = _patch(zarr_arrays, "set_rows", 1, before)
        found[f"{when} what is asked"] = _patch(journal.Journal, "append", 1, before)
        found[f"{when} the run's line"] = _patch(journal.Journal, "append", 2, before)
        found[f"{when} the first file"] = _files(1, before)
        found[f"{when} the fourth file of the third chunk"] = _files(2 * 6 + 4, before)
        found[f"{when} the third chunk's line"] = _patch(journal.Journal, "append", 5, before)
        found[f"{when} the arrays are cut"] = _patch(zarr_arrays, "set_rows", 9, before)
        found[f"{when} the end"] = _patch(store, "finish", 1, before)

    def torn() -> None:
        append, calls = journal.Journal.append, 0

        def torn_later(self: Any, *args: Any, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            (_torn if calls == 7 else append)(self, *args, **kwargs)

        journal.Journal.append = torn_later

    found["in the middle of a line"] = torn
    return found


def kill_each_step(folder: Path, names: list[str] | None = None) -> int:
    """Kills one run at each step, resumes and checks it. Returns how many."""
    chosen = {n: p for n, p in steps().items() if names is None or n in names}
    for number, (name, patch) in enumerate(chosen.items()):
        out = folder / f"step{number}"
        status = finish(run(out, patch))
        assert status == -signal.SIGKILL, f"{name}: the run was not killed, but ended with {status}"
        settle(out)
        print(name, flush=True)
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--each", type=int, default=5, help="kills of one store at the most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.steps is not None:
            print(f"{kill_each_step(Path(folder), options.steps or None)} steps, all resumed")
        if options.kills:
            kills, stores = random_kills(options.kills, options.each, options.seed, Path(folder))
            print(
                f"{kills} kills of runs on {stores} stores: every id exactly once, all checksums right"
            )


if __name__ == "__main__":
    main()
