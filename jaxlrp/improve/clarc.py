"""Class artifact compensation (ClArC): a concept is taken out of a hidden layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_one_of
from jaxlrp._described import described
from jaxlrp.explanation.editing import edit
from jaxlrp.network.model import Function, model_of

Change = Callable[[Array], Array]


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """A change of a layer that moves it along some directions to a reference: what `project` returns.

    A pytree, and a function of the layer's output. `save_correction` writes it to a file.

    Attributes:
      directions: (k, *features).
      reference: of shape `features`.
      pool: None, "max" or "mean", as in `project`.
    """

    directions: Array
    reference: Array
    pool: str | None = dataclasses.field(default=None, metadata={"static": True})

    def __call__(self, h: Array) -> Array:
        v = self.directions.reshape(len(self.directions), -1).astype(h.dtype)
        z = self.reference.astype(h.dtype)
        seen = h if self.pool is None else _pooled(h, self.pool)
        if seen.shape[1:] != z.shape:
            raise ValueError(
                f"directions must have the shape {seen.shape[1:]} of "
                f"{'the layer' if self.pool is None else 'its channels'}, without the batch, got {z.shape}"
            )
        missing = (z - seen).reshape(len(seen), -1) @ v.T
        step = jnp.linalg.solve(v @ v.T, missing.T).T @ v
        return h + step.reshape(len(seen), *([1] * (h.ndim - seen.ndim)), *z.shape)


def project(
    directions: ArrayLike | Sequence[ArrayLike], reference: ArrayLike, *, pool: str | None = None
) -> Projection:
    r"""A change of a layer that moves it along some directions to a reference, for `lrp.edit`.

    h' = h - P (h - z),   P = V (V^T V)^-1 V^T

    All samples get the same amount of the concept: that of the reference z. With z of clean samples this is
    projective ClArC, which needs no training. With z of samples with the artifact it is augmentive ClArC:
    apply it while the layers above are trained, so that the artifact tells them nothing.

    Args:
      directions: v, an array of shape `features`, such as a CAV; or a list of several.
      reference: z, of shape `features`, the mean of the layer over reference samples.
      pool: None: `features` are all axes of the layer but the first, the batch. "max" or "mean": they
        are the last axis alone, the channels; the amount is that of the pooled positions, and every
        position moves alike.

    Returns:
      A `Projection`: a function of the layer's output that returns one of the same shape.

    Raises:
      ValueError: if shapes do not fit, or the directions are zero or depend on each other.

    References:
      Anders et al. (2022), https://doi.org/10.1016/j.inffus.2021.07.015; several artifacts: Bareeva et al.
      (2024), https://doi.org/10.48550/arXiv.2404.09601

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import improve
      >>> f = lambda x: jax.nn.relu(x).sum(-1)
      >>> without = lrp.edit(f, {"relu": improve.project([0.0, 1.0], jnp.array([0.0, 0.5]))})
      >>> without(jnp.array([[1.0, 9.0], [2.0, 0.0]])).tolist()
      [1.5, 2.5]
    """
    if pool is not None:
        check_one_of("pool", pool, ("max", "mean"))
    listed: list[Any] = [directions]
    if isinstance(directions, (list, tuple)) and any(jnp.ndim(v) for v in directions):
        listed = list(directions)
    stacked, z = jnp.stack([jnp.asarray(v) for v in listed]), jnp.asarray(reference)
    if stacked.shape[1:] != z.shape:
        raise ValueError(
            f"directions and reference must have the same shape, got {stacked.shape[1:]} and {z.shape}"
        )
    flat = stacked.reshape(len(stacked), -1)
    gram = flat @ flat.T
    if not _compat.is_traced(gram) and int(jnp.linalg.matrix_rank(gram)) < len(flat):
        raise ValueError(
            "directions must not be zero or depend on each other: the amount along them is not defined"
        )

    return Projection(stacked, z, pool)


def _pooled(h: Array, pool: str) -> Array:
    axes = tuple(range(1, h.ndim - 1))
    return h.max(axis=axes) if pool == "max" else h.mean(axis=axes)


def where_active(detector: Callable[[Array], Array], change: Change) -> Change:
    """A change of a layer for the samples in which a concept is present, for `lrp.edit`.

    Args:
      detector: from the layer's output to (batch,) booleans, True where the concept is present.
      change: of the layer's output, such as `project(...)`.

    Returns:
      A function of the layer's output: `change` where the detector is True, the output itself elsewhere.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> change = improve.where_active(lambda h: h[:, 0] > 1, lambda h: 0 * h)
      >>> change(jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [[1.0, 2.0], [0.0, 0.0]]
    """

    def changed(h: Array) -> Array:
        fires = _per_sample("detector", detector(h), len(h))
        return jnp.where(fires.reshape(-1, *[1] * (h.ndim - 1)), change(h), h)

    return changed


def reactive(
    fun: Function,
    edits: Mapping[str, Change],
    when: Callable[[Any], Array] | Sequence[int],
    *,
    argnums: int | Sequence[int] | None = None,
) -> Callable[..., Any]:
    """Corrects only the samples for which it is needed (reactive ClArC).

    Two forward passes: the prediction of the function itself decides which samples get the prediction of
    the corrected one. `where_active` decides by a hidden layer, in one pass.

    Args:
      fun, argnums: as in `lrp.edit`.
      edits: the correction, as in `lrp.edit`: `{"layer": improve.project(v, z)}`.
      when: the predicted classes that are corrected, as integers; or a function from the output to (batch,)
        booleans.

    Returns:
      A function of the arguments of `fun`.

    Raises:
      TypeError, ValueError: if an argument is invalid.

    References:
      Bareeva et al. (2024), https://doi.org/10.48550/arXiv.2404.09601

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> f = lambda x: jax.nn.relu(x)
      >>> corrected = improve.reactive(f, {"relu": lambda h: h.at[:, 1].set(0)}, when=[1])
      >>> corrected(jnp.array([[5.0, 1.0], [1.0, 5.0]])).tolist()
      [[5.0, 1.0], [1.0, 0.0]]
    """
    if not callable(when) and (isinstance(when, str) or not all(isinstance(c, int) for c in when)):
        raise TypeError(
            f"when must be class indices such as [3, 5], or a function of the output, got {when!r}"
        )
    corrected, plain = edit(fun, edits, argnums=argnums), model_of(fun, argnums, False).call

    def fires(output: Any) -> Array:
        if callable(when):
            return when(output)
        return jnp.isin(jnp.argmax(output, axis=-1), jnp.asarray(list(when)))

    def function(*args: Any, **kwargs: Any) -> Any:
        output, other = plain(*args, **kwargs), corrected(*args, **kwargs)
        chosen = fires(output)

        def one(old: Array, new: Array) -> Array:
            mask = _per_sample("when", chosen, len(old))
            return jnp.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.tree.map(one, output, other)

    return function


def _per_sample(name: str, fires: Any, n: int) -> Array:
    fires = jnp.asarray(fires)
    if fires.shape != (n,) or fires.dtype != bool:
        raise ValueError(
            f"{name} must give booleans of shape ({n},), one for each sample, got shape {fires.shape} and "
            f"dtype {fires.dtype}"
        )
    return fires
