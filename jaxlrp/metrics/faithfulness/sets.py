"""Random sets of features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.metrics.faithfulness.removing import Removed
from jaxlrp.metrics.metric import Case


def random_sets(keys: Array, present: Array, size: Array) -> Array:
    """Random sets of features, each of the same probability, (b, features) booleans.

    Each feature gets a random number; those with the smallest belong to the set. Sorting numbers alone
    is three times as fast as `lax.top_k` or a permutation. The last bits of a number are the feature's
    index, so that no two are equal.

    Args:
      keys: (b,).
      present: the features to draw from, (b, features).
      size: of each set, (b,), from 1 to how many are present.
    """
    count = present.shape[1]
    index = jnp.arange(count, dtype=jnp.uint32)
    last = jnp.uint32((1 << max(count - 1, 1).bit_length()) - 1)
    drawn = jax.vmap(lambda k: jax.random.bits(k, (count,), jnp.uint32))(keys)
    drawn = jnp.where(present, (drawn & ~last) | index, ~jnp.uint32(0))
    largest = jnp.take_along_axis(jnp.sort(drawn, axis=1), size[:, None] - 1, axis=1)
    return present & (drawn <= largest)


def removed_sum(case: Case, removed: Removed) -> Array:
    """The sum of the attributions of what was removed, (b,)."""
    attributions = case.attributions[removed.sample]
    found = jnp.where(removed.keep, 0, attributions)
    return found.sum(axis=tuple(range(1, found.ndim)))
