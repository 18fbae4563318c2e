"""Concept activation vectors: the direction of a concept in a hidden layer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_one_of
from jaxlrp._extras import need
from jaxlrp.numerics import widen


def pattern_cav(values: ArrayLike, labels: ArrayLike) -> Array:
    r"""The direction in which a layer's values change with the concept: the signal pattern.

    v = w / |w|,   w = sum_n (a_n - mean a) (t_n - mean t) / sum_n (t_n - mean t)^2

    the regression of the values on the label. For labels of two values it is the difference of the two
    means. Unlike the weights of a classifier (`linear_cav`), it does not depend on noise that is shared by
    both groups. It is a closed form and may be traced.

    Args:
      values: (N, *features), activations of a layer, or their relevance. Pool positions first for a
        direction of channels.
      labels: (N,), the presence of the concept, booleans or numbers.

    Returns:
      A vector of length 1 of shape `features`.

    Raises:
      ValueError: if shapes do not fit, all labels are equal, or the values do not change with them.

    References:
      Pahde et al. (2025), "Navigating Neural Space: Revisiting Concept Activation Vectors to Overcome
      Directional Divergence", https://doi.org/10.48550/arXiv.2202.03482

    Example:
      >>> from jaxlrp import improve
      >>> values = [[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]]
      >>> improve.pattern_cav(values, [0, 0, 1, 1]).tolist()
      [1.0, 0.0]
    """
    values, labels = _pairs(values, labels)
    t = labels.astype(values.dtype) - labels.astype(values.dtype).mean()
    w = jnp.tensordot(t, values - values.mean(axis=0), 1) / jnp.sum(t * t)
    return _unit(w, "values do not change with the labels")


_KINDS = ("logistic", "ridge", "svm")


def linear_cav(
    values: ArrayLike, labels: ArrayLike, kind: str = "logistic", *, strength: float = 1.0
) -> Array:
    """The weights of a linear classifier of the concept, the classical concept activation vector.

    Classes are weighted to count the same. Needs scikit-learn (the extra `spray`).

    Args:
      values: (N, *features), as for `pattern_cav`.
      labels: (N,), booleans, or numbers of two values.
      kind: "logistic", "ridge" or "svm" (a linear one).
      strength: of the regularization, > 0: the weight of |w|^2 for "ridge", its inverse is scikit-learn's C
        for the others.

    Returns:
      A vector of length 1 of shape `features`, toward the larger label.

    Raises:
      ValueError: if an argument is invalid, or labels have other than two values.
      ImportError: if scikit-learn is missing.

    References:
      Kim et al. (2018), https://doi.org/10.48550/arXiv.1711.11279
    """
    check_one_of("kind", kind, _KINDS)
    if not strength > 0:
        raise ValueError(f"strength must be > 0, got {strength}")
    given, t = map(np.asarray, _pairs(values, labels))
    if len(np.unique(t)) != 2:
        raise ValueError(f"labels must have two values, got {np.unique(t)[:5].tolist()}")
    linear_model = need("sklearn.linear_model", "linear_cav", "spray")
    svm = need("sklearn.svm", "linear_cav", "spray")
    made: dict[str, Any] = {
        "logistic": lambda: linear_model.LogisticRegression(
            C=1 / strength, class_weight="balanced", max_iter=10_000
        ),
        "ridge": lambda: linear_model.RidgeClassifier(alpha=strength, class_weight="balanced"),
        "svm": lambda: svm.LinearSVC(C=1 / strength, class_weight="balanced", max_iter=100_000),
    }
    fitted = made[kind]().fit(given.reshape(len(given), -1), t)
    w = jnp.asarray(np.ravel(fitted.coef_), dtype=given.dtype).reshape(given.shape[1:])
    return _unit(w, "the classifier found no direction")


def tcav(gradients: ArrayLike, direction: ArrayLike) -> Array:
    """How often a small step along the concept raises the output: mean of [v . gradient > 0].

    Args:
      gradients: (N, *features), of the output that is explained, at the layer of the direction:
        `lrp.explain(f, "gradient", record=layer)(x, target=y).records[layer].relevance`.
      direction: v, of shape `features`.

    Returns:
      A number from 0 to 1; 0.5 is expected of a direction that does not matter.

    References:
      Kim et al. (2018), https://doi.org/10.48550/arXiv.1711.11279

    Example:
      >>> from jaxlrp import improve
      >>> float(improve.tcav([[1.0, 0.0], [2.0, 5.0], [-1.0, 1.0], [3.0, 0.0]], [1.0, 0.0]))
      0.75
    """
    gradients = widen(jnp.asarray(gradients))
    direction = jnp.asarray(direction).astype(gradients.dtype)
    if gradients.shape[1:] != direction.shape:
        raise ValueError(
            f"direction must have the shape of one gradient, {gradients.shape[1:]}, got {direction.shape}"
        )
    along = jnp.tensordot(gradients, direction, direction.ndim)
    return jnp.mean(along > 0)


def _pairs(values: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Values and labels as arrays, checked."""
    values, labels = widen(jnp.asarray(values)), jnp.asarray(labels)
    if values.ndim < 2:
        raise ValueError(f"values must have shape (N, *features), got {values.shape}")
    if labels.shape != values.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(values)},), one for each of the values, got {labels.shape}"
        )
    if not (_compat.is_traced(values) or _compat.is_traced(labels)):
        if not bool(jnp.isfinite(values).all()):
            raise ValueError("values must be finite, but some are NaN or infinite")
        if bool((labels == labels[0]).all()):
            raise ValueError(
                f"labels must have at least two values, but all are {labels[0]}: samples without the "
                "concept are needed as well"
            )
    return values, labels


def _unit(w: Array, otherwise: str) -> Array:
    length = jnp.sqrt(jnp.sum(w * w))
    if not _compat.is_traced(length) and not float(length) > 0:
        raise ValueError(otherwise)
    return w / length
