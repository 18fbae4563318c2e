"""Rules for sums, pools and maxima."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.network import primitives as P
from jaxlrp.numerics import Stabilizer, summed_to, to_gradient_form, to_relevance
from jaxlrp.rules import maxima
from jaxlrp.rules.base import ALL_KINDS, BoundLayer, Rule, Shares, Stabilized, rule


@rule
class Norm(Stabilized):
    r"""Relevance of a sum or mean shared by contribution, with a stabilizer.

    R_j = c_j / stabilize(sum_j c_j) R,   c_j the summands

    Without a stabilizer it is LRP-0, which needs no division and is what sums and pools get by
    default.

    Attributes:
      stabilizer: added to the denominator, >= 0, in the units of the sum, or a function.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"sum", "pool"})
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    stabilizer: Stabilizer = 1e-6

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        d = self.denominator(z)
        s = to_relevance(z, g) / d
        _, pull = jax.vjp(layer.function, *inputs)
        return Shares(pull(s), stabilizer=jnp.sum(s * (d - z)))


@rule
class Magnitude(Rule):
    r"""Relevance of a sum of two values shared by magnitude.

    y = a + b,   R_a = |a| / (|a| + |b|) R,   R_b = |b| / (|a| + |b|) R

    Half to each where both are zero. Conserves relevance, and no share exceeds it: where a residual branch
    cancels its shortcut (1 - .999), LRP-0 gives them a thousand times the relevance, with opposite signs.

    References:
      Otsuki et al. (2024), "Layer-wise relevance propagation with conservation property for ResNet",
      https://doi.org/10.48550/arXiv.2407.09115
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"sum"})
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        a, b = inputs
        relevance = to_relevance(z, g)
        size = jnp.abs(a) + jnp.abs(b)
        share = jnp.where(size > 0, jnp.abs(a) / jnp.where(size > 0, size, 1), 0.5)
        return Shares(
            (
                to_gradient_form(a, summed_to(a, share * relevance)),
                to_gradient_form(b, summed_to(b, (1 - share) * relevance)),
            )
        )


@rule
class WinnerTakesAll(Rule):
    """A maximum passes its relevance to the value that won; among equals, to the first.

    First means the one of smallest index in the window, in C order, and the left one of two values. In
    a maximum over segments (`jax.ops.segment_max`) and of a cumulative one equals share.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"maxpool"})
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        if layer.layer.ops[0].primitive in P.SCATTER_MAXIMA | P.CUMULATIVE_MAXIMA:
            return Shares(jax.vjp(layer.function, *inputs)[1](g))
        return Shares(maxima.winner_takes_all(layer.layer, inputs, z, g))
