"""Rules for the first layer: they give relevance to inputs that are zero, such as black pixels."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_one_of, check_range
from jaxlrp.network.layers import LINEAR_KINDS
from jaxlrp.numerics import (
    Stabilizer,
    negative,
    off_zero,
    positive,
    to_gradient_form,
    to_relevance,
)
from jaxlrp.rules.base import BoundLayer, Rule, Shares, Stabilized, option, rule
from jaxlrp.rules.linear import kept_bias, share


class _InputRule(Stabilized):
    kinds: ClassVar[frozenset[str]] = LINEAR_KINDS


@rule
class ZBox(_InputRule):
    r"""LRP-z^B: for inputs in a box, such as pixels.

    R_j = sum_k  (x_j w_jk - l_j w_jk^+ - h_j w_jk^-) / (sum_j ...) R_k

    A pixel contributes by its distance from the bound: l for a positive weight, h for a negative one. So
    a black pixel (x = l) can carry relevance. The bias cancels. Conserves relevance.

    Attributes:
      low, high: the bounds l and h, in the units of x: numbers, or arrays that broadcast to x. An
        explainer warns of an input outside of them, in a call that is not under `jax.jit`.
      stabilizer: added to the denominator, >= 0, in the units of z, or a function.

    Raises:
      ValueError: if low > high, where they are Python numbers.

    References:
      Montavon et al. (2017), eq. 15, https://doi.org/10.1016/j.patcog.2016.11.008
    """

    low: float | Array = 0.0
    high: float | Array = 1.0
    stabilizer: Stabilizer = option(default=1e-6)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.low, self.high, equal=True)

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        w = layer.weight
        low, high = _bound("low", self.low, x), _bound("high", self.high, x)
        above, below = x - low, x - high
        least = layer.op_of_constant(low, x, positive(w))
        d = z - layer.bias - least - layer.op_of_constant(high, x, negative(w))

        def zed(above, below, w):
            return layer.op(above, positive(w)) + layer.op(below, negative(w))

        operands, relevance = (above, below, w), to_relevance(z, g)
        (ga, gb, gw), absorbed = share(zed, operands, relevance, self.denominator, d)
        gx = to_gradient_form(x, above * ga + below * gb)
        return Shares((gx,), gw, None, absorbed)


def _bound(name: str, bound: float | Array, x: Array) -> Array:
    bound = jnp.asarray(bound, x.dtype)
    try:
        fits = jnp.broadcast_shapes(bound.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} of shape {jnp.shape(bound)} does not broadcast to the layer's input of shape "
            f"{x.shape}: pass a number, or an array such as one value per channel"
        )
    return bound


@rule
class WSquare(_InputRule):
    r"""LRP-w^2: relevance shared by squared weight, whatever the input.

    R_j = sum_k  w_jk^2 / (sum_j w_jk^2 + b_k^2) R_k

    Attributes:
      bias: "absorb": b^2 keeps a share; "zero": it does not count, and relevance is conserved.
      stabilizer: added to the denominator, >= 0, or a function.

    References:
      Montavon et al. (2017), eq. 11, https://doi.org/10.1016/j.patcog.2016.11.008
    """

    bias: str = option(default="absorb")
    stabilizer: Stabilizer = option(default=1e-6)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("bias", self.bias, ("absorb", "zero"))

    def without_bias(self) -> Rule:
        return dataclasses.replace(self, bias="zero")

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        w, b = layer.weight, kept_bias(self.bias, layer.bias)
        ones, squares = jnp.ones_like(x), w * w
        d = layer.op_of_constant(jnp.ones((), x.dtype), x, squares) + b * b
        (r, gw, gb), absorbed = share(
            lambda one, ww, bb: layer.op(one, ww) + bb,
            (ones, squares, b * b), to_relevance(z, g), self.denominator, d,
        )  # fmt: skip
        return Shares((to_gradient_form(x, r),), gw * w, gb * b, absorbed)


@rule
class Flat(_InputRule):
    r"""LRP-flat: relevance shared equally among all inputs, whatever weight and input.

    R_j = sum_k  1 / (number of inputs of k) R_k

    The bias does not count. Conserves relevance.

    Attributes:
      stabilizer: added to the denominator, >= 0, or a function.

    References:
      Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4, Methods
    """

    stabilizer: Stabilizer = option(default=1e-6)

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        w = layer.weight
        operands = (jnp.ones_like(x), jnp.ones_like(w))
        n = layer.op_of_constant(jnp.ones((), x.dtype), x, operands[1])
        (r, rw), absorbed = share(layer.op, operands, to_relevance(z, g), self.denominator, n)
        gw = rw / off_zero(w)
        return Shares((to_gradient_form(x, r),), gw, None, absorbed)
