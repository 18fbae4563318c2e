"""What a metric is, and the families of metrics by what they need."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.explanation.compiled import Programs
from jaxlrp.metrics import given

T = TypeVar("T", bound=type)
R = TypeVar("R")
Predict = Callable[..., Any]
"""From inputs (n, ...), and the arrays of `context` by name, to outputs (n, classes) or (n,)."""
Explain = Callable[..., Any]
"""From inputs, targets, and the arrays of `context` by name, to relevance or an `Explanation`."""


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
def metric(cls: T) -> T:
    """Makes a class a metric: a frozen dataclass and a pytree, whose options are given by name."""
    made = dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
    names = [field.name for field in dataclasses.fields(made) if field.init]
    jax.tree_util.register_dataclass(made, names, [], drop_fields=["_programs"])
    return made


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Metric(abc.ABC):
    """A score of explanations: a value with options, and a pure function of arrays.

    A call returns one number for each sample, (n,), `nan` where the score is undefined. If you call it with
    concrete arrays, it compiles itself, once for each model and each set of shapes; it also runs under
    `jit`. Compiled programs belong to the metric and the functions that you pass, so create both before a
    loop. A lambda that reads a dictionary of parameters and is created for each call is compiled for each
    call.

    Attributes:
      higher_is_better: whether a larger score means a better explanation; None if neither direction is
        better.
      bounds: the smallest and the largest possible score.
      needs: names of the arguments of a call, in their order.
      compares_samples: whether the score of a sample depends on the other samples of the call, which must
        then be the whole set.
      on_host: whether it needs concrete arrays, and does not run under `jit`.
      random: whether a call needs `key`.
      prepares: whether it has a method `prepare`, which computes once what calls need of the model,
        whatever the attributions; a call takes it as `prepared`.
    """

    _programs: Programs = dataclasses.field(default_factory=Programs, init=False, repr=False)
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))
    needs: ClassVar[tuple[str, ...]] = ()
    compares_samples: ClassVar[bool] = False
    on_host: ClassVar[bool] = False
    prepares: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def higher_is_better(self) -> bool | None:
        """Whether a larger score means a better explanation."""

    @property
    def random(self) -> bool:
        """Whether a call needs `key`."""
        return False

    @property
    def shares(self) -> Hashable:
        """Equal for metrics whose scores one pass over changed inputs gives; None for one on its own."""
        return None

    @property
    def name(self) -> str:
        """Its name in tables, such as "PixelFlipping"."""
        return type(self).__name__

    def _run(self, what: str, fun: Callable[..., Any], arguments: Any) -> Any:
        """`fun(self, arguments)`, compiled if the arguments are concrete arrays.

        Args:
          what: tells apart the functions of one metric.
          fun: to (a result, shapes that `_check` looks at).
          arguments: a pytree; arrays in it are traced, everything else is static.
        """

        def check(shapes: Any) -> None:
            self._check(arguments, shapes)

        if _compat.is_eager():
            return self._programs.run(what, lambda held: fun(*held), (self, arguments), check)
        result, shapes = fun(self, arguments)
        check(shapes)
        return result

    def _check(self, arguments: Any, shapes: Any) -> None:  # noqa: B027, most have nothing to check
        """Refuses arguments that do not fit the model, before anything is computed."""


class Case(NamedTuple):
    """What a metric of a model's outputs works with.

    Attributes:
      predict: from inputs (b, ...) and the context by name to outputs.
      inputs: (n, ...).
      attributions: floats (n, ...) of the shape of the inputs, up to axes of length 1.
      targets: (n,), None for a function with one output.
      context: further arguments of `predict` by name, (n, ...) each.
      keys: a random key for each sample, (n,); None for a metric that draws nothing.
      prepared: what was computed of the outputs before, by a metric that `prepares`; None if nothing was.
    """

    predict: Predict
    inputs: Array
    attributions: Array
    targets: Array | None
    context: dict[str, Array]
    keys: Array | None
    prepared: Any = None

    def outputs(self, inputs: Array, which: Array) -> Array:
        """The outputs for changed inputs (b, ...) of the samples `which`, (b,)."""
        return self.predict(inputs, **{name: a[which] for name, a in self.context.items()})

    def shapes(self) -> Any:
        """The shape and dtype of the outputs."""
        return jax.eval_shape(self.predict, self.inputs, **self.context)

    def targets_of(self, which: Array) -> Array | None:
        """The targets of some samples."""
        return None if self.targets is None else self.targets[which]


class FaithfulnessMetric(Metric):
    """A metric that compares attributions with how the output changes when inputs are changed."""

    needs: ClassVar[tuple[str, ...]] = ("predict", "inputs", "attributions", "targets")

    def __call__(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Array:
        """The score of each sample.

        Args:
          predict: from inputs (n, ...) to outputs (n, classes), or one number each, (n,). A sample's
            output must not depend on the other samples.
          inputs: (n, ...), of any dtype.
          attributions: (n, ...) of the shape of the inputs, up to axes of length 1; or an `Explanation`.
          targets: the class of each sample, (n,), or one for all; None for one output.
          context: further arguments of `predict` by name, (n, ...) each, which are never changed, such as
            an attention mask.
          key: a random key, or one for each sample, for a metric that draws random numbers.

        Returns:
          (n,), `nan` where attributions are not finite, and where the metric says so.

        Raises:
          TypeError, ValueError, IndexError: naming the argument that is wrong.
        """
        case = self._case(predict, inputs, attributions, targets, context, key)
        return self._checked_run("score", type(self)._scored, case)

    def _checked_run(self, what: str, compute: Callable[[Any, Case], R], case: Case) -> R:
        """`compute(self, case)` as `_run` does it, once outputs of the model have the right shape."""

        def checked(metric: Any, case: Case) -> tuple[R, Any]:
            shapes = case.shapes()
            metric._check(case, shapes)
            return compute(metric, case), shapes

        return self._run(what, checked, case)

    def _case(
        self, predict: Any, inputs: Any, attributions: Any, targets: Any, context: Any, key: Any
    ) -> Case:
        """The arguments of a call, checked."""
        given.check_predict(predict)
        x = given.as_inputs(inputs)
        return Case(
            predict,
            x,
            given.as_attributions(attributions, x),
            given.as_targets(targets, len(x)),
            given.as_context(context, len(x)),
            given.as_keys(key, len(x), self.name) if self.random else None,
        )

    def _scored(self, case: Case) -> Array:
        return jnp.where(given.finite(case.attributions), self._compute(case), jnp.nan)

    def _check(self, arguments: Any, shapes: Any) -> None:
        given.check_outputs(arguments.targets, shapes, len(arguments.inputs))

    @abc.abstractmethod
    def _compute(self, case: Case) -> Array:
        """The score of each sample, (n,)."""


class ComplexityMetric(Metric):
    """A metric that only uses attributions."""

    needs: ClassVar[tuple[str, ...]] = ("attributions",)

    def __call__(self, attributions: Any) -> Array:
        """The score of each sample.

        Args:
          attributions: (n, ...), or an `Explanation`.

        Returns:
          (n,), `nan` where attributions are not finite, and where the metric says so.

        Raises:
          TypeError, ValueError: if attributions are not one real array of samples.
        """
        return self._run("score", type(self)._scored, given.as_attributions(attributions))

    def _scored(self, attributions: Array) -> tuple[Array, Any]:
        finite = given.finite(attributions)
        return jnp.where(finite, self._compute(attributions), jnp.nan), None

    @abc.abstractmethod
    def _compute(self, attributions: Array) -> Array:
        """The score of each sample, (n,), of attributions (n, ...)."""


class LocalizationMetric(Metric):
    """A metric that compares attributions with the mask of an object."""

    needs: ClassVar[tuple[str, ...]] = ("attributions", "masks")

    def __call__(self, attributions: Any, masks: ArrayLike) -> Array:
        """The score of each sample.

        Args:
          attributions: (n, ...), or an `Explanation`.
          masks: booleans (n, ...) of the shape of attributions, up to axes of length 1 such as that of the
            channels: True inside the object.

        Returns:
          (n,), `nan` where attributions are not finite, where the mask is empty or covers everything, and
          where the metric says so.

        Raises:
          TypeError, ValueError: naming the argument that is wrong.
        """
        a = given.as_attributions(attributions)
        return self._run("score", type(self)._scored, (a, given.as_masks(masks, a)))

    def _scored(self, arguments: tuple[Array, Array]) -> tuple[Array, Any]:
        a, masks = (array.reshape(len(array), -1) for array in arguments)
        defined = jnp.isfinite(a).all(axis=1) & masks.any(axis=1) & ~masks.all(axis=1)
        return jnp.where(defined, self._compute(*arguments), jnp.nan), None

    @abc.abstractmethod
    def _compute(self, attributions: Array, masks: Array) -> Array:
        """The score of each sample, (n,), of attributions (n, ...) and booleans of the same shape."""


class Explained(NamedTuple):
    """What a metric that explains again works with.

    Attributes:
      explain: from inputs, targets and the context by name to relevance or an `Explanation`.
      predict: as in `Case`; None where the metric needs no outputs.
      inputs, targets, context, keys: as in `Case`.
    """

    explain: Explain
    predict: Predict | None
    inputs: Array
    targets: Array | None
    context: dict[str, Array]
    keys: Array | None

    def attributions(self, inputs: Array, which: Array) -> Array:
        """The attributions of changed inputs (b, ...) of the samples `which`, (b,)."""
        targets = None if self.targets is None else self.targets[which]
        found = self.explain(inputs, targets, **{k: a[which] for k, a in self.context.items()})
        return given.as_attributions(found, inputs)

    def outputs(self, inputs: Array, which: Array) -> Array:
        """The outputs for changed inputs (b, ...) of the samples `which`, (b,)."""
        assert self.predict is not None
        return self.predict(inputs, **{k: a[which] for k, a in self.context.items()})

    def shapes(self) -> Any:
        """The shape and dtype of the outputs; None where there is no `predict`."""
        if self.predict is None:
            return None
        return jax.eval_shape(self.predict, self.inputs, **self.context)


class RobustnessMetric(Metric):
    """A metric of how attributions change when inputs change a little."""

    needs: ClassVar[tuple[str, ...]] = ("explain", "inputs", "targets")
    uses_outputs: ClassVar[bool] = False

    def __call__(
        self,
        explain: Explain,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        predict: Predict | None = None,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Array:
        """The score of each sample.

        Args:
          explain: from (inputs, targets) to relevance or an `Explanation`, such as
            `lambda x, y: explainer(variables, x, target=y)`. A sample's attributions must not depend on the
            other samples.
          inputs: floats (n, ...).
          targets: the class of each sample, (n,), or one for all; None for one output.
          predict: from inputs to outputs, for a metric that compares outputs too (`uses_outputs`).
          context: further arguments of `explain` and `predict` by name, (n, ...) each, which are never
            changed.
          key: a random key, or one for each sample, for a metric that draws random numbers.

        Returns:
          (n,), `nan` where the metric says so.

        Raises:
          TypeError, ValueError, IndexError: naming the argument that is wrong.
        """
        case = self._case(explain, predict, inputs, targets, context, key)
        return self._run("score", type(self)._scored, case)

    def _case(
        self, explain: Any, predict: Any, inputs: Any, targets: Any, context: Any, key: Any
    ) -> Explained:
        """The arguments of a call, checked."""
        if not callable(explain):
            raise TypeError(
                f"explain must be a function of (inputs, targets), got {type(explain).__name__}"
            )
        if self.uses_outputs and predict is None:
            raise TypeError(
                f"{self.name} compares outputs too: pass predict, a function of the inputs"
            )
        x = given.as_inputs(inputs)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"inputs must be floats, because this metric adds small changes to them, got {x.dtype}"
            )
        return Explained(
            explain,
            predict,
            x,
            given.as_targets(targets, len(x)),
            given.as_context(context, len(x)),
            given.as_keys(key, len(x), self.name) if self.random else None,
        )

    def _scored(self, case: Explained) -> tuple[Array, Any]:
        shapes = case.shapes()
        self._check(case, shapes)
        return self._compute(case), shapes

    def _check(self, arguments: Any, shapes: Any) -> None:
        if arguments.predict is not None:
            given.check_outputs(arguments.targets, shapes, len(arguments.inputs))

    @abc.abstractmethod
    def _compute(self, case: Explained) -> Array:
        """The score of each sample, (n,)."""
