"""Rules for layers of one input, such as activations: the identity rule and rules of gradients."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_at_least
from jaxlrp.network.layers import LINEAR_KINDS
from jaxlrp.numerics import summed_to, tiny, to_gradient_form, to_relevance
from jaxlrp.rules.base import ALL_KINDS, Autodiff, BoundLayer, Rule, Shares, rule

_ONE_TO_ONE = frozenset(
    {"activation", "scale", "shift", "normalizer", "quotient", "quantizer", "unsupported"}
)


@rule
class Gradient(Autodiff):
    """What autodiff does: `g_in = f'(x) g`.

    In gradient form it is LRP-0 for what is linear, and it multiplies relevance by d for a function
    that is homogeneous of degree d. For an unsupported operation it says: I know, take the gradient.
    """

    stops_below_zero: ClassVar[bool] = True


@rule
class Pass(Rule):
    r"""The identity rule: each output passes its relevance to its one input.

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
    # an affine layer that passes relevance on gives its share even to an input of zero
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS - {"scale", "shift"}
    stops_below_zero: ClassVar[bool] = True
    splits_parameters: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        x = inputs[0]
        if not _broadcasts(x, z):
            raise ValueError(
                f"Pass passes relevance on unchanged, but {layer.layer.path!r} changes the shape "
                f"{x.shape} to {z.shape}: give this layer another rule"
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
    and what Zennit's preset of that name does at a standalone BatchNorm.

    References:
      Zhang et al. (2018), https://doi.org/10.1007/s11263-017-1059-x
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"activation", "scale", "shift"})
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS
    stops_below_zero: ClassVar[bool] = True
    splits_parameters: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        function = layer.function if layer.weight is None else lambda x: layer.op(x, layer.weight)
        relevance, kept = _arriving(layer, x, z, g)
        (relevance,) = jax.vjp(function, x)[1](relevance)
        return Shares((to_gradient_form(x, relevance),), constant=kept)


class _ReLURule(Rule):
    kinds: ClassVar[frozenset[str]] = frozenset({"activation"})
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS


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
