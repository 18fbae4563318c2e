"""What a concept is: which units of a layer, or which directions in it, belong together."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.concepts.conditions import Condition, select, select_each, weigh
from jaxlrp.numerics import widen

Axis = int | str

Batch = Axis | None | EllipsisType
"""The axis of the examples; None if there is none, `...` if it was not given: axis 0 outside loops."""

_STATIC = {"static": True}


@dataclasses.dataclass(frozen=True, eq=False)
class Concepts(abc.ABC):
    """The concepts of one layer: how its output divides into shares, one for each concept.

    The share of concept k in the value i of the output is `S_ki`, with `sum_k S_ki <= 1`. The relevance of
    the concept is `sum_i S_ki R_i`, and a condition on it multiplies the relevance `R_i` by `S_ki`. For
    channels, heads and tokens the shares are 0 or 1. Each family of concepts defines two functions, one the
    transpose of the other: `spread` and `collect`.

    `family[3]` is the condition on concept 3, and `family[[3, 5]]` the condition on either of two.

    Attributes:
      layer: the path of the layer; see `print(lrp.plan(...))`.
      batch: the axis of the output along which examples lie, by index or name; None if there is none. The
        default is axis 0. A layer in a loop or in `shard_map` is recorded with leading axes of steps or
        shards: there you must give the axis.
      dims: names of the axes of the output, in order, for `batch` and `axis` by name.
    """

    layer: str = dataclasses.field(metadata=_STATIC)
    batch: Batch = dataclasses.field(default=..., kw_only=True, metadata=_STATIC)
    dims: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True, metadata=_STATIC)

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str) or not self.layer:
            raise TypeError(f"layer must be the path of a layer (a string), got {self.layer!r}")
        if self.dims is not None:
            object.__setattr__(self, "dims", tuple(self.dims))

    @abc.abstractmethod
    def count(self, shape: tuple[int, ...]) -> int:
        """The number of concepts of a layer whose output has this shape."""

    @abc.abstractmethod
    def feature_axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of the layer's output along which its units divide into concepts."""

    @abc.abstractmethod
    def collect(self, a: Array, values: Array) -> Array:
        """Sums values of a layer's units by concept, at each position: `sum_i S_ki values_i`.

        Args:
          a: the output of the layer.
          values: of the shape of `a`, such as its relevance.

        Returns:
          (batch, *positions, concepts); without the first axis if `batch` is None.
        """

    @abc.abstractmethod
    def spread(self, a: Array, weights: Array) -> Array:
        """The factor of the relevance of each unit, `sum_k weights_k S_ki`: the transpose of `collect`.

        Args:
          a: the output of the layer.
          weights: one for each concept, broadcasting to what `collect` returns.

        Returns:
          An array that broadcasts to the shape of `a`.
        """

    def activations(self, a: Array) -> Array:
        """How strongly each concept is present at each position: (batch, *positions, concepts).

        The sum of the units of a concept; for a `Dictionary` its codes.
        """
        return self.collect(a, a)

    __iter__ = None  # a family is no sequence, although it can be indexed

    def __getitem__(self, index: int | Sequence[int] | np.ndarray) -> Condition:
        """The condition on one concept, or on either of several."""
        return select(self, index)

    def none(self) -> Condition:
        """The condition on the empty set of concepts: no relevance passes through the layer."""
        return select(self, (), empty=True)

    def weighted(self, weights: ArrayLike) -> Condition:
        """A soft condition: relevance is multiplied by a weight for each concept.

        Args:
          weights: (concepts,), or (batch, concepts) for one condition per example.
        """
        return weigh(self, weights)

    def each(self, index: ArrayLike | Sequence[int] | Sequence[Sequence[int]]) -> Condition:
        """A separate condition for each example.

        Args:
          index: (batch,) or (batch, m), the concept or concepts of each example.
        """
        return select_each(self, index)

    def total(self, a: Array, values: Array) -> Array:
        """`collect`, added up over positions: (batch, concepts)."""
        found = widen(self.collect(a, values))
        ahead = 0 if self.batch is None else 1
        return found.sum(axis=tuple(range(ahead, found.ndim - 1)))

    def share(self, a: Array, weights: Array) -> Array:
        """`spread` of weights that are the same at all positions.

        Args:
          a: the output of the layer.
          weights: (concepts,), or (1 or batch, concepts).

        Returns:
          An array that broadcasts to the shape of `a`.
        """
        weights = jnp.atleast_2d(weights)
        if self.batch is None:
            return self.spread(a, weights[0])
        positions = a.ndim - 1 - len(self.feature_axes(a.ndim))
        return self.spread(a, weights.reshape(len(weights), *(1,) * positions, -1))

    def axis_of(self, axis: Axis, ndim: int) -> int:
        """The index of an axis of the output, from 0.

        Raises:
          ValueError: if there is no such axis.
        """
        if self.dims is not None and len(self.dims) != ndim:
            raise ValueError(
                f"dims={self.dims} names {len(self.dims)} axes, but the output of the layer "
                f"{self.layer!r} has {ndim}"
            )
        if isinstance(axis, str):
            if self.dims is None or axis not in self.dims:
                known = "dims was not given" if self.dims is None else f"dims={self.dims}"
                raise ValueError(
                    f"axis must be an integer or a name in dims, got {axis!r} for layer "
                    f"{self.layer!r}: {known}"
                )
            return self.dims.index(axis)
        if not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
            raise ValueError(
                f"axis must be an axis of the output of layer {self.layer!r}, which has {ndim} axes, got "
                f"{axis!r}"
            )
        return axis % ndim

    def batch_axes(self, ndim: int) -> tuple[int, ...]:
        """The axis of the batch, if there is one."""
        if self.batch is None:
            return ()
        return (self.axis_of(0 if isinstance(self.batch, EllipsisType) else self.batch, ndim),)


class _Axes(Concepts):
    """Concepts numbered by the index along some axes."""

    def count(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[i] for i in self.feature_axes(len(shape)))

    def _order(self, ndim: int) -> tuple[int, ...]:
        """The axes in the order batch, positions, concepts."""
        first, last = self.batch_axes(ndim), self.feature_axes(ndim)
        return (*first, *(i for i in range(ndim) if i not in {*first, *last}), *last)

    def collect(self, a: Array, values: Array) -> Array:
        moved = values.transpose(self._order(values.ndim))
        return moved.reshape(*moved.shape[: values.ndim - len(self.feature_axes(values.ndim))], -1)

    def spread(self, a: Array, weights: Array) -> Array:
        order, axes = self._order(a.ndim), self.feature_axes(a.ndim)
        ahead = a.ndim - len(axes)
        weights = weights.reshape((1,) * (ahead + 1 - weights.ndim) + weights.shape)
        whole = weights.reshape(*weights.shape[:-1], *(a.shape[i] for i in axes))
        return whole.transpose(np.argsort(np.array(order)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Channels(_Axes):
    """The units along one axis, or several: each index is a concept, at all positions together.

    Use it for channels of a convolution (`axis=-1`), features of a dense layer, and anything else that has
    its own axis, such as the heads of `nn.MultiHeadDotProductAttention` (`axis=-2` of its value layer).

    Attributes:
      axis: the axis, by index or by its name in `dims`; a tuple of axes, whose flattened index
        numbers the concepts.

    Raises:
      TypeError: if `layer` is not a string.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import concepts
      >>> channels = concepts.Channels("conv", axis=-1)
      >>> a = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])  # one example, two positions, two channels
      >>> channels.total(a, a).tolist()
      [[4.0, 6.0]]
    """

    axis: Axis | tuple[Axis, ...] = dataclasses.field(metadata=_STATIC)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.axis, list):
            object.__setattr__(self, "axis", tuple(self.axis))

    def feature_axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of the concepts.

        Raises:
          ValueError: if one of them is that of the batch.
        """
        given = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        axes = tuple(self.axis_of(axis, ndim) for axis in given)
        if len(set(axes)) < len(axes) or set(axes) & set(self.batch_axes(ndim)):
            raise ValueError(
                f"axis={self.axis!r} of the layer {self.layer!r} must name distinct axes other than "
                f"that of the batch, {self.batch_axes(ndim)}; write batch=None if there is no batch"
            )
        return axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Units(_Axes):
    """Every unit is a concept: each value of an example's output, numbered in row-major order."""

    def feature_axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(i for i in range(ndim) if i not in self.batch_axes(ndim))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Heads(Concepts):
    """Attention heads whose features are concatenated along one axis.

    For layers with outputs (batch, tokens, heads * size). If the heads have their own axis, use `Channels`.

    Attributes:
      n_heads: number of heads, >= 1; it must divide the length of the axis.
      axis: the axis of the features of all heads.

    Raises:
      TypeError, ValueError: if an argument is invalid.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import concepts
      >>> a = jnp.array([[[1.0, 2.0, 3.0, 4.0]]])  # one example, one token, two heads of size two
      >>> concepts.Heads("value", 2, axis=-1).total(a, a).tolist()
      [[3.0, 7.0]]
    """

    n_heads: int = dataclasses.field(metadata=_STATIC)
    axis: Axis = dataclasses.field(metadata=_STATIC)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_heads", self.n_heads)

    @property
    def _features(self) -> Channels:
        return Channels(self.layer, self.axis, batch=self.batch, dims=self.dims)

    def feature_axes(self, ndim: int) -> tuple[int, ...]:
        return self._features.feature_axes(ndim)

    def count(self, shape: tuple[int, ...]) -> int:
        length = self._features.count(shape)
        if length % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} does not divide axis {self.axis!r} of the layer {self.layer!r}, "
                f"of length {length}"
            )
        return self.n_heads

    def collect(self, a: Array, values: Array) -> Array:
        found = self._features.collect(a, values)
        return found.reshape(*found.shape[:-1], self.count(values.shape), -1).sum(axis=-1)

    def spread(self, a: Array, weights: Array) -> Array:
        size = self._features.count(a.shape) // self.count(a.shape)
        return self._features.spread(a, jnp.repeat(weights, size, axis=-1))


def check_family(concepts: Any) -> Concepts:
    """Refuses what is not one family of concepts."""
    if not isinstance(concepts, Concepts):
        raise TypeError(
            f"concepts must be a family such as Channels(layer, axis), got {concepts!r}"
        )
    return concepts
