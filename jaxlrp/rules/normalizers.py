"""Rules for values that are divided by a statistic of the input."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.network.layers import Layer, Normalizer
from jaxlrp.numerics import Stabilizer, to_gradient_form, to_relevance
from jaxlrp.rules.base import ALL_KINDS, BoundLayer, Rule, Shares, Stabilized, rule


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

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        _, pull = jax.vjp(layer.function, *inputs)  # what is held fixed is no input, but an operand
        return Shares(pull(g))


@rule
class LocalTaylor(Stabilized):
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
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    stabilizer: Stabilizer = 1e-6

    def explained_layer(self, layer: Layer) -> Layer:
        local = layer.detail_as(Normalizer).local
        if local is None:
            raise ValueError(
                f"{self!r} is for local response normalization, a value divided by a function of a sum "
                f"over a window of that same value, but the normalizer at {layer.path!r} is not one: use "
                "Detach()"
            )
        return dataclasses.replace(local.layer, path=layer.path, detail=layer.detail)

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
        d = self.denominator(terms)
        s = to_relevance(z, g) / d
        (through_all,) = pull(s)
        relevance = x * through_all + (alone - x * slope) * s
        return Shares((to_gradient_form(x, relevance),), stabilizer=jnp.sum(s * (d - terms)))
