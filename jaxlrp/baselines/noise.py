"""Gradients averaged over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat
from jaxlrp._checks import check_at_least, check_count, check_not_text
from jaxlrp.baselines.method import Method
from jaxlrp.baselines.problem import Problem, examples, prepare, times, weighted_sum
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.model import Function, model_of
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def smooth_grad(
    fun: Function,
    *,
    n_samples: int = 32,
    noise: float | Array = 0.15,
    batch_size: int = 8,
    times_input: bool = False,
    batch_axis: int | None = 0,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""SmoothGrad: the gradient, averaged over noisy copies of the input.

    R = 1/n sum_m ds/dx (x + sigma e_m),   e_m ~ N(0, 1),   sigma = noise (max x - min x)

    The range max x - min x is that of each example, and of each array of a pytree, over all axes
    except the batch axis. If it is zero, no noise is added. In units of the score per unit of x, or of
    the score with `times_input`. It sums to nothing in particular.

    Args:
      fun, argnums, has_aux, jit: as in `gradient`; the explained argument is real.
      n_samples: n, >= 1. The standard error decreases with its square root.
      noise: standard deviation of the noise as a fraction of the range of the example, >= 0,
        dimensionless. Zero: the plain gradient.
      batch_size: number of copies to evaluate at once, >= 1. Only affects memory and speed.
      times_input: whether to multiply the average by x.
      batch_axis: the axis of the examples in the explained argument and in the output; None for a
        single example.

    Returns:
      A function `(*args, target=None, key=key, **kwargs) -> Explanation`. `key` is a key of
      `jax.random` or, if there is a batch axis, may be an array with one key per example. For a single
      key, example i uses `jax.random.fold_in(key, i)`: its relevance does not depend on the rest
      of the batch.

    Raises:
      TypeError: if the key is missing, or an argument has the wrong type.
      ValueError, IndexError: names the invalid argument, and how to fix it.

    References:
      Smilkov et al. (2017), https://doi.org/10.48550/arXiv.1706.03825

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> explain = baselines.smooth_grad(lambda x: x @ w, n_samples=8, batch_axis=None)
      >>> explain(jnp.array([1.0, 2.0]), target=1, key=jax.random.key(0)).relevance.tolist()
      [-1.0, 3.0]
    """

    def term(x: Any, z: Any, g: Any) -> Any:
        return g

    def finish(x: Any, mean: Any) -> Any:
        return jax.tree.map(times, x, mean) if times_input else mean

    return _sampled(
        "smooth_grad",
        fun,
        term,
        finish,
        n_samples,
        noise,
        batch_size,
        batch_axis,
        argnums,
        has_aux,
        jit,
    )


def smooth_taylor(
    fun: Function,
    *,
    n_samples: int = 32,
    noise: float | Array = 0.15,
    batch_size: int = 8,
    batch_axis: int | None = 0,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""SmoothTaylor: the first-order Taylor terms of the score, averaged over noisy roots.

    R = 1/n sum_m (x - z_m) ds/dx (z_m),   z_m = x + sigma e_m,   e_m ~ N(0, 1)

    with sigma = noise (max x - min x) as in `smooth_grad`. In units of the score. By Taylor's
    theorem it sums to s(x) - mean s(z_m), up to terms of second order in sigma. For linear s
    the sum is exact, and it is only noise around zero.

    Args:
      fun, n_samples, noise, batch_size, batch_axis, argnums, has_aux, jit: as in `smooth_grad`. With zero
        noise, relevance is zero.

    Returns:
      As in `smooth_grad`.

    Raises:
      TypeError: if the key is missing, or an argument has the wrong type.
      ValueError, IndexError: names the invalid argument, and how to fix it.

    References:
      Goh et al. (2020), https://doi.org/10.48550/arXiv.2004.10484

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> explain = baselines.smooth_taylor(lambda x: (x**2).sum(), n_samples=1000, noise=0.1,
      ...                                   batch_axis=None)
      >>> x = jnp.array([0.0, 10.0])  # expected: -2 sigma^2 = -2 of both
      >>> jnp.allclose(explain(x, key=jax.random.key(0)).relevance, -2.0, atol=2.0).tolist()
      True
    """

    def term(x: Any, z: Any, g: Any) -> Any:
        return jax.tree.map(lambda x, z, g: times(widen(x) - widen(z), g), x, z, g)

    def finish(x: Any, mean: Any) -> Any:
        return mean

    return _sampled(
        "smooth_taylor",
        fun,
        term,
        finish,
        n_samples,
        noise,
        batch_size,
        batch_axis,
        argnums,
        has_aux,
        jit,
    )


def _sampled(
    name: str,
    fun: Function,
    term: Callable[[Any, Any, Any], Any],
    finish: Callable[[Any, Any], Any],
    n_samples: int,
    noise: float | Array,
    batch_size: int,
    batch_axis: int | None,
    argnums: int | Sequence[int] | None,
    has_aux: bool,
    jit: bool,
) -> Method:
    """`finish(x, mean of term(x, z, gradient at z))` over noisy copies z of x."""
    model = model_of(fun, argnums, has_aux)
    check_count("n_samples", n_samples)
    check_count("batch_size", batch_size)
    check_not_text("noise", noise)
    check_at_least("noise", noise, 0.0)

    def compute(args: tuple, kwargs: dict, target: Target, key: Array | None) -> Explanation:
        problem = prepare(model, args, kwargs, jnp.floating)
        output, aux, c = problem.score(target)
        draw = _noisy(name, problem, output, noise, key, batch_axis)

        def one(i: Array) -> Any:
            z = draw(i)
            return term(problem.values, z, problem.gradient(z, c))

        mean = weighted_sum(one, np.full(n_samples, 1 / n_samples), batch_size)
        return problem.explanation(output, finish(problem.values, mean), aux)

    return Method(name, model, compute, ("key",), jit)


def _noisy(
    name: str,
    problem: Problem,
    output: Any,
    noise: float | Array,
    key: Any,
    batch_axis: int | None,
) -> Callable[[Array], Any]:
    """A function from the index of a sample to noisy values."""
    n = examples(problem.values, output, batch_axis)
    keys = _keys(name, key, n)
    leaves, tree = jax.tree.flatten(problem.values)
    scales = [jnp.asarray(noise).astype(widen(x).dtype) * _range(x, batch_axis) for x in leaves]

    def draw(i: Array) -> Any:
        return jax.tree.unflatten(
            tree,
            [
                (widen(x) + scale * _normal(_fold(keys, i, leaf), x, batch_axis)).astype(x.dtype)
                for leaf, (x, scale) in enumerate(zip(leaves, scales, strict=True))
            ],
        )

    return draw


def _range(x: Array, batch_axis: int | None) -> Array:
    """max - min of each example, with all axes kept."""
    axes = tuple(i for i in range(x.ndim) if i != batch_axis)
    if not axes:
        raise ValueError(
            f"the explained argument, of shape {x.shape}, has one number per example, so there is "
            "no range to scale the noise; pass batch_axis=None for a single example"
        )
    x = widen(x)
    return x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True)


def _normal(keys: Array, x: Array, batch_axis: int | None) -> Array:
    """Standard normal numbers in the shape of x, with a separate key for each example."""
    dtype = widen(x).dtype
    if batch_axis is None:
        return jax.random.normal(keys, x.shape, dtype)
    shape = tuple(n for i, n in enumerate(x.shape) if i != batch_axis)
    draw = jax.vmap(lambda key: jax.random.normal(key, shape, dtype), out_axes=batch_axis)
    return draw(keys)


def _fold(keys: Array, *numbers: Any) -> Array:
    for number in numbers:
        if keys.ndim == 0:
            keys = jax.random.fold_in(keys, number)
        else:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
    return keys


def _keys(name: str, key: Any, n: int | None) -> Array:
    """Checks one key, or one key for each of n examples.

    Raises:
      TypeError: if the key is missing or invalid.
      ValueError: if the numbers of keys and examples differ.
    """
    if key is None:
        raise TypeError(f"{name} draws random numbers: pass key=jax.random.key(0)")
    if _compat.is_array(key) and key.dtype == jnp.uint32 and key.ndim in (1, 2):
        key = jax.random.wrap_key_data(jnp.asarray(key))
    if not (_compat.is_array(key) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key must be one random key such as jax.random.key(0), got {key!r}")
    if key.ndim == 0:
        return key if n is None else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    if key.shape != (n,):
        wanted = (
            "one random key" if n is None else f"one random key, or one for each of {n} examples"
        )
        raise ValueError(f"key must be {wanted}, got keys of shape {key.shape}")
    return key
