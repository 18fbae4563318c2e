"""Layers with a rule as their VJP: the one place where a rule becomes a `custom_vjp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.network.dependence import Trail
from jaxlrp.network.discrete import (
    Discrete,
    as_floats,
    carrier,
    is_discrete,
    lifted,
    raw,
    zeros_like,
)
from jaxlrp.network.graph import Env
from jaxlrp.network.layers import LINEAR_KINDS, Layer
from jaxlrp.numerics import summed_to, to_gradient_form, to_relevance, widen
from jaxlrp.propagation.taps import BIAS, STABILIZER, entered, typed_as
from jaxlrp.rules import BoundLayer, Rule, Shares
from jaxlrp.rules.lookup import back_along


def call(
    layer: Layer,
    rule: Rule,
    inputs: tuple[Any, ...],
    operands: tuple[Any, ...],
    folded: tuple[Array, Array] | None,
    ledger: Array | None = None,
    rectified: bool = False,
) -> Any:
    """The layer's own output, with the rule as its VJP.

    Args:
      layer: the layer.
      rule: the rule. Its traced hyperparameters become arguments of the `custom_vjp` function.
      inputs, operands: the values of `layer.inputs` and `layer.operands`.
      folded: (weight, bias) of a linear layer. Their cotangents are what the rule gives the
        parameters; the unfolded operands of the forward pass get none.
      ledger: an account, see `book`. What the bias and the stabilizer keep is booked in it.
      rectified: whether no relevance arrives at negative outputs.
    """
    leaves, tree = jax.tree.flatten(rule)
    traced = {i: leaf for i, leaf in enumerate(leaves) if _compat.is_array(leaf)}
    linear = layer.kind in LINEAR_KINDS
    recompute = layer.kind == "activation" or (layer.is_cheap and not linear)
    grouped = layer.form is not None and bool(layer.form.extras)

    def rebuild(values: dict[int, Array], dtype: Any) -> Rule:
        cast = {i: v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.inexact) else v
                for i, v in values.items()}  # fmt: skip
        return jax.tree.unflatten(tree, [cast.get(i, leaf) for i, leaf in enumerate(leaves)])

    def evaluate(inputs, operands):
        return layer.forward(tuple(map(raw, inputs)), operands)

    @jax.custom_vjp
    def function(traced, inputs, operands, folded, ledger):
        return lifted(evaluate(inputs, operands))

    symbolic = _compat.has_symbolic_zeros((inputs, operands))

    def forward(*primals):
        used = not symbolic or _compat.is_differentiated(primals[3])  # cotangents of parameters
        values = _compat.values_of(primals) if symbolic else primals
        traced, inputs, operands, folded, ledger = values
        z = evaluate(inputs, operands)
        kept = None if linear and not grouped else operands
        # without leaves: a structure is what both passes know of each other while they are traced
        asked = () if used or ledger is not None else None
        return lifted(z), (traced, inputs, kept, folded, None if recompute else z, ledger, asked)

    def backward(residuals, g):
        traced, inputs, kept, folded, z, ledger, asked = residuals
        given, g = tuple(map(raw, inputs)), _compat.instantiated(carrier(g))
        if z is None:
            # after a barrier: otherwise the compiler keeps parts of the first evaluation for the second
            given, g = lax.optimization_barrier((given, g))
            z = layer.forward(given, kept)
        function = _wide_function(layer, kept, given)

        def shared(traced, given, kept, folded, z, g):
            weight, bias = (None, None) if folded is None else map(widen, folded)
            bound = BoundLayer(
                layer, weight, bias, function, kept or (), given, layer.nonnegative, rectified,
                asked is not None,
            )  # fmt: skip
            z, g = widen(z), widen(g)
            rule = rebuild(traced, g.dtype)
            shares = rule.backward(bound, tuple(map(widen, given)), z, g)
            account = None if ledger is None else _account(shares, bias, ledger)
            cotangents = None if asked is None else _parameter_cotangents(shares, folded)
            return shares.inputs, cotangents, account

        values = traced, given, kept, folded, z, g
        if any(map(_compat.is_in_derivative, jax.tree.leaves(values))):
            # of an explanation that is differentiated, shares are computed again instead of stored
            shared = jax.checkpoint(shared)
        found = _compat.freely(shared, *values)
        primals = tuple(map(carrier, inputs)), None if asked is None else folded, ledger
        to_inputs, to_parameters, to_ledger = typed_as(found, primals)
        to_inputs = tuple(map(_cotangent, to_inputs, inputs))
        return None, to_inputs, None, to_parameters, to_ledger

    function.defvjp(forward, backward, symbolic_zeros=symbolic)
    return function(traced, inputs, operands, folded, ledger)


def _cotangent(c: Array, x: Any) -> Any:
    """A cotangent as that of a value; of an integer, what takes its place."""
    return Discrete(cast(Any, None), c) if isinstance(x, Discrete) else c


@jax.custom_vjp
def passed(x: Array, z: Array) -> Array:
    """z, whose relevance goes to x: what autodiff does where z is x times a constant, but for x = 0.

    Where the constant is zero and x is not, nothing of z is made of x.
    """
    return z


def _passed_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, None]:
    def share(x: Array, z: Array, g: Array) -> Array:
        relevance = jnp.where((z == 0) & (x != 0), jnp.zeros_like(g), to_relevance(z, g))
        return to_gradient_form(x, summed_to(x, relevance))

    x, z = residuals
    return typed_as(_compat.freely(share, x, z, g), x), None


passed.defvjp(lambda x, z: (z, (x, z)), _passed_backward)


def renamed(trail: Trail, env: Env) -> Discrete:
    """An integer at the end of a trail: its relevance goes to where the trail begins."""
    (end,), sources = trail.ends, tuple(env[v] for v in trail.sources)
    held = {v: raw(env[v]) for op in trail.ops for v in op.inputs if v in env}
    held |= {v: raw(x) for v, x in zip(trail.sources, sources, strict=True)}
    value = raw(env[end])

    @jax.custom_vjp
    def function(carriers: tuple[Array, ...], held: Env, value: Array) -> Array:
        return zeros_like(value)

    def shares(g: Array, held: Env, value: Array) -> tuple[Array, ...]:
        _, pull = back_along(trail, held, g.dtype)
        found = pull((to_relevance(widen(value), g),))
        return tuple(
            to_gradient_form(widen(held[v]), share)
            for v, share in zip(trail.sources, found, strict=True)
        )

    def backward(residuals: Any, g: Array) -> tuple[Any, None, None]:
        carriers, held, value = residuals
        return typed_as(_compat.freely(shares, g, held, value), carriers), None, None

    function.defvjp(lambda *args: (function(*args), args), backward)
    return Discrete(value, function(tuple(map(carrier, map(lifted, sources))), held, value))


def _wide_function(
    layer: Layer, operands: tuple[Any, ...] | None, like: tuple[Array, ...]
) -> Callable[..., Array]:
    """The layer's function of wide inputs; its own operations run in the types of the model."""

    def function(*inputs: Array) -> Array:
        held = operands
        if held is None:
            raise TypeError(f"{layer!r} is linear: use `op`, `weight` and `bias`")
        if layer.is_discrete:
            return widen(_in_floats(layer, inputs, held))
        narrow = tuple(x.astype(a.dtype) for x, a in zip(inputs, layer.input_avals, strict=True))
        forward = _compat.as_traced(lambda *inputs: layer.forward(inputs, held), like)
        return widen(forward(*narrow))

    return function


def _in_floats(layer: Layer, inputs: tuple[Array, ...], operands: tuple[Any, ...]) -> Array:
    """The function of a layer of integers, of floats."""
    env = dict(zip(layer.inputs, inputs, strict=True))
    env |= {
        v: widen(value) if is_discrete(value) and v in layer.values else value
        for v, value in zip(layer.operands, operands, strict=True)
    }
    for op in layer.ops:
        env.update(zip(op.outputs, as_floats(op, [env[v] for v in op.inputs]), strict=True))
    return env[layer.output]


def _parameter_cotangents(shares: Shares, folded: tuple[Array, Array] | None) -> Any:
    if folded is None:
        return None
    return shares.weight, shares.bias


def _account(shares: Shares, bias: Array | None, like: Array) -> Array:
    to_bias = jnp.real(jnp.asarray(shares.constant))
    if bias is not None and shares.bias is not None:
        to_bias += jnp.sum(jnp.real(bias * shares.bias))
    return entered(like, {BIAS: to_bias, STABILIZER: jnp.real(jnp.asarray(shares.stabilizer))})
