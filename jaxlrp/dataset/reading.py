"""From samples to batches of one shape: which shape is usual, which samples fit, how they are stacked."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlrp.dataset.checking import checked
from jaxlrp.dataset.fetching import Part, Range, fetch
from jaxlrp.dataset.source import Failure, Id, Sample, Source, Stream

_PEEK = 9  # samples looked at to find the usual shape
_TRIES = 32  # samples tried to find these; of a stream, to find any


class Spec(NamedTuple):
    """Shapes and dtypes of one sample: `input`, `target`, `extra` are trees of ShapeDtypeStruct."""

    input: Any
    target: Any
    extra: Any


class HostBatch(NamedTuple):
    """Samples of one shape; the last one is repeated to fill the batch.

    Attributes:
      ids: ids of the samples, without the padding.
      values: (input, target, extra), each leaf (batch, ...).
    """

    ids: tuple[Id, ...]
    values: tuple[Any, Any, Any]


def usual(
    source: Source, preprocess: Callable[[Any], Any] | None, limit: int | None
) -> tuple[Spec, Source]:
    """The shape that most of the first samples have, and the source, from its start.

    Unreadable samples are skipped until readable ones are found. Of a stream only the first items are
    looked at, since they must be kept in memory for the run.

    Raises:
      ValueError: if no sample can be read, with the reason of the first.
    """
    rewound = source
    if isinstance(source, Stream):
        items = iter(source.items)
        first = list(itertools.islice(items, _TRIES))
        rewound = dataclasses.replace(source, items=itertools.chain(first, items))
        source = dataclasses.replace(source, items=first)
    specs: list[Spec] = []
    reason = ""
    samples = every_sample(source, preprocess, limit, workers=1)
    for tried, found in enumerate(samples, 1):
        if isinstance(found, Failure):
            reason = reason or f"; the first is {found.name}: {found.reason}"
            continue
        try:
            specs.append(spec_of(found))
        except TypeError as error:
            reason = reason or f"; the first is {found.id!r}: {error}"
        if specs and (tried >= _TRIES or len(specs) == _PEEK):
            break
    if not specs:
        among = f" among its first {_TRIES}" if isinstance(rewound, Stream) else ""
        reason = reason or ": it is empty"
        raise ValueError(f"the source {source.text!r} has no readable sample{among}{reason}")
    counted = collections.Counter(map(repr, specs))
    (most, _), *_ = counted.most_common(1)
    return next(spec for spec in specs if repr(spec) == most), rewound


def every_sample(
    source: Source, preprocess: Callable[[Any], Any] | None, limit: int | None, workers: int = 4
) -> Iterator[Sample | Failure]:
    """The samples that one process alone reads, from the first one on; see `fetch`."""
    return fetch(
        source, skip=lambda _: False, part=Part(0, 1, 1), preprocess=preprocess,
        covered=Range(limit), workers=workers,
    )  # fmt: skip


def spec_of(sample: Sample) -> Spec:
    """Shapes and dtypes of a sample, with the dtypes that JAX will use.

    Raises:
      TypeError: if the sample holds something other than numbers.
    """
    return Spec(*jax.tree.map(_struct, (sample.input, sample.target, dict(sample.extra))))


def _struct(leaf: Any) -> jax.ShapeDtypeStruct:
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm" or array.dtype.names is not None:
        raise TypeError(f"it has dtype {array.dtype}, which is not numeric")
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


def batches(
    samples: Iterator[Sample | Failure], spec: Spec, size: int, classes: int | None
) -> Iterator[HostBatch | Failure]:
    """Checks samples against a spec and stacks `size` of them at a time.

    Args:
      samples: samples and failures; failures are passed on.
      spec: shapes and dtypes that every sample must have.
      size: samples per batch.
      classes: number of classes, if targets are class indices; else None.
    """
    held: list[tuple[Id, Any]] = []
    for sample in samples:
        found = checked(sample, spec, classes) if isinstance(sample, Sample) else sample
        if isinstance(found, Failure):
            yield found
            continue
        held.append(found)
        if len(held) == size:
            yield _stack(held, size)
            held = []
    if held:
        yield _stack(held, size)


def _stack(held: list[tuple[Id, Any]], size: int) -> HostBatch:
    rows = [row for _, row in held] + [held[-1][1]] * (size - len(held))
    return HostBatch(tuple(name for name, _ in held), jax.tree.map(lambda *a: np.stack(a), *rows))
