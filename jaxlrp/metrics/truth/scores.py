"""Explanations of a benchmark, and their scores against its masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp._checks import check_count, check_mapping
from jaxlrp.explanation.base import find_explainer
from jaxlrp.metrics.evaluation import Evaluation, evaluate
from jaxlrp.metrics.localization import RelevanceMass, RelevanceRank
from jaxlrp.metrics.metric import Metric
from jaxlrp.metrics.pooling import POOLS
from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.training import Trained, in_batches

SIX_POOLS: tuple[str, ...] = tuple(pool for pool in POOLS if pool != "sum")
"""The poolings of Arras et al. (2022)."""


def attribute(
    explainers: Mapping[str, Any],
    samples: Benchmark | Change,
    net: Trained,
    *,
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """Explains all samples by all explainers, for scores against several masks.

    Args:
      explainers: by name. Explainers of the network and its variables, such as `lrp.explain(net.model)` or
        a baseline; or functions of (inputs, targets), and of the context by name, as `metrics.controls`.
      samples: a benchmark, or a change of it such as `benchmark.wrong`.
      net: the network.
      batch_size: samples explained together, >= 1.

    Returns:
      Attributions by name, each (n, ...).

    Raises:
      TypeError, ValueError: if an argument is invalid; and the errors of the explainers.
    """
    check_mapping("explainers", explainers, '{"LRP": lrp.explain(net.model)}')
    check_count("batch_size", batch_size)
    found = {}
    for name, explain in explainers.items():
        uses_net = find_explainer(explain) is not None

        def one(x: Any, y: Any, context: Any, explain: Any = explain, own: bool = uses_net) -> Any:
            if own:
                return explain(net.variables, x, target=y, **context).relevance
            got = explain(x, y, **context)
            return getattr(got, "relevance", got)

        arrays = (samples.inputs, samples.targets, dict(samples.context))
        found[name] = in_batches(one, arrays, batch_size)
    return found


def score(
    attributions: Mapping[str, Any],
    benchmark: Benchmark,
    *,
    masks: Sequence[str] | None = None,
    pools: Sequence[str] = SIX_POOLS,
) -> dict[str, Evaluation]:
    """Relevance mass and rank accuracy, with every pooling, by `metrics.evaluate`.

    The score of chance is that of the mask `benchmark.other`. Scores against `benchmark.truth` mean nothing
    without it.

    Args:
      attributions: by name, from `attribute`; (n, ...) of the shape of the masks, where axes may have
        length 1.
      benchmark: what they explain.
      masks: names of masks; None for all.
      pools: how channels are pooled. Report all: the choice can change the order of methods. Without
        channels, they are functions of single values.

    Returns:
      For each mask, an `Evaluation` with the metrics "mass, <pool>" and "rank, <pool>".

    Raises:
      TypeError, ValueError, KeyError: if an argument is invalid.
    """
    check_mapping("attributions", attributions, "truth.attribute(...)")
    channels = benchmark.channels
    metrics: dict[str, Metric] = {}
    for kind, make in (("mass", RelevanceMass), ("rank", RelevanceRank)):
        metrics |= {f"{kind}, {pool}": make(pool=pool, channels=channels) for pool in pools}  # type: ignore[arg-type]
    if not attributions:
        raise ValueError("attributions is empty: pass those of at least one explainer")
    held = {name: np.asarray(a) for name, a in attributions.items()}
    for name, a in held.items():
        if len(a) != len(benchmark):
            raise ValueError(
                f"attributions[{name!r}] must have the {len(benchmark)} samples of the benchmark, got "
                f"shape {a.shape}"
            )
    chosen = {name: benchmark.mask(name) for name in (benchmark.masks if masks is None else masks)}
    # All explainers and masks one after another, as samples of one explainer: one compiled program.
    shape = np.broadcast_shapes(
        *(a.shape for a in held.values()), *(m.shape for m in chosen.values())
    )
    values = [np.broadcast_to(a, shape) for _ in chosen for a in held.values()]
    inside = [np.broadcast_to(mask, shape) for mask in chosen.values() for _ in held]
    joined = np.concatenate(values)
    data = {"input": joined, "mask": np.concatenate(inside)}
    scores = evaluate({"all": joined}, metrics, data, progress="none", batch_size=256).scores[0]
    scores = scores.reshape(len(metrics), len(chosen), len(held), len(benchmark))
    ids = tuple(range(len(benchmark)))
    return {
        name: Evaluation(tuple(held), metrics, scores[:, i].swapaxes(0, 1), ids)
        for i, name in enumerate(chosen)
    }


def lift(found: Mapping[str, Evaluation], benchmark: Benchmark) -> Evaluation:
    """How much better the truth is found than chance: scores of the truth less those of `benchmark.other`.

    A planted failure has a mean of 0: random weights, the wrong question, masks of other samples.

    Args:
      found: from `score`, with both masks.
      benchmark: what it was called with.

    Returns:
      An `Evaluation`, whose scores are differences, from -1 to 1.

    Raises:
      ValueError: if the benchmark has no such mask, or it was not scored.
    """
    if benchmark.other is None or not {benchmark.truth, benchmark.other} <= set(found):
        raise ValueError(
            f"found must have the scores of {benchmark.truth!r} and {benchmark.other!r}, got those of "
            f"{', '.join(map(repr, found)) or 'no mask'}"
        )
    true, other = found[benchmark.truth], found[benchmark.other]
    return Evaluation(true.explainers, true.metrics, true.scores - other.scores, true.ids)


def shuffled(benchmark: Benchmark, seed: int = 0) -> Benchmark:
    """The benchmark with the masks of other samples: a planted failure, which must score at chance.

    Args:
      benchmark: with at least two samples.
      seed: of the order, an integer >= 0.

    Raises:
      ValueError: if there is one sample only.
    """
    if len(benchmark) < 2:
        raise ValueError("benchmark has one sample only: there is no other one to take masks from")
    shift = 1 + int(np.random.PCG64(seed).random_raw() % np.uint64(len(benchmark) - 1))
    masks = {name: np.roll(mask, shift, axis=0) for name, mask in benchmark.masks.items()}
    return dataclasses.replace(benchmark, masks=masks)
