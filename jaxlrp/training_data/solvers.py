"""Products of the inverse Hessian of a training objective with gradients."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxlrp._checks import check_at_least, check_count
from jaxlrp.training_data import given
from jaxlrp.training_data.gradients import Loss, summed

if TYPE_CHECKING:
    from jaxlrp.training_data.influence import Term

LARGEST = 10_000  # parameters of an exact Hessian: 800 MB in float64, and half an hour on two cores


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The objective whose Hessian is inverted: sum_k w_k mean(loss_k) + regularizer.

    Attributes:
      terms: by name.
      params: a pytree.
      regularizer: parameters -> a scalar, or None.
      batch_size: samples that are differentiated together.
    """

    terms: Mapping[str, Term]
    params: Any
    regularizer: Callable[[Any], Array] | None
    batch_size: int

    def of_program(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a compiled program of `hessian_product` takes: traced arguments, and static ones."""
        terms = self.terms.values()
        samples = tuple(term.samples for term in terms)
        scales = tuple(
            float(term.weight) / given.count_of(name, term.samples)
            for name, term in self.terms.items()
        )
        static = {"losses": tuple(term.loss for term in terms), "regularizer": self.regularizer}
        return (self.params, samples, scales), static | {"batch_size": self.batch_size}


STATIC = ("losses", "regularizer", "batch_size")


def hessian_product(
    params: Any,
    samples: tuple[Any, ...],
    scales: tuple[Any, ...],
    *,
    losses: tuple[Loss, ...],
    regularizer: Callable[[Any], Array] | None,
    batch_size: int,
) -> Callable[[Array], Array]:
    """A function from a vector (P,) to H times it: of sum_k scales_k sum_i loss_k + regularizer."""
    flat, unravel = ravel_pytree(params)

    def along(v: Array, fun: Callable[[Array], Array]) -> Array:
        return jax.jvp(jax.grad(fun), (flat,), (v,))[1]

    def multiply(v: Array) -> Array:
        total = jnp.zeros_like(flat)
        if (penalty := regularizer) is not None:
            total = total + along(v, lambda p: penalty(unravel(p)))
        for loss, held, scale in zip(losses, samples, scales, strict=True):

            def of_batch(batch: Any, loss: Loss = loss) -> Array:
                return along(v, lambda p: jax.vmap(partial(loss, unravel(p)))(batch).sum())

            total = total + scale * summed(of_batch, held, batch_size)
        return total

    return multiply


class Solver(abc.ABC):
    """How (H + damping)^-1 is applied to gradients."""

    @abc.abstractmethod
    def solve(self, problem: Problem, gradients: Array) -> Array:
        """(H + damping)^-1 g for each row g of gradients, (T, P)."""


@dataclasses.dataclass(frozen=True)
class Exact(Solver):
    """The whole Hessian, P x P, and one factorization of it.

    Up to 10,000 parameters. Below about 5,000, take it, in float64 (`jax.enable_x64(True)`).

    Attributes:
      damping: added to the diagonal of H, >= 0.
    """

    damping: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("damping", self.damping, 0)

    def solve(self, problem: Problem, gradients: Array) -> Array:
        """(H + damping)^-1 g for each row g of gradients, (T, P).

        Raises:
          ValueError: if H is singular in the precision of its dtype, or larger than 10,000 x 10,000.
        """
        size = gradients.shape[1]
        if size > LARGEST:
            raise ValueError(
                f"Exact() holds a Hessian of P x P numbers for up to {LARGEST:,} parameters, got {size:,}: "
                "take KFAC() or Arnoldi(), or fix the lower layers and pass the parameters of the last"
            )
        traced, static = problem.of_program()
        h, condition = _whole(*traced, self.damping, **static)
        if not float(condition) * float(jnp.finfo(h.dtype).eps) < 1:
            raise ValueError(
                f"the Hessian is singular in {h.dtype}, with a condition number of {float(condition):.1e}: "
                "some directions of parameters change no loss. Pass the regularizer of the training, set "
                "damping, Exact(damping=1e-3), or compute in float64"
            )
        return jnp.linalg.solve(h, gradients.T).T


@partial(jax.jit, static_argnames=STATIC)
def _whole(
    params: Any, samples: Any, scales: Any, damping: float, **static: Any
) -> tuple[Array, Array]:
    """H + damping, and its condition number."""
    multiply = hessian_product(params, samples, scales, **static)
    flat, _ = ravel_pytree(params)
    eye = jnp.eye(len(flat), dtype=flat.dtype)
    h = lax.map(multiply, eye, batch_size=min(len(flat), 64))
    h = (h + h.T) / 2 + damping * eye
    return h, jnp.linalg.cond(h, p=1)


@dataclasses.dataclass(frozen=True)
class Arnoldi(Solver):
    """The largest eigenvalues of the Hessian, by Arnoldi's iteration; all other directions are left out.

    Needs only products with H; memory is that of `iterations` vectors of parameters. What small eigenvalues
    add is lost, and it is they whose inverse is large: physics-informed networks need most of them.

    Attributes:
      rank: how many eigenvalues are kept, those of largest magnitude.
      iterations: products with H, >= rank. None: twice the rank.
      damping: added to each eigenvalue, >= 0.
      key: of the random vector that it begins with, `jax.random.key(0)` if None.
    """

    rank: int = 50
    iterations: int | None = None
    damping: float = 0.0
    key: Array | None = None

    def __post_init__(self) -> None:
        check_at_least("damping", self.damping, 0)
        check_count("rank", self.rank)
        if self.iterations is not None and check_count("iterations", self.iterations) < self.rank:
            raise ValueError(
                f"iterations must be at least rank, {self.rank}, got {self.iterations}"
            )

    def solve(self, problem: Problem, gradients: Array) -> Array:
        """H^-1 g within the kept directions for each row g of gradients, (T, P).

        Raises:
          ValueError: if H is zero or not finite.
        """
        size = gradients.shape[1]
        key = jax.random.key(0) if self.key is None else self.key
        start = jax.random.normal(key, (size,), gradients.dtype)
        steps = min(size, self.iterations or 2 * self.rank)
        traced, static = problem.of_program()
        values, vectors = _eigenpairs(
            *traced, start, steps=steps, rank=min(self.rank, steps), **static
        )
        if not bool(jnp.isfinite(values).all()) or not bool(jnp.abs(values).max() > 0):
            raise ValueError(
                "the Hessian must be finite and not zero: check the loss and parameters"
            )
        values = np.asarray(values)
        # A vanishing eigenvalue belongs to a direction that the iteration did not reach.
        live = np.abs(values) > 10 * np.finfo(values.dtype).eps * np.abs(values).max() * steps
        inverse = np.where(live, 1 / np.where(live, values + self.damping, 1), 0)
        parts = jnp.matmul(gradients, vectors.T, precision="highest") * jnp.asarray(inverse)
        return jnp.matmul(parts, vectors, precision="highest")


@partial(jax.jit, static_argnames=("steps", "rank", *STATIC))
def _eigenpairs(
    params: Any, samples: Any, scales: Any, start: Array, *, steps: int, rank: int, **static: Any
) -> tuple[Array, Array]:
    """Approximate eigenvalues of largest magnitude, (rank,), and eigenvectors, (rank, P)."""
    multiply = hessian_product(params, samples, scales, **static)

    def project(basis: Array, v: Array) -> Array:
        return v - jnp.matmul(jnp.matmul(basis, v, precision="highest"), basis, precision="highest")

    def step(i: Array, held: Any) -> Any:
        basis, images = held
        image = multiply(basis[i])
        rest = project(basis, project(basis, image))  # twice: once is not orthogonal to rounding
        size = jnp.linalg.norm(rest)
        # Where nothing is left, the space is complete, and the following vectors are zero.
        enough = size > 100 * jnp.finfo(size.dtype).eps * jnp.linalg.norm(image)
        following = jnp.where(enough, rest / jnp.where(enough, size, 1), 0)
        basis = basis.at[i + 1].set(following, mode="drop")
        return basis, images.at[i].set(image)

    zeros = jnp.zeros((steps, len(start)), start.dtype)
    begun = zeros.at[0].set(start / jnp.linalg.norm(start)), zeros
    basis, images = lax.fori_loop(0, steps, step, begun)
    small = jnp.matmul(basis, images.T, precision="highest")
    values, inner = jnp.linalg.eigh((small + small.T) / 2)
    kept = jnp.argsort(-jnp.abs(values))[:rank]
    return values[kept], jnp.matmul(inner[:, kept].T, basis, precision="highest")
