"""The last layer of a prototype network, fitted again after prototypes were deselected."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.prototypes.layer import PrototypeLayer


def refit(
    layer: PrototypeLayer,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    l2: float = 1e-3,
    steps: int = 200,
) -> PrototypeLayer:
    r"""Fits the weights and biases of the last layer again; prototypes stay as they are.

    min_{w, b} mean cross entropy of softmax(s (m w) + b) + l2 |m (w - w_0)|^2

    w_0 are the weights before. Deselected prototypes stay deselected. The objective is convex; L-BFGS.

    Args:
      layer: from `layer`, after `deselect`.
      features: (N, ..., C), of training samples.
      labels: (N,), class indices.
      l2: >= 0. Above zero, weights stay close to those before.
      steps: of L-BFGS at most.

    Returns:
      The layer with other weights and biases.

    Raises:
      ValueError: if labels do not fit, or an option is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import prototypes
      >>> z = jax.random.normal(jax.random.key(0), (20, 3, 2))
      >>> y = jnp.arange(20) % 2
      >>> before = prototypes.layer(z[:4, 0], jnp.zeros((4, 2))).deselect([1])
      >>> after = prototypes.refit(before, z, y)
      >>> bool((after(z).argmax(1) == y).mean() > 0.5), float(abs(after.mask[1]).sum())
      (True, 0.0)
    """
    outputs = layer.mask.shape[1]
    z = layer.similarities.positions(features)
    y = np.asarray(labels)
    if y.shape != (len(z),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"labels must be {len(z)} class indices, one for each sample, got {y.dtype} of shape {y.shape}"
        )
    if y.min() < 0 or y.max() >= outputs:
        raise ValueError(
            f"labels must be from 0 to {outputs - 1}, got values from {y.min()} to {y.max()}"
        )
    if isinstance(l2, str) or not float(l2) >= 0:
        raise ValueError(f"l2 must be >= 0, got {l2!r}")
    s = layer.similarities(features)
    scale = jnp.asarray(l2, s.dtype)
    count = check_count("steps", steps)
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
        made = _fit(layer, s, jnp.asarray(y), scale, steps=count)
    weights, bias = (
        a.astype(b.dtype) for a, b in zip(made, (layer.weights, layer.bias), strict=True)
    )
    return dataclasses.replace(layer, weights=weights, bias=bias)


@partial(jax.jit, static_argnames="steps")
def _fit(layer: PrototypeLayer, s: Array, y: Array, l2: Array, *, steps: int) -> Any:
    begun, mask = layer.weights.astype(s.dtype), layer.mask.astype(s.dtype)

    def objective(params: Any) -> Array:
        w, b = params
        logits = jnp.dot(s, w * mask, precision="highest") + b
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss + l2 * ((mask * (w - begun)) ** 2).sum()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(held: Any, _: None) -> tuple[Any, None]:
        params, state = held
        value, g = value_and_grad(params, state=state)
        updates, state = optimizer.update(g, state, params, value=value, grad=g, value_fn=objective)
        return (optax.apply_updates(params, updates), state), None

    params = begun, layer.bias.astype(s.dtype)
    return jax.lax.scan(step, (params, optimizer.init(params)), None, steps)[0][0]
