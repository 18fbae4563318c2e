"""Every operation of JAX: what becomes of it is settled, and what is supported has its number."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import primitives as exported

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp.network import primitives as P

import numeric

pytestmark = pytest.mark.usefixtures("x64")
close = functools.partial(numeric.close, rtol=1e-9)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_what_becomes_of_each_primitive_is_settled_once() -> None:
    """A primitive that a new JAX brings must be put into one of the tables, and tested below."""
    found = {
        getattr(module, name)
        for module in (lax, exported)
        for name in dir(module)
        if name.endswith("_p")
    }
    fates = {p: [fate for fate, table in P.FATES.items() if p in table] for p in found}
    unknown = sorted(str(p) for p, fate in fates.items() if not fate)
    assert not unknown, (
        f"jax {jax.__version__} has primitives that jaxlrp/network/primitives.py does not list: {unknown}. "
        "Put each into one of its tables, and give it a case in tests/test_primitives.py"
    )
    twice = {str(p): fate for p, fate in fates.items() if len(fate) > 1}
    assert not twice, f"primitives in several tables: {twice}"


# Linear in x: LRP-0 by the matrix of the function

M = np.random.default_rng(9).normal(size=(4, 4)) + 3 * np.eye(4)
LINEAR: dict[str, Callable[[jax.Array], jax.Array]] = {
    "add": lambda x: x + x[::-1],
    "sub": lambda x: x - 2 * x[::-1],
    "neg": lambda x: -x,
    "mul_div": lambda x: 3 * x / jnp.arange(1.0, 5),
    "convert": lambda x: x.astype(jnp.complex128).real,
    "copy": lambda x: jnp.array(x, copy=True),
    "select": lambda x: jnp.where(jnp.array([True, False, True, False]), x, 2 * x[::-1]),
    "reshape": lambda x: x.reshape(2, 2).T.reshape(4),
    "squeeze": lambda x: lax.squeeze(x[None], (0,)),
    "broadcast": lambda x: lax.broadcast_in_dim(x, (2, 4), (1,)),
    "reduce_sum": lambda x: x.sum(keepdims=True),
    "reduce_window_sum": lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME"),
    "cumsum": lambda x: lax.cumsum(x),
    "cumsum_reverse": lambda x: lax.cumsum(x, reverse=True),
    "pad": lambda x: lax.pad(x, 0.0, [(1, -1, 1)]),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x]),
    "slice": lambda x: x[1:4:2],
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (1,), (2,)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(jnp.zeros(6), x, (1,)),
    "gather": lambda x: x[jnp.array([2, 0, 2])],
    "rev": lambda x: lax.rev(x, (0,)),
    "split": lambda x: lax.split(x, (1, 3))[1],
    "stack": lambda x: jnp.stack([x, 2 * x]),
    "unstack": lambda x: jnp.unstack(x.reshape(2, 2))[1],
    "tile": lambda x: jnp.tile(x, 2),
    "scatter": lambda x: jnp.zeros(5).at[jnp.array([3, 0, 1, 2])].set(x),
    "scatter_add": lambda x: jnp.zeros(3).at[jnp.array([0, 1, 0, 2])].add(x),
    "scatter_sub": lambda x: x.at[jnp.array([0, 1])].subtract(2 * x[2:]),
    "scatter_mul": lambda x: x.at[jnp.array([0, 2])].multiply(3.0),
    "scatter_mul_updates": lambda x: (
        jnp.arange(1.0, 5)
        .at[jnp.array([0, 2])]
        .multiply(x[:2], unique_indices=True)[jnp.array([0, 2])]
    ),
    "fft": lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * jnp.array([1.0, 2.0, 0.5], complex)),
    "complex": lambda x: jnp.imag(jnp.conj(lax.complex(x, 2 * x)) * (3 + 1j)),
    "reduce_precision": lambda x: lax.reduce_precision(x, 11, 52),
    "optimization_barrier": lambda x: lax.optimization_barrier(x) * 2,
    "device_put": lambda x: jax.device_put(x) * 2,
    "layout_constraint": lambda x: with_layout_constraint(x, Layout((0,))) * 2,
    "name": lambda x: checkpoint_name(x, "x") * 2,
    "dot": lambda x: x @ M,
    "dot_preferred": lambda x: lax.dot_general(
        x, M, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float64
    ),
    "conv": lambda x: lax.conv(x[None, None], M[:1, None, :3], (1,), "SAME")[0, 0],
    "conv_batch_groups": lambda x: lax.conv_general_dilated(
        x.reshape(2, 1, 2), M[:, None, :1], (1,), "SAME", batch_group_count=2
    ),
    "triangular_solve": lambda x: jax.scipy.linalg.solve_triangular(M, x),
    "tridiagonal_solve": lambda x: lax.linalg.tridiagonal_solve(
        jnp.ones(4), 4 * jnp.ones(4), jnp.ones(4), x[:, None]
    )[:, 0],
    "linear_solve": lambda x: jnp.linalg.solve(M, x),
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "approx_top_k": lambda x: lax.approx_max_k(x, 2)[0],
    "sort": lambda x: jnp.sort(x),
    "sort_two_operands": lambda x: lax.sort((x, x * jnp.arange(1.0, 5)), num_keys=1)[1],
    "sort_by_other_keys": lambda x: lax.sort((jnp.array([2, 0, 3, 1]), x), num_keys=1)[1],
    "argsort": lambda x: x[jnp.argsort(x)],
    "argmax": lambda x: (
        lax.dynamic_slice(x, (jnp.argmax(x),), (1,)) * jnp.argmin(x).astype(x.dtype)
    ),
    "dynamic_index": lambda x: lax.dynamic_index_in_dim(x, jnp.argmax(x) - 1, keepdims=False) * x,
    "bits": lambda x: (
        x * (lax.population_count(jnp.argmax(x)) + lax.clz(jnp.argmin(x))).astype(x.dtype)
    ),
    "reduce_and": lambda x: x * (jnp.all(x > -9) + jnp.any(x > 0)).astype(x.dtype),
    "jit_in_jit": lambda x: jax.jit(lambda x: jax.jit(jnp.flip)(x) @ M)(x),
}
# the value of one element of x, chosen by x, times another is no linear function
NOT_BY_MATRIX = {"dynamic_index"}


def relevance(fun: Any, x: jax.Array, r: Any, composite: Any = None) -> jax.Array:
    composite = (
        C.by_kind(("dense", "conv", "scale"), lrp.LRP0()) if composite is None else composite
    )
    return jax.jit(lrp.explain(fun, composite))(x, target=jnp.asarray(r)).relevance


@pytest.mark.sampled
@pytest.mark.parametrize("name", sorted(set(LINEAR) - NOT_BY_MATRIX))
def test_linear(name: str) -> None:
    fun, x = LINEAR[name], normal(4, seed=1)
    z = np.asarray(fun(x)).ravel()
    r = np.random.default_rng(2).normal(size=z.size)
    matrix = np.asarray(jax.jacobian(fun)(x)).reshape(z.size, x.size)
    shares = np.divide(r, z, out=np.zeros(z.size), where=z != 0)
    found = relevance(fun, x, r.reshape(fun(x).shape))
    close(found, np.asarray(x) * (matrix.T @ shares))
    assert np.abs(found).max() > 1e-3


def test_an_index_made_of_the_input_is_a_constant() -> None:
    x = jnp.array([1.0, -2.0, 3.0, 0.5])
    found = relevance(LINEAR["dynamic_index"], x, jnp.ones(4))
    close(found, [0.5, 0.5 + 4 * 0.5, 0.5, 0.5])  # x[1] * x: half to each factor


# Elementwise: all that comes out goes in

ELEMENTWISE: dict[str, Callable[[jax.Array], jax.Array]] = {
    "exp": jnp.exp, "exp2": jnp.exp2, "log": jnp.log, "log1p": jnp.log1p, "log2": jnp.log2,
    "expm1": jnp.expm1, "sqrt": jnp.sqrt, "rsqrt": lax.rsqrt, "cbrt": jnp.cbrt,
    "tanh": jnp.tanh, "logistic": jax.nn.sigmoid, "erf": lax.erf, "erfc": lax.erfc,
    "erf_inv": lambda x: lax.erf_inv(x / 4), "sin": jnp.sin, "cos": jnp.cos, "tan": jnp.tan,
    "asin": lambda x: jnp.arcsin(x / 4), "acos": lambda x: jnp.arccos(x / 4), "atan": jnp.arctan,
    "sinh": jnp.sinh, "cosh": jnp.cosh, "asinh": jnp.arcsinh, "acosh": lambda x: jnp.arccosh(x + 1),
    "atanh": lambda x: jnp.arctanh(x / 4), "atan2": lambda x: lax.atan2(x, x * x), "abs": jnp.abs,
    "sign": jnp.sign, "floor": lambda x: jnp.floor(x + 1), "ceil": jnp.ceil,
    "round": lambda x: jnp.round(x + 1), "square": jnp.square, "integer_pow": lambda x: x**3,
    "pow": lambda x: x**1.5, "power_of_two_values": lambda x: jnp.power(x, x),
    "max": lambda x: jnp.maximum(x, 0.7), "min": lambda x: jnp.minimum(x, 0.7),
    "clamp": lambda x: lax.clamp(0.5, x, 1.5), "rem": lambda x: lax.rem(x, 0.7),
    "nextafter": lambda x: lax.nextafter(x, 2.0), "lgamma": lax.lgamma, "digamma": lax.digamma,
    "bessel_i0e": lax.bessel_i0e, "bessel_i1e": lax.bessel_i1e, "igamma": lambda x: lax.igamma(x, x),
    "igammac": lambda x: lax.igammac(x, 2 * x), "zeta": lambda x: lax.zeta(x + 2, 1.0),
    "igamma_grad_a": lambda x: lax.igamma_grad_a(x, x), "polygamma": lambda x: lax.polygamma(1.0, x),
    "betainc": lambda x: lax.betainc(x, x, 0.3),
    "is_finite": lambda x: jnp.where(jnp.isfinite(x), x, 0) * x,
    "comparisons": lambda x: (
        x * ((x > 0) & ~(x < -1) | (x >= 2) ^ (x <= 3)).astype(x.dtype)
        * ((x == x) | (x != x)).astype(x.dtype)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    x, r = jnp.array([0.3, 0.9, 1.6, 2.2]), normal(4)
    rows = lrp.plan(ELEMENTWISE[name], None, x).rows
    assert [row.kind for row in rows] in (["activation"], ["quantizer"])
    close(relevance(ELEMENTWISE[name], x, r), r)


# Maxima, products, and what is one with the softmax

X = np.array([1.0, 3.0, -2.0, 4.0, 0.5])
CHOICES: dict[str, tuple[Callable[[jax.Array], jax.Array], list[int]]] = {
    # the index of the winner of each output
    "reduce_max": (lambda x: x.max(keepdims=True), [3]),
    "reduce_min": (lambda x: x.min(keepdims=True), [2]),
    "cummax": (lambda x: lax.cummax(x), [0, 1, 1, 3, 3]),
    "cummax_reverse": (lambda x: lax.cummax(x, reverse=True), [3, 3, 3, 3, 4]),
    "cummin": (lambda x: lax.cummin(x), [0, 0, 2, 2, 2]),
    "window_max": (lambda x: lax.reduce_window(x, -np.inf, lax.max, (2,), (1,), "VALID"),
                   [1, 1, 3, 3]),
    "window_min": (lambda x: lax.reduce_window(x, np.inf, lax.min, (2,), (1,), "VALID"),
                   [0, 2, 2, 4]),
    "scatter_max": (lambda x: jax.ops.segment_max(x, jnp.array([0, 0, 1, 1, 2]), 3), [1, 3, 4]),
    "scatter_min": (lambda x: jax.ops.segment_min(x, jnp.array([0, 0, 1, 1, 2]), 3), [0, 2, 4]),
    "maximum": (lambda x: jnp.maximum(x[:2], x[2:4]), [0, 3]),
    "minimum": (lambda x: jnp.minimum(x[:2], x[2:4]), [2, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_the_winner_takes_all(name: str) -> None:
    fun, winners = CHOICES[name]
    r = normal(len(winners), seed=4)
    expected = np.zeros(X.size)
    np.add.at(expected, winners, np.asarray(r))
    close(relevance(fun, X, r), expected)


def test_a_product_along_an_axis_gives_each_value_its_part() -> None:
    close(relevance(lambda x: jnp.prod(x, keepdims=True), X, jnp.ones(1)), np.full(5, 1 / 5))
    parts = relevance(lambda x: lax.cumprod(x), X, jnp.arange(1.0, 6))  # k factors get 1 each
    close(parts, [5, 4, 3, 2, 1])
    back = relevance(lambda x: lax.cumprod(x, reverse=True), X, jnp.arange(5.0, 0, -1))
    close(back, [1, 2, 3, 4, 5])
    for rule, message in (
        (lrp.rules.SignalTakesAll(), "is for a gate and a signal, but 'cumprod'"),
        (lrp.rules.Proportional(), r"matrix products, but 'cumprod' computes cumprod of \(5,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            relevance(lambda x: lax.cumprod(x), X, X, C.by_kind("product", rule))


def test_cumulated_logsumexp_is_its_derivative() -> None:
    r = normal(5, seed=5)
    z = lax.cumlogsumexp(X)
    softmax = np.tril(np.exp(np.asarray(X)[None] - np.asarray(z)[:, None]))
    expected = np.asarray(X) * (softmax.T @ np.asarray(r / z))
    close(relevance(lambda x: lax.cumlogsumexp(x), X, r), expected)
    coverage = lrp.plan(lambda x: lax.cumlogsumexp(x), None, X).coverage
    assert coverage.counts == (("softmax", "cumlogsumexp", 1),)


def test_a_scatter_that_multiplies_two_values_of_the_input_is_refused() -> None:
    with pytest.raises(lrp.UnsupportedError, match="scatter-mul"):
        lrp.plan(lambda x: x.at[jnp.array([0, 1])].multiply(x[2:4]), None, X)


# Grouped products: the experts of a mixture

GROUPS = np.array([2, 1, 3], np.int32)
EXPERTS = np.random.default_rng(6).normal(size=(3, 4, 5))
TOKENS = np.random.default_rng(7).normal(size=(6, 4))
LINEAR_RULES = (
    lrp.LRP0(), lrp.Epsilon(0.1), lrp.ZPlus(), lrp.AlphaBeta(), lrp.Gamma(0.3), lrp.WSquare(),
    lrp.Flat(), lrp.ZBox(-3.0, 3.0),
)  # fmt: skip


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=lambda rule: type(rule).__name__)
def test_a_grouped_product_is_a_dense_layer_for_each_group(rule: lrp.rules.Rule) -> None:
    def experts(w: jax.Array, x: jax.Array) -> jax.Array:
        return lax.ragged_dot(x, w, GROUPS)

    def one_by_one(w: jax.Array, x: jax.Array) -> jax.Array:
        parts = jnp.split(x, [2, 3])
        return jnp.concatenate([part @ w[i] for i, part in enumerate(parts)])

    composite = C.by_kind("dense", rule)
    r = normal(6, 5, seed=8)
    row = lrp.plan(experts, composite, EXPERTS, TOKENS, argnums=1).rows[0]
    assert (row.kind, row.path, row.name) == ("dense", "w", "ragged_dot_general")
    found, expected = (
        jax.jit(lrp.explain(f, composite, argnums=1, parameters=0))(EXPERTS, TOKENS, target=r)
        for f in (experts, one_by_one)
    )
    close(found.relevance, expected.relevance)
    close(found.parameters, expected.parameters)


def test_a_mixture_of_experts() -> None:
    """Tokens are sorted by the expert that they are sent to: indices carry no relevance."""
    router = normal(4, 3, seed=10)

    def route(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = jax.nn.softmax(x @ router)
        return scores.max(-1), scores.argmax(-1)

    def grouped(x: jax.Array) -> jax.Array:
        weight, expert = route(x)
        order = jnp.argsort(expert)
        sizes = jnp.bincount(expert, length=3).astype(jnp.int32)
        y = lax.ragged_dot(x[order], EXPERTS, sizes)
        return y[jnp.argsort(order)] * weight[:, None]

    def dense(x: jax.Array) -> jax.Array:
        weight, expert = route(x)
        y = jnp.einsum("nd,edk->nek", x, EXPERTS)
        return jnp.take_along_axis(y, expert[:, None, None], 1)[:, 0] * weight[:, None]

    r = normal(6, 5, seed=11)
    close(grouped(TOKENS), dense(TOKENS))
    # the dense form has an epsilon for experts that were not chosen as well, which get nothing
    composite = C.by_kind("dense", lrp.Epsilon(0.1))
    close(relevance(grouped, TOKENS, r, composite), relevance(dense, TOKENS, r, composite))


def seen(fun: Callable, x: jax.Array) -> set[Any]:
    """The primitives in the trace of a function, those of its calls included."""
    found: set[Any] = set()

    def walk(jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            found.add(eqn.primitive)
            for name in ("jaxpr", "call_jaxpr"):
                if name in eqn.params:
                    walk(getattr(eqn.params[name], "jaxpr", eqn.params[name]))

    walk(jax.make_jaxpr(fun)(x).jaxpr)
    return found


def test_every_supported_primitive_has_a_case() -> None:
    supported = (
        "linear",
        "bilinear",
        "partly linear",
        "product",
        "softmax",
        "maximum",
        "elementwise",
    )
    wanted = frozenset().union(*(P.FATES[fate] for fate in supported))
    cases = [(f, normal(4)) for f in LINEAR.values()]
    cases += [(f, jnp.ones(4)) for f in ELEMENTWISE.values()]
    cases += [(f, X) for f, _ in CHOICES.values()]
    cases += [(jnp.prod, X), (lax.cumprod, X), (lax.cumlogsumexp, X)]
    cases.append((lambda x: lax.ragged_dot(x, EXPERTS, GROUPS), TOKENS))
    tested = functools.reduce(set.union, (seen(f, x) for f, x in cases))
    # on a mesh: test_shard_map.py; in test_structure.py: stop_gradient and masks;
    elsewhere = P.COLLECTIVES | {P.STOP_GRADIENT} | P.PLACED
    names = {
        "add_any": "made by derivatives",
        "one_minus_square": "made by derivatives", "polynomial": "made by the compiler",
        "eq_to": "made by sorts", "le_to": "made by sorts", "lt_to": "made by sorts",
    }  # fmt: skip
    missing = {str(p) for p in wanted - tested - elsewhere} - set(names)
    assert not missing, f"supported primitives without a case: {sorted(missing)}"
