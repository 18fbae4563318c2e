"""The samples with the largest scores of each concept, as a state that can be merged."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlrp._checks import check_count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TopK:
    """The k samples with the largest score of each concept. A pytree, of NumPy or of JAX arrays.

    If scores are equal, the lowest row comes first. NaN is never among the largest. If there are fewer than
    k samples, the remaining entries have the value -inf and row and position -1.

    Each entry takes 16 bytes with 64-bit rows: 40 samples for each of 512 concepts take 328 kB, times the
    number of classes if they are stored for each class.

    Attributes:
      values: (..., concepts, k), floats, in descending order.
      rows: (..., concepts, k), integers, the rows of the samples.
      positions: (..., concepts, k), integers, where in the layer the score is largest; see `Scores`.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> scores = np.array([[3.0], [2.0], [1.0], [0.5]], np.float32)
      >>> first = concepts.TopK.of(scores[:2], np.arange(2), k=3)
      >>> second = concepts.TopK.of(scores[2:], np.arange(2, 4), k=3)
      >>> second.merge(first).rows.tolist()
      [[0, 1, 2]]
    """

    values: Any
    rows: Any
    positions: Any

    @classmethod
    def of(
        cls, scores: ArrayLike, rows: ArrayLike, k: int, *, positions: ArrayLike | None = None
    ) -> TopK:
        """The state of some samples.

        Args:
          scores: (samples, concepts).
          rows: (samples,), a unique number for each sample; negative for samples that are ignored, such as
            padding.
          k: how many are kept, >= 1.
          positions: (samples, concepts), integers; None for zeros.

        Returns:
          The state, of shape (concepts, k). NumPy arrays if all arguments are; it may be traced.

        Raises:
          ValueError: if shapes do not fit, or k is not an integer >= 1.
        """
        check_count("k", k)
        xp = _namespace(scores, rows, positions)
        z, numbers = xp.asarray(scores), xp.asarray(rows)
        if z.ndim != 2 or numbers.shape != z.shape[:1]:
            raise ValueError(
                f"scores must have shape (samples, concepts) and rows (samples,), got {z.shape} and "
                f"{numbers.shape}"
            )
        if not jnp.issubdtype(numbers.dtype, jnp.signedinteger):
            numbers = numbers.astype(np.int64 if xp is np else np.int32)
        where = xp.zeros(z.shape, np.int32) if positions is None else xp.asarray(positions)
        if not jnp.issubdtype(where.dtype, jnp.signedinteger):
            where = where.astype(np.int32)
        if where.shape != z.shape:
            raise ValueError(
                f"positions must have the shape of scores, {z.shape}, got {where.shape}"
            )
        if not jnp.issubdtype(z.dtype, jnp.floating) or z.dtype.itemsize < 4:
            z = z.astype(np.float32)
        order = xp.argsort(numbers, stable=True)
        numbers, where = numbers[order], where[order].T
        z = xp.where(numbers[:, None] < 0, xp.nan, z[order]).astype(z.dtype).T
        # a stable sort keeps the rows of equal scores in order, and puts NaN last
        best = xp.argsort(-z, axis=-1, stable=True)[:, :k]
        found = (xp.take_along_axis(z, best, -1), numbers[best])
        return _padded(xp, *found, xp.take_along_axis(where, best, -1), k)

    @property
    def k(self) -> int:
        """How many samples are kept for each concept."""
        return self.values.shape[-1]

    def merge(self, other: TopK) -> TopK:
        """The state of the samples of both.

        It is associative and commutative, bit for bit: the result does not depend on how samples were
        divided among states or on the order of merging. No sample may be in both.

        Args:
          other: of the same shape.

        Raises:
          ValueError: if the shapes differ.
        """
        if self.values.shape != other.values.shape:
            raise ValueError(
                "states to be merged must have the same classes, concepts and k, got the shapes "
                f"{self.values.shape} and {other.values.shape}"
            )
        xp = _namespace(*jax.tree.leaves((self, other)))
        values, rows, positions = (
            xp.concatenate([getattr(self, f.name), getattr(other, f.name)], axis=-1)
            for f in dataclasses.fields(self)
        )
        last = xp.where(rows < 0, np.iinfo(rows.dtype).max, rows)
        best = xp.lexsort((positions, last, -values), axis=-1)[..., : self.k]
        return TopK(*(xp.take_along_axis(a, best, -1) for a in (values, rows, positions)))

    def __getitem__(self, index: Any) -> TopK:
        """The state of one concept or class, or of several: an index of the axes before the last."""
        return TopK(self.values[index], self.rows[index], self.positions[index])


def empty(shape: tuple[int, ...], k: int, dtype: Any = np.float32) -> TopK:
    """The state of no samples, as NumPy arrays (*shape, k)."""
    whole = (*shape, k)
    return TopK(
        np.full(whole, -np.inf, dtype), np.full(whole, -1, np.int64), np.full(whole, -1, np.int32)
    )


def _padded(xp: Any, values: Any, rows: Any, positions: Any, k: int) -> TopK:
    """A sorted state with k places, where NaN leaves a place empty."""
    missing = xp.isnan(values)
    values = xp.where(missing, -xp.inf, values).astype(values.dtype)
    rows, positions = (xp.where(missing, -1, a).astype(a.dtype) for a in (rows, positions))
    more = [(0, 0), (0, k - values.shape[-1])]
    return TopK(
        xp.pad(values, more, constant_values=-np.inf),
        xp.pad(rows, more, constant_values=-1),
        xp.pad(positions, more, constant_values=-1),
    )


def _namespace(*arrays: Any) -> Any:
    return jnp if any(isinstance(a, jax.Array) for a in arrays) else np
