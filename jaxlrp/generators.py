r"""Directions of the latent space along which a generator changes most, in closed form.

The first layers of a generator, z -> A z + b, change by |A n|^2 if z moves by a direction n of length 1.
The largest changes are along the eigenvectors of A^T A with the largest eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.numerics import wide

__all__ = ["Directions", "directions", "factorize", "traverse"]


class Directions(NamedTuple):
    """Directions of the latent space, the one of the largest change first.

    Attributes:
      vectors: n, of length 1 and orthogonal, (count, D). Their largest entry is positive.
      changes: the squared change per squared step, (count,): eigenvalues.
      total: the sum of all eigenvalues: `changes / total` are shares of the change along all directions.
    """

    vectors: Array
    changes: Array
    total: Array


def factorize(
    kernels: ArrayLike | Sequence[ArrayLike], count: int | None = None, *, normalize: bool = False
) -> Directions:
    r"""Directions of largest change from the kernels of the layers that read the latent code (SeFa).

    argmax_{|n| = 1} |A n|^2: eigenvectors of A^T A,   A = kernel^T

    Nothing is sampled or trained. Several layers that read the code, such as those of styles, count as one:
    their A^T A are added.

    Args:
      kernels: one, or several: (D, ...), as Flax has them, the latent axis first.
      count: how many directions; None for all D.
      normalize: whether each row of A, what one unit reads, is divided by its length first.

    Returns:
      `Directions`.

    Raises:
      ValueError: if kernels are not finite, have different D, or fewer directions exist than asked for.

    References:
      Shen and Zhou (2021), "Closed-Form Factorization of Latent Semantics in GANs",
      https://arxiv.org/abs/2007.06600

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import generators
      >>> found = generators.factorize(jnp.array([[1.0, 0.0], [0.0, 3.0]]))
      >>> found.vectors.tolist(), found.changes.tolist()
      ([[0.0, 1.0], [1.0, 0.0]], [9.0, 1.0])
    """
    given: Any = kernels
    several = isinstance(given, (list, tuple)) and np.ndim(given[0]) >= 2
    held = [jnp.asarray(k) for k in given] if several else [jnp.asarray(given)]
    if any(k.ndim < 2 or not k.size for k in held) or len({len(k) for k in held}) != 1:
        raise ValueError(
            "kernels must have shape (D, ...), the latent axis first and of one length, got "
            f"{[k.shape for k in held]}"
        )
    rows = [k.reshape(len(k), -1).astype(wide(k.dtype)) for k in held]
    if not all(bool(jnp.isfinite(k).all()) for k in rows):
        raise ValueError("kernels must be finite, got NaN or inf")
    if normalize:
        sizes = [jnp.linalg.norm(k, axis=0) for k in rows]
        rows = [k / jnp.where(s > 0, s, 1) for k, s in zip(rows, sizes, strict=True)]
    square = sum(jnp.dot(k, k.T, precision="highest") for k in rows)
    return _of_square(jnp.asarray(square), count)


def directions(
    fun: Callable[[Array], Any], latents: ArrayLike, count: int | None = None
) -> Directions:
    r"""Directions of largest mean change of any function of the latent code: several layers, or all.

    argmax_{|n| = 1} 1/N sum_i |J(z_i) n|^2: eigenvectors of the mean of J^T J

    J is the Jacobian of `fun`. For one linear layer this is `factorize`, at any z. Memory is D times that
    of one output.

    Args:
      fun: from one latent code (D,) to an array of any shape: the first layers of a generator, up to any
        layer, or the generator itself.
      latents: codes to average over, (N, D).
      count: how many directions; None for all D.

    Returns:
      `Directions`, with mean squared changes.

    Raises:
      ValueError: if latents have another shape, or fewer directions exist than asked for.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import generators
      >>> w = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> generators.directions(lambda z: jnp.tanh(z @ w), jnp.zeros((1, 2)), count=1).vectors.tolist()
      [[0.0, 1.0]]
    """
    z = jnp.asarray(latents)
    if z.ndim != 2 or not z.size:
        raise ValueError(f"latents must have shape (N, D), got {z.shape}")
    z = z.astype(wide(z.dtype))

    def square(one: Array) -> Array:
        columns = jax.vmap(lambda n: jax.jvp(fun, (one,), (n,))[1].ravel())(
            jnp.eye(len(one), dtype=z.dtype)
        )
        return jnp.dot(columns, columns.T, precision="highest")

    mean = jax.jit(lambda z: jax.lax.map(square, z).mean(0))(z)
    if not bool(jnp.isfinite(mean).all()):
        raise ValueError("fun must have finite derivatives at latents, got NaN or inf")
    return _of_square(mean, count)


def traverse(latents: ArrayLike, direction: ArrayLike, steps: ArrayLike) -> Array:
    """Latent codes on lines along a direction, z + step n, to be generated and looked at.

    Args:
      latents: z, (N, D).
      direction: n, (D,), such as `found.vectors[0]`.
      steps: lengths, (S,), such as `jnp.linspace(-3, 3, 7)`.

    Returns:
      (N, S, D).

    Raises:
      ValueError: if shapes do not fit.

    Example:
      >>> from jaxlrp import generators
      >>> generators.traverse([[1.0, 1.0]], [0.0, 1.0], [-1.0, 0.0, 2.0]).tolist()
      [[[1.0, 0.0], [1.0, 1.0], [1.0, 3.0]]]
    """
    z, n, s = jnp.asarray(latents), jnp.asarray(direction), jnp.asarray(steps)
    if z.ndim != 2 or n.shape != z.shape[1:] or s.ndim != 1:
        raise ValueError(
            "latents, direction and steps must have shapes (N, D), (D,) and (S,), got "
            f"{z.shape}, {n.shape} and {s.shape}"
        )
    return z[:, None] + s[:, None] * n


def _of_square(square: Array, count: int | None) -> Directions:
    size = len(square)
    kept = size if count is None else check_count("count", count)
    if kept > size:
        raise ValueError(f"count must be at most {size}, the length of a latent code, got {kept}")
    values, vectors = jnp.linalg.eigh(square)
    values, vectors = jnp.maximum(values[::-1], 0), vectors[:, ::-1].T
    largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(1)[:, None], axis=1)
    vectors = vectors * jnp.where(largest < 0, -1, 1).astype(vectors.dtype)
    return Directions(vectors[:kept] + 0.0, values[:kept], values.sum())
