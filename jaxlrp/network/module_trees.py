"""Models that are pytrees of modules (Equinox, Penzai), whose trace tells the module of each operation."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from typing import Any

import jax

from jaxlrp.network.flax_models import Modules
from jaxlrp.network.paths import tag


def marked(value: Any, modules: Modules) -> Any:
    """A copy of a model, or of something that holds some, whose calls are traced in scopes of their paths.

    Modules are found in pytrees, in methods, in the wrappers of Equinox, and in what a function closes
    over, such as `jax.vmap(model)`; global variables are not looked at. Without any, the value itself.

    Args:
      value: a function or an argument of one.
      modules: takes the type of each module, by its path.
    """
    kinds = _kinds()
    return _Marking(kinds, modules).of(value) if kinds else value


def _kinds() -> tuple[type, ...]:
    """The classes of modules of those frameworks that are in use."""
    equinox, penzai = sys.modules.get("equinox"), sys.modules.get("penzai.core.struct")
    found = (getattr(equinox, "Module", None), getattr(penzai, "Struct", None))
    return tuple(kind for kind in found if kind is not None)


class _Marking:
    """Copies with marked modules."""

    def __init__(self, kinds: tuple[type, ...], modules: Modules) -> None:
        self._kinds, self._modules = kinds, modules
        self._functions: list[types.FunctionType] = []  # around what is looked at

    def of(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            owner = self.of(value.__self__, path)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, self._kinds):
            return self._module(_without_jit(value), path)
        leaves, tree = self._inside(value, path)
        return value if tree is None else jax.tree.unflatten(tree, leaves)

    def _inside(self, value: Any, path: tuple[str, ...], wrapped: Any = None) -> tuple[list, Any]:
        """The leaves of a value, marked modules among them, and its tree; None if there are none."""
        pairs, tree = jax.tree_util.tree_flatten_with_path(
            value, is_leaf=lambda node: node is not value and isinstance(node, self._kinds)
        )
        leaves = [leaf for _, leaf in pairs]
        for i, (keys, leaf) in enumerate(pairs):
            if isinstance(leaf, self._kinds):
                inner = () if leaf is wrapped else tuple(map(_key, keys))
                leaves[i] = self.of(leaf, path + inner)
        found = any(new is not leaf for new, (_, leaf) in zip(leaves, pairs, strict=True))
        return leaves, tree if found else None

    def _module(self, module: Any, path: tuple[str, ...]) -> Any:
        # wrappers, such as `equinox.filter_vmap(module)`, and bound methods are no modules of their own
        wrapped = getattr(module, "__self__", getattr(module, "__wrapped__", None))
        leaves, tree = self._inside(module, path, wrapped)
        is_layer = wrapped is None and callable(module)
        if tree is None and not is_layer:
            return module
        copy = jax.tree.unflatten(jax.tree.structure(module) if tree is None else tree, leaves)
        if is_layer:
            self._modules.setdefault("/".join(path), type(module))
            object.__setattr__(copy, "__class__", _scoped(type(module)))
            object.__setattr__(copy, "jaxlrp_path", _Path("/".join(path)))
        return copy

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        """A function with marked modules in the variables that it closes over."""
        cells = function.__closure__ or ()
        if function in self._functions:
            return function
        try:
            held = [cell.cell_contents for cell in cells]
        except ValueError:  # a variable without a value yet
            return function
        self._functions.append(function)
        new = [self.of(value) for value in held]
        self._functions.pop()
        if all(a is b for a, b in zip(new, held, strict=True)):
            return function
        closure = tuple(
            cell if a is b else types.CellType(a)
            for a, b, cell in zip(new, held, cells, strict=True)
        )
        copy = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            closure,
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy


def _without_jit(module: Any) -> Any:
    """The module in `equinox.filter_jit(module)`, which hides it."""
    equinox = sys.modules.get("equinox")
    jitted = () if equinox is None else type(equinox.filter_jit(lambda x: x))
    while isinstance(module, jitted):
        module = module.__wrapped__
    return module


def _key(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


class _Path(str):
    """Where a module is. All are equal: modules that differ in nothing else have the same structure."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Path)

    def __hash__(self) -> int:
        return 0


@functools.cache
def _scoped(cls: type) -> type:
    """A subclass whose calls are traced in the scope of the module's path.

    The path is a static field, so that it survives where the module is taken apart and put together.
    Cached: all modules of one class have the same subclass.
    """

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(tag([self.jaxlrp_path])):
            return super(scoped, self).__call__(*args, **kwargs)

    static = {"static": True, "pytree_node": False}  # what Equinox and Penzai ask for
    namespace = {
        "__annotations__": {"jaxlrp_path": str},
        "jaxlrp_path": dataclasses.field(default=_Path(), metadata=static),
        "__call__": __call__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
    }
    scoped: Any = type(cls)(cls.__name__, (cls,), namespace)
    penzai = sys.modules.get("penzai.core.struct")
    if penzai is not None and issubclass(cls, penzai.Struct):
        decorate = penzai.pytree_dataclass
        scoped = decorate(scoped, has_implicitly_inherited_fields=True, init=False)
    return scoped
