"""Relevance equals exact Shapley values where it must, and differs where columns interact.

`make_shap.py` made the goldens with shap. The enumeration below, in NumPy, shares no line with it.
"""

import itertools
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import tables

import shap_models
from numeric import close

pytestmark = pytest.mark.usefixtures("x64")
GOLDENS = np.load(pathlib.Path(__file__).with_name("shap.npz"))
X = GOLDENS["x"]
RTOL = 1e-6  # another library, in float64


def weights():
    prefix = "weights/"
    return {k.removeprefix(prefix): jnp.asarray(GOLDENS[k]) for k in GOLDENS if prefix in k}


def of(name):
    w = weights()
    return lambda x: shap_models.MODELS[name](w, x)


def relevance(f, x):
    return np.asarray(lrp.explain(f, lrp.composites.all_epsilon(1e-12))(jnp.asarray(x)).relevance)


def shapley(f, x):
    """phi_i = sum of |S|! (n - 1 - |S|)! / n! (f(S + i) - f(S)), S without i; absent is zero."""
    n = x.shape[1]
    value = {s: f(x * np.array(s)) for s in itertools.product([0.0, 1.0], repeat=n)}
    phi = np.zeros_like(x)
    for s, i in itertools.product(value, range(n)):
        if not s[i]:
            size = round(sum(s))
            share = math.factorial(size) * math.factorial(n - 1 - size) / math.factorial(n)
            phi[:, i] += share * (value[(*s[:i], 1.0, *s[i + 1 :])] - value[s])
    return phi


# --- against shap -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shap_models.AGREE)
def test_relevance_equals_the_exact_values_of_shap(name):
    f = of(name)
    close(relevance(f, X), GOLDENS[f"{name}/values"], rtol=RTOL)
    # what no column has is absorbed by biases, and is shap's base value, the output for zero
    close(f(X), relevance(f, X).sum(1) + GOLDENS[f"{name}/base"], rtol=RTOL)


def test_relevance_of_a_perceptron_is_related_to_the_values_of_shap_but_not_equal():
    found, exact = relevance(of("perceptron"), X), GOLDENS["perceptron/values"]
    correlation = np.corrcoef(found.ravel(), exact.ravel())[0, 1]
    assert round(correlation, 2) == 0.82


def test_the_enumeration_equals_the_exact_values_of_shap():
    f = of("perceptron")

    def in_numpy(x):
        w = {k: np.asarray(v) for k, v in weights().items()}
        return np.maximum(x @ w["hidden"] + w["hidden_bias"], 0) @ w["head"]

    close(shapley(in_numpy, X[:2]), GOLDENS["perceptron/values"][:2], rtol=RTOL)
    close(in_numpy(X), f(X))


# --- against the enumeration, with the numbers of the case ------------------------------------------

W = np.array([[2.0, -1.0, 0.5], [1.0, 3.0, -2.0], [0.5, 0.5, 1.0]])
POINTS = np.random.default_rng(0).normal(size=(4, 3))


def test_linear_and_additive_by_enumeration():
    w = jnp.asarray(W)
    close(relevance(lambda x: x @ w[0] + 5, POINTS), POINTS * W[0])
    close(shapley(lambda x: x @ W[0] + 5, POINTS), POINTS * W[0])
    close(
        relevance(lambda x: (jnp.maximum(x[:, :, None] * w, 0) @ w[1]).sum(1) - 1, POINTS),
        shapley(lambda x: (np.maximum(x[:, :, None] * W, 0) @ W[1]).sum(1) - 1, POINTS),
    )


def test_groups_of_columns_are_players_of_a_linear_model():
    w = jnp.asarray(W[0])
    of_columns = relevance(lambda x: x @ w, POINTS)
    grouped = tables.sum_groups(jnp.asarray(of_columns), {"a": [0, 2], "b": [1]})
    parts = np.array([POINTS[0, [0, 2]] @ W[0, [0, 2]], POINTS[0, 1] * W[0, 1]])
    close(grouped[:1], shapley(lambda here: here @ parts, np.ones((1, 2))))


def test_a_bias_inside_a_unit_is_where_they_differ():
    # relu(a + b - 1) at (1, 1): both are needed for an output of 1
    w, bias, ones = jnp.ones(2), jnp.array(-1.0), np.ones((1, 2))
    close(shapley(lambda x: np.maximum(x.sum(1) - 1, 0), ones), [[0.5, 0.5]])
    weight = jnp.asarray(w)
    close(relevance(lambda x: jnp.maximum(x @ weight + bias, 0), ones), [[1.0, 1.0]])


def test_three_factors_are_where_they_differ():
    # Shapley values: a third each. LRP halves each product of two: a quarter, a quarter, a half
    point = np.array([[1.0, 2.0, 3.0]])
    close(shapley(lambda x: x.prod(1), point), [[2.0, 2.0, 2.0]])
    composite = lrp.composites.by_kind("product", lrp.rules.Uniform())
    found = lrp.explain(lambda x: x[:, 0] * x[:, 1] * x[:, 2], composite)(jnp.asarray(point))
    close(found.relevance, [[1.5, 1.5, 3.0]])
