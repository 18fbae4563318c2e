"""`edit`: the same function with hidden layers changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="lower")(x))
        x = nn.BatchNorm(use_running_average=True, name="norm")(nn.Dense(5, name="upper")(x))
        return nn.Dense(3, name="head")(jnp.tanh(x))


X = jax.random.normal(jax.random.key(0), (4, 7))
NET = Net()
VARIABLES = NET.init(jax.random.key(1), X)


def by_hand(variables, x, change):
    p = variables["params"]
    h = change(jax.nn.relu(x @ p["lower"]["kernel"] + p["lower"]["bias"]))
    h = h @ p["upper"]["kernel"] + p["upper"]["bias"]
    h = h / jnp.sqrt(1 + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    return jnp.tanh(h) @ p["head"]["kernel"] + p["head"]["bias"]


def off(a):
    return a.at[:, 1].set(0).at[:, 4].multiply(-2)


def test_output_and_derivative_are_those_of_the_function_with_the_change_written_in():
    changed = lrp.edit(NET.apply, {"relu": off})
    np.testing.assert_allclose(
        changed(VARIABLES, X), by_hand(VARIABLES, X, off), rtol=1e-5, atol=1e-6
    )
    for argnum in (0, 1):
        ours = jax.grad(lambda v, x: jnp.sum(changed(v, x) ** 2), argnum)(VARIABLES, X)
        truth = jax.grad(lambda v, x: jnp.sum(by_hand(v, x, off) ** 2), argnum)(VARIABLES, X)
        for leaf, other in zip(jax.tree.leaves(ours), jax.tree.leaves(truth), strict=True):
            if np.any(other):  # the statistics of BatchNorm are constants of `by_hand`
                np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)


def test_no_change_gives_the_same_bits_and_leaves_the_function_alone():
    unchanged = lrp.edit(NET.apply, {"*": lambda a: a})(VARIABLES, X)
    np.testing.assert_array_equal(unchanged, NET.apply(VARIABLES, X))


def test_compiled_and_vmapped_over_what_is_inserted():
    def with_value(value):
        return lrp.edit(NET.apply, {"relu": lambda a: jnp.full_like(a, value)})(VARIABLES, X)

    values = jnp.array([0.0, 1.5])
    found = jax.jit(jax.vmap(with_value))(values)
    np.testing.assert_allclose(
        found, jnp.stack([with_value(v) for v in values]), rtol=1e-6, atol=1e-6
    )
    assert not np.allclose(found[0], found[1])


def test_an_edited_function_is_explained_with_the_same_layers():
    changed = lrp.edit(NET.apply, {"relu": off})
    rows = lrp.plan(changed, None, VARIABLES, X, argnums=1).rows
    known = lrp.plan(NET.apply, None, VARIABLES, X).rows
    named = [(row.path, row.module) for row in rows if row.kind == "dense"]
    assert named == [(row.path, row.module) for row in known if row.kind == "dense"]
    record = lrp.explain(changed, argnums=1, record="relu")(VARIABLES, X, target=0).records["relu"]
    active = np.any(np.asarray(record.activation), axis=0)
    assert active[1:3].all()
    # units that are zero carry what `tiny` leaves them, about 1e-18
    relevant = np.any(np.abs(record.relevance) > 1e-15, axis=0)
    assert np.array_equal(relevant, active & (np.arange(6) != 1))


def test_nnx_module_with_auxiliary_output():
    class Pair(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(7, 2, rngs=rngs)

        def __call__(self, x):
            h = self.linear(x)
            return nnx.relu(h), h

    model = Pair(nnx.Rngs(0))
    output, aux = lrp.edit(model, {"linear": lambda a: a + 1}, has_aux=True)(X)
    np.testing.assert_array_equal(aux, model(X)[1] + 1)
    np.testing.assert_array_equal(output, jax.nn.relu(aux))


def test_in_a_loop_every_step_is_changed():
    w = jnp.array([[0.5, -0.25], [1.0, 0.75]])

    def steps(x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=3)[0]

    x, shift = jnp.array([[1.0, -1.0]]), jnp.array([0.5, 0.0])
    expected = x
    for _ in range(3):
        expected = jnp.tanh(expected @ w) + shift
    found = jax.jit(lambda s: lrp.edit(steps, {"tanh": lambda a: a + s})(x))(shift)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ({"reul": off}, ValueError, r"edits\['reul'\] matches no layer: .*'relu'"),
        (
            {"relu": lambda a: a[:1]},
            ValueError,
            r"shape of the layer's output, \(4, 6\), got \(1, 6\)",
        ),
        (
            {"relu": lambda a: a.astype(jnp.int32)},
            TypeError,
            "dtype of the layer's output, float32",
        ),
        (
            {"relu": 0.0},
            TypeError,
            r"edits\['relu'\] must be a function of the layer's output, got 0.0",
        ),
        ({"rel*": off, "*elu": off}, ValueError, "two patterns that match the layer 'relu'"),
        (off, TypeError, "edits must be a dictionary"),
    ],
)
def test_what_cannot_be_edited_is_named(edits, error, message):
    with pytest.raises(error, match=message):
        lrp.edit(NET.apply, edits)(VARIABLES, X)
