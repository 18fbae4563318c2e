"""Rules for everything that is not linear in one input."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.network import primitives as P
from jaxlrp.network.layers import LINEAR_KINDS
from jaxlrp.numerics import (
    Stabilizer,
    as_stabilizer,
    check_at_least,
    checked,
    summed_to,
    tiny,
    to_gradient_form,
    to_relevance,
)
from jaxlrp.rules import maxima
from jaxlrp.rules.base import BoundLayer, Rule, Shares, rule

_ONE_TO_ONE = frozenset(
    {"activation", "scale", "shift", "normalizer", "quotient", "quantizer", "unsupported"}
)


@rule
class Gradient(Rule):
    """What autodiff does: `g_in = f'(x) g`.

    In gradient form it is LRP-0 for what is linear, and it multiplies relevance by d for a function
    that is homogeneous of degree d. For an unsupported operation it says: I know, take the gradient.
    """

    @property
    def is_autodiff(self) -> bool:
        return True


@rule
class Pass(Rule):
    r"""The identity rule: each output hands its relevance to its one input.

    R_in = R, in gradient form g_in = g s(y) / s(x). Conserves relevance, whatever f(0) is, but where an
    activation's input is zero and its output is not: nothing in the input made it, so f(0) keeps that
    relevance as a bias does.

    Raises:
      ValueError: where the layer's input and output differ in shape.

    References:
      Bach et al. (2015), https://doi.org/10.1371/journal.pone.0130140; Achtibat et al. (2024),
      "AttnLRP", eq. 9
    """

    kinds: ClassVar[frozenset[str]] = _ONE_TO_ONE | LINEAR_KINDS
    splits_parameters: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        x = inputs[0]
        if not _broadcasts(x, z):
            raise ValueError(
                f"Pass hands relevance on unchanged, but {layer.layer.path!r} turns shape {x.shape} "
                f"into {z.shape}: give this layer another rule"
            )
        # the relevance first: s(z) / s(x) needs no g, and would be computed early and held till here
        relevance, kept = _arriving(layer, x, z, g)
        passed = to_gradient_form(x, summed_to(x, relevance))
        return Shares((passed, *map(jnp.zeros_like, inputs[1:])), constant=kept)


def _broadcasts(x: Array, z: Array) -> bool:
    """Whether z has as many elements for each of x's as its axes say: none, or some along axes of one."""
    return x.ndim == z.ndim and all(n in (1, m) for n, m in zip(x.shape, z.shape, strict=True))


def _arriving(layer: BoundLayer, x: Array, z: Array, g: Array) -> tuple[Array, Array | float]:
    """The relevance of z that goes on to x, and the sum of what f(0) of an activation keeps."""
    relevance = to_relevance(z, g)
    if layer.layer.kind != "activation":
        return relevance, 0.0
    arrives = (jnp.abs(x) > tiny(x.dtype)) | (jnp.abs(z) <= tiny(z.dtype))  # broadcasts
    nothing = jnp.zeros_like(relevance)
    return jnp.where(arrives, relevance, nothing), jnp.sum(jnp.where(arrives, nothing, relevance))


@rule
class DerivativeTimesRelevance(Rule):
    """`R_in = f'(x) R`: the activation's gradient, applied to relevance.

    What excitation backpropagation does at activations, where for a ReLU it is the same as `Pass`,
    and what Zennit's preset of that name does at a BatchNorm that no linear layer absorbs.

    References:
      Zhang et al. (2018), https://doi.org/10.1007/s11263-017-1059-x
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"activation", "scale", "shift"})
    splits_parameters: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        function = layer.function if layer.weight is None else lambda x: layer.op(x, layer.weight)
        relevance, kept = _arriving(layer, x, z, g)
        (relevance,) = jax.vjp(function, x)[1](relevance)
        return Shares((to_gradient_form(x, relevance),), constant=kept)


class _ReLURule(Rule):
    kinds: ClassVar[frozenset[str]] = frozenset({"activation"})


@rule
class GuidedBackprop(_ReLURule):
    """Guided backpropagation: `g_in = f'(x) max(g, 0)`. Propagates gradients, not relevances.

    Not linear in what it propagates.

    References:
      Springenberg et al. (2015), https://arxiv.org/abs/1412.6806
    """

    linear_in_relevance: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        return Shares(jax.vjp(layer.function, x)[1](jnp.where(g > 0, g, jnp.zeros_like(g))))


@rule
class DeconvNet(_ReLURule):
    """The deconvolution network's ReLU: `g_in = max(g, 0)`. Propagates gradients.

    Not linear in what it propagates.

    References:
      Zeiler and Fergus (2014), https://doi.org/10.1007/978-3-319-10590-1_53
    """

    linear_in_relevance: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        return Shares((summed_to(inputs[0], jnp.where(g > 0, g, jnp.zeros_like(g))),))


@rule
class BetaSmooth(_ReLURule):
    """A ReLU's gradient as if it were a softplus: `g_in = sigmoid(beta x) g`. Propagates gradients.

    Attributes:
      beta: sharpness, > 0, in units of 1/x; to infinity it is the gradient.

    References:
      Dombrowski et al. (2019), https://arxiv.org/abs/1906.07983
    """

    beta: float | Array = 10.0

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0.0)

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        return Shares((summed_to(x, g * jax.nn.sigmoid(self.beta * x)),))


@rule
class Norm(Rule):
    r"""Relevance of a sum or mean shared by contribution, with a stabilizer.

    R_j = c_j / stabilize(sum_j c_j) R,   c_j the summands

    Without a stabilizer it is LRP-0, which needs no division and is what sums and pools get by
    default.

    Attributes:
      stabilizer: added to the denominator, >= 0, in the units of the sum, or a function.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"sum", "pool"})

    stabilizer: Stabilizer = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "stabilizer", checked("stabilizer", self.stabilizer))

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        d = as_stabilizer(self.stabilizer)(z)
        s = to_relevance(z, g) / d
        _, pull = jax.vjp(layer.function, *inputs)
        return Shares(pull(s), stabilizer=jnp.sum(s * (d - z)))


@rule
class WinnerTakesAll(Rule):
    """A maximum hands its relevance to the value that it took; of equals, to the first.

    First means the one of smallest index in the window, in C order, and the left one of two values. Of
    a maximum over segments (`jax.ops.segment_max`) and of a cumulative one equals share.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"maxpool"})

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        if layer.layer.ops[0].primitive in P.SCATTER_MAXIMA | P.CUMULATIVE_MAXIMA:
            return Shares(jax.vjp(layer.function, *inputs)[1](g))
        return Shares(maxima.winner_takes_all(layer.layer, inputs, z, g))


@rule
class Detach(Rule):
    """A normalizer's denominator is held fixed: the value takes all of the relevance.

    LayerNorm, RMSNorm, GroupNorm and local response normalization become linear maps. For local
    response normalization it is the identity rule of Binder et al. (2016).

    References:
      Ali et al. (2022), https://arxiv.org/abs/2202.07304; Binder et al. (2016),
      https://doi.org/10.1007/978-3-319-44781-0_8
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"normalizer", "quotient"})


@rule
class LocalTaylor(Rule):
    r"""Local response normalization, expanded to first order.

    y_k = x_k rho(S_k), S_k the sum of phi(x_j) over the neighbors j of k. Expanded at the point where
    x_k stands alone, its terms are

    z_kk = x_k rho(phi(x_k)),   z_jk = x_j dy_k / dx_j for j != k,   R_j = sum_k z_jk / sum_j z_jk R_k

    so that neighbors which suppress k carry relevance of the other sign. Conserves relevance up to
    the stabilizer.

    Attributes:
      stabilizer: added to the denominator, >= 0, in the units of y, or a function.

    References:
      Binder et al. (2016), eq. 12, https://doi.org/10.1007/978-3-319-44781-0_8
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"normalizer"})

    stabilizer: Stabilizer = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "stabilizer", checked("stabilizer", self.stabilizer))

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        phi, rho = layer.local_functions(z.dtype)
        summed = phi(x)
        alone = rho(x, summed)
        total = layer.window_sum(summed)
        _, pull = jax.vjp(lambda x: rho(x, layer.window_sum(phi(x))), x)

        def own_way(x):  # x_k moves, its neighbors do not
            return rho(x, total + phi(x) - summed)

        ones = jnp.ones_like(x)
        _, slope = jax.jvp(own_way, (x,), (ones,))
        _, all_neighbors = jax.jvp(lambda x: rho(x, layer.window_sum(phi(x))), (x,), (x,))
        terms = alone + all_neighbors - x * slope
        d = as_stabilizer(self.stabilizer)(terms)
        s = to_relevance(z, g) / d
        (through_all,) = pull(s)
        relevance = x * through_all + (alone - x * slope) * s
        return Shares((to_gradient_form(x, relevance),), stabilizer=jnp.sum(s * (d - terms)))
