"""Several transforms in sequence."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.inspection.transform import Transform, pools


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Chain(Transform):
    """Several transforms in sequence: each reads the last output axes of the previous one.

    Attributes:
      parts: the transforms in order, at least one.

    Example:
      >>> from jaxlrp.inspection import DFT, Segments
      >>> Chain(Segments(4), DFT()).forward(jnp.ones(8)).shape
      (2, 3)
    """

    parts: tuple[Transform, ...]

    def __init__(self, *parts: Transform) -> None:
        if not parts:
            raise ValueError("a Chain must have at least one transform, got none")
        for part in parts:
            if not isinstance(part, Transform):
                raise TypeError(
                    f"the parts of a Chain must be transforms such as DFT(), got {part!r}"
                )
        object.__setattr__(self, "parts", parts)

    def tree_flatten(self) -> tuple[tuple[Transform, ...], None]:
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: None, parts: tuple[Transform, ...]) -> Chain:
        chain = object.__new__(cls)  # parts may be anything inside a transformation
        object.__setattr__(chain, "parts", parts)
        return chain

    @property
    def axes(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        names: tuple[str, ...] = ()
        for part in self.parts:
            names = names[: max(len(names) - part.reads, 0)] + part.axes
        return names

    @property
    def reads(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.parts[0].reads

    def offset(self, lengths: tuple[int, ...]) -> Array | None:
        for part, shape in self._read(lengths)[1:]:
            if part.offset(shape) is not None:
                raise ValueError(
                    f"only the first transform of a chain may have an offset, not {part!r}"
                )
        return self.parts[0].offset(lengths)

    def forward(self, x: Array) -> Array:
        for part in self.parts:
            x = part.forward(x)
        return x

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        for part, shape in reversed(self._read(lengths)):
            z = part.inverse(z, shape)
        return z

    def pool(self, relevance: Array) -> Array:
        # If a part summed values that a later part still splits, the detail of the later one would be lost.
        for part in self.parts[:-1]:
            if pools(part):
                raise ValueError(
                    f"only the last transform of a chain may sum relevance, not {part!r}"
                )
        return self.parts[-1].pool(relevance)

    def _read(self, lengths: tuple[int, ...]) -> list[tuple[Transform, tuple[int, ...]]]:
        """Each part with the lengths of its input axes."""
        found = []
        x = jax.ShapeDtypeStruct(lengths, jnp.float32)
        for part in self.parts:
            found.append((part, x.shape[len(x.shape) - part.reads :]))
            x = jax.eval_shape(part.forward, x)
        return found

    def _first(self, name: str, n: int) -> tuple[Transform, int]:
        for part, shape in self._read((n,) * self.reads):
            if name in part.axes and name in self.axes:
                return part, shape[-1]
        raise TypeError(f"{self!r} has no axis {name!r}, only: {self.axes}")

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        part, length = self._first("frequency", n)
        return part.frequencies(length, sample_rate)

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        name = "segment" if "segment" in self.axes else "frame"
        part, length = self._first(name, n)
        return part.times(length, sample_rate)
