"""Training with relevance: layer-wise feedback propagation, and weights of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.explanation.explainer import Explainer
from jaxlrp.improve.checks import position_of_parameters
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def feedback(explainer: Explainer) -> Callable[..., Any]:
    r"""Layer-wise feedback propagation (LFP): relevance in place of the gradient of a loss.

    feedback of w_ij = |w_ij| a_i s_j,   s_j = r_j / z_j

    Each connection is rewarded for what it contributed to a rewarded output. No derivative of an activation
    is needed: networks of `jnp.sign` or `jnp.heaviside` train as well. For a ReLU network without epsilon,
    and `softmax_reward`, it is -|w| times the gradient of the cross entropy.

    Args:
      explainer: the result of `lrp.explain(f, composite, argnums=..., parameters=...)`, with one argument
        of parameters, whose rules define the relevance of parameters: LRP-0 or epsilon, such as
        `composites.all_epsilon(1e-6)`.

    Returns:
      A function `(*args, target, **kwargs)` that returns a pytree like the parameters, with the sign of a
      gradient: hand it to any optax optimizer. `target` is the reward at the output, such as
      `softmax_reward(labels)`.

    Raises:
      TypeError, ValueError: if the explainer is none, or has other than one argument of parameters.

    References:
      Weber et al. (2023), https://doi.org/10.48550/arXiv.2308.12053

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import improve
      >>> f = lambda w, x: x @ w
      >>> explain = lrp.explain(f, lrp.composites.all_epsilon(), argnums=1, parameters=0)
      >>> w, x = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([[1.0, 1.0]])
      >>> update = improve.feedback(explain)(w, x, target=improve.softmax_reward(jnp.array([0])))
      >>> update.shape
      (2, 2)
    """
    number = position_of_parameters(explainer)

    def function(*args: Any, target: Target = None, **kwargs: Any) -> Any:
        found = explainer(*args, target=target, **kwargs).parameters
        return jax.tree.map(lambda w, r: -jnp.sign(w) * r.astype(w.dtype), args[number], found)

    return function


def softmax_reward(labels: ArrayLike) -> Callable[[Array], Array]:
    """The reward of each output z under cross entropy: `z (onehot - softmax(z)) / N`. A target.

    Args:
      labels: (N,), class indices.

    References:
      Weber et al. (2023), https://doi.org/10.48550/arXiv.2308.12053
    """
    index = jnp.asarray(labels)
    if index.ndim != 1 or not jnp.issubdtype(index.dtype, jnp.integer):
        raise ValueError(
            f"labels must be class indices of shape (N,), got {index.dtype}{index.shape}"
        )

    def reward(z: Array) -> Array:
        if z.ndim != 2 or len(z) != len(index):
            raise ValueError(
                f"the output must have shape ({len(index)}, classes), one row for each label, got {z.shape}"
            )
        chosen = jax.nn.one_hot(index, z.shape[-1], dtype=z.dtype)
        return z * (chosen - jax.nn.softmax(z, axis=-1)) / len(z)

    return reward


def relevance_weights(relevance: ArrayLike, axis: int = -1, temperature: float = 1.0) -> Array:
    r"""Weights of features for LRP-guided training: `max(1, T) + T R / max |R|`, never negative.

    Train on `f(features * weights)` beside `f(features)`, so that the model relies more on what it finds
    relevant. The weights are constants: their derivative is zero. Where all relevance is zero they are
    max(1, T).

    Args:
      relevance: of features, (N, ..., features).
      axis: of the features, over which the maximum is taken.
      temperature: T, >= 0.

    References:
      Sun et al. (2021), https://doi.org/10.1109/ICPR48806.2021.9412941

    Example:
      >>> from jaxlrp import improve
      >>> improve.relevance_weights([[1.0, -2.0, 0.0]]).tolist()
      [[1.5, 0.0, 1.0]]
    """
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    r = jax.lax.stop_gradient(widen(jnp.asarray(relevance)))
    largest = jnp.max(jnp.abs(r), axis=axis, keepdims=True)
    return max(1.0, temperature) + temperature * jnp.where(
        largest > 0, r / jnp.where(largest > 0, largest, 1), 0
    )
