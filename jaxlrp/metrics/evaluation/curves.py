"""Curves of a metric in the store of a run, which holds finite numbers only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp.metrics.evaluation.scorer import stored
from jaxlrp.metrics.metric import Metric


class CurveReader:
    """The curves of a metric that has some, as finite numbers and what they stand for, and back."""

    def __init__(self) -> None:
        self._kind: Any = None
        self._shared: dict[str, bool] = {}

    def __call__(self, metric: Metric, call: Callable[[Any], Any]) -> dict[str, Array]:
        curves = call(metric.curves)  # pyright: ignore[reportAttributeAccessIssue]
        self._kind, fields = type(curves), curves._asdict()
        self._shared = {k: a.ndim == 1 for k, a in fields.items()}
        n = next(len(a) for k, a in fields.items() if not self._shared[k])
        found = {}
        for name, array in fields.items():
            if self._shared[name]:
                found[name] = jnp.broadcast_to(array, (n, *array.shape))
            else:
                held = stored(array)
                found |= {name: held["score"], f"{name}_kind": held["kind"]}
        return found

    def read(self, held: Mapping[str, Any], aligned: Callable[[dict[str, Any]], Any]) -> Any:
        """What `metric.curves` returns.

        Args:
          held: (ids, array) by name, as they are stored.
          aligned: from a score and its kind to the rows of all samples.
        """
        return self._kind(
            **{
                name: held[name][1][0]
                if shared
                else aligned({"score": held[name], "kind": held[f"{name}_kind"]})
                for name, shared in self._shared.items()
            }
        )
