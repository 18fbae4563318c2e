"""What is checked before anything is computed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import targets
from jaxlrp.dataset.policy import Given
from jaxlrp.dataset.reading import Spec
from jaxlrp.dataset.source import Source, Stream
from jaxlrp.metrics.evaluation.samples import MASK, SEGMENTS
from jaxlrp.metrics.evaluation.scorer import Batch, Goal, Scorer
from jaxlrp.metrics.evaluation.subjects import Subject
from jaxlrp.metrics.metric import Metric


def by_name(metrics: Any) -> dict[str, Metric]:
    """Metrics by name; a list of them by their own names.

    Raises:
      TypeError: if one is no metric.
      ValueError: if there is none, or two have the same name.
    """
    if isinstance(metrics, Metric):
        metrics = [metrics]
    if isinstance(metrics, Mapping):
        found = dict(metrics)
    elif isinstance(metrics, Sequence) and not isinstance(metrics, str):
        named = [
            m.name if isinstance(m, Metric) else getattr(m, "__name__", str(m)) for m in metrics
        ]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(
                f"metrics has several {twice[0]}: pass a dictionary, from names to metrics"
            )
        found = dict(zip(named, metrics, strict=True))
    else:
        raise TypeError(f"metrics must be a dictionary or a list of metrics, got {metrics!r}")
    if not found:
        raise ValueError("metrics is empty: pass at least one, such as [metrics.PixelFlipping()]")
    for name, metric in found.items():
        if not isinstance(metric, Metric):
            hint = "()" if isinstance(metric, type) and issubclass(metric, Metric) else ""
            raise TypeError(
                f"metrics[{name!r}] must be a metric such as metrics.PixelFlipping(), got {metric!r}"
                + (f": write {metric.__name__}{hint}" if hint else "")
            )
    return found


def stored_names(what: str, names: Sequence[str]) -> dict[str, str]:
    """Names of files from names.

    Raises:
      TypeError, ValueError: if one is no string, or two differ in punctuation only.
    """
    found: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"names of {what} must be nonempty strings, got {name!r}")
        short = re.sub(r"[^\w+-]+", "-", name).strip("-_") or "-"
        if short.lower() in {s.lower() for s in found.values()}:
            other = next(n for n, s in found.items() if s.lower() == short.lower())
            raise ValueError(
                f"{what} has {other!r} and {name!r}, which would be stored under the same name: rename one"
            )
        found[name] = short
    return found


def check_count(subject: Subject, source: Source) -> None:
    """Refuses attributions of more or fewer samples than there are.

    Raises:
      ValueError: naming the explainer.
    """
    if (
        subject.count is not None
        and not isinstance(source, Stream)
        and subject.count != len(source)
    ):
        raise ValueError(
            f"explainers[{subject.name!r}] has attributions of {subject.count} samples, but data has "
            f"{len(source)}"
        )


def check_needs(subject: Subject, metrics: Mapping[str, Metric], spec: Spec) -> None:
    """Refuses a metric that needs what there is not.

    Raises:
      ValueError: naming the metric, the explainer, and what is missing.
    """
    for name, metric in metrics.items():
        needs = {*metric.needs, *(("predict",) if getattr(metric, "uses_outputs", False) else ())}
        if "masks" in needs and MASK not in spec.extra:
            raise ValueError(
                f"the metric {name!r} needs masks, but data has none: pass a dictionary with "
                '"mask": booleans (n, ...), True inside the object, or leave out the metric'
            )
        if "explain" in needs and subject.run is None:
            raise ValueError(
                f"the metric {name!r} explains changed inputs, but {subject.name!r} is given as "
                "attributions: pass the explainer itself, or leave out the metric"
            )
        if "predict" in needs and subject.predict is None:
            raise ValueError(
                f"the metric {name!r} needs the model, which {subject.name!r} does not have: pass "
                "predict, a function of the inputs"
            )
        if "variables" in needs and "predict" in needs and not subject.own:
            raise ValueError(
                f"the metric {name!r} changes the model's parameters, which predict does not take: "
                "leave out predict"
            )
        segments = getattr(getattr(metric, "features", None), "segmentation", None)
        if segments is not None and SEGMENTS not in spec.extra and len(segments) > 1:
            raise ValueError(
                f"the metric {name!r} has a segmentation for each of {len(segments)} samples, but samples "
                f'are scored in batches: pass data as a dictionary with "{SEGMENTS}": its segmentation'
            )
        if "variables" in needs and not subject.varies:
            raise ValueError(
                f"the metric {name!r} changes the model's parameters: pass an explainer of (variables, "
                "inputs) with argnums=1, and args=(variables,)"
            )


def check_key(subjects: Sequence[Subject], metrics: Mapping[str, Metric], key: Any) -> None:
    """Refuses to draw random numbers without a key.

    Raises:
      TypeError: naming what draws.
    """
    drawing = [f"the metric {name!r}" for name, metric in metrics.items() if metric.random]
    drawing += [f"the explainer {s.name!r}" for s in subjects if s.draws]
    if key is None:
        if drawing:
            raise TypeError(f"{drawing[0]} draws random numbers: pass key=jax.random.key(0)")
        return
    dtype = getattr(key, "dtype", np.dtype(object))
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.ndim:
        raise TypeError(f"key must be one random key such as jax.random.key(0), got {key!r}")


def goal_of(target: Any, spec: Spec, outputs: Any, subject: Subject) -> Goal:
    """Which class is explained.

    Args:
      target: as in `evaluate`.
      spec: of the data.
      outputs: shape of the outputs, (n, classes) or (n,); None where no model is known.
      subject: for messages.

    Raises:
      TypeError, ValueError, IndexError: if there is no such class.
    """
    single = outputs is not None and (len(outputs) == 1 or outputs[-1] == 1)
    classes = None if outputs is None or single else outputs[-1]
    if isinstance(target, Given) and target.make is not None:
        raise TypeError(
            "target must be a class for each sample, got Given(make=...): leave out make"
        )
    if target is None and outputs is not None and len(outputs) == 1:
        return Goal("none")  # one number for each sample: its classes, if any, choose nothing
    if target is None or isinstance(target, Given):
        if spec.target is not None:
            leaf = spec.target
            if getattr(leaf, "shape", None) != () or not jnp.issubdtype(leaf.dtype, jnp.integer):
                raise ValueError(
                    f"the targets of data must be integers, one class for each sample, got {leaf}"
                )
            return Goal("given")
        if isinstance(target, Given) or classes is not None:
            raise ValueError(
                f"data has no targets, but the model of {subject.name!r} has {classes} classes: pass "
                "(inputs, targets), or target=jaxlrp.targets.predicted, or one class"
            )
        return Goal("none")
    if isinstance(target, targets.Predicted):
        if subject.predict is None:
            raise ValueError(
                f"target=predicted needs the model, which {subject.name!r} does not have: pass predict, "
                "a function of the inputs"
            )
        return Goal("none") if single else Goal("predicted")
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        if classes is not None and not 0 <= target < classes:
            raise IndexError(
                f"target {target} is out of range: the model has {classes} classes, 0 to {classes - 1}"
            )
        return Goal("one", int(target))
    raise TypeError(
        f"target must be None, a class, or jaxlrp.targets.predicted, got {target!r}: metrics compare the "
        "scores of one class"
    )


def outputs_of(subject: Subject, spec: Spec, args: tuple) -> tuple[int, ...] | None:
    """The shape of the outputs for two samples; None where no model is known.

    Raises:
      ValueError: if the model cannot be applied, or returns anything but (n, classes) or (n,).
    """
    if subject.predict is None:
        return None
    predict = subject.predict
    x, context = batch_of((spec.input, _context(spec)))
    what = f"the model of {subject.name!r}"
    found = _tried(what, lambda: jax.eval_shape(lambda x, c: predict(args, x, c), x, context))
    shape = getattr(found, "shape", None)
    if shape is None or len(shape) not in (1, 2) or shape[0] != 2:
        raise ValueError(
            f"{what} must return (n, classes) or (n,), got {jax.tree.map(jnp.shape, found)} for n = 2: "
            "pass predict, a function of the inputs that does"
        )
    return shape


def check_metrics(scorer: Scorer, spec: Spec, args: tuple, own: Mapping[str, np.ndarray]) -> None:
    """Traces each explainer and each metric on shapes alone.

    Args:
      scorer: what is computed of a batch.
      spec: of the data.
      args: positional arguments without the inputs.
      own: attributions of one sample, for the explainers that are given as attributions.

    Raises:
      ValueError: naming the metric and the explainer that do not fit.
    """
    extra = {"context": _context(spec), "number": jax.ShapeDtypeStruct((), np.uint32)}
    extra |= {name: spec.extra[name] for name in (MASK, SEGMENTS) if name in spec.extra}
    if spec.target is not None:
        extra["label"] = spec.target
    extra["attributions"] = {k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in own.items()}
    x, extra = batch_of((spec.input, extra))
    for stored, subject in scorer.subjects.items():
        explained = functools.partial(_explained, scorer, stored, args, x, extra)
        y, a = _tried(f"the explainer {subject.name!r} with these data", explained)
        held = Batch(subject, x, y, a, extra)
        for name, metric in scorer.metrics.items():
            if metric.on_host:
                continue
            scored = functools.partial(_scored, scorer, name, args, held)
            found = _tried(f"the metric {name!r} of {subject.name!r}", scored)
            wrong = {k: v.shape for k, v in found.items() if v.shape[:1] != (2,)}
            if wrong:
                raise ValueError(
                    f"the metric {name!r} must return one number for each of 2 samples, got {wrong}"
                )


def _explained(scorer: Scorer, name: str, args: tuple, x: Any, extra: Any) -> Any:
    """Shapes of the targets and attributions of an explainer."""
    return jax.eval_shape(lambda x, extra: scorer.batch(name, args, x, extra)[2:4], x, extra)


def _scored(scorer: Scorer, name: str, args: tuple, held: Batch) -> Any:
    """Shapes of what is stored of a metric."""

    def of(x: Any, y: Any, a: Any, extra: Any) -> Any:
        return scorer.one(name, Batch(held.subject, x, y, a, extra), args)

    return jax.eval_shape(of, *held[1:])


def batch_of(tree: Any) -> Any:
    """Shapes of a batch of two from shapes of one sample."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), tree)


def _context(spec: Spec) -> dict[str, Any]:
    return {k: v for k, v in dict(spec.extra).items() if k not in (MASK, SEGMENTS)}


def _tried(what: str, fun: Callable[[], Any]) -> Any:
    try:
        return fun()
    except Exception as error:  # whatever a model or a metric raises
        raise ValueError(f"{what} cannot be computed: {type(error).__name__}: {error}") from error
