"""The gradient, its product with the input, and its integral along a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.baselines.method import Method
from jaxlrp.baselines.problem import prepare, times, weighted_sum
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.model import Function, model_of
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def gradient(
    fun: Function,
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""The gradient of the score: its sensitivity to each input, not its composition.

    R_i = ds / dx_i,   s = sum(c * f(x))

    In units of the score per unit of x. It sums to nothing in particular.

    Args:
      fun, has_aux, jit: as in `lrp.explain`.
      argnums: as in `lrp.explain`; the explained arguments are real or complex floating-point.

    Returns:
      A function `(*args, target=None, **kwargs) -> Explanation`; `target` as in `lrp.explain`, where an
      array gives c.

    Raises:
      TypeError, ValueError, IndexError: names the invalid argument, and how to fix it.

    References:
      Simonyan et al. (2013), https://doi.org/10.48550/arXiv.1312.6034

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> explain = baselines.gradient(lambda x: jnp.array([x[0] * x[1], x[1] ** 2]))
      >>> explain(jnp.array([2.0, 3.0]), target=0).relevance.tolist()
      [3.0, 2.0]
    """
    model = model_of(fun, argnums, has_aux)

    def compute(args: tuple, kwargs: dict, target: Target) -> Explanation:
        problem = prepare(model, args, kwargs, jnp.inexact)
        output, pull, aux = jax.vjp(problem.fun, problem.values, has_aux=True)
        (g,) = pull(initial_relevance.cotangent(output, target, "gradient"))
        return problem.explanation(output, g, aux)

    return Method("gradient", model, compute, jit=jit)


def input_x_gradient(
    fun: Function,
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""The input times the gradient of the score.

    R_i = x_i ds / dx_i,   s = sum(c * f(x))

    In units of the score. Equal to LRP-0 if f consists of linear layers and ReLUs. Sums to s
    if f is homogeneous of degree one (no biases); otherwise the contribution of the biases is missing.

    Args:
      fun, argnums, has_aux, jit: as in `gradient`.

    Returns:
      As in `gradient`. Relevance of complex x is real, `Re(x ds/dx)`.

    Raises:
      TypeError, ValueError, IndexError: names the invalid argument, and how to fix it.

    References:
      Shrikumar et al. (2016), https://doi.org/10.48550/arXiv.1605.01713

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> explain = baselines.input_x_gradient(lambda x: x @ jnp.array([[2.0], [-1.0]]))
      >>> explain(jnp.array([[3.0, 4.0]])).relevance.tolist()
      [[6.0, -4.0]]
    """
    model = model_of(fun, argnums, has_aux)

    def compute(args: tuple, kwargs: dict, target: Target) -> Explanation:
        problem = prepare(model, args, kwargs, jnp.inexact)
        output, pull, aux = jax.vjp(problem.fun, problem.values, has_aux=True)
        (g,) = pull(initial_relevance.cotangent(output, target, "gradient"))
        return problem.explanation(output, jax.tree.map(times, problem.values, g), aux)

    return Method("input_x_gradient", model, compute, jit=jit)


def integrated_gradients(
    fun: Function,
    *,
    n_steps: int = 32,
    baseline: Any = 0.0,
    method: Literal["gauss-legendre", "midpoint", "right"] = "gauss-legendre",
    batch_size: int = 8,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""The gradient, integrated along the straight line from a baseline to the input.

    R_i = (x_i - b_i) int_0^1 ds/dx_i (b + t (x - b)) dt
        ~ (x_i - b_i) sum_m w_m ds/dx_i (b + t_m (x - b))

    In units of the score. Complete: sum(R) = s(x) - s(b), up to quadrature error. With n
    steps, "gauss-legendre" is exact for polynomials s of degree 2 n and best if s is smooth.
    If s has kinks, as after ReLUs, the error of it and of "midpoint" is O(1/n). "right" uses t = 1/n, ...,
    1, as in equation 3 of the paper; its error is O(1/n) even if s is smooth.

    Args:
      fun, argnums, has_aux, jit: as in `gradient`.
      n_steps: n, number of points on the path, >= 1.
      baseline: b, the reference: "why s(x), rather than s(b)?" A number, an array
        that broadcasts to the explained argument, or a pytree of these. In units of x.
      method: positions of the points: "gauss-legendre", "midpoint" or "right".
      batch_size: number of points to evaluate at once, >= 1. Only affects memory and speed.

    Returns:
      As in `gradient`.

    Raises:
      TypeError, ValueError, IndexError: names the invalid argument, and how to fix it.

    References:
      Sundararajan et al. (2017), https://doi.org/10.48550/arXiv.1703.01365

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> explain = baselines.integrated_gradients(lambda x: (x**3).sum(), n_steps=4, baseline=1.0)
      >>> explain(jnp.array([2.0, 3.0])).relevance.round(4).tolist()
      [7.0, 26.0]
    """
    model = model_of(fun, argnums, has_aux)
    positions, weights = _quadrature(method, check_count("n_steps", n_steps))
    check_count("batch_size", batch_size)

    def compute(args: tuple, kwargs: dict, target: Target) -> Explanation:
        problem = prepare(model, args, kwargs, jnp.inexact)
        output, aux, c = problem.score(target)
        x = problem.values
        b = problem.like_values(baseline, "baseline")
        way = jax.tree.map(lambda x, b: widen(x) - widen(b), x, b)

        def point(i: Array) -> Any:
            def between(x: Array, b: Array, d: Array) -> Array:
                t = jnp.asarray(positions, jnp.real(d).dtype)[i]
                return (widen(b) + t.astype(d.dtype) * d).astype(x.dtype)

            return jax.tree.map(between, x, b, way)

        mean = weighted_sum(lambda i: problem.gradient(point(i), c), weights, batch_size)
        return problem.explanation(output, jax.tree.map(times, way, mean), aux)

    return Method("integrated_gradients", model, compute, jit=jit)


def _quadrature(method: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in [0, 1] and their weights, which sum to one."""
    if method == "gauss-legendre":
        points, weights = np.polynomial.legendre.leggauss(n)
        return (points + 1) / 2, weights / 2
    if method not in ("midpoint", "right"):
        raise ValueError(f"method must be 'gauss-legendre', 'midpoint' or 'right', got {method!r}")
    shift = 0.5 if method == "midpoint" else 1.0
    return (np.arange(n) + shift) / n, np.full(n, 1 / n)
