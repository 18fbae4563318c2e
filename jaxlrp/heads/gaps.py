"""How much better one cluster is than all others: differences of costs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.heads.head import share


def gaps_of(costs: Array) -> Array:
    """h_ck = costs_k - costs_c, (N, K, K) of (N, K); infinite for k = c."""
    own = jnp.eye(costs.shape[-1], dtype=bool)
    return jnp.where(own, jnp.inf, costs[:, None, :] - costs[:, :, None])


def smallest_gaps(costs: Array) -> Array:
    """f_c, the smallest gap of each c, (N, K)."""
    return gaps_of(costs).min(-1)


def relevance_of_gaps(costs: Array, beta: Array, weights: Array) -> Array:
    """R_ck = softmin_beta(h_c)_k f_c for the smallest gaps f, each with a weight: (N, K, K)."""
    gaps = gaps_of(costs)
    shares = jax.nn.softmax(-beta.astype(costs.dtype) * gaps, axis=-1)
    return shares * (weights * gaps.min(-1))[..., None]


def cost_weights(of_gaps: Array, energies: Array) -> Array:
    """Coefficients s of sum_k s_nk energies_nk, which is the sum of the relevances of the gaps.

    Args:
      of_gaps: R_ck, the relevance of each gap, (N, K, K); zero for k = c.
      energies: what is shared among features, (N, K). The gap has energies_k - energies_c.

    Returns:
      (N, K), which sum to zero over k.
    """
    gaps = energies[:, None, :] - energies[:, :, None]
    coefficients = share(of_gaps, gaps)
    return coefficients.sum(1) - coefficients.sum(2)
