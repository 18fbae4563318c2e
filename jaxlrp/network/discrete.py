"""Integers and truth values that carry relevance.

Autodiff has no cotangents for them. Each travels with a float array of zeros, whose cotangent takes the
place of its own: relevance in gradient form, as of a float. What moves the value moves the zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.errors import UnsupportedError, where
from jaxlrp.network import primitives as P
from jaxlrp.network.dependence import carrying
from jaxlrp.network.graph import Env, Op, Step, Value


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Discrete:
    """An integer or truth value that carries relevance.

    Attributes:
      value: the value.
      delta: zeros of its shape, float32 or wider, whose cotangent is the value's.
    """

    value: Array
    delta: Array


def is_discrete(value: Any) -> bool:
    """Whether a value is an array of integers or truth values."""
    dtype = jnp.result_type(value)
    return jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def raw(value: Any) -> Any:
    """A value as the user's own operations take it."""
    return value.value if isinstance(value, Discrete) else value


def lifted(value: Any) -> Any:
    """A value that can carry relevance: a float itself, or an integer with its zeros."""
    if isinstance(value, Discrete) or not is_discrete(value):
        return value
    return Discrete(value, zeros_like(value))


def zeros_like(value: Any) -> Array:
    return _compat.zeros(jnp.shape(value), jnp.result_type(float), _compat.varying(value))


def carrier(value: Any) -> Any:
    """The part of a value that has a cotangent."""
    return value.delta if isinstance(value, Discrete) else value


def with_carrier(value: Any, new: Array) -> Any:
    """The value with another such part."""
    return Discrete(value.value, new) if isinstance(value, Discrete) else new


@jax.custom_vjp
def attached(value: Array, delta: Array) -> Array:
    """A float value whose cotangent goes to `delta`, zeros of its shape."""
    return value


def _attached_backward(_: None, g: Array) -> tuple[Array, Array]:
    return jnp.zeros_like(g), g


attached.defvjp(lambda value, delta: (value, None), _attached_backward)


def evaluate(steps: Iterable[Step], env: Env, live: frozenset[Value]) -> None:
    """Evaluates steps that autodiff treats, reading from and writing to `env`.

    Args:
      steps: operations and calls.
      env: values, discrete ones among them.
      live: the values that carry relevance.
    """
    for step in steps:
        given = [env[v] for v in step.inputs]
        values = [raw(v) for v in given]
        if not step.outputs:  # callbacks have no derivative, and need none
            values = [lax.stop_gradient(v) for v in values]
        results = _compat.bind(step.eqn, values)
        if isinstance(step, Op) and any(v in live for v in step.outputs):
            deltas = _deltas(step, given)
            if any(d is not None for d in deltas):
                moved = linear(step, values, results, deltas)
                results = [
                    joined(value, delta) if v in live else value
                    for v, value, delta in zip(step.outputs, results, moved, strict=True)
                ]
        env.update(zip(step.outputs, results, strict=True))


def _deltas(op: Op, given: Sequence[Any]) -> list[Array | None]:
    """The zeros of the operands that hold values; of indices and predicates none are moved."""
    at = carrying(op)
    return [v.delta if i in at and isinstance(v, Discrete) else None for i, v in enumerate(given)]


def joined(value: Array, delta: Array | None) -> Any:
    """A result with the zeros that were computed along with it."""
    if delta is None:
        return lifted(value)
    if is_discrete(value):
        return Discrete(value, delta)
    return attached(value, delta.astype(value.dtype))


def run(ops: Sequence[Op], inputs: dict[Value, Any], operands: Env, output: Value) -> Any:
    """Evaluates the operations of a layer on discrete inputs, linear in them."""
    env: Env = {v: raw(value) for v, value in (operands | inputs).items()}
    deltas = {v: value.delta for v, value in inputs.items() if isinstance(value, Discrete)}
    follow(ops, env, deltas)
    return joined(env[output], deltas.get(output))


def follow(ops: Iterable[Op], env: Env, deltas: dict[Value, Array], codes: bool = False) -> None:
    """Computes values, and the zeros that go along with them, linear in those at the beginning.

    Args:
      ops: the operations, in order.
      env: raw values; results are added.
      deltas: the zeros by value; results are added.
      codes: whether integers are codes, which arithmetic renames: each result then stands for the
        operands that it is computed from, to equal parts. For use inside `_compat.freely`.
    """
    bind = _compat.bind_freely if codes else _compat.bind
    for op in ops:
        values = [env[v] for v in op.inputs]
        results = bind(op.eqn, values)
        env.update(zip(op.outputs, results, strict=True))
        given = [deltas.get(v) for v in op.inputs]
        if all(d is None for d in given):
            continue
        rule = _renamed if codes and op.primitive in P.ELEMENTWISE else linear
        for v, delta in zip(op.outputs, rule(op, values, results, given), strict=True):
            if delta is not None:
                deltas[v] = delta


Deltas = Sequence[Array | None]


def linear(op: Op, values: list[Any], results: list[Any], deltas: Deltas) -> Deltas:
    """The zeros of the results of an operation that is linear in the operands that have some.

    Raises:
      UnsupportedError: if it is not known how to compute them.
    """
    p = op.primitive
    if p is P.CONVERT:
        dtype = op.params["new_dtype"]
        floats = jnp.issubdtype(dtype, jnp.inexact)
        return [d.astype(dtype) if floats and d is not None else d for d in deltas]
    if p is P.DIV and deltas[1] is None:
        assert deltas[0] is not None
        return [deltas[0] / values[1]]
    if p is P.SORT:
        return _sorted(op, values, deltas)
    if p in P.TOP_K:
        (delta,) = deltas
        assert delta is not None
        axis = op.params.get("axis", op.params.get("reduction_dimension", -1)) % delta.ndim
        return [jnp.take_along_axis(delta, results[1], axis=axis), None]
    if p in P.BILINEAR:
        moving = [i for i in (0, 1) if deltas[i] is not None]
        if len(moving) == 1:
            operands = [
                d if d is not None else _float(v) for v, d in zip(values, deltas, strict=True)
            ]
            return as_floats(op, operands[:2] + list(values[2:]))
    elif p in P.STRUCTURAL:
        values_at = carrying(op)
        operands = [
            v if i not in values_at else zeros_like(v) if d is None else d
            for i, (v, d) in enumerate(zip(values, deltas, strict=True))
        ]
        return as_floats(op, operands)
    raise UnsupportedError(
        f"`{p}` {where('', op.source)} reads integers that carry relevance, and jaxlrp does not know how "
        "relevance flows through it: cast them to floats first, x.astype('float32')"
    )


def as_floats(op: Op, operands: Sequence[Any]) -> list[Array]:
    """What an operation on integers makes of floats."""
    changes: dict[str, Any] = {}
    if "preferred_element_type" in op.params:
        changes["preferred_element_type"] = None
    if op.primitive is P.GATHER:
        changes["fill_value"] = 0.0 if op.params["fill_value"] is not None else None
    if op.primitive is P.CONVERT:
        return [operands[0]]
    return _compat.bind_freely(op.eqn, operands, **changes)


def _float(value: Any) -> Array:
    return jnp.asarray(value).astype(jnp.result_type(float)) if is_discrete(value) else value


def _sorted(op: Op, values: list[Any], deltas: Deltas) -> Deltas:
    axis = op.params["dimension"]
    places = lax.broadcasted_iota(jnp.int32, jnp.shape(values[0]), axis)
    (*_, order) = lax.sort(
        (*values, places), dimension=axis, is_stable=op.params["is_stable"],
        num_keys=op.params["num_keys"],
    )  # fmt: skip
    return [None if d is None else jnp.take_along_axis(d, order, axis=axis) for d in deltas]


def _renamed(op: Op, values: list[Any], results: list[Any], deltas: Deltas) -> Deltas:
    """Of an elementwise operation on codes."""
    shape = jnp.shape(results[0])
    if op.primitive is P.SELECT:
        cases = [
            jnp.zeros(shape, jnp.result_type(float)) if d is None else jnp.broadcast_to(d, shape)
            for d in deltas[1:]
        ]
        if any(d is not None for d in deltas[1:]):
            return [lax.select_n(values[0], *cases)]
    parts = [jnp.broadcast_to(d, shape) for d in deltas if d is not None]
    if op.primitive in (P.MAX, P.MIN) and len(parts) == 2:
        left = values[0] >= values[1] if op.primitive is P.MAX else values[0] <= values[1]
        return [jnp.where(left, *parts)]
    return [sum(parts[1:], parts[0]) / len(parts)]
