"""Axioms against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import baselines, metrics
from jaxlrp.metrics import features, removal

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
N = 5
W1, B1 = RNG.normal(size=(12, 6)), RNG.normal(size=6)
W2, B2 = RNG.normal(size=(6, 3)), RNG.normal(size=3)
W1[[2, 7]] = 0.0  # two values that the model does not see
X = RNG.normal(size=(N, 3, 4))
A = RNG.normal(size=(N, 3, 4))
A[:, 0, 1:3] = 0.0  # the values 1 and 2: one of them is not seen
A[0, 1, 1] = 1e-7
TARGETS = np.array([0, 2, 1, 0, 2])
KEY = jax.random.key(2)


def predict(x):
    return jnp.tanh(x.reshape(len(x), -1) @ W1 + B1) @ W2 + B2


def score(x, probability=False):
    """The score of the targets in NumPy."""
    z = np.tanh(x.reshape(N, -1) @ W1 + B1) @ W2 + B2
    if probability:
        z = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return z[np.arange(N), TARGETS]


@pytest.mark.parametrize("probability", [False, True])
@pytest.mark.parametrize("baseline", [0.0, 0.5, "mean", None])
def test_completeness(baseline, probability):
    a = A + np.linspace(-1, 1, N)[:, None, None]
    gained = score(X, probability)
    if baseline == "mean":
        given = removal.Mean()
        mean = X.mean(axis=(1, 2), keepdims=True)
        gained = gained - score(np.broadcast_to(mean, X.shape), probability)
    elif baseline is None:
        given = None
    else:
        given = removal.Constant(baseline)
        gained = gained - score(np.full_like(X, baseline), probability)
    residual = a.sum(axis=(1, 2)) - gained
    want = {
        "signed": residual,
        "absolute": np.abs(residual),
        "relative": np.abs(residual / gained),
    }
    for kind, expected in want.items():
        made = metrics.Completeness(
            baseline=given, residual=kind, score="probability" if probability else "logit"
        )
        close(made(predict, X, a, TARGETS), expected)
        assert made.higher_is_better is (None if kind == "signed" else False)
        assert not made.random
    assert (residual < 0).any()
    assert (residual > 0).any()


def test_completeness_of_explanations():
    """Integrated gradients are complete; so is LRP-0, from f(x) itself, without biases."""

    def net(x):
        return jax.nn.relu(x.reshape(len(x), -1) @ W1) @ W2

    x, y = X[:3], TARGETS[:3]  # the others light no unit of that network
    integrated = baselines.integrated_gradients(predict, n_steps=64)
    found = integrated(x, target=y)
    relative = metrics.Completeness()
    assert relative(predict, x, found, y).max() < 1e-3
    relevance = lrp.explain(net, lrp.composites.all_epsilon(epsilon=0.0))(x, target=y)
    itself = metrics.Completeness(baseline=None)
    assert itself(net, x, relevance, y).max() < 1e-10
    gradient = baselines.gradient(net)(x, target=y)
    assert itself(net, x, gradient, y).min() > 1e-3


def test_relative_completeness_is_undefined_where_the_score_is_that_of_the_baseline():
    found = metrics.Completeness()(predict, np.zeros_like(X), A, TARGETS)
    assert np.isnan(found).all()
    found = metrics.Completeness(residual="signed")(predict, np.zeros_like(X), A, TARGETS)
    close(found, A.sum(axis=(1, 2)))


def non_sensitivity(a, groups, fill, epsilon, probability):
    """By a loop over features; `groups` are lists of positions in a flattened example."""
    before, wrong = score(X, probability), np.zeros(N)
    for group in groups:
        x = X.reshape(N, -1).copy()
        x[:, group] = fill
        idle = np.abs(score(x.reshape(X.shape), probability) - before) < epsilon
        wrong += (np.abs(a.reshape(N, -1)[:, group].sum(1)) < epsilon) ^ idle
    return wrong


@pytest.mark.parametrize("batch_size", [3, 7, 1000])
@pytest.mark.parametrize(
    ("layout", "groups"),
    [
        (features.Elements(), [[i] for i in range(12)]),
        (features.Blocks(1), [[i, i + 4, i + 8] for i in range(4)]),
    ],
    ids=["elements", "columns"],
)
def test_non_sensitivity(layout, groups, batch_size):
    for probability, epsilon in [(False, 1e-5), (True, 0.02)]:
        made = metrics.NonSensitivity(
            features=layout,
            removal=removal.Constant(0.5),
            score="probability" if probability else "logit",
            epsilon=epsilon,
            output_epsilon=epsilon,
            batch_size=batch_size,
        )
        want = non_sensitivity(A, groups, 0.5, epsilon, probability)
        np.testing.assert_array_equal(made(predict, X, A, TARGETS), want)
        if len(groups) == 12:
            assert want.min() > 0
            assert len(set(want)) > 1
    assert made.higher_is_better is False


def test_non_sensitivity_of_a_faultless_explanation():
    """The gradient times the input of a linear model that does not see one column."""
    w = np.array([1.0, 0.0, -2.0])
    x = np.array([[1.0, 2.0, 3.0], [1.0, 0.0, 1.0]])
    count = metrics.NonSensitivity(score="logit")

    def linear(x):
        return x @ w

    np.testing.assert_array_equal(count(linear, x, x * w), [0, 0])
    np.testing.assert_array_equal(count(linear, x, np.ones((2, 3))), [1, 1])
    # The second value of the second sample is zero already: removing it changes nothing.
    np.testing.assert_array_equal(count(linear, x, x), [1, 0])


def test_features_that_a_sample_lacks_are_not_counted():
    labels = np.zeros((N, 3, 4), int)
    labels[1:] = np.arange(4)
    labels[2, :, 3] = -1  # never removed
    count = metrics.NonSensitivity(
        features=features.Segments(labels), score="logit", epsilon=1e9, output_epsilon=1e-30
    )
    # No attribution counts, every removal does: all features are wrong.
    np.testing.assert_array_equal(count(predict, X, A, TARGETS), [1, 4, 3, 4, 4])


def test_batch_equals_singles_and_jit_equals_eager():
    made = [
        metrics.NonSensitivity(removal=removal.Uniform(), output_epsilon=0.02, epsilon=0.3),
        metrics.Completeness(baseline=removal.Noise(1.0)),
    ]
    keys = jax.random.split(KEY, N)
    for m in made:
        assert m.random
        whole = m(predict, X, A, TARGETS, key=keys)
        for i in (0, 3):
            part = slice(i, i + 1)
            close(m(predict, X[part], A[part], TARGETS[part], key=keys[part]), whole[part])
        close(jax.jit(lambda x, a, m=m: m(predict, x, a, TARGETS, key=keys))(X, A), whole)


def test_not_finite():
    a = A.copy()
    a[1, 0, 0], a[2, 0, 0] = np.nan, np.inf
    for m in (metrics.Completeness(), metrics.NonSensitivity()):
        np.testing.assert_array_equal(
            np.isnan(m(predict, X, a, TARGETS)), [False, True, True, False, False]
        )


def test_float32():
    with jax.enable_x64(False):
        x, a = X.astype(np.float32), A.astype(np.float32)

        def single(x):
            h = jnp.tanh(x.reshape(len(x), -1) @ W1.astype(np.float32) + B1.astype(np.float32))
            return h @ W2.astype(np.float32) + B2.astype(np.float32)

        found = metrics.Completeness(residual="signed")(single, x, a, TARGETS.astype(np.int32))
        count = metrics.NonSensitivity(score="logit")(single, x, a, TARGETS.astype(np.int32))
    assert found.dtype == count.dtype == np.float32
    close(found, A.sum(axis=(1, 2)) - score(X) + score(np.zeros_like(X)), rtol=1e-5)
    groups = [[i] for i in range(12)]
    np.testing.assert_array_equal(count, non_sensitivity(A, groups, 0.0, 1e-5, False))


VARIABLES = {"first": {"kernel": W1, "bias": B1}, "second": {"kernel": W2, "bias": B2}}


def model(v, x):
    """A perceptron with a kink, whose first layer sees the flattened input."""
    h = x.reshape(len(x), -1) @ v["first"]["kernel"] + v["first"]["bias"]
    return jax.nn.relu(h) @ v["second"]["kernel"] + v["second"]["bias"]


def explained(method):
    return lambda v, x, y: method(v, x, target=y)


ABSORB = metrics.absorb_in_bias("first")
GRADIENT = explained(baselines.gradient(model, argnums=1))
EPSILON = explained(lrp.explain(model, lrp.composites.all_epsilon(), argnums=1))


@pytest.mark.parametrize("shift", [1.0, RNG.normal(size=(3, 4))])
def test_input_invariance(shift):
    made = metrics.InputInvariance(shift=shift, absorb=ABSORB)
    np.testing.assert_allclose(made(model, GRADIENT, VARIABLES, X, TARGETS), 0, atol=1e-12)

    def times_input(v, x, y):
        return x * GRADIENT(v, x, y).relevance

    g = np.asarray(GRADIENT(VARIABLES, X, TARGETS).relevance)
    moved = (g * shift).reshape(N, -1)
    want = np.sqrt((moved**2).sum(1) / ((g * X) ** 2).reshape(N, -1).sum(1))
    found = made(model, times_input, VARIABLES, X, TARGETS)
    close(found, want)
    close(jax.jit(lambda v, x: made(model, times_input, v, x, TARGETS))(VARIABLES, X), want)
    # The rules of LRP take the zero of the input as a reference.
    assert made(model, EPSILON, VARIABLES, X, TARGETS).min() > 0.05
    assert made.higher_is_better is False


def test_z_box_is_invariant_if_its_bounds_move_along():
    def boxed(v, x, y):
        first = lrp.composites.first(lrp.ZBox(v["low"], v["high"]))
        rules = lrp.composites.composite(first, lrp.composites.all_epsilon())
        return lrp.explain(model, rules, argnums=1)(v, x, target=y)

    def absorb(v, m):
        return {**ABSORB(v, m), "low": v["low"] + m[0, 0], "high": v["high"] + m[0, 0]}

    held = {**VARIABLES, "low": jnp.asarray(X.min()), "high": jnp.asarray(X.max())}
    made = metrics.InputInvariance(shift=1.0, absorb=absorb)
    assert made(model, boxed, held, X, TARGETS).max() < 1e-6
    fixed = metrics.InputInvariance(shift=1.0, absorb=ABSORB)
    assert fixed(model, boxed, held, X, TARGETS).min() > 0.01


def test_a_model_that_was_not_shifted_is_undefined():
    made = metrics.InputInvariance(absorb=lambda v, m: v)
    assert np.isnan(made(model, GRADIENT, VARIABLES, X, TARGETS)).all()


def test_convolution():
    """One shift for each channel; exact without padding, undefined with zeros around."""
    kernel, bias = RNG.normal(size=(3, 2, 4)), RNG.normal(size=4)
    v = {"params": {"Conv_0": {"kernel": kernel, "bias": bias}}}
    x = RNG.normal(size=(N, 8, 2))

    def conv(padding):
        def net(v, x):
            layer = v["params"]["Conv_0"]
            h = jax.lax.conv_general_dilated(
                x, layer["kernel"], (1,), padding, dimension_numbers=("NWC", "WIO", "NWC")
            )
            return jax.nn.relu(h + layer["bias"]).mean(1)

        return net

    shift = np.array([0.5, -1.0])
    made = metrics.InputInvariance(shift=shift, absorb=metrics.absorb_in_bias("params/Conv_0"))
    for padding in ("VALID", "SAME"):
        net = conv(padding)
        method = explained(baselines.gradient(net, argnums=1))
        found = made(net, method, v, x, TARGETS)
        if padding == "VALID":
            np.testing.assert_allclose(found, 0, atol=1e-12)
        else:
            assert np.isnan(found).all()
    changed = metrics.absorb_in_bias("params/Conv_0")(v, np.broadcast_to(shift, (8, 2)))
    close(changed["params"]["Conv_0"]["bias"], bias - kernel.sum(0).T @ shift)
    np.testing.assert_array_equal(v["params"]["Conv_0"]["bias"], bias)


REFUSED = [
    (
        lambda: metrics.Completeness(residual="bool"),
        ValueError,
        "residual must be one of 'signed', 'absolute', 'relative', got 'bool'",
    ),
    (lambda: metrics.NonSensitivity(epsilon=-1.0), ValueError, r"epsilon must be > 0, got -1\.0"),
    (
        lambda: metrics.NonSensitivity()(predict, X, A[:, :1], TARGETS),
        ValueError,
        r"attributions of shape \(5, 1, 4\) have one value along axis 0",
    ),
    (
        lambda: metrics.NonSensitivity()(predict, X, A, [0, 1, 2, 3, 0]),
        IndexError,
        r"targets\[3\] = 3 is out of range: the model has 3 classes",
    ),
    (
        lambda: metrics.Completeness(baseline=removal.Noise())(predict, X, A, TARGETS),
        TypeError,
        "Completeness draws random numbers: pass key",
    ),
    (
        lambda: metrics.InputInvariance(absorb=ABSORB)(model, None, VARIABLES, X, TARGETS),
        TypeError,
        r"explain must be a function whose first arguments are \(variables, inputs\), got NoneType",
    ),
    (
        lambda: metrics.InputInvariance(absorb=ABSORB)(model, GRADIENT, VARIABLES, X.astype(int)),
        TypeError,
        "inputs must be floats to be shifted, got int64",
    ),
    (
        lambda: metrics.absorb_in_bias("first/dense")(VARIABLES, np.ones((3, 4))),
        KeyError,
        "variables have no layer .*'first/dense.* with a kernel and a bias",
    ),
    (
        lambda: metrics.absorb_in_bias("second")(VARIABLES, np.ones((3, 4))),
        ValueError,
        r"the layer 'second' does not see the input first: its kernel has shape \(6, 3\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_sample_without_features_is_undefined():
    of = features.Segments(jnp.array([[0, 1], [-1, -1]]))
    x = jnp.ones((2, 2))
    found = metrics.NonSensitivity(features=of, score="logit")(lambda x: x.sum(axis=1), x, x)
    assert np.isnan(found).tolist() == [False, True]
