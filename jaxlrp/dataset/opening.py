"""Creating a store, or opening an existing one and checking that it belongs to the same run."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.dataset import (
    comparing,
    durable,
    fingerprint,
    journal,
    manifest,
    memory,
    policy,
    reading,
    safe_files,
    store,
    verification,
    zarr_arrays,
)
from jaxlrp.dataset.durable import Lock, full_disk_as_error
from jaxlrp.dataset.errors import DifferentRunError, StoreError
from jaxlrp.dataset.journal import State
from jaxlrp.dataset.manifest import Manifest
from jaxlrp.dataset.program import Program
from jaxlrp.dataset.reading import Spec
from jaxlrp.dataset.request import Request
from jaxlrp.dataset.source import Source, Stream

_LOG = logging.getLogger("jaxlrp.dataset")
_CHUNK_BYTES = 2**24
"""Default limit of the bytes of relevance in a chunk, before compression."""


def lock(output: Path) -> Lock:
    """Creates the folder if necessary, and locks it.

    Raises:
      StoreError: if it cannot be created, is neither a store nor empty, or contains a symbolic link.
      StoreLockedError: if another run is writing to it.
    """
    if output.exists() and not output.is_dir():
        raise StoreError(f"{str(output)!r} is a file, but a store is a folder: choose another path")
    # A kill can leave a store without a manifest, but not without the lock file.
    ours = not output.exists() or (output / durable.LOCK).exists() or not any(output.iterdir())
    if not ours and not (output / manifest.FILE).exists():
        raise StoreError(
            f"the folder {str(output)!r} is not empty and not a store of relevance: choose another folder"
        )
    with full_disk_as_error(output):
        try:
            output.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"the folder {str(output)!r} cannot be created, because {error.filename!r} is not a "
                "folder: choose another path"
            ) from error
        except PermissionError as error:
            raise StoreError(
                f"the folder {str(output)!r} cannot be created: no permission to write to "
                f"{str(output.parent)!r}"
            ) from error
        safe_files.refuse_links(output, verification.TOP)
        return Lock(output)


def open_store(request: Request) -> tuple[Manifest, Program, Source, int]:
    """In the first process: creates the store, or checks that it belongs to this run and repairs it.

    Returns:
      Manifest, program, source (from its start), and the number of damaged chunks.
    """
    state = journal.state(request.output)
    source = request.source
    if (request.output / manifest.FILE).exists():
        held = manifest.read(request.output)
        planned = make_program(request, held.spec)
        now = make_manifest(
            request, planned, request.store.chunk_size or held.chunk_size, held.batch_size
        )
        held.check_same(now, request.output)
    else:
        held, planned, source = _make(request, state)
    safe_files.refuse_links(request.output, held.members)
    marks, source = comparing.marks(source, state)
    comparing.check(marks, state, request.output)
    _note(request, state.run + 1, marks)
    if request.store.verify and state.chunks:
        _LOG.info("comparing %d chunks with their checksums", len(state.chunks))
    found = verification.report(request.output, held, state, full=request.store.verify)
    if found.lost:
        _LOG.warning("%s; their samples are computed again", found.lost)
    verification.discard(request.output, state, found.damaged)
    return held, planned, source, len(found.damaged)


def _make(request: Request, state: State) -> tuple[Manifest, Program, Source]:
    """Creates a store, or only the manifest if it was lost and the journal confirms it."""
    spec, source = reading.usual(request.source, request.preprocess, request.limit)
    planned = make_program(request, spec)
    batch_size = choose_batch_size(request, planned)
    before = next((line["rows"] for line in reversed(state.runs) if "rows" in line), None)
    chunk_size = request.store.chunk_size or before or _chunk_size(planned, batch_size)
    held = make_manifest(request, planned, chunk_size, batch_size)
    if state.computed:
        _check_identity(request.output, held, state)
    length = 0 if isinstance(source, Stream) else len(source)
    rows = max(min(length, request.limit or length), store.length_of(state, chunk_size))
    safe_files.refuse_links(request.output, held.members)
    with full_disk_as_error(request.output):
        zarr_arrays.create(request.output, held.members, held.chunk_size, rows)
        held.write(request.output)
    return held, planned, source


def _check_identity(output: Path, held: Manifest, state: State) -> None:
    """Refuses a store without a manifest, unless its journal confirms the same run.

    Raises:
      DifferentRunError: if the journal belongs to a different run, or does not tell.
    """
    of = {line.get("store") for line in (*state.chunks.values(), *state.runs)}
    if of == {held.identity}:
        _LOG.warning("the manifest of %r is missing and is written again", str(output))
        return
    why = (
        "by a version of jaxlrp that did not record how"
        if None in of or not of
        else "with a different model, composite, target policy, dtype, chunk_size or shape of samples, or "
        "by another version of JAX"
    )
    raise DifferentRunError(
        f"the store {str(output)!r} has no {manifest.FILE}, and according to its journal its "
        f"{len(state.ids)} samples were computed {why}. Restore a copy of the file, start the original run "
        "again, or choose another folder"
    )


def _note(request: Request, run: int, marks: list[comparing.Mark]) -> None:
    """Notes the request before any of it is done, so that a kill does not lose it."""
    command = None if request.command is None else dict(request.command)
    with full_disk_as_error(request.output):
        lines = journal.Journal(request.output, 0, run)
        try:
            lines.append("asked", limit=request.limit, command=command, samples=marks)
        finally:
            lines.close()


def make_program(request: Request, spec: Spec) -> Program:
    """The program for samples of a shape, traced but not yet compiled."""
    call, placement = request.call, request.placement
    given = placement.structs(2, spec)

    def output() -> Any:
        def nothing(z: Any) -> Any:
            return jax.tree.map(jnp.zeros_like, z)

        def only(args: Any, x: Any, extra: Any) -> Any:
            return call(args, x, target=nothing, **extra).output

        return jax.eval_shape(lambda x, extra: only(call.args, x, extra), given.input, given.extra)

    chosen = policy.policy(request.target, given.target, output)
    dims = None if request.store.dims is None else tuple(request.store.dims)
    planned = Program(
        call, chosen, request.conditions, spec, placement, request.store.dtype, dims,
        placement.parameters(call.parameters),
    )  # fmt: skip
    planned.look()
    return planned


def make_manifest(request: Request, planned: Program, chunk_size: int, batch_size: int) -> Manifest:
    """The manifest of a run with so many samples per chunk and per batch."""
    named = request.conditions or {}
    parts = fingerprint.of_call(
        request.call, request.placement.structs(1, planned.spec), request.arguments
    )
    return Manifest(
        composite=parts["composite"],
        plan=parts["plan"],
        model=parts["model"],
        target=fingerprint.described(request.target),
        conditions=fingerprint.described(dict(named), ", ".join(named) or "none"),
        program=fingerprint.of_program(planned),
        spec=planned.spec,
        dtype=request.store.dtype,
        chunk_size=chunk_size,
        batch_size=batch_size,
        members=planned.members,
        condition_names=tuple(named),
        source=request.source.text,
        command=request.command,
    )


def choose_batch_size(request: Request, planned: Program) -> int:
    """Samples per batch: `batch_size` rounded up to a multiple of the devices, else as many as fit."""
    step = request.placement.shards
    if request.batch_size is not None:
        return math.ceil(request.batch_size / step) * step

    def probe(size: int) -> int | None:
        return memory.needed(planned.trial(size))

    device = request.placement.mesh.local_devices[0]
    fixed = sum(leaf.nbytes for leaf in planned.parameters)
    free = memory.available(device)
    return memory.choose(probe, free, fixed, step=step, fraction=request.compute.memory_fraction)


def _chunk_size(planned: Program, batch_size: int) -> int:
    """The default number of samples per chunk."""
    sizes = [
        math.prod(member.shape) * jnp.dtype(member.dtype).itemsize
        for member in planned.members.values()
    ]
    return max(1, min(batch_size, _CHUNK_BYTES // max(*sizes, 1)))
