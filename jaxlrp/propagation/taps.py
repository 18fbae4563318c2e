"""Taps: identity functions that read or modify the relevance of a value in the backward pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.network.discrete import carrier, raw, with_carrier
from jaxlrp.numerics import to_relevance, widen

# The columns of the ledger.
RECEIVED, PASSED, BIAS, STABILIZER, MAGNITUDE = range(5)
COLUMNS = 5


@jax.custom_vjp
def tap(a: Array, delta: Array) -> Array:
    """`a` itself; the cotangent of `delta` is that of `a`."""
    return a


tap.defvjp(lambda a, delta: (a, None), lambda _, g: (g, g))


@jax.custom_vjp
def mask(a: Array, blank: Array) -> tuple[Array, Array]:
    """`a` and `blank` themselves; the cotangent of `blank` is a factor of the relevance of `a`.

    So the factor is an argument of the pullback: one forward pass serves many masks.
    """
    return a, blank


def _mask_backward(_: None, cotangents: tuple[Array, Array]) -> tuple[Array, None]:
    g, weights = cotangents
    product = _compat.freely(lambda g, w: g * w.astype(g.dtype), g, weights)
    return typed_as(product, g), None


mask.defvjp(lambda a, blank: ((a, blank), None), _mask_backward)


def book(a: Any, account: Array, column: int) -> Any:
    """`a` itself; its relevance, summed, is entered in a column of the cotangent of `account`.

    Args:
      a: the value, real, complex or discrete.
      account: a zero for each column. Cotangents add up, and so does what is booked in several places.
      column: RECEIVED, PASSED, BIAS or STABILIZER. With the first, the sum of magnitudes is entered too.
    """

    @jax.custom_vjp
    def booked(a: Array, value: Array, account: Array) -> Array:
        return a

    def backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, None, Array]:
        value, account = residuals

        def entry(value: Array, g: Array, account: Array) -> Array:
            relevance = to_relevance(widen(value), widen(g))
            amounts = {column: jnp.sum(relevance)}
            if column == RECEIVED:
                amounts[MAGNITUDE] = jnp.sum(jnp.abs(relevance))
            return entered(account, amounts)

        return g, None, typed_as(_compat.freely(entry, value, g, account), account)

    booked.defvjp(lambda a, value, account: (a, (value, account)), backward)
    return with_carrier(a, booked(carrier(a), raw(a), account))


def entered(like: Array, amounts: dict[int, Array]) -> Array:
    zero, axes = jnp.zeros(()), _compat.varying(like)
    found = (_compat.summed_to(amounts.get(i, zero), axes) for i in range(COLUMNS))
    return jnp.stack([amount.astype(like.dtype) for amount in found])


def typed_as(cotangents: Any, primals: Any) -> Any:
    """Cotangents of the types of their primals: dtype, and how they lie on a mesh. None is zero."""

    def one(primal: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return None
        if cotangent.dtype != primal.dtype:
            cotangent = _compat.freely(lambda c: c.astype(primal.dtype), cotangent)
        return _compat.cotangent_of(cotangent, primal)

    return jax.tree.map(one, primals, cotangents)
