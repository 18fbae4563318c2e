"""The JAX networks compute what their PyTorch twins computed when `zennit.npz` was frozen."""

from pathlib import Path

import jax
import numpy as np
import pytest

import formula
import networks
from linen_networks import LINEN
from nnx_networks import NNX, build
from numeric import promoting

TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
FROZEN = np.load(Path(__file__).parent / "zennit.npz")


pytestmark = pytest.mark.usefixtures("x64")


def frozen_output(name: str) -> np.ndarray:
    """The output of the PyTorch twin."""
    return FROZEN[f"{name}/output" if name in formula.SINGLE else f"{name}/logits"]


def test_every_network_has_a_twin() -> None:
    assert set(networks.NETWORKS) == set(formula.MODELS)
    assert {key.split("/")[0] for key in FROZEN} == set(formula.MODELS)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_plain(name: str) -> None:
    function, params, x = networks.NETWORKS[name]
    output = jax.jit(function)(params, x)
    assert output.dtype == np.float64
    np.testing.assert_allclose(networks.to_torch(name, output), frozen_output(name), **TOLERANCE)


@pytest.mark.parametrize("name", networks.LAYOUTS)
def test_other_layout(name: str) -> None:
    layout: networks.Layout = "NHWC" if networks.LAYOUTS[name] == "NCHW" else "NCHW"
    function, params, x = networks.network(name, layout)
    output = np.asarray(jax.jit(function)(params, x))
    if output.ndim == 4 and layout == "NHWC":
        output = np.moveaxis(output, -1, 1)
    np.testing.assert_allclose(output, frozen_output(name), **TOLERANCE)


@pytest.mark.parametrize("name", LINEN)
def test_linen(name: str) -> None:
    module, variables, x = LINEN[name]
    output = jax.jit(module.apply)(variables, x)
    assert output.dtype == np.float64
    np.testing.assert_allclose(output, frozen_output(name), **TOLERANCE)


@pytest.mark.parametrize("name", LINEN)
def test_linen_uses_every_variable(name: str) -> None:
    module, variables, x = LINEN[name]
    init = promoting(module.init)  # parameters begin in float32
    expected = jax.eval_shape(init, jax.random.key(0), x)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, expected)


@pytest.mark.parametrize("name", NNX)
def test_nnx(name: str) -> None:
    model, x = build(name)
    output = model(x)
    assert output.dtype == np.float64
    np.testing.assert_allclose(output, frozen_output(name), **TOLERANCE)


@pytest.mark.parametrize("name", formula.SINGLE)
def test_seeds_and_bounds_fit(name: str) -> None:
    _, _, x = networks.NETWORKS[name]
    assert networks.to_torch(name, networks.output_seed(name)).shape == frozen_output(name).shape
    low, high = networks.box(name)
    assert np.all(low < x)
    assert np.all(x < high)


def test_inputs_lie_in_the_box() -> None:
    for name in formula.MODELS:
        x = formula.inputs(name)
        assert formula.LOW < x.min() < 0 < x.max() < formula.HIGH
