"""Any metric called with whatever of a set of arguments it takes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from jaxlrp.metrics.features import Segments
from jaxlrp.metrics.metric import Metric


def call_by_name(
    metric: Metric, known: Mapping[str, Any], method: Callable[..., Any] | None = None
) -> Any:
    """Calls a metric without knowing its family.

    Args:
      metric: the metric.
      known: arguments by name: all of `metric.needs`; and "predict", "context", "key" and "prepared", which
        are passed on if the metric takes them. Others are ignored.
      method: of the metric, such as `metric.curves`; None for a call.

    Returns:
      What the method returns: of a call, one number for each sample, (n,).

    Raises:
      KeyError: if `known` lacks an argument that the metric needs.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> known = {"attributions": jnp.array([[0.0, 0.0, 0.0, 1.0]]), "masks": None}
      >>> metrics.call_by_name(metrics.Sparseness(), known).tolist()
      [0.75]
    """
    called: Any = metric if method is None else method
    names = inspect.signature(called).parameters
    more = {"predict", "context", "key", "prepared"} & set(names) & set(known) - set(metric.needs)
    if not getattr(metric, "uses_outputs", True):
        more.discard("predict")
    return called(*(known[k] for k in metric.needs), **{k: known[k] for k in more})


def prepared_by_name(metric: Metric, known: Mapping[str, Any]) -> Any:
    """What a metric that `prepares` computes of the model, for `known["prepared"]` of `call_by_name`.

    Args:
      metric: the metric.
      known: arguments by name, as in `call_by_name`, without attributions.
    """
    prepare: Any = getattr(metric, "prepare")  # noqa: B009, only some metrics have it
    names = ("predict", "inputs", "targets", "context", "key")
    return prepare(**{name: known[name] for name in names if name in known})


def with_segments(metric: Metric, segments: Array | None) -> Metric:
    """The metric with the segmentation of the samples of a call, if its features are segments."""
    features = getattr(metric, "features", None)
    if segments is None or not isinstance(features, Segments):
        return metric
    own: Any = metric
    return dataclasses.replace(own, features=Segments(segments, features.number))
