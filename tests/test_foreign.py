"""Models of other frameworks and arrays of other libraries, without any of these installed.

`tests/thirdparty/test_pytorch.py` has the real ones.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import baselines, composites, pytorch
from jaxlrp.network.foreign import ForeignModel, as_jax, in_module

W = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


class Layer:
    """A module of a framework of its own."""


class Elsewhere:
    """An array of another library."""

    def __init__(self, values: np.ndarray, strided: bool = False) -> None:
        self._values = np.stack([values, values], -1)[..., 0] if strided else values

    def __dlpack__(self, **kwargs):
        return self._values.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


def network(variables, x, scale=1.0):
    def layer(x, name):
        return jax.nn.relu(x @ variables[f"body.{name}.weight"])

    for name in ("0", "1"):
        x = in_module(f"body.{name}", Layer, layer)(x, name)
    # a module that uses the parameter of a child
    return scale * in_module("head", Layer, lambda x: x @ variables["head.out.weight"])(x)


def model() -> ForeignModel:
    names = ("body.0.weight", "body.1.weight", "head.out.weight")
    variables = {name: jnp.asarray(w) for name, w in zip(names, [*W, W[0]], strict=True)}
    return ForeignModel(network, variables, "Network")


def test_it_is_explained_like_its_function():
    net = model()
    expected = lrp.explain(network, argnums=1)(net.variables, X, target=1)
    own = lrp.explain(net)(X, target=1)
    given = lrp.explain(net.apply)(net.variables, X, target=1)
    scaled = lrp.explain(net)(X, target=1, fun_kwargs={"scale": 2.0})
    np.testing.assert_allclose(own.output, net(X), rtol=1e-6)
    np.testing.assert_allclose(own.relevance, expected.relevance, rtol=1e-6)
    np.testing.assert_allclose(given.relevance, expected.relevance, rtol=1e-6)
    np.testing.assert_allclose(scaled.relevance, 2 * expected.relevance, rtol=1e-4)  # epsilon
    assert baselines.gradient(net)(X, target=1).relevance.shape == X.shape
    assert repr(net) == "ForeignModel(Network, 48 numbers in 3 variables)"
    assert repr(lrp.explain(net)) == "Explainer(Network, default, argnums=0)"


def test_layers_have_the_names_and_types_of_its_modules():
    net = model()
    rule = composites.by_module(Layer, lrp.ZPlus()) + composites.default()
    body = ("body.0", "body.0/relu", "body.1", "body.1/relu")
    around = lrp.plan(lambda x: net(x)[:, :2], rule, X)  # the variables have no names there
    for plan, head in (
        (lrp.plan(net, rule, X), "head.out"),
        (lrp.plan(net.then(lambda z: z[:, :2]), rule, X), "head.out"),
        (around, "head"),
    ):
        assert plan.paths == (*body, head)
        assert {row.module for row in plan.rows} == {"Layer"}
        assert isinstance(plan[head], lrp.ZPlus)


def test_an_error_names_the_module_in_which_it_was_raised():
    def fail(x):
        raise ValueError("no")

    outer = in_module("outer", Layer, in_module("outer.inner", Layer, fail))
    with pytest.raises(ValueError, match="no") as caught:
        outer(X)
    assert caught.value.__notes__ == ["in module 'outer.inner' (Layer)"]


@pytest.mark.parametrize("strided", [False, True])
def test_arrays_of_other_libraries(strided):
    explain = lrp.explain(model())
    target = np.array([0, 1, 2], np.int32)
    expected = explain(X, target=target).relevance
    x = Elsewhere(X, strided)
    np.testing.assert_array_equal(explain(x, target=Elsewhere(target)).relevance, expected)
    np.testing.assert_array_equal(explain.vjp(x)(target=Elsewhere(target)).relevance, expected)
    assert explain.plan(x).paths == explain.plan(X).paths
    mask = {"body.0": np.float32([0.0, 1.0, 0.5, 2.0])}
    masked = explain(X, target=target, condition=mask).relevance
    given = {path: Elsewhere(m) for path, m in mask.items()}
    np.testing.assert_array_equal(explain(x, target=target, condition=given).relevance, masked)
    assert float(explain.ledger(x, target=target).input) == pytest.approx(float(expected.sum()))


def test_they_are_compared_with_the_bounds_of_a_z_box():
    explain = lrp.explain(model(), composites.first(lrp.ZBox(-1.0, 1.0)) + composites.default())
    explain(Elsewhere(X / np.abs(X).max()), target=1)
    with pytest.warns(UserWarning, match="outside of its z-box"):
        explain(Elsewhere(X + 3), target=1)


def test_they_are_copied():
    room = np.zeros(1024 + 16, np.float32)  # JAX would share memory that is aligned to 64 bytes
    start = -room.ctypes.data % 64 // 4
    values = room[start : start + 1024]
    found = as_jax(Elsewhere(values))
    values[:] = 1
    assert float(found.sum()) == 0.0


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'requires torch, .*pip install "jaxlrp\[torch\]"'):
        pytorch.convert(None)  # pyright: ignore[reportArgumentType]
