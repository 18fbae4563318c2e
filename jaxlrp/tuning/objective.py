"""Scores of the members of a family, in one compiled program."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.explanation.explainer import explain
from jaxlrp.metrics.calling import call_by_name, prepared_by_name, with_segments
from jaxlrp.metrics.metric import Metric
from jaxlrp.tuning.data import Data
from jaxlrp.tuning.families import Family


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What members of a family are scored by.

    Attributes:
      fun: the model.
      args: its positional arguments before the explained one.
      metrics: by name.
      chosen: the name of the metric that decides.
      key: from which the random numbers of a sample are made; None if nothing is drawn.
      batch_size: samples at once.
      at_once: candidates at once.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    metrics: Mapping[str, Metric]
    chosen: str
    key: Array | None
    batch_size: int
    at_once: int

    def scores(self, family: Family, values: Any, args: Any, batch: Data) -> dict[str, Array]:
        """The score of each sample by each metric, (b,)."""
        run = explain(self.fun, family(values), argnums=len(args))

        def explained(x: Array, y: Any, **context: Any) -> Array:
            return run(*args, x, target=y, **context).relevance

        more: dict[str, Any] = {"explain": explained, "masks": batch.masks}
        if any("attributions" in metric.needs for metric in self.metrics.values()):
            more["attributions"] = explained(batch.inputs, batch.targets, **batch.context)
        found = {}
        for name in self.metrics:
            metric, known = self._known(name, args, batch)
            if name in batch.prepared:
                known["prepared"] = batch.prepared[name]
            found[name] = call_by_name(metric, known | more)
        return found

    def prepared(self, args: Any, batch: Data) -> dict[str, Any]:
        """What metrics compute of the model for all candidates, by metric."""
        return {
            name: prepared_by_name(*self._known(name, args, batch))
            for name, metric in self.metrics.items()
            if metric.prepares
        }

    def _known(self, name: str, args: Any, batch: Data) -> tuple[Metric, dict[str, Any]]:
        """A metric for a batch, and its arguments by name that no candidate changes."""

        def predict(x: Array, **context: Any) -> Any:
            return self.fun(*args, x, **context)

        metric = with_segments(self.metrics[name], batch.segments)
        known = {
            "predict": predict,
            "inputs": batch.inputs,
            "targets": batch.targets,
            "context": dict(batch.context),
        }
        if metric.random:
            known["key"] = self._keys(name, batch.number)
        return metric, known

    def _keys(self, name: str, number: Array) -> Array:
        """A random key for each sample, which depends on its place in the data alone."""
        assert self.key is not None
        key = jax.random.fold_in(self.key, zlib.crc32(name.encode()))
        return jax.vmap(jax.random.fold_in, (None, 0))(key, number)


class Preparation:
    """What metrics compute of the model for all candidates, once for each sample.

    Args:
      objective: with the metrics.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._run = jax.jit(objective.prepared)
        self._held: dict[bytes, Data] = {}

    def __call__(self, data: Data) -> Data:
        """The samples with what was computed of them, now or in an earlier call."""
        held = self._objective
        if not any(metric.prepares for metric in held.metrics.values()):
            return data
        part = np.asarray(data.number).tobytes()
        if part not in self._held:
            parts = [
                jax.tree.map(lambda a, n=count: np.asarray(a)[:n], self._run(held.args, batch))
                for batch, count in data.batches(held.batch_size)
            ]
            found = jax.tree.map(lambda *a: np.concatenate(a), *parts)
            self._held[part] = data._replace(prepared=found)
        return self._held[part]


class Programs:
    """The programs of one family, each compiled when it is first needed.

    Args:
      objective: what is computed.
      family: for whose members.
      prepared: what all families share.
    """

    def __init__(self, objective: Objective, family: Family, prepared: Preparation) -> None:
        self._objective, self._family, self._prepared = objective, family, prepared
        of = functools.partial(objective.scores, family)
        self._one = jax.jit(of)
        self._many = jax.jit(jax.vmap(of, (0, None, None)))
        self._slopes = jax.jit(jax.grad(self._total, has_aux=True))
        self._used_many = False

    def scores(self, values: Sequence[Mapping[str, float]], data: Data) -> list[dict[str, Any]]:
        """The score of each sample by each metric, (n,), of each of some members."""
        held, data = self._objective, self._prepared(data)
        if len(values) == 1 and not self._used_many:
            given = {name: jnp.asarray(value) for name, value in values[0].items()}
            return [self._batches(data, lambda batch: self._one(given, held.args, batch))]
        self._used_many = True
        results: list[dict[str, Any]] = []
        for start in range(0, len(values), held.at_once):
            part = list(values[start : start + held.at_once])
            padded = part + part[-1:] * (held.at_once - len(part))
            stacked = {n: jnp.array([v[n] for v in padded]) for n in self._family.ranges}
            found = self._batches(
                data, lambda batch, s=stacked: self._many(s, held.args, batch), axis=1
            )
            results += [{k: v[i] for k, v in found.items()} for i in range(len(part))]
        return results

    def slopes(
        self, values: Mapping[str, float], data: Data
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """The scores of one member, and the derivatives of the mean of the deciding metric."""
        held, data = self._objective, self._prepared(data)
        given = {name: jnp.asarray(value) for name, value in values.items()}
        slopes, scores = [], []
        for batch, count in data.batches(held.batch_size):
            slope, score = self._slopes(given, held.args, batch, count)
            slopes.append(slope)
            scores.append({name: np.asarray(s)[:count] for name, s in score.items()})
        found = {name: np.concatenate([s[name] for s in scores]) for name in held.metrics}
        defined = max(int(np.isfinite(found[held.chosen]).sum()), 1)
        total = jax.tree.map(lambda *parts: float(sum(map(float, parts))) / defined, *slopes)
        return found, total

    def _total(
        self, values: Any, args: Any, batch: Data, count: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The sum of the deciding metric over samples where it is defined."""
        scores = self._objective.scores(self._family, values, args, batch)
        score = scores[self._objective.chosen]
        used = jnp.isfinite(score) & (jnp.arange(len(score)) < count)
        return jnp.where(used, score, 0).sum(), scores

    def _batches(self, data: Data, run: Callable[[Data], Any], axis: int = 0) -> dict[str, Any]:
        parts = []
        for batch, count in data.batches(self._objective.batch_size):
            found = jax.tree.map(np.asarray, run(batch))
            parts.append({k: np.take(v, range(count), axis) for k, v in found.items()})
        return {k: np.concatenate([p[k] for p in parts], axis) for k in parts[0]}
