r"""Rules for layers `z = op(x, w) + b`: dense layers, convolutions, scales.

Every rule here is a modified forward pass `d = zed(x, w, b)`, a sum of contributions. Relevance is
shared in proportion to them: with `s = R / stabilize(d)`, each contribution c of d carries `c s`, so
what an operand carries, in gradient form, is the pullback of s through `zed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.network.layers import LINEAR_KINDS
from jaxlrp.numerics import (
    Stabilizer,
    as_stabilizer,
    check_at_least,
    checked,
    is_number,
    negative,
    off_zero,
    positive,
    to_gradient_form,
    to_relevance,
)
from jaxlrp.rules.base import (
    BoundLayer,
    Rule,
    Shares,
    check_one_of,
    rule,
)

Zed = Callable[..., Array]


def share(
    zed: Zed,
    operands: tuple[Array, ...],
    relevance: Array,
    stabilize: Callable[[Array], Array],
    value: Array | None = None,
) -> tuple[tuple[Array, ...], Array]:
    """Shares a relevance among the contributions to `zed(*operands)`.

    Args:
      zed: the modified forward pass.
      operands: what it is computed from.
      relevance: of its result, same shape.
      stabilize: keeps its result off zero.
      value: its result, where that is known already.

    Returns:
      The pullback to each operand, and the relevance that the stabilizer absorbed, a scalar.
    """
    z, pull = jax.vjp(zed, *operands)
    z = z if value is None else value
    d = stabilize(z)
    s = relevance / d
    return pull(s), jnp.sum(s * (d - z))


class LinearRule(Rule):
    """A rule given by modified forward passes of x, w and b."""

    kinds: ClassVar[frozenset[str]] = LINEAR_KINDS

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        dropped = self._bias == "zero"
        operands = (x, layer.weight, self._kept(layer.bias))
        parts = [
            share(zed, operands, relevance, as_stabilizer(self._stabilizer), value)
            for relevance, zed, value in self.terms(layer, x, z, to_relevance(z, g))
        ]
        (gx, gw, gb), absorbed = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)
        return Shares((gx,), gw, None if dropped else gb, absorbed)

    def terms(
        self, layer: BoundLayer, x: Array, z: Array, relevance: Array
    ) -> Iterable[tuple[Array, Zed, Array | None]]:
        """(relevance to share, modified forward pass, its value where known)."""
        raise NotImplementedError

    def _kept(self, bias: Array) -> Array:
        """The bias, as far as it counts."""
        return jnp.zeros_like(bias) if self._bias == "zero" else bias

    @property
    def _bias(self) -> str:
        return getattr(self, "bias", "absorb")

    @property
    def _stabilizer(self) -> Stabilizer:
        return getattr(self, "stabilizer", getattr(self, "epsilon", 0.0))

    def __post_init__(self) -> None:
        check_one_of("bias", self._bias, ("absorb", "zero"))
        name = "epsilon" if hasattr(self, "epsilon") else "stabilizer"
        object.__setattr__(self, name, checked(name, self._stabilizer))


@rule
class LRP0(Rule):
    r"""LRP-0: relevance shared by contribution. It is what autodiff does in gradient form.

    R_j = sum_k  x_j w_jk / z_k R_k,   z_k = sum_j x_j w_jk + b_k

    No division takes place, and none can fail. The bias keeps a share, so relevance is not
    conserved: sum(R_j) = sum(R_k (z_k - b_k) / z_k).

    References:
      Bach et al. (2015), eq. 56, https://doi.org/10.1371/journal.pone.0130140
    """

    @property
    def is_autodiff(self) -> bool:
        return True


@rule
class Epsilon(LinearRule):
    r"""LRP-epsilon: relevance shared by contribution, damped by epsilon.

    R_j = sum_k  x_j w_jk / (z_k + epsilon sgn(z_k)) R_k,   z_k = sum_j x_j w_jk + b_k,  sgn(0) = 1

    Bias and epsilon keep a share, so relevance is not conserved: sum(R_j) = sum(R_k (z_k - b_k) /
    (z_k +- epsilon)).

    Attributes:
      epsilon: damping, >= 0, in the units of z, or a function that keeps z off zero. Zero is LRP-0,
        not finite where z is 0.
      bias: "absorb": the bias counts in z and keeps its share; "zero": it does not count. Without it
        z may be far nearer to zero than epsilon is meant for, and relevances large.

    Raises:
      ValueError: if epsilon is a negative Python number (traced values are not checked).

    References:
      Bach et al. (2015), eq. 58, https://doi.org/10.1371/journal.pone.0130140
    """

    epsilon: Stabilizer = 1e-6
    bias: str = "absorb"

    def terms(self, layer, x, z, relevance):
        known = z - layer.bias if self.bias == "zero" else z
        yield relevance, lambda x, w, b: layer.op(x, w) + b, known


@rule
class ZPlus(LinearRule):
    r"""LRP-z+: relevance shared among the positive contributions alone.

    R_j = sum_k  (x_j w_jk)^+ / (sum_j (x_j w_jk)^+ + b_k^+) R_k

    (x w)^+ = x^+ w^+ + x^- w^-, so negative inputs are counted right. The same as AlphaBeta(1, 0).
    The positive part of the bias keeps a share.

    Attributes:
      bias: "absorb" or "zero", as in `Epsilon`.
      stabilizer: added to the denominator, >= 0, in the units of z, or a function.

    References:
      Montavon et al. (2017), eq. 12, https://doi.org/10.1016/j.patcog.2016.11.008
    """

    bias: str = "absorb"
    stabilizer: Stabilizer = 1e-6

    def terms(self, layer, x, z, relevance):
        yield relevance, lambda x, w, b: _same_signs(layer, x, w) + positive(b), None


@rule
class AlphaBeta(LinearRule):
    r"""LRP-alpha-beta: positive contributions weighed by alpha, negative ones by -beta.

    R_j = sum_k (alpha (x_j w_jk)^+ / z_k^+  -  beta (x_j w_jk)^- / z_k^-) R_k

    z_k^+- are the sums of the positive and of the negative contributions, the bias's part included.

    Attributes:
      alpha, beta: >= 0, with alpha - beta = 1, which conserves relevance.
      bias: "absorb" or "zero", as in `Epsilon`.
      stabilizer: added to the denominators, >= 0, in the units of z, or a function.

    Raises:
      ValueError: if alpha or beta is negative or alpha - beta is not 1, where they are Python
        numbers.

    References:
      Bach et al. (2015), eq. 60, https://doi.org/10.1371/journal.pone.0130140
    """

    alpha: float | Array = 2.0
    beta: float | Array = 1.0
    bias: str = "absorb"
    stabilizer: Stabilizer = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("alpha", self.alpha, 0.0)
        check_at_least("beta", self.beta, 0.0)
        numbers = is_number(self.alpha) and is_number(self.beta)
        if numbers and abs(self.alpha - self.beta - 1.0) > 1e-6:
            raise ValueError(
                "alpha - beta must be 1 for relevance to be conserved, got "
                f"alpha={self.alpha!r} and beta={self.beta!r}"
            )

    def terms(self, layer, x, z, relevance):
        yield self.alpha * relevance, lambda x, w, b: _same_signs(layer, x, w) + positive(b), None
        if not (is_number(self.beta) and self.beta == 0):
            yield (
                -self.beta * relevance,
                lambda x, w, b: _other_signs(layer, x, w) + negative(b),
                None,
            )


@rule
class Gamma(LinearRule):
    r"""LRP-gamma, generalized to inputs and outputs of either sign.

    R_j = sum_k  (x_j w_jk + gamma (x_j w_jk)^s) / (z_k + gamma z_k^s) R_k,   s = sign of z_k

    Contributions of the sign of z_k count 1 + gamma times. For x >= 0 and z_k > 0 it is the rule of
    Montavon et al.: w + gamma w^+. Gamma 0 is LRP-0; gamma to infinity is z+ where z_k > 0.

    Attributes:
      gamma: >= 0, without units.
      bias: "absorb" or "zero", as in `Epsilon`; which sign z_k has is decided with the bias.
      stabilizer: added to the denominators, >= 0, in the units of z, or a function.

    References:
      Montavon et al. (2019), https://doi.org/10.1007/978-3-030-28954-6_10, Table 1; Andeol et al.
      (2021), "Learning domain invariant representations by joint Wasserstein distance minimization",
      for the generalized form.
    """

    gamma: float | Array = 0.25
    bias: str = "absorb"
    stabilizer: Stabilizer = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("gamma", self.gamma, 0.0)

    def terms(self, layer, x, z, relevance):
        gamma = self.gamma
        if layer.nonnegative and layer.rectified:  # x >= 0, z > 0 wherever relevance is

            def rises(x, w, b):
                return layer.op(x, w + gamma * positive(w)) + b + gamma * positive(b)

            yield jnp.where(z > 0, relevance, jnp.zeros_like(relevance)), rises, None
            return

        # (x w)^s = (x w + s |x w|) / 2, whatever the signs: two bilinear maps, one known already.
        sign = jnp.sign(z)
        half = gamma / 2

        def magnitude(x, w, b):
            return layer.op(jnp.abs(x), jnp.abs(w)) + jnp.abs(b)

        def zed(x, w, b):
            return (1 + half) * (layer.op(x, w) + b) + half * sign * magnitude(x, w, b)

        kept = self._kept(layer.bias)
        known = z - layer.bias + kept if self.bias == "zero" else z
        value = (1 + half) * known + half * sign * magnitude(x, layer.weight, kept)
        yield jnp.where(z == 0, jnp.zeros_like(relevance), relevance), zed, value


def _same_signs(layer: BoundLayer, x: Array, w: Array) -> Array:
    """The positive contributions: x^+ w^+ + x^- w^-."""
    if layer.nonnegative:
        return layer.op(x, positive(w))
    return layer.op(positive(x), positive(w)) + layer.op(negative(x), negative(w))


def _other_signs(layer: BoundLayer, x: Array, w: Array) -> Array:
    """The negative contributions: x^+ w^- + x^- w^+."""
    if layer.nonnegative:
        return layer.op(x, negative(w))
    return layer.op(positive(x), negative(w)) + layer.op(negative(x), positive(w))


@rule
class ZBox(LinearRule):
    r"""LRP-z^B: for inputs in a box, such as pixels.

    R_j = sum_k  (x_j w_jk - l_j w_jk^+ - h_j w_jk^-) / (sum_j ...) R_k

    A pixel contributes by its distance from the bound that the weight points away from, so a black
    one (x = l) can carry relevance. The bias cancels. Conserves relevance.

    Attributes:
      low, high: the bounds l and h, in the units of x: numbers, or arrays that broadcast to x.
      stabilizer: added to the denominator, >= 0, in the units of z, or a function.

    Raises:
      ValueError: if low > high, where they are Python numbers.

    References:
      Montavon et al. (2017), eq. 15, https://doi.org/10.1016/j.patcog.2016.11.008
    """

    keeps_zero: ClassVar[bool] = False

    low: float | Array = 0.0
    high: float | Array = 1.0
    stabilizer: Stabilizer = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_number(self.low) and is_number(self.high) and self.low > self.high:
            raise ValueError(f"low must be <= high, got low={self.low!r} and high={self.high!r}")

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        w = layer.weight
        low, high = _bound("low", self.low, x), _bound("high", self.high, x)
        above, below = x - low, x - high
        least = layer.op_of_constant(low, x, positive(w))
        d = z - layer.bias - least - layer.op_of_constant(high, x, negative(w))

        def zed(above, below, w):
            return layer.op(above, positive(w)) + layer.op(below, negative(w))

        stabilize = as_stabilizer(self.stabilizer)
        (ga, gb, gw), absorbed = share(zed, (above, below, w), to_relevance(z, g), stabilize, d)
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
            f"{x.shape}: give a number, or an array such as one value per channel"
        )
    return bound


@rule
class WSquare(LinearRule):
    r"""LRP-w^2: relevance shared by squared weight, whatever the input.

    R_j = sum_k  w_jk^2 / (sum_j w_jk^2 + b_k^2) R_k

    Attributes:
      bias: "absorb": b^2 keeps a share; "zero": it does not count, and relevance is conserved.
      stabilizer: added to the denominator, >= 0, or a function.

    References:
      Montavon et al. (2017), eq. 11, https://doi.org/10.1016/j.patcog.2016.11.008
    """

    keeps_zero: ClassVar[bool] = False

    bias: str = "absorb"
    stabilizer: Stabilizer = 1e-6

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        w, b = layer.weight, self._kept(layer.bias)
        ones, squares = jnp.ones_like(x), w * w
        d = layer.op_of_constant(jnp.ones((), x.dtype), x, squares) + b * b
        (r, gw, gb), absorbed = share(
            lambda one, ww, bb: layer.op(one, ww) + bb,
            (ones, squares, b * b), to_relevance(z, g), as_stabilizer(self.stabilizer), d,
        )  # fmt: skip
        return Shares((to_gradient_form(x, r),), gw * w, gb * b, absorbed)


@rule
class Flat(LinearRule):
    r"""LRP-flat: relevance shared equally among all inputs, whatever weight and input.

    R_j = sum_k  1 / (number of inputs of k) R_k

    The bias does not count. Conserves relevance.

    Attributes:
      stabilizer: added to the denominator, >= 0, or a function.

    References:
      Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4, Methods
    """

    keeps_zero: ClassVar[bool] = False

    stabilizer: Stabilizer = 1e-6

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        w = layer.weight
        operands = (jnp.ones_like(x), jnp.ones_like(w))
        n = layer.op_of_constant(jnp.ones((), x.dtype), x, operands[1])
        (r, rw), absorbed = share(
            layer.op, operands, to_relevance(z, g), as_stabilizer(self.stabilizer), n
        )
        gw = rw / off_zero(w)
        return Shares((to_gradient_form(x, r),), gw, None, absorbed)
