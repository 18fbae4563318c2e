"""Rules for products of values that all depend on the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._checks import check_at_least
from jaxlrp.network import primitives as P
from jaxlrp.network.layers import Layer, Product
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


# Attention, with the softmax below it


def mixes_by_matrix_product(layer: Layer) -> bool:
    """Whether softmax weights reach the values in a matrix product, or are normalized after the product."""
    first, *more = layer.ops
    return layer.kind == "attention" and (bool(more) or first.primitive is P.DOT)


@rule
class Tempered(Rule):
    r"""Attention: half of the relevance to each factor, and the softmax below has another temperature.

    The forward pass is that of s = softmax(l), y = s v. With the cotangent u of s, the scores l get

    g_l = s_T (u - <u, s_T>),   s_T = softmax(l / T) ~ s^(1/T),

    at T = 1 the derivative of the softmax. A confident softmax has almost no derivative: if the largest
    weight were removed, others would take its place (self-repair). T > 1 lets relevance reach the scores
    there. The softmax itself keeps its derivative, which maps what the weights get,
    s_T (u - <u, s_T>) / s, to g_l.

    Does not conserve relevance: a softmax does not. Weights that a mask sets to zero get nothing. The
    weights are taken for normalized along the axes that the product sums over; if weights are masked after
    the softmax, or mixed across heads, s is what arrives in the product.

    Attributes:
      temperature: T, > 0, without a unit. 1 is `Uniform()`.

    Raises:
      ValueError: at a product of softmax weights that is not a matrix product, whose axis is not known.

    References:
      Edin et al. (2025), "GIM", https://doi.org/10.48550/arXiv.2505.17630
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"attention"})
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    temperature: float | Array = 2.0

    def __post_init__(self) -> None:
        check_at_least("temperature", self.temperature, 1e-3)

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        if not mixes_by_matrix_product(layer.layer):
            raise ValueError(
                f"Tempered is for matrix products of softmax weights and values, but {layer.layer.path!r} "
                f"computes {layer.layer.name} of {' and '.join(str(x.shape) for x in inputs)}: give this "
                "layer Uniform()"
            )
        which = 1 - layer.layer.detail_as(Product).signal
        weights = inputs[which]
        positive = weights > 0
        safe = jnp.where(positive, weights, jnp.ones_like(weights))
        power = jnp.where(positive, safe ** (1 / self.temperature), jnp.zeros_like(weights))
        _, pull = jax.vjp(layer.function, *inputs)
        to_scores = self._to_scores(layer, inputs, which, power, g / 2)
        halves = list(pull(g / 2))
        halves[which] = jnp.where(positive, to_scores / safe, jnp.zeros_like(weights))
        return Shares(tuple(halves))

    def _to_scores(
        self, layer: BoundLayer, inputs: tuple[Array, ...], which: int, power: Array, g: Array
    ) -> Array:
        """s_T (u - <u, s_T>), from `power`, which is s_T up to a factor that depends on no scores."""
        at_power = tuple(power if i == which else x for i, x in enumerate(inputs))
        u = jax.vjp(layer.function, *at_power)[1](g)[which]
        product, *more = layer.layer.ops
        if more:  # it divides by the sum of the weights, here of the powers
            return power * u
        contracted, _ = product.params["dimension_numbers"]
        axes = tuple(contracted[which])
        total = power.sum(axes, keepdims=True)
        tempered = power / jnp.where(total > 0, total, jnp.ones_like(total))
        return tempered * (u - (tempered * u).sum(axes, keepdims=True))
