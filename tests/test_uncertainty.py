"""The covariance of relevance over models: NumPy, exact sums, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites, uncertainty

from numeric import close

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


def test_a_list_of_models_is_said_to_be_one():
    explain = lrp.explain(lambda w, x: x @ w, argnums=1)
    models = [jnp.ones((2, 1)), jnp.ones((2, 1))]
    with pytest.raises(TypeError) as raised:
        uncertainty.covariance(lambda w: explain(w, jnp.ones((1, 2))), models)
    assert any("not a list of models; stack them" in note for note in raised.value.__notes__)


def test_more_components_than_models_are_refused(found):
    with pytest.raises(ValueError, match="at most the number of models, 5, got 6"):
        found.components(6)


# Members.


def squared_error(params, sample):
    x, y = sample
    return (predict(params, x[None])[0] - y) ** 2 / 2


def test_laplace_draws_from_the_diagonal_of_the_fisher_matrix():
    """Gradients by hand; 5 standard errors of a variance of 4000 draws."""
    w, v = jnp.asarray(W[0]), jnp.asarray(V[0])
    x, y = RNG.normal(size=(30, 6)), RNG.normal(size=30)
    drawn, fixed = (
        uncertainty.laplace(
            lambda p, s: squared_error((w, p), s),
            v,
            (x, y),
            jax.random.key(0),
            4000,
            prior=2.0,
            scale=3.0,
        ),
        v,
    )
    hidden = np.maximum(x @ W[0], 0)
    gradients = (hidden @ V[0] - y)[:, None] * hidden
    expected = 1 / (3 * (gradients**2).sum(0) + 2)
    np.testing.assert_allclose(drawn.var(0), expected, rtol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(drawn.mean(0), fixed, atol=5 * np.sqrt(expected.max() / 4000))


def test_laplace_of_the_last_layer_alone():
    """For a linear last layer, Var f = h^T diag(s^2) h: the total of members, in the limit."""
    params = (jnp.asarray(W[0]), jnp.asarray(V[0]))
    x, y = RNG.normal(size=(30, 6)), RNG.normal(size=30)
    options = {"sampled": lambda path, _: path[0].idx == 1, "batch_size": 7}
    members = uncertainty.laplace(squared_error, params, (x, y), jax.random.key(1), 2000, **options)
    assert (members[0] == params[0]).all()
    hidden = np.maximum(x @ W[0], 0)
    gradients = (hidden @ V[0] - y)[:, None] * hidden
    s2 = 1 / ((gradients**2).sum(0) + 1)
    total = uncertainty.covariance(of_member, members, batch_size=500).total()
    expected = np.maximum(X.reshape(3, 6) @ W[0], 0) ** 2 @ s2
    np.testing.assert_allclose(total, expected, rtol=5 * np.sqrt(2 / 2000))


def correlated():
    """Inputs whose columns are nearly the same, so that their weights make up for each other."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=(50, 1))
    x = np.concatenate([base + 0.3 * rng.normal(size=(50, 3)), rng.normal(size=(50, 1))], axis=1)
    return x, x @ [1.0, -1.0, 0.5, 2.0] + 0.3 * rng.normal(size=50)


def same_covariance(drawn, expected):
    """Of 20,000 draws, in units of its diagonal: standard deviations are at most .01, so .06 is six."""
    scale = np.sqrt(np.diag(expected))
    apart = np.cov(drawn.T, bias=True) / np.outer(scale, scale)
    np.testing.assert_allclose(apart, expected / np.outer(scale, scale), atol=0.06)


def test_a_full_laplace_of_a_linear_model_is_bayesian_linear_regression():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn (extra: test)")
    x, y = correlated()
    fitted = linear_model.BayesianRidge(fit_intercept=False).fit(x, y)

    def loss(params, sample):
        return fitted.alpha_ * (sample[0] @ params["w"][0] - sample[1]) ** 2 / 2

    params = {"w": [jnp.asarray(fitted.coef_)], "other": jnp.ones(3)}

    def draw(batch_size):
        return uncertainty.laplace(
            loss, params, (x, y), jax.random.key(0), 20000, prior=fitted.lambda_, form="full",
            sampled=lambda path, _: path[0].key == "w", batch_size=batch_size,
        )  # fmt: skip

    members = draw(64)
    drawn = np.asarray(members["w"][0])
    close(members["other"][7], np.ones(3))
    error = 5 * np.sqrt(fitted.sigma_.diagonal().max() / 20000)
    np.testing.assert_allclose(drawn.mean(axis=0), fitted.coef_, atol=error)
    same_covariance(drawn, fitted.sigma_)
    ratio = np.linalg.inv(fitted.sigma_).diagonal() * fitted.sigma_.diagonal()
    assert ratio.max() > 5  # a diagonal posterior would be far from it
    for batch_size in (16, 50):  # with and without a last batch that is not full
        close(draw(batch_size)["w"][0], drawn, rtol=1e-9)


def test_a_full_laplace_of_a_logistic_regression():
    x, y = correlated()
    w, label = np.array([0.5, -0.2, 0.3, 0.1]), np.sign(y)

    def loss(w, sample):
        return jax.nn.softplus(-sample[1] * (sample[0] @ w))

    drawn = uncertainty.laplace(
        loss,
        jnp.asarray(w),
        (x, label),
        jax.random.key(1),
        20000,
        prior=2.0,
        scale=3.0,
        form="full",
    )
    p = 1 / (1 + np.exp(-x @ w))
    precision = 3 * (x.T * (p * (1 - p))) @ x + 2 * np.eye(4)
    same_covariance(np.asarray(drawn), np.linalg.inv(precision))


def test_a_full_laplace_refuses_what_it_cannot_invert():
    data = np.ones((3, 4))
    options = {"key": jax.random.key(0), "count": 2, "form": "full"}
    with pytest.raises(
        ValueError, match="max_parameters=3 parameters, but 4 are drawn: choose the last"
    ):
        uncertainty.laplace(lambda w, s: w @ s, jnp.ones(4), data, max_parameters=3, **options)
    with pytest.raises(ValueError, match="is not positive definite"):
        uncertainty.laplace(lambda w, s: -((w @ s) ** 2), jnp.ones(4), data, **options)


def test_members_of_dropout():
    """Fixed for all samples of a member, of mean one; every layer has its own."""
    masks = uncertainty.dropout_masks(jax.random.key(0), [(4,), (4,)], 0.25, 4000)
    assert set(np.unique(masks[0])) == {0, 4 / 3}
    np.testing.assert_allclose(masks[0].mean(0), 1, atol=5 * np.sqrt((1 / 3) / 4000))
    assert (masks[0] != masks[1]).any()
    found = uncertainty.covariance(
        lambda keep: lrp.explain(lambda x: (jax.nn.relu(x @ W[0]) * keep) @ V[0])(X.reshape(3, 6)),
        masks[0][:50],
    )
    outputs = (np.maximum(X.reshape(3, 6) @ W[0], 0) * np.asarray(masks[0][:50, None])) @ V[0]
    np.testing.assert_allclose(found.total(), outputs.var(0), rtol=1e-4)  # epsilon of 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": 0.0}, "prior must be > 0 and scale >= 0, got 0.0 and 1.0"),
        ({"scale": -1.0}, "got 1.0 and -1.0"),
        ({"sampled": lambda path, leaf: False}, "chose none"),
        ({"data": (X[:, 0], X[:2, 0])}, "one leading axis for the samples"),
        ({"count": 0}, "count must be"),
    ],
)
def test_bad_posteriors_are_refused(options, message):
    given = {"data": (X[:, 0], X[:, 0, 0]), "count": 2, **options}
    with pytest.raises(ValueError, match=message):
        uncertainty.laplace(squared_error, (W[0], V[0]), key=jax.random.key(0), **given)


def test_a_bad_rate_is_refused():
    with pytest.raises(ValueError, match="rate must be >= 0 and < 1, got 1"):
        uncertainty.dropout_masks(jax.random.key(0), (2,), 1.0, 3)
