"""Mosaics of four samples, for `Focus`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics import given
from jaxlrp.metrics.pooling import axes_of


class Mosaics(NamedTuple):
    """Four samples each, two of them of the target class.

    Attributes:
      inputs: (m, ...), twice as long along two axes, or four times along one.
      targets: the class to explain, (m,).
      quadrants: which of the four samples are of that class, booleans (m, 4); row by row.
      masks: the same for each position, booleans (m, ...), of length 1 along all other axes.
      samples: the positions of the four samples in the inputs given, (m, 4).
    """

    inputs: Array
    targets: Array
    quadrants: Array
    masks: Array
    samples: Array


def mosaics(
    inputs: ArrayLike,
    targets: ArrayLike,
    key: Array,
    *,
    number: int,
    axes: int | Sequence[int] = (0, 1),
) -> Mosaics:
    """Mosaics with two samples of one class and two of other classes, in random positions.

    Classes with at least two samples are used in turn, in random order.

    Args:
      inputs: (n, ...).
      targets: the class of each sample, (n,).
      key: a random key.
      number: how many mosaics, >= 1.
      axes: of an example along which samples are joined: two for a square, such as (0, 1) of (height,
        width, channels); one for a row of four, such as 0 of (time, channels).

    Raises:
      TypeError, ValueError: naming the argument that is wrong; if no class has two samples, or there are
        not two samples of other classes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> found = metrics.mosaics(
      ...     jnp.ones((6, 8, 8, 3)), jnp.array([0, 0, 0, 1, 1, 1]), jax.random.key(0), number=5
      ... )
      >>> found.inputs.shape, found.masks.shape, found.quadrants.sum(axis=1).tolist()
      ((5, 16, 16, 3), (5, 16, 16, 1), [2, 2, 2, 2, 2])
    """
    x = given.as_inputs(inputs)
    found = given.as_targets(targets, len(x))
    if found is None:
        raise TypeError("targets is missing: pass one class for each sample")
    along = axes_of(axes, x.ndim, "axes")
    if len(along) not in (1, 2):
        raise ValueError(f"axes must be one or two axes of an example, got {axes!r}")
    given.as_keys(key, 1, "mosaics")
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    labels = np.asarray(found)
    samples = _draw(labels, generator, check_count("number", number))
    classes = labels[samples[:, 0]]
    samples = generator.permuted(samples, axis=1)
    quadrants = labels[samples] == classes[:, None]
    size = [length if axis in along else 1 for axis, length in enumerate(x.shape)][1:]
    places = np.broadcast_to(quadrants.reshape(number, 4, *(1 for _ in size)), (number, 4, *size))
    return Mosaics(
        _joined(x[samples], along), jnp.asarray(classes), jnp.asarray(quadrants),
        _joined(jnp.asarray(places), along), jnp.asarray(samples),
    )  # fmt: skip


def _draw(labels: np.ndarray, generator: np.random.Generator, number: int) -> np.ndarray:
    """Four different samples for each mosaic, (number, 4); the first two are of one class."""
    classes, counts = np.unique(labels, return_counts=True)
    able = classes[(counts >= 2) & (len(labels) - counts >= 2)]
    if not len(able):
        raise ValueError(
            "a mosaic needs two samples of one class and two of others, but targets have no such class"
        )
    able = generator.permutation(able)
    drawn = []
    for i in range(number):
        same = labels == able[i % len(able)]
        parts = (np.flatnonzero(same), np.flatnonzero(~same))
        drawn.append(np.concatenate([generator.choice(p, 2, replace=False) for p in parts]))
    return np.stack(drawn)


def _joined(parts: Array, along: tuple[int, ...]) -> Array:
    """Four samples each, (m, 4, ...), side by side; `along` are axes of the result."""
    four = [parts[:, i] for i in range(4)]
    if len(along) == 1:
        return jnp.concatenate(four, axis=along[0])
    rows = [jnp.concatenate(four[i : i + 2], axis=along[1]) for i in (0, 2)]
    return jnp.concatenate(rows, axis=along[0])
