"""The covariance of relevance over models: NumPy, exact sums, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites, uncertainty

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W = RNG.normal(size=(5, 6, 4))  # five models
V = RNG.normal(size=(5, 4))
X = RNG.normal(size=(3, 2, 3))


def predict(params, x):
    w, v = params
    return jax.nn.relu(x.reshape(len(x), -1) @ w) @ v


# LRP-0 is not finite where all hidden units are zero
EXPLAIN = lrp.explain(predict, composites.all_epsilon(1e-14), argnums=1)


def of_member(params):
    return EXPLAIN(params, X)


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        return uncertainty.covariance(of_member, (W, V), batch_size=2)


def test_it_is_the_covariance(found):
    each = np.stack([of_member((w, v)).relevance for w, v in zip(W, V, strict=True)])
    flat = each.reshape(5, 3, 6)
    expected = np.stack([np.cov(flat[:, n].T, ddof=0) for n in range(3)])
    np.testing.assert_allclose(found.mean, each.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.full(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found.diagonal().reshape(3, 6), np.diagonal(expected, axis1=1, axis2=2), rtol=1e-9
    )
    np.testing.assert_allclose(
        found.marginal().reshape(3, 6), expected.sum(-1), rtol=1e-9, atol=1e-11
    )


def test_it_sums_to_the_variance_of_the_prediction(found):
    """The network has no biases, and epsilon is next to nothing: relevance sums to the output."""
    outputs = jax.vmap(predict, (0, None))((W, V), X)
    np.testing.assert_allclose(found.total(), np.var(outputs, axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.marginal().sum((1, 2)), found.total(), rtol=1e-9)


def test_components(found):
    """Eigenvectors of the covariance; all of them give it back."""
    variances, directions = found.components(5)
    expected = np.linalg.eigvalsh(found.full())[:, ::-1][:, :5]
    np.testing.assert_allclose(variances, expected, atol=1e-10)
    flat = directions.reshape(3, 5, 6)
    np.testing.assert_allclose(
        jnp.einsum("nk,nki,nkj->nij", variances, flat, flat), found.full(), atol=1e-10
    )
    assert found.components(1)[1].shape == (3, 1, 2, 3)


def test_random_keys_are_members():
    """Dropout: the same keys give the same models."""

    def of_key(key):
        keep = jax.random.bernoulli(key, 0.5, (4,)).astype(float)
        return lrp.explain(lambda x: (jax.nn.relu(x @ W[0]) * keep) @ V[0])(X.reshape(3, 6))

    keys = jax.random.split(jax.random.key(3), 7)
    whole = uncertainty.covariance(of_key, keys)
    parts = uncertainty.covariance(of_key, keys, batch_size=3)
    np.testing.assert_allclose(whole.full(), parts.full(), rtol=1e-9, atol=1e-12)
    assert whole.diagonal().max() > 0.01


@pytest.mark.parametrize(
    ("explain", "members", "error", "message"),
    [
        (of_member, (W[:1], V[:1]), ValueError, "two models at the least, got 1"),
        (of_member, (W, V[:2]), ValueError, "one leading axis for the models"),
        (of_member, 1.0, ValueError, "one leading axis"),
        (lambda m: m[0].sum(), (W, V), TypeError, "explain must return relevance"),
    ],
)
def test_errors(explain, members, error, message):
    with pytest.raises(error, match=message):
        uncertainty.covariance(explain, members)


def test_more_components_than_models_are_refused(found):
    with pytest.raises(ValueError, match="at most the number of models, 5, got 6"):
        found.components(6)
