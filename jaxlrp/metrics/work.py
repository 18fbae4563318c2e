"""Evaluating a model at many perturbed inputs, a bounded number at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.numerics import widen

Score = Literal["probability", "logit"]


def in_batches(fun: Callable[[Any], Any], items: Any, batch_size: int | None) -> Any:
    """`fun` of all items, at most `batch_size` at once.

    Args:
      fun: from a pytree of items, (b, ...) each, to a pytree of results, (b, ...) each. The result of an
        item must not depend on the others.
      items: pytree of arrays (N, ...).
      batch_size: how many are in memory at once, >= 1; None for all.

    Returns:
      The results, (N, ...).
    """
    n = len(jax.tree.leaves(items)[0])
    size = n if batch_size is None else min(check_count("batch_size", batch_size), n)
    if size == n:
        return fun(items)
    count = math.ceil(n / size)
    # The last batch is filled up with its own first items: their results are computed and dropped.
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[: count * size - n]]), items)
    split = jax.tree.map(lambda a: a.reshape(count, size, *a.shape[1:]), padded)
    found = lax.map(fun, split)
    return jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:])[:n], found)


def in_equal_batches(fun: Callable[[Any], Any], items: Any, batch_size: int | None) -> Any:
    """The same, in batches of about the same length, so that the last one is not filled up by much."""
    n = len(jax.tree.leaves(items)[0])
    count = 1 if batch_size is None else math.ceil(n / check_count("batch_size", batch_size))
    return in_batches(fun, items, math.ceil(n / count))


def over_draws(
    fun: Callable[[Array, Array], Any], n: int, draws: int, batch_size: int | None
) -> Any:
    """`fun(sample, draw)` for every pair of a sample and a draw, at most `batch_size` pairs at once.

    Args:
      fun: from indices (b,), (b,) to a pytree of results (b, ...).
      n, draws: how many samples and how many draws (steps, perturbations) of each.
      batch_size: how many pairs are in memory at once; None for all.

    Returns:
      The results, (n, draws, ...).
    """
    # All samples of one draw stand together: steps of removal that are as hard as each other.
    pairs = jnp.arange(n * draws)
    found = in_batches(lambda i: fun(i % n, i // n), pairs, batch_size)
    return jax.tree.map(lambda a: a.reshape(draws, n, *a.shape[1:]).swapaxes(0, 1), found)


def class_scores(outputs: Array, targets: Array | None, score: Score) -> Array:
    """The score of the target, (b,): its logit or its probability.

    Args:
      outputs: (b, classes), or one number each: (b,) or (b, 1).
      targets: (b,), None for one output.
      score: "probability" applies softmax to the outputs, which must be logits then.

    Raises:
      ValueError: if a probability of one output is asked for.
    """
    outputs = widen(outputs)
    if score == "probability" and (targets is None or outputs.shape[1] == 1):
        raise ValueError(
            "predict returns one number for each sample, which has no probability: use score='logit'"
        )
    if targets is None:
        return outputs.reshape(len(outputs))
    if score == "probability":
        outputs = jax.nn.softmax(outputs, axis=-1)
    return jnp.take_along_axis(outputs, targets[:, None], axis=1)[:, 0]
