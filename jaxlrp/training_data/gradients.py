"""Attribution to training samples by products of gradients of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxlrp._checks import check_count, check_sequence
from jaxlrp.errors import counted
from jaxlrp.training_data import given
from jaxlrp.training_data.similarity import unit

Loss = Callable[[Any, Any], Array]  # (parameters, sample) -> a scalar


def gradient_dot(
    loss: Loss,
    params: Any,
    train: Any,
    test: Any,
    *,
    score: Loss | None = None,
    batch_size: int = 256,
) -> Array:
    r"""The dot product of gradients: tau_ti = -grad s(z_t) . grad l(z_i), s = -l if not given.

    To first order, how much a step of gradient descent on the training sample raises the score of the
    explained sample (lowers its loss, by default), for a learning rate of one.

    Args:
      loss: l(parameters, sample), a scalar, of one sample: a pytree like `train` without its leading axis.
      params: a pytree.
      train: N samples, a pytree with a leading axis, such as (x, y).
      test: T samples, like `train`, or whatever `score` takes.
      score: s(parameters, sample), a scalar to be explained, such as a logit. None: the negative loss.
      batch_size: how many training samples are differentiated together. Memory is that of their gradients
        and of T gradients.

    Returns:
      tau, (T, N); larger = supports.

    Raises:
      ValueError: if samples have no common leading axis, or loss or score is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w, sample: (sample[0] @ w - sample[1]) ** 2 / 2
      >>> train = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([1.0, -1.0])
      >>> gradient_dot(loss, jnp.zeros(2), train, train).tolist()
      [[1.0, -1.0], [-1.0, 2.0]]
    """
    return tracin(loss, [params], [1.0], train, test, score=score, batch_size=batch_size)


def gradient_cosine(
    loss: Loss,
    params: Any,
    train: Any,
    test: Any,
    *,
    score: Loss | None = None,
    batch_size: int = 256,
) -> Array:
    """The cosine between gradients, which samples of large gradients do not dominate.

    Args and errors as in `gradient_dot`.

    Returns:
      (T, N), from -1 to 1; 0 where a gradient is zero.
    """
    columns = unit(score_gradients(loss, params, test, score))
    return products(loss, params, train, columns, batch_size, normalize=True)


def tracin(
    loss: Loss,
    checkpoints: Sequence[Any],
    learning_rates: Sequence[float],
    train: Any,
    test: Any,
    *,
    score: Loss | None = None,
    batch_size: int = 256,
) -> Array:
    r"""Products of gradients summed over checkpoints of the training (TracIn).

    tau_ti = -sum_c eta_c grad s_c(z_t) . grad l_c(z_i),   s = -l if not given

    Args:
      loss, train, test, score, batch_size: as in `gradient_dot`.
      checkpoints: parameters at several times of the training.
      learning_rates: eta, one for each, such as the sum of learning rates since the last one.

    Returns:
      tau, (T, N); larger = supports.

    Raises:
      ValueError: as `gradient_dot`, or if there are no checkpoints, or as many learning rates.

    References:
      Pruthi et al. (2020), "Estimating Training Data Influence by Tracing Gradient Descent",
      https://arxiv.org/abs/2002.08484
    """
    check_sequence("checkpoints", checkpoints, "[params_1, params_2]")
    check_sequence("learning_rates", learning_rates, "[0.1, 0.1]")
    if not len(checkpoints) or len(checkpoints) != len(learning_rates):
        raise ValueError(
            "checkpoints must be one at the least, with a learning rate for each, got "
            f"{counted(len(checkpoints), 'checkpoint')} and {counted(len(learning_rates), 'learning rate')}"
        )
    total: Any = 0
    for params, rate in zip(checkpoints, learning_rates, strict=True):
        columns = score_gradients(loss, params, test, score)
        total = total + products(loss, params, train, float(rate) * columns, batch_size)
    return total


def score_gradients(loss: Loss, params: Any, test: Any, score: Loss | None) -> Array:
    """-grad s of each explained sample, (T, P); of the loss if there is no score."""
    fun, sign = (loss, 1.0) if score is None else (score, -1.0)
    check_scalar("loss" if score is None else "score", fun, params, test, "test")
    return sign * _gradients(params, test, fun=fun)


@partial(jax.jit, static_argnames="fun")
def _gradients(params: Any, samples: Any, *, fun: Loss) -> Array:
    return jax.vmap(flat_gradient(fun, params))(samples)


def check_scalar(name: str, fun: Loss, params: Any, samples: Any, name_of_samples: str) -> None:
    """Refuses samples without a common leading axis, and a function of one that is no scalar.

    Raises:
      ValueError: naming the argument.
    """
    given.count_of(name_of_samples, samples)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], _dtype(leaf)), samples)
    try:
        out = jax.eval_shape(fun, params, one)
    except Exception as error:  # whatever the user's function raises
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(one))
        raise ValueError(
            f"{name} cannot be computed: it must take the parameters and one sample of {name_of_samples}, "
            f"without the leading axis (shapes {shapes}): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape:
        raise ValueError(
            f"{name} must return a scalar for one sample, without the leading axis, got "
            f"{jax.tree.map(lambda leaf: leaf.shape, out)}"
        )


def _dtype(leaf: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(
        np.asarray(leaf).dtype if np.isscalar(leaf) else leaf.dtype
    )


def flat_gradient(fun: Loss, params: Any) -> Callable[[Any], Array]:
    """From a sample to the gradient of the parameters as one vector."""
    return lambda sample: ravel_pytree(jax.grad(fun)(params, sample))[0]


def products(
    loss: Loss, params: Any, train: Any, columns: Array, batch_size: int, normalize: bool = False
) -> Array:
    """columns . grad l(z_i), (T, N), of columns (T, P)."""
    check_scalar("loss", loss, params, train, "train")
    size = min(check_count("batch_size", batch_size), given.count_of("train", train))
    return _products(params, train, columns, loss=loss, batch_size=size, normalize=normalize)


@partial(jax.jit, static_argnames=("loss", "batch_size", "normalize"))
def _products(
    params: Any, train: Any, columns: Array, *, loss: Loss, batch_size: int, normalize: bool
) -> Array:
    gradient = flat_gradient(loss, params)

    def one(sample: Any) -> Array:
        g = gradient(sample)
        return jnp.matmul(columns, unit(g) if normalize else g, precision="highest")

    return lax.map(one, train, batch_size=batch_size).T


def summed(fun: Callable[[Any], Any], samples: Any, batch_size: int) -> Any:
    """The sum over batches of a function that sums over the samples of a batch."""
    count = given.count_of("samples", samples)
    size = min(batch_size, count)
    whole = count // size * size
    batches = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), samples)
    first = jax.tree.map(lambda a: a[0], batches)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(fun, first))

    def add(total: Any, batch: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, fun(batch)), None

    total = lax.scan(add, zeros, batches)[0]
    if whole == count:
        return total
    rest = jax.tree.map(lambda a: a[whole:], samples)
    return jax.tree.map(jnp.add, total, fun(rest))
