"""How much noise: searched for each example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._checks import check_count, is_number


class Adapted(NamedTuple):
    """What `adaptive_noise` found.

    Attributes:
      noise: of each example, (n,).
      score: of each example with this noise, (n,).
      history: the score after each iteration, (iterations + 1, n): it never increases.
    """

    noise: Array
    score: Array
    history: Array


def adaptive_noise(
    score: Callable[[Array], Array],
    start: Any,
    *,
    rate: float = 0.1,
    decay: float = 0.9,
    iterations: int = 20,
) -> Adapted:
    """The noise for which a score of each example is lowest, by a search around a start.

    In each iteration, the noise of an example is made larger and smaller by a factor of 1 + `rate` and
    1 - `rate`. It takes the better of the two if that improves the score; otherwise its rate is multiplied
    by `decay`. Each iteration takes two evaluations; all examples are searched at once.

    Args:
      score: from the noise of each example, (n,), to scores, (n,), lower is better: the total variation of
        an explanation, or the area under the curve of pixel flipping. It must give the same value for the
        same noise, so pass a fixed random key to the explanation. `nan` counts as worse than any number.
      start: the first noise of each example, (n,), > 0.
      rate: the first relative change, > 0 and < 1.
      decay: of the rate, > 0 and <= 1.
      iterations: >= 1.

    Returns:
      An `Adapted`.

    Raises:
      TypeError, ValueError: naming the argument that is wrong.

    References:
      Goh et al. (2021), https://doi.org/10.1109/ICPR48806.2021.9413242. They search with one rate for an
      image; how it changes is ours.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import baselines, metrics
      >>> x = jnp.sin(jnp.arange(50.0)).reshape(2, 25)
      >>> explain = jax.jit(lambda noise: baselines.smooth_taylor(
      ...     lambda x: (x**3).sum(-1), noise=noise[:, None])(x, key=jax.random.key(0)).relevance)
      >>> smooth = metrics.TotalVariation(axes=(0,))
      >>> start = jnp.full(2, 0.1)
      >>> found = baselines.adaptive_noise(lambda s: smooth(explain(s)), start, iterations=5)
      >>> bool((found.history[-1] <= found.history[0]).all())
      True
    """
    if not callable(score):
        raise TypeError(f"score must be a function from noise (n,) to scores (n,), got {score!r}")
    check_count("iterations", iterations)
    if not is_number(rate) or not 0 < rate < 1:
        raise ValueError(f"rate must be > 0 and < 1, got {rate!r}")
    if not is_number(decay) or not 0 < decay <= 1:
        raise ValueError(f"decay must be > 0 and <= 1, got {decay!r}")
    noise = jnp.asarray(start, float)
    if noise.ndim != 1:
        raise ValueError(
            f"start must be one number for each example, (n,), got shape {noise.shape}"
        )

    def scored(noise: Array) -> Array:
        found = jnp.asarray(score(noise))
        if found.shape != noise.shape:
            raise ValueError(
                f"score must return one number for each example, {noise.shape}, got {found.shape}"
            )
        return jnp.where(jnp.isnan(found), jnp.inf, found)

    def step(held: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
        noise, best, rates = held
        larger, smaller = noise * (1 + rates), noise * (1 - rates)
        above, below = scored(larger), scored(smaller)
        tried, found = jnp.where(above < below, larger, smaller), jnp.minimum(above, below)
        better = found < best
        noise, best = jnp.where(better, tried, noise), jnp.where(better, found, best)
        return (noise, best, jnp.where(better, rates, rates * decay)), best

    first = scored(noise)
    begin = (noise, first, jnp.full_like(noise, rate))
    (noise, best, _), history = jax.lax.scan(step, begin, None, length=iterations)
    return Adapted(noise, best, jnp.concatenate([first[None], history]))
