"""Scores through the runner of data sets: one store for each explainer, and reading them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
    UNDEFINED,
    Scorer,
)

_PREFIX = "relevance."
TARGET = "_target"


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
    retry_failed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What one explainer's stores hold.

    Attributes:
      values: by name of the metric and of the array: (ids, array (samples, ...)).
      failed: the reason for each sample without scores, by id.
    """

    values: dict[str, dict[str, tuple[Sequence[Id], np.ndarray]]]
    failed: dict[Id, str]


def compute(scorer: Scorer, source: Source, folder: Path, options: Options) -> Found:
    """Scores all samples, in stores inside a folder.

    Metrics that are in a store already are continued there, all others get a store of their own.
    """
    values: dict[str, dict[str, tuple[Sequence[Id], np.ndarray]]] = {}
    failed: dict[Id, str] = {}
    for path, names in _parts(folder, tuple(scorer.metrics)):
        part = dataclasses.replace(scorer, metrics={k: scorer.metrics[k] for k in names})
        attribute_dataset(
            part, source, path, args=options.args, preprocess=options.preprocess,
            batch_size=options.batch_size, limit=options.limit, progress=options.progress,
            read=options.read, compute=options.compute,
            store=StoreOptions(retry_failed=options.retry_failed),
        )  # fmt: skip
        opened = open_relevance(path)
        failed |= opened.failed
        for member, array in opened.items():
            name, _, what = member.removeprefix(_PREFIX).partition(".")
            values.setdefault(name, {})[what] = (opened.ids, array[:])
    return Found(values, failed)


def _parts(folder: Path, names: tuple[str, ...]) -> list[tuple[Path, tuple[str, ...]]]:
    """The stores of an explainer, and the metrics in each: those that are there first.

    A store all of whose metrics are wanted is continued, the largest first. One with other metrics is left
    alone, since all metrics of a store are computed together.
    """
    found = []
    left = set(names)
    there = sorted((p for p in folder.glob("part*") if p.is_dir()), key=lambda p: p.name)
    held = {path: held for path in there if (held := _metrics_in(path)) is not None}
    for path in sorted(held, key=lambda p: -len(held[p])):
        if held[path] and held[path] <= left:
            found.append((path, tuple(n for n in names if n in held[path])))
            left -= held[path]
    if left:
        number = next(i for i in range(len(there) + 1) if folder / f"part{i}" not in held)
        found.append((folder / f"part{number}", tuple(n for n in names if n in left)))
    return found


def _metrics_in(path: Path) -> set[str] | None:
    """The metrics in a store; None where a kill left it without a manifest."""
    if not (path / manifest.FILE).exists():
        return None
    members = manifest.read(path).members
    return {m.removeprefix(_PREFIX).partition(".")[0] for m in members} - {TARGET}


def order_of(source: Source, found: Sequence[Found]) -> list[Id]:
    """The ids of all samples that were looked at, in the order of the source where that is known."""
    ids = {
        i
        for one in found
        for arrays in one.values.values()
        for held, _ in arrays.values()
        for i in held
    }
    ids |= {i for one in found for i in one.failed}
    if isinstance(source, Indexed):
        return [i for i in source.ids if i in ids]
    return sorted(ids, key=lambda i: (isinstance(i, str), i))


def aligned(held: Mapping[str, tuple[Sequence[Id], np.ndarray]], ids: Sequence[Id]) -> np.ndarray:
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
