"""Networks that are trained on the difference from a reference, without biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any


def without_biases(
    params: Params,
    optimizer: optax.GradientTransformation,
    is_bias: Callable[[tuple[Any, ...], Any], bool] | None = None,
) -> tuple[Params, optax.GradientTransformation]:
    r"""Parameters and an optimizer for training on y - y_ref without biases.

    g(x) ~ y - y_ref,   g(0) = 0,   sum_i R_i = g(x)

    The second way to explain a regression against a reference: retrain the network for each reference. With
    ReLU and without biases nothing absorbs relevance, so that of the inputs, not only of hidden features,
    sums to the difference, by LRP-0 or a small epsilon. An input of zero predicts the reference;
    standardize inputs, so that zero means average. Compare its error with that of the first network:
    without biases it is another model.

    Args:
      params: a pytree of arrays, as the model's `init` returns it. Not modified.
      optimizer: for the other parameters.
      is_bias: from the path of a parameter (as in `jax.tree_util.tree_map_with_path`) and the array to
        whether it is a bias. None: its last key is "bias".

    Returns:
      The parameters with biases of zero, and an optimizer that keeps them so.

    Raises:
      ValueError: if no parameter is a bias.

    References:
      Letzgus et al. (2022), https://doi.org/10.1109/MSP.2022.3153277

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from jaxlrp import heads
      >>> params = {"dense": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}}
      >>> params, optimizer = heads.without_biases(params, optax.sgd(0.1))
      >>> state = optimizer.init(params)
      >>> updates, _ = optimizer.update({"dense": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}}, state)
      >>> optax.apply_updates(params, updates)["dense"]["bias"].tolist()
      [0.0]
    """
    chosen = _named_bias if is_bias is None else is_bias
    labels = jax.tree_util.tree_map_with_path(
        lambda path, leaf: "bias" if chosen(path, leaf) else "other", params
    )
    if "bias" not in jax.tree.leaves(labels):
        paths = [
            jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        raise ValueError(
            f"none of the parameters is a bias: {', '.join(paths)}. Give is_bias, such as "
            "lambda path, leaf: leaf.ndim == 1, or train params as they are"
        )
    zeroed = jax.tree.map(
        lambda leaf, label: jnp.zeros_like(leaf) if label == "bias" else leaf, params, labels
    )
    parts: dict[Any, optax.GradientTransformation] = {
        "bias": optax.set_to_zero(),
        "other": optimizer,
    }
    return zeroed, optax.partition(parts, labels)


def _named_bias(path: tuple[Any, ...], leaf: Any) -> bool:
    last = path[-1] if path else None
    return getattr(last, "key", getattr(last, "name", None)) == "bias"
