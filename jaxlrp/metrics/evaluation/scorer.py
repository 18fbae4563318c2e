"""The function that a run computes of a batch: the scores of all metrics of one explainer."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxlrp.explanation.base import BaseExplainer, Request
from jaxlrp.explanation.result import Explanation
from jaxlrp.metrics import given
from jaxlrp.metrics.calling import call_by_name, prepared_by_name, with_segments
from jaxlrp.metrics.evaluation.samples import MASK, SEGMENTS
from jaxlrp.metrics.evaluation.subjects import KEY, Subject
from jaxlrp.metrics.metric import Metric

TRACED = 3  # a run is identified by programs of so many samples, which must not depend on devices
TARGET = "_target"  # where the class that was explained is stored
DEFINED, UNDEFINED, INFINITE, MINUS_INFINITE = range(4)

Result = Callable[..., dict[str, Array]]
"""From (metric, function that calls a method of it) to arrays (b, ...) by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Goal:
    """Which class is explained.

    Attributes:
      kind: "given" by the data, "predicted" by the model, "one" class for all samples, or "none".
      index: the class, of "one".
    """

    kind: str
    index: int = 0


class Batch(NamedTuple):
    """A batch of one explainer.

    Attributes:
      subject: the explainer.
      inputs: (b, ...).
      targets: the class that is explained, (b,); None for a model with one output.
      attributions: (b, ...); None if no metric needs them.
      extra: as `Arranger` makes it.
    """

    subject: Subject
    inputs: Any
    targets: Array | None
    attributions: Array | None
    extra: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Scorer(BaseExplainer):
    """An "explainer" whose relevance are the results of metrics: by explainer, metric and array.

    A metric that does not explain again is one loop over explainers with a common model, so that it is
    compiled once.

    Attributes:
      subjects: what is evaluated, by the names under which they are stored.
      metrics: by the names under which they are stored.
      pairs: which of the subjects are scored by which metric: (subject, metric).
      goals: which class is explained, for each subject.
      key: from which the random numbers of a sample are made; None if nothing is drawn.
      result: what is stored of each metric.
      position: of the inputs among the arguments of a call.
      mesh, axes: the devices that share a batch, and the names of the axes along which it is divided.
    """

    subjects: Mapping[str, Subject]
    metrics: Mapping[str, Metric]
    pairs: tuple[tuple[str, str], ...]
    goals: Mapping[str, Goal]
    key: Array | None
    result: Result
    position: int
    mesh: Mesh | None = None
    axes: tuple[str, ...] = ()

    @property
    def argnums(self) -> int:
        return self.position

    @property
    def conserves(self) -> bool:
        return False

    @property
    def __name__(self) -> str:
        return "evaluate"

    def _explain(self, request: Request) -> Any:
        raise NotImplementedError  # it gives no explanation of the input

    def __call__(self, *everything: Any, target: Any = None, **extra: Any) -> Explanation:
        """Scores a batch; `extra` is what `Arranger` adds to a sample."""
        del target
        *given, x = everything
        args = tuple(given)
        n = len(jax.tree.leaves(x)[0])
        shards = 1 if self.mesh is None else math.prod(self.mesh.shape[a] for a in self.axes)
        if shards == 1 or n % shards or n <= TRACED:
            return Explanation(output={}, relevance=self.scores(args, x, extra))
        # Each device scores its own samples: XLA alone would give all work to all devices.
        batch = PartitionSpec(self.axes)
        divided = jax.shard_map(
            self.scores, mesh=self.mesh, in_specs=(PartitionSpec(), batch, batch), out_specs=batch,
            axis_names=set(self.axes), check_vma=False,
        )  # fmt: skip
        return Explanation(output={}, relevance=divided(args, x, extra))

    def scores(self, args: tuple, x: Any, extra: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The results for a batch, by explainer and metric."""
        batches = {name: self.batch(name, args, x, extra) for name in dict(self.pairs)}
        found: dict[str, dict[str, Any]] = {name: {} for name in batches}
        for name, held in batches.items():
            if held.targets is not None:
                found[name][TARGET] = {"class": held.targets.astype(jnp.int32)}
        for metric in dict.fromkeys(metric for _, metric in self.pairs):
            scored = [name for name, other in self.pairs if other == metric]
            if self.metrics[metric].shares is not None and self.result is as_scores:
                continue  # below
            for names in self._alike(metric, scored, batches):
                stacked = self._several(metric, [batches[name] for name in names], args)
                for name, result in zip(names, stacked, strict=True):
                    found[name][metric] = result
        for name, held in batches.items():
            found[name] |= self._shared([m for n, m in self.pairs if n == name], held, args)
        return found

    def _shared(
        self, names: Sequence[str], held: Batch, args: tuple
    ) -> dict[str, dict[str, Array]]:
        """The results of metrics that share passes over changed inputs."""
        if self.result is not as_scores:
            return {}
        groups: dict[Any, list[str]] = {}
        for name in names:
            if (like := self.metrics[name].shares) is not None:
                groups.setdefault(_hashable(like, name), []).append(name)
        found = {}
        for members in groups.values():
            # the one that compares most: outputs too, if any does
            widest = max(members, key=lambda m: getattr(self.metrics[m], "uses_outputs", False))
            ratios = self.one(widest, held, args, result=_ratios)
            for name in members:
                own: Any = self.metrics[name]
                found[name] = stored(own.of(ratios))
        return found

    def batch(self, name: str, args: tuple, x: Any, extra: Mapping[str, Any]) -> Batch:
        """What metrics of one explainer are given."""
        subject, goal = self.subjects[name], self.goals[name]
        n = len(jax.tree.leaves(x)[0])
        y = None
        if goal.kind == "given":
            y = extra["label"]
        elif goal.kind == "one":
            y = jnp.full(n, goal.index)
        elif goal.kind == "predicted":
            assert subject.predict is not None
            y = jnp.argmax(subject.predict(args, x, extra["context"]), axis=-1)
        held = Batch(subject, x, y, None, extra)
        needed = (self.metrics[metric].needs for other, metric in self.pairs if other == name)
        if not any("attributions" in needs for needs in needed):
            return held
        if subject.run is None:
            found = extra["attributions"][name]
        else:
            found = subject.run(args, x, y, self._context(held))
        return held._replace(attributions=given.as_attributions(found, x))

    def _alike(
        self, metric: str, names: Sequence[str], batches: Mapping[str, Batch]
    ) -> list[list[str]]:
        """Explainers whose scores one loop computes."""
        groups: dict[Any, list[str]] = {}
        again = {"explain", "variables"} & set(self.metrics[metric].needs)
        for name in names:
            held = batches[name]
            a = held.attributions
            like = name if again or a is None else (held.subject.predict, a.shape, a.dtype)
            groups.setdefault(like, []).append(name)
        return list(groups.values())

    def _several(self, metric: str, held: Sequence[Batch], args: tuple) -> list[dict[str, Array]]:
        """The results of one metric for explainers that are alike."""
        first = held[0]
        if len(held) == 1:
            return [self.one(metric, first, args)]
        stacked = jnp.stack(
            [batch.attributions for batch in held if batch.attributions is not None]
        )
        # what the model says of changed inputs is computed once for all of them
        prepared = None
        if self.metrics[metric].prepares and self.result is as_scores:
            prepared = prepared_by_name(*self._known(metric, first, args))
        found = jax.lax.map(
            lambda a: self.one(metric, first._replace(attributions=a), args, prepared=prepared),
            stacked,
        )
        return [{k: v[i] for k, v in found.items()} for i in range(len(held))]

    def one(
        self, name: str, held: Batch, args: tuple, result: Any = None, prepared: Any = None
    ) -> Any:
        """What is stored of one metric of one explainer, or another result of it.

        Args:
          name: of the metric.
          held: the batch.
          args: positional arguments without the explained one.
          result: what is computed; None for what is stored.
          prepared: what the metric prepared for the batch; None if it did not.
        """
        metric, known = self._known(name, held, args)
        if prepared is not None:
            known["prepared"] = prepared

        def call(method: Callable[..., Any]) -> Any:
            return call_by_name(metric, known, method)

        return (result or self.result)(metric, call)

    def _known(self, name: str, held: Batch, args: tuple) -> tuple[Metric, dict[str, Any]]:
        """A metric for a batch, and its arguments by name."""
        extra = held.extra
        metric = with_segments(self.metrics[name], extra.get(SEGMENTS))
        run, predict = held.subject.run, held.subject.predict
        varied = "variables" in metric.needs

        def explain(*given: Any, **context: Any) -> Any:
            assert run is not None
            x, y = given[varied:]
            return run((*given[:varied], *args[varied:]), x, y, context)

        def outputs(*given: Any, **context: Any) -> Any:
            assert predict is not None
            context = {k: v for k, v in context.items() if k != KEY}
            return predict((*given[:varied], *args[varied:]), given[varied], context)

        # metrics that share a pass draw alike, whether or not they are evaluated together
        drawing = f"metric {name}" if metric.shares is None else "changed inputs"
        return metric, {
            "predict": None if predict is None else outputs,
            "explain": None if run is None else explain,
            "variables": args[0] if args else None,
            "inputs": held.inputs,
            "attributions": held.attributions,
            "targets": held.targets,
            "masks": extra.get(MASK),
            "context": self._context(held),
            "key": self._keys(extra, drawing, varied) if metric.random else None,
        }

    def _context(self, held: Batch) -> dict[str, Any]:
        found = dict(held.extra["context"])
        if held.subject.draws:
            found[KEY] = self._keys(held.extra, "explainer")
        return found

    def _keys(self, extra: Mapping[str, Any], of: str, one: bool = False) -> Array:
        """A random key for each sample, which depends on its id alone; or one, for one randomized model."""
        assert self.key is not None
        key = jax.random.fold_in(self.key, zlib.crc32(of.encode()))
        return key if one else jax.vmap(jax.random.fold_in, (None, 0))(key, extra["number"])


def as_scores(metric: Metric, call: Callable[[Any], Any]) -> dict[str, Array]:
    """The score, and whether it is defined: the store of a run holds finite numbers only."""
    method: Any = metric
    return stored(call(method))


def stored(score: Array) -> dict[str, Array]:
    """Scores (b,) as finite numbers, and what they stand for."""
    kind = jnp.where(jnp.isnan(score), UNDEFINED, DEFINED)
    kind = jnp.where(jnp.isposinf(score), INFINITE, kind)
    kind = jnp.where(jnp.isneginf(score), MINUS_INFINITE, kind)
    return {
        "score": jnp.where(kind == DEFINED, score, 0).astype(score.dtype),
        "kind": kind.astype(jnp.int8),
    }


def _hashable(value: Any, other: Any) -> Any:
    """The value as a key, or another one if it has no hash."""
    try:
        hash(value)
    except TypeError:
        return other
    return value


def _ratios(metric: Any, call: Callable[[Any], Any]) -> Any:
    """The pass that several metrics share."""
    return call(metric.ratios)
