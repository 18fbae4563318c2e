"""What a user writes: each public call of the top level, and its type, for pyright (`.ci/run lint`).

`tests/test_project.py` runs `main`, and fails when a name of `jaxlrp.__all__` is missing here.
"""

import re
import tempfile
from typing import assert_type

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import concepts, tables
from jaxlrp.rules import BoundLayer


class MLP(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(4, name="hidden")(x))
        return nn.Dense(3, name="head")(x)


def halve(layer: BoundLayer, x: jax.Array, r: jax.Array) -> jax.Array:
    """A rule of the user's own."""
    return r @ jnp.abs(layer.weight).T / 2


def rules() -> list[lrp.rules.Rule]:
    """Each rule of the top level, with its options."""
    return [
        lrp.LRP0(),
        lrp.Epsilon(epsilon=1e-6, bias="absorb"),
        lrp.ZPlus(bias="zero", stabilizer=1e-6),
        lrp.AlphaBeta(alpha=2.0, beta=1.0, bias="absorb", stabilizer=1e-6),
        lrp.Gamma(gamma=0.25, bias="absorb", stabilizer=1e-6),
        lrp.ZBox(low=jnp.array(-1.0), high=1.0, stabilizer=1e-6),
        lrp.WSquare(bias="absorb", stabilizer=1e-6),
        lrp.Flat(stabilizer=1e-6),
        lrp.Norm(stabilizer=1e-6),
        lrp.Pass(),
        lrp.Custom(halve),
    ]


def composites() -> list[lrp.Composite]:
    """Composites by their makers, presets among them."""
    made = lrp.composites.composite(
        lrp.composites.by_path("hidden*", lrp.Gamma(gamma=0.1)),
        lrp.composites.by_path(re.compile("head"), lrp.Epsilon()),
        lrp.composites.by_module(MLP, lrp.LRP0()),
        lrp.composites.first(lrp.Flat()),
        lrp.composites.last(lrp.LRP0()),
        lrp.composites.by_depth(0, 2, lrp.ZPlus()),
        lrp.composites.by_kind(("conv", "dense"), lrp.Epsilon()),
        name="mine",
    )
    return [assert_type(made, lrp.Composite), lrp.composites.attnlrp(gamma=0.05), made + made]


def choose(layer: lrp.Layer) -> lrp.rules.Rule | None:
    """A composite as a function."""
    assert layer.kind in lrp.KINDS
    return lrp.Gamma(gamma=0.1) if layer.path == "hidden" else None


def main() -> None:
    """Explains a small network in every way of the top level."""
    model, x = MLP(), jnp.array([[1.0, -2.0], [0.5, 3.0]])
    variables = model.init(jax.random.key(0), x)
    composite = lrp.composites.all_epsilon(1e-6)

    plan = lrp.plan(model, composite, variables, x)
    assert_type(plan, lrp.Plan)
    assert_type(plan.paths, tuple[str, ...])
    assert_type(plan["head"], lrp.rules.Rule)
    plan = plan.replace({"hidden": lrp.Gamma(gamma=0.1)})

    explain = lrp.explain(
        model.apply, plan, argnums=1, record="hidden", parameters=0, has_aux=False, debug=False
    )
    assert_type(explain, lrp.Explainer)
    found = explain(variables, x, target=1, condition={"hid*": jnp.ones(4)})
    assert_type(found, lrp.Explanation)
    assert_type(found.records["hidden"], lrp.Record)
    assert_type(found.gains, dict[str, float])
    assert_type(explain.plan(variables, x), lrp.Plan)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        lrp.save(file.name, found)
        assert_type(lrp.load(file.name), lrp.Explanation)
    assert_type(explain.ledger(variables, x, target=1), lrp.Ledger)
    pullback = explain.vjp(variables, x, condition="hidden")
    assert_type(pullback, lrp.Pullback)
    assert_type(pullback(target=1, condition={"hidden": 0.5}), lrp.Explanation)
    for target in (
        jnp.array([0, 2]),
        lrp.targets.predicted,
        lrp.targets.Contrast(1, 2),
        lrp.targets.LogOdds(1),
        lrp.targets.Region(1, 1.0),
        [0, 2],
        lambda z: z * jax.nn.one_hot(1, 3),
    ):
        jax.eval_shape(lambda x, t=target: explain(variables, x, target=t), x)
    jax.jit(explain)(variables, x, target=0)
    assert_type(lrp.explain(model, lrp.Epsilon()), lrp.Explainer)
    assert_type(lrp.explain(model, choose, start="hidden", jit=False), lrp.Explainer)
    assert_type(lrp.explain(model, "epsilon_plus"), lrp.Explainer)
    assert_type(lrp.explain(model, [choose, lrp.composites.all_epsilon]), lrp.Explainer)

    attached = lrp.attach(model.apply, composite, argnums=1)
    jax.grad(lambda x: attached(variables, x)[:, 1].sum())(x)
    edited = lrp.edit(model.apply, {"hidden": lambda a: 0 * a}, argnums=1)
    edited(variables, x)

    ledger = lrp.ledger(model.apply, composite, variables, x, target=1, zero_bias=True)
    assert_type(ledger, lrp.Ledger)
    assert_type(ledger.residual, jax.Array)
    assert_type(ledger.warning, str)

    lrp.baselines.input_x_gradient(model.apply, argnums=1)(variables, x, target=1)
    channels = concepts.Channels("hidden", axis=-1)
    conditional = concepts.conditional(lrp.explain(model, composite))
    found = conditional(variables, x, target=1, conditions=[channels[0] | channels[2]])
    assert_type(found, lrp.Explanation)
    local = concepts.local(lrp.explain(model, composite), channels)
    assert_type(local(variables, x, target=1, regions=jnp.eye(2)), concepts.LocalRelevance)

    found = lrp.explain(model.apply, composite, argnums=1)(variables, x, target=1)
    columns = tables.groups(["age", "city_a"], ["city"])
    assert_type(columns, dict[str, tuple[int, ...]])
    assert_type(tables.sum_groups(found.relevance, columns), jax.Array)
    assert_type(tables.summarize(found.relevance, by=["a", "b"]), tables.Summary)

    lrp.higher_order.pairs(lambda x: model.apply(variables, x), composite)(x[0], x[1])
    spectrum = lrp.inspection.DFT()
    lrp.inspection.inspect(model.apply, spectrum, composite, axis=-1, argnums=1)

    try:
        explain(variables, x, target=1)
    except (lrp.UnsupportedError, lrp.TrainingModeError, lrp.NonFiniteError, lrp.GrowthWarning):
        print(lrp.__version__)
