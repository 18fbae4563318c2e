"""Results print with dtypes and shapes in place of their numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class _Unquoted(str):
    """Text whose `repr` has no quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def shapes(value: Any, most: int = 8) -> str:
    """A pytree with dtypes and shapes in place of its arrays, or their number if there are many."""

    def shape(leaf: Any) -> Any:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            return leaf
        return _Unquoted(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]")

    if _is_described(value):
        return repr(value)
    leaves = jax.tree.leaves(value, is_leaf=_is_described)
    if len(leaves) > most:
        return f"<{len(leaves)} arrays>"
    return repr(jax.tree.map(shape, value, is_leaf=_is_described))


def described(cls: type[T]) -> type[T]:
    """A dataclass whose `repr` has `shapes` of its attributes."""

    def representation(self: Any) -> str:
        fields = [f for f in dataclasses.fields(self) if f.repr]
        shown = (f"{f.name}={shapes(getattr(self, f.name))}" for f in fields)
        return f"{cls.__name__}({', '.join(shown)})"

    cls.__repr__ = representation  # type: ignore[method-assign]
    return cls


def _is_described(value: Any) -> bool:
    return getattr(type(value).__repr__, "__qualname__", "").startswith("described.")
