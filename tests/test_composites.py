"""Composites: which rule each layer gets."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites as C

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {f"layer{i}": {"w": jax.random.normal(k, (3, 3))} for i, k in enumerate(KEYS)}
X = jnp.array([1.0, -2.0, 0.5])


def net(params, x):
    for i in range(4):
        x = jax.nn.relu(x @ params[f"layer{i}"]["w"])
    return x


def dense_rules(composite):
    plan = lrp.plan(net, composite, PARAMS, X, argnums=1)
    return [r for row, r in zip(plan.rows, plan.rules, strict=True) if row.kind == "dense"]


E, F, Z, W = lrp.Epsilon(), lrp.Flat(), lrp.ZPlus(), lrp.WSquare()


@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        (C.by_kind("dense", E), [E, E, E, E]),
        (C.first(F) + C.by_kind("dense", E), [F, E, E, E]),
        (C.last(F) + C.by_kind("dense", E), [E, E, E, F]),
        (C.composite(C.by_kind("dense", E), C.first(F)), [E, E, E, E]),  # the first match wins
        (C.by_depth(0, 2, F) + C.by_kind("dense", E), [F, F, E, E]),
        (C.by_depth(1, None, F) + C.by_kind("dense", E), [E, F, F, F]),
        (C.by_depth(-2, None, W) + C.by_kind("dense", E), [E, E, W, W]),
        (C.by_path("layer[12]/*", Z) + C.by_kind("dense", E), [E, Z, Z, E]),
        (C.by_path(re.compile(r"layer3/.*"), Z) + C.by_kind("dense", E), [E, E, E, Z]),
        (C.where(lambda la: "0" in la.path, W) + C.by_kind("dense", E), [W, E, E, E]),
        (C.by_kind("dense", C.first(F) + C.last(W)) + C.by_kind("dense", E), [F, E, E, W]),
        (C.by_operation("dot_general", Z), [Z, Z, Z, Z]),
    ],
)
def test_the_first_match_wins(composite, expected):
    assert dense_rules(composite) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all_epsilon", C.all_epsilon()),
        (C.epsilon_plus_flat, C.epsilon_plus_flat()),
        ([C.first(F), "epsilon_plus_flat"], C.first(F) + C.epsilon_plus_flat()),
        ((C.last(W), Z), C.last(W) + C.by_kind("dense", Z)),
        ([lambda la: F if la.first else None, E], C.first(F) + C.by_kind("dense", E)),
    ],
)
def test_what_stands_for_a_composite(given, expected):
    rules = lrp.plan(net, given, PARAMS, X, argnums=1).rules
    assert rules == lrp.plan(net, expected, PARAMS, X, argnums=1).rules
    assert len(set(rules)) > 1
    jax.eval_shape(lrp.attach(net, given, argnums=1), PARAMS, X)


def test_what_no_entry_speaks_of_gets_its_default():
    plan = lrp.plan(net, C.first(F), PARAMS, X, argnums=1)
    assert set(plan.rules[1:]) == {lrp.Pass(), lrp.LRP0()}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: C.by_kind("linear", E),
            ValueError,
            f"no kind of layer 'linear': the kinds are {', '.join(map(repr, lrp.KINDS))}$",
        ),
        (lambda: C.by_kind(E, "conv"), TypeError, r"kinds must be a kind .*got Epsilon\("),
        (lambda: C.by_kind("dense", lrp.Epsilon), TypeError, r"write Epsilon\(...\)"),
        (lambda: C.first(C.epsilon_plus), TypeError, r"write epsilon_plus\(...\)"),
        (lambda: C.by_depth(0, "3", E), TypeError, "high must be a number of layers .*got '3'"),
        (lambda: C.where("conv", E), TypeError, "condition must be a function .*got 'conv'"),
        (lambda: C.first(F) + E, TypeError, r"added to composites, got Epsilon.*pass a list"),
        (lambda: E + C.first(F), TypeError, r"added to composites, got Epsilon.*pass a list"),
        (lambda: C.composite([C.first(F)]), TypeError, r"write composite\(\*parts\)"),
        (lambda: dense_rules("epsilon_pls"), ValueError, "no preset .*nearest are 'epsilon_plus'"),
        (lambda: dense_rules([("dense", E)]), ValueError, r"write by_kind\('dense', rule\)"),
        (
            lambda: dense_rules(C.epsilon_gamma_box),
            TypeError,
            r"no default for low, high: write lrp.composites.epsilon_gamma_box\(low, high\)",
        ),
        (lambda: dense_rules({"layer0/w": E}), TypeError, r"here by_path\('layer0/w', Epsilon"),
        (lambda: dense_rules([]), TypeError, "composite is an empty list"),
        (lambda: dense_rules(C.by_kind), TypeError, r"write by_kind\(kinds, then\)"),
        (lambda: dense_rules(lambda: E), TypeError, r"must take one argument, a lrp.Layer"),
        (lambda: dense_rules(lambda _: lrp.Flat), TypeError, r"for 'layer0/w': write Flat\(...\)"),
        (lambda: C.by_path(3, E), TypeError, "pattern must be a shell pattern .* got 3"),
        (lambda: C.by_operation(3, E), TypeError, "name must be that of an operation .* got 3"),
        (
            lambda: C.by_module(3, E),
            TypeError,
            "module must be a Flax module class or its name, got 3",
        ),
        (lambda: C.composite(E), TypeError, r"composite\(\) joins composites"),
        (
            lambda: dense_rules(C.by_path("layr1/w", E)),
            ValueError,
            r"'layr1/w' .* matches no layer: the nearest are 'layer1/w'",
        ),
        (
            lambda: dense_rules(C.by_module("Conv", E)),
            ValueError,
            r"module type 'Conv' .* matches no layer: there are none",
        ),
        (lambda: dense_rules(C.by_operation("gelu", lrp.Pass())), ValueError, r"operation 'gelu'"),
        (
            lambda: dense_rules(C.by_path("layer0/w", lrp.Pass()) + C.by_path("relu", E)),
            ValueError,
            r"applies to layers of kind .* matches only activation",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", C.PRESETS)
def test_presets_are_values_and_pytrees(name):
    arguments = (-1.0, 1.0) if name == "epsilon_gamma_box" else ()
    made, again = C.PRESETS[name](*arguments), C.PRESETS[name](*arguments)
    assert made == again
    assert made.name == name
    leaves, tree = jax.tree.flatten(made)
    assert jax.tree.unflatten(tree, leaves) == made


PATTERN = re.compile(r"a{2}\n/(b|\")")


def importable(layer):
    return layer.kind == "conv"


@pytest.mark.parametrize("name", C.PRESETS)
def test_code_builds_an_equal_composite(name):
    preset = C.PRESETS[name]
    made = preset(-1.0, 2.0) if name == "epsilon_gamma_box" else preset()
    assert evaluated(C.code(made)) == made


def evaluated(text):
    space = {}
    exec(text, space)
    return space["composite"]


def test_code_of_conditions_and_arrays():
    relative = lrp.rules.Stabilize(0.1, norm_scale=True, axis=(-1,))
    made = C.composite(
        C.by_path(PATTERN, lrp.Epsilon(relative)),
        C.by_path("{x}'\"", lrp.Flat()),
        C.by_module("Conv", C.by_depth(1, -2, lrp.ZPlus(bias="zero"))),
        C.by_operation("gelu", lrp.Pass()),
        C.last(lrp.LRP0()),
        C.where(importable, lrp.Gamma(1 / 3)),
        name='of "all"',
    )
    assert evaluated(C.code(made)) == made
    bounds = jnp.array([[0.1, -np.inf], [1e-8, 2.0]], jnp.float32)
    made = C.first(lrp.ZBox(bounds, jnp.float32(0.1)))
    (a, b), (c, d) = (
        (held.entries[0].then.low, held.entries[0].then.high)
        for held in (made, evaluated(C.code(made)))
    )
    np.testing.assert_array_equal(a, c)
    assert np.float32(b) == np.float32(d)
    for wrong in (C.where(lambda layer: True, lrp.Flat()), lambda layer: None):
        with pytest.raises(ValueError, match="cannot be written as code"):
            C.code(lrp.composites.given.as_composite(wrong))
    with pytest.raises(TypeError, match="a preset must be called"):
        C.code(C.default)


def test_recommended_by_hand():
    """Two dense layers in NumPy: the epsilon of each is a tenth of the root mean square of its outputs."""
    rng = np.random.default_rng(0)
    w, v, x = (rng.normal(size=shape).astype(np.float32) for shape in [(5, 6), (6, 3), (4, 5)])
    found = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v, C.recommended("dense"))(x, target=1)

    def back(inputs, weights, relevance):
        z = inputs @ weights
        epsilon = 0.1 * np.sqrt((z**2).mean(axis=-1, keepdims=True))
        return inputs * ((relevance / (z + np.where(z >= 0, epsilon, -epsilon))) @ weights.T)

    hidden = np.maximum(x @ w, 0)
    start = np.where(np.arange(3) == 1, hidden @ v, 0)
    expected = back(x, w, back(hidden, v, start))
    # float32, a few dozen operations
    np.testing.assert_allclose(found.relevance, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["convolutional", "transformer", "recurrent", "dense"])
def test_recommended_has_no_unit(architecture):
    """A layer 512 times as large, the next one 512 times as small: the same relevance, to the bit."""
    rng = np.random.default_rng(1)
    w, v = (rng.normal(size=shape).astype(np.float32) for shape in [(3, 4, 6), (6, 3)])
    x = rng.normal(size=(2, 9, 4)).astype(np.float32)

    def network(x, scale):
        dims = ("NHC", "HIO", "NHC")
        h = jax.lax.conv_general_dilated(x, w * scale, (1,), "SAME", dimension_numbers=dims)
        return (jax.nn.relu(h) @ (v / scale)).sum(axis=1)

    def relevance(composite, scale):
        return np.asarray(
            lrp.explain(lambda x: network(x, scale), composite)(x, target=0).relevance
        )

    made = C.recommended(architecture)
    np.testing.assert_array_equal(relevance(made, 512.0), relevance(made, 1.0))
    absolute = [relevance(C.all_epsilon(0.1), scale) for scale in (1.0, 512.0)]
    assert np.abs(absolute[1] - absolute[0]).max() > 0.01


def test_recommended_is_finite_where_nothing_is():
    """Inputs of zero, and a step of a recurrent network without any."""
    w, u = jnp.eye(3) * 0.5, jnp.eye(3)

    def recurrent(x):
        def step(h, at):
            gate = jax.nn.sigmoid(at @ w + h @ u)
            return gate * h + (1 - gate) * jnp.tanh(at @ u), None

        return jax.lax.scan(step, jnp.zeros(3), x)[0]

    x = jnp.zeros((4, 3)).at[2].set(1.0)
    for architecture in ("convolutional", "transformer", "recurrent", "dense"):
        found = lrp.explain(recurrent, C.recommended(architecture))(x, target=1).relevance
        assert bool(jnp.isfinite(found).all())
        assert float(abs(found[2]).sum()) > 0.01
        assert float(abs(found[jnp.array([0, 1, 3])]).max()) < 1e-6


def test_recommended_refuses_and_can_be_extended():
    with pytest.raises(
        ValueError, match="architecture must be one of 'convolutional', 'transformer'"
    ):
        C.recommended("cnn")
    made = C.first(lrp.Flat()) + C.recommended("convolutional")
    assert evaluated(C.code(made)) == made
