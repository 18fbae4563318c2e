"""What the explainers of this package have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from jax import Array

from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.base import BaseExplainer, Request, request_of
from jaxlrp.explanation.compiled import Programs
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.network.model import Model
from jaxlrp.targets import Target

T = TypeVar("T")

Shapes = tuple[Any, dict[str, Any]]
"""The output of the function, and the outputs of the layers that hold concepts, by path."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class ConceptExplainer(BaseExplainer, Generic[T]):
    """A function of a model's arguments, called and compiled as an `Explainer` is.

    Attributes:
      name: of the public function that made it.
      explainer: the explanation whose relevance is divided among concepts.
      compute: from (args, kwargs, target, **options) to the result and what `check` looks at.
      prepare: from the keyword arguments of a call to the options of `compute`, which it
        removes from them.
      check: of (options, shapes), see `Shapes`.
    """

    name: str
    explainer: Explainer
    compute: Callable[..., tuple[T, Shapes]]
    prepare: Callable[[dict[str, Any]], dict[str, Any]]
    check: Callable[[Mapping[str, Any], dict[str, Any]], None]
    _programs: Programs = dataclasses.field(default_factory=Programs)

    @property
    def model(self) -> Model:
        """The function that is explained, and the position of the explained argument."""
        return self.explainer.model

    @property
    def jit(self) -> bool:
        """Whether eager calls are compiled."""
        return self.explainer.jit

    @property
    def underlying(self) -> Explainer:
        """The explanation whose relevance is divided among concepts."""
        return self.explainer

    @property
    def conserves(self) -> bool:
        """No: what it gives back is not the relevance of the input."""
        return False

    def __repr__(self) -> str:
        return f"concepts.{self.name}({self.explainer!r})"

    def __call__(
        self,
        *args: Any,
        target: Target = None,
        fun_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> T:
        """Computes it at these arguments; see the function of `jaxlrp.concepts` that made this."""
        options = self.prepare(kwargs)
        request = request_of(args, kwargs, fun_kwargs, target, options)

        def check(shapes: Shapes) -> None:
            initial_relevance.check_range(shapes[0], target)
            self.check(options, shapes[1])

        return self._call(self.name, self._compute, request, check=check)

    def _compute(self, request: Request) -> tuple[T, Shapes]:
        result, shapes = self.compute(
            request.args, request.kwargs, request.target, **request.options
        )
        self.check(request.options, shapes[1])
        return result, shapes

    def _explain(self, request: Request) -> Any:
        raise NotImplementedError  # it gives no explanation of the input


def no_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """For a method without options of its own."""
    return {}


def no_check(options: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """For a method whose families look at their layers while it is traced."""


def check_from_output(explainer: Any, what: str) -> Explainer:
    """An explainer whose relevance begins at the output.

    Args:
      explainer: what a user gave.
      what: what changes the output of the function, for the message.

    Raises:
      TypeError, ValueError: as `check_explainer`; or if relevance begins at a layer.
    """
    held = check_explainer(explainer)
    if held.start is not None:
        raise ValueError(
            f"the explainer must begin at the output, got start={held.start!r}: {what} changes the output "
            "of the function; leave start out"
        )
    return held


def check_explainer(explainer: Any) -> Explainer:
    """An explainer, the result of `jaxlrp.explain`.

    Raises:
      TypeError: if it is anything else.
      ValueError: if it reads gradients instead of relevance, debugs, or asks for parameters.
    """
    if not isinstance(explainer, Explainer):
        raise TypeError(
            f"explainer must be the result of jaxlrp.explain(...), not wrapped in jit or vmap (it compiles "
            f"itself), got {explainer!r}"
        )
    if explainer.debug:
        raise ValueError(
            "explainer must not have debug=True: call the explainer itself to debug it, then leave "
            "debug out"
        )
    if explainer.parameters:
        raise ValueError(
            f"explainer must not have parameters=, got {explainer.parameters}: concepts divide the "
            "relevance of activations; leave parameters out"
        )
    if explainer.composite.readout != "relevance":
        raise ValueError(
            "the composite of the explainer reads gradients, which do not divide among concepts: use one "
            "that gives relevance, such as composites.epsilon_plus()"
        )
    return explainer


def only_array(relevance: Any) -> Array:
    """The relevance of an explained argument that is one array.

    Raises:
      TypeError: if it is a pytree of several, or several arguments are explained.
    """
    if not hasattr(relevance, "shape"):
        raise TypeError(
            "one array must be explained, but the explained argument has several: explain a function "
            "of one of them"
        )
    return relevance
