"""The layers of a model's parameters, and the order in which the model uses them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey

from jaxlrp import _compat
from jaxlrp.errors import near
from jaxlrp.explanation.plan import Plan

Layers = Plan | Sequence[str]
_BOXES = ("value", "raw_value")  # what a Flax variable keeps its array in


def leaf_paths(variables: Any) -> list[tuple[str, ...]]:
    """The path of each leaf: its names, without "params" or another collection of a Linen module."""
    in_collections = isinstance(variables, Mapping) and "params" in variables
    found = []
    for path, _ in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if path and isinstance(path[-1], GetAttrKey) and path[-1].name in _BOXES:
            path = path[:-1]
        names = [str(_name(key)) for key in path]
        found.append(tuple(names[1:] if in_collections else names))
    return found


def _name(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key


def leaf_layers(variables: Any) -> list[str | None]:
    """The layer that each leaf belongs to: the path of its module; None for a leaf that is no float.

    A leaf at the root of the tree is a separate layer.
    """
    leaves = jax.tree.leaves(variables)
    return [
        ("/".join(path[:-1]) or "/".join(path)) if _is_float(leaf) else None
        for path, leaf in zip(leaf_paths(variables), leaves, strict=True)
    ]


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", type(None)), jnp.inexact)


def evaluation_order(fun: Callable[..., Any], variables: Any, *args: Any) -> tuple[str, ...]:
    """The layers whose parameters a function uses, from its input to its output; computes nothing.

    A layer owns parameters: it is the path of a module, such as "Dense_0" or "layers/0", or a parameter at
    the root of the tree. Its position is where the function last uses one of its parameters together with
    values other than parameters. Layers inside one branch or `while` loop share one position and keep the
    order of the tree.

    Args:
      fun: of (variables, *args), such as `model.apply`.
      variables: pytree of parameters.
      *args: arrays.

    Returns:
      Paths; layers that the function does not use are left out.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from jaxlrp import metrics
      >>> model = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Dense(2)])
      >>> x = jnp.ones((1, 8, 8, 3))
      >>> metrics.evaluation_order(model.apply, model.init(jax.random.key(0), x), x)
      ('layers_0', 'layers_2')
    """
    layers = leaf_layers(variables)
    leaves, tree = jax.tree.flatten(variables)

    def flat(leaves: list[Any], args: Any) -> Any:
        return fun(jax.tree.unflatten(tree, leaves), *args)

    jaxpr, _ = _compat.open_jaxpr(jax.make_jaxpr(flat)(leaves, args))
    held = [frozenset([layer]) if layer else frozenset() for layer in layers]
    # The first inputs are the leaves; those of args follow.
    known = dict(zip(jaxpr.invars, held, strict=False)) | dict.fromkeys(
        jaxpr.constvars, frozenset()
    )
    last: dict[str, int] = {}
    for place, used in zip(itertools.count(), _uses(jaxpr, known), strict=False):
        last.update(dict.fromkeys(used, place))
    rank = {layer: i for i, layer in enumerate(dict.fromkeys(layers))}
    return tuple(sorted(last, key=lambda layer: (last[layer], rank[layer])))


def _uses(jaxpr: Any, known: dict[Any, frozenset[str]]) -> Iterator[frozenset[str]]:
    """The layers that each operation uses together with other values, in the order of evaluation.

    Args:
      jaxpr: a program.
      known: the layers of each value that is computed from parameters alone; is added to.
    """

    def of(value: Any) -> frozenset[str] | None:
        return frozenset() if isinstance(value, _compat.Literal) else known.get(value)

    for eqn in jaxpr.eqns:
        given = [of(v) for v in eqn.invars]
        used = frozenset().union(*(g for g in given if g))
        if all(g is not None for g in given):
            known.update(dict.fromkeys(eqn.outvars, used))
            continue
        body = _body(eqn) if len(used) > 1 else None
        if body is None:
            if used:
                yield used
            continue
        inner = body
        inside = {v: g for v, g in zip(inner.invars, given, strict=True) if g is not None}
        yield from _uses(inner, inside | dict.fromkeys(inner.constvars, frozenset()))


def _body(eqn: Any) -> Any:
    """The body of a call or scan, whose inputs are those of the operation; None for anything else."""
    try:
        jaxpr, _ = _compat.call_body(eqn)
    except TypeError:
        return None
    return jaxpr if len(jaxpr.invars) == len(eqn.invars) else None


def ordered(layers: Layers, variables: Any) -> tuple[str, ...]:
    """Layers of parameters, from the input to the output.

    Args:
      layers: their paths in this order, or a plan of the model.
      variables: pytree of parameters.

    Raises:
      TypeError: if layers are neither.
      KeyError: if there is no such layer.
      ValueError: if a path comes twice, or a plan has no place for a layer.
    """
    owned = tuple(dict.fromkeys(layer for layer in leaf_layers(variables) if layer))
    if isinstance(layers, Plan):
        return _of_plan(layers, owned)
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(
            "layers must be paths from the input to the output, or a plan of the model, got "
            f"{type(layers).__name__}"
        )
    for path in layers:
        if path not in owned:
            raise KeyError(f"variables have no layer {path!r}: {near(path, owned)}")
    if len(set(layers)) < len(layers) or not layers:
        raise ValueError(f"layers must be one or more different paths, got {tuple(layers)!r}")
    return tuple(layers)


def _of_plan(plan: Plan, owned: Sequence[str]) -> tuple[str, ...]:
    """The layers of parameters in the order in which a plan last uses them."""
    found: dict[str, None] = {}
    for row in plan.paths:
        path = row.partition(":")[0]  # a later use of the same layer ends in :1, :2, ...
        for layer in owned:
            if path == layer or path.startswith(f"{layer}/"):
                found.pop(layer, None)
                found[layer] = None
    left = [layer for layer in owned if layer not in found]
    if left:
        raise ValueError(
            f"the plan has no layer of its own for {', '.join(left)}, so it does not give their order: "
            "pass layers=metrics.evaluation_order(model.apply, variables, inputs)"
        )
    return tuple(found)
