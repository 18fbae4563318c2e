"""Is an attribution to training samples right? Pure functions of the attribution matrix tau (T, N).

All follow one sign: larger = supports. All return a scalar, and NaN where there is nothing to measure; each
says when.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics.statistics import mean_ranks, spearman
from jaxlrp.numerics import wide
from jaxlrp.training_data import given

__all__ = [
    "class_detection",
    "linear_datamodeling_score",
    "mislabeling_detection",
    "mixed_data_sets",
    "random_subsets",
    "randomization",
    "shortcut_detection",
    "subclass_detection",
    "top_k_cardinality",
]


def class_detection(tau: ArrayLike, labels: ArrayLike, targets: ArrayLike) -> Array:
    """The share of explained samples whose most supporting training sample has the explained class.

    From 0 to 1; higher is better. A random attribution has the frequency of the class.

    Args:
      tau: (T, N).
      labels: of training samples, integers (N,).
      targets: the explained classes, such as predictions, integers (T,).

    Example:
      >>> class_detection([[0.9, 0.1], [0.2, 0.8]], [0, 1], [0, 0]).item()
      0.5
    """
    tau = _matrix(tau)
    y = given.as_labels("labels", labels, tau.shape[1])
    c = given.as_labels("targets", targets, len(tau))
    return _mean(jnp.asarray(y)[tau.argmax(1)] == c, tau)


def subclass_detection(tau: ArrayLike, subclasses: ArrayLike, test_subclasses: ArrayLike) -> Array:
    """`class_detection` with classes that the network, trained on groups of them, was not told.

    From 0 to 1; higher is better. A random attribution has the frequency of the subclass.

    Args:
      tau: (T, N), of a network trained on groups.
      subclasses: the original labels of training samples, integers (N,).
      test_subclasses: those of explained samples, integers (T,).
    """
    return class_detection(tau, subclasses, test_subclasses)


def mislabeling_detection(self_influence: ArrayLike, mislabeled: ArrayLike) -> Array:
    """How early mislabeled samples are found if samples are looked through by falling self-influence.

    The area below the share that has been found as a function of the share that has been looked through:
    from k / 2N to 1 - k / 2N for k mislabeled of N samples; higher is better, chance is .5. Samples of
    equal self-influence are in random order. NaN if no sample is mislabeled.

    Args:
      self_influence: (N,): what a training sample adds to its own score.
      mislabeled: booleans (N,).

    Example:
      >>> mislabeling_detection([3.0, 1.0, 2.0, 0.0], [True, False, False, False]).item()
      0.875
    """
    values = _finite("self_influence", jnp.asarray(self_influence), 1, "(N,)")
    found = _booleans("mislabeled", mislabeled, len(values))
    if not found.any():
        return jnp.asarray(jnp.nan, values.dtype)
    ranks = mean_ranks(-values)
    return 1 - (ranks[found].mean() - 0.5) / len(values)


def shortcut_detection(tau: ArrayLike, stamped: ArrayLike, where: ArrayLike | None = None) -> Array:
    """Whether training samples with a shortcut, such as a stamp, support predictions because of it.

    The mean over explained samples of the area under precision and recall of tau as a score for
    `stamped`. Up to 1; higher is better, chance is the share of stamped training samples.

    Args:
      tau: (T, N).
      stamped: booleans (N,): training samples with the shortcut.
      where: booleans (T,): explained samples that have the shortcut, are not of its class, and are
        predicted as it. None for all.

    Returns:
      The mean. NaN if `where` is true nowhere (the network took no shortcut), or no training sample is
      stamped.

    Example:
      >>> shortcut_detection([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [True, False, False], [True, False]).item()
      1.0
      >>> shortcut_detection([[3.0, 1.0, 2.0]], [True, False, False], [False]).item()
      nan
    """
    tau = _matrix(tau)
    positive = _booleans("stamped", stamped, tau.shape[1])
    valid = np.ones(len(tau), bool) if where is None else _booleans("where", where, len(tau))
    if not valid.any() or not positive.any():
        return jnp.asarray(jnp.nan, tau.dtype)
    return jax.lax.map(lambda row: _precision(row, jnp.asarray(positive)), tau[valid]).mean()


def mixed_data_sets(
    tau: ArrayLike, adversarial: ArrayLike, where: ArrayLike | None = None
) -> Array:
    """Whether predictions for samples of a foreign data set are traced to its training samples.

    As `shortcut_detection`: the mean area under precision and recall, for training samples that come from
    another data set, all with one label.

    Args:
      tau: (T, N).
      adversarial: booleans (N,): training samples of the other data set.
      where: booleans (T,): explained samples of the other data set that are predicted as that label. None
        for all.

    Returns:
      Up to 1; higher is better, chance is the share of adversarial samples. NaN as in `shortcut_detection`.
    """
    return shortcut_detection(tau, adversarial, where)


def randomization(tau: ArrayLike, tau_of_random: ArrayLike) -> Array:
    """How much an attribution depends on what the network has learned.

    The mean over explained samples of the rank correlation with the attribution of a network of random
    parameters: from -1 to 1; near 0 is better.

    Args:
      tau: (T, N).
      tau_of_random: (T, N), of the same network with parameters as before training.

    Returns:
      The mean over samples where it is defined; NaN if it is nowhere, because tau is constant.
    """
    tau, other = _matrix(tau), _matrix(tau_of_random)
    if tau.shape != other.shape:
        raise ValueError(
            f"tau_of_random must have the shape of tau, {tau.shape}, got {other.shape}"
        )
    return jnp.nanmean(spearman(tau, other.astype(tau.dtype)))


def top_k_cardinality(tau: ArrayLike, k: int = 5) -> Array:
    """How many training samples are among the k most supporting ones of any sample, over T k.

    From 1 / T to 1; higher is better: attributions should depend on what is explained. Random numbers have
    a high value as well, so that it says nothing alone.

    Args:
      tau: (T, N).
      k: at most N.

    Example:
      >>> top_k_cardinality([[3.0, 2.0, 1.0], [2.0, 1.0, 0.0]], k=2).item()
      0.5
    """
    tau = _matrix(tau)
    if check_count("k", k) > tau.shape[1]:
        raise ValueError(
            f"k must be at most the number of training samples, {tau.shape[1]}, got {k}"
        )
    top = jax.lax.top_k(tau, k)[1]
    return jnp.asarray(len(np.unique(np.asarray(top))) / top.size, tau.dtype)


def linear_datamodeling_score(tau: ArrayLike, subsets: ArrayLike, outputs: ArrayLike) -> Array:
    r"""Whether sums of attributions predict what networks trained on subsets output (LDS).

    mean_t Spearman_S(sum_{i in S} tau_ti, output_t of the network trained on S)

    From -1 to 1; higher is better, chance is 0.

    Args:
      tau: (T, N).
      subsets: booleans (S, N), such as from `random_subsets`.
      outputs: (S, T): what tau explains, such as log p of the label, after training on each subset.

    Returns:
      The mean over samples where it is defined; NaN if it is nowhere, because sums or outputs are constant.

    References:
      Park et al. (2023), "TRAK: Attributing Model Behavior at Scale", https://arxiv.org/abs/2303.14186
    """
    tau = _matrix(tau)
    inside = np.asarray(subsets)
    if (
        inside.ndim != 2
        or inside.shape[1] != tau.shape[1]
        or inside.dtype != bool
        or len(inside) < 2
    ):
        raise ValueError(
            f"subsets must be booleans of shape (S, {tau.shape[1]}), two at the least, got "
            f"{inside.dtype} of shape {inside.shape}"
        )
    found = _matrix(outputs, "outputs", "(S, T)")
    if found.shape != (len(inside), len(tau)):
        raise ValueError(f"outputs must have shape {(len(inside), len(tau))}, got {found.shape}")
    sums = jnp.matmul(tau, jnp.asarray(inside.T, tau.dtype), precision="highest")
    return jnp.nanmean(spearman(sums, found.T.astype(tau.dtype)))


def random_subsets(key: Array, count: int, size: int, fraction: float = 0.5) -> np.ndarray:
    """Random subsets of training samples, all of one size, for `linear_datamodeling_score`.

    Args:
      key: random key.
      count: how many subsets.
      size: number of training samples.
      fraction: of the samples in each subset, between 0 and 1.

    Returns:
      Booleans (count, size).

    Example:
      >>> import jax
      >>> random_subsets(jax.random.key(0), 3, 10).sum(1).tolist()
      [5, 5, 5]
    """
    check_count("count", count)
    if not 0 < float(fraction) < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction!r}")
    kept = max(1, round(fraction * check_count("size", size)))
    order = jax.random.uniform(key, (count, size)).argsort(1).argsort(1)
    return np.asarray(order < kept)


def _precision(scores: Array, positive: Array) -> Array:
    """Average precision; equal scores are one threshold."""

    def above(values: Array) -> Array:
        """How many of the values are at least as large as each score."""
        held = jnp.sort(jnp.where(jnp.isnan(values), -jnp.inf, values))
        return len(held) - jnp.searchsorted(held, scores, side="left")

    hits = above(jnp.where(positive, scores, jnp.nan))
    precision = hits.astype(scores.dtype) / above(scores).astype(scores.dtype)
    return precision.mean(where=positive)


def _mean(correct: Array, tau: Array) -> Array:
    return correct.astype(tau.dtype).mean()


def _matrix(value: Any, name: str = "tau", shape: str = "(T, N)") -> Array:
    return _finite(name, jnp.asarray(value), 2, shape)


def _finite(name: str, array: Array, ndim: int, shape: str) -> Array:
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    array = array.astype(wide(array.dtype))
    if not bool(jnp.isfinite(array).all()):
        raise ValueError(
            f"{name} must be finite, got {int((~jnp.isfinite(array)).sum())} NaN or inf"
        )
    return array


def _booleans(name: str, value: Any, count: int) -> np.ndarray:
    found = np.asarray(value)
    if found.shape != (count,) or found.dtype != bool:
        raise ValueError(
            f"{name} must be booleans of shape ({count},), got {found.dtype} of shape {found.shape}"
        )
    return found
