"""Equinox modules as their users call them: paths, types, outputs; the user's module stays what it is.

Optional: `pip install equinox; python -m pytest -m thirdparty`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites

from foreign_checks import check_explained

eqx = pytest.importorskip("equinox", reason="equinox is not installed")
pytestmark = [pytest.mark.thirdparty, pytest.mark.filterwarnings("ignore")]

X = jax.random.normal(jax.random.key(1), (2, 3, 8, 8))
PATHS = (
    "layers/0", "relu", "layers/2", "relu:1", "reduce_sum", "norm/mul", "norm/scale", "head/a",
)  # fmt: skip


class Net(eqx.Module):
    """A list of layers and functions, a normalizer, modules in a dictionary, a static field."""

    layers: list
    norm: Any
    head: dict
    scale: float = eqx.field(static=True)

    def __init__(self, key: Any) -> None:
        keys = jax.random.split(key, 3)
        first, second = eqx.nn.Conv2d(3, 4, 3, key=keys[0]), eqx.nn.Conv2d(4, 6, 3, key=keys[1])
        self.layers = [first, jax.nn.relu, second, jax.nn.relu]
        self.norm = eqx.nn.LayerNorm((6,))
        self.head = {"a": eqx.nn.Linear(6, 5, key=keys[2])}
        self.scale = 2.0

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.logits(self.norm(x.mean((1, 2))))

    def logits(self, x: Any) -> Any:
        return self.scale * self.head["a"](x)


NET = Net(jax.random.key(0))


def spellings() -> dict[str, Any]:
    net, mapped = NET, jax.vmap(NET)
    return {
        "jax.vmap": jax.vmap(net),
        "filter_vmap": eqx.filter_vmap(net),
        "filter_jit": eqx.filter_jit(eqx.filter_vmap(net)),
        "closure": lambda x: mapped(x),
        "closure of the module": lambda x: jax.vmap(net)(x),
        "checkpoint": jax.vmap(eqx.filter_checkpoint(net)),
    }


@pytest.mark.parametrize("name", spellings())
def test_spellings(name):
    explain = check_explained(spellings()[name], X, jax.vmap(NET)(X))
    rows = {row.path: row.module for row in explain.plan(X).rows}
    assert tuple(rows) == PATHS
    assert rows["layers/0"] == "Conv2d"
    assert rows["norm/mul"] == "LayerNorm"
    assert rows["relu"] == "Net"


def test_one_example_and_modules_as_arguments():
    composite = composites.by_module(eqx.nn.Conv2d, lrp.Gamma(0.5)) + composites.default()
    composite = composites.by_path("head/*", lrp.ZPlus()) + composite
    one = lrp.plan(NET, composite, X[0])
    given = lrp.explain(lambda net, x: jax.vmap(net)(x), composite, argnums=1).plan(NET, X)
    for plan in (one, given):
        assert plan.paths == PATHS
        assert isinstance(plan["layers/2"], lrp.Gamma)
        assert isinstance(plan["head/a"], lrp.ZPlus)
    assert lrp.plan(NET.logits, None, jnp.ones(6)).paths == ("head/a",)


def test_the_module_is_not_touched_and_is_read_when_it_is_called():
    before = jax.tree.structure(NET)
    relevance = lrp.explain(NET)(X[0], target=1).relevance
    assert jax.tree.structure(NET) == before
    assert type(NET.head["a"]) is eqx.nn.Linear
    assert "jaxlrp_path" not in vars(NET)
    zeroed = eqx.tree_at(lambda net: net.head["a"].weight, NET, jnp.zeros((5, 6)))
    np.testing.assert_array_equal(lrp.explain(zeroed)(X[0], target=1).relevance, 0.0)
    assert np.abs(relevance).max() > 0


def test_layers_that_are_stacked_inside():
    """Marked modules must have the same structure, wherever they are."""

    class Stacked(eqx.Module):
        layers: list

        def __call__(self, x: Any) -> Any:
            arrays = [eqx.partition(layer, eqx.is_array) for layer in self.layers]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(a for a, _ in arrays))

            def step(x: Any, layer: Any) -> Any:
                return jax.nn.relu(eqx.combine(layer, arrays[0][1])(x)), None

            return jax.lax.scan(step, x, stacked)[0]

    net = Stacked([eqx.nn.Linear(4, 4, key=jax.random.key(i)) for i in range(3)])
    x = jax.random.normal(jax.random.key(3), (2, 4))
    explain = check_explained(jax.vmap(net), x, jax.vmap(net)(x))
    assert explain.plan(x).paths == ("layers/0", "relu")


def test_attention_and_recurrence():
    class Encoder(eqx.Module):
        embed: Any
        attention: Any
        cell: Any
        mlp: Any

        def __call__(self, ids: Any) -> Any:
            x = jax.vmap(self.embed)(ids)
            x = self.attention(x, x, x)
            state, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(6), x)
            return self.mlp(state)

    keys = jax.random.split(jax.random.key(0), 4)
    net = Encoder(
        eqx.nn.Embedding(20, 8, key=keys[0]),
        eqx.nn.MultiheadAttention(2, 8, key=keys[1]),
        eqx.nn.GRUCell(8, 6, key=keys[2]),
        eqx.nn.MLP(6, 5, 7, 1, key=keys[3]),
    )
    ids = jnp.arange(12).reshape(2, 6)
    explain = check_explained(jax.vmap(net), ids, jax.vmap(net)(ids))
    rows = {row.path: row.module for row in explain.plan(ids).rows}
    expected = {
        "embed": "Embedding", "attention/query_proj": "Linear", "attention/output_proj": "Linear",
        "cell/tanh": "GRUCell", "mlp/layers/0": "Linear", "mlp/layers/1": "Linear",
    }  # fmt: skip
    assert expected.items() <= rows.items()
