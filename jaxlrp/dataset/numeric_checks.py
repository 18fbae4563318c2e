"""Per-sample checks inside the compiled program: finite values, rounding, conservation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.explanation import initial_relevance
from jaxlrp.numerics import tiny, to_relevance


def all_finite(leaves: Sequence[Array]) -> Array:
    """Whether all numbers of a sample are finite: (batch,), bool, of arrays (batch, ...)."""
    found = jnp.ones(leaves[0].shape[0], bool)
    for a in leaves:
        if jnp.issubdtype(a.dtype, jnp.inexact):
            found &= jnp.isfinite(_per_sample(a)).all(axis=1)
    return found


def cast(a: Array, dtype: str) -> Array:
    return a if a.dtype == jnp.dtype(dtype) else a.astype(dtype)


def rounding_error(exact: Array, stored: Array) -> Array:
    """The largest error of each sample, relative to its largest relevance: (batch,).

    Relevance below `tiny`, as of a sample for which the network is dead, counts as `tiny`.
    """
    exact = _per_sample(exact)
    worst = jnp.abs(exact - _per_sample(stored).astype(exact.dtype)).max(axis=1)
    return worst / jnp.maximum(jnp.abs(exact).max(axis=1), tiny(exact.dtype))


def residual(output: Any, target: Any, relevance: Any) -> Array:
    """|R_output - R_input| / |R_output|, of the summed relevance of each sample: (batch,)."""

    def total(tree: Any) -> Array:
        parts = [_per_sample(a).sum(axis=1) for a in jax.tree.leaves(tree)]
        return sum(parts[1:], parts[0])

    def compute(output: Any, cotangent: Any, relevance: Any) -> Array:
        whole = total(jax.tree.map(to_relevance, output, cotangent))
        return jnp.abs(whole - total(relevance)) / jnp.abs(whole)

    return _compat.freely(compute, output, initial_relevance.cotangent(output, target), relevance)


def _per_sample(a: Array) -> Array:
    return a.reshape(a.shape[0] if a.ndim else 1, -1)
