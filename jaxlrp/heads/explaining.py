"""A head, and the network below it, as one explainer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.base import BaseExplainer, Request, request_of
from jaxlrp.explanation.compiled import Programs
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.explainer import explain as explain_network
from jaxlrp.explanation.result import Explanation
from jaxlrp.heads.head import Head
from jaxlrp.network.model import Model
from jaxlrp.targets import Predicted, Target


@dataclasses.dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class HeadExplainer(BaseExplainer):
    """A function that explains a head, called and compiled as `jaxlrp.explain` is; `explain` makes it.

    Attributes:
      head: the head.
      explainer: of the network that computes its features.
      model: the network with the head on top.
    """

    head: Head
    explainer: Explainer
    model: Model
    _programs: Programs = dataclasses.field(default_factory=Programs)

    @property
    def jit(self) -> bool:
        """Whether eager calls are compiled."""
        return self.explainer.jit

    def __repr__(self) -> str:
        return f"heads.explain({type(self.head).__name__}, {self.explainer!r})"

    def __call__(
        self,
        *args: Any,
        target: Target = None,
        condition: Mapping[str, Any] | None = None,
        fun_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Explanation:
        """Explains the head at these arguments of the network; see `explain`."""
        options = {"condition": condition, "head": self.head}
        request = request_of(args, kwargs, fun_kwargs, target, options)
        return self._call("explain", self._explain, request)

    def _explain(self, request: Request) -> tuple[Explanation, Any]:
        head = request.options["head"]

        def begin(features: Array) -> Array:
            outputs = head(features)
            _check_target(request.target, outputs)
            g = initial_relevance.cotangent(outputs, request.target)
            return head.relevance(features, g).astype(features.dtype)

        found = self.explainer(
            *request.args,
            target=begin,
            condition=request.options["condition"],
            fun_kwargs=request.kwargs,
        )
        outputs = head(found.output)
        return dataclasses.replace(found, output=outputs), outputs


def explain(head: Head, encoder: Explainer | None = None) -> HeadExplainer:
    """A function that explains a head, and by LRP the network below it.

    Args:
      head: such as `kmeans(centers)`.
      encoder: the result of `jaxlrp.explain` for a function that computes features (N, D), with its rules,
        `argnums` and `record`. None: the head's features are themselves the input.

    Returns:
      A `HeadExplainer`, a function `(*args, target=None, **kwargs) -> Explanation`. Arguments are those of
      the encoder. `target` selects an output of the head, as in `jaxlrp.explain`; `output` is that of the
      head. Relevance of the features sums to the explained output; rules of the encoder may absorb some
      of it on the way to the input.

    Raises:
      TypeError: if one is anything else.
      ValueError: if the encoder's relevance does not begin at its output, or reads gradients; when called,
        if `target` is a class and the head has one output for each sample.

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import heads
      >>> w = jax.random.normal(jax.random.key(0), (5, 3))
      >>> encoder = lrp.explain(lambda x: jax.nn.relu(x @ w))
      >>> explain = heads.explain(heads.kmeans([[0.0, 0, 0], [1.0, 1, 1]]), encoder)
      >>> result = explain(jnp.ones((2, 5)), target=lrp.targets.predicted)
      >>> result.output.shape, result.relevance.shape
      ((2, 2), (2, 5))
      >>> bool(jnp.allclose(result.relevance.sum(1), result.output.max(1), rtol=1e-4))
      True
    """
    if not isinstance(head, Head):
        raise TypeError(f"head must be a head such as heads.kmeans(centers), got {head!r}")
    encoder = explain_network(_same) if encoder is None else encoder
    if not isinstance(encoder, Explainer):
        raise TypeError(
            "encoder must be the result of jaxlrp.explain(...), not wrapped in jit or vmap, got "
            f"{encoder!r}"
        )
    if not encoder.conserves:
        raise ValueError(
            "the encoder's relevance must begin at its output and not be a gradient: leave out start, and "
            "take another composite than gradient()"
        )
    model = encoder.model
    name = f"{type(head).__name__}({model.name})"
    on_top = {
        "fun": functools.partial(_apply, head, model, model.fun),
        "call": functools.partial(_apply, head, model, model.call),
    }
    return HeadExplainer(head, encoder, dataclasses.replace(model, name=name, **on_top))


def _check_target(target: Target, outputs: Array) -> None:
    """Refuses a class where there are none: as an index it would choose a sample."""
    number = isinstance(target, int | np.integer | list | Predicted)
    if outputs.ndim == 1 and (
        number or jnp.issubdtype(getattr(target, "dtype", float), jnp.integer)
    ):
        raise ValueError(
            "target must be None, got a class: this head has one output for each sample, and no classes"
        )


def _same(features: Array) -> Array:
    return jax.numpy.asarray(features)


def _apply(head: Head, model: Model, fun: Any, *args: Any, **kwargs: Any) -> Any:
    """The head's outputs, with the auxiliary output of the network."""
    features, aux = model.split(fun(*args, **kwargs))
    return (head(features), aux) if model.has_aux else head(features)
