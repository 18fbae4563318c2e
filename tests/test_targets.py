"""Targets: what relevance begins with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import targets

Z = jnp.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])
explain = lrp.explain(lambda x: x)


def begins(target, z=Z):
    return explain(z, target=target).relevance


def test_class_index_begins_as_that_logit():
    np.testing.assert_array_equal(begins(1), [[0, -2, 0], [0, 4, 0]])
    np.testing.assert_array_equal(begins(jnp.array([2, 0])), [[0, 0, 3], [0.5, 0, 0]])
    np.testing.assert_array_equal(begins(np.int64(0)), [[1, 0, 0], [0.5, 0, 0]])


def test_arrays_and_functions_are_relevances():
    one_hot = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    np.testing.assert_allclose(begins(one_hot), one_hot, rtol=1e-6)
    np.testing.assert_allclose(begins(lambda z: z**2), Z**2, rtol=1e-6)


def test_relevance_of_an_output_of_zero_is_not_lost():
    np.testing.assert_array_equal(begins(jnp.array([3.0, 5.0]), jnp.array([0.0, 1.0])), [3.0, 5.0])


def test_predicted():
    np.testing.assert_array_equal(begins(targets.predicted), [[0, 0, 3], [0, 4, 0]])


def test_contrast():
    np.testing.assert_array_equal(begins(targets.Contrast(0, 2)), [[1, 0, -3], [0.5, 0, 1]])
    rest = begins(targets.Contrast(0))
    np.testing.assert_allclose(rest, [[1, 1, -1.5], [0.5, -2, 0.5]], rtol=1e-6)


def test_log_odds():
    with jax.enable_x64(True):
        z = jnp.asarray(np.asarray(Z, np.float64))
        found = begins(targets.LogOdds(0), z).sum(-1)
        p = jax.nn.softmax(z)[:, 0]
        others = jax.nn.softmax(z[:, 1:])
        entropy = -(others * jnp.log(others)).sum(-1)
        np.testing.assert_allclose(found, jnp.log(p / (1 - p)) + entropy, rtol=1e-10)


def test_selections_are_arguments_of_jit():
    run = jax.jit(explain)
    np.testing.assert_array_equal(
        run(Z, target=targets.Contrast(0, 2)).relevance, [[1, 0, -3], [0.5, 0, 1]]
    )
    np.testing.assert_array_equal(run(Z, target=targets.predicted).relevance[1], [0, 4, 0])


def test_one_value_for_each_example_needs_no_target():
    np.testing.assert_array_equal(explain(jnp.array([2.0, 3.0])).relevance, [2.0, 3.0])
    np.testing.assert_array_equal(explain(jnp.array([[2.0], [3.0]])).relevance, [[2.0], [3.0]])


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (None, TypeError, r"target is missing: the output is float32\[2, 3\]"),
        (3, IndexError, r"target 3 is out of range: the output has 3 classes"),
        (-1, IndexError, r"target -1 is out of range"),
        (jnp.array([0, 5]), IndexError, r"target 5 is out of range"),
        (jnp.array([0, 1, 2]), ValueError, r"one class index for each of the outputs \(2,\)"),
        (jnp.ones((3, 2)), ValueError, r"must have the output's shape \(2, 3\)"),
        (True, TypeError, r"got a boolean"),
        ("cat", TypeError, r"target must be an array like the output, got 'cat'"),
        ({"a": 1}, ValueError, r"which the target .* does not fit"),
        (lambda z: {"a": z}, ValueError, r"must return relevance shaped like the output"),
    ],
)
def test_errors(target, error, message):
    with pytest.raises(error, match=message):
        begins(target)
