"""Shared by all methods: a function of only the explained values, and sums in limited memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp._checks import check_not_text
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.arguments import types_in
from jaxlrp.network.model import Model
from jaxlrp.numerics import widen
from jaxlrp.targets import Target

_DTYPES = {jnp.inexact: "floating-point", jnp.floating: "real and floating-point"}


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One call of a method.

    Attributes:
      fun: function from the explained values to (output, auxiliary).
      values: the explained arguments, a tuple of one or several; every leaf is a JAX array.
      single: whether the user explains one argument rather than a tuple.
    """

    fun: Callable[[Any], tuple[Any, Any]]
    values: Any
    single: bool

    def score(self, target: Target) -> tuple[Any, Any, Any]:
        """(output, aux, c) at the values: c holds the weights of the outputs in the score."""
        output, aux = self.fun(self.values)
        return output, aux, initial_relevance.cotangent(output, target, "gradient")

    def gradient(self, point: Any, weights: Any) -> Any:
        """The gradient of sum(weights * output) at a point."""
        _, pull, _ = jax.vjp(self.fun, point, has_aux=True)
        return pull(weights)[0]

    def like_values(self, given: Any, name: str) -> Any:
        """Broadcasts a number or arrays to arrays shaped like the values.

        Raises:
          ValueError: if a structure or a shape does not match.
        """
        check_not_text(name, given)
        if _is_number(given):
            return jax.tree.map(lambda x: jnp.full_like(x, given), self.values)
        given = (given,) if self.single else given
        if jax.tree.structure(given) != jax.tree.structure(self.values):
            raise ValueError(
                f"{name} must be a number or have the structure of the explained argument, "
                f"{jax.tree.structure(self.values)}, got {jax.tree.structure(given)}"
            )
        return jax.tree.map(functools.partial(_broadcast, name), given, self.values)

    def explanation(self, output: Any, relevance: Any, aux: Any) -> Explanation:
        """The result, with relevance in the dtypes and the structure of the values."""
        relevance = jax.tree.map(lambda r, x: r.astype(_real(x, r)), relevance, self.values)
        return Explanation(output, relevance[0] if self.single else relevance, aux)


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) or (_compat.is_array(given) and jnp.ndim(given) == 0)


def _broadcast(name: str, given: Any, x: Array) -> Array:
    shape = jnp.shape(given)
    if len(shape) > x.ndim or any(
        n not in (1, m) for n, m in zip(shape[::-1], x.shape[::-1], strict=False)
    ):
        raise ValueError(
            f"{name} of shape {shape} does not broadcast to the explained argument, of shape "
            f"{x.shape}"
        )
    return jnp.broadcast_to(jnp.asarray(given).astype(x.dtype), x.shape)


def _real(x: Array, relevance: Array) -> Any:
    """The dtype of the relevance of x: its own, if it is floating-point."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return relevance.dtype
    return x.dtype if jnp.iscomplexobj(relevance) else jnp.real(x).dtype


def prepare(model: Model, args: tuple, kwargs: dict, dtype: Any = jnp.inexact) -> Problem:
    """The function of the explained values alone.

    Args:
      model: the function.
      args, kwargs: its arguments.
      dtype: what the explained values must be, such as `jnp.floating`; None for anything.

    Raises:
      TypeError: if an explained argument is missing, holds no array or has another dtype.
    """
    values = _values(model, args, dtype)

    def function(values: Any) -> tuple[Any, Any]:
        merged = list(args)
        for i, value in zip(model.argnums, values, strict=True):
            merged[i] = value
        # `model.fun` would be the inside of a function that is jitted; there is no need for that here
        return model.split(model.call(*merged, **kwargs))

    return Problem(function, values, model.single)


def _values(model: Model, args: tuple, dtype: Any) -> Any:
    model.check_given(args)
    explained = tuple(args[i] for i in model.argnums)
    leaves, tree = jax.tree.flatten(explained)
    if not leaves or not all(_compat.is_array(x) or _is_number(x) for x in leaves):
        raise TypeError(
            f"the explained argument (argnums={model.argnums}) must be a numeric array or a "
            f"pytree of numeric arrays, got {types_in(list(explained))}"
        )
    arrays = [jnp.asarray(x) for x in leaves]
    for x in arrays:
        if dtype in _DTYPES and not jnp.issubdtype(x.dtype, dtype):
            raise TypeError(
                f"the explained argument must be {_DTYPES[dtype]}, got dtype {x.dtype}; "
                "explain the function of the embedded or converted input instead"
            )
    return jax.tree.unflatten(tree, arrays)


def times(a: Array, g: Array) -> Array:
    """`a g`, in float32 or wider; `Re(a g)` of complex values."""
    product = widen(a) * widen(g)
    return jnp.real(product) if jnp.iscomplexobj(product) else product


def weighted_sum(term: Callable[[Array], Any], weights: Any, batch_size: int) -> Any:
    """`sum_i weights[i] term(i)`, computed in batches of terms.

    Args:
      term: function from an index to a pytree of arrays. It is `vmap`ped over a batch of indices.
      weights: (n,), real.
      batch_size: maximum number of terms to compute at once.

    Returns:
      The sum, in float32 or wider. Terms that pad the last batch have weight zero,
      and repeat a real term, so that they cannot produce NaN.
    """
    weights = np.asarray(weights)
    n = len(weights)
    rounds = -(-n // batch_size)
    size = -(-n // rounds)
    index = np.minimum(np.arange(rounds * size), n - 1).astype(np.int32).reshape(rounds, size)
    weights = np.pad(weights, (0, rounds * size - n)).reshape(rounds, size)

    def add(total: Array, terms: Array, w: Array) -> Array:
        w = w.astype(total.dtype).reshape((size,) + (1,) * total.ndim)
        return total + jnp.sum(w * widen(terms), axis=0)

    def step(total: Any, these: tuple[Array, Array]) -> tuple[Any, None]:
        i, w = these
        return jax.tree.map(lambda t, a: add(t, a, w), total, jax.vmap(term)(i)), None

    shapes = jax.eval_shape(lambda: jax.tree.map(widen, term(jnp.asarray(0, jnp.int32))))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = lax.scan(step, zeros, (jnp.asarray(index), jnp.asarray(weights)))
    return total


def examples(values: Any, output: Any, batch_axis: int | None) -> int | None:
    """The number of examples along the batch axis; None if there is no batch axis.

    Raises:
      TypeError: if `batch_axis` is neither an integer >= 0 nor None.
      ValueError: if the explained values and the outputs disagree on it.
    """
    if batch_axis is None:
        return None
    if isinstance(batch_axis, bool) or not isinstance(batch_axis, int) or batch_axis < 0:
        raise TypeError(f"batch_axis must be an integer >= 0 or None, got {batch_axis!r}")
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves((values, output))]
    sizes = {shape[batch_axis] if batch_axis < len(shape) else None for shape in shapes}
    if len(sizes) != 1 or None in sizes:
        inputs, outputs = (
            ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))
            for tree in (values, output)
        )
        raise ValueError(
            f"the explained argument, of shape {inputs}, and the output, of shape {outputs}, must "
            f"have the same number of examples along batch_axis={batch_axis}; pass batch_axis=None for a "
            "single example"
        )
    (size,) = sizes
    return size
