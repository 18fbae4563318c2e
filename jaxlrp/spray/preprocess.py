"""Preprocessing of relevance into points: pure functions of batches, applied in sequence.

Each function takes and returns a batch (n, ...) with samples first. Samples are compared by where their
relevance is, not by how much there is. The last step therefore divides by the sum of magnitudes. The signed
sum is not suitable, because it may be negative or close to zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count, check_sequence
from jaxlrp.numerics import widen

Step = Callable[[Array], Array]


def absolute(relevance: Array) -> Array:
    """The magnitude: treats evidence for and against alike.

    Args:
      relevance: real, any shape.

    Returns:
      The same shape and dtype.

    Example:
      >>> absolute(jnp.array([[-1.0, 2.0]])).tolist()
      [[1.0, 2.0]]
    """
    return jnp.abs(relevance)


def sum_channels(relevance: Array, *, axis: int = -1) -> Array:
    """The relevance of each pixel, sample or token: the signed sum over channels.

    Args:
      relevance: (n, ...), with channels along `axis`.
      axis: of the channels: -1 for (n, H, W, C) or token embeddings (n, T, D), 1 for (n, C, H, W).

    Returns:
      (n, ...), without that axis; 16-bit floats become float32.

    Raises:
      ValueError: if `axis` is the axis of samples or does not exist.

    Example:
      >>> sum_channels(jnp.array([[[1.0, 2.0, -4.0]]])).tolist()
      [[-1.0]]
    """
    known = isinstance(axis, int | np.integer) and -relevance.ndim <= axis < relevance.ndim
    if not known or axis % relevance.ndim == 0:
        raise ValueError(
            "axis must be the axis of the channels, an integer other than that of the samples (0), for "
            f"relevance of shape {relevance.shape}, got {axis!r}"
        )
    return widen(relevance).sum(axis=axis)


def l1_normalize(relevance: Array) -> Array:
    """Divides each sample by the sum of its magnitudes.

    Args:
      relevance: (n, ...), real.

    Returns:
      The same shape. A sample of zeros stays zero. 16-bit floats become float32.

    Example:
      >>> l1_normalize(jnp.array([[1.0, -3.0], [0.0, 0.0]])).tolist()
      [[0.25, -0.75], [0.0, 0.0]]
    """
    r = widen(relevance)
    axes = tuple(range(1, r.ndim))
    # Divide by the largest magnitude first: the sum of tiny values could underflow, of huge ones overflow.
    largest = jnp.abs(r).max(axis=axes, keepdims=True)
    r = r / jnp.where(largest > 0, largest, 1)
    total = jnp.abs(r).sum(axis=axes, keepdims=True)
    return r / jnp.where(total > 0, total, 1)


def pool(relevance: Array, window: int | Sequence[int]) -> Array:
    """Sums over non-overlapping windows. The total of each sample does not change.

    Args:
      relevance: (n, ...), real.
      window: window lengths along all axes except the first, >= 1; one number for all axes. The last window
        of an axis may be smaller. Sum over channels first, or give them a window of 1.

    Returns:
      (n, ...), each axis divided by its window and rounded up. 16-bit floats become float32.

    Raises:
      ValueError: if a window is not an integer >= 1, or their number is wrong.

    Example:
      >>> pool(jnp.array([[1.0, 2.0, -3.0]]), 2).tolist()
      [[3.0, -3.0]]
    """
    r = widen(relevance)
    if not isinstance(window, int | np.integer):
        check_sequence("window", window, "(2, 2), or an integer")
    windows = [window] * (r.ndim - 1) if isinstance(window, int | np.integer) else list(window)
    if len(windows) != r.ndim - 1:
        raise ValueError(
            f"window must have one entry for each of the {r.ndim - 1} axes after the samples, "
            f"got {window}"
        )
    for axis, w in enumerate(windows, start=1):
        check_count("window", w)
        filling = [(0, 0)] * r.ndim
        filling[axis] = (0, -r.shape[axis] % w)
        r = jnp.pad(r, filling)
        r = r.reshape(*r.shape[:axis], -1, w, *r.shape[axis + 1 :]).sum(axis=axis + 1)
    return r


def resize(relevance: Array, shape: Sequence[int]) -> Array:
    """Resizes each sample linearly with antialiasing. Values are means, so normalize afterwards.

    Args:
      relevance: (n, ...), real.
      shape: new lengths of the axes after the samples, >= 1.

    Returns:
      (n, *shape). 16-bit floats become float32.

    Raises:
      ValueError: if `shape` has the wrong number of entries.

    Example:
      >>> resize(jnp.array([[1.0, 1.0, 3.0, 3.0]]), (2,)).shape
      (1, 2)
    """
    r = widen(relevance)
    check_sequence("shape", shape, "(16, 16)")
    shape = tuple(check_count("shape", n) for n in shape)
    if len(shape) != r.ndim - 1:
        raise ValueError(
            f"shape must have one entry for each of the {r.ndim - 1} axes after the samples, got {shape}"
        )
    return jax.image.resize(r, (r.shape[0], *shape), "linear")


@dataclasses.dataclass(frozen=True)
class Composition:
    """Functions of a batch that are applied in order; made by `compose`.

    Attributes:
      steps: the functions.
    """

    steps: tuple[Step, ...]

    def __call__(self, relevance: Array) -> Array:
        for step in self.steps:
            relevance = step(relevance)
        return relevance


def compose(*steps: Step) -> Composition:
    """Combines several steps into one function; the first step runs first.

    Args:
      *steps: functions of a batch (n, ...) that `jax.jit` can trace: functions of this module, possibly
        with some arguments fixed by `functools.partial`, or your own.

    Returns:
      A function of a batch.

    Raises:
      TypeError: if a step cannot be called.

    Example:
      >>> from functools import partial
      >>> preprocess = compose(sum_channels, absolute, partial(pool, window=2), l1_normalize)
      >>> preprocess(jnp.ones((1, 4, 4, 3))).tolist()
      [[[0.25, 0.25], [0.25, 0.25]]]
    """
    for step in steps:
        if not callable(step):
            raise TypeError(f"steps must be functions from a batch to a batch, got {step!r}")
    return Composition(steps)
