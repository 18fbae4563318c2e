"""Pruning single weights by relevance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_one_of
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.improve.checks import position_of_parameters
from jaxlrp.improve.pruning import masks
from jaxlrp.targets import Target

T = TypeVar("T")


def weight_relevance(explainer: Explainer, *, reduce: str = "abs") -> Callable[..., Any]:
    """The relevance of each weight over reference samples n: what pruning ranks single weights by.

    S_ij = |sum_n R_ij(x_n)|,   R_ij = w_ij sum_p a_ip R_jp / z_jp

    Args:
      explainer: the result of `jaxlrp.explain(f, composite, argnums=..., parameters=...)`, with one
        argument of parameters and rules that say what a parameter carries, such as epsilon.
      reduce: "abs", or "signed": weights that speak against the target go first.

    Returns:
      A function `(*args, target=None)` that returns a pytree like the parameters.

    Raises:
      TypeError, ValueError: if the explainer is none, or has other than one argument of parameters.

    References:
      Hatefi et al. (2025), https://doi.org/10.48550/arXiv.2506.13727

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import improve
      >>> explain = lrp.explain(lambda w, x: x @ w, lrp.LRP0(), argnums=1, parameters=0)
      >>> score = improve.weight_relevance(explain)
      >>> score(jnp.array([[1.0], [-2.0]]), jnp.array([[1.0, 1.0], [1.0, 3.0]]), target=0).tolist()
      [[2.0], [8.0]]
    """
    check_one_of("reduce", reduce, ("abs", "signed"))
    position_of_parameters(explainer)

    def function(*args: Any, target: Target = None, **kwargs: Any) -> Any:
        found = explainer(*args, target=target, **kwargs).parameters
        return found if reduce == "signed" else jax.tree.map(jnp.abs, found)

    return function


def weight_masks(scores: T, rate: ArrayLike, *, scope: str = "global") -> T:
    """Which weights stay if the fraction `rate` of them with the lowest scores goes.

    Args:
      scores: a pytree of arrays, such as the kernels of `weight_relevance`. Leave biases out: arrays that
        are None stay as they are.
      rate: in [0, 1). It may be traced.
      scope: "global" or "layer", as in `masks`.

    Returns:
      A pytree of booleans of the same structure and shapes, True for weights that stay.

    Raises:
      ValueError: as `masks`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> improve.weight_masks({"kernel": jnp.array([[3.0, 1.0], [2.0, 4.0]])}, 0.5)["kernel"].tolist()
      [[True, False], [False, True]]
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(scores)
    named = {jax.tree_util.keystr(keys): jnp.ravel(leaf) for keys, leaf in leaves}
    kept = masks(named, rate, scope=scope)
    shaped = [
        kept[name].reshape(jnp.shape(leaf)) for name, (_, leaf) in zip(named, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, shaped)


def mask_weights(parameters: T, kept: Any) -> T:
    """Parameters with zeros where a mask is False.

    Args:
      parameters: a pytree of arrays. Not changed.
      kept: booleans, of the same structure; None for arrays that stay as they are.

    Raises:
      ValueError: if a mask has another shape than its array, or another dtype than booleans.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> params, kept = {"w": jnp.ones(2), "b": jnp.ones(1)}, {"w": jnp.array([True, False]), "b": None}
      >>> improve.mask_weights(params, kept)["w"].tolist()
      [1.0, 0.0]
    """

    def one(keys: Any, mask: Any, leaf: Array) -> Array:
        if mask is None:
            return leaf
        mask = jnp.asarray(mask)
        if mask.dtype != bool or mask.shape != jnp.shape(leaf):
            raise ValueError(
                f"kept{jax.tree_util.keystr(keys)} must be booleans of shape {jnp.shape(leaf)}, got "
                f"{mask.dtype} of shape {mask.shape}"
            )
        return jnp.where(mask, leaf, 0)

    return jax.tree_util.tree_map_with_path(one, kept, parameters, is_leaf=lambda m: m is None)
