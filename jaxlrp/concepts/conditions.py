"""Conditions: which concepts relevance must pass through."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat

if TYPE_CHECKING:
    from jaxlrp.concepts.units import Concepts

_NOWHERE = np.iinfo(np.int32).max  # an index that selects nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Condition:
    """Relevance must pass through certain concepts; `family[3]` makes one.

    `a & b` requires both (AND, across layers), `a | b` either of them (OR, within a layer). `Condition()`
    imposes no condition: it keeps all relevance of the target.

    Attributes:
      parts: for each family of concepts, which of them: indices (1 or batch, m), or weights
        (1 or batch, concepts).

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> from jaxlrp import concepts
      >>> conv, dense = concepts.Channels("conv", -1), concepts.Channels("dense", -1)
      >>> (conv[3] | conv[5]) & dense[0]
      Condition(conv: [3, 5] & dense: [0])
    """

    parts: tuple[tuple[Concepts, Selection], ...] = ()

    def __and__(self, other: Condition) -> Condition:
        mine = [family for family, _ in self.parts]
        shared = [family for family, _ in other.parts if family in mine]
        if shared:
            raise ValueError(
                f"both conditions select concepts of the layer {shared[0].layer!r}: a unit belongs to one "
                "concept, so write a | b for either of them"
            )
        return Condition(self.parts + other.parts)

    def __or__(self, other: Condition) -> Condition:
        pairs = list(zip(self.parts, other.parts, strict=False))
        if not (len(self.parts) == len(other.parts) == 1) or pairs[0][0][0] != pairs[0][1][0]:
            raise ValueError(
                "a | b combines concepts of one family, such as conv[3] | conv[5]: pass conditions on "
                "different layers as two conditions, whose relevances can be compared"
            )
        (family, one), (_, two) = pairs[0]
        return Condition(((family, one.either(two)),))

    def __repr__(self) -> str:
        shown = (f"{family.layer}: {selection}" for family, selection in self.parts)
        return f"Condition({' & '.join(shown)})"


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """Concepts of one family.

    Attributes:
      values: (1 or batch, m) indices, or (1 or batch, concepts) weights.
      soft: whether these are weights.
    """

    values: Any
    soft: bool = False

    def either(self, other: Selection) -> Selection:
        """Concepts of either selection."""
        if self.soft or other.soft:
            raise ValueError(
                "a | b is for conditions on indices, got weights: add the weights and pass one "
                ".weighted(...)"
            )
        rows = max(len(self.values), len(other.values))
        both = [_padded(s.values, (rows, s.values.shape[1]), soft=False) for s in (self, other)]
        return Selection(_array_module(both).concatenate(both, axis=1))

    def __str__(self) -> str:
        if self.soft:
            return f"weights {np.shape(self.values)}"
        if _compat.is_traced(self.values):
            return f"traced indices {self.values.shape}"
        rows = [sorted({int(i) for i in row if i != _NOWHERE}) for row in np.asarray(self.values)]
        return str(rows[0]) if len(rows) == 1 else f"each of {rows}"


def select(family: Concepts, index: Any, empty: bool = False) -> Condition:
    """See `Concepts.__getitem__` and `Concepts.none`."""
    chosen = np.zeros((0,), np.int32) if empty else _indices(family, index)
    if not chosen.size and not empty:
        raise ValueError(
            f"no concept of the layer {family.layer!r} is selected, so no relevance would pass: select at "
            "least one, or write .none() to select none"
        )
    return Condition(((family, Selection(chosen.reshape(1, -1))),))


def select_each(family: Concepts, index: Any) -> Condition:
    """See `Concepts.each`."""
    chosen = _indices(family, index)
    if chosen.ndim not in (1, 2) or not chosen.size:
        raise ValueError(
            f"index of .each(index) must have shape (batch,) or (batch, m), the concepts of each example, "
            f"got {chosen.shape}"
        )
    return Condition(((family, Selection(chosen.reshape(len(chosen), -1))),))


def weigh(family: Concepts, weights: ArrayLike) -> Condition:
    """See `Concepts.weighted`."""
    found = jnp.asarray(weights)
    if found.ndim not in (1, 2):
        raise ValueError(
            "weights of .weighted(weights) must have shape (concepts,) or (batch, concepts), got "
            f"{found.shape}"
        )
    return Condition(((family, Selection(jnp.atleast_2d(found), soft=True)),))


def _indices(family: Concepts, index: Any) -> Any:
    """Indices as a NumPy array; those that are traced stay so."""
    found = index if _compat.is_traced(index) else np.asarray(index)
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise TypeError(
            f"concepts of the layer {family.layer!r} must be integers, got {found.dtype}; "
            "for weights write .weighted(...)"
        )
    if not _compat.is_traced(found) and found.size:
        wrong = found[(found < 0) | (found >= _NOWHERE)]
        if wrong.size:
            raise IndexError(f"concept {wrong.flat[0]} of the layer {family.layer!r} is out of range: "
                             "concepts are numbered from 0")  # fmt: skip
    return found.astype(np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """One family in K conditions.

    Attributes:
      family: the concepts.
      values: (K, 1 or batch, m) indices, or (K, 1 or batch, concepts) weights.
      present: (K,), whether a condition refers to the family at all.
      soft: whether `values` are weights.
    """

    family: Concepts
    values: Any
    present: Any
    soft: bool = dataclasses.field(metadata={"static": True})

    def mask(self, a: Array) -> Array:
        """The factor of the relevance of the layer's output `a`, for one of the K conditions."""
        count = self.family.count(a.shape)
        if self.soft:
            weights = self.values
        else:
            rows = jnp.arange(self.values.shape[0])[:, None]
            weights = jnp.zeros((self.values.shape[0], count), a.dtype)
            weights = weights.at[rows, self.values].set(1, mode="drop")
            wrong = (self.values < 0) | ((self.values >= count) & (self.values != _NOWHERE))
            weights = jnp.where(wrong.any(axis=-1, keepdims=True), jnp.nan, weights)
        mask = self.family.share(a, weights.astype(a.dtype))
        return jnp.where(self.present, mask, jnp.ones_like(mask))


def stack(conditions: Sequence[Condition]) -> tuple[Stacked, ...]:
    """K conditions as arrays, family by family.

    Raises:
      TypeError: if one of them is not a condition.
      ValueError: if there is none, or they are for batches of different sizes.
    """
    if isinstance(conditions, Condition):
        raise TypeError("conditions must be a sequence, got one condition: pass [condition]")
    for condition in conditions:
        if not isinstance(condition, Condition):
            raise TypeError(
                f"conditions must contain conditions such as channels[3], got {condition!r}"
            )
    if not len(conditions):
        raise ValueError("conditions is empty: pass at least one, such as [channels[3]]")
    families: list[Concepts] = []
    for family, _ in (part for condition in conditions for part in condition.parts):
        if family not in families:
            families.append(family)
    return tuple(_stacked(family, conditions) for family in families)


def _stacked(family: Concepts, conditions: Sequence[Condition]) -> Stacked:
    found = [next((s for f, s in condition.parts if f == family), None) for condition in conditions]
    held = [s for s in found if s is not None]
    soft = any(s.soft for s in held)
    if soft and not all(s.soft for s in held):
        raise ValueError(
            f"conditions on the layer {family.layer!r} must be all indices or all weights, got both: "
            "write all of them with .weighted(...), or explain them in two calls"
        )
    rows = sorted({s.values.shape[0] for s in held} - {1}) or [1]
    if len(rows) > 1:
        raise ValueError(
            f"conditions on the layer {family.layer!r} are for batches of {rows[0]} and {rows[1]} examples"
        )
    width = max(s.values.shape[1] for s in held)
    like = functools.partial(_padded, shape=(rows[0], width), soft=soft)
    values = [like(None if s is None else s.values) for s in found]
    merged = jnp.asarray(_array_module(values).stack(values))
    return Stacked(family, merged, jnp.array([s is not None for s in found]), soft)


def _array_module(arrays: Sequence[Any]) -> Any:
    """NumPy for arrays that are known, so that nothing is dispatched; `jax.numpy` for others."""
    return np if all(isinstance(a, np.ndarray) for a in arrays) else jnp


def _padded(values: Any, shape: tuple[int, int], soft: bool) -> Any:
    """Weights or indices of one condition, (1 or batch, n), of the shape of all of them."""
    if soft:
        if values is None:
            return jnp.ones(shape)
        if values.shape[1] != shape[1]:
            raise ValueError(
                f"weights must all be for the same number of concepts, got {values.shape[1]} and "
                f"{shape[1]}"
            )
        return jnp.broadcast_to(values, shape)
    if values is None:
        return np.full(shape, _NOWHERE, np.int32)
    xp = _array_module([values])
    rest = xp.full((shape[0], shape[1] - values.shape[1]), _NOWHERE, xp.int32)
    return xp.concatenate([xp.broadcast_to(values, (shape[0], values.shape[1])), rest], axis=1)


def check(stacked: Stacked, shape: tuple[int, ...]) -> None:
    """Checks conditions against the shape of their layer's output.

    Raises:
      IndexError: if a concept is out of range.
      ValueError: if the number of concepts or examples differs.
    """
    family, count = stacked.family, stacked.family.count(shape)
    rows = stacked.values.shape[1]
    size = 1 if family.batch is None else shape[family.batch_axes(len(shape))[0]]
    if rows not in (1, size):
        raise ValueError(
            f"conditions on the layer {family.layer!r} are for {rows} examples, but the batch has {size}"
        )
    if stacked.soft:
        if stacked.values.shape[-1] != count:
            raise ValueError(
                f"weights on the layer {family.layer!r} are for {stacked.values.shape[-1]} concepts, but "
                f"it has {count}"
            )
        return
    if _compat.is_traced(stacked.values):
        return
    values = np.asarray(stacked.values)
    check_indices(family, values[values != _NOWHERE], count)


def check_indices(family: Concepts, indices: np.ndarray, count: int) -> None:
    """Checks indices of concepts whose values are known.

    Raises:
      IndexError: if one is out of range.
    """
    wrong = indices[(indices < 0) | (indices >= count)]
    if wrong.size:
        raise IndexError(
            f"concept {wrong[0]} of the layer {family.layer!r} is out of range: it has {count} concepts, "
            f"0 to {count - 1}"
        )
