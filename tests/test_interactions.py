"""Interactions of features: known ones, exact sums, the Hessian product, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlrp as lrp
from jaxlrp import composites, higher_order, targets

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 8))
V = RNG.normal(size=(8, 3))
X = RNG.normal(size=(5, 4))
EXACT = composites.all_epsilon(1e-13)  # LRP-0 is not finite where all hidden units are zero


def embed(x):
    return jax.nn.relu(x @ W) @ V


def network(x):
    return jax.nn.relu(embed(x)) @ jnp.ones(3)


def squares(x):
    return (embed(x) ** 2).sum(-1)


def products(x):
    return 3 * x[:, 0] * x[:, 1] - x[:, 1] * x[:, 3] + 2 * x[:, 2]


@pytest.mark.parametrize("baseline", [0.0, None])
def test_products(baseline):
    """Each entry of a pair has half of its product; a linear feature has none with others."""
    found = higher_order.interactions(products, EXACT, baseline=baseline)(X)
    half = np.zeros((5, 4, 4))
    half[:, 0, 1] = half[:, 1, 0] = 1.5 * X[:, 0] * X[:, 1]
    half[:, 1, 3] = half[:, 3, 1] = -0.5 * X[:, 1] * X[:, 3]
    own = half.sum(2)
    own[:, 2] = 2 * X[:, 2]
    expected = half + np.eye(4) * own[:, None]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-9)
    np.testing.assert_allclose(found.relevance, own, atol=1e-9)
    np.testing.assert_allclose(found.symmetric(), half, atol=1e-9)


def test_left_out_features_sum_to_what_the_output_loses():
    """Relevance sums to the output: no biases."""
    away = RNG.normal(size=4)
    found = higher_order.interactions(network, EXACT, baseline=away, batch_size=3)(X)
    for j in range(4):
        changed = np.where(np.arange(4) == j, away, X)
        expected = network(X) - network(changed)
        np.testing.assert_allclose(found.matrix[:, :, j].sum(1), expected, rtol=1e-9, atol=1e-9)


def test_the_derivative_is_the_hessian_product():
    """The square passes on y, half of gradient times input: so both halves of the Hessian product."""
    found = higher_order.interactions(squares, EXACT, baseline=None)(X)
    for x, matrix in zip(X, found.matrix, strict=True):
        hessian = jax.hessian(lambda x: squares(x[None])[0])(jnp.asarray(x))
        gradient = jax.grad(lambda x: squares(x[None])[0])(jnp.asarray(x))
        expected = (np.outer(x, x) * hessian + np.diag(x * gradient)) / 2
        np.testing.assert_allclose(matrix, expected, rtol=1e-8, atol=1e-9)
        pairs = higher_order.pairs(lambda x: embed(x[None])[0], EXACT)(x, x)
        np.testing.assert_allclose(matrix - np.diag(np.diag(expected)),
                                   pairs - np.diag(np.diag(pairs)), rtol=1e-8, atol=1e-9)  # fmt: skip


def test_between_the_kinks_leaving_out_sees_an_interaction():
    """x_0 and x_1 must both be there; by hand."""

    def both(x):
        return jax.nn.relu(x[:, 0] + x[:, 1] - 1) + x[:, 2]

    x = np.ones((1, 3))
    found = higher_order.interactions(both, EXACT)(x)
    expected = [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]  # both halves go if one of them does
    np.testing.assert_allclose(found.matrix[0], expected, atol=1e-9)


def test_groups_and_targets():
    """A group is left out at once; the predicted class is that of the whole input."""
    groups = np.array([1, 0, 1, 0])
    of_class = higher_order.interactions(embed, EXACT, groups=groups)
    predicted = np.asarray(embed(X)).argmax(1)
    found = of_class(X, target=targets.predicted)
    np.testing.assert_allclose(found.matrix, of_class(X, target=predicted).matrix)
    for j in range(2):
        changed = np.where(groups == j, 0, X)
        lost = np.asarray(embed(X) - embed(changed))[np.arange(5), predicted]
        np.testing.assert_allclose(found.matrix[:, :, j].sum(1), lost, rtol=1e-9, atol=1e-9)
    slope = higher_order.interactions(embed, EXACT, groups=groups, baseline=None)(
        X, target=predicted
    )
    np.testing.assert_allclose(slope.relevance, found.relevance)
    assert slope.matrix.shape == (5, 2, 2)


@pytest.mark.promotes("optax.adam counts steps in integers")
def test_trained_networks_tell_which_features_act_together():
    """Three seeds: y = x_0 x_1 + x_2 of six features. The pair is first; its lead is at least twofold."""
    x = jnp.asarray(np.random.default_rng(1).choice([-1.0, 1.0], (200, 6)))
    y = x[:, 0] * x[:, 1] + x[:, 2]

    def predict(p, x):
        return (jax.nn.relu(x @ p[0] + p[1]) @ p[2])[:, 0]

    def fit(key):
        keys = jax.random.split(key, 2)
        p = [
            jax.random.normal(keys[0], (6, 24)) / 2,
            jnp.zeros(24),
            jax.random.normal(keys[1], (24, 1)) / 5,
        ]
        optimizer = optax.adam(2e-2)

        def step(held, _):
            p, state = held
            loss, g = jax.value_and_grad(lambda p: ((predict(p, x) - y) ** 2).mean())(p)
            updates, state = optimizer.update(g, state, p)
            return (optax.apply_updates(p, updates), state), loss

        (p, _), losses = jax.lax.scan(step, (p, optimizer.init(p)), None, 300)
        return p, losses[-1]

    trained, losses = jax.jit(jax.vmap(fit))(jax.random.split(jax.random.key(0), 3))
    assert (losses < 0.1).all()
    explain = higher_order.interactions(predict, composites.all_epsilon(1e-6), argnums=1)
    for seed in range(3):
        found = explain(jax.tree.map(lambda leaf, s=seed: leaf[s], trained), x[:50])
        (first, second, most), (*_, next_most) = found.top(2, names=list("abcdef"))
        assert (first, second) == ("a", "b")
        assert most > 2 * next_most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"argnums": (0,)}, "argnums must be one integer"),
        ({"groups": [0, 0, 1]}, r"shape of one sample, \(4,\), got int64 of shape \(3,\)"),
        ({"groups": [0, 0, 2, 2]}, r"groups must be 0 to G - 1, got \[0, 2\]"),
        ({"baseline": np.zeros(3)}, r"have the shape of one sample, \(4,\), got \(3,\)"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        higher_order.interactions(network, EXACT, **options)(X)


def test_one_sample_without_an_axis_of_samples_is_refused():
    with pytest.raises(ValueError, match=r"samples along its first axis .* \(4,\): pass x\[None\]"):
        higher_order.interactions(network, EXACT)(X[0])


def test_names_must_fit():
    found = higher_order.interactions(network, EXACT)(X)
    with pytest.raises(ValueError, match="names must be 4, one for each feature, got 1"):
        found.top(names=["a"])
    sample = found.top(2, sample=3)
    assert sample[0][2] == pytest.approx(
        np.asarray(found.symmetric())[3][int(sample[0][0]), int(sample[0][1])]
    )
    assert lrp.explain(network, EXACT)(X).relevance.shape == found.relevance.shape
