"""Which features make a prediction uncertain: the covariance of relevance over models (CovLRP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._checks import check_count, check_one_of
from jaxlrp._described import described
from jaxlrp._laplace import check_size, full_laplace
from jaxlrp.explanation.result import Explanation
from jaxlrp.numerics import widen

__all__ = ["Covariance", "covariance", "dropout_masks", "laplace"]


@described
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
        try:
            found = explain(member)
        except Exception as error:
            error.add_note(
                "explain was called with one member, of shapes "
                f"{jax.tree.map(jnp.shape, member)}: members must be one pytree of arrays whose leading "
                "axis is that of the models, not a list of models; stack them, "
                "jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)"
            )
            raise
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


def laplace(
    loss: Callable[..., Array],
    params: Any,
    data: Any,
    key: Array,
    count: int,
    *,
    prior: float = 1.0,
    scale: float = 1.0,
    form: Literal["diagonal", "full"] = "diagonal",
    sampled: Callable[[tuple[Any, ...], Any], bool] | None = None,
    batch_size: int = 64,
    max_parameters: int = 4096,
) -> Any:
    r"""Models drawn from a Laplace approximation of the posterior, as members for `covariance`.

    diagonal:  theta_m ~ N(theta, diag(s^2)),   1 / s_j^2 = scale sum_n (d loss_n / d theta_j)^2 + prior

    full:      theta_m ~ N(theta, A^-1),   A = scale H + prior I,   H: Hessian of sum_n loss_n at theta

    The sum over samples of the diagonal form is that of the empirical Fisher matrix, which stands for the
    Hessian at the optimum. The full form knows which parameters make up for each other. For a linear last
    layer with a squared error or cross-entropy, H is never negative; with the squared error this is the
    posterior of Bayesian linear regression on the features. One trained network is enough, but its
    posterior is a guess: choose `prior` (the precision of weight decay, in the units of the summed loss)
    or `scale` by the likelihood of held-out data.

    Args:
      loss: from parameters and one sample of `data` to its negative log-likelihood, a number.
      params: trained, a pytree of floating arrays.
      data: the training samples, a pytree of arrays with a leading axis N.
      key: a random key.
      count: how many models to draw, >= 1.
      prior: precision of a Gaussian prior, > 0.
      scale: weight of the data, >= 0: 1 for likelihoods. Zero draws from the prior around `params`.
      form: of the covariance. "full" takes the memory of the square of the number of drawn parameters:
        choose the last layer by `sampled`.
      sampled: from the path of a parameter and the array to whether it is drawn; others are the same in
        all members. None for all. For the last layer alone: ``lambda path, _: path[-2].key == "Dense_1"``.
      batch_size: how many samples are differentiated together.
      max_parameters: the most that a full covariance may have.

    Returns:
      `params` with a leading axis of `count`.

    Raises:
      ValueError: if prior is not positive, scale negative, nothing is sampled, or leading axes differ; if
        a full covariance has more than `max_parameters`, or A is not positive definite.

    References:
      MacKay (1992), https://doi.org/10.1162/neco.1992.4.3.448; Ritter et al. (2018),
      https://openreview.net/forum?id=Skdvd2xAZ; Daxberger et al. (2021), https://arxiv.org/abs/2106.14806

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import uncertainty
      >>> def loss(w, sample):
      ...     x, y = sample
      ...     return (x @ w - y) ** 2 / 2
      >>> x, y = jnp.array([[3.0, 0.0], [3.0, 0.0]]), jnp.array([1.0, -1.0])
      >>> drawn = uncertainty.laplace(loss, jnp.zeros(2), (x, y), jax.random.key(0), 2000)
      >>> jnp.rint(10 * drawn.std(0)).astype(int).tolist()  # precisions of 2 * 9 + 1, and of the prior
      [2, 10]
    """
    if not prior > 0 or not scale >= 0:
        raise ValueError(f"prior must be > 0 and scale >= 0, got {prior} and {scale}")
    check_count("count", count)
    check_one_of("form", form, ("diagonal", "full"))
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(
            f"data must be arrays with one leading axis for the samples, got leading axes {sorted(lengths)}"
        )
    choose = sampled or (lambda path, leaf: True)
    chosen = jax.tree_util.tree_map_with_path(lambda path, leaf: bool(choose(path, leaf)), params)
    if not any(jax.tree.leaves(chosen)):
        raise ValueError("sampled must choose at least one parameter, but it chose none")

    ((samples,),) = lengths
    size = min(check_count("batch_size", batch_size), samples)
    if form == "full":
        check_size(params, chosen, check_count("max_parameters", max_parameters))
        return full_laplace(loss, params, data, key, count, prior, scale, chosen, size)
    return _diagonal_laplace(loss, params, data, key, count, prior, scale, chosen, size)


def _diagonal_laplace(
    loss: Any, params: Any, data: Any, key: Array, count: int, prior: float, scale: float, chosen: Any,
    size: int,
) -> Any:  # fmt: skip
    def squared(sample: Any) -> Any:
        return jax.tree.map(jnp.square, jax.grad(loss)(params, sample))

    fisher = jax.tree.map(
        lambda leaf: leaf.sum(0),
        jax.jit(lambda data: lax.map(squared, data, batch_size=size))(data),
    )
    leaves, structure = jax.tree.flatten(params)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))

    def draw(leaf: Array, information: Array, drawn: bool, key: Array) -> Array:
        shape = (count, *jnp.shape(leaf))
        if not drawn:
            return jnp.broadcast_to(leaf, shape)
        noise = jax.random.normal(key, shape, jnp.asarray(leaf).dtype)
        return leaf + noise / jnp.sqrt(scale * information + prior)

    return jax.tree.map(draw, params, fisher, chosen, keys)


def dropout_masks(key: Array, shape: Any, rate: float, count: int) -> Any:
    """Masks of dropout for `covariance`: one for each member, the same for all samples (MC dropout).

    A model draws its mask inside, where an explanation cannot keep it fixed. Multiply hidden features by a
    mask that is an argument instead:
    ``uncertainty.covariance(lambda keep: explain(variables, x, keep=keep), masks)``.

    Args:
      key: a random key.
      shape: of the features that are dropped, such as (16,); or a pytree of shapes, one for each layer.
      rate: the probability that a feature is dropped, 0 <= rate < 1.
      count: how many members, >= 1.

    Returns:
      Masks of 0 and 1 / (1 - rate), (count, *shape), float32 or float64 as JAX's default; in the structure
      of `shape`.

    Raises:
      ValueError: if the rate is out of range.

    References:
      Gal and Ghahramani (2016), https://proceedings.mlr.press/v48/gal16.html

    Example:
      >>> import jax
      >>> from jaxlrp import uncertainty
      >>> masks = uncertainty.dropout_masks(jax.random.key(0), {"first": (4,), "second": (3,)}, 0.5, 8)
      >>> masks["first"].shape, sorted(set(masks["second"].ravel().tolist()))
      ((8, 4), [0.0, 2.0])
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be >= 0 and < 1, got {rate}")
    check_count("count", count)
    shapes, structure = jax.tree.flatten(shape, is_leaf=lambda it: isinstance(it, tuple))
    keys = jax.random.split(key, len(shapes))
    masks = [
        jax.random.bernoulli(k, 1 - rate, (count, *it)).astype(float) / (1 - rate)
        for k, it in zip(keys, shapes, strict=True)
    ]
    return jax.tree.unflatten(structure, masks)
