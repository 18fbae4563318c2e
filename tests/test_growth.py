"""Relevance that grows: plans, ledgers and `debug=True` say where, and what to use instead."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C

RNG = np.random.default_rng(0)
U, W = jnp.asarray(1.5 * RNG.normal(size=(3, 3))), jnp.asarray(RNG.normal(size=(2, 3)))
X = jnp.asarray(RNG.normal(size=(12, 2)))


def recurrent(x):
    return lax.scan(lambda h, t: (jnp.tanh(t @ W + h @ U), None), jnp.zeros(3), x)[0]


def written_out(x):
    h = jnp.zeros(3)
    for t in x:
        h = jnp.tanh(t @ W + h @ U)
    return h


def test_a_plan_warns_of_sums_in_a_recurrence_that_nothing_damps():
    warning = lrp.plan(recurrent, None, X).warning
    assert "the sum at 'add' is taken in each of 12 steps" in warning
    assert "composites.recurrent()" in warning
    assert warning in str(lrp.plan(recurrent, None, X))
    for damped in (C.recurrent(), C.by_kind("sum", lrp.Norm(1e-3)) + C.default()):
        assert lrp.plan(recurrent, damped, X).warning == ""
    ws = jnp.stack([U, U])
    layered = lambda x: lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), x, ws)[0]  # noqa: E731
    assert lrp.plan(layered, None, jnp.ones(3)).warning == ""  # depth, not a recurrence


@pytest.mark.parametrize("f", [recurrent, written_out])
def test_ledger_and_debug_name_the_layer_where_relevance_grew(f):
    ledger = lrp.ledger(f, None, X, target=0)
    assert "relevance grew to" in ledger.warning
    assert "'tanh" in ledger.warning
    assert ledger.warning in str(ledger)
    with pytest.warns(lrp.GrowthWarning, match=r"grew to \S+ times its start at 'tanh"):
        gains = lrp.explain(f, debug=True)(X, target=0).gains
    worst = max(gains.values())
    assert worst > 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm = lrp.explain(f, C.recurrent(epsilon=0.1), debug=True)(X, target=0).gains
    assert max(calm.values()) < 100 < worst
    assert lrp.ledger(f, C.recurrent(epsilon=0.1), X, target=0).warning == ""


def test_gains_are_sums_of_magnitudes():
    w = jnp.asarray([[1.0, -2.0], [3.0, 1.0]])
    f = lambda x: jnp.tanh(x @ w) @ jnp.asarray([[1.0], [-1.0]])  # noqa: E731
    x = jnp.asarray([0.3, 0.5])
    found = lrp.explain(f, debug=True, record="tanh")(x)
    expected = jnp.abs(found.records["tanh"].relevance).sum() / jnp.abs(found.output).sum()
    np.testing.assert_allclose(found.gains["tanh"], expected, rtol=1e-5)
    ledger = lrp.ledger(f, None, x)
    np.testing.assert_allclose(ledger.gains["tanh"], expected, rtol=1e-5)


def test_relevance_that_is_not_finite_is_said_with_its_layer():
    big = jnp.asarray([[1e30, -1e30], [1e30, 1e30]])
    ledger = lrp.ledger(
        lambda x: jnp.tanh(x * 1e30) @ big, None, jnp.ones(2), target=jnp.full(2, 3e38)
    )
    assert "relevance is not finite at 'dot_general'" in ledger.warning


def test_without_biases_the_layer_whose_sums_cancel_is_named():
    w1, w2 = jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), jnp.asarray([[1.0], [-1.0 + 2**-12]])
    f = lambda x: jnp.tanh(jnp.tanh(x @ w1) @ w2 + 3.0)  # noqa: E731
    x = jnp.asarray([0.5, 0.5])
    ledger = lrp.ledger(f, None, x)
    assert ledger.warning == ""
    assert "most absorbed: " in str(ledger)
    zeroed = lrp.ledger(f, None, x, zero_bias=True)
    assert (
        "'tanh', to which 'dot_general:1' passed it. With zero_bias=True, layers" in zeroed.warning
    )
    assert "Use zero_bias=False" in zeroed.warning
    bad = lambda x: f(jnp.sqrt(x))  # noqa: E731
    broken = str(lrp.ledger(bad, C.by_kind("activation", lrp.rules.Gradient()), 0.0 * x))
    assert "the relevance of the input is not finite" in broken


def test_gates_split_before_and_after_the_squash_are_one_function():
    packed, state = jnp.asarray(RNG.normal(size=(2, 6))), jnp.asarray(RNG.normal(size=(3, 6)))

    def run(split):
        def step(h, t):
            r, z = split(t @ packed + h @ state)
            return (1 - z) * jnp.tanh(t @ W + r * (h @ U)) + z * h, None

        return lambda x: lax.scan(step, jnp.zeros(3), x)[0]

    before = run(lambda a: map(jax.nn.sigmoid, jnp.split(a, 2)))
    after = run(lambda a: jnp.split(jax.nn.sigmoid(a), 2))
    for composite in (C.recurrent(epsilon=1e-2), C.recurrent("half", epsilon=1e-2)):
        found = [lrp.explain(f, composite)(X, target=0).relevance for f in (before, after)]
        np.testing.assert_allclose(*found, rtol=1e-4)
