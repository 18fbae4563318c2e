"""Rules for linear layers that treat positive and negative contributions separately."""

from __future__ import annotations

from jax import Array

from jaxlrp._checks import check_at_least, is_number
from jaxlrp.numerics import Stabilizer, negative, positive
from jaxlrp.rules.base import BoundLayer, option, rule
from jaxlrp.rules.linear import LinearRule


@rule
class ZPlus(LinearRule):
    r"""LRP-z+: relevance shared among the positive contributions alone.

    R_j = sum_k  (x_j w_jk)^+ / (sum_j (x_j w_jk)^+ + b_k^+) R_k

    (x w)^+ = x^+ w^+ + x^- w^-, so contributions of negative inputs count, too. It is
    AlphaBeta(1, 0). The positive part of the bias keeps a share.

    Attributes:
      bias: "absorb" or "zero", as in `Epsilon`.
      stabilizer: added to the denominator, >= 0, in the units of z, or a function.

    References:
      Montavon et al. (2017), eq. 12, https://doi.org/10.1016/j.patcog.2016.11.008
    """

    bias: str = option(default="absorb")
    stabilizer: Stabilizer = option(default=1e-6)

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
    bias: str = option(default="absorb")
    stabilizer: Stabilizer = option(default=1e-6)

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
