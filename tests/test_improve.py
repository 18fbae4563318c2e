"""Concept activation vectors, ClArC, penalties on explanations, and feedback: formulas in NumPy."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites, improve
from jaxlrp.improve import penalties

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
H = RNG.normal(size=(6, 3, 2))  # a layer of two axes, six samples
Z = RNG.normal(size=(3, 2))
V, OTHER = RNG.normal(size=(2, 3, 2))


def test_pattern_cav_is_the_regression_of_values_on_the_label():
    t = RNG.normal(size=40)
    values = RNG.normal(size=(40, 3, 2)) + t[:, None, None] * V
    design = np.stack([t, np.ones(40)], axis=1)
    w = np.linalg.lstsq(design, values.reshape(40, -1), rcond=None)[0][0].reshape(3, 2)
    found = improve.pattern_cav(values, t)
    np.testing.assert_allclose(found, w / np.linalg.norm(w), rtol=1e-10)
    np.testing.assert_allclose(jax.jit(improve.pattern_cav)(values, t), found, rtol=1e-10)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "svm"])
def test_a_pattern_ignores_noise_that_a_classifier_uses(kind):
    """A distractor: its noise is shared by both features, so the classifier subtracts the second."""
    t = np.repeat([0, 1], 200)
    noise = 3 * RNG.normal(size=400)
    values = np.stack([t + noise, noise], axis=1) + 0.1 * RNG.normal(size=(400, 2))
    weights = improve.linear_cav(values, t, kind)
    assert weights[0] > 0.5
    assert weights[1] < -0.5
    pattern = improve.pattern_cav(values, t)
    np.testing.assert_allclose(np.linalg.norm(weights), 1, rtol=1e-9)
    assert (
        pattern[0] > 0.8
    )  # the standard error of the second, .3 of the first, is that of the noise


def test_projection_is_the_formula():
    flat = np.stack([V.ravel(), OTHER.ravel()], axis=1)
    p = flat @ np.linalg.inv(flat.T @ flat) @ flat.T
    h = H.reshape(6, -1)
    several = (h - h @ p + Z.ravel() @ p).reshape(H.shape)
    np.testing.assert_allclose(improve.project([V, OTHER], Z)(jnp.array(H)), several, rtol=1e-9)
    unit = V / np.linalg.norm(V)
    one = H + ((Z * unit).sum() - (H * unit).sum(axis=(1, 2)))[:, None, None] * unit
    np.testing.assert_allclose(improve.project(V, Z)(jnp.array(H)), one, rtol=1e-9)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_channels_move_alike_at_all_positions(pool):
    v, z = V[0], Z[0]
    amount = (getattr(H, pool)(axis=1) @ v)[:, None]
    expected = H + ((z @ v - amount) / (v @ v) * v)[:, None]
    np.testing.assert_allclose(improve.project(v, z, pool=pool)(jnp.array(H)), expected, rtol=1e-9)


W, HEAD = RNG.normal(size=(4, 6)), RNG.normal(size=(6, 3))


def model(x):
    return jnp.tanh(x @ W) @ HEAD


X = RNG.normal(size=(5, 4))
HIDDEN = np.tanh(X @ W)
UNIT = int(np.argmin(np.abs((HIDDEN > 0).mean(axis=0) - 0.5)))  # active in some samples
CHANGE = improve.project(np.eye(6)[UNIT], np.zeros(6))


def test_reactive_correction_is_the_projection_where_it_fires_and_nothing_elsewhere():
    plain, projected = model(X), lrp.edit(model, {"tanh": CHANGE})(X)
    classes = np.unique(np.argmax(plain, axis=1))[:1].tolist()
    fires = np.isin(np.argmax(plain, axis=1), classes)
    assert 0 < fires.sum() < 5
    for when in (classes, lambda z: jnp.isin(jnp.argmax(z, axis=-1), jnp.array(classes))):
        found = jax.jit(improve.reactive(model, {"tanh": CHANGE}, when))(X)
        np.testing.assert_allclose(found, np.where(fires[:, None], projected, plain), rtol=1e-12)
    detected = improve.where_active(lambda h: h[:, UNIT] > 0, CHANGE)
    active = HIDDEN[:, UNIT] > 0
    assert 0 < active.sum() < 5
    found = lrp.edit(model, {"tanh": detected})(X)
    np.testing.assert_allclose(found, np.where(active[:, None], projected, plain), rtol=1e-12)


def test_a_corrected_model_is_explained_like_any_other():
    corrected = improve.reactive(model, {"tanh": CHANGE}, lambda z: jnp.ones(len(z), bool))
    found = lrp.explain(corrected, composites.gradient())(X, target=1)
    truth = jax.grad(
        lambda x: jnp.sum((jnp.tanh(x @ W) * (np.arange(6) != UNIT).astype(float)) @ HEAD[:, 1])
    )(X)
    np.testing.assert_allclose(found.relevance, truth, rtol=1e-9)


def test_tcav_counts_steps_that_raise_the_output():
    explain = lrp.explain(model, composites.gradient(), record="tanh")
    gradients = explain(X, target=jnp.array([0, 1, 2, 0, 1])).records["tanh"].relevance
    np.testing.assert_allclose(gradients, HEAD.T[[0, 1, 2, 0, 1]], rtol=1e-12)
    expected = np.mean(HEAD[3, [0, 1, 2, 0, 1]] > 0)
    np.testing.assert_allclose(improve.tcav(gradients, np.eye(6)[3]), expected)


# Penalties

R = RNG.normal(size=(4, 3, 2))
A = RNG.random((4, 3, 1)) > 0.5


def test_penalties_are_their_formulas():
    size, mask = np.abs(R), np.broadcast_to(A, R.shape)
    hit = (size * mask).sum(axis=(1, 2))
    expected = {
        "ratio": np.mean(hit / size.sum(axis=(1, 2))),
        "l1": np.mean(hit),
        "l2": np.mean((R**2 * mask).sum(axis=(1, 2))),
        "cosine": np.mean(hit / np.sqrt((R**2).sum(axis=(1, 2)) * mask.sum(axis=(1, 2)))),
    }
    for kind, value in expected.items():
        np.testing.assert_allclose(penalties.outside(R, A, kind), value, rtol=1e-5)  # the floor
    product = (R * V).sum(axis=(1, 2))
    lengths = np.sqrt((R**2).sum(axis=(1, 2)) * (V**2).sum())
    np.testing.assert_allclose(penalties.along(R, V), np.mean(product**2), rtol=1e-10)
    np.testing.assert_allclose(penalties.along(R, V, "l1"), np.mean(np.abs(product)), rtol=1e-10)
    cosine = np.mean(np.abs(product) / lengths)
    np.testing.assert_allclose(penalties.along(R, V, "cosine"), cosine, rtol=1e-9)
    ratio = size.sum(axis=(1, 2)) / np.sqrt(6 * (R**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(penalties.sparsity(R), ratio.mean(), rtol=1e-9)
    steps = np.abs(np.diff(R, axis=1)).sum(axis=(1, 2)) / size.sum(axis=(1, 2))
    np.testing.assert_allclose(penalties.smoothness(R, (1,)), steps.mean(), rtol=1e-5)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.softplus(nn.Dense(5, param_dtype=jnp.float64)(x))
        return nn.Dense(3, param_dtype=jnp.float64)(x)


NET = Net()
LABELS = np.array([0, 1, 2, 1, 0])


@pytest.mark.parametrize("name", ["ratio", "cosine", "l2", "along", "smoothness"])
def test_second_order_gradients_are_finite_differences(name):
    relevance = lrp.explain(NET.apply, composites.all_epsilon(1e-2), argnums=1)
    latent = lrp.explain(NET.apply, composites.gradient(), argnums=1, record="softplus")

    start = NET.init(jax.random.key(0), X)

    def loss(params):
        if name == "along":
            g = latent(params, X, target=LABELS).records["softplus"].relevance
            # at this layer it is a weight of the head; the square makes it differ from sample to sample
            return penalties.along(g, jnp.arange(5.0))
        r = relevance(params, X, target=LABELS).relevance
        if name == "smoothness":
            return penalties.smoothness(r, (1,))
        return penalties.outside(r, jnp.array([True, False, False, True]), name)

    loss = jax.jit(loss)
    step = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), start)
    size = 1e-6
    ahead, behind = (
        loss(jax.tree.map(lambda p, s, h=h: p + h * s, start, step)) for h in (size, -size)
    )
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, jax.grad(loss)(start), step)))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * size), rtol=1e-5)


# Feedback


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def test_feedback_of_a_relu_network_is_the_gradient_times_the_size_of_the_weight():
    class ReLUs(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (8, 6):
                x = nn.relu(nn.Dense(width, param_dtype=jnp.float64)(x))
            return nn.Dense(3, param_dtype=jnp.float64)(x)

    net = ReLUs()
    params = net.init(jax.random.key(1), X)
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases as well
    explain = lrp.explain(net.apply, lrp.LRP0(), argnums=1, parameters=0)
    found = improve.feedback(explain)(params, X, target=improve.softmax_reward(LABELS))
    gradient = jax.grad(lambda p: cross_entropy(net.apply(p, X), LABELS))(params)
    for f, w, g in zip(*map(jax.tree.leaves, (found, params, gradient)), strict=True):
        np.testing.assert_allclose(f, jnp.abs(w) * g, rtol=1e-6, atol=1e-12)


def test_feedback_of_steps_needs_no_derivative():
    """By hand: relevance of a step is that of its input, and the input divides it by its value."""
    w, v = RNG.normal(size=(4, 6)), RNG.normal(size=(6, 3))

    def steps(p, x):
        return jnp.sign(x @ p[0]) @ p[1]

    explain = lrp.explain(steps, composites.all_epsilon(0.0), argnums=1, parameters=0)
    found = improve.feedback(explain)([w, v], X, target=improve.softmax_reward(LABELS))
    h = X @ w
    a = np.sign(h)
    z = a @ v
    s = (np.eye(3)[LABELS] - np.asarray(jax.nn.softmax(z))) / len(X)
    below = a * (s @ v.T) / h
    np.testing.assert_allclose(found[1], -np.abs(v) * (a.T @ s), rtol=1e-9)
    np.testing.assert_allclose(found[0], -np.abs(w) * (X.T @ below), rtol=1e-9)


def test_relevance_weights():
    r = jnp.array([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(improve.relevance_weights(r), [[1.5, 0, 1], [1, 1, 1]])
    assert not np.any(jax.grad(lambda r: improve.relevance_weights(r).sum())(r))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: improve.pattern_cav(H, np.ones(6)), ValueError, "at least two values, but all are 1.0"),
        (lambda: improve.pattern_cav(H, np.arange(5)), ValueError, r"labels must have shape \(6,\)"),
        (lambda: improve.pattern_cav(H * np.nan, np.arange(6)), ValueError, "values must be finite"),
        (lambda: improve.pattern_cav(0 * H, np.arange(6)), ValueError, "do not change with the labels"),
        (lambda: improve.linear_cav(H, np.arange(6)), ValueError, "labels must have two values"),
        (lambda: improve.linear_cav(H, np.arange(6) % 2, "lasso"), ValueError, "kind must be one of"),
        (lambda: improve.tcav(H, Z[0]), ValueError, r"the shape of one gradient, \(3, 2\), got \(2,\)"),
        (lambda: improve.project(0 * V, Z), ValueError, "must not be zero or depend on each other"),
        (lambda: improve.project([V, 2 * V], Z), ValueError, "must not be zero or depend on each other"),
        (lambda: improve.project(V, Z[0]), ValueError, "directions and reference must have the same shape"),
        (lambda: improve.project(V[0], Z[0])(jnp.array(H)), ValueError, r"the shape \(3, 2\) of the layer"),
        (lambda: improve.reactive(model, {}, cast(Any, "0")), TypeError, "when must be class indices"),
        (
            lambda: improve.reactive(model, {}, lambda z: z[:, 0])(X),
            ValueError, r"when must give booleans of shape \(5,\)",
        ),
        (lambda: penalties.outside(R, A[:, :2]), ValueError, r"must broadcast to the relevance"),
        (lambda: penalties.along(R, V[0]), ValueError, r"the shape of one gradient, \(3, 2\)"),
        (lambda: penalties.smoothness(R, (0,)), ValueError, r"axes must be axes of the relevance after"),
        (lambda: improve.feedback(lrp.explain(model)), ValueError, "one argument of parameters"),
        (lambda: improve.softmax_reward(np.ones(2)), ValueError, "labels must be class indices"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
