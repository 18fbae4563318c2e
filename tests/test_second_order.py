"""The gradient of an explanation: a loss on relevances, differentiated, against finite differences.

The derivative is that of the relevances as they are computed, recomputed at other inputs, weights,
initial relevances and hyperparameters. In float64, to 1e-6.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp import rules as R
from test_contract import CASES, Case, composite, inputs, network

from selection import one_in

pytestmark = pytest.mark.usefixtures("x64")


class Problem(NamedTuple):
    """What is explained, by which rules, and at which values.

    Attributes:
      function: of (parameters, x).
      composite: its leaves are the hyperparameters.
      parameters, x: NumPy arrays; integers are not moved.
      record: a layer whose relevance is in the loss, too.
      condition: a layer whose relevance is weighed by an array, which is moved as well.
    """

    function: Callable[[Any, Any], Any]
    composite: lrp.Composite
    parameters: Any
    x: np.ndarray
    record: str = ""
    condition: str = ""


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=shape)


# Layers whose rule is not in the table of the contract, one kind with each rule


def cumulated(p: Any, x: Any) -> Any:
    return lax.cumprod(x, axis=1)


def multiplied(p: Any, x: Any) -> Any:
    return jnp.prod(x, axis=1)


def highest(p: Any, x: Any) -> Any:
    return lax.cummax(x, axis=1)


def grouped(p: Any, x: Any) -> Any:
    return lax.ragged_dot(x, p, jnp.array([2, 1, 1], jnp.int32))


def matrices(p: Any, x: Any) -> Any:
    return jnp.einsum("nd,md->nm", x, x[:, ::-1] + p)


def layer_norm(p: Any, x: Any) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    return centered * lax.rsqrt((centered**2).mean(-1, keepdims=True) + 1e-2) * p[0] + p[1]


def rms_norm(p: Any, x: Any) -> Any:
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-2) * p[0]


def group_norm(p: Any, x: Any) -> Any:
    grouped = x.reshape(len(x), 2, -1)
    grouped = (grouped - grouped.mean(-1, keepdims=True)) / jnp.sqrt(
        grouped.var(-1, keepdims=True) + 1e-2
    )
    return grouped.reshape(x.shape) * p[0] + p[1]


def unit_norm(p: Any, x: Any) -> Any:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


NORMS = {f.__name__: f for f in (layer_norm, rms_norm, group_norm, unit_norm)}


# Networks


def attention_block(p: Any, x: Any) -> Any:
    """Causal attention of two heads and a gated MLP, each behind a norm and beside a residual."""
    n, d = x.shape
    h = layer_norm(p["norm1"], x)
    q, k, v = ((h @ p[name]).reshape(n, 2, d // 2) for name in "qkv")
    scores = jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(d / 2)
    scores = jnp.where(jnp.tril(jnp.ones((n, n), bool)), scores, -jnp.inf)
    mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v).reshape(n, d)
    x = x + mixed @ p["o"]
    h = rms_norm(p["norm2"], x)
    x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
    return jnp.tanh(x.mean(0) @ p["head"] + p["bias"])


def block_parameters(d: int = 4) -> dict[str, Any]:
    p: dict[str, Any] = {
        name: normal(*shape, seed=i, scale=0.7)
        for i, (name, shape) in enumerate(
            {"q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d), "gate": (d, 5), "up": (d, 5),
             "down": (5, d), "head": (d, 3), "bias": (3,)}.items()
        )
    }  # fmt: skip
    p["norm1"] = [1 + normal(d, seed=20, scale=0.2), normal(d, seed=21, scale=0.2)]
    p["norm2"] = [1 + normal(d, seed=22, scale=0.2)]
    return p


def recurrent(remat: bool) -> Callable:
    """An LSTM whose steps are scanned, rematerialized or not."""

    def net(p: Any, x: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            z = jnp.concatenate([x, h], -1) @ p["w"] + p["b"]
            i, f, g, o = jnp.split(z, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros(3)
        body = jax.checkpoint(step) if remat else step
        (h, _), _ = lax.scan(body, (zero, zero), x)
        return h @ p["head"]

    return net


def branching(p: Any, x: Any) -> Any:
    h = x @ p["w"]
    return lax.cond(p["flag"] > 0, lambda h: jnp.tanh(h) @ p["v"], lambda h: h @ p["v"] ** 2, h)


def folded(p: Any, x: Any) -> Any:
    """A convolution with a BatchNorm behind it and one before it, and both pools."""
    mean, variance, scale, shift = p["norm"]
    x = (x - mean[:2]) * (scale[:2] / jnp.sqrt(variance[:2] + 1e-3)) + shift[:2]
    z = lax.conv_general_dilated(
        x, p["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    z = jax.nn.relu((z - mean) / jnp.sqrt(variance + 1e-3) * scale + shift)
    z = lax.reduce_window(z, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return z.mean((1, 2)) @ p["head"] + p["bias"]


def looked_up(p: Any, tokens: Any) -> Any:
    h = p["table"][tokens] + p["position"]
    return jax.nn.gelu(rms_norm([1.0], h) @ p["w"]).sum(0)


LSTM = {
    "w": normal(5, 12, seed=1, scale=0.7),
    "b": normal(12, seed=2),
    "head": normal(3, 2, seed=3),
}
BRANCH = {"w": normal(4, 4, seed=4), "v": normal(4, 3, seed=5), "flag": 1.0}
FOLDED = {
    "norm": [normal(3, seed=6), 1 + normal(3, seed=7) ** 2, 1 + normal(3, seed=8, scale=0.3),
             normal(3, seed=9)],
    "kernel": normal(2, 2, 2, 3, seed=10),
    "head": normal(3, 2, seed=11),
    "bias": normal(2, seed=12),
}  # fmt: skip
EMBEDDED = {
    "table": normal(6, 4, seed=13),
    "position": normal(5, 4, seed=14),
    "w": normal(4, 3, seed=15),
}
NORMED = [1 + normal(4, seed=16, scale=0.3), normal(4, seed=17)]
SEQUENCE, IMAGE, PAIR = normal(5, 4, seed=18), normal(2, 4, 4, 2, seed=19), normal(2, 4, seed=23)

smooth = {"epsilon": 0.1}


def with_rule(kinds: Any, rule: R.Rule) -> lrp.Composite:
    return C.by_kind(kinds, rule) + C.all_epsilon(0.1)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "cumprod-Uniform": lambda: Problem(cumulated, C.default(), (), PAIR),
    "prod-Uniform": lambda: Problem(multiplied, C.default(), (), PAIR),
    "cummax-WinnerTakesAll": lambda: Problem(highest, C.default(), (), PAIR),
    "einsum-Uniform": lambda: Problem(matrices, C.default(), normal(4, seed=24), PAIR),
    "einsum-SignalTakesAll": lambda: Problem(
        matrices, C.by_kind("product", R.SignalTakesAll()), normal(4, seed=24), PAIR
    ),
    **{
        f"{name}-{type(rule).__name__}-then-dense": lambda f=f, rule=rule: Problem(
            lambda p, x: jnp.tanh(f(p[:2], x) @ p[2]),
            with_rule("normalizer", rule),
            [*NORMED, normal(4, 3, seed=25)],
            PAIR,
        )
        for name, f in NORMS.items()
        for rule in (R.Detach(), lrp.Pass())
    },
    **{
        f"grouped-{type(rule).__name__}": lambda rule=rule: Problem(
            grouped, C.by_kind("dense", rule), normal(3, 4, 2, seed=26), 2 + normal(4, 4, seed=27)
        )
        for rule in (lrp.LRP0(), lrp.Epsilon(0.1), lrp.Gamma(0.3, stabilizer=0.1))
    },
    "attention-attnlrp": lambda: Problem(
        attention_block, C.attnlrp(**smooth), block_parameters(), SEQUENCE
    ),
    "attention-cp_lrp": lambda: Problem(
        attention_block, C.cp_lrp(**smooth), block_parameters(), SEQUENCE
    ),
    "attention-proportional-gates": lambda: Problem(
        attention_block,
        C.by_operation("mul", R.Proportional()) + C.attnlrp(**smooth),
        block_parameters(),
        SEQUENCE,
    ),
    "attention-in-remat-recorded-and-conditioned": lambda: Problem(
        jax.checkpoint(attention_block), C.attnlrp(**smooth), block_parameters(), SEQUENCE, "v",
        "silu",
    ),
    "lstm-scan": lambda: Problem(recurrent(False), C.all_epsilon(0.1), LSTM, normal(4, 2, seed=28)),
    "lstm-scan-of-remat": lambda: Problem(
        recurrent(True),
        C.by_kind("gate", R.Uniform()) + C.all_epsilon(0.1),
        LSTM,
        normal(4, 2, seed=28),
    ),
    "cond": lambda: Problem(branching, C.all_epsilon(0.1), BRANCH, PAIR),
    "batch-norm-gamma-box": lambda: Problem(
        folded,
        C.first(C.by_kind("conv", lrp.ZBox(-4.0, 4.0, stabilizer=0.1)))
        + C.by_kind("dense", lrp.Gamma(0.3, stabilizer=0.1))
        + C.by_kind("pool", lrp.Norm(0.1)),
        FOLDED,
        IMAGE,
    ),
    "batch-norm-zplus-scale": lambda: Problem(
        folded,
        C.by_kind("conv", lrp.ZPlus(stabilizer=0.1)) + with_rule("scale", lrp.Epsilon(0.1)),
        FOLDED,
        IMAGE,
    ),
    "batch-norm-excitation": lambda: Problem(
        folded, C.excitation_backprop(stabilizer=0.1), FOLDED, IMAGE
    ),
    "embedding": lambda: Problem(
        looked_up, C.all_epsilon(0.1), EMBEDDED, np.array([3, 0, 5, 0, 1])
    ),
    "softmax": lambda: Problem(lambda p, x: jax.nn.softmax(x @ p), C.all_epsilon(0.1),
                               normal(4, 3, seed=29), PAIR),
    "log_softmax": lambda: Problem(lambda p, x: jax.nn.log_softmax(x @ p), C.all_epsilon(0.1),
                                   normal(4, 3, seed=29), PAIR),
}  # fmt: skip


def of_case(case: Case) -> Problem:
    p, x, _ = inputs(case)
    return Problem(case.function, composite(case), p, np.asarray(x))


EXTRA = [
    Case(R.Proportional(), "gate", next(c.function for c in CASES if c.kind == "gate")),
    Case(R.Proportional(), "attention", next(c.function for c in CASES if c.kind == "attention")),
    *(
        Case(rule, "activation", lambda p, x: jnp.tanh(x))
        for rule in (lrp.Pass(), R.DerivativeTimesRelevance(), R.Gradient())
    ),
]
PROBLEMS |= {
    f"{i}-{case.kind}-{case.rule!r}": lambda case=case: of_case(case)
    for i, case in enumerate([*CASES, *EXTRA])
}
PRESETS = {
    "epsilon_gamma_box": lambda: C.epsilon_gamma_box(-3.0, 3.0, epsilon=0.1, stabilizer=0.1),
    "guided_backprop": C.guided_backprop,
}


def of_preset(name: str) -> Problem:
    apply, variables, x = network()
    return Problem(apply, PRESETS[name](), variables, np.asarray(x[:1]))


PROBLEMS |= {f"network-{name}": lambda name=name: of_preset(name) for name in PRESETS}

STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
STEP = 1e-6  # so small that no ReLU and no maximum changes its mind; rounding / STEP is 1e-9


def moves(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


@pytest.mark.sampled
@pytest.mark.parametrize("name", one_in(2, PROBLEMS))
def test_gradient_of_an_explanation(name: str) -> None:
    problem = PROBLEMS[name]()
    as_arrays = lambda tree: jax.tree.map(jnp.asarray, tree)  # noqa: E731
    leaves, tree = jax.tree.flatten(problem.composite)
    at: dict[str, Any] = {
        "hyperparameters": as_arrays(leaves),
        "parameters": as_arrays(problem.parameters),
        "x": as_arrays(problem.x),
    }
    shape = jax.eval_shape(problem.function, at["parameters"], at["x"]).shape
    at["relevance"] = jnp.asarray(normal(*shape, seed=30))
    if problem.condition:
        plan = lrp.plan(problem.function, problem.composite, at["parameters"], at["x"], argnums=1)
        (row,) = [row for row in plan.rows if row.path == problem.condition]
        at["condition"] = jnp.asarray(normal(*row.output_shape, seed=31))

    def loss(at: dict[str, Any]) -> jax.Array:
        rules = jax.tree.unflatten(tree, at["hyperparameters"])
        condition = {problem.condition: at["condition"]} if problem.condition else None
        record = (problem.record,) if problem.record else ()
        result = lrp.explain(problem.function, rules, argnums=1, record=record)(
            at["parameters"], at["x"], target=at["relevance"], condition=condition
        )
        found = [result.relevance, *(r.relevance for r in result.records.values())]
        return sum(
            jnp.sin(f + jnp.arange(f.size, dtype=f.dtype).reshape(f.shape)).sum() for f in found
        )

    rng = np.random.default_rng(32)
    along = {
        group: jax.tree.map(
            lambda a: jnp.asarray(rng.normal(size=a.shape) if moves(a) else np.zeros(())), values
        )
        for group, values in at.items()
    }

    def moved(steps: dict[str, Any]) -> jax.Array:
        return loss({
            group: jax.tree.map(
                lambda a, d, t=steps[group]: a + t * d if moves(a) else a, at[group], along[group]
            )
            for group in at
        })  # fmt: skip

    still = dict.fromkeys(at, 0.0)
    gradient = jax.jit(jax.grad(moved))(still)
    moved = jax.jit(moved)
    for group, values in at.items():
        if not any(map(moves, jax.tree.leaves(values))):
            continue
        expected = sum(
            weight * float(moved({**still, group: n * STEP})) for n, weight in STENCIL
        ) / STEP  # fmt: skip
        assert float(gradient[group]) == pytest.approx(expected, rel=1e-6, abs=1e-6), group


def test_every_rule_is_asked() -> None:
    asked = {
        type(entry.then)
        for make in PROBLEMS.values()
        for entry in make().composite.all_entries()
        if isinstance(entry.then, R.Rule)
    }
    concrete = {getattr(R, name) for name in R.__all__}
    concrete = {c for c in concrete if isinstance(c, type) and issubclass(c, R.Rule)} - {R.Rule}
    assert asked == concrete


def test_shares_are_computed_again_only_where_a_derivative_is_taken():
    """Of a differentiated explanation they would be stored; a plain one has nothing to recompute."""
    w, v = (jnp.asarray(np.random.default_rng(i).normal(size=(4, 4))) for i in (0, 1))
    explain = lrp.explain(lambda w, x: jax.nn.relu(x @ w) @ v, argnums=1)

    def plain(w, x):
        return explain(w, x, target=0).relevance

    def loss(w, x):
        return jnp.square(plain(w, x)).sum()

    def mapped(w, x):
        return jnp.square(jax.vmap(plain, (None, 0))(w, x[:, None])).sum()

    x = jnp.ones((3, 4))
    assert "remat" not in str(jax.make_jaxpr(plain)(w, x))
    for differentiated in (jax.grad(loss), jax.grad(mapped), jax.grad(mapped, argnums=1)):
        assert "remat" in str(jax.make_jaxpr(differentiated)(w, x))
