"""`edit`: a function whose hidden layers are changed while it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_mapping
from jaxlrp.composites.presets import gradient
from jaxlrp.explanation.attaching import run
from jaxlrp.explanation.patterns import as_patterns, by_layer
from jaxlrp.network.model import Function, Model, model_of


def edit(
    fun: Function,
    edits: Mapping[str, Callable[[Array], Array]],
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The same function with hidden layers changed: an intervention.

    Use it to switch units off, to insert values of another run, or to project a direction out. All else of
    the forward pass is as it was, operation by operation, and so is the derivative. The result can be
    explained, evaluated, compiled and trained like any other function.

    Args:
      fun: the function or Flax module, as in `explain`.
      edits: by path or shell pattern of layers, a function of the layer's output. It returns an array
        of the same shape and dtype, which takes its place. In a loop it is applied in every step, in
        `shard_map` to every shard. `print(lrp.plan(...))` lists the layers.
      argnums: the position of the input, or several, as in `explain`. Only layers that depend on it
        can be edited.
      has_aux: whether `fun` returns (output, auxiliary).

    Returns:
      A function of the arguments of `fun`.

    Raises:
      TypeError: if an argument has a wrong type, or an edit returns something else than an array of the
        layer's dtype.
      ValueError: if a pattern matches no layer, two match the same one, or an edit returns another
        shape.

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> f = lambda x: jax.nn.relu(x @ w).sum()
      >>> without_first = lrp.edit(f, {"relu": lambda a: a.at[..., 0].set(0)})
      >>> x = jnp.array([1.0, 2.0])
      >>> float(f(x)), float(without_first(x))
      (9.0, 5.0)
    """
    check_mapping("edits", edits, "{'layer': function}")
    as_patterns("the keys of edits", edits)
    for key, change in edits.items():
        if not callable(change):
            raise TypeError(
                f"edits[{key!r}] must be a function of the layer's output, got {change!r}: to insert fixed "
                "values write lambda a: values"
            )
    return edited(model_of(fun, argnums, has_aux), dict(edits))


def edited(model: Model, edits: Mapping[str, Callable[[Array], Array]]) -> Callable[..., Any]:
    """`edit` of a function that is ready to be traced."""
    return functools.partial(_edited, model, edits)


def _edited(model: Model, edits: Mapping[str, Callable], /, *args: Any, **kwargs: Any) -> Any:
    def changes(paths: Sequence[str]) -> dict[str, Callable[[Array], Array]]:
        found = by_layer("edits", edits, paths)
        return {path: functools.partial(_changed, *entry) for path, entry in found.items()}

    return run(model, gradient(), args, kwargs, changes)


def _changed(key: str, change: Callable[[Array], Array], a: Array) -> Array:
    """The edited output of a layer, checked."""
    new = change(a)
    if not hasattr(new, "dtype"):
        new = jnp.asarray(new)
    if new.shape != a.shape:
        raise ValueError(
            f"edits[{key!r}] must return the shape of the layer's output, {a.shape}, got {new.shape}"
        )
    if new.dtype != a.dtype:
        raise TypeError(
            f"edits[{key!r}] must return the dtype of the layer's output, {a.dtype}, got {new.dtype}: "
            "write .astype(a.dtype)"
        )
    return jnp.asarray(new)
