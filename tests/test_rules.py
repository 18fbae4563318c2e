"""Each rule against numbers worked by hand, against the formula, and as a value."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp import rules as R
from jaxlrp.numerics import to_gradient_form, to_relevance

import oracle
from numeric import close

LINEAR = ("dense", "conv", "scale", "shift")


pytestmark = pytest.mark.usefixtures("x64")


def dense(w: Any, b: Any) -> Callable[[jax.Array], jax.Array]:
    """The layer x w + b, with w (n_in, n_out)."""
    w, b = jnp.asarray(w, float), jnp.asarray(b, float)
    return lambda x: x @ w + b


def relevance(
    rule: lrp.rules.Rule, w: Any, b: Any, x: Any, r: Any, kinds: Any = LINEAR
) -> jax.Array:
    """The relevance of x under the rule, for the layer x w + b."""
    explain = jax.jit(lrp.explain(dense(w, b), C.by_kind(kinds, rule)))
    return explain(jnp.asarray(x, float), target=jnp.asarray(r, float)).relevance


# One case, all libraries: W x + b = [8, -3], one output of each sign, weights and inputs of both.

W = np.array([[2.0, -1.0, 1.0], [-1.0, 3.0, 2.0]]).T
B = np.array([1.0, -2.0])
X = np.array([1.0, -2.0, 3.0])
Z = np.array([8.0, -3.0])
TINY = 1e-12  # a stabilizer that does not show

ONE_CASE = [
    (lrp.LRP0(), [1, -4, 9]),
    (lrp.Epsilon(0.0), [1, -4, 9]),
    (lrp.Epsilon(1.0), [37 / 36, -49 / 18, 43 / 6]),
    (lrp.Epsilon(0.0, bias="zero"), [-5 / 7, -110 / 7, 150 / 7]),
    (lrp.ZPlus(stabilizer=TINY), [2, 2, 0]),
    (lrp.ZPlus(bias="zero", stabilizer=TINY), [16 / 7, 16 / 7, 3 / 7]),
    (lrp.AlphaBeta(1.0, 0.0, stabilizer=TINY), [2, 2, 0]),
    (lrp.AlphaBeta(2.0, 1.0, stabilizer=TINY), [13 / 3, 6, 0]),
    (lrp.AlphaBeta(2.0, 1.0, bias="zero", stabilizer=TINY), [5, 50 / 7, 6 / 7]),
    (lrp.Gamma(0.25, stabilizer=0.0), [9 / 7, -16 / 7, 45 / 7]),
    (lrp.Gamma(0.25, bias="zero", stabilizer=0.0), [71 / 77, -454 / 77, 768 / 77]),
    (lrp.ZBox(-3.0, 3.0, stabilizer=0.0), [974 / 323, 509 / 323, 132 / 323]),
    (lrp.WSquare(stabilizer=0.0), [185 / 42, -5 / 14, 10 / 21]),
    (lrp.WSquare(bias="zero", stabilizer=0.0), [215 / 42, -25 / 42, 10 / 21]),
    (lrp.Flat(stabilizer=0.0), [5 / 3, 5 / 3, 5 / 3]),
]


@pytest.mark.parametrize(("rule", "expected"), ONE_CASE, ids=lambda v: repr(v)[:40])
def test_one_case(rule: lrp.rules.Rule, expected: list[float]) -> None:
    close(relevance(rule, W, B, X, Z), expected)


@pytest.mark.parametrize(("rule", "expected"), ONE_CASE, ids=lambda v: repr(v)[:40])
def test_one_case_float32(rule: lrp.rules.Rule, expected: list[float]) -> None:
    w, b, x, z = (jnp.asarray(a, jnp.float32) for a in (W, B, X, Z))
    explain = lrp.explain(lambda x: x @ w + b, C.by_kind("dense", rule))
    found = explain(x, target=z).relevance
    assert found.dtype == jnp.float32
    close(found, expected, 1e-5)


def test_case_1_dense_lrp0() -> None:
    # z = [3+8+7, 5+12+8] = [18, 25]
    w = np.array([[3.0, 4.0], [5.0, 6.0]]).T
    for rule in (lrp.LRP0(), lrp.Epsilon(0.0), lrp.Gamma(0.0, stabilizer=0.0)):
        close(relevance(rule, w, [7, 8], [1, 2], [1 / 3, 2 / 3]), [17 / 90, 316 / 675])


def test_case_3_scale() -> None:
    # z = [-2+1, 4-3] = [-1, 1]: shares -2/-1 and 4/1
    w, b = jnp.array([-2.0, 2.0]), jnp.array([1.0, -3.0])

    def scale(x: jax.Array) -> jax.Array:
        return x * w + b

    assert lrp.plan(scale, None, jnp.ones(2)).rows[0].kind == "scale"
    for rule in (lrp.LRP0(), lrp.Epsilon(0.0)):
        result = lrp.explain(scale, C.by_kind("scale", rule))(
            jnp.array([1.0, 2.0]), target=jnp.array([1 / 3, 2 / 3])
        )
        close(result.relevance, [2 / 3, 8 / 3])


def test_case_4_skip_add() -> None:
    w, b = jnp.array([[3.0, 4.0], [5.0, 6.0]]).T, jnp.array([7.0, 8.0])
    x = jnp.array([1.0, 2.0])
    for composite in (None, C.all_epsilon(0.0), C.epsilon_plus(epsilon=TINY, stabilizer=TINY)):
        explain = lrp.explain(lambda x: x + jax.nn.relu(x @ w + b), composite)
        # Epsilon's default of 1e-6 shows in the ninth digit
        rtol = 1e-6 if composite is None else 1e-10
        close(explain(x, target=jnp.array([1.0, 0.0])).relevance, [4 / 19, 8 / 19], rtol)
        close(explain(x, target=jnp.array([0.0, 1.0])).relevance, [5 / 27, 14 / 27], rtol)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(lrp.AlphaBeta(1.0, 0.0), [-1, 0]), (lrp.ZPlus(), [-1, 0]), (lrp.AlphaBeta(), [-2, 0.5])],
)
def test_case_5_alpha_beta(rule: lrp.rules.Rule, expected: list[float]) -> None:
    rule = dataclasses.replace(rule, stabilizer=TINY)
    close(relevance(rule, [[1], [-1]], [-1], [1, 1], [-1]), expected)


def test_case_6_gamma() -> None:
    w = np.array([[1.0, -4.0], [2.0, 0.0]]).T
    found = relevance(lrp.Gamma(0.25, stabilizer=0.0), w, [-2, 3], [-1, 1], [-0.07, 1])
    close(found, [-0.01 - 2 / 1.75, -0.04])


@pytest.mark.parametrize(
    ("weight", "first", "last", "expected"),
    [
        (2.0, lrp.Epsilon(0.0), lrp.Epsilon(0.0), [18, 36, 54]),
        (-2.0, lrp.Gamma(1.0, stabilizer=0.0), lrp.Gamma(0.25, stabilizer=0.0),
         [28 / 3, 104 / 3, 52]),
        (-2.0, lrp.ZPlus(stabilizer=TINY), lrp.ZPlus(stabilizer=TINY), [12, 33.6, 50.4]),
    ],
)  # fmt: skip
def test_case_13_two_layers(
    weight: float, first: lrp.rules.Rule, last: lrp.rules.Rule, expected: list[float]
) -> None:
    # hidden [12, 12, 12], or [8, 12, 12] with one weight negative
    w1 = np.full((3, 3), 2.0)
    w1[0, 0] = weight
    w1, w2 = jnp.asarray(w1), jnp.full((3, 1), 3.0)
    composite = C.composite(C.last(last), C.first(first))
    found = lrp.explain(lambda x: jax.nn.relu(x @ w1) @ w2, composite)(jnp.array([1.0, 2.0, 3.0]))
    close(found.relevance, expected)


def test_case_13_pass() -> None:
    # hidden units [8, 12, 12] of logit 96: relevance [24, 36, 36], handed on by Pass
    w1 = jnp.full((3, 3), 2.0).at[0, 0].set(-2.0)
    w2 = jnp.full((3, 1), 3.0)
    composite = C.composite(C.first(lrp.Pass()), C.last(lrp.Epsilon(0.0)))
    found = lrp.explain(lambda x: jax.nn.relu(x @ w1) @ w2, composite)(jnp.array([1.0, 2.0, 3.0]))
    close(found.relevance, [24, 36, 36])


def test_case_14_reuse() -> None:
    w = jnp.array([[1.0, 2.0], [3.0, 4.0]]).T
    for composite in (C.by_kind("dense", lrp.LRP0()), C.all_epsilon(0.0)):
        found = lrp.explain(lambda x: (x @ w) @ w, composite)(jnp.array([1.0, -2.0]), target=0)
        close(found.relevance, [7, -20])


def test_case_15_conv() -> None:
    x = jnp.arange(16.0).reshape(1, 1, 4, 4)
    kernel = jnp.ones((2, 1, 3, 3))
    bias = jnp.array([-50.0, -75.0]).reshape(1, 2, 1, 1)
    w = jnp.concatenate([jnp.ones((5, 4)), -jnp.ones((3, 4))])

    def net(x: jax.Array) -> jax.Array:
        z = lax.conv(x, kernel, (1, 1), "VALID") + bias
        return jax.nn.relu(jax.nn.relu(z).reshape(1, 8) @ w)

    explain = lrp.explain(net, C.by_kind(("conv", "dense"), lrp.LRP0()), record="*conv*")
    result = explain(x, target=0)
    close(result.output[0, 0], 54.0)
    close(result.relevance[0, 0], [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11], [0, 0, 0, 0]])
    (record,) = result.records.values()
    close(record.relevance[0], [[[0, 4], [31, 40]], [[0, 0], [-6, -15]]])


def test_case_16_tanh_and_max_pool() -> None:
    def net(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ jnp.full((3, 3), 0.1)) @ jnp.full((3, 1), 0.1)

    found = lrp.explain(net, C.all_epsilon(0.0))(jnp.array([1.0, 2.0, 3.0])).relevance
    # tanh(.6) * .3 = .161115, shared as 1 : 2 : 3
    close(found, 0.3 * np.tanh(0.6) * np.array([1, 2, 3]) / 6)
    close(found, [0.0269, 0.0537, 0.0806], 1e-3)


def test_case_10_matmul() -> None:
    a, b = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, -1.0], [2.0, 1.0]])
    explain = lrp.explain(lambda a, b: a @ b, C.by_kind("product", R.Uniform()), argnums=(0, 1))
    ra, rb = explain(a, b, target=a @ b).relevance
    close(ra, [[0, 3], [0, 6]])
    close(rb, [[2, -2], [6, 3]])
    ra, rb = explain(a, b, target=jnp.eye(2)).relevance
    close(ra, [[0.1, 0.4], [-1.5, 2]])
    close(rb, [[0.1, -1.5], [0.4, 2]])


@pytest.mark.parametrize("attention", ["attnlrp", "cp"])
def test_case_11_attention(attention: str) -> None:
    q, k = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[1.0, 1.0], [0.0, 1.0]])
    v = jnp.array([[1.0, -1.0], [2.0, 3.0]])

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        p = jax.nn.softmax(q @ k.T, axis=-1)
        return (lax.stop_gradient(p) if attention == "cp" else p) @ v

    out = np.array([[1.2689414213699952, 0.07576568547998], [1.5, 1.0]])
    target = jnp.asarray(out * [[1.0], [0.0]])
    argnums = (0, 1, 2) if attention == "attnlrp" else 2
    result = lrp.explain(attend, argnums=argnums)(q, k, v, target=target)
    close(result.output, out, 1e-6)
    if attention == "cp":
        # the attention weights are constants: the product is a dense layer, its rule epsilon
        close(result.relevance, [[0.7310586, -0.7310586], [0.5378828, 0.8068243]], 1e-5)
        return
    rq, rk, rv = result.relevance
    close(rq, [[-0.2457649, 0], [0, 0]], 1e-6)
    close(rk, [[-0.2457649, 0], [0, 0]], 1e-6)
    close(rv, [[0.3655293, -0.3655293], [0.2689414, 0.4034121]], 1e-6)


# Case 19: how denominators are kept off zero


@pytest.mark.parametrize(
    ("stabilize", "z", "expected"),
    [
        (R.Stabilize(1e-3), [0, -0.0, 1, -1], [1e-3, 1e-3, 1.001, -1.001]),
        (R.Stabilize(1.0, clip=True), [0, -0.0, 1, -1], [1, 1, 1, -1]),
        (R.Stabilize(1.0, clip=True), [0.5, -0.5, 2, -2], [1, -1, 2, -2]),
        (R.Stabilize(1.0, norm_scale=True), [0, -0.0, 2, -2],
         [2**0.5, 2**0.5, 2 + 2**0.5, -2 - 2**0.5]),
        (R.Stabilize(1.0, clip=True, norm_scale=True), [0, -0.0, 2, -2],
         [2**0.5, 2**0.5, 2, -2]),
        (R.Stabilize(1e-3), [1, 0, 1e-25, -1, -0.0, -1e-25],
         [1.001, 0.001, 0.001, -1.001, 0.001, -0.001]),
    ],
)  # fmt: skip
def test_case_19_stabilize(stabilize: Any, z: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(stabilize(jnp.array(z)), expected, rtol=1e-12)
    rule = lrp.Epsilon(stabilize)
    w, r = np.diag(np.ones(len(z))), np.arange(1.0, len(z) + 1)
    # z = x here, so the relevance is z r / stabilize(z)
    close(relevance(rule, w, np.zeros(len(z)), z, r), np.array(z) * r / expected)


def test_stabilize_axis() -> None:
    z = jnp.array([[3.0, -4.0], [0.0, 0.0]])
    root = np.sqrt(12.5)
    found = R.Stabilize(0.1, norm_scale=True)(z)
    np.testing.assert_allclose(found[0], [3 + 0.1 * root, -4 - 0.1 * root], rtol=1e-12)
    found = R.Stabilize(0.1, norm_scale=True, axis=(0,))(z)
    np.testing.assert_allclose(found[0], [3 + 0.1 * 4.5**0.5, -4 - 0.1 * 8**0.5], rtol=1e-12)


def test_a_relative_epsilon_is_finite_where_all_outputs_are_zero() -> None:
    """Such as at a silent step of a sequence: the root mean square is zero, and 0 / 0 is no relevance."""
    scale = R.Stabilize(0.1, norm_scale=True)
    close(scale(jnp.array([[0.0, -0.0], [3.0, 0.0]]))[0], [0.1, 0.1])
    w, x = np.array([[1.0, -1.0], [2.0, 0.5]]), np.zeros(2)
    rule = lrp.Epsilon(scale)
    # In gradient form, zero is of the order of tiny, 2^-300.
    assert np.abs(relevance(rule, w, np.zeros(2), x, np.ones(2))).max() < 1e-80
    slope = jax.grad(lambda z: scale(z).sum())(jnp.zeros(2))
    assert bool(jnp.isfinite(slope).all())


def test_user_stabilizer() -> None:
    rule = lrp.Epsilon(lambda z: jnp.where(z >= 0, z + 1.0, z - 1.0))
    close(relevance(rule, W, B, X, Z), [37 / 36, -49 / 18, 43 / 6])


# Against the formula

ORACLES = [
    (lrp.LRP0(), oracle.lrp0, {}),
    (lrp.Epsilon(0.3), oracle.epsilon, {"epsilon": 0.3}),
    (lrp.Epsilon(0.3, bias="zero"), oracle.epsilon, {"epsilon": 0.3, "bias": "zero"}),
    (lrp.ZPlus(bias="absorb", stabilizer=0.2), oracle.zplus, {"stabilizer": 0.2}),
    (lrp.ZPlus(bias="zero", stabilizer=0.2), oracle.zplus, {"stabilizer": 0.2, "bias": "zero"}),
    (lrp.AlphaBeta(2.0, 1.0, bias="absorb", stabilizer=0.2), oracle.alpha_beta, {"stabilizer": 0.2}),
    (lrp.AlphaBeta(1.5, 0.5, bias="zero", stabilizer=0.2), oracle.alpha_beta,
     {"alpha": 1.5, "beta": 0.5, "stabilizer": 0.2, "bias": "zero"}),
    (lrp.AlphaBeta(1.0, 0.0, bias="absorb", stabilizer=0.2), oracle.zplus, {"stabilizer": 0.2}),
    (lrp.Gamma(0.7, bias="absorb", stabilizer=0.2), oracle.gamma, {"gamma": 0.7, "stabilizer": 0.2}),
    (lrp.Gamma(0.7, bias="zero", stabilizer=0.2), oracle.gamma,
     {"gamma": 0.7, "stabilizer": 0.2, "bias": "zero"}),
    (lrp.ZBox(-2.5, 3.5, stabilizer=0.2), oracle.zbox, {"low": -2.5, "high": 3.5, "stabilizer": 0.2}),
    (lrp.WSquare(bias="absorb", stabilizer=0.2), oracle.wsquare, {"stabilizer": 0.2}),
    (lrp.WSquare(bias="zero", stabilizer=0.2), oracle.wsquare, {"stabilizer": 0.2, "bias": "zero"}),
    (lrp.Flat(stabilizer=0.2), oracle.flat, {"stabilizer": 0.2}),
]  # fmt: skip

by_oracle = pytest.mark.parametrize(
    ("rule", "formula", "parameters"), ORACLES, ids=[repr(rule) for rule, _, _ in ORACLES]
)


def hard_data(seed: int) -> tuple[np.ndarray, ...]:
    """All signs, zeros in x and w, z = 0, dead units, a unit without weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=7)
    x[[1, 4]] = 0.0
    w = rng.normal(size=(7, 9))
    w[rng.random(w.shape) < 0.15] = 0.0
    b = rng.normal(size=9)
    w[:, 0], b[0] = 0.0, 0.0  # nothing at all
    w[:, 1], b[1] = 0.0, 1.5  # a bias alone
    x[[0, 2]] = [2.0, -1.0]
    w[:, 2], b[2] = 0.0, 0.5
    w[[0, 2], 2] = [0.25, 1.0]  # .5 - 1 + .5: z = 0 exactly, from contributions that are not
    w[:, 3], b[3] = -np.abs(w[:, 3]) * np.sign(x), -0.5  # all contributions negative
    w[:, 4], b[4] = np.abs(w[:, 4]) * np.sign(x), 0.5  # all positive
    r = rng.normal(size=9)
    r[5] = 0.0
    return w, b, x, r


@by_oracle
def test_formula(rule: lrp.rules.Rule, formula: Callable, parameters: dict[str, Any]) -> None:
    for seed in range(3):
        w, b, x, r = hard_data(seed)
        if isinstance(rule, lrp.LRP0):
            # LRP-0 divides nothing in gradient form, and is not defined where z is 0
            w, b, r = w[:, 3:], b[3:], r[3:]
        close(relevance(rule, w, b, x, r), formula(w, b, x, r, **parameters))


@by_oracle
def test_formula_of_a_batch(
    rule: lrp.rules.Rule, formula: Callable, parameters: dict[str, Any]
) -> None:
    rng = np.random.default_rng(5)
    w, b = rng.normal(size=(4, 3)), rng.normal(size=3)
    x, r = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 3))
    expected = [[formula(w, b, x[i, j], r[i, j], **parameters) for j in range(5)] for i in range(2)]
    close(relevance(rule, w, b, x, r), expected)


@by_oracle
def test_formula_where_signs_are_known(
    rule: lrp.rules.Rule, formula: Callable, parameters: dict[str, Any]
) -> None:
    """After a ReLU and before one, a rule leaves out what is zero: to the same numbers."""
    rng = np.random.default_rng(8)
    w, b, v = rng.normal(size=(6, 5)), rng.normal(size=5), rng.normal(size=(5, 4))
    x = np.abs(rng.normal(size=6)) * [1, 1, -1, 1, -1, 1]
    seed = rng.normal(size=4)

    def net(x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.nn.relu(x) @ w + b) @ v

    plan = lrp.plan(net, None, jnp.asarray(x))
    assert [row.kind for row in plan.rows] == ["activation", "dense", "activation", "dense"]
    composite = C.composite(C.last(lrp.Epsilon(0.0)), C.first(rule))
    found = lrp.explain(net, composite, record=plan.paths[0])(
        jnp.asarray(x), target=jnp.asarray(seed)
    )
    (record,) = found.records.values()
    a = np.maximum(x, 0)
    hidden = np.maximum(a @ w + b, 0)
    r = oracle.lrp0(v, np.zeros(4), hidden, seed)
    assert (hidden == 0).any()
    assert (hidden > 0).any()
    close(record.relevance, formula(w, b, a, r, **parameters))


SCALE, SHIFT = np.array([0.5, -1.0, 2.0, 1.0, 0.7]), np.array([0.3, 0.2, -0.5, 1.0, 0.4])
DEAD_UNITS_FED: dict[str, tuple[lrp.rules.Rule, Callable, Callable, dict[str, Any]]] = {
    # rule of the last layer, what stands before it, formula of the last layer
    "flat": (lrp.Flat(stabilizer=0.0), lambda h: h, oracle.flat, {"stabilizer": 0.0}),
    "wsquare": (lrp.WSquare(stabilizer=0.0), lambda h: h, oracle.wsquare, {"stabilizer": 0.0}),
    "zbox": (lrp.ZBox(-1.0, 9.0), lambda h: h, oracle.zbox, {"low": -1.0, "high": 9.0}),
    "batch norm": (lrp.Epsilon(0.0), lambda h: h * SCALE - SHIFT, oracle.lrp0, {}),
    "sigmoid": (lrp.Epsilon(0.0), jax.nn.sigmoid, oracle.lrp0, {}),
    "cos": (lrp.Epsilon(0.0), jnp.cos, oracle.lrp0, {}),
}


@pytest.mark.parametrize(
    "name",
    DEAD_UNITS_FED,
)
def test_gamma_below_what_feeds_dead_units(name: str) -> None:
    """Relevance that comes to a unit which is 0 is handed on to z < 0, and shared there."""
    rng = np.random.default_rng(8)
    w, b, v = rng.normal(size=(6, 5)), rng.normal(size=5), rng.normal(size=(5, 4))
    x, seed = np.abs(rng.normal(size=6)), rng.normal(size=4)
    above, between, formula, parameters = DEAD_UNITS_FED[name]

    def net(x: jax.Array) -> jax.Array:
        return between(jax.nn.relu(jax.nn.relu(x) @ w + b)) @ v

    composite = C.composite(C.last(above), C.first(lrp.Gamma(0.5, stabilizer=0.1)))
    found = lrp.explain(net, composite)(jnp.asarray(x), target=jnp.asarray(seed)).relevance
    hidden = np.maximum(x @ w + b, 0)
    assert (hidden == 0).any()
    r = formula(v, np.zeros(4), np.asarray(between(hidden)), seed, **parameters)
    close(found, oracle.gamma(w, b, x, r, gamma=0.5, stabilizer=0.1))


def test_box_bounds_per_feature() -> None:
    w, b, x, r = hard_data(4)
    low, high = -np.arange(1.0, 8.0), np.arange(2.0, 9.0)
    found = relevance(lrp.ZBox(jnp.asarray(low), jnp.asarray(high), stabilizer=0.1), w, b, x, r)
    close(found, oracle.zbox(w, b, x, r, low, high, 0.1))


# Laws


def test_lrp0_is_input_times_gradient() -> None:
    rng = np.random.default_rng(0)
    ws = [jnp.asarray(rng.normal(size=s)) for s in ((5, 6), (6, 4), (4, 3))]
    bs = [jnp.asarray(rng.normal(size=n)) for n in (6, 4, 3)]

    def net(x: jax.Array) -> jax.Array:
        for w, b in zip(ws, bs, strict=True):
            x = jax.nn.relu(x) @ w + b
        return x

    x = jnp.asarray(rng.normal(size=5))
    for rule in (lrp.LRP0(), lrp.Epsilon(0.0), lrp.Gamma(0.0, stabilizer=0.0)):
        found = lrp.explain(net, C.by_kind("dense", rule))(x, target=1).relevance
        close(found, x * jax.grad(lambda x: net(x)[1])(x))


def test_gamma_to_infinity_is_zplus() -> None:
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(6, 4)), np.abs(rng.normal(size=4))
    x = rng.normal(size=6)
    r = np.where(x @ w + b > 0, 1.0, 0.0)
    assert r.sum() > 0
    # of order 1/gamma
    close(relevance(lrp.Gamma(1e9), w, b, x, r), relevance(lrp.ZPlus(), w, b, x, r), 1e-6)


@pytest.mark.parametrize("rule", [rule for rule, _, _ in ORACLES], ids=repr)
def test_linear_in_relevance(rule: lrp.rules.Rule) -> None:
    w, b, x, r = hard_data(2)
    if isinstance(rule, lrp.LRP0):
        w, b, r = w[:, 3:], b[3:], r[3:]
    other = np.cos(np.arange(len(r)))
    left = relevance(rule, w, b, x, 2 * r - 3 * other)
    close(left, 2 * relevance(rule, w, b, x, r) - 3 * relevance(rule, w, b, x, other))


@pytest.mark.parametrize(
    "rule",
    [
        lrp.Epsilon(0.0, bias="zero"),
        lrp.ZPlus(bias="zero", stabilizer=TINY),
        lrp.AlphaBeta(2.0, 1.0, bias="zero", stabilizer=TINY),
        lrp.Gamma(0.4, bias="zero", stabilizer=TINY),
        lrp.ZBox(-9.0, 9.0, stabilizer=TINY),
        lrp.WSquare(bias="zero", stabilizer=TINY),
        lrp.Flat(stabilizer=TINY),
    ],
    ids=repr,
)  # fmt: skip
def test_conservation(rule: lrp.rules.Rule) -> None:
    rng = np.random.default_rng(3)
    w, b, x, r = (rng.normal(size=s) for s in ((6, 4), 4, 6, 4))
    assert abs(r.sum()) > 0.1
    close(relevance(rule, w, b, x, r).sum(), r.sum())


def test_without_its_bias_a_layer_may_divide_by_almost_nothing() -> None:
    """x w = 1 - 0.9999, b = 1: a relative epsilon bounds what an absolute one does not."""
    w, b, x, r = [[1.0], [-1.0]], [1.0], [1.0, 0.9999], [1.0]
    close(relevance(lrp.Epsilon(0.0, bias="zero"), w, b, x, r), [10000.0, -9999.0], 1e-9)
    close(relevance(lrp.Epsilon(0.0), w, b, x, r), [1 / 1.0001, -0.9999 / 1.0001])
    w, b, x, r = [[1.0, 1.0], [-1.0, 1.0]], [1.0, 0.0], [1.0, 0.9999], [1.0, 0.0]
    relative = R.Stabilize(0.1, norm_scale=True)
    size = 1e-4 + 0.1 * np.sqrt((1e-4**2 + 1.9999**2) / 2)  # z without its bias is (1e-4, 1.9999)
    close(
        relevance(lrp.Epsilon(relative, bias="zero"), w, b, x, r), [1 / size, -0.9999 / size], 1e-9
    )


@pytest.mark.parametrize(
    "rule",
    [lrp.Flat(stabilizer=0.1), lrp.WSquare(bias="absorb", stabilizer=0.1), lrp.ZBox(-9.0, 9.0)],
)
def test_rules_of_the_first_layer_give_relevance_to_zeros(rule: lrp.rules.Rule) -> None:
    w, b, _, r = hard_data(0)
    found = relevance(rule, w, b, np.zeros(7), r)
    assert np.all(np.isfinite(found))
    assert np.count_nonzero(found) == 7


# Derivatives of a loss on relevance


def finite_difference(
    loss: Callable[[np.ndarray], float], a: np.ndarray, h: float = 1e-5
) -> np.ndarray:
    """The gradient by central differences."""
    gradient = np.zeros_like(a)
    for i in np.ndindex(a.shape):
        step = np.zeros_like(a)
        step[i] = h
        gradient[i] = (float(loss(a + step)) - float(loss(a - step))) / (2 * h)
    return gradient


SMOOTH = [
    lrp.LRP0(),
    lrp.Epsilon(0.3),
    lrp.Epsilon(0.3, bias="zero"),
    lrp.Epsilon(R.Stabilize(0.3, norm_scale=True)),
    lrp.ZPlus(bias="absorb", stabilizer=0.2),
    lrp.AlphaBeta(2.0, 1.0, bias="absorb", stabilizer=0.2),
    lrp.Gamma(0.7, bias="absorb", stabilizer=0.2),
    lrp.Gamma(0.7, bias="zero", stabilizer=0.2),
    lrp.ZBox(-2.5, 3.5, stabilizer=0.2),
    lrp.WSquare(bias="absorb", stabilizer=0.2),
    lrp.Flat(stabilizer=0.2),
]


@pytest.mark.parametrize(
    ("rule", "closure"),
    [
        *((rule, False) for rule in SMOOTH),
        (lrp.LRP0(), True),
        (lrp.Gamma(0.7, bias="zero", stabilizer=0.2), True),
    ],
    ids=repr,
)
def test_second_order(rule: lrp.rules.Rule, closure: bool) -> None:
    """The gradient of a loss on relevance; parameters are arguments, or closed over as tracers."""
    rng = np.random.default_rng(11)
    w, b, x = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(2, 4))
    v = rng.normal(size=(3, 2))
    weigh = jnp.asarray(rng.normal(size=(2, 4)))
    composite = C.composite(C.last(lrp.LRP0()), C.by_kind("dense", rule))

    @jax.jit
    def loss(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        def net(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.tanh(x @ w + b) @ v

        if closure:
            r = lrp.explain(lambda x: net(x, w, b), composite)(x, target=1).relevance
        else:
            r = lrp.explain(net, composite)(x, w, b, target=1).relevance
        return jnp.sum(weigh * r**2)

    args = (x, w, b)
    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*map(jnp.asarray, args))
    for i in range(3):
        expected = finite_difference(lambda a, i=i: loss(*args[:i], a, *args[i + 1 :]), args[i])
        # truncation of the difference: h^2 = 1e-10 and rounding / h = 1e-11, times derivatives
        close(found[i], expected, 1e-6)


@pytest.mark.parametrize(
    "make",
    [lrp.Epsilon, lrp.Gamma, lambda v: lrp.ZPlus(stabilizer=v), lambda v: lrp.ZBox(-v, 3.0 + v),
     lambda v: lrp.AlphaBeta(1.0 + v, v), lambda v: lrp.Epsilon(R.Stabilize(v)),
     lambda v: lrp.Flat(stabilizer=v)],
    ids=["epsilon", "gamma", "zplus", "zbox", "alpha_beta", "stabilize", "flat"],
)  # fmt: skip
def test_gradient_of_hyperparameters(make: Callable[[Any], lrp.rules.Rule]) -> None:
    rng = np.random.default_rng(12)
    w, b, x, r = (rng.normal(size=s) for s in ((4, 3), 3, 4, 3))
    weigh = jnp.asarray(rng.normal(size=4))

    @jax.jit
    def loss(value: jax.Array) -> jax.Array:
        return jnp.sum(weigh * relevance(make(value), w, b, x, r) ** 2)

    found = jax.grad(loss)(jnp.asarray(0.4))
    expected = finite_difference(loss, np.array(0.4))
    assert abs(expected) > 1e-3
    close(found, expected, 1e-6)


def test_sweep_of_gamma_is_one_trace() -> None:
    w, b, x, r = map(jnp.asarray, hard_data(6))
    traces = []

    def layer(x: jax.Array) -> jax.Array:
        traces.append(1)
        return x @ w + b

    def explain(gamma: jax.Array) -> jax.Array:
        rule = lrp.Gamma(gamma, stabilizer=0.1)
        return lrp.explain(layer, C.by_kind("dense", rule))(x, target=r).relevance

    gammas = jnp.array([0.0, 0.25, 1.0, 10.0])
    sweep = jax.jit(jax.vmap(explain))
    found = sweep(gammas)
    sweep(gammas + 1.0)
    assert len(traces) == 1
    expected = [oracle.gamma(*map(np.asarray, (w, b, x, r)), float(g), "absorb", 0.1)
                for g in gammas]  # fmt: skip
    close(found, expected)
    assert np.abs(np.diff(found, axis=0)).max() > 1e-2


def test_a_rule_is_an_argument_of_a_jitted_function() -> None:
    w, b, x, r = hard_data(6)
    traces = []

    @jax.jit
    def explain(rule: lrp.rules.Rule) -> jax.Array:
        traces.append(1)
        return relevance(rule, w, b, x, r)

    for epsilon in (0.1, 0.5):
        expected = oracle.epsilon(w, b, x, r, epsilon)
        close(explain(lrp.Epsilon(epsilon)), expected)
    assert len(traces) == 1
    explain(lrp.Epsilon(0.1, bias="zero"))
    assert len(traces) == 2


# Wrong hyperparameters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrp.Epsilon(-1.0), r"epsilon must be >= 0, got -1\.0"),
        (lambda: lrp.Epsilon("1"), "epsilon must be a number >= 0, got the string '1'"),
        (lambda: lrp.ZBox("0", 1.0), "low must be a number or an array, got the string '0'"),
        (lambda: lrp.Epsilon(float("nan")), r"epsilon must be >= 0, got nan"),
        (lambda: lrp.Epsilon(bias="none"), r"bias must be one of 'absorb', 'zero', got 'none'"),
        (lambda: lrp.ZPlus(stabilizer=-1e-6), r"stabilizer must be >= 0, got -1e-06"),
        (lambda: lrp.ZPlus(bias="zeros"), r"bias must be one of 'absorb', 'zero', got 'zeros'"),
        (lambda: lrp.Gamma(-0.5), r"gamma must be >= 0, got -0\.5"),
        (lambda: lrp.Gamma(stabilizer=-1.0), r"stabilizer must be >= 0, got -1\.0"),
        (lambda: lrp.AlphaBeta(-1.0, -2.0), r"alpha must be >= 0, got -1\.0"),
        (lambda: lrp.AlphaBeta(0.5, -0.5), r"beta must be >= 0, got -0\.5"),
        (lambda: lrp.AlphaBeta(2.0, 2.0), r"alpha - beta must be 1 .* alpha=2\.0 and beta=2\.0"),
        (lambda: lrp.AlphaBeta(1.0, 2.0), r"alpha - beta must be 1 .* alpha=1\.0 and beta=2\.0"),
        (lambda: lrp.ZBox(1.0, -1.0), r"low must be <= high, got low=1\.0 and high=-1\.0"),
        (lambda: lrp.ZBox(0.0, 1.0, stabilizer=-1.0), r"stabilizer must be >= 0, got -1\.0"),
        (lambda: lrp.WSquare(bias="no"), r"bias must be one of 'absorb', 'zero', got 'no'"),
        (lambda: lrp.Flat(stabilizer=-1.0), r"stabilizer must be >= 0, got -1\.0"),
        (lambda: R.BetaSmooth(-1.0), r"beta must be >= 0, got -1\.0"),
        (lambda: R.Norm(-1.0), r"must be >= 0, got -1\.0"),
        (lambda: R.Stabilize(-1.0), r"epsilon must be >= 0, got -1\.0"),
    ],
)  # fmt: skip
def test_wrong_hyperparameter(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_alpha_minus_beta_to_rounding() -> None:
    assert lrp.AlphaBeta(1.3, 0.3).alpha == 1.3  # 1.3 - .3 is not 1 in floating point
    assert lrp.AlphaBeta(2, 1) == lrp.AlphaBeta(2.0, 1.0)


def test_box_of_a_wrong_shape() -> None:
    w, b, x, r = hard_data(0)
    with pytest.raises(ValueError, match=r"low of shape \(3,\) does not broadcast .* \(7,\)"):
        relevance(lrp.ZBox(jnp.zeros(3), 1.0), w, b, x, r)


def test_pass_needs_equal_shapes() -> None:
    with pytest.raises(ValueError, match=r"Pass passes relevance on unchanged.*\(3,\).*\(2,\)"):
        relevance(lrp.Pass(), W, B, X, Z)


# A user's own rule


def test_custom() -> None:
    def epsilon(layer: R.BoundLayer, x: jax.Array, r: jax.Array) -> jax.Array:
        z = layer.op(x, layer.weight) + layer.bias
        return x * layer.transpose(r / jnp.where(z >= 0, z + 1, z - 1), x)

    rule = lrp.Custom(epsilon)
    assert repr(rule) == "Custom(function=epsilon)"
    assert rule == lrp.Custom(epsilon)
    close(relevance(rule, W, B, X, Z), [37 / 36, -49 / 18, 43 / 6])


def test_custom_of_a_wrong_shape() -> None:
    rule = lrp.Custom(lambda layer, x, r: r)
    with pytest.raises(ValueError, match=r"relevance of shape \(2,\) for an input of shape \(3,\)"):
        relevance(rule, W, B, X, Z)


def test_custom_on_an_activation() -> None:
    rule = lrp.Custom(lambda layer, x, r: 2 * r + 0 * layer(x))
    found = lrp.explain(jnp.tanh, C.by_kind("activation", rule))(
        jnp.array([1.0, 0.0]), target=jnp.array([3.0, -5.0])
    )
    close(found.relevance, [6, -10])


def test_magnitude_by_hand() -> None:
    # 3 - 1 = 2: shares 3/4 and 1/4; 1 - 1 = 0 and 0 + 0 = 0: halves of no relevance
    x = jnp.array([[3.0, 1.0, 0.0, 0.0, 2.0], [-1.0, -1.0, 0.0, 5.0, -1.999]])
    explain = lrp.explain(lambda x: x[0] + x[1], C.by_kind("sum", R.Magnitude()))
    r = jnp.array([8.0, 6.0, 2.0, 7.0, 3.999])
    expected = [[6, 3, 1, 0, 2], [2, 3, 1, 7, 1.999]]
    close(explain(x, target=r).relevance, expected)


@pytest.mark.parametrize(
    "rule",
    [lrp.LRP0(), lrp.Epsilon(0.1), lrp.Gamma(0.3), lrp.ZPlus(), lrp.ZBox(-4.0, 4.0)],
    ids=lambda rule: type(rule).__name__,
)
def test_unfolded_is_the_layer_alone(rule: R.Rule) -> None:
    """Its relevance is that of the layer before the BatchNorm, to which that of its output is given."""
    rng = np.random.default_rng(0)
    w, b, mean, factor, beta = (jnp.asarray(rng.normal(size=s)) for s in ((4, 3), 3, 3, 3, 3))
    x, r = jnp.asarray(rng.normal(size=(5, 4))), jnp.asarray(rng.normal(size=(5, 3)))

    def explained(f: Callable, rule: R.Rule) -> Any:
        return lrp.explain(f, C.by_kind("dense", rule))(x, target=r).relevance

    def alone(x: jax.Array) -> jax.Array:
        return x @ w + b

    def normed(x: jax.Array) -> jax.Array:  # as PyTorch and Flax write it
        return (alone(x) - mean) * factor + beta

    def scaled(x: jax.Array) -> jax.Array:  # without a bias of its own, through a reshape, negated
        return -((x @ w).reshape(5, 3, 1) * factor[:, None] + beta[:, None])[..., 0]

    expected = explained(alone, rule)
    close(explained(normed, R.Unfolded(rule)), expected)
    close(explained(alone, R.Unfolded(rule)), expected)
    close(explained(scaled, R.Unfolded(rule)), explained(lambda x: x @ w, rule))
    folded = np.asarray(explained(normed, rule))
    assert isinstance(rule, lrp.ZBox) or abs(folded - np.asarray(expected)).max() > 0.1


def test_unfolded_keeps_only_its_own_bias() -> None:
    """Where a ReLU follows a BatchNorm of negative scale, outputs of the layer may be below zero."""
    w, b, shift = jnp.array([[-1.0, 2.0]]), jnp.array([1.0, -1.0]), jnp.array([5.0, 3.0])
    factor, x, same = jnp.array([-1.0, 1.0]), jnp.array([[2.0]]), jnp.eye(2)

    def net(x: jax.Array) -> jax.Array:
        return jax.nn.relu((jax.nn.relu(x) @ w + b) * factor + shift) @ same

    inner = lrp.Gamma(1.0, stabilizer=1e-12)
    explain = lrp.explain(net, C.by_kind("dense", R.Unfolded(inner)))
    r = jnp.array([[3.0, 7.0]])
    # z = -2 + 1 and 4 - 1; what has the sign of z counts twice: 3 * 4/3 and 7 * 8/7
    close(explain(x, target=r).relevance, [[12.0]])
    (row,) = [row for row in explain.ledger(x, target=r).rows.values() if abs(row.bias) > 0]
    close(row.bias, -2.0)
    assert R.Unfolded(inner).without_bias() == R.Unfolded(inner.without_bias())
    for rule in (lrp.LRP0(), inner):  # what autodiff does has no option for biases
        held = lrp.explain(net, C.by_kind("dense", R.Unfolded(rule))).ledger(
            x, target=r, zero_bias=True
        )
        close(held.input, 10.0)
        assert all(float(row.bias) == 0 for row in held.rows.values())
    for wrong in (lrp.Epsilon, lrp.Norm()):
        with pytest.raises(TypeError, match="then must be a rule for dense layers"):
            R.Unfolded(wrong)


# Rules are values

VALUES = [
    (lrp.LRP0(), "LRP0()"),
    (lrp.Epsilon(), "Epsilon(epsilon=1e-06, bias='absorb')"),
    (lrp.ZPlus(), "ZPlus(bias='absorb', stabilizer=1e-06)"),
    (lrp.AlphaBeta(), "AlphaBeta(alpha=2.0, beta=1.0, bias='absorb', stabilizer=1e-06)"),
    (lrp.Gamma(), "Gamma(gamma=0.25, bias='absorb', stabilizer=1e-06)"),
    (lrp.ZBox(), "ZBox(low=0.0, high=1.0, stabilizer=1e-06)"),
    (lrp.WSquare(), "WSquare(bias='absorb', stabilizer=1e-06)"),
    (lrp.Flat(), "Flat(stabilizer=1e-06)"),
    (lrp.Pass(), "Pass()"),
    (R.Proportional(), "Proportional()"),
    (R.Magnitude(), "Magnitude()"),
    (R.Pattern(), "Pattern(pattern=1.0, attribution=True)"),
    (lrp.Norm(), "Norm(stabilizer=1e-06)"),
    (R.LocalTaylor(), "LocalTaylor(stabilizer=1e-06)"),
    (R.BetaSmooth(), "BetaSmooth(beta=10.0)"),
    (R.DeconvNet(), "DeconvNet()"),
    (R.DerivativeTimesRelevance(), "DerivativeTimesRelevance()"),
    (R.Detach(), "Detach()"),
    (R.Gradient(), "Gradient()"),
    (R.GuidedBackprop(), "GuidedBackprop()"),
    (R.SignalTakesAll(), "SignalTakesAll()"),
    (R.Tempered(), "Tempered(temperature=2.0)"),
    (R.Uniform(), "Uniform()"),
    (R.WinnerTakesAll(), "WinnerTakesAll()"),
]


@pytest.mark.parametrize(("rule", "text"), VALUES, ids=[text for _, text in VALUES])
def test_a_rule_is_a_value(rule: lrp.rules.Rule, text: str) -> None:
    assert repr(rule) == text
    leaves, tree = jax.tree.flatten(rule)
    again = jax.tree.unflatten(tree, leaves)
    assert again == rule
    assert hash(again) == hash(rule)
    assert type(again) is type(rule)
    numbers = [f.name for f in dataclasses.fields(rule) if not isinstance(f.default, str | bool)]
    assert leaves == [getattr(rule, name) for name in numbers]
    for other, _ in VALUES:
        assert (other == rule) == (other is rule)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.epsilon = 1.0


def test_replace() -> None:
    rule = dataclasses.replace(lrp.Gamma(0.25), bias="zero")
    assert rule == lrp.Gamma(0.25, bias="zero")
    assert rule != lrp.Gamma(0.25)
    assert dataclasses.replace(rule, gamma=1.0).gamma == 1.0
    with pytest.raises(ValueError, match=r"gamma must be >= 0"):
        dataclasses.replace(rule, gamma=-1.0)


@pytest.mark.parametrize(
    "make",
    [lambda: lrp.ZPlus("zero"), lambda: lrp.Gamma(0.25, "zero"), lambda: lrp.Flat(0.1),
     lambda: lrp.ZBox(0.0, 1.0, 0.1), lambda: lrp.Epsilon(0.1, "zero")],
)  # fmt: skip
def test_options_are_given_by_name(make: Callable) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        make()


@R.rule
class Equally(R.Rule):
    """Flat, as a user writes it: it does not say that it gives relevance to zeros."""

    kinds = frozenset({"dense"})

    def backward(self, layer: Any, inputs: tuple, z: jax.Array, g: jax.Array) -> R.Shares:
        (x,) = inputs
        r = to_relevance(z, g).sum(-1, keepdims=True) / x.shape[-1]
        return R.Shares((to_gradient_form(x, jnp.broadcast_to(r, x.shape)),))


def test_a_rule_of_the_user_may_give_relevance_to_zeros() -> None:
    """Dead units above get relevance from it, and the layer below them shares it all the same."""
    w, v, x = jnp.array([[1.0, -1.0]]), jnp.ones((2, 1)), jnp.array([[2.0]])

    def net(x: jax.Array) -> jax.Array:
        return jax.nn.relu(jnp.abs(x) @ w) @ v

    below = lrp.Gamma(0.25, stabilizer=TINY)
    composite = C.composite(C.last(Equally()), C.first(below))
    found = lrp.explain(net, composite, record="*")(x)
    np.testing.assert_allclose(found.records["relu"].relevance, [[1.0, 1.0]], rtol=1e-9)
    flat = C.composite(C.last(lrp.Flat(stabilizer=0.0)), C.first(below))
    close(found.relevance, lrp.explain(net, flat)(x).relevance)
    close(found.relevance, [[2.0]])


def test_a_rule_on_a_kind_it_does_not_apply_to() -> None:
    plan = lrp.plan(jnp.tanh, C.by_kind("activation", lrp.Epsilon()), jnp.ones(2))
    assert plan.rules == (lrp.Pass(),)  # an entry speaks only of the layers that its rule fits
    with pytest.raises(ValueError, match="applies to layers of kind"):
        plan.replace({"*": lrp.Epsilon()})


def test_user_stabilizer_is_a_value() -> None:
    def keep(z: jax.Array) -> jax.Array:
        return z + 1.0

    assert lrp.Epsilon(keep) == lrp.Epsilon(keep)
    assert lrp.Epsilon(keep) != lrp.Epsilon(lambda z: z)
    assert jax.tree.leaves(lrp.Epsilon(keep)) == []


# The gradient methods


def test_relu_rules() -> None:
    x = jnp.array([1.5, -2.0, 3.0, 0.0])
    g = jnp.array([2.0, 3.0, -4.0, 5.0])
    cases = [
        (R.Gradient(), [2, 0, -4, 0]),
        (R.GuidedBackprop(), [2, 0, 0, 0]),
        (R.DeconvNet(), [2, 3, 0, 5]),
        (R.BetaSmooth(2.0), np.asarray(g) / (1 + np.exp(-2 * np.asarray(x)))),
    ]
    for rule, expected in cases:
        attached = lrp.attach(jax.nn.relu, C.by_kind("activation", rule))
        (found,) = jax.vjp(attached, x)[1](g)
        close(found, expected)


def test_pass_keeps_relevance_through_zeros() -> None:
    x = jnp.array([-3.0, 0.0, 2.0, -0.0])
    r = jnp.array([1.0, -2.0, 3.0, 4.0])
    for f in (jax.nn.relu, jnp.sin, jax.nn.gelu, lambda x: jnp.tanh(x) ** 2):
        found = lrp.explain(f, C.by_kind("activation", lrp.Pass()))(x, target=r).relevance
        close(found, r)


@pytest.mark.parametrize("rule", [lrp.Pass(), R.DerivativeTimesRelevance()], ids=repr)
def test_what_an_activation_gives_for_nothing_is_its_bias(rule: R.Rule) -> None:
    """An input of zero made nothing of f(0); relevance handed to it would be divided by zero."""
    x = jnp.array([-3.0, 0.0, 2.0, -0.0])
    r = jnp.array([1.0, -2.0, 3.0, 4.0])
    composite = C.by_kind("activation", rule)
    for f in (jnp.cos, jax.nn.softplus, jnp.exp, jax.nn.sigmoid):
        slope = 1.0 if rule == lrp.Pass() else jax.vmap(jax.grad(f))(x)
        found = lrp.explain(f, composite)(x, target=r).relevance
        close(found, jnp.where(x == 0, 0.0, slope * r))
        (row,) = lrp.ledger(f, composite, x, target=r).rows.values()
        close(row.bias, 2.0)
    # a difference of like numbers, each of which would carry 1e18 times its half of the relevance
    found = lrp.explain(lambda x: jnp.exp(x - x[::-1][::-1]) * x, composite)(x, target=r)
    close(found.relevance, r / 2)


def test_derivative_times_relevance() -> None:
    x, r = jnp.array([0.5, -1.0, 0.0]), jnp.array([2.0, 3.0, -4.0])
    explain = lrp.explain(jnp.tanh, C.by_kind("activation", R.DerivativeTimesRelevance()))
    close(explain(x, target=r).relevance, (1 - np.tanh(x) ** 2) * r)


def test_norm() -> None:
    # sums [3, -1, 0]: with a stabilizer of 1, [4, -2, 1]
    a, b = jnp.array([1.0, 2.0, 5.0]), jnp.array([2.0, -3.0, -5.0])
    r = jnp.array([4.0, 2.0, 3.0])
    explain = lrp.explain(lambda a, b: a + b, C.by_kind("sum", lrp.Norm(1.0)), argnums=(0, 1))
    ra, rb = explain(a, b, target=r).relevance
    close(ra, [1, -2, 15])
    close(rb, [2, 3, -15])


def test_signal_takes_all() -> None:
    a, b = jnp.array([1.0, -2.0]), jnp.array([3.0, 4.0])
    r = jnp.array([5.0, 7.0])
    explain = lrp.explain(lambda a, b: a * jax.nn.sigmoid(b), argnums=(0, 1))
    ra, rb = explain(a, b, target=r).relevance
    close(ra, r)
    close(rb, [0, 0])
    explain = lrp.explain(lambda a, b: jax.nn.sigmoid(b) * a, argnums=(0, 1))
    ra, rb = explain(a, b, target=r).relevance
    close(ra, r)
    close(rb, [0, 0])


def test_uniform() -> None:
    a, b = jnp.array([1.0, -2.0]), jnp.array([3.0, 4.0])
    ra, rb = lrp.explain(lambda a, b: a * b, argnums=(0, 1))(a, b, target=a * b).relevance
    close(ra, [1.5, -4])
    close(rb, [1.5, -4])
