"""Influence functions: how parameters, and what they compute, would change with a training sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from jaxlrp._checks import check_count, check_mapping
from jaxlrp.training_data import given
from jaxlrp.training_data.gradients import Loss, check_scalar, products, score_gradients
from jaxlrp.training_data.solvers import Exact, Problem, Solver


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """One term of a training objective, a weighted mean over its samples.

    Attributes:
      loss: (parameters, sample) -> a scalar.
      samples: a pytree with a leading axis.
      weight: of its mean in the objective.
    """

    loss: Loss
    samples: Any
    weight: float = 1.0


def influence(
    loss: Loss,
    params: Any,
    train: Any,
    test: Any,
    *,
    score: Loss | None = None,
    regularizer: Callable[[Any], Array] | None = None,
    solver: Solver | None = None,
    batch_size: int = 256,
) -> Array:
    r"""Influence functions: by how much a training sample raises the score of an explained one.

    tau_ti = -grad s(z_t)^T (H + damping)^-1 grad l(z_i) / N,   H: of 1/N sum_i l(z_i) + regularizer

    with s = -l if no score is given. To first order, leaving sample i out changes the score by -tau_ti.
    This holds at a minimum of the objective; elsewhere, H may be indefinite and needs damping.

    Args:
      loss, params, train, test, score: as in `gradient_dot`.
      regularizer: parameters -> a scalar, the other part of the objective, such as a squared norm.
      solver: `Exact()` if None, for up to 10,000 parameters; `KFAC()` or `Arnoldi()` for more.
      batch_size: how many training samples are differentiated together.

    Returns:
      tau, (T, N); larger = supports.

    Raises:
      ValueError: if samples have no common leading axis, a loss or score is no scalar, or H is singular.

    References:
      Koh and Liang (2017), https://arxiv.org/abs/1703.04730

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import training_data
      >>> loss = lambda w, sample: (sample[0] @ w - sample[1]) ** 2
      >>> x, y = jnp.array([[1.0], [1.0], [1.0], [1.0]]), jnp.array([0.0, 1.0, 2.0, 5.0])
      >>> predict = lambda w, x: x @ w  # w is the mean of y, 2; without the last, it is 1
      >>> training_data.influence(loss, jnp.array([2.0]), (x, y), x[:1], score=predict).tolist()
      [[-0.5, -0.25, -0.0, 0.75]]
    """
    terms = {"train": Term(loss, train)}
    gradients = score_gradients(loss, params, test, score)
    return _of_terms(terms, params, gradients, regularizer, solver, batch_size)["train"]


def influence_of_terms(
    terms: Mapping[str, Term],
    params: Any,
    test: Any,
    *,
    score: Loss,
    regularizer: Callable[[Any], Array] | None = None,
    solver: Solver | None = None,
    batch_size: int = 256,
) -> dict[str, Array]:
    r"""Influence of the samples of each term of an objective, such as that of a physics-informed network.

    tau_ti = -grad s(z_t)^T (H + damping)^-1 w_k / N_k grad l_k(z_i)

    where H is the Hessian of sum_k w_k / N_k sum_i l_k(z_i) + regularizer.

    Args:
      terms: by name, what the objective sums. For a physics-informed network, the squared residual at
        collocation points, and the squared errors at boundary and initial points.
      params: a pytree, at the minimum of the objective.
      test: T points, a pytree with a leading axis.
      score: (parameters, point) -> a scalar to be explained: a prediction, a residual.
      regularizer, solver, batch_size: as in `influence`.

    Returns:
      tau of each term, (T, N_k), by name; larger = raises the score.

    Raises:
      TypeError, ValueError: as `influence`, or if terms are none.

    References:
      Naujoks et al. (2024), "PINNfluence: Influence Functions for Physics-Informed Neural Networks",
      https://arxiv.org/abs/2409.08958

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import training_data
      >>> slope = lambda w, x: (jax.grad(lambda x: w[0] + w[1] * x)(x) - 2.0) ** 2  # u' = 2
      >>> start = lambda w, x: (w[0] + w[1] * x - 1.0) ** 2  # u(0) = 1
      >>> terms = {
      ...     "equation": training_data.Term(slope, jnp.array([0.0, 1.0])),
      ...     "start": training_data.Term(start, jnp.array([0.0])),
      ... }
      >>> at, u = jnp.array([3.0]), lambda w, x: w[0] + w[1] * x
      >>> tau = training_data.influence_of_terms(terms, jnp.array([0.0, 1.0]), at, score=u)
      >>> {name: found.tolist() for name, found in tau.items()}
      {'equation': [[1.5, 1.5]], 'start': [[1.0]]}
    """
    check_mapping("terms", terms, '{"equation": Term(loss, samples)}')
    if not terms:
        raise ValueError("terms must be one at the least, got {}")
    for name, term in terms.items():
        if not isinstance(term, Term):
            raise TypeError(f"terms[{name!r}] must be a Term(loss, samples), got {term!r}")
    gradients = score_gradients(score, params, test, score)
    return _of_terms(terms, params, gradients, regularizer, solver, batch_size)


def _of_terms(
    terms: Mapping[str, Term],
    params: Any,
    gradients: Array,
    regularizer: Callable[[Any], Array] | None,
    solver: Solver | None,
    batch_size: int,
) -> dict[str, Array]:
    """gradients^T (H + damping)^-1 w_k / N_k grad l_k of each term."""
    solver = Exact() if solver is None else solver
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be Exact(), KFAC() or Arnoldi(), got {solver!r}")
    check_count("batch_size", batch_size)
    for name, term in terms.items():
        check_scalar(f"the loss of {name!r}", term.loss, params, term.samples, name)
    columns = solver.solve(Problem(terms, params, regularizer, batch_size), gradients)
    found = {}
    for name, term in terms.items():
        scale = float(term.weight) / given.count_of(name, term.samples)
        found[name] = products(term.loss, params, term.samples, scale * columns, batch_size)
    return found
