"""Flax models as pure functions whose trace tells the module of each operation."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from flax import linen as nn
from flax import nnx

from jaxlrp.network.paths import tag

Modules = dict[str, type]  # the type of each module, by its path


@contextmanager
def linen_scopes(modules: Modules) -> Iterator[None]:
    """While a function is traced: marks what each Linen module computes, and notes its type."""

    def mark(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        # a module whose own `__init__` does not call Flax's has neither scope nor path
        path = None if getattr(context.module, "scope", None) is None else context.module.path
        if context.method_name == "setup" or path is None:
            return call(*args, **kwargs)
        # the first wins: inside a lifted transformation paths begin anew
        modules.setdefault("/".join(path), type(context.module))
        with jax.named_scope(tag(path)):
            return call(*args, **kwargs)

    with nn.intercept_methods(mark):
        yield


class NNXFunction:
    """An NNX module as a pure function of (state, *args), split once.

    Calling it merges a copy, so the module's own state is never touched, and what the call changes
    in the copy is dropped.
    """

    def __init__(self, module: nnx.Module) -> None:
        self.graphdef, self.state = nnx.split(module)
        self.modules: Modules = {
            "/".join(map(str, path)): type(node)
            for path, node in nnx.iter_graph(module)
            if isinstance(node, nnx.Module)
        }
        self.__name__ = type(module).__name__

    def __call__(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        module = nnx.merge(self.graphdef, state, copy=True)
        nodes = [(p, m) for p, m in nnx.iter_graph(module) if isinstance(m, nnx.Module)]
        for path, node in nodes:
            if callable(node):
                object.__setattr__(node, "__class__", _scoped(type(node)))
                object.__setattr__(node, "_jaxlrp_path", tuple(map(str, path)))
        return module(*args, **kwargs)


@functools.cache
def _scoped(cls: type) -> type:
    """A subclass whose calls are traced in the scope of the module's path.

    Cached: NNX compares the types of the modules that it splits and merges.
    """

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        path = getattr(self, "_jaxlrp_path", None)
        if path is None:
            return cls.__call__(self, *args, **kwargs)
        with jax.named_scope(tag(path)):
            return cls.__call__(self, *args, **kwargs)

    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})


def is_batch_norm(module: type) -> bool:
    """Whether a module is a BatchNorm of Flax, Haiku, Keras or Equinox."""
    found = (
        getattr(sys.modules.get("haiku"), "BatchNorm", nn.BatchNorm),
        getattr(sys.modules.get("keras.layers"), "BatchNormalization", nn.BatchNorm),
        getattr(sys.modules.get("equinox.nn"), "BatchNorm", nn.BatchNorm),
    )
    return issubclass(module, (nn.BatchNorm, nnx.BatchNorm, *found))
