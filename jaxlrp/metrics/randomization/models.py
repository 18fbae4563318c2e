"""What metrics that randomize a model share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp._checks import check_count
from jaxlrp.metrics import given
from jaxlrp.metrics.metric import Metric
from jaxlrp.metrics.randomization.order import Layers
from jaxlrp.metrics.randomization.randomize import Init
from jaxlrp.metrics.work import in_batches

ExplainModel = Callable[..., Any]
"""From variables, inputs, targets, and the arrays of `context` by name, to relevance or an explanation."""


class Trained(NamedTuple):
    """What a metric that randomizes a model works with.

    Attributes:
      explain: from variables, inputs (b, ...), targets and the context by name to attributions.
      variables: pytree of the trained parameters.
      inputs: (n, ...).
      targets: (n,), None for a function with one output.
      context: further arguments of `explain` by name, (n, ...) each.
      key: one random key.
    """

    explain: ExplainModel
    variables: Any
    inputs: Array
    targets: Array | None
    context: dict[str, Array]
    key: Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OfModels(Metric):
    """A metric that compares explanations of a model with those of the model randomized.

    Attributes:
      model: a Linen module; or a function from a random key to variables or to a new NNX module.
      layers: paths of layers from the input to the output, or a plan; None as for `randomize`.
      batch_size: how many samples are explained at once, >= 1.
    """

    model: Init
    layers: Layers | None = None
    batch_size: int = 128
    needs: ClassVar[tuple[str, ...]] = ("explain", "variables", "inputs", "targets")

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)

    @property
    def random(self) -> bool:
        return True

    def _case(
        self, explain: Any, variables: Any, inputs: Any, targets: Any, context: Any, key: Any
    ) -> Trained:
        """The arguments of a call, checked."""
        if not callable(explain):
            raise TypeError(
                "explain must be a function of (variables, inputs, targets), got "
                f"{type(explain).__name__}"
            )
        x = given.as_inputs(inputs)
        if key is not None and getattr(key, "ndim", 0):
            raise ValueError(
                f"key must be one random key such as jax.random.key(0), got keys of shape {key.shape}"
            )
        given.as_keys(key, 1, self.name)
        assert key is not None
        return Trained(
            explain, variables, x, given.as_targets(targets, len(x)),
            given.as_context(context, len(x)), key,
        )  # fmt: skip

    def _compiled(self, what: str, fun: Callable[..., Any], *arguments: Any) -> Any:
        """`fun(*arguments)`, compiled once if the arguments are concrete arrays."""
        if not _compat.is_eager():
            return fun(*arguments)
        return self._programs.run(
            what, lambda held: (fun(*held), None), arguments, lambda shapes: None
        )

    def _explained(self, case: Trained, variables: Any) -> Array:
        """The attributions of a model, (n, ...)."""
        held = case.inputs, case.targets, case.context
        return self._compiled("explain", explained, case.explain, variables, *held, self.batch_size)


def explained(
    explain: ExplainModel, variables: Any, inputs: Array, targets: Array | None,
    context: Mapping[str, Array], batch_size: int,
) -> Array:  # fmt: skip
    """The attributions of samples, (n, ...), at most `batch_size` at once."""

    def some(items: tuple[Array, Array | None, Mapping[str, Array]]) -> Array:
        x, y, named = items
        return given.as_attributions(explain(variables, x, y, **named), x)

    return in_batches(some, (inputs, targets, dict(context)), batch_size)


def smoothed(
    explain: ExplainModel, variables: Any, inputs: Array, targets: Array | None,
    context: Mapping[str, Array], batch_size: int, keys: Array, draws: int, noise: float,
) -> Array:  # fmt: skip
    """The mean attributions of samples with noise, (n, ...); the last draw has none.

    Args:
      keys: a random key for each sample, (n,).
      draws: how many, >= 1.
      noise: standard deviation, in units of the range of the values of each sample.
    """
    axes = tuple(range(1, inputs.ndim))
    spread = noise * (inputs.max(axis=axes, keepdims=True) - inputs.min(axis=axes, keepdims=True))

    def add(total: Array | None, draw: Array) -> tuple[Array, None]:
        drawn = jax.vmap(
            lambda key: jax.random.normal(
                jax.random.fold_in(key, draw), inputs.shape[1:], inputs.dtype
            )
        )(keys)
        changed = inputs + jnp.where(draw < draws - 1, spread, 0) * drawn
        found = explained(explain, variables, changed, targets, context, batch_size)
        return (found if total is None else total + found), None

    first, _ = add(None, jnp.asarray(0))
    total, _ = jax.lax.scan(add, first, jnp.arange(1, draws))
    return total / draws
