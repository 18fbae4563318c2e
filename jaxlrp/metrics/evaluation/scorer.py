"""The function that a run computes of a batch: the scores of all metrics of one explainer."""

from __future__ import annotations

import dataclasses
import inspect
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxlrp.explanation.base import BaseExplainer, Request
from jaxlrp.explanation.result import Explanation
from jaxlrp.metrics import given
from jaxlrp.metrics.evaluation.samples import MASK, SEGMENTS
from jaxlrp.metrics.evaluation.subjects import KEY, Subject
from jaxlrp.metrics.features import Segments
from jaxlrp.metrics.metric import Metric

TRACED = 3  # a run is identified by programs of so many samples, which must not depend on devices
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


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Scorer(BaseExplainer):
    """An "explainer" whose relevance are the results of metrics, by name.

    Attributes:
      subject: what is evaluated.
      metrics: by the names under which they are stored.
      goal: which class is explained.
      key: from which the random numbers of a sample are made; None if nothing is drawn.
      result: what is stored of each metric.
      mesh, axes: the devices that share a batch, and the names of the axes along which it is divided.
    """

    subject: Subject
    metrics: Mapping[str, Metric]
    goal: Goal
    key: Array | None
    result: Result
    mesh: Mesh | None = None
    axes: tuple[str, ...] = ()

    @property
    def argnums(self) -> int:
        return self.subject.position

    @property
    def conserves(self) -> bool:
        return False

    @property
    def __name__(self) -> str:
        return f"scores of {self.subject.name}"

    def _explain(self, request: Request) -> Any:
        raise NotImplementedError  # it gives no explanation of the input

    def __call__(self, *everything: Any, target: Any = None, **extra: Any) -> Explanation:
        """Scores a batch; `extra` is what `Arranger` adds to a sample."""
        del target
        at = self.subject.position
        args, x = (*everything[:at], *everything[at + 1 :]), everything[at]
        n = len(jax.tree.leaves(x)[0])
        shards = 1 if self.mesh is None else _product(self.mesh.shape[a] for a in self.axes)
        if shards == 1 or n % shards or n <= TRACED:
            return Explanation(output={}, relevance=self.scores(args, x, extra))
        # Each device scores its own samples: XLA alone would give all work to all devices.
        batch = PartitionSpec(self.axes)
        divided = jax.shard_map(
            self.scores, mesh=self.mesh, in_specs=(PartitionSpec(), batch, batch), out_specs=batch,
            axis_names=set(self.axes), check_vma=False,
        )  # fmt: skip
        return Explanation(output={}, relevance=divided(args, x, extra))

    def scores(self, args: tuple, x: Any, extra: dict[str, Any]) -> dict[str, dict[str, Array]]:
        """The results of all metrics of a batch, by name."""
        y = self.targets(args, x, extra)
        a = self.attributions(args, x, y, extra)
        found = {name: self.one(name, args, x, y, a, extra) for name in self.metrics}
        if y is not None:
            found["_target"] = {"class": y.astype(jnp.int32)}
        return found

    def targets(self, args: tuple, x: Any, extra: Mapping[str, Any]) -> Array | None:
        """The class of each sample, (b,); None for a model with one output."""
        n = len(jax.tree.leaves(x)[0])
        if self.goal.kind == "given":
            return extra["label"]
        if self.goal.kind == "one":
            return jnp.full(n, self.goal.index)
        if self.goal.kind == "predicted":
            assert self.subject.predict is not None
            return jnp.argmax(self.subject.predict(args, x, extra["context"]), axis=-1)
        return None

    def attributions(self, args: tuple, x: Any, y: Any, extra: Mapping[str, Any]) -> Array | None:
        """The attributions of a batch, (b, ...); None if no metric needs them."""
        if not any("attributions" in metric.needs for metric in self.metrics.values()):
            return None
        if self.subject.run is None:
            return given.as_attributions(extra["attributions"], x)
        return given.as_attributions(self.subject.run(args, x, y, self._context(extra)), x)

    def one(
        self, name: str, args: tuple, x: Any, y: Any, a: Array | None, extra: Mapping[str, Any]
    ) -> dict[str, Array]:
        """What is stored of one metric."""
        metric = self.metrics[name]
        if SEGMENTS in extra and isinstance(getattr(metric, "features", None), Segments):
            own: Any = metric
            segments = Segments(extra[SEGMENTS], own.features.number)
            metric = dataclasses.replace(own, features=segments)
        run, predict = self.subject.run, self.subject.predict
        varied = "variables" in metric.needs

        def explain(*given: Any, **context: Any) -> Any:
            assert run is not None
            whole = (given[0], *args[1:]) if varied else args
            return run(whole, *given[varied:], context)

        def outputs(*given: Any, **context: Any) -> Any:
            assert predict is not None
            context = {k: v for k, v in context.items() if k != KEY}
            return predict(args, given[-1], context)

        known = {
            "predict": None if predict is None else outputs,
            "explain": None if run is None else explain,
            "variables": args[0] if args else None,
            "inputs": x,
            "attributions": a,
            "targets": y,
            "masks": extra.get(MASK),
            "context": self._context(extra),
            "key": self._keys(extra, f"metric {name}") if metric.random else None,
        }

        def call(method: Callable[..., Any]) -> Any:
            names = inspect.signature(method).parameters
            more = [
                k for k in ("predict", "context", "key") if k in names and k not in metric.needs
            ]
            return method(*(known[k] for k in metric.needs), **{k: known[k] for k in more})

        return self.result(metric, call)

    def _context(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(extra["context"])
        if self.subject.draws:
            found[KEY] = self._keys(extra, "explainer")
        return found

    def _keys(self, extra: Mapping[str, Any], of: str) -> Array:
        """A random key for each sample, which depends on its id alone."""
        assert self.key is not None
        key = jax.random.fold_in(self.key, zlib.crc32(of.encode()))
        return jax.vmap(jax.random.fold_in, (None, 0))(key, extra["number"])


def as_scores(metric: Metric, call: Callable[[Any], Any]) -> dict[str, Array]:
    """The score, and whether it is defined: a store holds finite numbers only."""
    method: Any = metric
    score = call(method)
    kind = jnp.where(jnp.isnan(score), UNDEFINED, DEFINED)
    kind = jnp.where(jnp.isposinf(score), INFINITE, kind)
    kind = jnp.where(jnp.isneginf(score), MINUS_INFINITE, kind)
    return {
        "score": jnp.where(kind == DEFINED, score, 0).astype(score.dtype),
        "kind": kind.astype(jnp.int8),
    }


class CurveReader:
    """The curves of a metric that has some, each (b, points), and back from arrays."""

    def __init__(self) -> None:
        self._kind: Any = None
        self._shared: set[str] = set()

    def __call__(self, metric: Metric, call: Callable[[Any], Any]) -> dict[str, Array]:
        curves = call(metric.curves)  # pyright: ignore[reportAttributeAccessIssue]
        self._kind, fields = type(curves), curves._asdict()
        self._shared = {k for k, a in fields.items() if a.ndim == 1}
        n = next(len(a) for k, a in fields.items() if k not in self._shared)
        return {
            k: jnp.broadcast_to(a, (n, *a.shape)) if k in self._shared else a
            for k, a in fields.items()
        }

    def read(self, arrays: dict[str, Any]) -> Any:
        """What `metric.curves` returns, from stored arrays (n, points)."""
        return self._kind(**{k: a[0] if k in self._shared else a for k, a in arrays.items()})


def _product(numbers: Any) -> int:
    found = 1
    for number in numbers:
        found *= number
    return found
