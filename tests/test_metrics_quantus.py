"""The bridge to Quantus without Quantus; tests/thirdparty/test_quantus_package.py has the rest."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.metrics import quantus as bridge

W = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(5, 4, 3, 2)).astype(np.float32)
VARIABLES = {"params": {"Dense_0": {"kernel": jnp.asarray(W), "bias": jnp.zeros(3)}}}


def fun(variables, x):
    layer = variables["params"]["Dense_0"]
    return x.reshape(len(x), -1) @ layer["kernel"] + layer["bias"]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_model_is_called_with_channels_last_in_few_sizes(batch_size):
    sizes = []

    def seen(variables, x):
        sizes.append(x.shape)
        return fun(variables, x)

    model = bridge.quantus_model(seen, VARIABLES, batch_size=batch_size)
    for n in (5, 4, 3, 1):
        found = model(bridge.channels_first(X[:n]))
        np.testing.assert_allclose(found, X[:n].reshape(n, -1) @ W, rtol=1e-5, atol=1e-6)
    lengths = {1: [1], 3: [3, 2, 1], 64: [8, 4, 1]}[batch_size]  # traced once each
    assert sizes == [(length, 4, 3, 2) for length in lengths]


def test_channels_first_can_stay():
    model = bridge.quantus_model(lambda x: x[:, 0, 0], channels_last=False)
    np.testing.assert_array_equal(model(X), X[:, 0, 0])


def test_an_explainer_gives_channels_first_relevance():
    explainer = lrp.explain(fun, lrp.Epsilon(), argnums=1)
    y = np.array([0, 1, 2, 0, 1])
    expected = np.moveaxis(np.asarray(explainer(VARIABLES, X, target=y).relevance), -1, 1)
    model = bridge.quantus_model(fun, VARIABLES, batch_size=2)
    inputs = bridge.channels_first(X)
    for explain in (explainer, lambda v, x, y: explainer(v, x, target=y)):
        found = bridge.explain_func(explain)(
            model=model, inputs=inputs, targets=y, method="ignored"
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    summed = bridge.explain_func(explainer, reduce_channels=True)(model, inputs, y)
    np.testing.assert_allclose(summed[:, 0], expected.sum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        bridge.channels_first(explainer(VARIABLES, X, target=y)), expected
    )


def test_layers_are_randomized_in_order():
    two = {"params": dict.fromkeys(("Dense_1", "Dense_10"), VARIABLES["params"]["Dense_0"])}
    model = bridge.quantus_model(
        fun, two, layers=("Dense_1", "Dense_10"),
        initialize=lambda key: jax.tree.map(lambda a: jnp.full_like(a, 7), two),
    )  # fmt: skip
    changed = {
        order: [
            (name, *(bool((m.variables["params"][p]["kernel"] == 7).all()) for p in two["params"]))
            for name, m in model.randomized(order, seed=0)
        ]
        for order in ("bottom_up", "top_down", "independent")
    }
    first, last = "Dense_1", "Dense_10"
    assert changed["bottom_up"] == [(first, True, False), (last, True, True)]
    assert changed["top_down"] == [(last, False, True), (first, True, True)]
    assert changed["independent"] == [(first, True, False), (last, False, True)]
    assert not (two["params"]["Dense_1"]["kernel"] == 7).any()


def test_hidden_representations_by_name():
    model = bridge.quantus_model(
        fun, VARIABLES, hidden=lambda v, x: {"x": x, "z": fun(v, x), "double": 2 * fun(v, x)}
    )
    z = X.reshape(5, -1) @ W
    found = model.representations(bridge.channels_first(X), ["z", "double"])
    np.testing.assert_allclose(found, np.hstack([z, 2 * z]), rtol=1e-5, atol=1e-5)
    assert model.representations(bridge.channels_first(X), None).shape == (5, 24 + 6)
    with pytest.raises(
        ValueError, match=r"layer_names \['y'\] are not among \['double', 'x', 'z'\]"
    ):
        model.representations(bridge.channels_first(X), ["y"])


def test_bad_input():
    with pytest.raises(
        TypeError, match=r"fun must be a function of \(variables, inputs\), got dict"
    ):
        bridge.quantus_model(VARIABLES)
    with pytest.raises(KeyError, match=r"variables have no layer 'Dense'"):
        bridge.quantus_model(fun, VARIABLES, layers=["Dense"])
    with pytest.raises(ValueError, match=r"batch_size must be an integer >= 1, got 0"):
        bridge.quantus_model(fun, VARIABLES, batch_size=0)
    model = bridge.quantus_model(fun, VARIABLES)
    with pytest.raises(ValueError, match=r"layers=\.\.\., initialize=\.\.\."):
        next(model.randomized("top_down", 0))
    with pytest.raises(ValueError, match=r"need quantus_model\(\.\.\., hidden=\.\.\.\)"):
        model.representations(X, None)
    with pytest.raises(TypeError, match=r"explains models of quantus_model, got function"):
        bridge.explain_func(lrp.explain(fun, argnums=1))(fun, X, np.zeros(5, int))


def test_without_quantus(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus", None)
    with (
        pytest.raises(ImportError, match=r'requires quantus, .*pip install "jaxlrp\[quantus\]"'),
        bridge.accepted(),
    ):
        pass
