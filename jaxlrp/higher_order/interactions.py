"""Interactions of two features of one input: how one changes the relevance of the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.explanation.explainer import Explainer, explain
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.network.model import Function
from jaxlrp.numerics import widen
from jaxlrp.targets import Predicted, Target


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions of features; `interactions` makes them.

    Attributes:
      matrix: R_ij, (N, features, features): what feature j does to the relevance of feature i.
      relevance: R_i, (N, features).
    """

    matrix: Array
    relevance: Array

    def symmetric(self) -> Array:
        """(R_ij + R_ji) / 2 for two features, zero for one with itself, (N, features, features)."""
        both = (self.matrix + self.matrix.swapaxes(1, 2)) / 2
        return jnp.where(jnp.eye(both.shape[1], dtype=bool), 0, both)

    def top(
        self, count: int = 10, names: Sequence[str] | None = None, sample: int | None = None
    ) -> list[tuple[str, str, float]]:
        """The strongest interactions.

        Args:
          count: how many pairs at most, >= 1.
          names: of the features; None for their numbers.
          sample: of which sample. None: the mean |R_ij| over samples, which has no sign.

        Returns:
          (feature, feature, interaction), largest |interaction| first.

        Raises:
          ValueError: if names are not as many as features.
        """
        check_count("count", count)
        values = np.asarray(self.symmetric())
        size = values.shape[1]
        names = [str(i) for i in range(size)] if names is None else list(names)
        if len(names) != size:
            raise ValueError(f"names must be {size}, one for each feature, got {len(names)}")
        found = np.abs(values).mean(0) if sample is None else values[sample]
        rows, columns = np.triu_indices(size, 1)
        order = np.argsort(-np.abs(found[rows, columns]), kind="stable")[:count]
        return [
            (names[rows[k]], names[columns[k]], float(found[rows[k], columns[k]])) for k in order
        ]


def interactions(
    fun: Function,
    composite: CompositeLike = None,
    *,
    baseline: ArrayLike | None = 0.0,
    groups: ArrayLike | None = None,
    argnums: int | None = None,
    batch_size: int = 32,
) -> Callable[..., Interactions]:
    r"""Which features act together, for any function: an explanation of the explanation.

    R_ij = R_i(x) - R_i(x without j)                                   (`baseline` is an array or a number)

    R_ij = x_j dR_i / dx_j                                             (`baseline=None`)

    A feature that does not interact with i leaves its relevance as it is. If relevance sums to the output,
    the first form has sum_i R_ij = f(x) - f(x without j), and the second sum_i R_ij = x_j df / dx_j. Where
    f is a sum of products of two features, both give half of its product to each of the two entries of a
    pair. Where relevance is gradient times input (LRP-0 in a ReLU network without biases), the second is
    the Hessian product x_i x_j d^2 f / dx_i dx_j off the diagonal. It is zero where the network is linear
    in pieces; then only the first form sees anything.

    Args:
      fun: a function of arrays or a module, with samples along the first axis of the explained argument.
      composite: the rules; `composites.default()` if None.
      baseline: the value of a feature that is absent, a number or an array of the shape of one sample.
        None: the derivative.
      groups: integers 0 to G - 1 of the shape of one sample: features with the same number count as one,
        such as tiles of an image. None: each by itself.
      argnums: the position of the explained argument.
      batch_size: how many features are left out at once.

    Returns:
      A function `(*args, target=None, **kwargs) -> Interactions`, with as many explanations as there are
      features. A `target` of `targets.predicted` is the class predicted for the whole input.

    Raises:
      ValueError: if `groups` or `baseline` do not fit the input, it has no axis of features, or argnums is
        not one integer.

    References:
      Janizek et al. (2021), "Explaining Explanations", https://jmlr.org/papers/v22/20-1223.html (the
      second explanation of the first); Eberle et al. (2020), https://doi.org/10.1109/TPAMI.2020.3020738
      (the Hessian product)

    Example:
      >>> both = lambda x: jax.nn.relu(x[:, 0] + x[:, 1] - 1) + x[:, 2]  # zero, if one of two is absent
      >>> found = interactions(both)(jnp.ones((1, 3)))
      >>> found.top(1)[0][:2], jnp.rint(2 * found.matrix[0]).astype(int).tolist()
      (('0', '1'), [[1, 1, 0], [1, 1, 0], [0, 0, 2]])
    """
    explainer = explain(fun, composite, argnums=argnums)
    if not explainer.model.single:
        raise ValueError(f"argnums must be one integer: features of one argument, got {argnums!r}")
    check_count("batch_size", batch_size)

    def of_features(*args: Any, target: Target = None, **kwargs: Any) -> Interactions:
        place = explainer.model.argnums[0]
        x = jnp.asarray(args[place])
        if x.ndim < 2:
            raise ValueError(
                "the explained argument must have samples along its first axis and features along others, "
                f"got shape {x.shape}: pass x[None] for one sample"
            )
        shape = x.shape[1:]
        labels = _labels(groups, shape)
        count = int(labels.max()) + 1
        at = _relevance(explainer, args, kwargs, _fixed(explainer, args, kwargs, target), labels)
        whole = at(x)
        size = min(batch_size, count)
        if baseline is None:
            _, pull = jax.vjp(at, x)

            def of_row(i: Array) -> Array:  # dR_i / dx
                (g,) = pull(jnp.zeros_like(whole).at[:, i].set(1))
                return _by_group(g * x, labels)

            matrix = lax.map(of_row, jnp.arange(count), batch_size=size)  # (i, N, j)
            return Interactions(jnp.moveaxis(matrix, 0, 1), whole)
        absent = jnp.broadcast_to(_as_baseline(baseline, shape), shape).astype(x.dtype)

        def without(j: Array) -> Array:
            return whole - at(jnp.where(jnp.asarray(labels).reshape(shape) == j, absent, x))

        matrix = lax.map(without, jnp.arange(count), batch_size=size)  # (j, N, i)
        return Interactions(jnp.moveaxis(matrix, 0, 2), whole)

    return of_features


def _labels(groups: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    """The group of each feature, flat."""
    size = int(np.prod(shape, dtype=int))
    if groups is None:
        return np.arange(size)
    found = np.asarray(groups)
    if found.shape != shape or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"groups must be integers of the shape of one sample, {shape}, got {found.dtype} of shape "
            f"{found.shape}"
        )
    if set(np.unique(found)) != set(range(int(found.max()) + 1)):
        raise ValueError(f"groups must be 0 to G - 1, got {np.unique(found).tolist()}")
    return found.reshape(-1)


def _as_baseline(baseline: ArrayLike, shape: tuple[int, ...]) -> Array:
    found = jnp.asarray(baseline)
    if found.shape not in ((), shape):
        raise ValueError(
            f"baseline must be a number or have the shape of one sample, {shape}, got {found.shape}"
        )
    return found


def _fixed(explainer: Explainer, args: tuple, kwargs: dict, target: Target) -> Target:
    """The same target for the whole input and for parts of it."""
    if not isinstance(target, Predicted):
        return target
    return explainer(*args, target=target, fun_kwargs=kwargs).output.argmax(-1)


def _relevance(
    explainer: Explainer, args: tuple, kwargs: dict, target: Target, labels: np.ndarray
) -> Callable[[Array], Array]:
    """From the explained argument to the relevance of its groups, (N, G)."""
    place = explainer.model.argnums[0]

    def at(x: Array) -> Array:
        given = (*args[:place], x, *args[place + 1 :])
        found = explainer(*given, target=target, fun_kwargs=kwargs).relevance
        return _by_group(widen(found), labels)

    return at


def _by_group(values: Array, labels: np.ndarray) -> Array:
    flat = values.reshape(len(values), -1)
    if labels.max() + 1 == len(labels):
        return flat[:, np.argsort(labels)]
    return jax.ops.segment_sum(flat.T, labels, num_segments=int(labels.max()) + 1).T
