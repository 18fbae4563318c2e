"""Keras models on JAX as pure functions of their variables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jaxlrp.network.foreign import ForeignModel, in_module, note


def is_keras(fun: Any) -> bool:
    """Whether something is a Keras layer; a model is one."""
    layer = getattr(sys.modules.get("keras"), "Layer", None)
    return layer is not None and isinstance(fun, layer)


def keras_model(layer: Any) -> ForeignModel:
    """A Keras model as a pure function of its variables, read once; it is never modified.

    Keras traces each layer in a scope of its name, which gives paths such as "dense_1".

    Raises:
      TypeError: if Keras does not run on JAX.
      ValueError: if the model has no weights yet.
    """
    backend = sys.modules["keras"].config.backend()
    if backend != "jax":
        raise TypeError(
            f"fun is a Keras model ({layer.name!r}) on the backend {backend!r}, which JAX cannot trace: "
            'set the environment variable KERAS_BACKEND="jax" before keras is imported'
        )
    if not layer.built:
        raise ValueError(
            f"the Keras model {layer.name!r} has no weights yet: call it on an input once, or model.build"
        )
    named = _names([*layer.trainable_variables, *layer.non_trainable_variables])
    trainable, modules = len(layer.trainable_variables), dict(_inside(layer))

    def fun(variables: Mapping[str, jax.Array], *args: Any, **kwargs: Any) -> Any:
        note(modules)
        values = [variables[name] for name in named]
        return layer.stateless_call(values[:trainable], values[trainable:], *args, **kwargs)[0]

    variables = {name: jax.numpy.asarray(variable.value) for name, variable in named.items()}
    return ForeignModel(in_module("", type(layer), fun), variables, layer.name)


def _names(variables: list[Any]) -> dict[str, Any]:
    """Variables by their paths; of several with one path, the later ones get a number."""
    found: dict[str, Any] = {}
    for variable in variables:
        name, count = variable.path, 0
        while name in found:
            count += 1
            name = f"{variable.path}:{count}"
        found[name] = variable
    return found


def _inside(layer: Any, scope: str = "") -> Iterator[tuple[str, type]]:
    """(scope in which Keras traces it, type) of each layer inside a layer."""
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        path = f"{scope}/{inner.name}" if scope else inner.name
        yield path, type(inner)
        yield from _inside(inner, path)
