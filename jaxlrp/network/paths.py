"""Module paths: what a person calls a layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from jaxlrp.network.graph import Graph, Op, Value

# Modules are traced inside scopes of this form, which hold their path (see flax_models.py).
_TAG = re.compile(r"⟦([^⟦⟧]*)⟧")


def tag(path: Iterable[object]) -> str:
    """The scope that marks a Flax module."""
    return f"⟦{'/'.join(map(str, path))}⟧"


class Namer:
    """Gives each layer a path of its own.

    A path is, in this order: the path of the Flax module whose `__call__` the layer was traced in;
    the name of the one parameter that its kernel comes from; the user's own `jax.named_scope`.
    """

    def __init__(self, modules: Mapping[str, type]) -> None:
        self._modules = modules
        self._seen: dict[str, int] = {}

    def module(self, op: Op) -> tuple[str | None, str]:
        """(path, type) of the Flax module around an operation; (None, "") outside of any."""
        path = self._path(op.scope)
        found = None if path is None else self._modules.get(path)
        return path, "" if found is None else found.__name__

    def module_type(self, op: Op) -> type | None:
        """The type of the Flax module around an operation; None outside of any."""
        path = self._path(op.scope)
        return None if path is None else self._modules.get(path)

    def _path(self, scope: str) -> str | None:
        """The path of the innermost module of a scope; Keras has untagged scopes inside a tagged one."""
        tags = _TAG.findall(scope)
        if not tags:
            return None
        path = tags[-1]
        for part in _scopes(scope.rpartition("⟧")[2]).split("/"):
            inner = f"{path}/{part}" if path else part
            path = inner if inner in self._modules else path
        return path

    def layer(self, op: Op, name: str, parameter: str | None) -> str:
        """A unique path for a layer.

        Args:
          op: the operation that the layer is named after.
          name: what it computes.
          parameter: the name of its kernel, "" where that has none; None for a layer without a kernel,
            which is named after what it computes.
        """
        path, _ = self.module(op)
        if path is None:
            path = parameter or _scopes(op.scope)
        elif path and parameter and parameter.startswith(f"{path}."):
            # PyTorch: a module that uses a child's parameters itself, as attention does
            path = parameter.rpartition(".")[0]
        if parameter is None or not path:
            path = "/".join(filter(None, (path, parameter or name)))
        count = self._seen.get(path, 0)
        self._seen[path] = count + 1
        return f"{path}:{count}" if count else path


def place(scope: str, name: str) -> str:
    """The path, perhaps of several, of something called `name` in the innermost module of a scope."""
    tags = _TAG.findall(scope)
    path = tags[-1] if tags and tags[-1] else _scopes(scope)
    return "/".join(filter(None, (path, name)))


def _scopes(scope: str) -> str:
    """The user's scopes, without einsum strings and the names of transformations."""
    parts = map(_untransformed, scope.split("/"))
    return "/".join(p for p in parts if p and "->" not in p and "⟦" not in p)


def _untransformed(part: str) -> str:
    """A scope without the transformations around it: "a" of "vmap(jvp(a))"."""
    while found := re.fullmatch(r"\w+\((.*)\)", part):
        part = found[1]
    return part


def parameter_names(graph: Graph, labels: Mapping[Value, str]) -> dict[Value, frozenset[str]]:
    """The names of the parameters that each value is computed from."""
    names = {value: frozenset({label}) for value, label in labels.items()}
    for op in graph.ops:
        found = frozenset().union(*(names.get(v, frozenset()) for v in op.inputs))
        if found:
            for v in op.outputs:
                names[v] = found
    return names
