"""Our models and explainers in Quantus, without PyTorch or TensorFlow.

    import quantus
    from jaxlrp.metrics import quantus as bridge

    model = bridge.quantus_model(module.apply, variables)
    with bridge.accepted():
        scores = quantus.PixelFlipping()(
            model=model, x_batch=bridge.channels_first(x), y_batch=y, channel_first=True,
            explain_func=bridge.explain_func(explainer),
        )

Quantus holds images as (n, channels, height, width) and signals as (n, channels, length). Models and
explainers here see them channels-last, unless the model says otherwise.

Needs quantus 0.6, which accepts models of PyTorch and TensorFlow only; inside `accepted` it takes these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._extras import need
from jaxlrp.explanation.base import BaseExplainer
from jaxlrp.explanation.result import Explanation


@dataclasses.dataclass(frozen=True, eq=False)
class QuantusModel:
    """A JAX model for Quantus; `quantus_model` makes it.

    Attributes:
      fun: from (variables, inputs) to logits (n, classes).
      variables: pytree of arrays.
      channels_last: whether the inputs of `fun` are channels-last.
      layers: paths of variables, from the input to the output, that are randomized together.
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
        return _in_batches(self.fun, self, np.asarray(inputs))

    def to_model(self, array: Any) -> Any:
        """An array of Quantus in the layout of the model."""
        return np.moveaxis(array, 1, -1) if self.channels_last and array.ndim > 2 else array

    def to_quantus(self, array: Any) -> np.ndarray:
        """An array of the model in the layout of Quantus."""
        array = np.asarray(array)
        return np.moveaxis(array, -1, 1) if self.channels_last and array.ndim > 2 else array

    def randomized(self, order: str, seed: int) -> Iterator[tuple[str, QuantusModel]]:
        """The model with one layer after the other randomized, as MPRT needs it.

        Args:
          order: "top_down" and "bottom_up" keep what was randomized before, "independent" does not.
          seed: of the new variables.

        Raises:
          ValueError: if the model has no `layers` or no `initialize`.
        """
        if not self.layers or self.initialize is None:
            raise ValueError(
                "randomizing a model needs quantus_model(..., layers=..., initialize=...): paths of "
                f"variables from the input to the output, of {_paths(self.variables)}, and a function "
                "from a random key to new variables, such as lambda key: module.init(key, x)"
            )
        new = self.initialize(jax.random.key(seed))
        names = self.layers if order == "bottom_up" else self.layers[::-1]
        for i, name in enumerate(names):
            chosen = (name,) if order == "independent" else names[: i + 1]
            yield name, dataclasses.replace(self, variables=_replaced(self.variables, new, chosen))


def quantus_model(
    fun: Callable[..., Array],
    variables: Any = None,
    *,
    channels_last: bool = True,
    layers: Sequence[str] = (),
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
      layers: for the metrics that randomize the model: paths in `variables`, such as "params/Dense_0", from
        the input to the output.
      initialize: for the same: from a random key to new variables, such as
        `lambda key: module.init(key, x[:1])`.
      hidden: for `RelativeRepresentationStability`: from (variables, inputs) to hidden representations by
        name.
      batch_size: how many inputs are evaluated at once, >= 1. Batches are filled up to a power of two, so
        that there are few programs.

    Raises:
      TypeError: if `fun` is no function.
      ValueError: if a layer is no path in the variables.
    """
    if not callable(fun):
        raise TypeError(
            f"fun must be a function of (variables, inputs), got {type(fun).__name__}; for a Linen module "
            "give module.apply"
        )
    check_count("batch_size", batch_size)
    paths = _paths(variables)
    for layer in layers:
        if not any(_below(path, layer) for path in paths):
            raise ValueError(f"layers: {layer!r} is no path in the variables, which are {paths}")
    call = fun if variables is not None else lambda _, x: fun(x)
    return QuantusModel(
        jax.jit(call), variables, channels_last, tuple(layers), initialize,
        None if hidden is None else jax.jit(hidden), batch_size,
    )  # fmt: skip


def explain_func(
    explainer: BaseExplainer | Callable[[Any, Array, Array], Any], *, reduce_channels: bool = False
) -> Callable[..., np.ndarray]:
    """An explainer as the `explain_func` of Quantus, for models made by `quantus_model`.

    Args:
      explainer: of `jaxlrp.explain` or `jaxlrp.baselines`, called as
        `explainer(variables, inputs, target=targets)`, without variables if the model has none; or a function
        of (variables, inputs, targets) that returns relevance or an `Explanation`.
      reduce_channels: sum relevance over channels.

    Returns:
      A function `(model, inputs, targets, **kwargs) -> relevance`, compiled once for each size of batch.
    """

    def relevance(variables: Any, inputs: Array, targets: Array) -> Array:
        if not isinstance(explainer, BaseExplainer):
            found = explainer(variables, inputs, targets)
        elif variables is None:
            found = explainer(inputs, target=targets)
        else:
            found = explainer(variables, inputs, target=targets)
        return found.relevance if isinstance(found, Explanation) else found

    run = jax.jit(relevance)

    def explain(model: Any, inputs: ArrayLike, targets: ArrayLike, **kwargs: Any) -> np.ndarray:
        """Relevance like the inputs, which are channels-first."""
        model = getattr(model, "model", model)  # Quantus gives some metrics its wrapper
        if not isinstance(model, QuantusModel):
            raise TypeError(
                f"this explain_func explains models of quantus_model, got {type(model).__name__}"
            )
        found = _in_batches(run, model, np.asarray(inputs), np.asarray(targets))
        found = model.to_quantus(found)
        return found.sum(axis=1, keepdims=True) if reduce_channels else found

    return explain


def channels_first(array: Any) -> np.ndarray:
    """Inputs, attributions or an `Explanation`, channels-last, as Quantus takes them: (n, channels, ...).

    Example:
      >>> import numpy as np
      >>> from jaxlrp import metrics
      >>> metrics.quantus.channels_first(np.zeros((8, 28, 30, 3))).shape
      (8, 3, 28, 30)
    """
    found = np.asarray(array.relevance if isinstance(array, Explanation) else array)
    return np.moveaxis(found, -1, 1) if found.ndim > 2 else found


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """While it is open, Quantus accepts models of `quantus_model`.

    It replaces the function by which Quantus wraps a model, and `calculate_auc` where NumPy 2.4 has no
    `trapz` any more, and puts both back on exit. Not for use by several threads at once.

    Raises:
      ImportError: if quantus is not installed.
    """
    utils = need("quantus.helpers.utils", "metrics.quantus", "quantus")
    original = utils.get_wrapped_model

    def wrapped(model: Any, channel_first: bool, softmax: bool, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, QuantusModel):
            return _interface()(model, softmax=bool(softmax))
        return original(model, channel_first, softmax, *args, **kwargs)

    def area(values: Any, dx: int = 1, batched: bool = False) -> Any:
        return np.trapezoid(np.array(values), dx=dx, axis=1 if batched else -1)

    new = {"get_wrapped_model": wrapped}
    if not hasattr(np, "trapz"):
        new["calculate_auc"] = area
    old = {name: getattr(utils, name) for name in new}
    try:
        for name, function in new.items():
            setattr(utils, name, function)
        yield
    finally:
        for name, function in old.items():
            setattr(utils, name, function)


@functools.cache
def _interface() -> type:
    """The class that Quantus talks to, made where quantus is installed."""
    interface = importlib.import_module("quantus.helpers.model.model_interface").ModelInterface

    class Wrapper(interface):
        """What Quantus asks of a model. Arrays are channels-first on this side."""

        def __init__(self, model: QuantusModel, softmax: bool) -> None:
            super().__init__(model, channel_first=True, softmax=softmax)

        def predict(self, x: np.ndarray, **kwargs: Any) -> np.ndarray:
            logits = self.model(x)
            return np.asarray(jax.nn.softmax(logits)) if self.softmax else logits

        def shape_input(
            self,
            x: np.ndarray,
            shape: Any,
            channel_first: bool | None = None,
            batched: bool = False,
        ) -> np.ndarray:
            return x.reshape(shape if batched else (1, *shape))

        def get_model(self) -> QuantusModel:
            return self.model

        def get_softmax_arg_model(self) -> QuantusModel:
            return self.model

        def state_dict(self) -> dict[str, np.ndarray]:
            leaves = jax.tree.leaves(self.model.variables)
            return dict(zip(_paths(self.model.variables), map(np.asarray, leaves), strict=True))

        def get_random_layer_generator(
            self, order: str = "top_down", seed: int = 42
        ) -> Iterator[tuple[str, QuantusModel]]:
            return self.model.randomized(order, seed)

        @property
        def random_layer_generator_length(self) -> int:
            return len(self.model.layers)

        def add_mean_shift_to_first_layer(self, input_shift: float, shape: Any) -> QuantusModel:
            raise NotImplementedError(
                "Quantus' InputInvariance needs the first layer of a PyTorch model: use "
                "jaxlrp.metrics.InputInvariance"
            )

        def get_hidden_representations(
            self,
            x: np.ndarray,
            layer_names: Sequence[str] | None = None,
            layer_indices: Sequence[int] | None = None,
        ) -> np.ndarray:
            return _hidden(self.model, x, layer_names, layer_indices)

        @property
        def get_ml_framework_name(self) -> str:
            return "jax"

    return Wrapper


def _hidden(
    model: QuantusModel,
    x: np.ndarray,
    names: Sequence[str] | None,
    indices: Sequence[int] | None,
) -> np.ndarray:
    """Hidden representations of some layers, or of all, beside each other: (n, values)."""
    if model.hidden is None:
        raise ValueError(
            "hidden representations need quantus_model(..., hidden=...): a function from (variables, "
            "inputs) to a dictionary of arrays"
        )
    found = _in_batches(model.hidden, model, x)
    if names or indices:
        known = list(found)
        chosen = [*(names or ()), *(known[i] for i in indices or ())]
        found = {name: found[name] for name in chosen}
    return np.concatenate([a.reshape(len(x), -1) for a in found.values()], axis=1)


def _in_batches(
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


def _paths(variables: Any) -> list[str]:
    """The path of each array in the variables, such as "params/Dense_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def _below(path: str, layer: str) -> bool:
    return path == layer or path.startswith(f"{layer}/")


def _replaced(variables: Any, new: Any, layers: Sequence[str]) -> Any:
    """The variables with those of some layers taken from others."""
    leaves, tree = jax.tree.flatten(variables)
    others = tree.flatten_up_to(new)
    chosen = [any(_below(path, layer) for layer in layers) for path in _paths(variables)]
    return tree.unflatten([b if c else a for a, b, c in zip(leaves, others, chosen, strict=True)])
