"""Penalties on explanations: terms of a loss that say where a model may look.

Each takes relevance from any explainer and returns a scalar. Explanations are differentiable, so add one to
the loss and differentiate with respect to the parameters:

    def loss(params):
        relevance = explain(params, x, target=y).relevance
        return cross_entropy(params) + weight * penalties.outside(relevance, forbidden)

Use an epsilon of at least 1e-3 in the rules: second-order gradients contain its inverse.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_one_of
from jaxlrp.numerics import widen

__all__ = ["along", "outside", "smoothness", "sparsity"]

_FLOOR = 1e-6


def outside(relevance: ArrayLike, forbidden: ArrayLike, kind: str = "ratio") -> Array:
    r"""Relevance where none should be: right for the right reasons.

    "ratio":  mean_n  sum |R| A / (sum |R| + 1e-6)
    "l1":     mean_n  sum |R| A
    "l2":     mean_n  sum R^2 A
    "cosine": mean_n  cos(|R|, A)

    with the forbidden region A. The ratio and the cosine do not change with the scale of the relevance, so
    the model cannot lower them by smaller outputs. "l2" of a gradient is the penalty of Ross et al.

    Args:
      relevance: R, (N, ...), or gradients.
      forbidden: A, booleans or weights >= 0 that broadcast to R: (N, H, W, 1), say.
      kind: "ratio", "l1", "l2" or "cosine".

    Raises:
      ValueError: if the mask does not broadcast to the relevance, or `kind` is unknown.

    References:
      Ross et al. (2017), https://doi.org/10.24963/ijcai.2017/371

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.improve import penalties
      >>> r = jnp.array([[1.0, -3.0, 0.0, 0.0]])
      >>> round(float(penalties.outside(r, jnp.array([False, True, True, True]))), 3)
      0.75
    """
    check_one_of("kind", kind, ("ratio", "l1", "l2", "cosine"))
    r, a = _samples("relevance", relevance), jnp.asarray(forbidden)
    try:
        fits = jnp.broadcast_shapes(a.shape, r.shape) == r.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"forbidden must broadcast to the relevance, of shape {r.shape}, got shape {a.shape}"
        )
    axes = tuple(range(1, r.ndim))
    a = jnp.broadcast_to(a.astype(r.dtype), r.shape)
    if kind == "l2":
        return jnp.mean(jnp.sum(r * r * a, axis=axes))
    size = jnp.abs(r)
    hit = jnp.sum(size * a, axis=axes)
    if kind == "l1":
        return jnp.mean(hit)
    if kind == "ratio":
        return jnp.mean(hit / (jnp.sum(size, axis=axes) + _FLOOR))
    # the floor is inside of the root, so that the derivative at zero relevance is finite
    lengths = jnp.sqrt(
        (jnp.sum(r * r, axis=axes) + _FLOOR**2) * (jnp.sum(a * a, axis=axes) + _FLOOR**2)
    )
    return jnp.mean(hit / lengths)


def along(gradients: ArrayLike, direction: ArrayLike, kind: str = "l2") -> Array:
    r"""How much the output changes along a concept: right-reason ClArC (RR-ClArC).

    mean_n of (g_n . v)^2, |g_n . v| or |cos(g_n, v)|

    Args:
      gradients: g, (N, *features), of the output at a hidden layer:
        `lrp.explain(f, "gradient", record=layer)(params, x, target=y).records[layer].relevance`.
      direction: v, of shape `features`, such as `pattern_cav(...)`.
      kind: "l2", "l1" or "cosine".

    Raises:
      ValueError: if shapes do not fit, or `kind` is unknown.

    References:
      Dreyer et al. (2024), https://doi.org/10.48550/arXiv.2308.09437

    Example:
      >>> from jaxlrp.improve import penalties
      >>> float(penalties.along([[3.0, 4.0], [1.0, 0.0]], [1.0, 0.0]))
      5.0
    """
    check_one_of("kind", kind, ("l2", "l1", "cosine"))
    g = _samples("gradients", gradients)
    v = jnp.asarray(direction).astype(g.dtype)
    if v.shape != g.shape[1:]:
        raise ValueError(
            f"direction must have the shape of one gradient, {g.shape[1:]}, got {v.shape}"
        )
    product = jnp.tensordot(g, v, v.ndim)
    if kind == "l2":
        return jnp.mean(product**2)
    if kind == "l1":
        return jnp.mean(jnp.abs(product))
    lengths = jnp.sqrt((jnp.sum(g * g, axis=tuple(range(1, g.ndim))) + _FLOOR**2) * jnp.sum(v * v))
    return jnp.mean(jnp.abs(product) / lengths)


def sparsity(relevance: ArrayLike) -> Array:
    """Prefers few features: mean_n of sum |R| / (sqrt(size) |R|_2), from 1 / sqrt(size) to 1.

    Args:
      relevance: R, (N, ...).

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.improve import penalties
      >>> round(float(penalties.sparsity(jnp.array([[0.0, 2.0, 0.0, 0.0]]))), 3)
      0.5
    """
    r = _samples("relevance", relevance)
    axes = tuple(range(1, r.ndim))
    length = jnp.sqrt(jnp.sum(r * r, axis=axes) + _FLOOR**2)
    return jnp.mean(jnp.sum(jnp.abs(r), axis=axes) / (length * r[0].size ** 0.5))


def smoothness(relevance: ArrayLike, axes: tuple[int, ...]) -> Array:
    """Prefers neighbors alike: total variation in units of the relevance's magnitude.

    mean_n of (sum over axes of |R_(p+1) - R_p|) / (sum |R| + 1e-6)

    Args:
      relevance: R, (N, ...).
      axes: the axes along which neighbors lie, such as (1, 2) of an image.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.improve import penalties
      >>> round(float(penalties.smoothness(jnp.array([[1.0, 1.0, 3.0]]), (1,))), 3)
      0.4
    """
    r = _samples("relevance", relevance)
    wrong = [axis for axis in axes if not 1 <= axis < r.ndim]
    if wrong or not axes:
        raise ValueError(
            f"axes must be axes of the relevance after the first, 1 to {r.ndim - 1}, got {tuple(axes)}"
        )
    rest = tuple(range(1, r.ndim))
    steps = [jnp.sum(jnp.abs(jnp.diff(r, axis=axis)), axis=rest) for axis in axes]
    return jnp.mean(sum(steps[1:], steps[0]) / (jnp.sum(jnp.abs(r), axis=rest) + _FLOOR))


def _samples(name: str, values: ArrayLike) -> Array:
    values = jnp.asarray(values)
    if values.ndim < 2:
        raise ValueError(f"{name} must have shape (N, ...), samples first, got {values.shape}")
    if not _compat.is_traced(values) and not len(values):
        raise ValueError(f"{name} must contain at least one sample")
    return widen(values)
