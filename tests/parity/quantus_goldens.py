"""What the tests of parity with Quantus share: its scores, the networks in JAX, random scores."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import quantus_model as net

with np.load(pathlib.Path(__file__).with_name("quantus.npz")) as _file:
    GOLDENS = dict(_file)
RTOL = 1e-6  # both sides compute in float64
REPEATS = 100  # draws of a random score
EXPLANATIONS = sorted(net.EXPLANATIONS)

each_explanation = pytest.mark.parametrize("explanation", EXPLANATIONS)


class Problem:
    """A network and its explanations in JAX, and the goldens of one explanation."""

    def __init__(self, problem: str, explanation: str) -> None:
        self._prefix = problem, explanation
        self.weights = net.Weights(*(self.of_problem(name) for name in net.Weights._fields))
        self.x, self.y = self.of_problem("x"), self.of_problem("y")
        self.mask, self.a = self.of_problem("mask"), self["a"]
        self.channels = -1 if self.x.shape[-1] > 1 else None
        self._explain = net.EXPLANATIONS[explanation]

    def __getitem__(self, name: str) -> np.ndarray:
        return GOLDENS["/".join((*self._prefix, name))]

    def of_problem(self, name: str) -> np.ndarray:
        return GOLDENS[f"{self._prefix[0]}/{name}"]

    def predict(self, x: jax.Array) -> jax.Array:
        return net.logits(jnp, self.weights, x)

    def explain(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return self._explain(jnp, self.weights, x, y)

    def explain_with(self, weights: net.Weights, x: jax.Array, y: jax.Array) -> jax.Array:
        return self._explain(jnp, weights, x, y)

    def logit(self, x: np.ndarray) -> np.ndarray:
        return net.logits(np, self.weights, x)[np.arange(len(x)), self.y]

    def probability(self, x: np.ndarray) -> np.ndarray:
        z = np.exp(net.logits(np, self.weights, x))
        return z[np.arange(len(x)), self.y] / z.sum(axis=1)

    def faithfulness(self, metric: Any, **kwargs: Any) -> jax.Array:
        return metric(self.predict, self.x, self.a, self.y, **kwargs)


@functools.cache
def digits(explanation: str) -> Problem:
    return Problem("digits", explanation)


@functools.cache
def color(explanation: str) -> Problem:
    return Problem("color", explanation)


PROBLEMS = [
    pytest.param(of(e), id=f"{of.__name__}-{e}") for of in (digits, color) for e in EXPLANATIONS
]
each_problem = pytest.mark.parametrize("p", PROBLEMS)


def same_distribution(
    of: Callable[..., jax.Array], mean: np.ndarray, error: np.ndarray, n: int
) -> None:
    """Whether scores of repeated samples have the mean of Quantus.

    Args:
      of: from indices of samples, (n * REPEATS,), to scores of each.
      mean, error: of Quantus, (n,).
    """
    found = np.asarray(of(np.tile(np.arange(n), REPEATS))).reshape(REPEATS, n)
    assert np.isfinite(found).all()
    both = np.hypot(found.std(axis=0, ddof=1) / REPEATS**0.5, error)
    z = np.abs(found.mean(axis=0) - mean) / both
    assert z.max() < 4, z
    assert (both < 0.1 * np.abs(mean) + 0.1).all()  # otherwise anything would agree
