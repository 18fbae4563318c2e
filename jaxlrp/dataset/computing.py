"""What a run does: read, explain and write all that is left."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from jaxlrp.dataset import manifest, reading, store
from jaxlrp.dataset.durable import full_disk_said
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.opening import Options
from jaxlrp.dataset.program import Program
from jaxlrp.dataset.progress import Progress
from jaxlrp.dataset.reading import HostBatch, Part, Reach
from jaxlrp.dataset.source import Failure, Stream
from jaxlrp.dataset.store import Writer
from jaxlrp.dataset.threads import Ahead, Behind


@dataclasses.dataclass(eq=False)
class Run:
    """A run whose store is open."""

    options: Options
    manifest: Manifest
    program: Program
    state: State
    journal: Journal
    writer: Writer
    progress: Progress
    compile_seconds: float = 0.0


def begin(options: Options, held: Manifest, planned: Program, state: State) -> Run:
    placement = options.placement
    with full_disk_said(options.out):
        lines = Journal(options.out, jax.process_index(), state.run + 1)
        lines.append(
            "run", versions=manifest.versions(), batch=held.batch, processes=jax.process_count(),
            store=held.identity, rows=held.chunk,
        )  # fmt: skip
    free = store.free_chunks(state, placement.part, placement.parts)
    writer = Writer(options.out, held.members, held.chunk, free, lines, held.identity)
    total = None
    if not isinstance(options.source, Stream):
        done = len(state.ids) + (0 if options.retry else len(state.failed))
        left = min(len(options.source), options.limit or len(options.source)) - done
        left = max(left, len(state.owed))
        total = -(-left // (1 if options.sharded else placement.parts))
    first = jax.process_index() == 0
    progress = Progress(options.progress if first else "none", total)
    return Run(options, held, planned, state, lines, writer, progress)


def compute(run: Run) -> float:
    """Reads, explains and writes all that is left; returns the seconds of it, compiling apart."""
    options, placement = run.options, run.options.placement
    done = set(run.state.ids) if options.retry else {*run.state.ids, *run.state.failed}
    part = (
        Part(0, 1, 1)
        if options.sharded
        else Part(placement.part, placement.parts, run.manifest.chunk)
    )
    samples = reading.read(
        options.source, skip=done.__contains__, part=part, prepare=options.prepare,
        reach=Reach(options.limit, run.state.owed, run.state.limit), workers=options.workers,
    )  # fmt: skip
    size = run.manifest.batch
    ahead = Ahead(reading.batches(samples, run.manifest.spec, size, run.program.classes), 2)
    behind: Behind[Any] = Behind(lambda item: _keep(run, item), 2)
    began = time.monotonic()
    try:
        _explain_all(run, ahead, behind)
        behind.finish()
        run.writer.finish()
    finally:
        ahead.close()
        behind.close()  # after an error too: what is computed is kept
    return time.monotonic() - began - run.compile_seconds


def _explain_all(run: Run, ahead: Ahead[HostBatch | Failure], behind: Behind[Any]) -> None:
    placement = run.options.placement
    compiled = None
    while True:
        batch, error = None, None
        try:
            batch = _next_batch(ahead, behind)
        except Exception as found:  # told to the others first, which would wait for this process
            error = found
        if not placement.any(batch is not None, error):
            return
        if compiled is None:
            compiled = _compiled(run)
        values = _filling(run) if batch is None else batch.values
        x, *rest = placement.put(values)
        result = compiled(run.program.parameters, x, tuple(rest))
        behind.put((() if batch is None else batch.ids, result))


def _next_batch(ahead: Ahead[HostBatch | Failure], behind: Behind[Any]) -> HostBatch | None:
    """The next samples to be explained; None at the end. Failures on the way are handed on."""
    behind.check()
    while isinstance(batch := next(ahead, None), Failure):
        behind.put(batch)
    return batch


def _compiled(run: Run) -> Any:
    began = time.monotonic()
    compiled = run.program.compile(run.manifest.batch)
    run.compile_seconds = time.monotonic() - began
    return compiled


def _filling(run: Run) -> Any:
    """A batch of no samples, for a process that has none left while others have."""
    return jax.tree.map(
        lambda s: np.zeros((run.manifest.batch, *s.shape), s.dtype), tuple(run.manifest.spec)
    )


_CHECKS = {
    "_finite_input": "the input is not finite: it holds NaN or infinity",
    "_finite": "the output or the relevance is not finite",
    "_fits": "the relevance does not fit into {dtype}",
}


def _keep(run: Run, item: Failure | tuple[tuple[Any, ...], dict[str, jax.Array]]) -> None:
    """In the thread that writes: sorts out what failed, and hands the rest to the writer."""
    if not run.options.placement.writes:
        return
    if isinstance(item, Failure):
        run.writer.fail(item)
        run.progress.advance(0, 1)
        return
    ids, result = item
    fetched = {name: run.options.placement.fetch(a)[: len(ids)] for name, a in result.items()}
    good = np.ones(len(ids), bool)
    for check, reason in _CHECKS.items():
        for i in np.flatnonzero(good & ~fetched[check]) if check in fetched else ():
            run.writer.fail(Failure(ids[i], reason.format(dtype=run.options.dtype)))
        good &= fetched.get(check, True)
    rows = {name: fetched[name] for name in run.manifest.members}
    if not good.all():
        rows = {name: a[good] for name, a in rows.items()}
    errors = fetched["_error"][good] if "_error" in fetched else np.zeros(0)
    kept = [name for name, keep in zip(ids, good, strict=True) if keep]
    run.writer.add(kept, rows, float(errors.max(initial=0.0)))
    run.progress.advance(len(kept), len(ids) - len(kept))
