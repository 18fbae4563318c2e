"""What Quantus calls: explainers, and models inside `accepted`."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._extras import need
from jaxlrp.explanation.base import BaseExplainer
from jaxlrp.explanation.result import Explanation
from jaxlrp.metrics.quantus.model import QuantusModel, in_batches, paths_of


def explain_func(explainer: Any, *, reduce_channels: bool = False) -> Callable[..., np.ndarray]:
    """An explainer as the `explain_func` of Quantus, for models made by `quantus_model`.

    Args:
      explainer: of `jaxlrp.explain` or `jaxlrp.baselines`, called as
        `explainer(variables, inputs, target=targets)`, without variables if the model has none; or a
        function of (variables, inputs, targets) that returns relevance or an `Explanation`.
      reduce_channels: sum relevance over channels.

    Returns:
      A function `(model, inputs, targets, **kwargs) -> relevance`, compiled once for each batch size.
    """

    def relevance(variables: Any, inputs: Array, targets: Array) -> Array:
        call: Callable[..., Any] = explainer
        if not isinstance(explainer, BaseExplainer):
            found = call(variables, inputs, targets)
        elif variables is None:
            found = call(inputs, target=targets)
        else:
            found = call(variables, inputs, target=targets)
        return found.relevance if isinstance(found, Explanation) else found

    run = jax.jit(relevance)

    def explain(model: Any, inputs: ArrayLike, targets: ArrayLike, **kwargs: Any) -> np.ndarray:
        """Relevance like the inputs, which are channels-first."""
        model = getattr(model, "model", model)  # Quantus gives some metrics its wrapper
        if not isinstance(model, QuantusModel):
            raise TypeError(
                f"this explain_func explains models of quantus_model, got {type(model).__name__}"
            )
        found = in_batches(run, model, np.asarray(inputs), np.asarray(targets))
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

    It replaces the function with which Quantus wraps a model, and `calculate_auc` if NumPy no longer has
    `trapz` (from 2.4 on), and restores both on exit. Do not use it in several threads at once.

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

    new: dict[str, Callable[..., Any]] = {"get_wrapped_model": wrapped}
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
            return dict(zip(paths_of(self.model.variables), map(np.asarray, leaves), strict=True))

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
            if layer_indices:
                raise ValueError(
                    "pass layer_names, not indices: layers of a JAX model have no indices"
                )
            return self.model.representations(x, layer_names)

        @property
        def get_ml_framework_name(self) -> str:
            return "jax"

    return Wrapper
