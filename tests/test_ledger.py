"""The ledger closes, and names what kept relevance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites as C

from numeric import promoting
from selection import one_in


class Net(nn.Module):
    """Convolutions, BatchNorm behind and apart, residual, gate, LayerNorm, pools."""

    @nn.compact
    @promoting  # Flax's pooling divides by integers
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(x)))
        y = nn.BatchNorm(use_running_average=True, name="apart")(nn.max_pool(x, (2, 2), (2, 2)))
        y = y + nn.gelu(nn.Conv(6, (3, 3))(y))
        y = y * nn.sigmoid(nn.Dense(6)(y.mean((1, 2))))[:, None, None]
        y = nn.LayerNorm()(nn.avg_pool(y, (2, 2), (2, 2)))
        return nn.Dense(4)(y.reshape(y.shape[0], -1))


X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


@pytest.fixture(scope="module")
def variables():
    """Weights without zeros, so that no bias and no scale is trivial."""
    keys = iter(jax.random.split(jax.random.key(2), 99))
    plain = Net().init(jax.random.key(1), X)
    return jax.tree.map(lambda a: a + 0.2 * jnp.abs(jax.random.normal(next(keys), a.shape)), plain)


CONSERVING = {
    "all_epsilon": C.all_epsilon(),
    "epsilon_plus": C.epsilon_plus(),
    "epsilon_plus_flat": C.epsilon_plus_flat(),
    "epsilon_gamma_box": C.epsilon_gamma_box(-5.0, 5.0),
    "epsilon_alpha2_beta1": C.epsilon_alpha2_beta1(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", one_in(3, CONSERVING))
def test_without_biases_all_that_is_lost_is_the_stabilizers(variables, name):
    run = jax.jit(
        lambda v, x: lrp.ledger(Net().apply, CONSERVING[name], v, x, target=1, zero_bias=True)
    )
    ledger = run(variables, X)
    scale = max(float(abs(e.received)) for e in ledger.rows.values())
    kept = sum(float(e.stabilizer) for e in ledger.rows.values())
    rules = sum(abs(float(e.rule)) for e in ledger.rows.values())
    assert abs(float(ledger.output - ledger.input) - kept) < 1e-5 * scale * len(ledger.rows)
    assert rules < 1e-5 * scale * len(ledger.rows)
    assert all(abs(float(e.bias)) == 0 for e in ledger.rows.values())


@pytest.mark.parametrize("name", one_in(3, CONSERVING))
def test_every_layer_balances(variables, name):
    ledger = lrp.ledger(Net().apply, CONSERVING[name], variables, X, target=1)
    assert abs(float(ledger.elsewhere)) < 1e-4 * abs(float(ledger.output))
    assert float(jnp.abs(ledger.rows["Conv_1"].bias)) > 0 or "plus" not in name
    text = str(ledger)
    assert "Conv_0" in text
    assert "absorbed" in text


def test_by_hand():
    """z = 8 + 2 (bias): epsilon 10 halves, of the half the bias keeps a fifth."""
    w, b = jnp.array([[2.0], [1.0]]), jnp.array([2.0])
    composite = C.by_kind("dense", lrp.Epsilon(10.0))
    x = jnp.array([3.0, 2.0])
    ledger = lrp.ledger(lambda x: x @ w + b, composite, x)
    (entry,) = ledger.rows.values()
    found = [entry.received, entry.passed, entry.bias, entry.stabilizer, entry.rule]
    np.testing.assert_allclose(found, [10, 4, 1, 5, 0], atol=1e-5)
    np.testing.assert_allclose([ledger.output, ledger.input, ledger.residual], [10, 4, 0.6])


def test_top_rows_are_those_that_kept_or_created_most(variables):
    ledger = lrp.ledger(Net().apply, C.all_epsilon(), variables, X, target=1)
    kept = {path: abs(float(row.received - row.passed)) for path, row in ledger.rows.items()}
    top = ledger.top(3)
    assert list(top) == sorted(kept, key=kept.__getitem__, reverse=True)[:3]
    nothing = lrp.ledger(lambda x: x @ jnp.ones((3, 2)), None, jnp.ones(3), target=1)
    assert nothing.top() == {}
    with pytest.raises(ValueError, match="n must be an integer >= 1, got 0"):
        ledger.top(0)


def test_stop_gradient_shows_up_elsewhere():
    ledger = lrp.ledger(lambda x: x + jax.lax.stop_gradient(x), None, jnp.ones(2))
    np.testing.assert_allclose([ledger.output, ledger.input], [4, 2])
    np.testing.assert_allclose(ledger.absorbed + ledger.elsewhere, 2)


# Models in which equal numbers are subtracted: the exponential of nothing is a bias

T, D = 6, 4
INPUT = jax.random.normal(jax.random.key(0), (T, D))
WEIGHTS = 0.7 * jax.random.normal(jax.random.key(1), (6, D, D))


def state_space_dual(x):
    """Mamba-2 as products of matrices: a decay of exp(0) to the same step."""
    steps = jax.nn.softplus(x @ WEIGHTS[0])[:, 0]
    decays = jnp.cumsum(-steps)
    apart = jnp.where(jnp.tril(jnp.ones((T, T), bool)), decays[:, None] - decays, -jnp.inf)
    q, k, v = x @ WEIGHTS[1], x @ WEIGHTS[2], (x @ WEIGHTS[3]) * steps[:, None]
    return jnp.einsum("tn,sn,ts,sd->td", q, k, jnp.exp(apart), v)


def time_mixing(x):
    """RWKV-4 with its running maximum, from which what is the maximum is subtracted."""
    k, v, r = x @ WEIGHTS[0], x @ WEIGHTS[1], jax.nn.sigmoid(x @ WEIGHTS[2])
    decay, bonus = -jnp.exp(jnp.linspace(-1.0, 1.0, D)), jnp.linspace(0.0, 1.0, D)

    def step(carry, now):
        a, b, peak = carry
        k, v = now
        top = jnp.maximum(peak, bonus + k)
        old, new = jnp.exp(peak - top), jnp.exp(bonus + k - top)
        out = (old * a + new * v) / (old * b + new)
        top = jnp.maximum(peak + decay, k)
        old, new = jnp.exp(peak + decay - top), jnp.exp(k - top)
        return (old * a + new * v, old * b + new, top), out

    zero = jnp.zeros(D)
    return r * jax.lax.scan(step, (zero, zero, jnp.full(D, -1e38)), (k, v))[1]


def stabilized_gates(x):
    """The cell of an xLSTM: gates of exponentials that share a maximum."""

    def step(carry, x):
        c, n, m = carry
        i, f, z = x @ WEIGHTS[0], jax.nn.log_sigmoid(x @ WEIGHTS[1]), jnp.tanh(x @ WEIGHTS[2])
        top = jnp.maximum(f + m, i)
        new, old = jnp.exp(i - top), jnp.exp(f + m - top)
        c, n = old * c + new * z, old * n + new
        return (c, n, top), jax.nn.sigmoid(x @ WEIGHTS[3]) * c / n

    zero = jnp.zeros(D)
    return jax.lax.scan(step, (zero, zero, zero - 30.0), x)[1]


def distances(x):
    """A kernel of distances, each point's to itself among them."""
    return jnp.exp(-jnp.square(x[:, None] - x).sum(-1)) @ x


@pytest.mark.parametrize("preset", one_in(2, ["attnlrp", "default"]))
@pytest.mark.parametrize("model", [state_space_dual, time_mixing, stabilized_gates, distances])
def test_equal_numbers_that_are_subtracted(model, preset):
    composite = getattr(C, preset)()

    def last(z):
        return jnp.zeros_like(z).at[-1, 1].set(z[-1, 1])

    ledger = lrp.ledger(model, composite, INPUT, target=last)
    relevance = lrp.explain(model, composite)(INPUT, target=last).relevance
    # float32: relevances of both signs that are a few times the output cancel to 1e-7 of themselves
    scale = float(jnp.abs(relevance).sum() + abs(ledger.output))
    assert abs(float(ledger.elsewhere)) < 1e-4 * scale
    assert scale < 1e3 * abs(float(ledger.output))
