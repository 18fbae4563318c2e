"""Layers with a rule as their VJP. The one place where `custom_vjp` is applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
        wide_inputs = tuple(map(widen, inputs))
        weight, bias = (None, None) if folded is None else map(widen, folded)
        bound = BoundLayer(
            layer, weight, bias, _wide_function(layer, kept), kept or (),
            layer.nonnegative, rectified,
        )  # fmt: skip
        z, g = widen(z), widen(g)
        rule = rebuild(traced, g.dtype)
        shares = rule.backward(bound, wide_inputs, z, g)
        account = None
        if ledger is not None:
            account = _account(shares, bias, ledger)
        return (
            _zeros(traced),
            tuple(c.astype(x.dtype) for c, x in zip(shares.inputs, inputs, strict=True)),
            _zeros(operands_like),
            _parameter_cotangents(shares, folded),
            account,
        )

    operands_like = tuple(map(_Like, operands))
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
        return pull(g), _zeros(operands)

    function.defvjp(lambda inputs, operands: (layer.forward(inputs, operands), operands), backward)
    return function(inputs, operands)


class _Like:
    """Shape and dtype of an operand, so that its value need not be kept for the backward pass."""

    def __init__(self, value: Any) -> None:
        self.shape, self.dtype = jnp.shape(value), jnp.result_type(value)
        self.varying = _compat.varying(value)


def _varying(leaf: Any) -> frozenset[str]:
    return leaf.varying if isinstance(leaf, _Like) else _compat.varying(leaf)


def _zeros(tree: Any) -> Any:
    def zero(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return _compat.zeros(leaf.shape, leaf.dtype, _varying(leaf))
        return np.zeros(leaf.shape, jax.dtypes.float0)

    return jax.tree.map(zero, tree)


def _wide_function(layer: Layer, operands: tuple[Any, ...] | None) -> Callable[..., Array]:
    """The layer's function of wide inputs; its own operations run in the dtypes of the model."""

    def function(*inputs: Array) -> Array:
        if operands is None:
            raise TypeError(f"{layer!r} is linear: use `op`, `weight` and `bias`")
        narrow = tuple(x.astype(d) for x, d in zip(inputs, layer.input_dtypes, strict=True))
        return widen(layer.forward(narrow, operands))

    return function


def _parameter_cotangents(shares: Shares, folded: tuple[Array, Array] | None) -> Any:
    if folded is None:
        return None
    given = (shares.weight, shares.bias)
    return tuple(
        jnp.zeros_like(p) if c is None else c.astype(p.dtype)
        for c, p in zip(given, folded, strict=True)
    )


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
        amount = jnp.sum(to_relevance(widen(a), widen(g)))
        return g, _entered(account, {column: amount})

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


def _mask_backward(weights: Array, g: Array) -> tuple[Array, Array]:
    return (g * weights).astype(g.dtype), jnp.zeros_like(weights)


mask.defvjp(lambda a, weights: (a, weights), _mask_backward)
