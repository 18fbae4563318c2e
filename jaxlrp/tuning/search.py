"""`search`: which composite, with which hyperparameters, scores best on a user's model and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from jaxlrp._checks import as_path, check_count, is_number
from jaxlrp.metrics import Metric
from jaxlrp.metrics.evaluation import checks
from jaxlrp.tuning import journal
from jaxlrp.tuning.data import Data, as_data, check_metrics
from jaxlrp.tuning.families import as_families
from jaxlrp.tuning.journal import Journal
from jaxlrp.tuning.methods import Grid, Method, Random
from jaxlrp.tuning.objective import Objective, Preparation, Programs
from jaxlrp.tuning.result import Search
from jaxlrp.tuning.running import Run


def search(
    fun: Callable[..., Any],
    candidates: Mapping[str, Any],
    metrics: Mapping[str, Metric] | Sequence[Metric] | Metric,
    data: Any,
    *,
    args: Sequence[Any] = (),
    method: Method | None = None,
    objective: str | None = None,
    held_out: float = 0.5,
    key: Array | None = None,
    output: Any = None,
    batch_size: int = 16,
    at_once: int = 4,
) -> Search:
    """Tries composites on some samples, and reports the best ones on others.

    The samples are divided in two. Candidates are compared on the first part alone. On the second part,
    only the best member of each family is scored, so that its score is not too good for having been
    chosen. All members of a family share one compiled program.

    Args:
      fun: the model: from `args` and the inputs to outputs (n, classes) or (n,).
      candidates: by name: a family (`tuning.family`, or one of `tuning.convolutional` and the like), or a
        single composite in any form that `jaxlrp.explain` takes.
      metrics: by name, or a list; none that changes the model's parameters or compares samples.
      data: `(inputs, targets)`, or a dictionary of arrays with the keys "input", "target", "mask",
        "segments" and the context, as in `metrics.evaluate`; in random order.
      args: the positional arguments of `fun` before the explained one, such as `(variables,)`.
      method: `Grid`, `Random` or `Gradient`; None for `Grid()`.
      objective: the name of the metric that decides; None for the first one.
      held_out: the share of samples, the last ones, that reports and does not choose, >= 0 and < 1. With
        0 nothing is reported.
      key: a random key, for metrics and methods that draw.
      output: a folder. Call again with the same arguments to continue, or with more families or metrics.
        None keeps nothing.
      batch_size: samples at once, >= 1.
      at_once: candidates at once, >= 1; memory grows with it.

    Returns:
      A `Search`.

    Raises:
      TypeError, ValueError: naming the argument that is wrong.
      jaxlrp.dataset.DifferentRunError, StoreError: if `output` cannot be continued. What was evaluated
        before an error or an interruption is in the folder.

    References:
      Pahde et al. (2023), https://doi.org/10.48550/arXiv.2211.17174

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import composites, metrics, tuning
      >>> w, v = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(6, 8), (8, 3)]))
      >>> x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.zeros(8, int)
      >>> found = tuning.search(
      ...     lambda x: jax.nn.relu(x @ w) @ v,
      ...     {"gamma": tuning.family(
      ...         lambda gamma: composites.by_kind("dense", lrp.Gamma(gamma)), gamma=tuning.Range(0.01, 1.0)
      ...     ), "epsilon": "all_epsilon"},
      ...     metrics.PixelFlipping(), (x, y),
      ... )
      >>> found.best.family, len(found.candidates)
      ('epsilon', 6)
    """
    families, chosen = as_families(candidates), checks.by_name(metrics)
    method = Grid() if method is None else method
    if not isinstance(method, Method):
        raise TypeError(f"method must be a tuning.Grid, Random or Gradient, got {method!r}")
    objective = next(iter(chosen)) if objective is None else objective
    if objective not in chosen:
        raise ValueError(f"objective must be one of {', '.join(chosen)}, got {objective!r}")
    if key is None and isinstance(method, Random):
        raise TypeError("method Random draws values: pass key=jax.random.key(0)")
    checks.check_key((), chosen, key)
    samples = as_data(data)
    check_metrics(chosen, samples)
    first, second = _split(samples, held_out)
    scored = Objective(
        fun, tuple(args), chosen, objective, key, check_count("batch_size", batch_size),
        check_count("at_once", at_once),
    )  # fmt: skip
    shared = Preparation(scored)
    programs = {name: Programs(scored, family, shared) for name, family in families.items()}
    run = Run(scored, families, _opened(output, scored, samples, held_out), programs)
    try:
        run.check(first)
        found = [c for name in families for c in run.family(name, method, first)]
        if second is not None:
            found = run.report(found, second)
    finally:
        run.kept.close()
    return Search(tuple(found), chosen, objective, first.size, 0 if second is None else second.size)


def _split(data: Data, held_out: float) -> tuple[Data, Data | None]:
    """The samples that choose, and those that report."""
    if not is_number(held_out) or not 0 <= held_out < 1:
        raise ValueError(f"held_out must be a share >= 0 and < 1, got {held_out!r}")
    reporting = round(held_out * data.size)
    if reporting == data.size or (held_out and not reporting):
        raise ValueError(
            f"data has {data.size} samples, which held_out={held_out} does not divide into two parts: pass "
            "more samples"
        )
    places = np.arange(data.size)
    if not reporting:
        return data, None
    return data.take(places[:-reporting]), data.take(places[-reporting:])


def _opened(output: Any, objective: Objective, data: Data, held_out: float) -> Journal:
    if output is None:
        return Journal(None, {})
    folder: Path = as_path("output", output)
    return Journal(
        folder,
        journal.of_search(objective.fun, objective.args, data, objective.key, held_out),
    )
