"""The rule of embeddings: relevance goes to the integers that look up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.dependence import Trail
from jaxlrp.network.discrete import follow, is_discrete
from jaxlrp.network.graph import Env, Op, Value
from jaxlrp.network.layers import Embedding
from jaxlrp.numerics import summed_to, to_gradient_form, to_relevance
from jaxlrp.rules.base import BoundLayer, Rule, Shares, rule


@rule
class LookUp(Rule):
    """The integer that looks up a value gets the relevance of that value.

    R_i = sum_d R_id over the entries d of the row that integer i looks up. The relevance goes back to where
    the integer came from: through moves, sorts and selections to the original position, and through
    arithmetic on codes unchanged. Several integers that look up one value together get equal parts.
    Conserves relevance, except for values that constants look up.

    Attributes:
      gradient: pass on the sum of the cotangents, which is not relevance, and nothing to floats that were
        cast to integers. Composites that propagate gradients choose it by themselves.

    References:
      Arras et al. (2017), https://doi.org/10.18653/v1/W17-5221, for the sum over the dimensions of a
      word vector

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> table = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> embed = lambda ids: table[ids].sum()
      >>> lrp.plan(embed, None, jnp.array([1, 0]))["gather"]
      LookUp(gradient=False)
      >>> lrp.explain(embed)(jnp.array([1, 0])).relevance.tolist()
      [7.0, 3.0]
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"embedding"})
    splits_parameters: ClassVar[bool] = False

    gradient: bool = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (op,), trail = layer.layer.ops, layer.layer.detail_as(Embedding).trail
        held = dict(zip(layer.layer.operands, layer.operands, strict=True))
        held |= dict(zip(layer.layer.inputs, layer.given, strict=True))

        reached, pull = back_along(trail, held, g.dtype)
        relevance = g if self.gradient else to_relevance(z, g)
        ends = dict(zip(trail.ends, reached, strict=True))
        shares = pull(_to_ends(op, held, ends, relevance, z, g, self.gradient))
        # rounding is no share of constants
        whole = jnp.all(jnp.stack([jnp.all(part > 0) for part in reached]))
        kept = jnp.sum(relevance) - sum(jnp.sum(share) for share in shares)
        kept = jnp.where(whole, jnp.zeros_like(kept), kept)
        if self.gradient:
            return Shares(
                tuple(
                    share if is_discrete(x) else jnp.zeros_like(share)
                    for share, x in zip(shares, layer.given, strict=True)
                )
            )
        pairs = zip(inputs, shares, strict=True)
        return Shares(tuple(to_gradient_form(x, share) for x, share in pairs), constant=kept)


def back_along(
    trail: Trail, held: Env, dtype: Any
) -> tuple[tuple[Array, ...], Callable[[tuple[Array, ...]], tuple[Array, ...]]]:
    """The way back along a trail.

    Args:
      trail: the trail.
      held: the values of its sources and of what its operations read besides.
      dtype: of relevance.

    Returns:
      For each end, one where it is made of the sources and zero where of constants; and the function from
      the relevance of the ends to that of the sources.
    """

    def arriving(*deltas: Array) -> tuple[Array, ...]:
        moved = dict(zip(trail.sources, deltas, strict=True))
        follow(trail.ops, dict(held), moved, codes=True)
        return tuple(moved[v] for v in trail.ends)

    return jax.vjp(arriving, *(jnp.ones(jnp.shape(held[v]), dtype) for v in trail.sources))


def _to_ends(
    op: Op,
    held: Env,
    ends: dict[Value, Array],
    relevance: Array,
    z: Array,
    g: Array,
    gradient: bool,
) -> tuple[Array, ...]:
    """The relevance of the operands that look up.

    Args:
      op: the operation.
      held: the values of its operands.
      ends: of each operand that looks up, one where it is made of the input and zero elsewhere.
      relevance, z, g: of the result.
      gradient: whether `relevance` is the cotangent.
    """
    if op.primitive in P.SCATTER | {P.DYNAMIC_UPDATE}:
        relevance = _of_updates(op, held, g, gradient)
    if op.primitive is P.GATHER:
        axes = op.params["dimension_numbers"].offset_dims
        return (_split(relevance.sum(axes), ends[op.inputs[1]]),)
    if op.primitive in P.SCATTER:
        axes = op.params["dimension_numbers"].update_window_dims
        return (_split(relevance.sum(axes), ends[op.inputs[1]]),)
    if op.primitive in (P.DYNAMIC_SLICE, P.DYNAMIC_UPDATE):
        first = 1 if op.primitive is P.DYNAMIC_SLICE else 2
        starts = [v for v in op.inputs[first:] if v in ends]
        total = sum((ends[v] for v in starts), jnp.zeros((), g.dtype))
        part = jnp.sum(relevance) / jnp.where(total == 0, 1, total)
        return tuple(part * ends[v] * starts.count(v) for v in ends)
    (reached,) = ends.values()  # a predicate, or what is held equal with several numbers
    fitted = summed_to(reached, relevance) if reached.ndim else jnp.sum(relevance)
    return (fitted * (reached > 0).astype(fitted.dtype),)


def _split(relevance: Array, reached: Array) -> Array:
    """A relevance for each component of an index, the last axis of `reached`."""
    total = reached.sum(-1, keepdims=True)
    return relevance[..., None] * reached / jnp.where(total == 0, 1, total)


def _of_updates(op: Op, held: Env, g: Array, gradient: bool) -> Array:
    """The relevance of constants that are put where an index says."""
    place = 1 if op.primitive is P.DYNAMIC_UPDATE else 2
    values: list[Any] = [held[v] for v in op.inputs]
    updates = values[place].astype(g.dtype)

    def put(updates: Array) -> Array:
        operands = [*values[:place], updates, *values[place + 1 :]]
        operands[0] = operands[0].astype(g.dtype)
        return _compat.bind_freely(op.eqn, operands)[0]

    (pulled,) = jax.vjp(put, updates)[1](g)
    return pulled if gradient else to_relevance(updates, pulled)
