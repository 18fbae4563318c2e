"""The work of a run: read, explain and write all samples that are left."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from jaxlrp.dataset import manifest, reading, store
from jaxlrp.dataset.durable import full_disk_as_error
from jaxlrp.dataset.fetching import Part, Range, fetch
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.program import Program
from jaxlrp.dataset.progress import Progress
from jaxlrp.dataset.reading import HostBatch
from jaxlrp.dataset.request import Request
from jaxlrp.dataset.source import Failure, Stream
from jaxlrp.dataset.store import Writer
from jaxlrp.dataset.threads import Background, Prefetch


@dataclasses.dataclass(eq=False)
class Run:
    """A run with an open store."""

    request: Request
    manifest: Manifest
    program: Program
    state: State
    journal: Journal
    writer: Writer
    progress: Progress
    compile_seconds: float = 0.0


def start_run(request: Request, held: Manifest, planned: Program, state: State) -> Run:
    """Notes the start of a run, and prepares its writer and progress display."""
    placement = request.placement
    with full_disk_as_error(request.output):
        lines = Journal(request.output, jax.process_index(), state.run + 1)
        lines.append(
            "run", versions=manifest.versions(), batch=held.batch_size, processes=jax.process_count(),
            store=held.identity, rows=held.chunk_size,
        )  # fmt: skip
    free = store.free_chunks(state, placement.part, placement.parts)
    writer = Writer(request.output, held.members, held.chunk_size, free, lines, held.identity)
    first = jax.process_index() == 0
    progress = Progress(request.progress if first else "none", samples_left(request, state))
    return Run(request, held, planned, state, lines, writer, progress)


def samples_left(request: Request, state: State) -> int | None:
    """How many samples this process has to explain, about; None if the source does not tell."""
    source = request.source
    if isinstance(source, Stream):
        return None
    done = len(state.ids) + (0 if request.store.retry_failed else len(state.failed))
    left = min(len(source), request.limit or len(source)) - done
    left = max(left, len(state.pending))
    return -(-left // (1 if request.read.sharded else request.placement.parts))


def compute(run: Run) -> float:
    """Reads, explains and writes all samples that are left. Returns the seconds without compiling."""
    request, placement = run.request, run.request.placement
    done = set(run.state.ids) if request.store.retry_failed else {*run.state.ids, *run.state.failed}
    part = (
        Part(0, 1, 1)
        if request.read.sharded
        else Part(placement.part, placement.parts, run.manifest.chunk_size)
    )
    samples = fetch(
        request.source, skip=done.__contains__, part=part, preprocess=request.preprocess,
        covered=Range(request.limit, run.state.pending, run.state.limit), workers=request.read.workers,
    )  # fmt: skip
    size = run.manifest.batch_size
    batches = Prefetch(reading.batches(samples, run.manifest.spec, size, run.program.classes), 2)
    background: Background[Any] = Background(lambda item: _write(run, item), 2)
    began = time.monotonic()
    try:
        _explain_all(run, batches, background)
        background.finish()
        run.writer.finish()
    finally:
        batches.close()
        background.close()  # after an error too: what was computed is kept
    return time.monotonic() - began - run.compile_seconds


def _explain_all(
    run: Run, batches: Prefetch[HostBatch | Failure], background: Background[Any]
) -> None:
    placement = run.request.placement
    compiled = None
    while True:
        batch, error = None, None
        try:
            batch = _next_batch(batches, background)
        except Exception as found:  # the other processes must know first, or they would wait
            error = found
        if not placement.any(batch is not None, error):
            return
        if compiled is None:
            compiled = _compiled(run)
        values = _padding(run) if batch is None else batch.values
        x, *rest = placement.put(values)
        result = compiled(run.program.parameters, x, tuple(rest))
        background.put((() if batch is None else batch.ids, result))


def _next_batch(
    batches: Prefetch[HostBatch | Failure], background: Background[Any]
) -> HostBatch | None:
    """The next batch to explain, None at the end. Failures in between go to the writing thread."""
    background.check()
    while isinstance(batch := next(batches, None), Failure):
        background.put(batch)
    return batch


def _compiled(run: Run) -> Any:
    began = time.monotonic()
    compiled = run.program.compile(run.manifest.batch_size)
    run.compile_seconds = time.monotonic() - began
    return compiled


def _padding(run: Run) -> Any:
    """A batch without samples, for a process that has none left while others have."""
    return jax.tree.map(
        lambda s: np.zeros((run.manifest.batch_size, *s.shape), s.dtype), tuple(run.manifest.spec)
    )


_CHECKS = {
    "_finite_input": "the input contains NaN or infinity",
    "_finite": "the output or the relevance contains NaN or infinity",
    "_fits": "the relevance is outside the range of {dtype}",
}


def _write(run: Run, item: Failure | tuple[tuple[Any, ...], dict[str, jax.Array]]) -> None:
    """Runs in the background thread: notes failed samples, and passes the others to the store."""
    if not run.request.placement.writes:
        return
    if isinstance(item, Failure):
        run.writer.fail(item)
        run.progress.advance(0, 1)
        return
    ids, result = item
    fetched = {name: run.request.placement.fetch(a)[: len(ids)] for name, a in result.items()}
    good = np.ones(len(ids), bool)
    for check, reason in _CHECKS.items():
        for i in np.flatnonzero(good & ~fetched[check]) if check in fetched else ():
            run.writer.fail(Failure(ids[i], reason.format(dtype=run.request.store.dtype)))
        good &= fetched.get(check, True)
    rows = {name: fetched[name] for name in run.manifest.members}
    if not good.all():
        rows = {name: a[good] for name, a in rows.items()}
    errors = fetched["_error"][good] if "_error" in fetched else np.zeros(0)
    kept = [name for name, keep in zip(ids, good, strict=True) if keep]
    run.writer.add(kept, rows, float(errors.max(initial=0.0)))
    run.progress.advance(len(kept), len(ids) - len(kept))
