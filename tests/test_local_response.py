"""Local response normalization: the identity and the Taylor rule of Binder et al. (2016)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C

BIAS, ALPHA, BETA, REACH = 2.0, 0.3, 0.75, 1


def normalize(x):
    """Over the last axis, as AlexNet does."""
    window = (1,) * (x.ndim - 1) + (2 * REACH + 1,)
    total = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * x.ndim, "SAME")
    return x / (BIAS + ALPHA * total) ** BETA


def taylor_by_loops(x, relevance):
    """The paper's formula for one vector, term by term."""
    n, result = len(x), np.zeros(len(x))
    for k in range(n):
        near = range(max(0, k - REACH), min(n, k + REACH + 1))
        total = BIAS + ALPHA * sum(x[j] ** 2 for j in near)
        terms = {
            j: -2 * ALPHA * BETA * x[k] * x[j] ** 2 * total ** (-BETA - 1) for j in near if j != k
        }
        terms[k] = x[k] * (BIAS + ALPHA * x[k] ** 2) ** (-BETA)
        for j, term in terms.items():
            result[j] += term / sum(terms.values()) * relevance[k]
    return result


X = np.array([[1.0, -2.0, 0.5, 3.0, -1.0], [0.3, 0.0, -4.0, 1.0, 2.0]])
R = np.array([[1.0, -0.5, 2.0, 0.25, 1.5], [-1.0, 0.0, 0.5, 3.0, 1.0]])


def test_identity_rule_is_the_default():
    with jax.enable_x64(True):
        result = lrp.explain(normalize)(jnp.asarray(X), target=jnp.asarray(R))
        np.testing.assert_allclose(result.relevance, R, rtol=1e-10, atol=1e-12)


def test_taylor_rule_by_loops():
    with jax.enable_x64(True):
        composite = C.by_kind("normalizer", lrp.rules.LocalTaylor(stabilizer=0.0))
        x = jnp.asarray(X[:1])
        result = lrp.explain(normalize, composite, jit=False)(x, target=jnp.asarray(R[:1]))
        np.testing.assert_array_equal(result.output, normalize(x))
        np.testing.assert_allclose(result.relevance[0], taylor_by_loops(X[0], R[0]), rtol=1e-10)
        np.testing.assert_allclose(result.relevance.sum(), R[:1].sum(), rtol=1e-10)


def test_taylor_rule_keeps_what_has_no_neighbors_for_itself():
    with jax.enable_x64(True):
        composite = C.by_kind("normalizer", lrp.rules.LocalTaylor())
        x = jnp.array([0.0, 0.0, 2.0, 0.0, 0.0])
        result = lrp.explain(normalize, composite)(x, target=jnp.array([0.0, 0.0, 1.0, 0.0, 0.0]))
        np.testing.assert_allclose(result.relevance, [0, 0, 1, 0, 0], rtol=2e-6, atol=1e-12)


def test_taylor_rule_refuses_another_normalizer():
    def rms(x):
        return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)

    composite = C.by_kind("normalizer", lrp.rules.LocalTaylor())
    with pytest.raises(ValueError, match=r"is for local response normalization.*use Detach\(\)"):
        lrp.explain(rms, composite)(jnp.ones((2, 3)), target=jnp.ones((2, 3)))
