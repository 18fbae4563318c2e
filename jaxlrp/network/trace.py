"""From a user's function and its arguments to a network of layers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlrp import _compat
from jaxlrp._checks import is_number
from jaxlrp.network.assemble import network
from jaxlrp.network.flax_models import Modules, NNXFunction, check_callable, linen_scopes
from jaxlrp.network.graph import flatten
from jaxlrp.network.nodes import Network
from jaxlrp.network.paths import Namer


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
      places: for each of them, which positional argument it comes from (-1 for the state of an NNX
        module), and which leaf of it.
      output_tree: the tree of the output.
      n_outputs: how many leaves the output has; the auxiliary leaves follow.
      aux_tree: the tree of the auxiliary output, or None.
    """

    network: Network
    values: tuple[Any, ...]
    explained: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    output_tree: Any
    n_outputs: int
    aux_tree: Any

    def arguments(
        self, args: Sequence[Any], positions: Iterable[int], read: Mapping[int, Any]
    ) -> tuple[Any, ...]:
        """Arguments with other arrays in place of their own; what was not traced stays.

        Args:
          args: the positional arguments that were traced.
          positions: of those to return.
          read: the arrays, by index into `values`.
        """
        at = {place: n for n, place in enumerate(self.places)}
        found = []
        for i in positions:
            leaves, tree = jax.tree.flatten(args[i])
            places = (at.get((i, k)) for k in range(len(leaves)))
            pairs = zip(leaves, places, strict=True)
            filled = [leaf if n is None else read[n] for leaf, n in pairs]
            found.append(jax.tree.unflatten(tree, filled))
        return tuple(found)


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


def trace(
    source: Source,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parameters: Sequence[int] = (),
) -> Traced:
    """Traces the function once and finds its layers.

    Arrays among the positional arguments are traced, and Python numbers in those that are explained or
    whose own relevance is asked for. Everything else (other numbers, booleans, strings, None, and all
    keyword arguments) is as it is.

    Args:
      source: the function.
      args, kwargs: its arguments.
      parameters: positions of arguments whose own relevance is asked for.

    Raises:
      TypeError: if an explained argument is missing or holds no array.
      TrainingModeError: if the model is in training mode.
    """
    _check_argnums(source, args)
    everything = args if source.state is None else (source.state, *args)
    offset = 0 if source.state is None else 1
    leaves, tree = jax.tree_util.tree_flatten_with_path(everything)
    numeric = {*source.argnums, *parameters}
    dynamic: list[int] = []
    places: list[tuple[int, int]] = []
    seen: dict[int, int] = {}
    for i, (path, leaf) in enumerate(leaves):
        argument = path[0].idx - offset
        seen[argument] = seen.get(argument, -1) + 1
        if _compat.is_array(leaf) or (argument in numeric and is_number(leaf)):
            dynamic.append(i)
            places.append((argument, seen[argument]))
    values = tuple(
        leaves[i][1] if _compat.is_array(leaves[i][1]) else jnp.asarray(leaves[i][1])
        for i in dynamic
    )
    explained = tuple(n for n, (argument, _) in enumerate(places) if argument in source.argnums)
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
        places=tuple(places),
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
    if not explained:
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
