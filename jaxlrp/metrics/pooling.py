"""One number for each position, from the relevance of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array

Pool = Literal["sum", "sum,abs", "sum,pos", "max-norm", "l1-norm", "l2-norm", "l2-norm,sq"]
"""How the relevance R_c of the channels of a position becomes one number.

* `"sum"`: sum_c R_c, with its sign.
* `"sum,abs"`: |sum_c R_c|. `"sum,pos"`: max(0, sum_c R_c).
* `"max-norm"`: max_c |R_c|. `"l1-norm"`: sum_c |R_c|.
* `"l2-norm"`: the square root of sum_c R_c^2. `"l2-norm,sq"`: that sum itself.

Arras et al. (2022), https://doi.org/10.1016/j.inffus.2021.11.008
"""
POOLS: tuple[str, ...] = get_args(Pool)


def axes_of(
    channels: int | Sequence[int] | None, ndim: int, name: str = "channels"
) -> tuple[int, ...]:
    """Axes of an example as axes of a batch.

    Args:
      channels: one axis or several, without that of the samples; negative ones count from the last. None
        for none.
      ndim: of the batch.
      name: of the argument, for messages.

    Raises:
      ValueError: if there is no such axis, or one comes twice.
    """
    if channels is None:
        return ()
    one = isinstance(channels, str) or not np.ndim(channels)
    given: tuple[Any, ...] = (channels,) if one else tuple(cast("Sequence[int]", channels))
    for axis in given:
        if not isinstance(axis, int | np.integer) or not 1 - ndim <= axis < ndim - 1:
            raise ValueError(
                f"{name} must be axes of an example, which has {ndim - 1} without that of the samples, "
                f"got {channels!r}"
            )
    found = tuple(1 + axis % (ndim - 1) for axis in given)
    if len(set(found)) != len(found):
        raise ValueError(f"{name} must be distinct axes, got {channels!r}")
    return found


def pooled(attributions: Array, pool: Pool, channels: int | Sequence[int] | None) -> Array:
    """Attributions with their channels pooled; those axes have length 1.

    Args:
      attributions: (n, ...).
      pool: how.
      channels: the axes of an example that hold channels; None to treat each value as a position.

    Raises:
      ValueError: if there is no such axis.
    """
    axes = axes_of(channels, attributions.ndim)
    if pool == "max-norm":
        return jnp.abs(attributions).max(axis=axes, keepdims=True)
    if pool == "l1-norm":
        return jnp.abs(attributions).sum(axis=axes, keepdims=True)
    if pool in ("l2-norm", "l2-norm,sq"):
        squares = jnp.square(attributions).sum(axis=axes, keepdims=True)
        return jnp.sqrt(squares) if pool == "l2-norm" else squares
    total = attributions.sum(axis=axes, keepdims=True)
    if pool == "sum,abs":
        return jnp.abs(total)
    return jnp.maximum(total, 0) if pool == "sum,pos" else total
