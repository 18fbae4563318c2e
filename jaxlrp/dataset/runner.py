"""`attribute_dataset`: every sample of a data set, explained and on disk."""

from __future__ import annotations

import collections
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlrp._checks import check_count
from jaxlrp.dataset import fingerprint, journal, manifest, policy, program, store
from jaxlrp.dataset.computing import Run, begin, compute
from jaxlrp.dataset.durable import Lock, full_disk_said
from jaxlrp.dataset.errors import DamagedError, need
from jaxlrp.dataset.opening import (
    Options,
    choose_batch,
    lock,
    make_manifest,
    make_program,
    open_store,
)
from jaxlrp.dataset.placement import place, together
from jaxlrp.dataset.progress import Summary
from jaxlrp.dataset.relevance import open_relevance
from jaxlrp.dataset.source import as_source
from jaxlrp.dataset.store import Tally

_DTYPES = ("float32", "float16", "bfloat16", "float64")
_PROGRESS = ("auto", "bar", "log", "none")


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
    verify: bool = True,
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
      mesh: of the devices that compute a batch together; None for all of this process, or for the mesh with
        explicit axes that `jax.set_mesh` has set. Axes are automatic in the run unless it is that mesh.
      batch_axes: the mesh's axes over which a batch is spread, its first by default.
      limit: the first so many samples of the source only. What was there beyond it and is damaged is
        computed again all the same.
      sharded: the source gives each process its own samples, as a `grain` loader may; its ids must
        then be its own too. Otherwise every process is given the whole source, and reads its part.
      retry: try samples again that failed in an earlier run.
      verify: compare all checksums of an existing store first, as fast as it can be read and hashed.
        Without it only sizes of files are compared.
      progress: "bar", "log" (lines through `logging`), "none", or "auto": a bar on a terminal.
      workers: threads that read and prepare.
      memory_fraction: of the free memory that the program may need, where the batch size is chosen.
      command: noted in the manifest.

    Returns:
      A `Summary`: samples, failures with their reasons, conservation, throughput.

    Raises:
      TypeError, ValueError, IndexError: saying which argument is wrong.
      DamagedError: if samples were in damaged chunks and could not be computed again, because the source
        no longer has them or they fail now; all others are there. They are then listed as failed.
      DifferentRunError: if the store was begun with another model, composite or target policy, or if
        the source gives other data for a sample that is in the store. Of the source a few samples are
        compared, as they are before `prepare`.
      StoreLockedError: if another run writes to the store.
      StoreFullError: if the disk is full; what was committed is safe.

    Example:
      >>> import tempfile, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import dataset
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> explain = lrp.explain(lambda w, x: x @ w, argnums=1)
      >>> x, labels = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32), np.array([0, 0])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     done = dataset.attribute_dataset(
      ...         explain, (x, labels), f"{folder}/out", args=(w,), batch_size=2, progress="none"
      ...     )
      ...     opened = dataset.open_relevance(f"{folder}/out")
      ...     done.samples, np.rint(opened.relevance[:]).astype(int).tolist()
      (2, [[2, 2], [6, 1]])
    """
    with together("looking at its arguments"):
        options = _options(
            explain, source, out, args, kwargs, policy.conditions(conditions), target=target,
            prepare=prepare, batch_size=batch_size, chunk=chunk, dtype=dtype,
            dims=None if dims is None else tuple(dims), mesh=mesh, batch_axes=batch_axes, limit=limit,
            sharded=sharded, retry=retry, verify=verify, progress=progress, workers=workers,
            memory_fraction=memory_fraction, command=command,
        )  # fmt: skip
    arguments = fingerprint.of_arguments(options.call)  # gathers over processes
    return _run(dataclasses.replace(options, arguments=arguments))


def _options(
    explain: Any,
    source: Any,
    out: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    conditions: policy.Conditions | None,
    *,
    mesh: Mesh | None,
    batch_axes: str | Sequence[str] | None,
    **given: Any,
) -> Options:
    """Checks what the user gave."""
    called = program.call(explain, tuple(args), kwargs)
    for name in ("batch_size", "chunk", "limit"):
        if given[name] is not None:
            check_count(name, given[name])
    check_count("workers", given["workers"])
    for name, known in (("dtype", _DTYPES), ("progress", _PROGRESS)):
        word = given[name]
        if word not in known and not (word is None and name == "dtype"):
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")
    if not 0 < given["memory_fraction"] <= 1:
        raise ValueError(f"memory_fraction must be > 0 and <= 1, got {given['memory_fraction']}")
    need("tensorstore", "writing relevances")
    placement = place(mesh, batch_axes)
    if placement.lockstep and given["batch_size"] is None:
        raise ValueError("batch_size must be given where the mesh spans several processes")
    return Options(
        call=called, source=as_source(source), out=Path(out), conditions=conditions,
        placement=placement, arguments=fingerprint.Parameters(0, 0, ""), **given,
    )  # fmt: skip


def _run(options: Options) -> Summary:
    began = time.monotonic()
    first = jax.process_index() == 0
    held_lock = None
    mended, source = 0, options.source
    try:
        with together("opening the store"):
            if first:
                held_lock = lock(options.out)
                held, planned, source, mended = open_store(options)
                held_lock.share()
        with together("joining the run"):
            if not first:
                held_lock = Lock(options.out, shared=True)
                held = manifest.read(options.out)
                planned = make_program(options, held.spec)
                now = make_manifest(options, planned, held.chunk, held.batch)
                held.check_same(now, options.out)
            if options.batch_size is not None:  # another one than before is no matter
                held = dataclasses.replace(held, batch=choose_batch(options, planned))
            state = journal.state(options.out)
        with together("beginning the run"):
            run = begin(dataclasses.replace(options, source=source), held, planned, state)
        try:
            with together("computing"):
                computed = compute(run)
        finally:
            run.journal.close()
            run.progress.close()
        with together("ending the run"):
            if first:
                _end(run)
        _check_nothing_lost(run)
        return _summary(run, computed, mended, time.monotonic() - began)
    finally:
        if held_lock is not None:
            held_lock.release()


def _end(run: Run) -> None:
    """In the first process, when all have computed their part."""
    out, held = run.options.out, run.manifest
    _list_what_is_missing(run)
    state = journal.state(out)
    store.finish(out, held.members, held.chunk, state)
    _append(run, [("end", {"chunks": len(state.chunks)})])


def _list_what_is_missing(run: Run) -> None:
    """After a run: lists what the source no longer gives, and ids that came in two processes' parts."""
    state = journal.state(run.options.out)
    gone = "its chunk was damaged, and the source no longer gives it"
    lines = [("failed", {"id": name, "reason": gone}) for name in state.owed]
    twice = "a sample in the part of another process has the same id"
    counted = collections.Counter(state.ids)
    again = [name for name, times in counted.items() if times > 1 and name not in state.again]
    lines += [("again", {"id": name, "reason": twice}) for name in again]
    _append(run, lines)


def _append(run: Run, lines: list[tuple[str, dict[str, Any]]]) -> None:
    if not lines:
        return
    with full_disk_said(run.options.out):
        held = journal.Journal(run.options.out, 0, run.journal.run)
        try:
            for kind, fields in lines:
                held.append(kind, **fields)
        finally:
            held.close()


def _check_nothing_lost(run: Run) -> None:
    """Refuses to end well with fewer samples than there were."""
    state = journal.state(run.options.out)
    lost = sorted(run.state.owed.intersection(state.failed), key=str)
    if lost:
        raise DamagedError(
            f"{len(lost)} samples of {str(run.options.out)!r} were in damaged chunks and could not be "
            f"computed again; the first is {lost[0]!r}: {state.failed[lost[0]]}. They are listed as "
            "failed, all others are there. Mend the source, then run again with retry=True "
            "(resume --retry)"
        )


def _summary(run: Run, computed: float, mended: int, seconds: float) -> Summary:
    opened = open_relevance(run.options.out)
    state = journal.state(run.options.out)
    residual = None
    if "residual" in opened and len(opened.ids):
        values = np.asarray(opened["residual"])
        values = values[np.isfinite(values)]
        residual = (float(np.median(values)), float(values.max())) if values.size else None
    new = len(state.ids) - len(run.state.ids)
    tally: Tally = run.writer.tally
    return Summary(
        samples=len(state.ids),
        new=new,
        failed=state.listed,
        skipped=dict(getattr(run.options.source, "skipped", {})),
        mended=mended,
        seconds=seconds,
        compile_seconds=run.compile_seconds,
        throughput=new / computed if computed > 0 else 0.0,
        residual=residual,
        error=opened.error,
        batch=run.manifest.batch,
        devices=run.options.placement.mesh.size,
        traces=run.program.traces,
        compilations=run.program.compilations,
        bytes=tally.bytes,
    )
