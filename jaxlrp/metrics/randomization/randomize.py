"""Models whose layers are initialized again, by their own initializers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jax import Array

from jaxlrp._checks import check_one_of
from jaxlrp.metrics.randomization.order import (
    Layers,
    evaluation_order,
    leaf_layers,
    leaf_paths,
    ordered,
)

Order = Literal["top_down", "bottom_up", "independent"]
ORDERS: tuple[str, ...] = get_args(Order)
Init = nn.Module | Callable[[Array], Any]
"""A Linen module, or a function from a random key to new variables or to a new NNX module."""


def randomize(
    model: Init,
    variables: Any,
    key: Array,
    *,
    layers: Layers | None = None,
    order: Order = "top_down",
    inputs: Any = None,
) -> Iterator[tuple[str, Any]]:
    """Variables in which more and more layers are initialized again.

    New values come from the model's own initializers: its `init` is called on the key, and the leaves of
    the chosen layers are replaced, running statistics included. A layer that is initialized with zeros or
    ones gets them again.

    Args:
      model: a Linen module; or a function from a random key to variables, or to a new NNX module, such as
        `lambda key: Net(rngs=nnx.Rngs(key))`.
      variables: pytree of parameters; for NNX, the state of the trained module.
      key: a random key. All layers come from one initialization.
      layers: those to randomize, from the input to the output: their paths, or a plan of the model
        (`jaxlrp.plan`). By default, all layers that a Linen module uses, in the order of use.
      order: "top_down" starts at the output and randomizes one more layer each time; "bottom_up" starts at
        the input; "independent" randomizes one layer at a time.
      inputs: one example with the axis of the samples, or a tuple of arguments, to initialize a Linen
        module.

    Yields:
      (path of the layer that was randomized last, variables), of the structure, shapes and dtypes given.

    Raises:
      TypeError, ValueError, KeyError: naming the argument that is wrong.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from jaxlrp import metrics
      >>> model, x = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]), jnp.ones((1, 3))
      >>> variables = model.init(jax.random.key(0), x)
      >>> [path for path, _ in metrics.randomize(model, variables, jax.random.key(1), inputs=x)]
      ['layers_2', 'layers_0']
    """
    check_one_of("order", order, ORDERS)
    found = in_order(model, variables, layers, inputs)
    fresh = initialized(model, key, inputs)
    if order == "top_down":
        found = found[::-1]
    return _each(variables, fresh, found, order == "independent")


def _each(
    variables: Any, fresh: Any, layers: tuple[str, ...], independent: bool
) -> Iterator[tuple[str, Any]]:
    for i, layer in enumerate(layers):
        yield (
            layer,
            replaced(variables, fresh, layers[i : i + 1] if independent else layers[: i + 1]),
        )


def in_order(model: Init, variables: Any, layers: Layers | None, inputs: Any) -> tuple[str, ...]:
    """The layers to randomize, from the input to the output; arguments as for `randomize`."""
    if layers is not None:
        return ordered(layers, variables)
    if not isinstance(model, nn.Module):
        raise TypeError(
            "layers must be given, unless model is a Linen module: their paths from the input to the "
            "output, jaxlrp.plan(...), or metrics.evaluation_order(fun, variables, inputs)"
        )
    return evaluation_order(model.apply, variables, *_arguments(inputs))


def initialized(model: Init, key: Array, inputs: Any) -> Any:
    """New variables of a model; arguments as for `randomize`."""
    if isinstance(model, nn.Module):
        return model.init(key, *_arguments(inputs))
    if isinstance(model, nnx.Module) or not callable(model):
        raise TypeError(
            "model must be a Linen module, or a function from a random key to variables or to a new NNX "
            f"module, such as lambda key: Net(rngs=nnx.Rngs(key)), got {type(model).__name__}"
        )
    found = model(key)
    return nnx.state(found) if isinstance(found, nnx.Module) else found


def _arguments(inputs: Any) -> tuple[Any, ...]:
    if inputs is None:
        raise TypeError(
            "inputs is missing: pass one example, (1, ...), to initialize a Linen module"
        )
    return inputs if isinstance(inputs, tuple) else (inputs,)


def replaced(variables: Any, fresh: Any, layers: Collection[str]) -> Any:
    """Variables with the leaves of some layers taken from others.

    Raises:
      ValueError: if the others have no such leaf, or one of another shape.
    """
    new = dict(zip(_whole_paths(fresh), jax.tree.leaves(fresh), strict=True))
    leaves, tree = jax.tree.flatten(variables)
    names = zip(_whole_paths(variables), leaf_layers(variables), strict=True)
    found = []
    for old, (path, layer) in zip(leaves, names, strict=True):
        if layer not in layers:
            found.append(old)
            continue
        if path not in new or jnp.shape(new[path]) != old.shape:
            got = f"shape {jnp.shape(new[path])}" if path in new else "none"
            raise ValueError(
                f"model must initialize {'/'.join(path)} with the shape that variables have, {old.shape}, "
                f"got {got}"
            )
        found.append(jnp.asarray(new[path], old.dtype))
    return jax.tree.unflatten(tree, found)


def _whole_paths(variables: Any) -> list[tuple[str, ...]]:
    """The path of each leaf, its collection included."""
    paths = leaf_paths({"": variables})
    return [path[1:] for path in paths]
