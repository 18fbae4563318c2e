"""Penzai models: named arrays in and out, paths and types.

Optional: `pip install penzai; python -m pytest -m thirdparty`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from jaxlrp import composites

from foreign_checks import check_explained

pz = pytest.importorskip("penzai.pz", reason="penzai is not installed")
pytestmark = [pytest.mark.thirdparty, pytest.mark.filterwarnings("ignore")]

X = jax.random.normal(jax.random.key(1), (2, 4))


def model() -> Any:
    from penzai.models import simple_mlp

    return simple_mlp.MLP.from_config(
        name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 3]
    )


PATHS = ("sublayers/0/sublayers/0", "sublayers/1/relu", "sublayers/2/sublayers/0")


def test_a_network():
    mlp = model()

    def forward(x: Any) -> Any:
        return mlp(pz.nx.wrap(x).tag("batch", "features")).unwrap("batch", "features")

    explain = check_explained(forward, X, forward(X))
    assert explain.plan(X).paths == PATHS
    assert type(mlp.sublayers[0].sublayers[0]) is pz.nn.Linear


def test_named_arrays_and_types():
    mlp, x = model(), pz.nx.wrap(X).tag("batch", "features")
    composite = composites.by_module(pz.nn.Linear, lrp.Gamma(0.5)) + composites.default()
    plan = lrp.plan(mlp, composite, x)
    assert plan.paths == PATHS
    assert isinstance(plan[PATHS[0]], lrp.Gamma)
    found = lrp.explain(mlp)(x, target=lambda out: out)
    assert found.relevance.named_shape == {"batch": 2, "features": 4}
    assert jnp.allclose(
        found.output.unwrap("batch", "features"), mlp(x).unwrap("batch", "features")
    )
