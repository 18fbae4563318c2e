"""Conditional relevances equal those that zennit-crp 0.6.0 computes with zennit 0.5.1."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites, concepts

import formula
import networks

GOLDENS = np.load(pathlib.Path(__file__).with_name("zennit_crp.npz"))
RTOL = 1e-6  # both sides compute in float64; what is left is rounding, amplified by the networks

pytestmark = pytest.mark.usefixtures("x64")


def channels(layer: str) -> concepts.Channels:
    return concepts.Channels(f"{layer.replace('.', '/')}/kernel", axis=1)  # these networks are NCHW


@functools.cache
def explainer(name: str) -> lrp.Explainer:
    return lrp.explain(networks.NETWORKS[name].function, composites.epsilon_plus(), argnums=1)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["in_place", "cut"])
@pytest.mark.parametrize("name", formula.CONDITIONS)
def test_conditions(name, kind):
    net = networks.NETWORKS[name]
    conditions = [
        functools.reduce(
            lambda a, b: a & b,
            (channels(layer)[list(chosen)] for layer, chosen in condition.items()),
            concepts.Condition(),
        )
        for condition in formula.CONDITIONS[name]
    ]
    explain = concepts.conditional(explainer(name), cut=kind == "cut")
    result = explain(net.params, net.x, target=jnp.array(formula.TARGETS), conditions=conditions)
    found = np.asarray(result.relevance)
    assert_close(found.sum(axis=2), GOLDENS[f"{name}/{kind}/heatmaps"])


def test_the_two_differ_where_a_skip_connection_bypasses_the_layer():
    """Otherwise the goldens could not tell them apart."""
    in_place, cut = (GOLDENS[f"resnet_nobn/{kind}/heatmaps"] for kind in ("in_place", "cut"))
    assert np.abs(in_place - cut)[2:].max() > 0.1 * np.abs(cut).max()


@pytest.mark.parametrize("name", formula.CONDITIONS)
def test_relevance_of_channels(name):
    net = networks.NETWORKS[name]
    layers = sorted({layer for condition in formula.CONDITIONS[name] for layer in condition})
    explain = concepts.scores(explainer(name), {layer: channels(layer) for layer in layers})
    found = explain(net.params, net.x, target=jnp.array(formula.TARGETS))
    for layer in layers:
        assert_close(found[layer].normalized, GOLDENS[f"{name}/{layer}/sum"])
        assert_close(concepts.normalize(found[layer].relevance_max), GOLDENS[f"{name}/{layer}/max"])
        # where no pixel has positive relevance, which of the zeros is largest means nothing
        seen = GOLDENS[f"{name}/{layer}/max"] > RTOL
        expected = GOLDENS[f"{name}/{layer}/pixel"]
        np.testing.assert_array_equal(found[layer].position[seen], expected[seen])
