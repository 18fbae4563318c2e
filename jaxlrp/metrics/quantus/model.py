"""JAX models for Quantus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics.randomization.order import Layers, ordered
from jaxlrp.metrics.randomization.randomize import Order, randomize


@dataclasses.dataclass(frozen=True, eq=False)
class QuantusModel:
    """A JAX model for Quantus; `quantus_model` makes it.

    Attributes:
      fun: from (variables, inputs) to logits (n, classes).
      variables: pytree of arrays.
      channels_last: whether the inputs of `fun` are channels-last.
      layers: those that are randomized, from the input to the output.
      initialize: from a random key to new variables.
      hidden: from (variables, inputs) to hidden representations by name, (n, ...) each.
      batch_size: how many inputs are evaluated at once.
    """

    fun: Callable[[Any, Array], Array]
    variables: Any
    channels_last: bool
    layers: tuple[str, ...]
    initialize: Callable[[Array], Any] | None
    hidden: Callable[[Any, Array], Mapping[str, Array]] | None
    batch_size: int

    def __call__(self, inputs: ArrayLike) -> np.ndarray:
        """Logits (n, classes) of inputs that are channels-first, as Quantus has them."""
        return in_batches(self.fun, self, np.asarray(inputs))

    def to_model(self, array: Any) -> Any:
        """An array of Quantus in the layout of the model."""
        return np.moveaxis(array, 1, -1) if self.channels_last and array.ndim > 2 else array

    def to_quantus(self, array: Any) -> np.ndarray:
        """An array of the model in the layout of Quantus."""
        array = np.asarray(array)
        return np.moveaxis(array, -1, 1) if self.channels_last and array.ndim > 2 else array

    def randomized(self, order: Order, seed: int) -> Iterator[tuple[str, QuantusModel]]:
        """The model with one layer after the other randomized, as MPRT needs it.

        Args:
          order: as for `metrics.randomize`.
          seed: of the new variables.

        Raises:
          ValueError: if the model has no `layers` or no `initialize`.
        """
        if not self.layers or self.initialize is None:
            raise ValueError(
                "randomizing a model needs quantus_model(..., layers=..., initialize=...): layers from the "
                "input to the output, such as metrics.evaluation_order(fun, variables, x) gives, and a "
                "function from a random key to new variables, such as lambda key: module.init(key, x)"
            )
        key = jax.random.key(seed)
        options: dict[str, Any] = {"layers": self.layers, "order": order}
        for path, variables in randomize(self.initialize, self.variables, key, **options):
            yield path, dataclasses.replace(self, variables=variables)

    def representations(self, inputs: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
        """Hidden representations of some layers, or of all, concatenated: (n, values).

        Raises:
          ValueError: if the model has no `hidden`, or none of that name.
        """
        if self.hidden is None:
            raise ValueError(
                "hidden representations need quantus_model(..., hidden=...): a function from (variables, "
                "inputs) to a dictionary of arrays"
            )
        found = in_batches(self.hidden, self, inputs)
        if unknown := set(names or ()) - set(found):
            raise ValueError(f"layer_names {sorted(unknown)} are not among {sorted(found)}")
        chosen = [found[name] for name in names or found]
        return np.concatenate([a.reshape(len(inputs), -1) for a in chosen], axis=1)


def quantus_model(
    fun: Callable[..., Array],
    variables: Any = None,
    *,
    channels_last: bool = True,
    layers: Layers | None = None,
    initialize: Callable[[Array], Any] | None = None,
    hidden: Callable[[Any, Array], Mapping[str, Array]] | None = None,
    batch_size: int = 64,
) -> QuantusModel:
    """A model that Quantus takes inside `accepted`.

    Args:
      fun: from (variables, inputs) to logits (n, classes), such as the `apply` of a Linen module; without
        variables, from inputs alone.
      variables: of the model, a pytree.
      channels_last: whether `fun` has the channels of images and signals last.
      layers: for the metrics that randomize the model: those to randomize, from the input to the output, as
        for `metrics.randomize`: their paths or a plan.
      initialize: for the same: from a random key to new variables, or a new NNX module, such as
        `lambda key: module.init(key, x[:1])`.
      hidden: for `RelativeRepresentationStability`: from (variables, inputs) to hidden representations by
        name.
      batch_size: how many inputs are evaluated at once, >= 1. Batches are padded to a power of two, so that
        few programs are compiled.

    Raises:
      TypeError: if `fun` is not a function.
      KeyError: if the variables have no such layer.
    """
    if not callable(fun):
        raise TypeError(
            f"fun must be a function of (variables, inputs), got {type(fun).__name__}; for a Linen module "
            "pass module.apply"
        )
    check_count("batch_size", batch_size)
    call = fun if variables is not None else lambda _, x: fun(x)
    return QuantusModel(
        jax.jit(call), variables, channels_last,
        () if layers is None else ordered(layers, variables), initialize,
        None if hidden is None else jax.jit(hidden), batch_size,
    )  # fmt: skip


def in_batches(
    run: Callable[..., Any], model: QuantusModel, inputs: np.ndarray, *others: Any
) -> Any:
    """`run(variables, inputs, *others)`, in batches that are filled up to a power of two with zeros."""
    parts = []
    for start in range(0, len(inputs), model.batch_size):
        part = [a[start : start + model.batch_size] for a in (model.to_model(inputs), *others)]
        n = len(part[0])
        size = min(1 << (n - 1).bit_length(), model.batch_size)
        filled = [
            jnp.asarray(np.concatenate([a, np.repeat(a[:1], size - n, axis=0)])) for a in part
        ]
        found = run(model.variables, *filled)
        parts.append(jax.tree.map(lambda a, n=n: np.asarray(a[:n]), found))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def paths_of(variables: Any) -> list[str]:
    """The path of each array in the variables, such as "params/Dense_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
