"""Pairs of features that make two inputs similar (BiLRP)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp.explanation.explainer import explain
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.network.model import Function
from jaxlrp.numerics import wide, widen


def pairs(
    embed: Function,
    composite: CompositeLike = None,
    *,
    pool: Callable[[Array], Array] | None = None,
    batch_size: int = 32,
) -> Callable[[Array, Array], Array]:
    r"""Explains which pairs of features make two inputs similar (BiLRP), a second-order explanation.

    y = <phi(x), phi(x')>,   R_ij = sum_m R_i(phi_m(x)) R'_j(phi_m(x'))

    where R(phi_m) is the relevance of the input for the m-th output alone. It
    sums to y, up to what rules absorb.

    Args:
      embed: phi, for one example: a function from an array to an array, of any shape.
      composite: the rules; `composites.default()` if None.
      pool: function from relevance in the shape of the input to a smaller array, such as sums over patches.
        The size of the result is the product of two pooled sizes.
      batch_size: number of outputs to explain at once, >= 1. Only affects memory and speed.

    Returns:
      A function from two inputs (x, x') to R, (*shape of pooled x, *shape of pooled x').

    References:
      Eberle et al. (2020), https://doi.org/10.1109/TPAMI.2020.3020738

    Example:
      >>> w = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> found = pairs(lambda x: x @ w)(jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0]))
      >>> jnp.rint(found).astype(int).tolist()
      [[3, 1], [6, 4]]
    """
    explained = explain(embed, composite)

    def each(x: Array) -> Array:
        size = np.prod(jax.eval_shape(embed, x).shape, dtype=int)

        def of_output(m: Array) -> Array:
            def alone(out: Array) -> Array:
                return jnp.where(jnp.arange(size).reshape(out.shape) == m, out, jnp.zeros_like(out))

            found = explained(x, target=alone).relevance
            return widen(found if pool is None else pool(found))

        return lax.map(of_output, jnp.arange(size), batch_size=min(batch_size, size))

    def of_pair(x: Array, other: Array) -> Array:
        a, b = each(jnp.asarray(x)), each(jnp.asarray(other))
        if len(a) != len(b):
            raise ValueError(
                f"the outputs for both inputs must have the same length, got {len(a)} and {len(b)}"
            )
        dtype = wide(a.dtype, b.dtype)
        return jnp.tensordot(a.astype(dtype), b.astype(dtype), axes=(0, 0), precision="highest")

    return of_pair
