"""Making a store, or opening it again: what is asked, checked against what is there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

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
from jaxlrp.dataset.errors import StoreError
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.placement import Placement
from jaxlrp.dataset.program import Program
from jaxlrp.dataset.reading import Spec
from jaxlrp.dataset.source import Source, Stream

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


def open_store(options: Options) -> tuple[Manifest, Program, Source, int]:
    """In the first process: makes the store, or checks that it is the same run's, and mends it."""
    if not (options.out / manifest.FILE).exists():
        spec, source = reading.usual(options.source, options.prepare, options.limit)
        planned = make_program(options, spec)
        batch = choose_batch(options, planned)
        held = make_manifest(options, planned, options.chunk or _chunk(planned, batch), batch)
        length = 0 if isinstance(source, Stream) else len(source)
        rows = min(length, options.limit or length)
        with full_disk_said(options.out):
            store.create(options.out, held.members, held.chunk, rows)
            held.write(options.out)
        return held, planned, source, 0
    held = manifest.read(options.out)
    planned = make_program(options, held.spec)
    now = make_manifest(options, planned, options.chunk or held.chunk, held.batch)
    held.check_same(now, options.out)
    state = journal.state(options.out)
    found = verification.report(options.out, held, state, full=options.verify)
    verification.void(options.out, state, found.damaged)
    return held, planned, options.source, len(found.damaged)


def make_program(options: Options, spec: Spec) -> Program:
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


def make_manifest(options: Options, planned: Program, chunk: int, batch: int) -> Manifest:
    named = options.conditions or {}
    parts = fingerprint.of_call(options.call, planned.spec, options.arguments)
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
