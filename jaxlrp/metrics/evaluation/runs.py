"""Scores through the runner of data sets: computing and reading them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import manifest
from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.relevance import open_relevance
from jaxlrp.dataset.runner import attribute_dataset
from jaxlrp.dataset.source import Id, Indexed, Source
from jaxlrp.metrics.evaluation.scorer import (
    INFINITE,
    MINUS_INFINITE,
    TARGET,
    UNDEFINED,
    Scorer,
)

_PREFIX = "relevance."


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """How a run reads and computes; as in `attribute_dataset`."""

    args: tuple[Any, ...]
    preprocess: Any
    batch_size: int | None
    limit: int | None
    progress: str
    read: ReadOptions | None
    compute: ComputeOptions
    store: StoreOptions


Arrays = dict[str, tuple[Sequence[Id], np.ndarray]]
"""By name: (ids, array (samples, ...))."""
Pair = tuple[str, str]
"""The names under which an explainer and a metric are stored."""


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What stores hold.

    Attributes:
      arrays: of each explainer and metric.
      failed: the reason for each sample without scores, by id.
    """

    arrays: dict[Pair, Arrays]
    failed: dict[Id, str]


def compute(scorer: Scorer, source: Source, folder: Path, options: Options) -> Found:
    """Scores all samples, in stores inside a folder.

    What is in a store already is continued there, all else gets a store of its own.
    """
    arrays: dict[Pair, Arrays] = {}
    failed: dict[Id, str] = {}
    for path, pairs in _parts(folder, scorer.pairs):
        part = dataclasses.replace(scorer, pairs=pairs)
        attribute_dataset(
            part, source, path, args=options.args, preprocess=options.preprocess,
            batch_size=options.batch_size, limit=options.limit, progress=options.progress,
            read=options.read, compute=options.compute,
            store=options.store,
        )  # fmt: skip
        opened = open_relevance(path)
        failed |= opened.failed
        for member, array in opened.items():
            explainer, metric, what = member.removeprefix(_PREFIX).split(".")
            arrays.setdefault((explainer, metric), {})[what] = (opened.ids, array[:])
    return Found(arrays, failed)


def _parts(folder: Path, pairs: tuple[Pair, ...]) -> list[tuple[Path, tuple[Pair, ...]]]:
    """The stores of a folder, and what is in each: those that are there first.

    A store is continued if all that it holds is wanted, the largest first. One that holds more is left
    alone, since all in a store is computed together.
    """
    found = []
    left = set(pairs)
    there = sorted((p for p in folder.glob("part*") if p.is_dir()), key=lambda p: p.name)
    held = {path: held for path in there if (held := _pairs_in(path)) is not None}
    for path, those in sorted(held.items(), key=lambda item: -len(item[1])):
        if those and those <= left:
            found.append((path, tuple(pair for pair in pairs if pair in those)))
            left -= those
    if left:
        number = next(i for i in range(len(there) + 1) if folder / f"part{i}" not in held)
        found.append((folder / f"part{number}", tuple(pair for pair in pairs if pair in left)))
    return found


def _pairs_in(path: Path) -> set[Pair] | None:
    """What is in a store; None where a kill left it without a manifest."""
    if not (path / manifest.FILE).exists():
        return None
    members = (m.removeprefix(_PREFIX).split(".") for m in manifest.read(path).members)
    return {(m[0], m[1]) for m in members if len(m) == 3 and m[1] != TARGET}


def order_of(source: Source, found: Found) -> list[Id]:
    """The ids of all samples that were looked at, in the order of the source where that is known."""
    held = {id(ids): ids for arrays in found.arrays.values() for ids, _ in arrays.values()}
    known = {*found.failed}.union(*held.values())
    if isinstance(source, Indexed):
        return [i for i in source.ids if i in known]
    return sorted(known, key=lambda i: (isinstance(i, str), i))


def aligned(held: Arrays, ids: Sequence[Id]) -> np.ndarray:
    """The scores of a metric in the order of ids, (n,), `nan` where undefined or without a score."""
    of, score = held["score"]
    kind = held["kind"][1]
    values = score.astype(np.float64)
    values[kind == UNDEFINED] = np.nan
    values[kind == INFINITE] = np.inf
    values[kind == MINUS_INFINITE] = -np.inf
    return placed(of, values, ids, np.nan)


def placed(of: Sequence[Id], values: np.ndarray, ids: Sequence[Id], absent: Any) -> np.ndarray:
    """Rows in the order of ids; `absent` for an id without one."""
    rows = {name: row for row, name in enumerate(of)}
    found = np.full((len(ids), *values.shape[1:]), absent, values.dtype)
    for place, name in enumerate(ids):
        if name in rows:
            found[place] = values[rows[name]]
    return found
