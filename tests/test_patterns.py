"""PatternNet and PatternAttribution: fitted patterns and the rule, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import patterns

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W, B, V = RNG.normal(size=(4, 5)), RNG.normal(size=5), RNG.normal(size=(5, 3))
B[3] = -50.0  # a dead unit
X = RNG.normal(size=(60, 4)) @ RNG.normal(size=(4, 4)) + 0.5


def model(x):
    return jax.nn.relu(x @ W + B) @ V


def pattern(x, w, b, everywhere):
    """By the definition, one unit after the other."""
    found = np.zeros_like(w)
    for k in range(w.shape[1]):
        y = x @ w[:, k]
        rows = np.ones(len(y), bool) if everywhere else y + b[k] > 0
        if rows.any():
            seen, y = x[rows], y[rows]
            top = (seen * y[:, None]).mean(0) - seen.mean(0) * y.mean()
            bottom = w[:, k] @ (seen * y[:, None]).mean(0) - w[:, k] @ seen.mean(0) * y.mean()
            found[:, k] = top / bottom
    return found


HIDDEN = np.maximum(X @ W + B, 0)
LOWER, UPPER = pattern(X, W, B, False), pattern(HIDDEN, V, np.zeros(3), True)


def test_patterns_are_regressions_of_the_input_on_the_output():
    found = patterns.fit(model, [(X[:25],), (X[25:],)])  # sums over batches
    lower, upper = found.values()
    np.testing.assert_allclose(lower, LOWER, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(upper, UPPER, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose((W * lower).sum(0), [1, 1, 1, 0, 1], rtol=1e-12)
    np.testing.assert_allclose((V * upper).sum(0), np.ones(3), rtol=1e-12)


def test_patterns_of_a_convolution_are_those_of_its_patches():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(3, (2, 2), padding="VALID", param_dtype=jnp.float64)(x))
            return x.sum((1, 2))

    net, x = Net(), RNG.normal(size=(6, 4, 4, 2))
    variables = net.init(jax.random.key(0), x)
    (found,) = patterns.fit(net.apply, [(variables, x)], argnums=1).values()
    kernel = np.asarray(variables["params"]["Conv_0"]["kernel"])
    patches = np.stack(
        [x[:, i : i + 2, j : j + 2].reshape(6, -1) for i in range(3) for j in range(3)], axis=1
    ).reshape(54, -1)
    # the convolution is the last layer with parameters: all positions count
    expected = pattern(patches, kernel.reshape(8, 3), np.zeros(3), True)
    np.testing.assert_allclose(found, expected.reshape(kernel.shape), rtol=1e-9)


def test_patterns_in_float32_of_outputs_far_from_zero():
    """Sums of products in place of deviations are wrong by 4e-5 here."""
    x = (X + 30).astype(np.float32)  # the variance of outputs is a thousandth of their square
    w = np.abs(W).astype(np.float32)
    batches = [(x[:25],), (x[25:],)]
    (found,) = patterns.fit(lambda x: x @ w, batches).values()
    assert found.dtype == np.float32
    expected = pattern(x.astype(float), w.astype(float), np.zeros(5), True)
    # outputs of about 100 are rounded to 4e-6, at random, and their deviations are about 3
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_batches_of_one_shape_share_a_program():
    traces = []

    def counted(x):
        traces.append(None)
        return model(x)

    patterns.fit(counted, [(X[:20],)])
    once = len(traces)
    found = patterns.fit(counted, [(X[:20],), (X[20:40],), (X[40:],)])
    assert len(traces) == 2 * once
    for a, b in zip(found.values(), (LOWER, UPPER), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    patterns.fit(counted, [(X[:40],), (X[40:],)])
    assert len(traces) == 4 * once


@pytest.mark.parametrize("weighted", [True, False])
def test_patterns_replace_the_weights_of_the_derivative(weighted):
    fitted = patterns.fit(model, [(X,)])
    composite = patterns.attribution(fitted) if weighted else patterns.signal(fitted)
    onehot = np.eye(3)[[0, 1, 2]]
    found = lrp.explain(model, composite)(X[:3], target=lambda z: z * onehot).relevance
    lower, upper = (W * LOWER, V * UPPER) if weighted else (LOWER, UPPER)
    start = np.asarray(model(X[:3])) * onehot
    gate = (X[:3] @ W + B > 0).astype(float)
    np.testing.assert_allclose(found, ((start @ upper.T) * gate) @ lower.T, rtol=1e-9)


def test_a_pattern_of_one_is_the_gradient():
    (path, *_), ones = patterns.fit(model, [(X,)]), np.ones((4, 5))
    composite = patterns.attribution({path: ones})
    found = lrp.explain(model, composite)(X, target=1).relevance
    np.testing.assert_allclose(found, lrp.explain(model, "gradient")(X, target=1).relevance)


def looped(x):
    return jax.lax.scan(lambda c, _: (c @ W[:, :4], None), x, length=2)[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: patterns.fit(model, []), ValueError, "batches must have at least one batch"),
        (lambda: patterns.fit(jax.nn.relu, [(X,)]), ValueError, "a function with dense layers"),
        (
            lambda: patterns.fit(looped, [(X,)]),
            ValueError, "inside of a loop, jit or checkpoint",
        ),
        (
            lambda: patterns.fit(jax.checkpoint(model), [(X,)]),
            ValueError, "the values of '.*' are not known, because it is inside of a loop, jit or checkp",
        ),
        (
            lambda: jax.jit(lambda x: patterns.fit(model, [(x,)]))(X),
            ValueError, "the values of '.*' are not known, because it is inside of a loop, jit or checkp",
        ),
        (lambda: patterns.attribution([W]), TypeError, "patterns must be a dictionary"),
        (
            lambda: lrp.explain(model, [lrp.rules.Pattern(np.ones(2))])(X, target=0),
            ValueError, r"must broadcast to its weight, of shape \(5, 3\), got \(2,\)",
        ),
    ],
)  # fmt: skip
def test_what_has_no_pattern_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
