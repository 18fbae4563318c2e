"""An evaluation that was checked and can be run."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxlrp._checks import check_count
from jaxlrp.dataset import reading
from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.placement import place
from jaxlrp.dataset.resolve import as_source
from jaxlrp.dataset.source import Indexed, Source, Stream
from jaxlrp.metrics.evaluation import checks, runs, together
from jaxlrp.metrics.evaluation.samples import Arranger, arranged
from jaxlrp.metrics.evaluation.scorer import Goal, Result, Scorer
from jaxlrp.metrics.evaluation.subjects import Predict, Subject, subjects
from jaxlrp.metrics.features import Segments
from jaxlrp.metrics.metric import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """An evaluation that was checked.

    Attributes:
      metrics, explainers: from their names to those under which they are stored.
      scorer: what is computed of a batch.
      source: of the samples.
      arrange: adds to a sample what the scorer needs.
      options: how it is run.
    """

    metrics: Mapping[str, str]
    explainers: Mapping[str, str]
    scorer: Scorer
    source: Source
    arrange: Arranger
    options: runs.Options

    def run(self, output: str | os.PathLike[str] | None) -> runs.Found:
        """Computes all scores, in a folder, or a temporary one, and reads them."""
        with _folder(output) as folder:
            source = arranged(self.source, self.arrange)
            alone, compared = together.split(self.scorer)
            found = runs.Found({}, {})
            if alone.pairs:
                found = runs.compute(alone, source, folder, self.options)
            if compared.pairs:
                spec, source = reading.usual(source, self.options.preprocess, self.options.limit)
                more = together.compute(compared, source, spec, self.options)
                found = runs.Found(found.arrays | more.arrays, found.failed | more.failed)
        return found


def prepare(
    explainers: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    data: Any,
    result: Result,
    *,
    args: Sequence[Any],
    target: Any,
    predict: Predict | None,
    key: Array | None,
    preprocess: Callable[[Any], Any] | None,
    batch_size: int | None,
    limit: int | None,
    progress: str,
    read: ReadOptions | None,
    compute: ComputeOptions | None,
    store: StoreOptions,
) -> Prepared:
    """Checks the arguments of `evaluate`, all explainers and all metrics, on shapes alone."""
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None:
            check_count(name, value)
    given = tuple(args)
    found = subjects(explainers, given, predict)
    stored = checks.stored_names("metrics", list(metrics))
    folders = checks.stored_names("explainers", [s.name for s in found])
    checks.check_key(found, metrics, key)
    source = as_source(data, (read or ReadOptions()).readers)
    for subject in found:
        checks.check_count(subject, source)
    compared = [name for name, metric in metrics.items() if together.needs_whole(metric)]
    if compared and isinstance(source, Stream) and iter(source.items) is source.items:
        raise ValueError(
            f"the metric {compared[0]!r} needs all samples at once, but data is an iterator, which can be "
            "read only once: pass arrays or a list"
        )
    spec, source = reading.usual(source, preprocess, limit)
    mesh, axes, compute = _devices(compute)
    goals, classes = {}, set()
    for subject in found:
        checks.check_needs(subject, metrics, spec)
        outputs = checks.outputs_of(subject, spec, given)
        goal = goals[folders[subject.name]] = checks.goal_of(target, spec, outputs, subject)
        classes |= _classes(outputs, goal)
    by_stored = {folders[s.name]: s for s in found}
    scorer = Scorer(
        by_stored, {stored[name]: metric for name, metric in metrics.items()},
        tuple(itertools.product(by_stored, stored.values())), goals, key, result, len(given), mesh, axes,
    )  # fmt: skip
    own = {name: _first(s, source) for name, s in by_stored.items() if s.given is not None}
    checks.check_metrics(scorer, spec, given, own)
    divided = [getattr(metric, "features", None) for metric in metrics.values()]
    arrange = Arranger(
        {name: s.given for name, s in by_stored.items() if s.given is not None},
        min(classes, default=None), any(goal.kind == "given" for goal in goals.values()),
        min((f.number for f in divided if isinstance(f, Segments) and f.number), default=None),
    )  # fmt: skip
    options = runs.Options(given, preprocess, batch_size, limit, progress, read, compute, store)
    return Prepared(stored, folders, scorer, source, arrange, options)


def _classes(outputs: tuple[int, ...] | None, goal: Goal) -> set[int]:
    """How many classes there are, if targets of the data choose one."""
    return (
        {outputs[1]} if goal.kind == "given" and outputs is not None and len(outputs) > 1 else set()
    )


def _first(subject: Subject, source: Source) -> np.ndarray:
    """The attributions of the first sample that has some."""
    assert subject.given is not None
    ids = source.ids if isinstance(source, Indexed) else range(1)
    reason: Exception | None = None
    for position, name in enumerate(ids[:32]):
        try:
            return subject.given(position, name)
        except LookupError as error:
            reason = reason or error
    raise ValueError(
        f"explainers[{subject.name!r}] has no attributions of the first samples of data: {reason}"
    )


def _devices(compute: ComputeOptions | None) -> tuple[Mesh, tuple[str, ...], ComputeOptions]:
    """The mesh of a run, whose axes are automatic, and those along which a batch is divided."""
    chosen = compute or ComputeOptions()
    mesh = chosen.mesh or Mesh(np.array(jax.local_devices()), ("batch",))
    placement = place(mesh, chosen.batch_axes)
    return placement.mesh, placement.axes, dataclasses.replace(chosen, mesh=placement.mesh)


@contextmanager
def _folder(output: str | os.PathLike[str] | None) -> Iterator[Path]:
    if output is not None:
        yield Path(output)
        return
    if jax.process_count() > 1:
        raise ValueError(
            "output is required with several processes: a folder that all can write to"
        )
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
