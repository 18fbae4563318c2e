"""A rule for layers before a BatchNorm, which leaves it out."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
from jax import Array

from jaxlrp.network.layers import Layer
from jaxlrp.numerics import to_gradient_form, to_relevance
from jaxlrp.rules.base import BoundLayer, Rule, Shares, rule
from jaxlrp.rules.linear import LRP0, linear_without_bias


@rule
class Unfolded(Rule):
    r"""A rule for a layer without the BatchNorm that it absorbs: relevance passes that one unchanged.

    y_k = c_k z_k + t_k,   z_k = sum_j x_j w_jk + b_k,   R of z_k = R of y_k

    `then` shares the relevance of z_k; the shift t_k keeps nothing. The layer's own bias b is what is added
    to the product directly. Zennit does the same without a canonizer. A layer that absorbs nothing but its
    own bias gets what `then` gives.

    Where the shift made up most of y_k, z_k may be close to zero and relevance grows; z+ stays bounded.

    Attributes:
      then: the rule of the layer alone, for dense layers and convolutions.

    Raises:
      TypeError: if `then` is no rule for dense layers and convolutions.

    References:
      Pahde et al. (2023), https://doi.org/10.48550/arXiv.2211.17174, who compare both ways.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"dense", "conv"})

    then: Rule = LRP0()

    def __post_init__(self) -> None:
        # while JAX rebuilds a pytree, a leaf may be anything
        if isinstance(self.then, type) or (
            isinstance(self.then, Rule) and not self.kinds & self.then.kinds
        ):
            raise TypeError(
                f"then must be a rule for dense layers and convolutions, got {self.then!r}"
            )

    @property
    def keeps_zero(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.then.keeps_zero

    def explained_layer(self, layer: Layer) -> Layer:
        form = layer.form
        alone = layer if form is None else dataclasses.replace(layer, detail=form.alone)
        return self.then.explained_layer(alone)

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        form = layer.layer.form
        if form is not None and len(layer.layer.ops) > 1 + len(form.chain):  # something is left out
            relevance = to_relevance(z, g)
            z = layer.op(x, layer.weight) + layer.bias
            g = to_gradient_form(z, relevance)
            layer = dataclasses.replace(layer, rectified=False)
        if not self.then.is_autodiff:
            return self.then.backward(layer, inputs, z, g)
        _, pull = jax.vjp(lambda *v: layer.op(v[0], v[1]) + v[2], x, layer.weight, layer.bias)
        to_x, to_weight, to_bias = pull(g)
        return Shares((to_x,), to_weight, to_bias)

    def without_bias(self) -> Rule:
        return dataclasses.replace(self, then=linear_without_bias(self.then))
