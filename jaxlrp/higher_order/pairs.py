"""Pairs of features that make two inputs similar (BiLRP)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

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
    each = factors(embed, composite, pool=pool, batch_size=batch_size)

    def of_pair(x: Array, other: Array) -> Array:
        a, b = each(jnp.asarray(x)), each(jnp.asarray(other))
        if len(a) != len(b):
            raise ValueError(
                f"the outputs for both inputs must have the same length, got {len(a)} and {len(b)}"
            )
        dtype = wide(a.dtype, b.dtype)
        return jnp.tensordot(a.astype(dtype), b.astype(dtype), axes=(0, 0), precision="highest")

    return of_pair


def factors(
    embed: Function,
    composite: CompositeLike = None,
    *,
    pool: Callable[[Array], Array] | None = None,
    directions: ArrayLike | None = None,
    batch_size: int = 32,
) -> Callable[[Array], Array]:
    r"""The relevance of an input for each output of an embedding: BiLRP without the product.

    y = <P phi(x), P phi(x')>,   R_ij = sum_k A_ki A'_kj,   A_ki = R_i((P phi)_k (x))

    `pairs` multiplies the factors A of two inputs. For inputs of 224 x 224 pixels the product would have
    2.5 billion numbers, and of one query with many inputs, each has to be explained only once: keep the
    factors, and multiply those of patches, or of the pixels in question.

    Args:
      embed, composite, pool, batch_size: as in `pairs`.
      directions: P, (K, outputs): combinations of outputs to explain in place of all of them. With K random
        directions of variance 1 / K, products are those of all outputs on average.

    Returns:
      A function from an input x to A, (K, *shape of pooled x); K is the number of outputs without
      `directions`.

    Raises:
      ValueError: when the directions do not fit the output.

    References:
      Eberle et al. (2020), https://doi.org/10.1109/TPAMI.2020.3020738

    Example:
      >>> w = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> found = factors(lambda x: x @ w)(jnp.array([1.0, 2.0]))
      >>> jnp.rint(found).astype(int).tolist()
      [[1, 2], [0, 2]]
    """
    explained = explain(embed, composite)
    given = None if directions is None else jnp.asarray(directions)

    def each(x: Array) -> Array:
        shape = jax.eval_shape(embed, x).shape
        size = int(np.prod(shape, dtype=int))
        if given is not None and (given.ndim != 2 or given.shape[1] != size):
            raise ValueError(
                f"directions must have shape (K, {size}), one column for each output, got {given.shape}"
            )
        count = size if given is None else len(given)

        def of_output(k: Array) -> Array:
            def alone(out: Array) -> Array:
                if given is not None:
                    return given[k].reshape(out.shape).astype(out.dtype) * out
                return jnp.where(jnp.arange(size).reshape(out.shape) == k, out, jnp.zeros_like(out))

            found = explained(x, target=alone).relevance
            return widen(found if pool is None else pool(found))

        return lax.map(of_output, jnp.arange(count), batch_size=min(batch_size, count))

    return each
