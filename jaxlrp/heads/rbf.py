r"""Kernel machines with a Gaussian kernel, integrated from a root point.

On the line x(t) = x0 + t d from x0 to x, with e = x0 - u, A = |e|^2, B = e . d, C = |d|^2:

    d/dt k(x(t), u) = -2 gamma sum_j d_j (e_j + t d_j) exp(-gamma (A + 2 B t + C t^2))

so feature j gets -2 gamma d_j (e_j I_0 + d_j I_1) of k(x, u) - k(x0, u), where I_n is the integral of
t^n exp(...) from 0 to 1. I_0 is a difference of error functions. Summed over features the equation gives
I_1 = ((k(x0, u) - k(x, u)) / 2 gamma - B I_0) / C, so that relevance sums to the difference exactly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.head import (
    Head,
    as_array,
    as_features,
    as_positive,
    dot,
    head,
    squared_distances,
)
from jaxlrp.heads.machines import as_coefficients

_HALVINGS = 60


@described
@head
class RBFMachine(Head):
    """A sum of Gaussian kernels; `rbf_machine` makes it.

    Attributes:
      points: u, (P, D).
      coefficients: c, (P, K).
      intercept: b, (K,).
      gamma: of the kernel.
      level: the output at root points, (K,).
      at_points: outputs at the points, (P, K).
    """

    points: Array
    coefficients: Array
    intercept: Array
    gamma: Array
    level: Array
    at_points: Array

    def __call__(self, features: ArrayLike) -> Array:
        x = as_features(features, self.points.shape[1])
        kernel = _gaussian(x, self.points, self.gamma)
        return dot(kernel, self.coefficients.astype(x.dtype)) + self.intercept.astype(x.dtype)

    def roots(self, features: ArrayLike, weights: Array) -> Array:
        """The root point of each sample, (N, D), for a weighted sum of the outputs."""
        x = as_features(features, self.points.shape[1])
        return jax.vmap(self._root)(x, weights.astype(x.dtype))

    def _root(self, x: Array, weights: Array) -> Array:
        points, held = (a.astype(x.dtype) for a in (self.points, self.at_points))
        c = dot(self.coefficients.astype(x.dtype), weights)
        shift = dot((self.intercept - self.level).astype(x.dtype), weights)

        def output(t: Array, end: Array) -> Array:
            return dot(_gaussian((x + t * (end - x))[None], points, self.gamma)[0], c) + shift

        zero = jnp.zeros((), x.dtype)
        side = jnp.where(output(zero, x) >= 0, 1, -1).astype(x.dtype)
        of_points = side * (dot(held, weights) - dot(self.level.astype(x.dtype), weights))
        distances = ((points - x) ** 2).sum(-1)
        there = of_points < 0
        nearest = jnp.where(there, distances, jnp.inf).argmin()
        end = points[jnp.where(there.any(), nearest, of_points.argmin())]

        def halve(_: int, held: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = held
            middle = (low + high) / 2
            same = side * output(middle, end) >= 0
            return jnp.where(same, middle, low), jnp.where(same, high, middle)

        _, t = lax.fori_loop(0, _HALVINGS, halve, (zero, zero + 1))
        t = jnp.where(there.any(), t, 1)
        return lax.stop_gradient(x + t * (end - x))

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        x = as_features(features, self.points.shape[1])
        weights = weights.astype(x.dtype)
        start = jax.vmap(self._root)(x, weights)
        return jax.vmap(self._along)(start, x, dot(weights, self.coefficients.astype(x.dtype).T))

    def _along(self, start: Array, x: Array, c: Array) -> Array:
        """The integral of each feature, (D,), with coefficients (P,)."""
        points, gamma = self.points.astype(x.dtype), self.gamma.astype(x.dtype)
        d, e = x - start, start - points
        along, square = dot(e, d), dot(d, d)
        moved = square > 0
        size = jnp.where(moved, square, 1)
        begin, end = (jnp.exp(-gamma * ((p - points) ** 2).sum(-1)) for p in (start, x))
        root = jnp.sqrt(gamma * size)
        beside = jnp.maximum((e**2).sum(-1) - along**2 / size, 0)  # squared distance to the line
        ends = [jax.lax.erf(root * (t + along / size)) for t in (0, 1)]
        height = jnp.exp(-gamma * beside) * np.sqrt(np.pi) / (2 * root)
        zeroth = height * (ends[1] - ends[0])
        first = ((begin - end) / (2 * gamma) - along * zeroth) / size
        found = -2 * gamma * d * (dot(c * zeroth, e) + d * dot(c, first))
        return jnp.where(moved, found, 0)


def _gaussian(x: Array, points: Array, gamma: Array) -> Array:
    return jnp.exp(-gamma.astype(x.dtype) * squared_distances(x, points))


def rbf_machine(
    points: ArrayLike,
    coefficients: ArrayLike,
    intercept: ArrayLike = 0.0,
    *,
    gamma: float,
    level: ArrayLike = 0.0,
) -> RBFMachine:
    r"""A support vector machine with a Gaussian kernel.

    f(x) = b + sum_i c_i exp(-gamma |x - u_i|^2)

    R_d = (x - x0)_d int_0^1 df/dx_d (x0 + t (x - x0)) dt,   f(x0) = level

    The Gaussian kernel is no sum over features, so what each of them contributes depends on a root point
    x0, where the output is `level`: on the decision boundary. It is found by halving the line from x to the
    nearest point u at which the output is on the other side. The integral has a closed form. R_d sums to
    f(x) - level, up to rounding. The first term of the Taylor expansion at x0, which Bach et al. take,
    leaves a remainder.

    Args:
      points: u, (P, D): support vectors.
      coefficients: c = alpha y, (P,), or (P, K) for K outputs.
      intercept: b, a number, or (K,).
      gamma: of the kernel, > 0, in units of one over a squared distance.
      level: the output of root points, a number, or (K,): 0 is the boundary of a classifier; for a
        regression it is the reference value.

    Returns:
      A head with outputs f, (N, K). If weights of several outputs are explained at once and no point is on
      the other side, the root is the point whose output is the lowest.

    Raises:
      ValueError: if shapes do not fit, or an output has the same side of `level` at all points.

    References:
      Bach et al. (2015), section "Taylor-type decomposition", https://doi.org/10.1371/journal.pone.0130140

    Example:
      >>> import numpy as np
      >>> from jaxlrp import heads
      >>> machine = heads.rbf_machine([[0.0, 0.0], [2.0, 0.0]], [1.0, -1.0], gamma=0.5)
      >>> result = heads.explain(machine)(np.array([[0.5, 0.0]]))
      >>> bool(np.allclose(result.relevance, [[result.output[0, 0], 0.0]]))
      True
    """
    found = as_array("points", points, 2, "(points, features)")
    weights, bias = as_coefficients(len(found), coefficients, intercept)
    outputs = weights.shape[1]
    edge = as_array("level", np.atleast_1d(level), 1, "() or (outputs,)")
    if edge.shape not in ((1,), (outputs,)):
        raise ValueError(
            f"level must be a number or have shape ({outputs},), one for each output, got {edge.shape}"
        )
    edge, width = jnp.broadcast_to(edge, (outputs,)), as_positive("gamma", gamma)
    held = lax.map(lambda u: dot(_gaussian(u[None], found, width)[0], weights) + bias, found)
    low, high = np.asarray(held.min(0)), np.asarray(held.max(0))
    for k in range(outputs):
        if not low[k] < edge[k] < high[k]:
            raise ValueError(
                f"level must lie between outputs at the points, or there is no root point: output {k} goes "
                f"from {low[k]:.3g} to {high[k]:.3g}, level is {float(edge[k]):.3g}"
            )
    return RBFMachine(found, weights, bias, width, edge, held)
