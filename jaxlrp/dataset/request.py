"""What the user requested of a run, checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlrp._checks import as_path, check_count, check_sequence
from jaxlrp.dataset import fingerprint, policy, program
from jaxlrp.dataset.errors import need
from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.placement import Placement, place
from jaxlrp.dataset.resolve import SourceLike, as_source
from jaxlrp.dataset.source import Source

_PROGRESS = ("auto", "bar", "log", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `attribute_dataset`, see there.

    Attributes:
      call: the explainer with its arguments.
      placement: the devices, and the role of this process.
      command: arguments of the command line, None if it was not used.
      arguments: size and hash of the parameters in `call`.
    """

    call: program.Call
    source: Source
    output: Path
    target: Any
    conditions: policy.Conditions | None
    preprocess: Callable[[Any], Any] | None
    batch_size: int | None
    limit: int | None
    progress: str
    read: ReadOptions
    compute: ComputeOptions
    store: StoreOptions
    placement: Placement
    command: Mapping[str, Any] | None
    arguments: fingerprint.Parameters


def make_request(
    explainer: Callable[..., Any],
    source: SourceLike,
    output: str | os.PathLike[str],
    *,
    args: Sequence[Any],
    target: Any,
    conditions: Any,
    preprocess: Callable[[Any], Any] | None,
    batch_size: int | None,
    limit: int | None,
    progress: str,
    read: ReadOptions | None,
    compute: ComputeOptions | None,
    store: StoreOptions | None,
    command: Mapping[str, Any] | None,
) -> Request:
    """Checks what the user passed to `attribute_dataset`; `arguments` is still empty.

    Raises:
      TypeError, ValueError: naming the argument.
      FileNotFoundError: if the source is a path that does not exist.
    """
    read = ReadOptions() if read is None else read
    compute = ComputeOptions() if compute is None else compute
    store = StoreOptions() if store is None else store
    for name, value, kind in (
        ("read", read, ReadOptions),
        ("compute", compute, ComputeOptions),
        ("store", store, StoreOptions),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None:
            check_count(name, value)
    if preprocess is not None and not callable(preprocess):
        raise TypeError(f"preprocess must be a function of one input, got {preprocess!r}")
    check_sequence("args", args, "(variables,)")
    if progress not in _PROGRESS:
        raise ValueError(
            f"progress must be one of {', '.join(map(repr, _PROGRESS))}, got {progress!r}"
        )
    need("tensorstore", "writing a store")
    placement = place(compute.mesh, compute.batch_axes)
    if placement.lockstep and batch_size is None:
        raise ValueError("batch_size is required if the mesh spans several processes")
    return Request(
        call=program.call(explainer, tuple(args)),
        source=as_source(source, read.readers),
        output=as_path("output", output),
        target=target,
        conditions=policy.conditions(conditions),
        preprocess=preprocess,
        batch_size=batch_size,
        limit=limit,
        progress=progress,
        read=read,
        compute=compute,
        store=store,
        placement=placement,
        command=command,
        arguments=fingerprint.Parameters(0, 0, ""),
    )
