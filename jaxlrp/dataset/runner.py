"""`attribute_dataset`: every sample of a data set, explained and on disk."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlrp.dataset import (
    durable,
    fingerprint,
    journal,
    manifest,
    memory,
    policy,
    program,
    reading,
    store,
    verification,
)
from jaxlrp.dataset.durable import Lock, full_disk_said
from jaxlrp.dataset.errors import StoreError, need
from jaxlrp.dataset.journal import Journal, State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.placement import Placement, barrier, place
from jaxlrp.dataset.program import Program
from jaxlrp.dataset.progress import Progress, Summary
from jaxlrp.dataset.reading import HostBatch, Part, Spec
from jaxlrp.dataset.relevance import open_relevance
from jaxlrp.dataset.source import Failure, Source, Stream, as_source
from jaxlrp.dataset.store import Tally, Writer
from jaxlrp.dataset.threads import Ahead, Behind
from jaxlrp.numerics import check_count

_CHUNK_BYTES = 2**24
"""Chunks hold at most so many bytes of relevance before compression, unless the user says."""

_DTYPES = ("float32", "float16", "bfloat16", "float64")
_PROGRESS = ("auto", "bar", "log", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """What the user asked for; see `attribute_dataset`."""

    call: program.Call
    source: Source
    out: Path
    target: Any
    conditions: policy.Conditions | None
    prepare: Callable[[Any], Any] | None
    batch_size: int | None
    chunk: int | None
    dtype: str | None
    dims: tuple[str, ...] | None
    placement: Placement
    limit: int | None
    sharded: bool
    retry: bool
    verify: bool
    progress: str
    workers: int
    memory_fraction: float
    command: Mapping[str, Any] | None
    arguments: fingerprint.Parameters


def attribute_dataset(
    explain: Callable[..., Any],
    source: Any,
    out: str | os.PathLike[str],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    target: Any = None,
    conditions: Any = None,
    prepare: Callable[[Any], Any] | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    dtype: str | None = None,
    dims: Sequence[str] | None = None,
    mesh: Mesh | None = None,
    batch_axes: str | Sequence[str] | None = None,
    limit: int | None = None,
    sharded: bool = False,
    retry: bool = False,
    verify: bool = False,
    progress: str = "auto",
    workers: int = 4,
    memory_fraction: float = 0.5,
    command: Mapping[str, Any] | None = None,
) -> Summary:
    """Explains every sample of a data set and writes the relevances to a store on disk.

    If the store exists, the run goes on where the last one ended: samples that are there, by their id,
    are left out. A run may be killed at any moment.

    Args:
      explain: what `jaxlrp.explain` gives, or a baseline, or any function of a batch that gives a
        `jaxlrp.Explanation`. What it records is stored too.
      source: arrays `inputs` or `(inputs, targets)`; a dictionary of arrays with the keys "input",
        "target", "id", all others being keyword arguments of the explained function; a folder of
        pictures; a file .h5, .npy or .npz; a `grain` data set or loader; a list or any iterable of
        (id, input, target) or of such dictionaries, one sample each. See `images`, `hdf5`.
      out: the folder of the store.
      args: the positional arguments of `explain` but the explained one, such as `(variables,)`. Arrays
        that are sharded over `mesh` stay so, others are copied to every device.
      kwargs: keyword arguments of `explain`.
      target: what is explained of every sample: None for the source's target (or the output itself where
        the source has none), a class index, anything that `jaxlrp.explain` takes, `Given(...)`,
        `Top(k)`, or a list of these for several explanations of each sample. Integer targets of the
        source that have one more axis than the output's leading ones are several as well.
      conditions: several conditions for each sample, a list or a dictionary by name.
      prepare: from what the source gives for one sample to the model's input without a batch axis, on the
        host, in threads.
      batch_size: samples of a batch, for one process; rounded up to a multiple of the devices. None
        chooses by a memory estimate of the compiled program.
      chunk: samples of a chunk of the store, the least that is read and what a kill may cost.
      dtype: "float16" or "bfloat16" to store relevances in half the space. The summary says what it
        costs. None for their own.
      dims: names of the axes of one sample's relevance, such as ("height", "width", "channel").
      mesh: of the devices that compute a batch together; None for all of this process.
      batch_axes: the mesh's axes over which a batch is spread, its first by default.
      limit: the first so many samples of the source only.
      sharded: the source gives each process its own samples, as a `grain` loader may; its ids must
        then be its own too. Otherwise every process is given the whole source, and reads its part.
      retry: try samples again that failed in an earlier run.
      verify: compare all checksums of an existing store first. Without it only sizes are compared.
      progress: "bar", "log" (lines through `logging`), "none", or "auto": a bar on a terminal.
      workers: threads that read and prepare.
      memory_fraction: of the free memory that the program may need, where the batch size is chosen.
      command: noted in the manifest.

    Returns:
      A `Summary`: samples, failures with their reasons, conservation, throughput.

    Raises:
      TypeError, ValueError: saying which argument is wrong.
      DifferentRunError: if the store was begun with another model, composite or target policy.
      StoreLockedError: if another run writes to the store.
      StoreFullError: if the disk is full; what was committed is safe.

    Example:
      >>> import tempfile, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import dataset
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> explain = lrp.explain(lambda w, x: x @ w, argnums=1)
      >>> x, labels = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32), np.array([0, 1])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     done = dataset.attribute_dataset(
      ...         explain, (x, labels), f"{folder}/out", args=(w,), batch_size=2, progress="none"
      ...     )
      ...     opened = dataset.open_relevance(f"{folder}/out")
      ...     done.samples, np.rint(opened.relevance[:]).astype(int).tolist()
      (2, [[2, 2], [-3, 3]])
    """
    called = program.call(explain, tuple(args), kwargs)
    for name, value in (("batch_size", batch_size), ("chunk", chunk), ("limit", limit)):
        if value is not None:
            check_count(name, value)
    check_count("workers", workers)
    for name, word, known in (("dtype", dtype, _DTYPES), ("progress", progress, _PROGRESS)):
        if word not in known and not (word is None and name == "dtype"):
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")
    if not 0 < memory_fraction <= 1:
        raise ValueError(f"memory_fraction must be > 0 and <= 1, got {memory_fraction}")
    need("tensorstore", "writing relevances")
    options = Options(
        called, as_source(source), Path(out), target, policy.conditions(conditions), prepare,
        batch_size, chunk, dtype, None if dims is None else tuple(dims), place(mesh, batch_axes),
        limit, sharded, retry, verify, progress, workers, memory_fraction, command,
        fingerprint.of_arguments(called),
    )  # fmt: skip
    if options.placement.lockstep and batch_size is None:
        raise ValueError("batch_size must be given where the mesh spans several processes")
    return _run(options)


@dataclasses.dataclass(eq=False)
class _Run:
    """A run whose store is open."""

    options: Options
    manifest: Manifest
    program: Program
    state: State
    journal: Journal
    writer: Writer
    progress: Progress
    compile_seconds: float = 0.0


def _run(options: Options) -> Summary:
    began = time.monotonic()
    first = jax.process_index() == 0
    lock = None
    try:
        if first:
            lock = _lock(options.out)
            held, planned, source, mended = _open(options)
            lock.share()
        barrier("opened")
        if not first:
            lock = Lock(options.out, shared=True)
            held = manifest.read(options.out)
            planned, source = _program(options, held.spec), options.source
            held.check_same(_manifest(options, planned, held.chunk, held.batch), options.out)
            mended = 0
        state = journal.state(options.out)
        barrier("read")
        run = _begin(dataclasses.replace(options, source=source), held, planned, state)
        try:
            computed = _compute(run)
        finally:
            run.journal.close()
            run.progress.close()
        barrier("computed")
        if first:
            store.finish(options.out, held.members, held.chunk, journal.state(options.out))
        barrier("finished")
        return _summary(run, computed, mended, time.monotonic() - began)
    finally:
        if lock is not None:
            lock.release()


def _lock(out: Path) -> Lock:
    """Makes the folder, if it is not there, and locks it."""
    # A kill may leave a store without its manifest, but not without the file of the lock.
    ours = not out.exists() or (out / durable.LOCK).exists() or not any(out.iterdir())
    if not ours and not (out / manifest.FILE).exists():
        raise StoreError(
            f"{str(out)!r} is no store of relevances and not empty: give another folder"
        )
    with full_disk_said(out):
        out.mkdir(parents=True, exist_ok=True)
        return Lock(out)


def _open(options: Options) -> tuple[Manifest, Program, Source, int]:
    """In the first process: makes the store, or checks that it is the same run's, and mends it."""
    if not (options.out / manifest.FILE).exists():
        spec, source = reading.usual(options.source, options.prepare, options.limit)
        planned = _program(options, spec)
        batch = _batch(options, planned)
        held = _manifest(options, planned, options.chunk or _chunk(planned, batch), batch)
        length = 0 if isinstance(source, Stream) else len(source)
        rows = min(length, options.limit or length)
        with full_disk_said(options.out):
            store.create(options.out, held.members, held.chunk, rows)
            held.write(options.out)
        return held, planned, source, 0
    held = manifest.read(options.out)
    planned = _program(options, held.spec)
    now = _manifest(options, planned, options.chunk or held.chunk, held.batch)
    held.check_same(now, options.out)
    if options.batch_size is not None:
        held = dataclasses.replace(held, batch=_batch(options, planned))
    state = journal.state(options.out)
    found = verification.report(options.out, held, state, full=options.verify)
    verification.void(options.out, state, found.damaged)
    return held, planned, options.source, len(found.damaged)


def _program(options: Options, spec: Spec) -> Program:
    """The program for samples of a shape, looked at but not yet compiled."""
    call, placement = options.call, options.placement
    given = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), spec)

    def output() -> Any:
        def nothing(z: Any) -> Any:
            return jax.tree.map(jnp.zeros_like, z)

        def only(args: Any, x: Any, extra: Any) -> Any:
            return call(args, x, target=nothing, **extra).output

        return jax.eval_shape(lambda x, extra: only(call.args, x, extra), given.input, given.extra)

    chosen = policy.policy(options.target, given.target, output)
    planned = Program(
        call, chosen, options.conditions, spec, placement, options.dtype, options.dims,
        placement.parameters(call.parameters),
    )  # fmt: skip
    planned.look()
    return planned


def _manifest(options: Options, planned: Program, chunk: int, batch: int) -> Manifest:
    named = options.conditions or {}
    parts = fingerprint.of_call(options.call, planned.spec, options.arguments)
    return Manifest(
        composite=parts["composite"],
        plan=parts["plan"],
        model=parts["model"],
        target=fingerprint.described(options.target),
        conditions=fingerprint.described(dict(named), ", ".join(named) or "none"),
        spec=planned.spec,
        dtype=options.dtype,
        chunk=chunk,
        batch=batch,
        members=planned.members,
        condition_names=tuple(named),
        source=options.source.text,
        command=options.command,
    )


def _batch(options: Options, planned: Program) -> int:
    step = options.placement.shards
    if options.batch_size is not None:
        return math.ceil(options.batch_size / step) * step

    def probe(size: int) -> int | None:
        return memory.needed(trial.compile(size))

    trial = dataclasses.replace(planned, traces=0, compilations=0)
    device = options.placement.mesh.local_devices[0]
    fixed = sum(leaf.nbytes for leaf in planned.parameters)
    free = memory.available(device)
    return memory.choose(probe, free, fixed, step=step, fraction=options.memory_fraction)


def _chunk(planned: Program, batch: int) -> int:
    sizes = [
        math.prod(member.shape) * jnp.dtype(member.dtype).itemsize
        for member in planned.members.values()
    ]
    return max(1, min(batch, _CHUNK_BYTES // max(*sizes, 1)))


def _begin(options: Options, held: Manifest, planned: Program, state: State) -> _Run:
    placement = options.placement
    with full_disk_said(options.out):
        lines = Journal(options.out, jax.process_index(), state.run + 1)
        lines.append(
            "run", versions=manifest.versions(), batch=held.batch, processes=jax.process_count()
        )
    free = store.free_chunks(state, placement.part, placement.parts)
    writer = Writer(options.out, held.members, held.chunk, free, lines)
    total = None
    if not isinstance(options.source, Stream):
        done = len(state.ids) + (0 if options.retry else len(state.failed))
        left = max(min(len(options.source), options.limit or len(options.source)) - done, 0)
        total = -(-left // (1 if options.sharded else placement.parts))
    first = jax.process_index() == 0
    progress = Progress(options.progress if first else "none", total)
    return _Run(options, held, planned, state, lines, writer, progress)


def _compute(run: _Run) -> float:
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
        limit=options.limit, workers=options.workers,
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


def _explain_all(run: _Run, ahead: Ahead[HostBatch | Failure], behind: Behind[Any]) -> None:
    placement = run.options.placement
    compiled = None
    while True:
        batch = next(ahead, None)
        while isinstance(batch, Failure):
            behind.put(batch)
            batch = next(ahead, None)
        if not placement.any(batch is not None):
            return
        if compiled is None:
            compiled = _compiled(run)
        values = _filling(run) if batch is None else batch.values
        x, *rest = placement.put(values)
        result = compiled(run.program.parameters, x, tuple(rest))
        behind.put((() if batch is None else batch.ids, result))


def _compiled(run: _Run) -> Any:
    began = time.monotonic()
    compiled = run.program.compile(run.manifest.batch)
    run.compile_seconds = time.monotonic() - began
    return compiled


def _filling(run: _Run) -> Any:
    """A batch of no samples, for a process that has none left while others have."""
    return jax.tree.map(
        lambda s: np.zeros((run.manifest.batch, *s.shape), s.dtype), tuple(run.manifest.spec)
    )


_CHECKS = {
    "_finite_input": "the input is not finite: it holds NaN or infinity",
    "_finite": "the output or the relevance is not finite",
    "_fits": "the relevance does not fit into {dtype}",
}


def _keep(run: _Run, item: Failure | tuple[tuple[Any, ...], dict[str, jax.Array]]) -> None:
    """In the thread that writes: sorts out what failed, and hands the rest to the writer."""
    if not run.options.placement.writes:
        return
    if isinstance(item, Failure):
        run.writer.fail(item.id, item.reason)
        run.progress.advance(0, 1)
        return
    ids, result = item
    fetched = {name: run.options.placement.fetch(a)[: len(ids)] for name, a in result.items()}
    good = np.ones(len(ids), bool)
    for check, reason in _CHECKS.items():
        for i in np.flatnonzero(good & ~fetched[check]) if check in fetched else ():
            run.writer.fail(ids[i], reason.format(dtype=run.options.dtype))
        good &= fetched.get(check, True)
    rows = {name: fetched[name] for name in run.manifest.members}
    if not good.all():
        rows = {name: a[good] for name, a in rows.items()}
    errors = fetched["_error"][good] if "_error" in fetched else np.zeros(0)
    kept = [name for name, keep in zip(ids, good, strict=True) if keep]
    run.writer.add(kept, rows, float(errors.max(initial=0.0)))
    run.progress.advance(len(kept), len(ids) - len(kept))


def _summary(run: _Run, computed: float, mended: int, seconds: float) -> Summary:
    opened = open_relevance(run.options.out)
    state = journal.state(run.options.out)
    residual = None
    if "residual" in opened and len(opened.ids):
        values = np.asarray(opened["residual"])
        values = values[np.isfinite(values)]
        residual = (float(np.median(values)), float(values.max())) if values.size else None
    new = len(state.ids) - len(run.state.ids)
    tally: Tally = run.writer.tally
    rounded = run.options.dtype is not None
    return Summary(
        samples=len(state.ids),
        new=new,
        failed=state.failed,
        mended=mended,
        seconds=seconds,
        compile_seconds=run.compile_seconds,
        throughput=new / computed if computed > 0 else 0.0,
        residual=residual,
        error=max((c["error"] for c in state.chunks.values()), default=0.0) if rounded else None,
        batch=run.manifest.batch,
        devices=run.options.placement.mesh.size,
        traces=run.program.traces,
        compilations=run.program.compilations,
        bytes=tally.bytes,
    )
