"""Making a store, or opening it again: what is asked, checked against what is there."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.dataset import (
    comparing,
    durable,
    fingerprint,
    foreign,
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
from jaxlrp.dataset.errors import DifferentRunError, StoreError
from jaxlrp.dataset.journal import State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.placement import Placement
from jaxlrp.dataset.program import Program
from jaxlrp.dataset.reading import Spec
from jaxlrp.dataset.source import Source, Stream

_LOG = logging.getLogger("jaxlrp.dataset")
_CHUNK_BYTES = 2**24
"""Chunks hold at most so many bytes of relevance before compression, unless the user says."""


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


def lock(out: Path) -> Lock:
    """Makes the folder, if it is not there, and locks it.

    Raises:
      StoreError: if it cannot be made, is no store and not empty, or holds a symbolic link.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{str(out)!r} is a file, a store is a folder: give another name")
    # A kill may leave a store without its manifest, but not without the file of the lock.
    ours = not out.exists() or (out / durable.LOCK).exists() or not any(out.iterdir())
    if not ours and not (out / manifest.FILE).exists():
        raise StoreError(
            f"{str(out)!r} is no store of relevances and not empty: give another folder"
        )
    with full_disk_said(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"the folder {str(out)!r} cannot be made, for {error.filename!r} is no folder: give "
                "another place"
            ) from error
        except PermissionError as error:
            raise StoreError(
                f"the folder {str(out)!r} cannot be made: you may not write to {str(out.parent)!r}"
            ) from error
        foreign.refuse_links(out, verification.TOP)
        return Lock(out)


def open_store(options: Options) -> tuple[Manifest, Program, Source, int]:
    """In the first process: makes the store, or checks that it is the same run's, and mends it."""
    state = journal.state(options.out)
    source = options.source
    if (options.out / manifest.FILE).exists():
        held = manifest.read(options.out)
        planned = make_program(options, held.spec)
        now = make_manifest(options, planned, options.chunk or held.chunk, held.batch)
        held.check_same(now, options.out)
    else:
        held, planned, source = _make(options, state)
    foreign.refuse_links(options.out, held.members)
    marks, source = comparing.marks(source, state)
    comparing.check(marks, state, options.out)
    _note(options, state.run + 1, marks)
    if options.verify and state.chunks:
        _LOG.info("comparing %d chunks with their checksums", len(state.chunks))
    found = verification.report(options.out, held, state, full=options.verify)
    if found.lost:
        _LOG.warning("%s; they are computed again", found.lost)
    verification.void(options.out, state, found.damaged)
    return held, planned, source, len(found.damaged)


def _make(options: Options, state: State) -> tuple[Manifest, Program, Source]:
    """Makes a store; of one whose manifest was lost, the manifest that its journal speaks of."""
    spec, source = reading.usual(options.source, options.prepare, options.limit)
    planned = make_program(options, spec)
    batch = choose_batch(options, planned)
    before = next((line["rows"] for line in reversed(state.runs) if "rows" in line), None)
    chunk = options.chunk or before or _chunk(planned, batch)
    held = make_manifest(options, planned, chunk, batch)
    if state.computed:
        _check_identity(options.out, held, state)
    length = 0 if isinstance(source, Stream) else len(source)
    rows = max(min(length, options.limit or length), store.length_of(state, chunk))
    foreign.refuse_links(options.out, held.members)
    with full_disk_said(options.out):
        store.create(options.out, held.members, held.chunk, rows)
        held.write(options.out)
    return held, planned, source


def _check_identity(out: Path, held: Manifest, state: State) -> None:
    """Refuses a store without its manifest, unless its journal says that all was the same.

    Raises:
      DifferentRunError: if it says something else, or nothing.
    """
    of = {line.get("store") for line in (*state.chunks.values(), *state.runs)}
    if of == {held.identity}:
        _LOG.warning("the manifest of %r was lost, and is written anew", str(out))
        return
    why = (
        "by a version that did not note with what"
        if None in of or not of
        else "with another model, composite, policy, dtype, chunk or shape of samples, or by another "
        "version of JAX"
    )
    raise DifferentRunError(
        f"the store {str(out)!r} has lost its {manifest.FILE}, and its journal says that the "
        f"{len(state.ids)} samples in it were computed {why}. Put back a copy of the file, start the run "
        "that the store was begun with, or give another folder"
    )


def _note(options: Options, run: int, marks: list[comparing.Mark]) -> None:
    """Writes down what is asked for before any of it is done, so that a kill does not lose it."""
    command = None if options.command is None else dict(options.command)
    with full_disk_said(options.out):
        lines = journal.Journal(options.out, 0, run)
        try:
            lines.append("asked", limit=options.limit, command=command, samples=marks)
        finally:
            lines.close()


def make_program(options: Options, spec: Spec) -> Program:
    """The program for samples of a shape, looked at but not yet compiled."""
    call, placement = options.call, options.placement
    given = placement.structs(2, spec)

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


def make_manifest(options: Options, planned: Program, chunk: int, batch: int) -> Manifest:
    named = options.conditions or {}
    parts = fingerprint.of_call(
        options.call, options.placement.structs(1, planned.spec), options.arguments
    )
    return Manifest(
        composite=parts["composite"],
        plan=parts["plan"],
        model=parts["model"],
        target=fingerprint.described(options.target),
        conditions=fingerprint.described(dict(named), ", ".join(named) or "none"),
        program=fingerprint.of_program(planned),
        spec=planned.spec,
        dtype=options.dtype,
        chunk=chunk,
        batch=batch,
        members=planned.members,
        condition_names=tuple(named),
        source=options.source.text,
        command=options.command,
    )


def choose_batch(options: Options, planned: Program) -> int:
    """Samples of a batch: as many as were asked for, up to a multiple of the devices, or as fit."""
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
