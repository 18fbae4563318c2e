"""Rules for products of values that all depend on the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp.network import primitives as P
from jaxlrp.network.layers import Product
from jaxlrp.rules.base import ALL_KINDS, BoundLayer, Rule, Shares, rule

_PRODUCTS = frozenset({"product", "attention", "gate"})


@rule
class Uniform(Rule):
    """A product of two values that both depend on the input: half of the relevance to each.

    Of a product of n values along an axis (`jnp.prod`, `jnp.cumprod`) each gets a part in n.

    References:
      Achtibat et al. (2024), "AttnLRP", eq. 13, https://arxiv.org/abs/2402.05602
    """

    kinds: ClassVar[frozenset[str]] = _PRODUCTS
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        _, pull = jax.vjp(layer.function, *inputs)
        return Shares(pull(g / _factors(layer, inputs, z)))


def _factors(layer: BoundLayer, inputs: tuple[Array, ...], z: Array) -> float | Array:
    """How many values each output is the product of."""
    op = layer.layer.ops[0]
    if op.primitive is P.REDUCE_PROD:
        return float(math.prod(inputs[0].shape[axis] for axis in op.params["axes"]))
    if op.primitive is P.CUMPROD:
        axis = op.params["axis"]
        count = jnp.arange(1, z.shape[axis] + 1, dtype=z.dtype)
        count = count[::-1] if op.params["reverse"] else count
        return count.reshape([-1 if d == axis else 1 for d in range(z.ndim)])
    return 2.0


@rule
class SignalTakesAll(Rule):
    """A product of a gate and a signal: all relevance to the signal, none to the gate.

    The gate is the factor that is a bounded activation (a sigmoid, say), or softmax weights; it is
    recognized by that. At attention this is CP-LRP. Of a product where neither factor is a gate, or
    both are, the left one is taken for the signal.

    Raises:
      ValueError: at a product of all values along an axis, none of which is a gate.

    References:
      Arras et al. (2017), https://doi.org/10.18653/v1/W17-5221; Ali et al. (2022), "XAI for
      transformers", https://doi.org/10.48550/arXiv.2202.07304
    """

    kinds: ClassVar[frozenset[str]] = _PRODUCTS
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        if len(inputs) == 1:
            raise ValueError(
                f"SignalTakesAll is for a gate and a signal, but {layer.layer.path!r} "
                f"({layer.layer.name}) multiplies all values along an axis: give this layer Uniform()"
            )
        _, pull = jax.vjp(layer.function, *inputs)
        signal = layer.layer.detail_as(Product).signal
        return Shares(tuple(c if i == signal else jnp.zeros_like(c) for i, c in enumerate(pull(g))))


@rule
class Proportional(Rule):
    r"""A product of two values: relevance in proportion to their magnitudes.

    y = a b,   R_a = |a| / (|a| + |b|) R,   R_b = |b| / (|a| + |b|) R

    Half to each where both are zero. Of a matrix product each term a_ik b_kj is shared so. Conserves
    relevance. It depends on the units of the factors: twice a and half of b are the same product, and
    get other shares.

    Raises:
      ValueError: at a product of all values along an axis, a convolution of two values, and softmax
        weights that are normalized after the product.

    References:
      Arras et al. (2019), "Explaining and interpreting LSTMs", section 3.2 ("LRP-prop"),
      https://doi.org/10.1007/978-3-030-28954-6_11
    """

    kinds: ClassVar[frozenset[str]] = _PRODUCTS
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        op, *more = layer.layer.ops
        if more or op.primitive not in (P.MUL, P.DOT):
            raise ValueError(
                f"Proportional is for products of two values and for matrix products, but "
                f"{layer.layer.path!r} computes {layer.layer.name} of "
                f"{' and '.join(str(x.shape) for x in inputs)}: give this layer Uniform() or "
                "SignalTakesAll()"
            )
        a, b = inputs
        if op.primitive is P.DOT:
            return Shares(_by_terms(a, b, g, op.params["dimension_numbers"]))
        share = _share(a, b)
        _, pull = jax.vjp(layer.function, a, b)  # a factor of size one is broadcast
        return Shares((pull(share * g)[0], pull((1 - share) * g)[1]))


def _share(a: Array, b: Array) -> Array:
    """|a| / (|a| + |b|)."""
    size = jnp.abs(a) + jnp.abs(b)
    return jnp.where(size > 0, jnp.abs(a) / jnp.where(size > 0, size, 1), 0.5)


def _by_terms(a: Array, b: Array, g: Array, dimensions: Any) -> tuple[Array, Array]:
    """The pullbacks of a matrix product, each term shared; one contracted index after the other."""
    (of_a, of_b), (batch_a, batch_b) = dimensions
    left, back_left = _as_rows(a, batch_a, of_a)
    right, back_right = _as_rows(b, batch_b, of_b)
    cotangent = g.reshape(left.shape[1], left.shape[2], right.shape[2])

    def step(_: None, columns: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        x, y = columns[0][:, :, None], columns[1][:, None, :]
        share = _share(x, y)
        return None, ((share * y * cotangent).sum(2), ((1 - share) * x * cotangent).sum(1))

    _, (to_left, to_right) = lax.scan(step, None, (left, right))
    return back_left(to_left), back_right(to_right)


def _as_rows(
    x: Array, batch: Sequence[int], contracted: Sequence[int]
) -> tuple[Array, Callable[[Array], Array]]:
    """x as (contracted, batch, free), each in one dimension, and the way back."""
    free = [d for d in range(x.ndim) if d not in (*batch, *contracted)]
    order = (*contracted, *batch, *free)
    groups = [math.prod(x.shape[d] for d in part) for part in (contracted, batch, free)]
    moved = x.transpose(order)

    def back(rows: Array) -> Array:
        return rows.reshape(moved.shape).transpose([order.index(d) for d in range(x.ndim)])

    return moved.reshape(groups), back
