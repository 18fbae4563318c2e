"""Pruning: scores against NumPy and autodiff, masks by hand, and parameters against switched-off units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp
from jaxlrp import composites, concepts, improve

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(3, 5)), RNG.normal(size=(5, 4))
X, Y = RNG.normal(size=(6, 2, 3)), np.array([0, 1, 2, 3, 0, 1])  # (batch, positions, features)
UNITS = concepts.Channels("tanh", axis=-1)
SCORES = {"b": np.array([3.0, 1.0, 2.0]), "a": np.array([2.0, 5.0, 2.0, 2.0])}


def model(x):
    return (jnp.tanh(x @ W) @ V).sum(axis=1)


def loss(x):
    return -jnp.take_along_axis(jax.nn.log_softmax(model(x)), Y[:, None], axis=1)[:, 0]


# Scores


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("abs_of_sum", lambda r: np.abs(r.sum(axis=1)).sum(axis=0)),
        ("sum_of_abs", lambda r: np.abs(r).sum(axis=(0, 1))),
        ("signed", lambda r: r.sum(axis=(0, 1))),
    ],
)
def test_unit_relevance(reduce, expected):
    explain = lrp.explain(model, composites.epsilon_plus())
    target = jax.nn.one_hot(Y, 4)
    record = lrp.explain(model, composites.epsilon_plus(), record="tanh")
    r = np.asarray(record(X, target=target).records["tanh"].relevance)
    score = improve.unit_relevance(explain, UNITS, reduce=reduce)
    np.testing.assert_allclose(score(X, target=target)["tanh"], expected(r), rtol=1e-10)
    parts = [score(X[i : i + 3], target=target[i : i + 3])["tanh"] for i in (0, 3)]
    np.testing.assert_allclose(parts[0] + parts[1], expected(r), rtol=1e-10)


def test_taylor_and_gradient_are_derivatives_of_the_loss():
    a = jnp.tanh(X @ W)
    g = jax.grad(lambda a: (_upper_loss(a)).sum())(a)
    for score, values in ((improve.unit_taylor, a * g), (improve.unit_gradient, g)):
        expected = np.abs(np.asarray(values).sum(axis=1)).sum(axis=0)
        np.testing.assert_allclose(score(loss, UNITS)(X)["tanh"], expected, rtol=1e-9)


def _upper_loss(a):
    z = jax.nn.log_softmax((a @ V).sum(axis=1))
    return -z[jnp.arange(6), Y]


def test_magnitude_and_random():
    kernel = RNG.normal(size=(3, 3, 2, 5))
    found = improve.unit_magnitude({"conv": kernel})
    np.testing.assert_allclose(found["conv"], np.abs(kernel).sum(axis=(0, 1, 2)))
    found = improve.unit_random(jax.random.key(0), SCORES)
    again = improve.unit_random(jax.random.key(0), dict(reversed(SCORES.items())))
    for name in SCORES:
        assert found[name].shape == SCORES[name].shape
        np.testing.assert_array_equal(found[name], again[name])


# Masks


def test_masks_by_hand():
    # sorted: b1 = 1; then a0, a2, a3, b2 = 2, of which the last goes first; b0 = 3; a1 = 5
    removed = [0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7]
    order = [("b", 1), ("b", 2), ("a", 3), ("a", 2), ("a", 0)]
    for n, rate in enumerate(removed):
        kept = improve.masks(SCORES, rate)
        gone = {(name, i) for name in kept for i in np.flatnonzero(~np.asarray(kept[name]))}
        assert gone == set(order[:n])
    kept = improve.masks(SCORES, 0.5, scope="layer")
    assert kept["a"].tolist() == [True, True, False, False]
    assert kept["b"].tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masks_remove_floor_of_rate_times_units(dtype):
    scores = {"a": RNG.normal(size=60), "b": RNG.normal(size=40)}
    for percent in range(0, 90, 1):
        kept = improve.masks(scores, dtype(percent / 100))
        assert sum(int((~mask).sum()) for mask in kept.values()) == percent
    assert sum(int((~m).sum()) for m in improve.masks(scores, 0.4999).values()) == 49


def test_masks_of_normalized_scores():
    scores = {"a": np.array([1.0, 9.0]), "b": np.array([0.2, 0.3, 0.4])}
    kept = improve.masks(scores, 0.4)
    assert (kept["a"].tolist(), kept["b"].tolist()) == ([True, True], [False, False, True])
    kept = improve.masks(scores, 0.4, normalize="l1")  # [.1, .9], [.22, .33, .44]
    assert (kept["a"].tolist(), kept["b"].tolist()) == ([False, True], [False, True, True])
    # one of 19 units goes: .0995 of a under l2, where b has .1118; .0274 of b under l1, where a has .0909
    scores = {"a": np.array([1.0, 0.1]), "b": np.append(np.ones(16), 0.45)}
    assert not improve.masks(scores, 0.06, normalize="l2")["a"][1]
    assert not improve.masks(scores, 0.06, normalize="l1")["b"][16]


def test_masks_vmapped_jitted_and_in_a_loop_agree():
    rates = jnp.arange(0, 0.8, 0.05)
    together = jax.vmap(lambda rate: improve.masks(SCORES, rate))(rates)
    compiled = jax.jit(improve.masks)
    with_known_scores = jax.jit(lambda rate: improve.masks(SCORES, rate))
    for i, rate in enumerate(rates):
        one, other = improve.masks(SCORES, rate), compiled(SCORES, rate)
        for name in SCORES:
            np.testing.assert_array_equal(together[name][i], one[name])
            np.testing.assert_array_equal(other[name], one[name])
            np.testing.assert_array_equal(with_known_scores(rate)[name], one[name])


# Switching off


def test_switched_off_units_are_zero_and_rate_zero_changes_nothing():
    kept = np.array([True, False, True, True, False])
    f = lrp.edit(model, improve.switch_off({"tanh": kept}, UNITS))
    np.testing.assert_allclose(f(X), ((np.tanh(X @ W) * kept) @ V).sum(axis=1), rtol=1e-10)
    whole = improve.masks({"tanh": RNG.normal(size=5)}, 0.0)
    f = lrp.edit(model, improve.switch_off(whole, UNITS))
    np.testing.assert_array_equal(f(X), model(X))


def test_two_families_of_a_layer_and_heads():
    families = {
        "heads": concepts.Heads("tanh", 2, axis=-1),
        "units": concepts.Channels("tanh", axis=-1),
    }
    w, v = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
    kept = {"heads": np.array([True, False]), "units": np.array([False, True, True, True])}
    f = lrp.edit(lambda x: jnp.tanh(x @ w) @ v, improve.switch_off(kept, families))
    expected = (np.tanh(X @ w) * np.array([0.0, 1.0, 0.0, 0.0])) @ v
    np.testing.assert_allclose(f(X), expected, rtol=1e-10)


def test_pruning_curve_is_the_loop():
    scores, rates = {"tanh": RNG.normal(size=5)}, [0.0, 0.2, 0.6]
    x, y = RNG.normal(size=(40, 2, 3)), RNG.integers(0, 4, size=40)
    expected = []
    for rate in rates:
        kept = np.asarray(improve.masks(scores, rate)["tanh"])
        z = ((np.tanh(x @ W) * kept) @ V).sum(axis=1)
        expected.append(np.mean(z.argmax(axis=1) == y))
    for batch_size in (None, 16):
        curve = improve.pruning_curve(model, scores, UNITS, rates, x, y, batch_size=batch_size)
        np.testing.assert_allclose(curve.accuracy, expected, rtol=1e-12)
    area = (0.2 * (expected[0] + expected[1]) + 0.4 * (expected[1] + expected[2])) / 2 / 0.6
    np.testing.assert_allclose(curve.area, area, rtol=1e-10)


# Parameters


class Net(nn.Module):
    channels: int = 6
    hidden: int = 5

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.channels, (3, 3), name="conv_1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="norm_1")(x))
        x = nn.Conv(4, (3, 3), name="conv_2")(x).reshape(len(x), -1)
        x = nn.relu(nn.Dense(self.hidden, name="dense")(x))
        return nn.Dense(3, name="head")(x)


WIRING = {
    "relu": improve.Wiring(writes=["conv_1", "norm_1"], reads=["conv_2"]),
    "relu:1": improve.Wiring(writes=["dense"], reads=["head"]),
}
KEPT = {
    "relu": np.array([True, False, True, True, False, True]),
    "relu:1": np.array([False, True, True, True, False]),
}
IMAGES = RNG.normal(size=(2, 4, 4, 2))


def trained():
    """Variables without a zero or a one in them."""
    shapes = jax.eval_shape(Net().init, jax.random.key(0), IMAGES.astype(np.float32))
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.uniform(0.2, 1, leaf.shape)) - 0.1, shapes)


def test_masked_parameters_are_switched_off_units_bit_for_bit():
    variables, families = trained(), [concepts.Channels(name, axis=-1) for name in KEPT]
    masked = improve.mask_parameters(variables, KEPT, WIRING)
    switched = lrp.edit(Net().apply, improve.switch_off(KEPT, families))
    np.testing.assert_array_equal(Net().apply(masked, IMAGES), switched(variables, IMAGES))
    assert not np.array_equal(switched(variables, IMAGES), Net().apply(variables, IMAGES))
    nothing = improve.masks({name: RNG.normal(size=len(mask)) for name, mask in KEPT.items()}, 0.0)
    for a, b in zip(
        jax.tree.leaves(improve.mask_parameters(variables, nothing, WIRING)),
        jax.tree.leaves(variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    inner = improve.mask_parameters(variables["params"], KEPT, WIRING)  # without collections
    np.testing.assert_array_equal(inner["norm_1"]["bias"], masked["params"]["norm_1"]["bias"])


def test_shrunk_parameters_compute_the_same():
    variables = trained()
    small = improve.shrink(variables, KEPT, WIRING)
    net = Net(channels=4, hidden=3)
    expected = jax.eval_shape(net.init, jax.random.key(0), IMAGES.astype(np.float32))
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
    masked = Net().apply(improve.mask_parameters(variables, KEPT, WIRING), IMAGES)
    np.testing.assert_allclose(net.apply(small, IMAGES), masked, rtol=1e-12)


def test_units_are_cut_out_before_a_flattened_reader():
    """conv_2 has four channels, which the dense layer reads at 16 pixels each."""
    variables, kept = trained(), {"conv_2": np.array([True, False, False, True])}
    wiring = {"conv_2": improve.Wiring(writes=["conv_2"], reads=["dense"])}
    masked = improve.mask_parameters(variables, kept, wiring)
    small = improve.shrink(variables, kept, wiring)
    h = RNG.normal(size=(2, 4, 4, 6))

    def rest(p):
        z = jax.lax.conv_general_dilated(
            h, p["conv_2"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (z + p["conv_2"]["bias"]).reshape(2, -1) @ p["dense"]["kernel"]

    assert small["params"]["dense"]["kernel"].shape == (32, 5)
    np.testing.assert_allclose(rest(small["params"]), rest(masked["params"]), rtol=1e-12)


class NnxNet(nnx.Module):
    def __init__(self, hidden, rngs):
        self.one = nnx.Linear(3, hidden, rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, use_running_average=True, rngs=rngs)
        self.two = nnx.Linear(hidden, 2, rngs=rngs)

    def __call__(self, x):
        return self.two(nnx.relu(self.norm(self.one(x))))


def test_parameters_of_nnx():
    net = NnxNet(5, nnx.Rngs(0))
    graph, state = nnx.split(net)
    state = jax.tree.map(lambda leaf: jnp.asarray(RNG.uniform(0.2, 1, leaf.shape)), state)
    net, x = nnx.merge(graph, state), X[:, 0]
    kept, units = {"relu": KEPT["relu:1"]}, concepts.Channels("relu", axis=-1)
    wiring = {"relu": improve.Wiring(writes=["one", "norm"], reads=["two"])}
    expected = lrp.edit(net, improve.switch_off(kept, units))(x)
    masked = nnx.merge(graph, improve.mask_parameters(state, kept, wiring))
    np.testing.assert_array_equal(masked(x), expected)
    small = nnx.merge(nnx.graphdef(NnxNet(3, nnx.Rngs(0))), improve.shrink(state, kept, wiring))
    np.testing.assert_allclose(small(x), expected, rtol=1e-12)


# Errors

VARIABLES = {"params": {"conv_1": {"kernel": np.ones((3, 6))}}}
ONE = {"relu": improve.Wiring(["conv_1"], ["conv_1"])}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: improve.masks(SCORES, 1.0), ValueError, r"rate must be in \[0, 1\), got 1\.0"),
        (lambda: improve.masks(SCORES, -0.1), ValueError, r"rate must be in \[0, 1\), got -0\.1"),
        (lambda: improve.masks(SCORES, np.nan), ValueError, r"rate must be in \[0, 1\), got nan"),
        (lambda: improve.masks({"a": [1.0, 2.0], "b": [3.0, 4.0]}, 0.5), ValueError, "all 2 units of 'a'"),
        (lambda: improve.masks({"a": [1.0, np.nan]}, 0.5), ValueError, r"scores\['a'\] must not have NaN"),
        (lambda: improve.masks({"a": np.ones((2, 2))}, 0.5), ValueError, r"got shape \(2, 2\)"),
        (lambda: improve.masks({}, 0.5), ValueError, "at least one layer"),
        (lambda: improve.masks(SCORES, 0.5, scope="all"), ValueError, "scope must be one of 'global'"),
        (lambda: improve.masks(SCORES, 0.5, normalize="max"), ValueError, "normalize must be one of 'l1'"),
        (
            lambda: improve.switch_off({"relu": np.ones(3, bool)}, UNITS),
            ValueError, "masks has an entry 'relu', but concepts has none",
        ),
        (
            lambda: improve.switch_off({"tanh": np.ones(5)}, UNITS),
            ValueError, r"must be \(units,\) booleans, got float64 of shape \(5,\)",
        ),
        (
            lambda: lrp.edit(model, improve.switch_off({"tanh": np.ones(4, bool)}, UNITS))(X),
            ValueError, "must have 5 entries, one for each unit of the layer 'tanh', got 4",
        ),
        (
            lambda: improve.unit_relevance(lrp.explain(model), UNITS, reduce="mean"),
            ValueError, "reduce must be one of 'abs_of_sum'",
        ),
        (
            lambda: improve.pruning_curve(model, {"tanh": np.ones(5)}, UNITS, [0.5, 0.2], X, Y),
            ValueError, "rates must be a sequence of increasing numbers",
        ),
        (
            lambda: improve.mask_parameters(VARIABLES, {"relu": np.ones(5, bool)}, ONE),
            ValueError, r"has 5 units, but a parameter of 'conv_1', of shape \(3, 6\), has 6 on axis -1",
        ),
        (
            lambda: improve.mask_parameters(VARIABLES, KEPT, {"relu": improve.Wiring(["conv_2"])}),
            ValueError, r"names a module without parameters, 'conv_2': there are \['conv_1'\]",
        ),
        (
            lambda: improve.shrink(VARIABLES, {"relu": np.zeros(6, bool)}, ONE),
            ValueError, r"masks\['relu'\] removes the whole layer",
        ),
        (
            lambda: improve.shrink(VARIABLES, {"relu": KEPT["relu"]}, ONE),
            ValueError, r"has 6 units, but a parameter of 'conv_1', of shape \(3, 4\), has 3 on axis -2",
        ),
        (
            lambda: jax.jit(lambda m: improve.shrink(VARIABLES, m, ONE))({"relu": KEPT["relu"]}),
            ValueError, "must not be traced, because shapes depend on it",
        ),
        (lambda: improve.Wiring("conv_1"), TypeError, "writes must be a sequence"),
    ],
)  # fmt: skip
def test_what_cannot_be_pruned_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
