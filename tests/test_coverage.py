"""Coverage: how each operation that touches the input is treated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.network.coverage import TREATMENTS

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
X = jnp.ones((3, 4))


def ways(fun, composite=None):
    """{(treatment, primitive): how many}."""
    counts = lrp.plan(fun, composite, X).coverage.counts
    return {(way, name): count for way, name, count in counts}


def test_rules_and_linear_operations():
    def net(x):
        return jnp.flip(jax.nn.relu(x @ W + 1.0), 0).T

    found = ways(net)
    assert found == {
        ("rule", "dot_general"): 1,
        ("rule", "add"): 1,
        ("rule", "max"): 1,
        ("linear", "rev"): 1,
        ("linear", "transpose"): 1,
    }


def test_what_does_not_touch_the_input_is_not_counted():
    assert ways(lambda x: x @ (jnp.tanh(W) * 2.0)) == {("rule", "dot_general"): 1}


def test_normalizers_softmax_and_constants():
    def net(x):
        x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
        return jax.nn.softmax(lax.stop_gradient(x) + x)

    found = ways(net)
    assert found["rule", "mul"] == 1  # the normalizer
    assert found["constant", "rsqrt"] == found["constant", "square"] == 1
    assert found["constant", "reduce_max"] == 1
    assert found["softmax", "exp"] == 1
    assert found["softmax", "stop_gradient"] == 1  # of the greatest score
    assert found["cut", "stop_gradient"] == 1


def test_bodies_are_counted_once():
    def net(x):
        return lax.scan(lambda h, _: (jnp.tanh(h @ W), None), x, None, length=5)[0]

    assert ways(net) == {("loop", "scan"): 1, ("rule", "dot_general"): 1, ("rule", "tanh"): 1}


def test_the_verdict():
    coverage = lrp.plan(lambda x: jax.nn.relu(x @ W).T, None, X).coverage
    assert (
        coverage.verdict
        == "3 operations touch the input: 2 with a rule, 1 linear. All are explained."
    )
    one = lrp.plan(lambda x: x @ W, None, X).coverage.verdict
    assert one == "1 operation touches the input: 1 with a rule. It is explained."
    text = str(coverage)
    assert text.endswith(coverage.verdict)
    assert f"linear: {TREATMENTS['linear']}\n    transpose 1" in text


def test_a_printed_plan_ends_with_the_verdict():
    plan = lrp.plan(lambda x: jax.nn.relu(x @ W).T, None, X)
    for printed in (str(plan), str(plan.replace({"relu": lrp.rules.Gradient()}))):
        assert printed.splitlines()[-1] == plan.coverage.verdict


def test_an_operation_with_a_rule_of_the_users_is_named():
    def rooted(x):
        return lax.linalg.cholesky(x, symmetrize_input=False) @ W

    with pytest.raises(lrp.UnsupportedError):
        lrp.plan(rooted, None, W)
    mine = composites.by_operation("cholesky", lrp.rules.Gradient())
    coverage = lrp.plan(rooted, mine, W).coverage
    assert ("own rule", "cholesky", 1) in coverage.counts
    assert coverage.verdict.endswith(" cholesky: explained only by the rule you supplied.")


def test_coverage_is_not_part_of_equality():
    a, b = lrp.plan(lambda x: x @ W, None, X), lrp.plan(lambda x: (x @ W) * 1.0, None, X)
    assert a.rules == b.rules
    jitted = jax.jit(lambda plan, x: lrp.explain(lambda x: x @ W, plan)(x, target=0).relevance)
    assert jitted(a, X).shape == X.shape
