"""Layers with a rule as their VJP. The one place where `custom_vjp` is applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.layers import LINEAR_KINDS, Layer
from jaxlrp.numerics import to_relevance, widen
from jaxlrp.rules import BoundLayer, Rule, Shares


def call(
    layer: Layer,
    rule: Rule,
    inputs: tuple[Array, ...],
    operands: tuple[Any, ...],
    folded: tuple[Array, Array] | None,
    ledger: Array | None = None,
    rectified: bool = False,
) -> Array:
    """The layer's own output, with the rule as its VJP.

    Args:
      layer: the layer.
      rule: the rule. Its traced hyperparameters become arguments of the `custom_vjp` function.
      inputs, operands: the values of `layer.inputs` and `layer.operands`.
      folded: (weight, bias) of a linear layer. Their cotangents are what the rule gives the
        parameters; the unfolded operands of the forward pass get none.
      ledger: an account, see `book`. What the bias and the stabiliser keep is booked in it.
      rectified: whether no relevance comes to negative outputs.
    """
    leaves, tree = jax.tree.flatten(rule)
    traced = {i: leaf for i, leaf in enumerate(leaves) if _compat.is_array(leaf)}
    linear = layer.kind in LINEAR_KINDS
    recompute = layer.kind == "activation" or (layer.cheap and not linear)
    grouped = layer.form is not None and bool(layer.form.extras)

    def rebuild(values: dict[int, Array], dtype: Any) -> Rule:
        cast = {i: v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.inexact) else v
                for i, v in values.items()}  # fmt: skip
        return jax.tree.unflatten(tree, [cast.get(i, leaf) for i, leaf in enumerate(leaves)])

    @jax.custom_vjp
    def function(traced, inputs, operands, folded, ledger):
        return layer.forward(inputs, operands)

    def forward(traced, inputs, operands, folded, ledger):
        z = layer.forward(inputs, operands)
        kept = None if linear and not grouped else operands
        return z, (traced, inputs, kept, folded, None if recompute else z, ledger)

    def backward(residuals, g):
        traced, inputs, kept, folded, z, ledger = residuals
        if z is None:
            # behind a barrier: else the compiler keeps parts of the first evaluation for the second
            inputs, g = lax.optimization_barrier((inputs, g))
            z = layer.forward(inputs, kept)
        function = _wide_function(layer, kept, inputs)

        def shared(traced, inputs, kept, folded, z, g):
            weight, bias = (None, None) if folded is None else map(widen, folded)
            bound = BoundLayer(
                layer, weight, bias, function, kept or (), layer.nonnegative, rectified
            )
            z, g = widen(z), widen(g)
            rule = rebuild(traced, g.dtype)
            shares = rule.backward(bound, tuple(map(widen, inputs)), z, g)
            account = None if ledger is None else _account(shares, bias, ledger)
            return shares.inputs, _parameter_cotangents(shares, folded), account

        found = _compat.freely(shared, traced, inputs, kept, folded, z, g)
        to_inputs, to_parameters, to_ledger = _typed_as(found, (inputs, folded, ledger))
        return None, to_inputs, None, to_parameters, to_ledger

    function.defvjp(forward, backward)
    return function(traced, inputs, operands, folded, ledger)


def hold_fixed(layer: Layer, inputs: tuple[Array, ...], operands: tuple[Any, ...]) -> Array:
    """The layer's own output, linear in its inputs; no relevance goes to the operands.

    No `stop_gradient`: the relevance depends on the operands, which its own derivative must know.
    """
    types = tuple(map(jax.typeof, inputs))

    @jax.custom_vjp
    def function(inputs, operands):
        return layer.forward(inputs, operands)

    def backward(operands, g):
        pull = jax.linear_transpose(lambda *inputs: layer.forward(inputs, operands), *types)
        return _typed_as(pull(g), types), None

    function.defvjp(lambda inputs, operands: (layer.forward(inputs, operands), operands), backward)
    return function(inputs, operands)


def _typed_as(cotangents: Any, primals: Any) -> Any:
    """Cotangents of the types of their primals: dtype, and how they lie on a mesh. None is zero."""

    def one(primal: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return None
        if cotangent.dtype != primal.dtype:
            cotangent = _compat.freely(lambda c: c.astype(primal.dtype), cotangent)
        return _compat.cotangent_of(cotangent, primal)

    return jax.tree.map(one, primals, cotangents)


def _wide_function(
    layer: Layer, operands: tuple[Any, ...] | None, like: tuple[Array, ...]
) -> Callable[..., Array]:
    """The layer's function of wide inputs; its own operations run in the types of the model."""

    def function(*inputs: Array) -> Array:
        held = operands
        if held is None:
            raise TypeError(f"{layer!r} is linear: use `op`, `weight` and `bias`")
        narrow = tuple(x.astype(d) for x, d in zip(inputs, layer.input_dtypes, strict=True))
        forward = _compat.as_traced(lambda *inputs: layer.forward(inputs, held), like)
        return widen(forward(*narrow))

    return function


def _parameter_cotangents(shares: Shares, folded: tuple[Array, Array] | None) -> Any:
    if folded is None:
        return None
    return shares.weight, shares.bias


# The columns of an account.
RECEIVED, PASSED, BIAS, STABILISER = range(4)


def _account(shares: Shares, bias: Array | None, like: Array) -> Array:
    to_bias = jnp.real(jnp.asarray(shares.constant))
    if bias is not None and shares.bias is not None:
        to_bias += jnp.sum(jnp.real(bias * shares.bias))
    return _entered(like, {BIAS: to_bias, STABILISER: jnp.real(jnp.asarray(shares.stabiliser))})


def _entered(like: Array, amounts: dict[int, Array]) -> Array:
    zero, axes = jnp.zeros(()), _compat.varying(like)
    found = (_compat.summed_to(amounts.get(i, zero), axes) for i in range(4))
    return jnp.stack([amount.astype(like.dtype) for amount in found])


def book(a: Array, account: Array, column: int) -> Array:
    """`a` itself; its relevance, summed, is entered in a column of the cotangent of `account`.

    Args:
      a: the value, real or complex.
      account: four zeros. Cotangents add up, and so does what is booked in several places.
      column: RECEIVED, PASSED, BIAS or STABILISER.
    """

    @jax.custom_vjp
    def booked(a: Array, account: Array) -> Array:
        return a

    def backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
        a, account = residuals

        def entry(a: Array, g: Array, account: Array) -> Array:
            return _entered(account, {column: jnp.sum(to_relevance(widen(a), widen(g)))})

        return g, _typed_as(_compat.freely(entry, a, g, account), account)

    booked.defvjp(lambda a, account: (a, (a, account)), backward)
    return booked(a, account)


@jax.custom_vjp
def tap(a: Array, delta: Array) -> Array:
    """`a` itself; the cotangent of `delta` is that of `a`."""
    return a


tap.defvjp(lambda a, delta: (a, None), lambda _, g: (g, g))


@jax.custom_vjp
def mask(a: Array, weights: Array) -> Array:
    """`a` itself; relevance on the way back is multiplied by `weights`."""
    return a


def _mask_backward(weights: Array, g: Array) -> tuple[Array, None]:
    return _typed_as(_compat.freely(jnp.multiply, g, weights), g), None


mask.defvjp(lambda a, weights: (a, weights), _mask_backward)
