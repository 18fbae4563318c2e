"""Zero vectors: no NaN where the gradient is finite, or where the function is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites as C

from selection import one_in

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 4))


def like(a):
    """W in the dtype of another array."""
    return jnp.asarray(W, a.dtype)


def norm(a):
    return jnp.linalg.norm(a, axis=-1, keepdims=True)


def root(a):
    return jnp.sqrt((a * a).sum(-1, keepdims=True))


# Of a vector that is zero for the first example
CASES = {
    "norm, guarded": lambda a: a / jnp.maximum(norm(a), 1e-6),
    "root and a constant": lambda a: a / (root(a) + 1e-6),
    "reciprocal root": lambda a: a * jax.lax.rsqrt((a * a).sum(-1, keepdims=True) + 1e-6),
    "largest value": lambda a: a / jnp.maximum(jnp.abs(a).max(-1, keepdims=True), 1e-6),
    "sum": lambda a: a / (a.sum(-1, keepdims=True) + 1e-6),
    "deviation": lambda a: (a - a.mean(-1, keepdims=True)) / (a.std(-1, keepdims=True) + 1e-6),
    "cosine similarity": lambda a: a @ like(a).T / (norm(a) * norm(like(a)).T + 1e-6),
    "cosine of two": lambda a: a * a[::-1] / (norm(a) * norm(a[::-1]) + 1e-6),
    "weighted by its own norm": lambda a: a * norm(a) / (norm(a) + 1),
    "power mean": lambda a: ((a**3).mean(-1, keepdims=True) + 1e-6) ** (1 / 3) * a,
    "max pool": lambda a: a.reshape(*a.shape[:-1], 2, -1).max(-1) @ like(a)[:2],
    "norm pool": lambda a: (root(a) + 1e-6) * a,
    "softmax of zeros": lambda a: jax.nn.softmax(a) * a,
    "log of a sum": lambda a: a * jnp.log1p(a.sum(-1, keepdims=True)),
    "attention pool": lambda a: jax.nn.softmax(a @ a.T) @ a,
    "layer norm": lambda a: jax.nn.standardize(a),
}


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", one_in(2, ["float32", "bfloat16"]))
@pytest.mark.parametrize("name", CASES)
def test_a_zero_vector_gives_no_nan(name, dtype):
    w = jnp.asarray(W, dtype)
    # all units of the first example are dead
    x = jnp.asarray([[0.5, -1.0, 2.0], [1.0, 0.3, -0.7]], dtype)
    shift = jnp.asarray([[-100.0], [1.0]], dtype)

    def f(x):
        return CASES[name](jax.nn.relu(x @ w + shift)).astype(dtype).sum(-1)

    assert np.isfinite(np.asarray(f(x), np.float32)).all()
    for composite in (None, C.attnlrp()):
        found = np.asarray(lrp.explain(f, composite)(x).relevance, np.float32)
        assert np.isfinite(found).all()
        if f(x)[0] == 0:
            np.testing.assert_allclose(found[0], 0, atol=1e-6)
    derivative = jax.grad(lambda x: jnp.sum(lrp.explain(f)(x).relevance ** 2).astype(jnp.float32))
    if dtype == "float32" and np.isfinite(jax.grad(lambda x: f(x).sum())(x)).all():
        assert np.isfinite(derivative(x)).all()


def test_zeros_on_the_way_do_not_hide_a_second_derivative():
    """What is held fixed in relevance is not held fixed in the derivative of relevance."""
    x = jnp.asarray([1.0, 2.0, -0.5])

    def held(x):
        return (x / jnp.sqrt((x * x).sum() + 1e-6))[0]

    def r(x):
        return lrp.explain(held)(x).relevance[0]

    with jax.enable_x64(True):
        x = x.astype(float)
        expected = [(r(x.at[i].add(1e-6)) - r(x.at[i].add(-1e-6))) / 2e-6 for i in range(3)]
        np.testing.assert_allclose(jax.grad(r)(x), expected, rtol=1e-6)
