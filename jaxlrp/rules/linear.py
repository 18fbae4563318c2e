r"""Rules for layers `z = op(x, w) + b`: dense layers, convolutions, scales.

Every rule here is a modified forward pass `d = zed(x, w, b)`, a sum of contributions. Relevance is
shared in proportion to them: with `s = R / stabilize(d)`, each contribution c of d carries `c s`, so
what an operand carries, in gradient form, is the pullback of s through `zed`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_at_least, check_one_of
from jaxlrp.network.layers import LINEAR_KINDS
from jaxlrp.numerics import Stabilizer, as_stabilizer, checked, positive, to_relevance
from jaxlrp.rules.base import (
    ALL_KINDS,
    Autodiff,
    BoundLayer,
    Rule,
    Shares,
    Stabilized,
    option,
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
    s = relevance.astype(d.dtype) / d  # of a complex value, relevance is real
    return pull(s), jnp.sum(s * (d - z))


class LinearRule(Stabilized):
    """A rule given by modified forward passes of x, w and b, with the options `bias` and `stabilizer`."""

    kinds: ClassVar[frozenset[str]] = LINEAR_KINDS
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    bias: str

    def __post_init__(self) -> None:
        check_one_of("bias", self.bias, ("absorb", "zero"))
        super().__post_init__()

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        parameters = (layer.weight, self.kept(layer.bias))
        # what nobody asks for is a constant of the pullback: neither traced nor transposed
        fixed = () if layer.parameters_asked else parameters
        shared = (x, *parameters[len(fixed) :])
        parts = [
            share(lambda *v, zed=zed: zed(*v, *fixed), shared, relevance, self.denominator, value)
            for relevance, zed, value in self.terms(layer, x, z, to_relevance(z, g))
        ]
        found, absorbed = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)
        gx, gw, gb = (*found, None, None) if fixed else found
        return Shares((gx,), gw, None if self.bias == "zero" else gb, absorbed)

    def terms(
        self, layer: BoundLayer, x: Array, z: Array, relevance: Array
    ) -> Iterable[tuple[Array, Zed, Array | None]]:
        """(relevance to share, modified forward pass, its value where known)."""
        raise NotImplementedError

    def kept(self, bias: Array) -> Array:
        """The bias, as far as it counts."""
        return kept_bias(self.bias, bias)

    def without_bias(self) -> Rule:
        return dataclasses.replace(cast(Any, self), bias="zero")


def kept_bias(option: str, bias: Array) -> Array:
    """The bias of a layer, as far as the option `bias` of a rule lets it count."""
    return jnp.zeros_like(bias) if option == "zero" else bias


@rule
class LRP0(Autodiff):
    r"""LRP-0: relevance shared by contribution. It is what autodiff does in gradient form.

    R_j = sum_k  x_j w_jk / z_k R_k,   z_k = sum_j x_j w_jk + b_k

    Nothing is divided, so no division by zero can occur. The bias keeps a share, so relevance is not
    conserved: sum(R_j) = sum(R_k (z_k - b_k) / z_k).

    References:
      Bach et al. (2015), eq. 56, https://doi.org/10.1371/journal.pone.0130140
    """


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
        z may come so close to zero that epsilon is too small and relevances explode.

    Raises:
      ValueError: if epsilon is a negative Python number (traced values are not checked).

    References:
      Bach et al. (2015), eq. 58, https://doi.org/10.1371/journal.pone.0130140
    """

    epsilon: Stabilizer = 1e-6
    bias: str = option(default="absorb")

    def __post_init__(self) -> None:
        check_one_of("bias", self.bias, ("absorb", "zero"))
        object.__setattr__(self, "epsilon", checked("epsilon", self.epsilon))

    def denominator(self, z):
        return as_stabilizer(self.epsilon)(z)

    def terms(self, layer, x, z, relevance):
        known = z - layer.bias if self.bias == "zero" else z
        yield relevance, lambda x, w, b: layer.op(x, w) + b, known


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
    bias: str = option(default="absorb")
    stabilizer: Stabilizer = option(default=1e-6)

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

        kept = self.kept(layer.bias)
        known = z - layer.bias + kept if self.bias == "zero" else z
        value = (1 + half) * known + half * sign * magnitude(x, layer.weight, kept)
        yield jnp.where(z == 0, jnp.zeros_like(relevance), relevance), zed, value


def linear_without_bias(rule: Rule, epsilon: float = 1e-12) -> Rule:
    """The rule of a dense layer or convolution that gives its bias no relevance.

    Args:
      rule: of the layer. What autodiff does has no such option: LRP-epsilon takes its place.
      epsilon: of that.
    """
    return Epsilon(epsilon, bias="zero") if rule.is_autodiff else rule.without_bias()


@rule
class Pattern(Rule):
    r"""PatternNet and PatternAttribution: the derivative with other weights.

    g_j = sum_k  a_jk g_k             (PatternNet)
    g_j = sum_k  w_jk a_jk g_k        (PatternAttribution)

    The pattern a says how the input changes with the output, where the weight w also cancels noise. It
    comes from data: `jaxlrp.patterns.fit`. It propagates gradients, not relevance, so nothing is conserved:
    use it in a composite with `readout="gradient"`, as `jaxlrp.patterns.attribution` and `signal` make
    them.

    Attributes:
      pattern: a, a number or an array that broadcasts to the folded weight. With 1 and `attribution` it is
        the gradient.
      attribution: whether the weight is a factor.

    Raises:
      ValueError: when the pattern does not broadcast to the layer's weight.

    References:
      Kindermans et al. (2018), https://doi.org/10.48550/arXiv.1705.05598
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"dense", "conv"})
    splits_parameters: ClassVar[bool] = False

    pattern: float | Array = 1.0
    attribution: bool = option(default=True)

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,), w = inputs, layer.weight
        a = jnp.asarray(self.pattern, w.dtype)
        try:
            fits = jnp.broadcast_shapes(a.shape, w.shape) == w.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"the pattern of {layer.layer.path!r} must broadcast to its weight, of shape {w.shape}, "
                f"got {a.shape}"
            )
        return Shares(
            (layer.transpose(g, x, w * a if self.attribution else jnp.zeros_like(w) + a),)
        )
