"""Haiku functions: outputs, paths and types, training mode.

Optional: `pip install dm-haiku; python -m pytest -m thirdparty`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from jaxlrp import composites

from foreign_checks import check_explained

hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")
pytestmark = [pytest.mark.thirdparty, pytest.mark.filterwarnings("ignore")]

X = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))


def network(x: Any, train: bool) -> Any:
    x = hk.Conv2D(4, 3)(x)
    x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(x, train)).mean(2)
    x = hk.MultiHeadAttention(2, 4, w_init=hk.initializers.VarianceScaling())(x, x, x)
    x, _ = hk.dynamic_unroll(hk.LSTM(5), x.swapaxes(0, 1), hk.LSTM(5).initial_state(2))
    return hk.nets.MLP([8, 5])(x[-1])


NET = hk.without_apply_rng(hk.transform_with_state(network))
PARAMS, STATE = NET.init(jax.random.key(0), X, True)


def test_a_network():
    def batch(x: Any) -> Any:  # of any size: the state of the LSTM has that of the batch
        return jnp.concatenate([forward(x[i : i + 1]) for i in range(len(x))])

    one = hk.without_apply_rng(
        hk.transform_with_state(lambda x, train: network(jnp.concatenate([x, x]), train)[:1])
    )

    def forward(x: Any) -> Any:
        return one.apply(PARAMS, STATE, x, False)[0]

    check_explained(batch, X, NET.apply(PARAMS, STATE, X, False)[0], rtol=1e-4)


def test_layers_have_the_names_and_types_of_modules():
    composite = composites.by_module(hk.Linear, lrp.ZPlus()) + composites.default()
    explain = lrp.explain(NET.apply, composite, argnums=2, has_aux=True)
    plan = explain.plan(PARAMS, STATE, X, False)
    rows = {row.path: row.module for row in plan.rows}
    expected = {
        "conv2_d": "Conv2D", "multi_head_attention/query": "Linear", "lstm/linear": "Linear",
        "mlp/~/linear_0": "Linear", "mlp/~/linear_1": "Linear", "mlp/relu": "MLP",
    }  # fmt: skip
    assert expected.items() <= rows.items()
    assert isinstance(plan["mlp/~/linear_1"], lrp.ZPlus)
    assert not isinstance(plan["conv2_d"], lrp.ZPlus)


@pytest.mark.promotes("Haiku's moving averages")
def test_training_mode_is_refused():
    explain = lrp.explain(NET.apply, argnums=2, has_aux=True)
    with pytest.raises(lrp.TrainingModeError, match=r"BatchNorm .* at 'batch_norm'"):
        explain.plan(PARAMS, STATE, X, True)
