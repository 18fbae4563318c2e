"""Relevances equal those that Zennit 1.0.0 computes; no canonizer is named anywhere."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites as C

import formula
import networks

GOLDENS = np.load(pathlib.Path(__file__).with_name("zennit.npz"))

# Both sides compute in float64 and divide by the same stabilizers; what is left is rounding,
# amplified by the networks (at most 720 times, in mobile).
RTOL64 = 1e-6
RTOL32 = 1e-4


def composite(name: str) -> lrp.Composite:
    bias = "zero" if name.endswith(formula.NO_BIAS) else "absorb"
    return {
        "EpsilonPlus": lambda: C.epsilon_plus(bias=bias),
        "EpsilonPlusFlat": C.epsilon_plus_flat,
        "EpsilonAlpha2Beta1": C.epsilon_alpha2_beta1,
        "EpsilonAlpha2Beta1Flat": C.epsilon_alpha2_beta1_flat,
        "EpsilonGammaBox": lambda: C.epsilon_gamma_box(formula.LOW, formula.HIGH),
        "ExcitationBackprop": C.excitation_backprop,
        "GuidedBackprop": C.guided_backprop,
        "DeconvNet": C.deconvnet,
        "BetaSmooth": C.beta_smooth,
        "Gradient": C.gradient,
    }[name.removesuffix(formula.NO_BIAS)]()


def rule(name: str, key: str) -> lrp.rules.Rule:
    bias = "zero" if name.endswith(formula.NO_BIAS) else "absorb"
    name = name.removesuffix(formula.NO_BIAS)
    if name.startswith("ZBox"):
        low, high = networks.box(key) if "array" in name else (formula.LOW, formula.HIGH)
        return lrp.ZBox(low, high)
    return {
        "Epsilon": lambda: lrp.Epsilon(bias=bias),
        "Epsilon(0.25)": lambda: lrp.Epsilon(0.25, bias=bias),
        "ZPlus": lambda: lrp.ZPlus(bias=bias),
        "AlphaBeta(2,1)": lambda: lrp.AlphaBeta(2.0, 1.0, bias=bias),
        "AlphaBeta(1,0)": lambda: lrp.AlphaBeta(1.0, 0.0, bias=bias),
        "Gamma(0.25)": lambda: lrp.Gamma(0.25, bias=bias),
        "Gamma(1)": lambda: lrp.Gamma(1.0, bias=bias),
        "WSquare": lambda: lrp.WSquare(bias=bias),
        "Flat": lrp.Flat,
    }[name]()


def keys(kind: str) -> list[tuple[str, str]]:
    found = [k.split("/") for k in GOLDENS.files if k.endswith("/relevance")]
    return sorted((n, c) for n, c, _ in found if (n in formula.SINGLE) == (kind == "rule"))


# In float32 every third: the formulas are those of float64, and only rounding is seen anew.
COMPOSITES = [(*pair, "float64") for pair in keys("composite")] + [
    pytest.param(*pair, "float32", marks=pytest.mark.exhaustive if i % 3 else pytest.mark.slow)
    for i, pair in enumerate(keys("composite"))
]


def assert_close(actual, expected, rtol):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "key", "dtype"), COMPOSITES)
def test_composite(name, key, dtype):
    with jax.enable_x64(True):
        net = networks.NETWORKS[name]
        params, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (net.params, net.x))
        made = composite(key)
        explain = jax.jit(lrp.explain(net.function, made, argnums=1))
        logits = GOLDENS[f"{name}/logits"] * formula.one_hot()
        target = (
            jnp.asarray(logits, dtype) if made.readout == "gradient" else jnp.array(formula.TARGETS)
        )
        result = explain(params, x, target=target)
        relevance = networks.to_torch(name, np.asarray(result.relevance, np.float64))
        assert result.relevance.dtype == dtype
    rtol = RTOL64 if dtype == "float64" else RTOL32 * (20 if name == "mobile" else 2)
    assert_close(relevance, GOLDENS[f"{name}/{key}/relevance"], rtol)


@pytest.mark.parametrize(("name", "key"), keys("rule"))
def test_rule(name, key):
    with jax.enable_x64(True):
        net = networks.NETWORKS[name]
        params, x = jax.tree.map(jnp.asarray, (net.params, net.x))
        one = C.by_kind(name, rule(key, name))
        target = jnp.asarray(networks.output_seed(name))
        result = lrp.explain(net.function, one, argnums=1)(params, x, target=target)
        relevance = networks.to_torch(name, np.asarray(result.relevance))
    assert_close(relevance, GOLDENS[f"{name}/{key}/relevance"], RTOL64)
