"""Controls: attributions that do not use the model. An explainer should do better than these.

    metrics.evaluate({"LRP": explain, **metrics.controls.standard(axes=(0, 1))}, ...)

If input contrast or edges score as well as an explanation, the metric rewards what the input looks like,
not what the model uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.metrics.pooling import axes_of


@dataclasses.dataclass(frozen=True)
class Random:
    """Normal random numbers.

    The numbers depend only on `seed` and the values of the sample: the same input always gets the same
    attributions, whatever its batch, and a different input gets different ones, however small the
    difference.

    Attributes:
      seed: an integer.
      shared: axes of an example along which one number is shared, such as the channel axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> metrics.controls.Random()(jnp.ones((2, 3))).shape
      (2, 3)
    """

    seed: int = 0
    shared: tuple[int, ...] = ()

    def __call__(self, inputs: ArrayLike, targets: Any = None, **context: Any) -> Array:
        x = jnp.asarray(inputs)
        shape = list(x.shape[1:])
        for axis in self.shared:
            shape[axis] = 1
        key = jax.random.key(self.seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, _number(x))
        return jax.vmap(lambda k: jax.random.normal(k, shape))(keys)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """How far each value is from the mean of its sample: |x - mean|.

    Attributes:
      axes: of an example over which the mean is taken, such as (0, 1) of (height, width, channels) for one
        mean for each channel; None for all.

    Raises:
      TypeError: if inputs are integers, whose distances mean nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> metrics.controls.Contrast()(jnp.array([[1.0, 2.0, 6.0]])).tolist()
      [[2.0, 1.0, 3.0]]
    """

    axes: tuple[int, ...] | None = None

    def __call__(self, inputs: ArrayLike, targets: Any = None, **context: Any) -> Array:
        x = _floats(inputs, "Contrast")
        axes = range(x.ndim - 1) if self.axes is None else self.axes
        return jnp.abs(x - x.mean(axis=axes_of(axes, x.ndim, "axes"), keepdims=True))


@dataclasses.dataclass(frozen=True)
class Edges:
    """How fast values change along some axes: the magnitude of the gradient, by the Sobel filter.

    Along each axis it takes central differences (1, 0, -1) / 2, averaged by (1, 2, 1) / 4 along the other
    axes. At borders the outermost value is repeated.

    Attributes:
      axes: of an example along which values are neighbors: (0, 1) of (height, width, channels), 0 of (time,
        channels).

    Raises:
      TypeError: if inputs are integers.
      ValueError: if an axis does not exist.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> metrics.controls.Edges(axes=0)(jnp.array([[0.0, 0.0, 2.0, 2.0]])).tolist()
      [[0.0, 1.0, 1.0, 0.0]]
    """

    axes: int | Sequence[int] = (0, 1)

    def __post_init__(self) -> None:
        axes = (self.axes,) if isinstance(self.axes, int) else tuple(self.axes)
        object.__setattr__(self, "axes", axes)

    def __call__(self, inputs: ArrayLike, targets: Any = None, **context: Any) -> Array:
        x = _floats(inputs, "Edges")
        places = axes_of(self.axes, x.ndim, "axes")
        squared = jnp.zeros_like(x)
        for axis in places:
            found = x
            for other in places:
                weights = (-0.5, 0.0, 0.5) if other == axis else (0.25, 0.5, 0.25)
                found = _filtered(found, other, weights)
            squared += found**2
        return jnp.sqrt(squared)


def standard(axes: int | Sequence[int] | None = None, *, seed: int = 0) -> dict[str, Any]:
    """The controls that every table should contain, by name.

    Args:
      axes: of an example along which values are neighbors, for the edge filter; None for data without
        neighbors, such as rows of a table: no edge filter then.
      seed: of the random attributions.
    """
    found: dict[str, Any] = {"random": Random(seed), "input contrast": Contrast()}
    if axes is not None:
        found["edges"] = Edges(axes)
    return found


def _filtered(x: Array, axis: int, weights: tuple[float, float, float]) -> Array:
    width = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
    wide = jnp.pad(x, width, mode="edge")
    n = x.shape[axis]
    parts = [
        jax.lax.slice_in_dim(wide, i, i + n, axis=axis) * w for i, w in enumerate(weights) if w
    ]
    return sum(parts[1:], parts[0])


def _number(x: Array) -> Array:
    """A number of 32 bits for each sample, made of its bits and their places."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[x.dtype.itemsize]
        x = jax.lax.bitcast_convert_type(x, kind)
    bits = x.reshape(len(x), -1)
    low = bits.astype(jnp.uint32)
    if bits.dtype.itemsize == 8:
        low ^= (bits >> jnp.asarray(32, bits.dtype)).astype(jnp.uint32)
    odd = np.random.default_rng(0).integers(0, 2**31, bits.shape[1], dtype=np.uint32) * 2 + 1
    mixed = low * jnp.asarray(odd)
    return (mixed ^ (mixed >> jnp.uint32(15))).sum(axis=1, dtype=jnp.uint32)


def _floats(inputs: ArrayLike, name: str) -> Array:
    x = jnp.asarray(inputs)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"controls.{name} needs inputs that are floats, got {x.dtype}: distances between integers such "
            "as tokens have no meaning; use controls.Random()"
        )
    return x
