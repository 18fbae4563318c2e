"""Laplace approximations with a full covariance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxlrp import _compat
from jaxlrp.training_data.gradients import summed


def check_size(params: Any, chosen: Any, most: int) -> None:
    """Refuses a covariance of more parameters than `most`."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    size = sum(np.size(leaf) for leaf, drawn in pairs if drawn)
    if size > most:
        raise ValueError(
            f'form="full" is for at most max_parameters={most} parameters, but {size} are drawn: choose '
            'the last layer by sampled=, use form="diagonal", or raise max_parameters (memory: its square)'
        )


def full_laplace(
    loss: Any, params: Any, data: Any, key: Array, count: int, prior: float, scale: float, chosen: Any,
    size: int,
) -> Any:  # fmt: skip
    """Draws from N(theta, A^-1): with A = L L^T and standard normal e, L^-T e has the covariance A^-1."""
    leaves, structure = jax.tree.flatten(params)
    drawn = jax.tree.leaves(chosen)
    theta, unravel = ravel_pytree([leaf for leaf, own in zip(leaves, drawn, strict=True) if own])

    def merged(vector: Array) -> Any:
        own = iter(unravel(vector))
        return structure.unflatten(
            [next(own) if mine else leaf for leaf, mine in zip(leaves, drawn, strict=True)]
        )

    def hessian(samples: Any) -> Array:
        def total(vector: Array) -> Array:
            return jax.vmap(lambda sample: loss(merged(vector), sample))(samples).sum()

        return jax.hessian(total)(theta)

    factor = jax.jit(
        lambda data: jnp.linalg.cholesky(
            scale * summed(hessian, data, size) + prior * jnp.eye(len(theta), dtype=theta.dtype)
        )
    )(data)
    if not _compat.is_traced(factor) and not bool(jnp.isfinite(factor).all()):
        raise ValueError(
            "the Hessian of the loss plus prior is not positive definite, or not finite, at params: train "
            'to an optimum, draw the last layer alone by sampled=, raise prior, or use form="diagonal"'
        )
    noise = jax.random.normal(key, (len(theta), count), theta.dtype)
    apart = jax.scipy.linalg.solve_triangular(factor, noise, lower=True, trans=1).T
    members = iter(jax.vmap(unravel)(theta + apart))
    return structure.unflatten(
        [next(members) if mine else jnp.broadcast_to(leaf, (count, *jnp.shape(leaf)))
         for leaf, mine in zip(leaves, drawn, strict=True)]
    )  # fmt: skip
