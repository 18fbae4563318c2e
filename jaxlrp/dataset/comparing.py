"""Checks on a few samples that the source is the one from which the store was computed.

Each run notes marks of some samples: hashes of their data, before `preprocess`. A later run compares those
that are in the store. Samples that failed are not compared, since they may have been fixed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlrp.dataset.errors import DifferentRunError
from jaxlrp.dataset.journal import State
from jaxlrp.dataset.source import Elements, Id, Indexed, Sample, Source, Stream, element

_COUNT = 8  # samples per run
_RUNS = 4  # number of most recent runs to compare with
_WIDENED = 2**16  # arrays of integers up to this size are compared by value, whatever their dtype


class Mark(NamedTuple):
    """Position, id and hash of a sample."""

    position: int
    id: Id
    digest: str


def marks(source: Source, state: State) -> tuple[list[Mark], Source]:
    """Marks of a few samples, including those noted by earlier runs, and the source from its start."""
    noted = _noted(state)
    if isinstance(source, Stream):
        items = iter(source.items)
        first = list(itertools.islice(items, _COUNT))
        rewound = dataclasses.replace(source, items=itertools.chain(first, items))
        found = [_element(item, i) for i, item in enumerate(first)]
        return [m for m in found if m is not None], rewound
    spread = np.linspace(0, max(len(source) - 1, 0), _COUNT).astype(int).tolist()
    if isinstance(source, Elements):
        places = {*spread, *(m.position for m in noted)}
        found = [_item(source, i) for i in sorted(places) if i < len(source)]
    else:
        known = {m.id for m in noted}
        places = [i for i, name in enumerate(source.ids) if name in known] if known else []
        found = [_indexed(source, i) for i in sorted({*spread, *places}) if i < len(source)]
    return [m for m in found if m is not None], source


def check(found: Sequence[Mark], state: State, store: Path) -> None:
    """Refuses a source whose data differ for a sample that is in the store.

    Raises:
      DifferentRunError: naming the sample.
    """
    there = set(state.ids)
    noted: dict[Id, set[str]] = {}
    for line in state.requests[-_RUNS:]:
        noted |= _by_id([Mark(*m) for m in line.get("samples") or ()])  # the latest run counts
    now = _by_id(found)
    common = [name for name in now if name in noted and name in there]
    other = [name for name in common if not now[name] & noted[name]]
    if other:
        raise DifferentRunError(
            f"the store {str(store)!r} was computed from a different source: the data of sample "
            f"{other[0]!r} differ ({len(other)} of {len(common)} compared samples differ). Use the same "
            "source, or choose another folder; new samples need new ids"
        )


def _by_id(found: Sequence[Mark]) -> dict[Id, set[str]]:
    """Hashes by id; several where an id is repeated."""
    by_id: dict[Id, set[str]] = {}
    for m in found:
        by_id.setdefault(m.id, set()).add(m.digest)
    return by_id


def _noted(state: State) -> list[Mark]:
    """The marks of the last runs, latest last."""
    return [Mark(*m) for line in state.requests[-_RUNS:] for m in line.get("samples") or ()]


def _indexed(source: Indexed, position: int) -> Mark | None:
    try:
        (sample,) = source.fetch([position])
        return _mark(sample, position)
    except Exception:  # it fails during the run, with a reason
        return None


def _item(source: Elements, position: int) -> Mark | None:
    try:
        item = source.items[position]
    except Exception:
        return None
    return _element(item, position)


def _element(item: Any, position: int) -> Mark | None:
    if item is None:
        return None
    try:
        return _mark(element(item, position), position)
    except (TypeError, ValueError):
        return None


def _mark(sample: Sample, position: int) -> Mark | None:
    found = hashlib.blake2b(digest_size=8)
    parts = (sample.input, sample.target, dict(sample.extra))
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        value = np.asarray(leaf)
        if value.dtype.kind == "O":
            return None
        if value.dtype.kind in "iub" and value.size <= _WIDENED:
            value = value.astype(np.int64 if value.dtype != np.uint64 else np.uint64)
        elif value.dtype.kind in "iubfc":
            value = _narrow(value)
        found.update(f"{jax.tree_util.keystr(path)} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return Mark(position, sample.id, found.hexdigest())


def _narrow(value: np.ndarray) -> np.ndarray:
    """In the dtype that JAX will use, so that float64 and float32 are the same without x64."""
    with np.errstate(over="ignore"):
        return value.astype(jax.dtypes.canonicalize_dtype(value.dtype), copy=False)
