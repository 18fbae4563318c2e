"""Networks in time: cells of Flax, the state they begin with, steps as targets, the papers' rules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp.rules import LRP0, Norm, Proportional, SignalTakesAll, Uniform

from selection import one_in

B, T, D, H = 2, 4, 3, 5  # batch, steps, features of the input and of the state
STEP, UNIT = 2, 1  # of the output that is explained
EXACT = C.all_epsilon(1e-14)  # float64 does not see the stabilizer
RTOL = 1e-10


pytestmark = pytest.mark.usefixtures("x64")


def close(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=RTOL * max(1, np.abs(b).max()))


def random(tree: Any, seed: int = 0) -> Any:
    """Numbers in place of all numbers; no bias is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(scale=0.7, size=a.shape)), tree)


def of_step(z: jax.Array) -> jax.Array:
    """One unit at one step, of the output (B, T, ..., H)."""
    step = jnp.arange(z.shape[1]).reshape(1, -1, *[1] * (z.ndim - 2)) == STEP
    return jnp.where(step & (jnp.arange(z.shape[-1]) == UNIT), z, 0)


# Cells: Linen and NNX, by `RNN` and by a loop that is written out.


class Scanned(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x, carry):
        return nn.RNN(self.cell, name="rnn")(x, initial_carry=carry)


def unroll(cell: Any, x: jax.Array, carry: Any) -> jax.Array:
    outputs = []
    for t in range(x.shape[1]):
        carry, y = cell(carry, x[:, t])
        outputs.append(y)
    return jnp.stack(outputs, axis=1)


class Unrolled(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x, carry):
        return unroll(self.cell, x, carry)


class ScannedNNX(nnx.Module):
    def __init__(self, cell: Any) -> None:
        self.rnn = nnx.RNN(cell)

    def __call__(self, x, carry):
        return self.rnn(x, initial_carry=carry)


class UnrolledNNX(nnx.Module):
    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def __call__(self, x, carry):
        return unroll(self.cell, x, carry)


Pair = tuple[Any, Any, jax.Array, Any]  # (scanned, unrolled, input, initial carry)


def linen_pair(cell: nn.Module, shape: tuple[int, ...] = (D,)) -> Pair:
    x = random(jnp.zeros((B, T, *shape)), seed=1)
    zero = cell.initialize_carry(jax.random.key(0), (B, *shape))
    variables = random(jax.eval_shape(Scanned(cell).init, jax.random.key(0), x, zero))
    bound = (lambda x, c, m=m: m(cell).apply(variables, x, c) for m in (Scanned, Unrolled))
    return *bound, x, random(zero, seed=2)


def nnx_pair(kind: type) -> Pair:
    cell = kind(D, H, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(cell, nnx.Param, ...)
    cell = nnx.merge(graph, random(params), rest)
    zero = cell.initialize_carry((B, D), nnx.Rngs(0))
    x = random(jnp.zeros((B, T, D)), seed=1)
    return ScannedNNX(cell), UnrolledNNX(cell), x, random(zero, seed=2)


PAIRS = {
    "LSTMCell": lambda: linen_pair(nn.LSTMCell(H, param_dtype=jnp.float64)),
    "OptimizedLSTMCell": lambda: linen_pair(nn.OptimizedLSTMCell(H, param_dtype=jnp.float64)),
    "GRUCell": lambda: linen_pair(nn.GRUCell(H, param_dtype=jnp.float64)),
    "SimpleCell": lambda: linen_pair(nn.SimpleCell(H, param_dtype=jnp.float64)),
    "ConvLSTMCell": lambda: linen_pair(
        nn.ConvLSTMCell(H, (3,), param_dtype=jnp.float64), shape=(4, D)
    ),
    "nnx.LSTMCell": lambda: nnx_pair(nnx.LSTMCell),
    "nnx.OptimizedLSTMCell": lambda: nnx_pair(nnx.OptimizedLSTMCell),
    "nnx.GRUCell": lambda: nnx_pair(nnx.GRUCell),
    "nnx.SimpleCell": lambda: nnx_pair(nnx.SimpleCell),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", one_in(3, PAIRS))
def test_scanned_equals_unrolled_and_the_carry_is_accounted_for(name):
    scanned, unrolled, x, carry = PAIRS[name]()
    both = [
        jax.jit(lambda x, c, f=f: lrp.explain(f, EXACT, argnums=(0, 1))(x, c, target=of_step))(
            x, carry
        )
        for f in (scanned, unrolled)
    ]
    close(both[0].output, both[1].output)
    close(both[0].relevance, both[1].relevance)
    of_input, of_carry = both[0].relevance
    assert np.abs(of_input[:, : STEP + 1]).min(axis=tuple(range(2, of_input.ndim))).min() > 1e-9
    assert (of_input[:, STEP + 1 :] == 0).all()  # what comes later is not heard

    @jax.jit
    def account(x, carry):
        return lrp.ledger(scanned, EXACT, x, carry, argnums=0, target=of_step)

    def singly(x, carry):  # one example at a time
        return account(x[None], jax.tree.map(lambda c: c[None], carry))

    for i in range(B):
        ledger = singly(x[i], jax.tree.map(lambda c, i=i: c[i], carry))
        (path,) = [path for path in ledger.rows if path.endswith("carry")]
        assert path == "rnn/carry"
        kept = ledger.rows[path]
        close(kept.received, sum(c[i].sum() for c in jax.tree.leaves(of_carry)))
        close([kept.passed, kept.bias, kept.rule], [0.0, kept.received, 0.0])
        close(ledger.input, of_input[i].sum())  # whether the carry is explained or not
        rest = [e.received - e.passed for p, e in ledger.rows.items() if p != path]
        close(
            of_input[i].sum() + kept.received + sum(rest), both[0].output[i, STEP, ..., UNIT].sum()
        )
        assert abs(float(ledger.elsewhere)) < RTOL
        assert "rnn/carry" in str(ledger)


def test_a_state_of_zeros_takes_nothing_and_has_no_row():
    model = nn.RNN(nn.LSTMCell(H, param_dtype=jnp.float64), name="rnn")
    x = random(jnp.zeros((B, T, D)))
    variables = random(jax.eval_shape(model.init, jax.random.key(0), x))
    ledger = jax.jit(lambda x: lrp.ledger(model.apply, EXACT, variables, x))(x)
    assert not [path for path in ledger.rows if "carry" in path]
    assert abs(float(ledger.elsewhere)) < RTOL


class Learned(nn.Module):
    """An LSTM that begins with parameters."""

    @nn.compact
    def __call__(self, x):
        begin = [self.param(n, nn.initializers.normal(), (H,), jnp.float64) for n in ("c", "h")]
        carry = tuple(jnp.broadcast_to(p, (x.shape[0], H)) for p in begin)
        x = nn.RNN(nn.LSTMCell(H, param_dtype=jnp.float64), name="rnn")(x, initial_carry=carry)
        return nn.Dense(3, param_dtype=jnp.float64)(x[:, -1])


@pytest.mark.parametrize("composite", [None, C.recurrent(epsilon=0.1), C.recurrent("half")])
def test_a_learned_state_is_accounted_for(composite):
    x = random(jnp.zeros((B, T, D)))
    variables = random(jax.eval_shape(Learned().init, jax.random.key(0), x))
    account = jax.jit(lambda x: lrp.ledger(Learned().apply, composite, variables, x, target=1))
    for example in x:
        ledger = account(example[None])
        largest = max(abs(float(e.received)) for e in ledger.rows.values())
        assert abs(float(ledger.rows["rnn/carry"].received)) > 1e-4
        assert abs(float(ledger.elsewhere)) < RTOL * largest
        close(ledger.input + ledger.absorbed, ledger.output)


# Loops written by hand.

W, U, V = (
    np.random.default_rng(i).normal(scale=0.6, size=s)
    for i, s in enumerate([(D, H), (H, H), (H, 2)])
)
BEGIN = np.random.default_rng(3).normal(size=H)


def step(state: dict[str, Any], x: jax.Array) -> tuple[dict[str, Any], jax.Array]:
    """A pytree as carry, with a counter in it, and an accumulator."""
    h = jnp.tanh(x @ W + state["h"] @ U)
    return {"h": h, "sum": state["sum"] + h, "t": state["t"] + 1}, h


def loop(x: jax.Array, carry: dict[str, Any], **options: Any) -> jax.Array:
    last, ys = lax.scan(step, {**carry, "t": jnp.zeros((), jnp.int32)}, x, **options)
    return (last["sum"] + ys[1]) @ V


def written_out(x: jax.Array, carry: dict[str, Any], reverse: bool = False, **_: Any) -> jax.Array:
    state, ys = {**carry, "t": 0}, {}
    order = range(T)[::-1] if reverse else range(T)
    for t in order:
        state, ys[t] = step(state, x[t])
    return (state["sum"] + ys[1]) @ V


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"unroll": 2}, {"unroll": T}])
def test_a_loop_by_hand(options):
    x = random(jnp.zeros((T, D)))
    carry = {"h": jnp.asarray(BEGIN), "sum": jnp.asarray(BEGIN[::-1].copy())}
    found, expected = (
        lrp.explain(lambda x, c, f=f: f(x, c, **options), EXACT, argnums=(0, 1))(x, carry, target=1)
        for f in (loop, written_out)
    )
    close(found.output, expected.output)
    close(found.relevance, expected.relevance)
    close(sum(r.sum() for r in jax.tree.leaves(found.relevance)), found.output[1])
    ledger = lrp.ledger(lambda x, c: loop(x, c, **options), EXACT, x, carry, argnums=0, target=1)
    close(ledger.rows["carry"].received, sum(r.sum() for r in found.relevance[1].values()))
    assert abs(float(ledger.elsewhere)) < RTOL


def test_a_carry_that_is_made_of_the_input_hands_relevance_on():
    """Only what does not depend on the input is booked: here the accumulator's beginning."""

    def f(x):
        return loop(x, {"h": jnp.tanh(x[0] @ W), "sum": jnp.asarray(BEGIN)})

    x = random(jnp.zeros((T, D)))
    ledger = lrp.ledger(f, EXACT, x, target=1)
    close(ledger.rows["carry"].received, BEGIN @ V[:, 1])
    assert abs(float(ledger.elsewhere)) < RTOL


def test_a_loop_in_a_loop():
    """The inner loop begins with a constant at each step of the outer one; remat changes nothing."""

    def f(x, wrap=lambda f: f):
        @wrap
        def outer(h, x):
            inner, _ = lax.scan(lambda c, _: (jnp.tanh(c @ U + x @ W), None), BEGIN, None, length=2)
            return jnp.tanh(h @ U + inner), None

        return lax.scan(outer, BEGIN, x)[0] @ V

    x = random(jnp.zeros((T, D)))
    for wrap in (lambda f: f, jax.checkpoint):
        ledger = jax.jit(lambda x, w=wrap: lrp.ledger(
            lambda x: f(x, w), EXACT, x, target=1))(x)  # fmt: skip
        rows = {p: float(e.received) for p, e in ledger.rows.items() if "carry" in p}
        assert sorted(rows) == ["carry", "carry:1"]
        assert min(map(abs, rows.values())) > 1e-4
        assert abs(float(ledger.elsewhere)) < RTOL


# What RNN and Bidirectional can be asked for.


def model_of(**options: Any) -> nn.RNN:
    return nn.RNN(nn.LSTMCell(H, param_dtype=jnp.float64), **options)


def explained(fun: Any, x: jax.Array, target: Any = lambda z: z, **options: Any) -> lrp.Explanation:
    return jax.jit(lambda x: lrp.explain(fun, EXACT)(x, target=target, **options))(x)


def test_directions_axes_and_carries():
    x = random(jnp.zeros((B, T, D)))
    variables = random(jax.eval_shape(model_of().init, jax.random.key(0), x))

    def run(options, wrap=lambda z: z, before=lambda x: x):
        model = model_of(**options)
        return lambda x: wrap(model.apply(variables, before(x)))

    expected = explained(run({}), x, of_step).relevance

    def turned(x):
        return x[:, ::-1]

    def swapped(x):
        return x.swapaxes(0, 1)

    for found in (
        explained(run({"unroll": 3}), x, of_step).relevance,
        explained(run({"time_major": True}, swapped, swapped), x, of_step).relevance,
        explained(run({"reverse": True, "keep_order": True}, turned, turned), x, of_step).relevance,
        explained(run({"reverse": True}, before=turned), x, of_step).relevance,
    ):  # fmt: skip
        close(found, expected)
    last = explained(run({}, lambda z: z[:, -1]), x).relevance
    close(explained(run({"return_carry": True}, lambda z: z[0][1]), x).relevance, last)


class BidirectionalNNX(nnx.Module):
    def __init__(self) -> None:
        forward, backward = (
            nnx.RNN(nnx.LSTMCell(D, H, param_dtype=jnp.float64, rngs=nnx.Rngs(i))) for i in range(2)
        )
        self.both = nnx.Bidirectional(forward, backward)

    def __call__(self, x, seq_lengths=None):
        return self.both(x, seq_lengths=seq_lengths)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RNN", "reversed", "Bidirectional", "nnx.Bidirectional"])
def test_padding_has_no_relevance(name):
    """Of a sequence of three of four steps the relevance is that of the three alone."""
    model = {
        "RNN": lambda: model_of(),
        "reversed": lambda: model_of(reverse=True, keep_order=True),
        "Bidirectional": lambda: nn.Bidirectional(model_of(), model_of()),
        "nnx.Bidirectional": BidirectionalNNX,
    }[name]()
    x = random(jnp.zeros((B, T, D)))
    if isinstance(model, nnx.Module):
        fun = model
    else:
        variables = random(jax.eval_shape(model.init, jax.random.key(0), x))

        def fun(x, **options):
            return model.apply(variables, x, **options)

    lengths = jnp.array([3, T])
    real = jnp.arange(T) < lengths[:, None]
    found = explained(fun, x, lambda z: jnp.where(real[..., None], z, 0), seq_lengths=lengths)
    alone = explained(fun, x[:1, :3])
    assert (found.relevance[0, 3:] == 0).all()
    close(found.relevance[0, :3], alone.relevance[0])
    close(found.relevance[1], explained(fun, x[1:]).relevance[0])


def test_relevance_of_steps_adds_up():
    """Each step is a target of its own; and relevance of all steps is the sum of theirs."""
    x = random(jnp.zeros((B, T, D)))
    model = model_of()
    variables = random(jax.eval_shape(model.init, jax.random.key(0), x))
    explain = lrp.explain(model.apply, EXACT, argnums=1)

    @jax.jit
    def of(t):
        at = (jnp.arange(T) == t)[None, :, None]
        return explain(variables, x, target=lambda z: jnp.where(at, z, 0)).relevance

    steps = jax.vmap(of)(jnp.arange(T))
    close(steps.sum(0), jax.jit(lambda: explain(variables, x, target=lambda z: z))().relevance)
    for t in range(T):
        assert (steps[t, :, t + 1 :] == 0).all()
        assert np.abs(steps[t, :, t]).min() > 1e-6


# The rules of the papers, in NumPy: Arras et al. (2019), section 3.


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(p: dict[str, np.ndarray], x: np.ndarray, c: np.ndarray, h: np.ndarray) -> list[dict]:
    """The states of an LSTM, step by step; gates i, f, o and candidate g."""
    steps = []
    for x_t in x:
        z = {k: x_t @ p[f"x{k}"] + h @ p[f"h{k}"] + p[f"b{k}"] for k in "ifgo"}
        i, f, o, g = sigmoid(z["i"]), sigmoid(z["f"]), sigmoid(z["o"]), np.tanh(z["g"])
        new = f * c + i * g
        steps.append({"x": x_t, "h": h, "c": c, "z": z, "i": i, "f": f, "o": o, "g": g, "new": new})
        c, h = new, o * np.tanh(new)
    steps.append({"h": h})
    return steps


def away(z: np.ndarray, epsilon: float) -> np.ndarray:
    return z + np.where(z >= 0, epsilon, -epsilon)


def share(how: str, gate: np.ndarray, signal: np.ndarray, r: np.ndarray) -> tuple:
    """Relevance of the gate and of the signal of a product."""
    if how == "all":
        return 0 * r, r
    if how == "half":
        return r / 2, r / 2
    total = np.abs(gate) + np.abs(signal)
    return r * np.abs(gate) / total, r * np.abs(signal) / total


def arras(p: dict, steps: list[dict], r_h: np.ndarray, how: str, epsilon: float) -> tuple:
    """Relevance of the inputs, of c_0 and of h_0, from that of the last h."""
    of_x, r_c = [], np.zeros_like(r_h)
    for s in steps[-2::-1]:
        r_o, r_signal = share(how, s["o"], np.tanh(s["new"]), r_h)
        r_c = r_c + r_signal
        by = r_c / away(s["new"], epsilon)
        r_f, r_c = share(how, s["f"], s["c"], s["f"] * s["c"] * by)
        r_i, r_g = share(how, s["i"], s["g"], s["i"] * s["g"] * by)
        r_x, r_h = 0.0, 0.0
        for k, r in (("i", r_i), ("f", r_f), ("g", r_g), ("o", r_o)):
            by = r / away(s["z"][k], epsilon)
            r_x = r_x + s["x"] * (p[f"x{k}"] @ by)
            r_h = r_h + s["h"] * (p[f"h{k}"] @ by)
        of_x.append(r_x)
    return np.stack(of_x[::-1]), r_c, r_h


RULES = {"all": SignalTakesAll(), "half": Uniform(), "prop": Proportional()}


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.OptimizedLSTMCell])
@pytest.mark.parametrize("how", RULES)
def test_the_rules_of_the_papers(how, cell):
    rng = np.random.default_rng(5)
    p = {f"{s}{k}": rng.normal(size=(n, H)) for k in "ifgo" for s, n in (("x", D), ("h", H))}
    p |= {f"b{k}": rng.normal(size=H) for k in "ifgo"}
    x, c, h = rng.normal(size=(T, D)), rng.normal(size=H), rng.normal(size=H)
    steps = forward(p, x, c, h)
    begun = np.where(np.arange(H) == UNIT, steps[-1]["h"], 0)
    expected = arras(p, steps, begun, how, epsilon=0.01)

    params = {f"i{k}": {"kernel": p[f"x{k}"]} for k in "ifgo"}
    params |= {f"h{k}": {"kernel": p[f"h{k}"], "bias": p[f"b{k}"]} for k in "ifgo"}
    model = nn.RNN(cell(H, param_dtype=jnp.float64))
    variables = {"params": {"cell": params}}

    def fun(x, carry):
        return model.apply(
            variables, x[None], initial_carry=jax.tree.map(lambda a: a[None], carry)
        )[0, -1]

    # As the papers have it: epsilon in the sum of a cell's two products, and not in each once more.
    literal = (
        C.by_kind("gate", RULES[how]) + C.by_kind("sum", Norm(0.01)) + C.by_kind("dense", LRP0())
    )
    result = lrp.explain(fun, literal, argnums=(0, 1))(x, (c, h), target=UNIT)
    np.testing.assert_allclose(result.output, steps[-1]["h"], rtol=1e-12)
    close(result.relevance, (expected[0], (expected[1], expected[2])))

    # The preset stabilizes those too, in which it differs from the papers by about its epsilon.
    preset = lrp.explain(fun, C.recurrent(how, epsilon=1e-9), argnums=(0, 1))
    exact = arras(p, steps, begun, how, epsilon=0)
    for a, b in zip(jax.tree.leaves(preset(x, (c, h), target=UNIT).relevance), exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def test_the_preset_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="gates must be one of all, half, prop, got 'most'"):
        C.recurrent("most")
