"""Which features make a prediction uncertain: the covariance of relevance over models (CovLRP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.explanation.result import Explanation
from jaxlrp.numerics import widen

__all__ = ["Covariance", "covariance"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Covariance:
    r"""The covariance of relevance over M models, as factors: Sigma = sum_m F_m F_m^T.

    Memory is that of M relevances; only `full` needs the square of the number of features.

    Attributes:
      mean: of the relevance over models, (N, *features).
      factors: F_m = (R_m - mean) / sqrt(M), (M, N, *features).
    """

    mean: Array
    factors: Array

    def diagonal(self) -> Array:
        """Sigma_ii, the variance of the relevance of each feature, (N, *features)."""
        return (self.factors**2).sum(0)

    def marginal(self) -> Array:
        """sum_j Sigma_ij for each feature i, (N, *features). It sums to `total`, and may be negative."""
        sums = self.factors.sum(self._axes(), keepdims=True)
        return (self.factors * sums).sum(0)

    def total(self) -> Array:
        """sum_ij Sigma_ij, (N,): the variance of the sum of relevance."""
        return (self.factors.sum(self._axes()) ** 2).sum(0)

    def full(self) -> Array:
        """Sigma, (N, D, D), features flat."""
        flat = self.factors.reshape(*self.factors.shape[:2], -1)
        return jnp.einsum("mni,mnj->nij", flat, flat, precision="highest")

    def components(self, count: int) -> tuple[Array, Array]:
        """The directions of largest variance: what models disagree on together.

        Args:
          count: how many, at most M.

        Returns:
          Variances, (N, count), largest first, and directions of length one, (N, count, *features). Their
          sum of variance times direction times direction is the best approximation of Sigma of this rank.
        """
        members, n = self.factors.shape[:2]
        if check_count("count", count) > members:
            raise ValueError(f"count must be at most the number of models, {members}, got {count}")
        flat = self.factors.reshape(members, n, -1).swapaxes(0, 1)  # (N, M, D)
        _, values, directions = jnp.linalg.svd(flat, full_matrices=False)
        kept = directions[:, :count].reshape(n, -1, *self.factors.shape[2:])
        return values[:, :count] ** 2, kept

    def _axes(self) -> tuple[int, ...]:
        return tuple(range(2, self.factors.ndim))


def covariance(
    explain: Callable[[Any], Any], members: Any, *, batch_size: int | None = None
) -> Covariance:
    r"""The covariance of relevance over an ensemble of models (CovLRP).

    Sigma = Cov_m(R_m),   sum_ij Sigma_ij = Var_m(sum_i R_mi)

    If relevance sums to the output, the covariance sums to the variance of the prediction. Diagonal
    elements say how much models disagree on a feature; the others, which features they trade for each
    other. A little gamma in lower layers makes relevance less noisy.

    Args:
      explain: from one member to its relevance, (N, *features), or to an `Explanation`.
      members: what tells the models apart, a pytree with a leading axis of M >= 2: stacked parameters of an
        ensemble or of samples from a posterior, or random keys for dropout.
      batch_size: how many members are explained together. None for all.

    Returns:
      A `Covariance`. It divides by M (not M - 1).

    Raises:
      ValueError: if members are fewer than two, or leading axes differ.
      TypeError: if `explain` returns no array.

    References:
      Bley et al. (2025), "Explaining Predictive Uncertainty by Exposing Second-Order Effects",
      https://doi.org/10.1016/j.patcog.2024.111171

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import uncertainty
      >>> explain = lrp.explain(lambda w, x: x @ w, argnums=1)
      >>> weights = jnp.array([[[1.0], [2.0]], [[1.0], [4.0]]])  # two models, which differ in one weight
      >>> x = jnp.ones((1, 2))
      >>> found = uncertainty.covariance(lambda w: explain(w, x), weights)
      >>> found.diagonal().round(3).tolist(), found.total().round(3).tolist()
      ([[0.0, 1.0]], [1.0])
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(members)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(
            "members must be arrays with one leading axis for the models, got leading axes "
            f"{sorted(lengths)}: stack them, jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)"
        )
    ((count,),) = lengths
    if count < 2:
        raise ValueError(f"members must be two models at the least, got {count}")
    size = count if batch_size is None else min(check_count("batch_size", batch_size), count)

    def one(member: Any) -> Array:
        found = explain(member)
        found = found.relevance if isinstance(found, Explanation) else found
        if not isinstance(found, Array) or found.ndim < 2:
            raise TypeError(
                "explain must return relevance of shape (N, *features) or an Explanation with one, got "
                f"{jax.tree.map(jnp.shape, found)}"
            )
        return widen(found)

    relevance = jax.jit(lambda members: lax.map(one, members, batch_size=size))(members)
    mean = relevance.mean(0)
    return Covariance(mean, (relevance - mean) / np.sqrt(count).astype(relevance.dtype))
