"""From a user's function and its arguments to a network of layers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlrp import _compat
from jaxlrp.discover import network
from jaxlrp.flaxmodels import Modules, NNXFunction, check_callable, linen_scopes
from jaxlrp.graph import flatten
from jaxlrp.layers import Network
from jaxlrp.naming import Namer


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A user's function, made ready once.

    Attributes:
      fun: a pure function; for an NNX module, of its state and the user's arguments.
      state: that state, else None.
      argnums: the positions, among the user's arguments, of what is explained.
      has_aux: whether the function returns (output, auxiliary).
      modules: the types of NNX modules by path.
    """

    fun: Callable[..., Any]
    state: Any
    argnums: tuple[int, ...]
    single: bool
    has_aux: bool
    modules: Modules


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A traced function with the values it was traced on.

    Attributes:
      network: its layers.
      values: of the graph's inputs, in order: all arrays among the arguments.
      explained: which of these are explained: indices into `values`.
      argument_tree: the tree of the explained arguments, a tuple of one or several.
      output_tree: the tree of the output.
      n_outputs: how many leaves the output has; the auxiliary leaves follow.
      aux_tree: the tree of the auxiliary output, or None.
    """

    network: Network
    values: tuple[Any, ...]
    explained: tuple[int, ...]
    argument_tree: Any
    output_tree: Any
    n_outputs: int
    aux_tree: Any


def source(fun: Any, argnums: int | Sequence[int], has_aux: bool) -> Source:
    """Makes a user's function or NNX module ready to be traced.

    Raises:
      TypeError: if it is neither, or argnums is no integer and no sequence of integers.
    """
    single = isinstance(argnums, int)
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not positions or not all(isinstance(i, int) and i >= 0 for i in positions):
        raise TypeError(
            "argnums must be the position of the explained argument, an integer >= 0, or several; "
            f"got {argnums!r}"
        )
    if isinstance(fun, nnx.Module):
        held = NNXFunction(fun)
        return Source(held, held.state, positions, single, has_aux, held.modules)
    check_callable(fun)
    # under a jit of the user's, a cached trace would not know of modules
    inner = getattr(fun, "__wrapped__", fun) if isinstance(fun, _JITTED) else fun
    return Source(inner, None, positions, single, has_aux, {})


_JITTED = type(jax.jit(lambda x: x))


def trace(source: Source, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
    """Traces the function once and finds its layers.

    Arrays among the positional arguments are traced; everything else (Python numbers, strings,
    None, and all keyword arguments) is as it is.

    Raises:
      TypeError: if an explained argument is missing or holds no array.
      TrainingModeError: if the model is in training mode.
    """
    _check_argnums(source, args)
    everything = args if source.state is None else (source.state, *args)
    offset = 0 if source.state is None else 1
    leaves, tree = jax.tree_util.tree_flatten_with_path(everything)
    wanted = {i + offset for i in source.argnums}
    dynamic = [
        i for i, (path, leaf) in enumerate(leaves)
        if _compat.is_array(leaf) or (path[0].idx in wanted and isinstance(leaf, (int, float)))
    ]  # fmt: skip
    values = tuple(
        leaves[i][1] if _compat.is_array(leaves[i][1]) else jnp.asarray(leaves[i][1])
        for i in dynamic
    )
    explained = tuple(n for n, i in enumerate(dynamic) if leaves[i][0][0].idx in wanted)
    _check_explained(source, args, explained)

    def flat(*values: Any) -> Any:
        merged = [leaf for _, leaf in leaves]
        for i, value in zip(dynamic, values, strict=True):
            merged[i] = value
        out = source.fun(*jax.tree.unflatten(tree, merged), **kwargs)
        if source.has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                "with has_aux=True the function must return (output, auxiliary), got "
                f"{jax.tree.structure(out)}"
            )
        return out

    modules = dict(source.modules)
    with linen_scopes(modules):
        closed, shapes = _compat.make_jaxpr(flat, *values)
    jaxpr, consts = _compat.open_jaxpr(closed)
    graph = flatten(jaxpr, consts)
    names = _parameter_labels(source, args)
    labels = {
        graph.inputs[n]: _label(leaves[i][0], names, offset)
        for n, i in enumerate(dynamic)
        if n not in explained
    }
    output, aux = shapes if source.has_aux else (shapes, None)
    n_outputs = len(jax.tree.leaves(output))
    return Traced(
        network=network(
            graph,
            [graph.inputs[n] for n in explained],
            Namer(modules),
            labels,
            outputs=graph.outputs[:n_outputs],
        ),
        values=values,
        explained=explained,
        argument_tree=jax.tree.structure(tuple(args[i] for i in source.argnums)),
        output_tree=jax.tree.structure(output),
        n_outputs=n_outputs,
        aux_tree=jax.tree.structure(aux) if source.has_aux else None,
    )


def _check_argnums(source: Source, args: tuple[Any, ...]) -> None:
    for i in source.argnums:
        if i >= len(args):
            raise TypeError(
                f"argnums={i} names the argument to explain, but only {len(args)} positional "
                "arguments came: pass the explained argument by position"
            )


def _check_explained(source: Source, args: tuple[Any, ...], explained: tuple[int, ...]) -> None:
    found = sum(len(jax.tree.leaves(args[i])) for i in source.argnums)
    if not explained or found != len(explained):
        raise TypeError(
            f"the explained argument (argnums={source.argnums}) must be an array or a pytree of "
            f"arrays, got {jax.tree.map(type, [args[i] for i in source.argnums])}"
        )


def _parameter_labels(source: Source, args: tuple[Any, ...]) -> list[str]:
    """The names of the function's arguments, for parameters that are bare arrays."""
    try:
        found = list(inspect.signature(source.fun).parameters)
    except (TypeError, ValueError):
        found = []
    names = [name for name in found if name != "self"][: len(args) + 1]
    return names + [f"arg{i}" for i in range(len(names), len(args) + 1)]


def _label(path: tuple[Any, ...], names: list[str], offset: int) -> str:
    """What a parameter is called: its place in its pytree, or the argument's name."""
    inner = jax.tree_util.keystr(path[1:], simple=True, separator="/")
    inner = inner.removesuffix("/value")
    return inner or names[path[0].idx]
