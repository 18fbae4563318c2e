"""`evaluate`: every metric of every explainer for every sample of a data set, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.policy import Given
from jaxlrp.dataset.resolve import SourceLike
from jaxlrp.metrics.evaluation import checks, runs
from jaxlrp.metrics.evaluation.curves import CurveReader
from jaxlrp.metrics.evaluation.prepared import prepare
from jaxlrp.metrics.evaluation.result import Evaluation
from jaxlrp.metrics.evaluation.scorer import TARGET, as_scores
from jaxlrp.metrics.evaluation.subjects import Predict
from jaxlrp.metrics.metric import Metric
from jaxlrp.targets import Predicted


def evaluate(
    explainers: Mapping[str, Any],
    metrics: Mapping[str, Metric] | Sequence[Metric] | Metric,
    data: SourceLike,
    *,
    args: Sequence[Any] = (),
    target: Given | Predicted | int | None = None,
    predict: Predict | None = None,
    key: Array | None = None,
    output: str | os.PathLike[str] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    batch_size: int | None = 16,
    limit: int | None = None,
    progress: str = "auto",
    read: ReadOptions | None = None,
    compute: ComputeOptions | None = None,
    verify: bool = True,
    retry_failed: bool = False,
) -> Evaluation:
    """Scores explainers by metrics on a data set.

    It runs like `jaxlrp.dataset.attribute_dataset`: in batches, on all devices, and, with `output`,
    resumable after any interruption. Explanations are computed once for all metrics of an explainer. Scores
    do not depend on how samples are divided into batches: the random numbers of a sample depend only on
    `key` and its id.

    Args:
      explainers: by name. The result of `jaxlrp.explain`; a baseline; a function of (inputs, targets), and
        of the context by name, that returns attributions (n, ...); attributions themselves, (n, ...) in the
        order of the data; or a store of `attribute_dataset`, opened or as a path. See also
        `metrics.controls`.
      metrics: by name, or a list.
      data: `(inputs, targets)`; a dictionary of arrays (n, ...) with the keys "input", "target", "mask"
        (booleans of the shape of the attributions, for localization), "segments" (integers, instead of
        those of metrics whose features are `Segments`), "id", and the context: further keyword arguments
        of the model, such as an attention mask. Or anything else that `attribute_dataset` takes as a
        source.
      args: the positional arguments of the explainers without the explained one, such as `(variables,)`.
      target: the class that is explained. None: the target from the data, or the output itself if it is
        one number; a class index; or `jaxlrp.targets.predicted`.
      predict: from inputs, and the context by name, to outputs (n, classes) or (n,). None: the model of
        each explainer; an explainer without one takes that of the others, if they share one.
      key: a random key, for metrics and baselines that draw random numbers.
      output: a folder for the scores. Call again with the same arguments to continue; new metrics, new
        explainers and new samples are added. None stores nothing.
      preprocess: from an input of the data to an input of the model, both without the batch axis.
      batch_size: samples explained together, >= 1; None for as many as memory allows. The batch of a
        metric's changed inputs is an option of the metric.
      limit: only the first samples of the data, >= 1.
      progress: "bar", "log", "none", or "auto".
      read, compute: as in `attribute_dataset`.
      verify: whether all checksums of an existing folder are compared first, rather than file sizes only.
      retry_failed: whether to try samples again that failed in an earlier run.

    Returns:
      An `Evaluation`: scores (explainers, metrics, samples), tables, tests and figures.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, or the metric that does not
        suit an explainer or the data, before anything is computed.
      StoreError: if `output` has other contents, is locked or full; see `attribute_dataset`.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import metrics
      >>> w = jax.random.normal(jax.random.key(0), (6, 3))
      >>> x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.zeros(8, int)
      >>> found = metrics.evaluate(
      ...     {"LRP": lrp.explain(lambda x: x @ w), "random": metrics.controls.Random()},
      ...     [metrics.PixelFlipping()], (x, y), progress="none",
      ... )
      >>> found.scores.shape, found.table().rank[:, 0].tolist()
      ((2, 1, 8), [1.0, 2.0])
    """
    chosen = checks.by_name(metrics)
    prepared = prepare(
        explainers, chosen, data, as_scores, args=args, target=target, predict=predict, key=key,
        preprocess=preprocess, batch_size=batch_size, limit=limit, progress=progress, read=read,
        compute=compute, store=StoreOptions(verify=verify, retry_failed=retry_failed),
    )  # fmt: skip
    found = prepared.run(output)
    ids = runs.order_of(prepared.source, found)
    names = prepared.explainers.values()
    scores = [
        [runs.aligned(found.arrays[name, metric], ids) for metric in prepared.metrics.values()]
        for name in names
    ]
    held = [found.arrays.get((name, TARGET)) for name in names]
    classes = [runs.placed(*one["class"], ids, -1) for one in held if one is not None]
    return Evaluation(
        explainers=tuple(prepared.explainers),
        metrics=chosen,
        scores=np.array(scores).reshape(len(names), len(chosen), len(ids)),
        ids=tuple(ids),
        targets=np.stack(classes) if len(classes) == len(names) else None,
        failed=found.failed,
    )


def curves(
    explainers: Mapping[str, Any],
    metric: Any,
    data: SourceLike,
    *,
    args: Sequence[Any] = (),
    target: Given | Predicted | int | None = None,
    predict: Predict | None = None,
    key: Array | None = None,
    output: str | os.PathLike[str] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    batch_size: int | None = 16,
    limit: int | None = None,
    progress: str = "auto",
    read: ReadOptions | None = None,
    compute: ComputeOptions | None = None,
) -> dict[str, Any]:
    """The curves of a metric that computes curves, for `figures.curves`.

    Args:
      explainers: as in `evaluate`.
      metric: one with a method `curves`, such as `PixelFlipping`.
      data, args, target, predict, key, output, preprocess, batch_size, limit, progress, read, compute: as
        in `evaluate`. The folder must not be the one used for `evaluate`.

    Returns:
      What `metric.curves` returns, for each explainer by name: NumPy arrays, with samples in the order of
      the data, `nan` for those that are undefined or failed.

    Raises:
      As `evaluate`.

    Example:
      >>> import jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import metrics
      >>> explain = lrp.explain(lambda x: x @ jnp.eye(3))
      >>> x, y = np.ones((4, 3), "float32"), np.zeros(4, int)
      >>> found = metrics.curves({"LRP": explain}, metrics.PixelFlipping(), (x, y), progress="none")
      >>> found["LRP"].morf.shape, found["LRP"].removed.tolist()
      ((4, 4), [0, 1, 2, 3])
    """
    if not isinstance(metric, Metric) or not callable(getattr(metric, "curves", None)):
        raise TypeError(f"metric must have curves, such as metrics.PixelFlipping(), got {metric!r}")
    reader = CurveReader()
    prepared = prepare(
        explainers, {metric.name: metric}, data, reader, args=args, target=target, predict=predict, key=key,
        preprocess=preprocess, batch_size=batch_size, limit=limit, progress=progress, read=read,
        compute=compute, store=StoreOptions(),
    )  # fmt: skip
    found = prepared.run(output)
    ids = runs.order_of(prepared.source, found)
    (metric_name,) = prepared.metrics.values()
    return {
        name: reader.read(found.arrays[stored, metric_name], lambda held: runs.aligned(held, ids))
        for name, stored in prepared.explainers.items()
    }
