"""Haiku functions, whose trace tells the module of each operation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxlrp.network.flax_models import Modules
from jaxlrp.network.paths import tag


@contextmanager
def haiku_scopes(modules: Modules) -> Iterator[None]:
    """While a function is traced: marks what each Haiku module computes, and notes its type."""
    haiku = sys.modules.get("haiku")
    if haiku is None:
        yield
        return

    def mark(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        if context.method_name == "__init__":
            return call(*args, **kwargs)
        path = context.module.module_name
        modules.setdefault(path, type(context.module))
        with jax.named_scope(tag([path])):
            return call(*args, **kwargs)

    with haiku.intercept_methods(mark):
        yield
