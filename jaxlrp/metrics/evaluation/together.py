"""Metrics of the whole set in one call, in memory: those that compare samples, and those of the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlrp.dataset import reading
from jaxlrp.dataset.reading import HostBatch, Spec
from jaxlrp.dataset.source import Failure, Id, Source
from jaxlrp.metrics.evaluation.runs import Arrays, Found, Options, Pair
from jaxlrp.metrics.evaluation.scorer import Batch, Scorer
from jaxlrp.metrics.metric import Metric


class _Whole(NamedTuple):
    """All samples of an explainer, on the host: what `Batch` holds."""

    inputs: Any
    targets: Any
    attributions: Any
    extra: Any


def compute(scorer: Scorer, source: Source, spec: Spec, options: Options) -> Found:
    """Scores all samples by metrics that need all at once, nothing of which is kept on disk.

    Args:
      scorer: with pairs of such metrics alone.
      source, spec: the samples, arranged, and their shapes.
      options: how they are read.
    """
    explained = {
        name: jax.jit(lambda args, x, extra, name=name: scorer.batch(name, args, x, extra)[1:4])
        for name in dict(scorer.pairs)
    }
    ids: list[Id] = []
    failed: dict[Id, str] = {}
    parts: dict[str, list[_Whole]] = {name: [] for name in explained}
    for batch in _batches(source, spec, options):
        if isinstance(batch, Failure):
            if batch.id is not None:
                failed[batch.id] = batch.reason
            continue
        x, _, extra = batch.values
        n = len(batch.ids)
        ids += batch.ids
        for name, run in explained.items():
            found = run(options.args, x, extra)
            whole = _Whole(found[0], found[1], found[2], extra)
            parts[name].append(jax.tree.map(lambda a, n=n: np.asarray(a)[:n], whole))
    wholes = {
        name: jax.tree.map(lambda *a: np.concatenate(a), *held) for name, held in parts.items()
    }
    arrays: dict[Pair, Arrays] = {}
    for name, metric in scorer.pairs:
        if ids:
            held = Batch(scorer.subjects[name], *wholes[name])
            result = scorer.one(metric, held, options.args)
            arrays[name, metric] = {k: (ids, np.asarray(a)) for k, a in result.items()}
        else:
            arrays[name, metric] = {"score": ([], np.zeros(0)), "kind": ([], np.zeros(0, np.int8))}
    return Found(arrays, failed)


def _batches(source: Source, spec: Spec, options: Options) -> Iterator[HostBatch | Failure]:
    workers = 4 if options.read is None else options.read.workers
    samples = reading.every_sample(source, options.preprocess, options.limit, workers)
    return reading.batches(samples, spec, options.batch_size or 16, None)


def split(scorer: Scorer) -> tuple[Scorer, Scorer]:
    """The metrics that a program for batches computes, and those that need all samples at once."""

    def of(whole: bool) -> Scorer:
        chosen: Sequence[Pair] = [
            pair for pair in scorer.pairs if needs_whole(scorer.metrics[pair[1]]) == whole
        ]
        return dataclasses.replace(scorer, pairs=tuple(chosen))

    return of(False), of(True)


def needs_whole(metric: Metric) -> bool:
    """Whether a metric is called once with all samples, outside of the run."""
    return metric.compares_samples or metric.on_host
