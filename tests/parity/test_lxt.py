"""AttnLRP against frozen results of LXT 2.1."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites

import transformer_weights as weights
from transformer_blocks import BLOCKS

FROZEN = np.load(pathlib.Path(__file__).parent / "lxt.npz")


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("jitted", [False, True])
def test_attnlrp(name, jitted):
    with jax.enable_x64(True):
        w = weights.weights(name)
        x, relevance = map(jnp.asarray, weights.inputs(name))
        explain = lrp.explain(lambda x: BLOCKS[name](w, x), composites.attnlrp(epsilon=0.0))
        found = (jax.jit(explain) if jitted else explain)(x, target=relevance)
        expected = FROZEN[f"{name}/relevance"]
        # Erf and softmax are of different make; relevance divides by small sums.
        np.testing.assert_allclose(found.output, FROZEN[f"{name}/output"], rtol=1e-9, atol=1e-11)
        size = np.abs(expected).max()
        np.testing.assert_allclose(found.relevance, expected, rtol=1e-6, atol=1e-6 * size)


@pytest.mark.parametrize("name", BLOCKS)
def test_attnlrp_in_float32(name):
    w = {key: value.astype(np.float32) for key, value in weights.weights(name).items()}
    x, relevance = (jnp.asarray(a, jnp.float32) for a in weights.inputs(name))
    explain = lrp.explain(lambda x: BLOCKS[name](w, x), composites.attnlrp(epsilon=0.0))
    expected = FROZEN[f"{name}/relevance"]
    found = explain(x, target=relevance).relevance
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
