"""`attribute_dataset`: explains every sample of a data set and writes the relevance to disk."""

from __future__ import annotations

import collections
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxlrp.dataset import fingerprint, journal, manifest, memory, store
from jaxlrp.dataset.computing import Run, samples_left, start_run
from jaxlrp.dataset.computing import compute as compute_all
from jaxlrp.dataset.durable import Lock, full_disk_as_error
from jaxlrp.dataset.errors import DamagedError
from jaxlrp.dataset.opening import choose_batch_size, lock, make_manifest, make_program, open_store
from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.placement import together
from jaxlrp.dataset.policy import Given, Top
from jaxlrp.dataset.progress import Summary
from jaxlrp.dataset.relevance import open_relevance
from jaxlrp.dataset.request import Request, make_request
from jaxlrp.dataset.resolve import SourceLike
from jaxlrp.dataset.source import Indexed, Source
from jaxlrp.dataset.store import Tally
from jaxlrp.errors import counted
from jaxlrp.explanation.result import Explanation
from jaxlrp.targets import Target


def attribute_dataset(
    explainer: Callable[..., Explanation],
    source: SourceLike,
    output: str | os.PathLike[str],
    *,
    args: Sequence[Any] = (),
    target: Given | Top | Target | Sequence[Target] | None = None,
    conditions: Sequence[Mapping[str, ArrayLike]]
    | Mapping[str, Mapping[str, ArrayLike]]
    | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    progress: str = "auto",
    read: ReadOptions | None = None,
    compute: ComputeOptions | None = None,
    store: StoreOptions | None = None,
) -> Summary:
    """Explains every sample of a data set and writes the relevance to a store on disk.

    If the store exists, the run is resumed: samples whose id is already in the store are skipped. A run
    can be killed at any moment without losing what was committed.

    Args:
      explainer: the result of `jaxlrp.explain`, a baseline, or any function that returns a
        `jaxlrp.Explanation` for a batch. Bind keyword arguments with `functools.partial`. Recorded
        layers are stored too.
      source: the samples. An array (N, ...) of inputs, or `(inputs, targets)`; a dictionary of arrays
        with the keys "input", "target", "id", and further keyword arguments of the explained function;
        a path to a folder of images or to a file of a type in `READERS`; a `grain` data set or loader;
        a list or other iterable of (id, input, target) or of such dictionaries, one sample each.
      output: the folder of the store.
      args: the positional arguments of `explainer` without the explained one, such as `(variables,)`.
        Arrays that are sharded over `compute.mesh` stay so, others are copied to every device.
      target: what is explained for each sample. None: the target from the source, or the whole output
        if the source has none. Otherwise a class index, anything else that `jaxlrp.explain` takes,
        `Given(...)`, `Top(k)`, or a list of targets for several explanations of each sample. Integer
        targets of the source with one axis more than the output without its class axis also give
        several explanations.
      conditions: a list of conditions, or a dictionary from names to conditions, to explain each sample
        under each of them; see `jaxlrp.explain`.
      preprocess: from an input of the source to an input of the model, both without the batch axis. It
        runs on the host, in threads.
      batch_size: samples per batch, of one process, >= 1; rounded up to a multiple of the devices. None
        estimates from the memory that the compiled program needs; a run of few samples takes a smaller
        batch.
      limit: explain only the first `limit` samples of the source, >= 1. Damaged chunks beyond the limit
        are repaired all the same.
      progress: "bar", "log" (lines through `logging`), "none", or "auto": a bar on a terminal, else
        the log.
      read: how samples are read: threads, sharded sources, additional file types. None for
        `ReadOptions()`.
      compute: where relevance is computed: mesh, memory. None for `ComputeOptions()`.
      store: how relevance is stored (dtype, chunk size, names of axes) and how an existing store is
        treated. None for `StoreOptions()`.

    Returns:
      A `Summary`: number of samples, failures with their reasons, conservation, throughput.

    Raises:
      TypeError, ValueError, IndexError: if an argument is invalid, naming it.
      DamagedError: if samples of damaged chunks could not be computed again, because the source no
        longer has them or they fail now. They are listed as failed; all others are in the store.
      DifferentRunError: if the store was made with a different model, composite, target policy,
        conditions or dtype, or if the source has different data for a sample in the store. A few
        samples of the source are compared, before `preprocess`.
      StoreError: if the folder is neither a store nor empty, or contains symbolic links.
      StoreLockedError: if another run is writing to the store.
      StoreFullError: if the disk is full. What was committed is safe.

    Example:
      >>> import tempfile, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import dataset
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> explainer = lrp.explain(lambda w, x: x @ w, argnums=1)
      >>> x, labels = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32), np.array([0, 0])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     summary = dataset.attribute_dataset(
      ...         explainer, (x, labels), f"{folder}/out", args=(w,), batch_size=2, progress="none"
      ...     )
      ...     opened = dataset.open_relevance(f"{folder}/out")
      ...     summary.samples, np.rint(opened.relevance[:]).astype(int).tolist()
      (2, [[2, 2], [6, 1]])
    """
    return attribute(
        explainer=explainer, source=source, output=output, args=args, target=target,
        conditions=conditions, preprocess=preprocess, batch_size=batch_size, limit=limit, progress=progress,
        read=read, compute=compute, store=store, command=None,
    )  # fmt: skip


def attribute(**arguments: Any) -> Summary:
    """`attribute_dataset` with the arguments of `make_request`, among them those of the command line."""
    with together("checking the arguments"):
        request = make_request(**arguments)
    parameters = fingerprint.of_arguments(request.call)  # gathers over processes
    return _run(dataclasses.replace(request, arguments=parameters))


def _run(request: Request) -> Summary:
    began = time.monotonic()
    first = jax.process_index() == 0
    held_lock = None
    damaged, source = 0, request.source
    try:
        with together("opening the store"):
            if first:
                held_lock = lock(request.output)
                held, planned, source, damaged = open_store(request)
                held_lock.share()
        with together("joining the run"):
            if not first:
                held_lock = Lock(request.output, shared=True)
                held = manifest.read(request.output)
                planned = make_program(request, held.spec)
                now = make_manifest(request, planned, held.chunk_size, held.batch_size)
                held.check_same(now, request.output)
            state = journal.state(request.output)
            # it may differ from that of earlier runs
            if request.batch_size is not None:
                size = choose_batch_size(request, planned)
            else:
                size = memory.capped(
                    held.batch_size, samples_left(request, state), request.placement.shards
                )
            held = dataclasses.replace(held, batch_size=size)
        with together("starting the run"):
            run = start_run(dataclasses.replace(request, source=source), held, planned, state)
        try:
            with together("computing"):
                seconds = compute_all(run)
        finally:
            run.journal.close()
            run.progress.close()
        with together("ending the run"):
            if first:
                _end(run)
        _check_nothing_lost(run)
        return _summary(run, seconds, damaged, time.monotonic() - began)
    finally:
        if held_lock is not None:
            held_lock.release()


def _end(run: Run) -> None:
    """In the first process, once all have computed their part."""
    output, held = run.request.output, run.manifest
    _note_losses(run)
    state = journal.state(output)
    store.finish(output, held.members, held.chunk_size, state)
    _append(run, [("end", {"chunks": len(state.chunks)})])


def _note_losses(run: Run) -> None:
    """Notes samples that the source no longer has, and ids that two processes have stored."""
    state = journal.state(run.request.output)
    gone = "its chunk was damaged, and the source no longer has it"
    lines = [("failed", {"id": name, "reason": gone}) for name in state.pending]
    twice = "a sample of another process has the same id"
    counted = collections.Counter(state.ids)
    repeated = [
        name for name, times in counted.items() if times > 1 and name not in state.duplicates
    ]
    lines += [("again", {"id": name, "reason": twice}) for name in repeated]
    _append(run, lines)


def _append(run: Run, lines: list[tuple[str, dict[str, Any]]]) -> None:
    if not lines:
        return
    with full_disk_as_error(run.request.output):
        held = journal.Journal(run.request.output, 0, run.journal.run)
        try:
            for kind, fields in lines:
                held.append(kind, **fields)
        finally:
            held.close()


def _check_nothing_lost(run: Run) -> None:
    """Raises an error if samples that were stored before are no longer in the store."""
    state = journal.state(run.request.output)
    lost = sorted(run.state.pending.intersection(state.failed), key=str)
    if lost:
        raise DamagedError(
            f"{counted(len(lost), 'sample')} of {str(run.request.output)!r} in damaged chunks could not be "
            f"computed again; the first is {lost[0]!r}: {state.failed[lost[0]]}. They are listed as "
            "failed, all others are in the store. Fix the source, then run again with "
            "StoreOptions(retry_failed=True) (jaxlrp resume --retry-failed)"
        )


def _summary(run: Run, computing: float, damaged: int, seconds: float) -> Summary:
    opened = open_relevance(run.request.output)
    state = journal.state(run.request.output)
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
        failed=state.without_relevance,
        skipped=_skipped(run.request.source),
        repaired=damaged,
        seconds=seconds,
        compile_seconds=run.compile_seconds + run.program.trial_seconds,
        throughput=new / computing if computing > 0 else 0.0,
        residual=residual,
        error=opened.error,
        batch_size=run.manifest.batch_size,
        devices=run.request.placement.mesh.size,
        traces=run.program.traces,
        compilations=run.program.compilations,
        bytes=tally.bytes,
    )


def _skipped(source: Source) -> dict[str, str]:
    return dict(source.skipped) if isinstance(source, Indexed) else {}
