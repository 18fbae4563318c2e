"""Which leaves of a function's arguments are traced, and which stay as they are."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import _compat
from jaxlrp._checks import is_number
from jaxlrp.network.model import Model


def types_in(values: list[Any]) -> str:
    """The dtypes or types of the leaves of some arguments, for messages."""
    leaves = jax.tree.leaves(values)
    return ", ".join(str(getattr(x, "dtype", type(x).__name__)) for x in leaves) or repr(values[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Arguments:
    """The positional arguments of one call, with what is traced of them.

    Arrays (and `jax.ShapeDtypeStruct`s) are traced, and Python numbers in the arguments that are
    explained or whose own relevance is asked for. Everything else (other numbers, booleans, strings,
    None) stays as it is, and so do all keyword arguments.

    Attributes:
      model: the function.
      args: the arguments, as they were given.
      parameters: positions of the arguments whose own relevance is asked for.
    """

    model: Model
    args: tuple[Any, ...]
    parameters: tuple[int, ...] = ()

    @functools.cached_property
    def _flat(self) -> tuple[list[tuple[Any, Any]], Any]:
        """(path, leaf) pairs of the state of an NNX module and of all arguments, and their tree."""
        everything = self.args if self.model.state is None else (self.model.state, *self.args)
        return jax.tree_util.tree_flatten_with_path(everything)

    @functools.cached_property
    def _dynamic(self) -> tuple[tuple[int, int, int], ...]:
        """Of each traced leaf: its index, its argument (-1 for the state), which leaf of it."""
        offset = 0 if self.model.state is None else 1
        numeric = {*self.model.argnums, *self.parameters}
        found, seen = [], dict[int, int]()
        for i, (path, leaf) in enumerate(self._flat[0]):
            argument = path[0].idx - offset
            seen[argument] = seen.get(argument, -1) + 1
            if is_array(leaf) or (argument in numeric and is_number(leaf)):
                found.append((i, argument, seen[argument]))
        return tuple(found)

    @functools.cached_property
    def values(self) -> tuple[Any, ...]:
        """What is traced, in order: arrays, or their shapes."""
        leaves = [self._flat[0][i][1] for i, _, _ in self._dynamic]
        return tuple(leaf if is_array(leaf) else jnp.asarray(leaf) for leaf in leaves)

    def indices(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Which of `values` come from the arguments at these positions."""
        chosen = set(positions)
        return tuple(n for n, (_, argument, _) in enumerate(self._dynamic) if argument in chosen)

    @property
    def explained(self) -> tuple[int, ...]:
        """Which of `values` are explained."""
        return self.indices(self.model.argnums)

    def check(self) -> None:
        """Checks that there is something to explain.

        Raises:
          TypeError: if an explained argument or a parameter is missing or holds no array.
        """
        self.model.check_given(self.args)
        for i in self.parameters:
            if i >= len(self.args):
                raise TypeError(
                    f"parameters={self.parameters} asks for the relevance of argument {i}, but only "
                    f"{len(self.args)} positional arguments were given"
                )
        if not self.explained:
            found = types_in([self.args[i] for i in self.model.argnums])
            raise TypeError(
                f"the explained argument (argnums={self.model.argnums}) must be a numeric array or a "
                f"pytree of numeric arrays, got {found}"
            )

    def merged(self, values: Sequence[Any]) -> Any:
        """All arguments (an NNX module's state first) with other values in place of what is traced."""
        pairs, tree = self._flat
        leaves = [leaf for _, leaf in pairs]
        for (i, _, _), value in zip(self._dynamic, values, strict=True):
            leaves[i] = value
        return jax.tree.unflatten(tree, leaves)

    def templates(self, positions: Iterable[int]) -> tuple[Template, ...]:
        """Some arguments without what is traced of them."""
        at = {(argument, leaf): n for n, (_, argument, leaf) in enumerate(self._dynamic)}
        found = []
        for i in positions:
            leaves, tree = jax.tree.flatten(self.args[i])
            places = tuple(at.get((i, k)) for k in range(len(leaves)))
            fixed = (
                None if n is not None else leaf for leaf, n in zip(leaves, places, strict=True)
            )
            found.append(Template(tree, places, tuple(fixed)))
        return tuple(found)

    def rebuilt(self, positions: Iterable[int], read: Mapping[int, Any]) -> tuple[Any, ...]:
        """Some arguments with other arrays in place of their own, by index into `values`."""
        return tuple(template.filled(read) for template in self.templates(positions))

    def labels(self) -> dict[int, str]:
        """What each value that is not explained is called: its place in its argument, or that's name."""
        names = self._names()
        offset = 0 if self.model.state is None else 1
        explained = set(self.explained)
        found = {}
        for n, (i, argument, _) in enumerate(self._dynamic):
            if n not in explained:
                inner = jax.tree_util.keystr(self._flat[0][i][0][1:], simple=True, separator="/")
                found[n] = inner.removesuffix("/value") or names[argument + offset]
        return found

    def _names(self) -> list[str]:
        """The names of the function's arguments, for parameters that are bare arrays."""
        try:
            found = list(inspect.signature(self.model.fun).parameters)
        except (TypeError, ValueError):
            found = []
        count = len(self.args) + 1
        names = [name for name in found if name != "self"][:count]
        return names + [f"arg{i}" for i in range(len(names), count)]


@dataclasses.dataclass(frozen=True)
class Template:
    """An argument without the arrays that are traced.

    Attributes:
      tree: its structure.
      places: of each leaf, its index into `Arguments.values`; None for a leaf that is not traced.
      fixed: the leaves that are not traced, None for the others.
    """

    tree: Any
    places: tuple[int | None, ...]
    fixed: tuple[Any, ...]

    def filled(self, read: Mapping[int, Any]) -> Any:
        """The argument with other arrays in place of its own, by index into `Arguments.values`."""
        pairs = zip(self.fixed, self.places, strict=True)
        return jax.tree.unflatten(self.tree, [x if n is None else read[n] for x, n in pairs])


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or the shape of one."""
    return _compat.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
