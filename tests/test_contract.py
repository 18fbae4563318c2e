"""What every rule and every preset promises. A new rule joins by one line in `CASES`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp import rules as R

from numeric import close, promoting

RTOL = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 2e-2}


pytestmark = pytest.mark.usefixtures("x64")


# Functions of (parameters, x) for one example; a batch is their vmap, or the function itself.


def make_parameters(dtype: Any = "float64") -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3), "b": (3,), "k": (2, 2, 2, 3), "s": (4,), "t": (4,)}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def dense(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


def convolution(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    x = x.reshape(-1, 3, 3, 2)
    z = lax.conv_general_dilated(
        x, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return z + p["b"]


def normed(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return dense(p, x) * p["s"][:3] + p["t"][:3]


def normed_convolution(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return convolution(p, x) * p["s"][:3] + p["t"][:3]


def scale(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x * p["s"] + p["t"]


def shift(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x + p["t"]


def total(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x[..., :2] + x[..., 2:]


def pool(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x.mean(axis=-1, keepdims=True)


def max_pool(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x.reshape(-1, 2, 2).max(axis=-1)


def product(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x[..., :2] * x[..., 2:]


def attention(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.softmax(x[..., :2]) * x[..., 2:]


def matrix_attention(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.softmax(x[..., None, :2]) @ x[..., 2:, None]


def gate(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(x[..., :2]) * x[..., 2:]


def normalizer(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-3)


def local_response(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    window, strides = (1,) * (x.ndim - 1) + (3,), (1,) * x.ndim
    total = lax.reduce_window(x * x, np.zeros((), x.dtype), lax.add, window, strides, "SAME")
    return x / (2.0 + 0.3 * total) ** 0.75


def relu(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)


def gelu(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x)


def embedding(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return p["w"][jnp.abs(2.0 * x).astype(int) % 4]


class Case(NamedTuple):
    """A rule on a layer.

    Attributes:
      rule: the rule.
      kind: of the layer.
      function: the layer, a function of (parameters, x).
      size: of one input.
      conserves: whether relevance in is relevance out, with a tiny stabilizer and no bias.
      readout: "gradient" for the rules that propagate gradients.
    """

    rule: R.Rule
    kind: str
    function: Callable[[dict[str, jax.Array], jax.Array], jax.Array]
    size: int = 4
    conserves: bool = True
    readout: str = "relevance"


LINEAR_RULES = [
    lrp.LRP0(),
    lrp.Epsilon(0.1),
    lrp.Epsilon(0.1, bias="zero"),
    lrp.ZPlus(bias="absorb", stabilizer=0.1),
    lrp.ZPlus(bias="zero", stabilizer=0.1),
    lrp.AlphaBeta(2.0, 1.0, bias="absorb", stabilizer=0.1),
    lrp.AlphaBeta(1.5, 0.5, bias="zero", stabilizer=0.1),
    lrp.Gamma(0.3, bias="absorb", stabilizer=0.1),
    lrp.Gamma(0.3, bias="zero", stabilizer=0.1),
    lrp.ZBox(-4.0, 4.0, stabilizer=0.1),
    lrp.WSquare(bias="absorb", stabilizer=0.1),
    lrp.WSquare(bias="zero", stabilizer=0.1),
    lrp.Flat(stabilizer=0.1),
]


ABSORBING = [
    rule
    for rule in LINEAR_RULES
    if rule.without_bias() != rule or isinstance(rule, (lrp.ZBox, lrp.Flat))
]


def own(layer: R.BoundLayer, x: jax.Array, r: jax.Array) -> jax.Array:
    """Epsilon in relevances, as a user writes it."""
    z = layer.op(x, layer.weight)
    return x * layer.transpose(r / jnp.where(z >= 0, z + 0.1, z - 0.1), x)


CASES = [
    *(Case(rule, "dense", dense) for rule in LINEAR_RULES),
    *(Case(rule, "conv", convolution, 18) for rule in ABSORBING),
    *(Case(rule, "scale", scale) for rule in ABSORBING[:5]),
    Case(R.Unfolded(lrp.Epsilon(0.1)), "dense", normed),
    Case(R.Unfolded(lrp.Gamma(0.3, stabilizer=0.1)), "conv", normed_convolution, 18),
    Case(lrp.Custom(own), "dense", dense, conserves=False),
    Case(R.Pattern(0.5), "dense", dense, conserves=False, readout="gradient"),
    Case(
        R.Pattern(0.5, attribution=False),
        "conv",
        convolution,
        18,
        conserves=False,
        readout="gradient",
    ),
    Case(lrp.Pass(), "scale", scale),
    Case(lrp.LRP0(), "shift", shift),
    Case(lrp.Epsilon(0.1), "shift", shift),
    Case(lrp.Pass(), "shift", shift),
    Case(lrp.Norm(0.1), "sum", total),
    Case(lrp.LRP0(), "sum", total),
    Case(R.Magnitude(), "sum", total),
    Case(lrp.Norm(0.1), "pool", pool),
    Case(lrp.LRP0(), "pool", pool),
    Case(R.WinnerTakesAll(), "maxpool", max_pool),
    Case(R.Uniform(), "product", product),
    Case(R.SignalTakesAll(), "product", product),
    Case(R.Proportional(), "product", product),
    Case(R.Uniform(), "attention", attention, conserves=False),  # the softmax keeps a share
    Case(R.SignalTakesAll(), "attention", attention),
    Case(R.Tempered(2.0), "attention", matrix_attention, conserves=False),
    Case(R.SignalTakesAll(), "gate", gate),
    Case(R.Uniform(), "gate", gate),
    Case(R.Detach(), "normalizer", normalizer),
    Case(lrp.Pass(), "normalizer", normalizer),
    Case(R.Detach(), "normalizer", local_response),
    Case(R.LocalTaylor(0.1), "normalizer", local_response),
    Case(R.LookUp(), "embedding", embedding),
    Case(lrp.Pass(), "activation", relu),
    Case(lrp.Pass(), "activation", gelu),
    Case(R.DerivativeTimesRelevance(), "activation", gelu, conserves=False),
    Case(R.Gradient(), "activation", gelu, conserves=False, readout="gradient"),
    Case(R.GuidedBackprop(), "activation", relu, conserves=False, readout="gradient"),
    Case(R.DeconvNet(), "activation", relu, conserves=False, readout="gradient"),
    Case(R.BetaSmooth(), "activation", relu, conserves=False, readout="gradient"),
]


def _by_case() -> list[Any]:
    """All cases; slow is what has no rule and no kind of layer that an earlier case has not."""
    met: set[Any] = set()
    params = []
    for case in CASES:
        new = {type(case.rule), case.kind} - met
        marks = [] if new else [pytest.mark.slow]
        params.append(pytest.param(case, marks=marks, id=f"{case.kind}-{case.rule!r}"))
        met |= new
    return params


by_case = pytest.mark.parametrize("case", _by_case())


def composite(case: Case, rule: R.Rule | None = None) -> lrp.Composite:
    return dataclasses.replace(
        C.by_kind(case.kind, case.rule if rule is None else rule), readout=case.readout
    )


def explainer(case: Case, rule: R.Rule | None = None) -> Callable:
    return lrp.explain(case.function, composite(case, rule), argnums=1)


@functools.cache
def compiled(case: Case) -> Callable:
    """The compiled explainer, which tests share: each program is compiled once."""
    return jax.jit(explainer(case))


@functools.cache
def inputs(case: Case, dtype: str = "float64") -> tuple[Any, jax.Array, jax.Array]:
    """(parameters, a batch of 3, an initial relevance)."""
    rng = np.random.default_rng(1)
    p = make_parameters(dtype)
    x = jnp.asarray(rng.normal(size=(3, case.size)), dtype)
    r = jnp.asarray(rng.normal(size=jax.eval_shape(case.function, p, x).shape), dtype)
    return p, x, r


@pytest.mark.parametrize("rule", dict.fromkeys(case.rule for case in CASES), ids=repr)
def test_a_rule_is_a_value(rule: R.Rule) -> None:
    """It prints as what makes it, compares, hashes, and is a pytree of its hyperparameters."""
    if not isinstance(rule, R.Custom):
        assert eval(repr(rule), vars(R)) == rule
    leaves, tree = jax.tree.flatten(rule)
    again = jax.tree.unflatten(tree, leaves)
    assert again == rule
    assert hash(again) == hash(rule)
    assert type(again) is type(rule)
    assert rule not in [case.rule for case in CASES if repr(case.rule) != repr(rule)]
    for field in dataclasses.fields(cast(Any, rule)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(rule, field.name, 1.0)


def test_every_rule_and_kind_is_in_the_table() -> None:
    concrete = {getattr(R, name) for name in R.__all__}
    concrete = {c for c in concrete if isinstance(c, type) and issubclass(c, R.Rule)} - {R.Rule}
    assert {type(case.rule) for case in CASES} == concrete
    assert {case.kind for case in CASES} == set(lrp.KINDS) - {
        "quantizer",
        "quotient",
        "unsupported",
    }
    for case in CASES:
        assert case.kind in case.rule.kinds
        p, x, _ = inputs(case)
        plan = lrp.plan(case.function, composite(case), p, x, argnums=1)
        assert case.rule in plan.rules


@pytest.mark.sampled
@by_case
def test_jit_equals_eager_and_is_one_trace(case: Case) -> None:
    p, x, r = inputs(case)
    traces = []

    def function(p: Any, x: jax.Array) -> jax.Array:
        traces.append(1)
        return case.function(p, x)

    explain = lrp.explain(function, composite(case), argnums=1)
    jitted = jax.jit(explain)
    eager = explain(p, x, target=r)
    traces.clear()
    for step in range(3):
        found = jitted(p, x + step, target=r - step)
    assert len(traces) == 1
    found = jitted(p, x, target=r)
    close(found.relevance, eager.relevance)
    close(found.output, eager.output)
    assert np.abs(eager.relevance).max() > 1e-3


@pytest.mark.sampled
@by_case
def test_batch_equals_singles_equals_vmap(case: Case) -> None:
    p, x, r = inputs(case)
    whole = compiled(case)(p, x, target=r).relevance
    n = len(r) // len(x) if case.kind in ("conv", "maxpool") else 1
    parts = r.reshape(len(x), n, *r.shape[1:])
    singles = [compiled(case)(p, x[i : i + 1], target=parts[i]).relevance[0] for i in range(len(x))]
    close(whole, singles)
    mapped = jax.vmap(lambda x, r: explainer(case)(p, x[None], target=r).relevance[0])
    close(jax.jit(mapped)(x, parts), singles)


@pytest.mark.sampled
@by_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_is_kept(case: Case, dtype: str) -> None:
    p, x, r = inputs(case, dtype)
    found = compiled(case)(p, x, target=r)
    assert found.relevance.dtype == x.dtype
    assert found.output.dtype == x.dtype
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (p, x, r))
    expected = compiled(case)(*wide[:2], target=wide[2]).relevance
    # a bfloat16 layer's own output is rounded to 8 bits before the rule divides by it
    close(found.relevance, expected, {"float32": 1e-5, "bfloat16": 4e-2}[dtype])


@by_case
def test_linear_in_relevance(case: Case) -> None:
    p, x, r = inputs(case)
    other = jnp.cos(jnp.arange(r.size)).reshape(r.shape)

    def explain(r: jax.Array) -> jax.Array:
        return compiled(case)(p, x, target=r).relevance

    left, right = explain(2 * r - 3 * other), 2 * explain(r) - 3 * explain(other)
    if case.rule.linear_in_relevance:
        close(left, right)
    else:
        assert np.abs(left - right).max() > 1e-3


def of_one_sign(case: Case, p: Any, x: jax.Array) -> np.ndarray:
    """Whether an output of a linear layer has no contribution that is positive, or negative."""

    def contributions(sign: float) -> np.ndarray:
        total = 0.0
        for a, b in ((1.0, sign), (-1.0, -sign)):
            parts = {name: b * jnp.maximum(b * w, 0) for name, w in p.items()}
            total = total + case.function(parts, a * jnp.maximum(a * x, 0))
        return np.asarray(total)

    return (contributions(1.0) == 0) | (contributions(-1.0) == 0)


def stabilized_less(rule: Any) -> R.Rule:
    if isinstance(rule, R.Unfolded):
        return R.Unfolded(stabilized_less(rule.then))
    fields = [name for name in ("epsilon", "stabilizer") if hasattr(rule, name)]
    return dataclasses.replace(rule, **dict.fromkeys(fields, 1e-13))


@by_case
def test_conservation(case: Case) -> None:
    """With no bias and next to no stabilizer, relevance in is relevance out."""
    p, x, r = inputs(case)
    p = p | {name: jnp.zeros_like(p[name]) for name in "bt"}
    rule = stabilized_less(case.rule)
    if isinstance(rule, (lrp.ZPlus, lrp.AlphaBeta)) and case.kind != "scale":
        # what has nothing to share among is lost, or not balanced by its counterpart
        r = jnp.where(of_one_sign(case, p, x), 0.0, r)
        assert np.count_nonzero(r) > r.size // 2
    found = np.asarray(jax.jit(explainer(case, rule))(p, x, target=r).relevance)
    if case.kind == "scale":
        # one contribution to each output
        alpha, beta = getattr(rule, "alpha", 1.0), getattr(rule, "beta", 0.0)
        if isinstance(rule, (lrp.ZPlus, lrp.AlphaBeta)):
            r = jnp.where(x * p["s"] > 0, alpha * r, -beta * r)
        close(found, r, 1e-9)
        return
    assert abs(float(r.sum())) > 0.01
    assert (abs(float(found.sum() - r.sum())) < 1e-9) == case.conserves


@pytest.mark.parametrize(
    ("rule", "absorbed"),
    [
        (lrp.LRP0(), lambda z, b, r: r * b / z),
        (lrp.Epsilon(0.1), lambda z, b, r: r * (1 - (z - b) / (z + 0.1 * np.sign(z)))),
        (
            lrp.Epsilon(0.1, bias="zero"),
            lambda z, b, r: r * (1 - (z - b) / (z - b + 0.1 * np.sign(z - b))),
        ),
        (lrp.ZBox(-4.0, 4.0, stabilizer=1e-13), lambda z, b, r: 0 * r),
        (lrp.WSquare(bias="zero", stabilizer=1e-13), lambda z, b, r: 0 * r),
        (lrp.Flat(stabilizer=0.1), lambda z, b, r: r * 0.1 / 4.1),
    ],
    ids=lambda v: repr(v) if isinstance(v, R.Rule) else "kept",
)
def test_balance(rule: R.Rule, absorbed: Callable) -> None:
    """What bias and stabilizer keep is what the formula says."""
    case = Case(rule, "dense", dense)
    p, x, r = inputs(case)
    found = explainer(case)(p, x, target=r).relevance
    z = np.asarray(dense(p, x))
    kept = absorbed(z, np.asarray(p["b"]), np.asarray(r))
    close(found.sum(-1), np.asarray(r).sum(-1) - kept.sum(-1))


@pytest.mark.sampled
@by_case
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_zero_input_is_finite(case: Case, dtype: str) -> None:
    if isinstance(case.rule, lrp.LRP0) or case.readout == "gradient":
        pytest.skip("LRP-0 is not defined where z is 0, and gradients divide nothing")
    p, x, r = inputs(case, dtype)

    @jax.jit
    def explain(p: Any, x: jax.Array, r: jax.Array) -> tuple[Any, Any]:
        def loss(p: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = explainer(case)(p, x, target=r).relevance
            return jnp.sum(found.astype(jnp.float64) ** 2), found

        gradient, found = jax.grad(loss, argnums=(0, 1), has_aux=True)(p, x)
        return found, gradient

    for parameters in (p, jax.tree.map(jnp.zeros_like, p)):
        found, gradient = explain(parameters, jnp.zeros_like(x), 100 * r)
        assert np.isfinite(np.asarray(found, float)).all()
        if not isinstance(case.rule, (R.Detach, lrp.Pass)):
            for leaf in jax.tree.leaves(gradient):
                assert np.isfinite(np.asarray(leaf, float)).all()


@by_case
def test_attach_keeps_the_output(case: Case) -> None:
    """Bit for bit in eager evaluation, in any dtype, forward and under `grad`."""
    for dtype in ("float32", "bfloat16"):
        p, x, _ = inputs(case, dtype)
        attached = lrp.attach(case.function, composite(case), argnums=1)
        plain = case.function(p, x)
        assert attached(p, x).dtype == plain.dtype
        assert np.array_equal(attached(p, x), plain)
        assert np.array_equal(jax.vjp(lambda x, p=p, f=attached: f(p, x), x)[0], plain)


@pytest.mark.sampled
@by_case
def test_attach_and_explain_agree(case: Case) -> None:
    p, x, r = inputs(case)
    attached = lrp.attach(case.function, composite(case), argnums=1)
    z, pull = jax.vjp(lambda x: attached(p, x), x)
    (g,) = pull(r if case.readout == "gradient" else r / z)
    expected = explainer(case)(p, x, target=r).relevance
    if np.abs(z).min() > 0:  # an output of zero needs s(z), not z
        close(g if case.readout == "gradient" else x * g, expected, 1e-9)
    (by_grad,) = (jax.grad(lambda x: (attached(p, x) * lax.stop_gradient(r)).sum())(x),)
    close(by_grad, pull(r)[0])


@pytest.mark.sampled
@by_case
def test_checkpoint_inside_and_around(case: Case) -> None:
    p, x, r = inputs(case)
    inner = lrp.explain(jax.checkpoint(case.function), composite(case), argnums=1)
    attached = lrp.attach(case.function, composite(case), argnums=1)

    def outer(x: jax.Array) -> jax.Array:
        return explainer(case)(p, x, target=r).relevance

    def gradient(explain: Callable, x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: (explain(x) ** 2).sum())(x)

    def pulled(function: Callable, x: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: function(p, x), x)[1](r)[0]

    @jax.jit  # all in one program, which compiles in half the time
    def found(x: jax.Array) -> tuple[jax.Array, ...]:
        return (
            inner(p, x, target=r).relevance,
            gradient(jax.checkpoint(outer), x),
            gradient(outer, x),
            pulled(jax.checkpoint(attached), x),
            pulled(attached, x),
        )

    inside, around, plain_gradient, pulled_around, plain_pulled = found(x)
    close(inside, compiled(case)(p, x, target=r).relevance)
    close(around, plain_gradient)
    close(pulled_around, plain_pulled)


# Presets on a small network


class Net(nn.Module):
    """Convolutions with BatchNorm, a residual block, max and average pools, dense layers."""

    bias: bool = True

    @nn.compact
    @promoting  # Flax's BatchNorm and pooling promote implicitly
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=self.bias, param_dtype=x.dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=True, use_bias=self.bias, param_dtype=x.dtype
        )
        x = nn.relu(norm(name="norm0")(conv(8, (3, 3), name="conv0")(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        y = nn.relu(norm(name="norm1")(conv(8, (3, 3), name="conv1")(x)))
        x = nn.relu(x + conv(8, (3, 3), name="conv2")(y))
        x = nn.avg_pool(x, (2, 2), (1, 1)).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(16, use_bias=self.bias, param_dtype=x.dtype, name="hidden")(x))
        return nn.Dense(3, use_bias=self.bias, param_dtype=x.dtype, name="head")(x)


PRESETS: dict[str, Callable[..., lrp.Composite]] = {
    name: functools.partial(make, -3.0, 3.0) if name == "epsilon_gamma_box" else make
    for name, make in C.PRESETS.items()
}
WITH_BIAS = (
    "all_epsilon",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
)
by_preset = pytest.mark.parametrize("name", PRESETS)


@functools.cache
def compiled_preset(name: str) -> Callable:
    """The compiled explainer of the network, which tests share."""
    return jax.jit(lrp.explain(network()[0], PRESETS[name](), argnums=1))


@functools.cache
def network(dtype: str = "float64", bias: bool = True) -> tuple[Callable, Any, jax.Array]:
    """(apply, variables, a batch of 3), with statistics and biases that are not trivial."""
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(3, 6, 6, 2)), dtype)
    shapes = jax.eval_shape(Net(bias).init, jax.random.key(0), x)

    def fill(path: Any, leaf: Any) -> jax.Array:
        value = rng.normal(size=leaf.shape) * (0.5 if leaf.ndim > 1 else 0.3)
        if "var" in str(path[-1]) or "scale" in str(path[-1]):
            value = 1 + np.abs(value)
        if "mean" in str(path[-1]) and not bias:
            value = 0 * value
        return jnp.asarray(value, dtype)

    return Net(bias).apply, jax.tree_util.tree_map_with_path(fill, shapes), x


def test_all_presets_are_asked() -> None:
    public = {
        name
        for name in dir(C)
        if not name.startswith("_") and isinstance(getattr(C, name), type(C.default))
    }
    for name in C.PRESETS:
        assert name in public
        made = PRESETS[name]()
        assert isinstance(made, lrp.Composite)
        assert made == PRESETS[name]()
        assert made.name == name


@pytest.mark.sampled
@by_preset
def test_preset_jit_vmap_loop_trace(name: str) -> None:
    apply, variables, x = network()
    traces = []

    def function(variables: Any, x: jax.Array) -> jax.Array:
        traces.append(1)
        return apply(variables, x)

    target = jnp.array([2, 0, 1])
    explain = lrp.explain(function, PRESETS[name](), argnums=1)
    jitted = jax.jit(explain)
    found = jitted(variables, x, target=target)
    jitted(variables, x + 1, target=target[::-1])
    assert len(traces) == 1
    assert np.abs(found.relevance).min(axis=(1, 2, 3)).shape == (3,)
    assert (np.abs(found.relevance).max(axis=(1, 2, 3)) > 1e-4).all()
    close(found.output, apply(variables, x))
    eager = explain(variables, x, target=target)
    close(found.relevance, eager.relevance)
    one = jax.jit(lambda x, t: explain(variables, x[None], target=t[None]).relevance[0])
    close(found.relevance, [one(x[i], target[i]) for i in range(3)])
    close(found.relevance, jax.vmap(one)(x, target))


@pytest.mark.sampled
@by_preset
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_preset_keeps_dtype(name: str, dtype: str) -> None:
    _, variables, x = network(dtype)
    explain = compiled_preset(name)
    found = explain(variables, x, target=1)
    assert found.relevance.dtype == x.dtype
    assert np.isfinite(np.asarray(found.relevance, float)).all()
    if dtype == "bfloat16":
        return  # rounding decides which units of a maximum win, and which are dead
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), variables)
    expected = explain(wide, x.astype(jnp.float64), target=1).relevance
    # seven layers in float32, with denominators near zero in them
    close(found.relevance, expected, 1e-3)


@by_preset
def test_preset_attached(name: str) -> None:
    for dtype in ("float32", "bfloat16"):
        apply, variables, x = network(dtype)
        attached = lrp.attach(apply, PRESETS[name](), argnums=1)
        assert np.array_equal(attached(variables, x), apply(variables, x))


@by_preset
def test_preset_is_linear_in_relevance(name: str) -> None:
    apply, variables, x = network()
    made, explain = PRESETS[name](), compiled_preset(name)
    r, other = (jnp.asarray(np.random.default_rng(s).normal(size=(3, 3))) for s in (5, 6))
    found = [explain(variables, x, target=t).relevance for t in (2 * r - 3 * other, r, other)]
    if all(
        rule.linear_in_relevance for rule in lrp.plan(apply, made, variables, x, argnums=1).rules
    ):
        close(found[0], 2 * found[1] - 3 * found[2])
    else:
        assert np.abs(found[0] - 2 * found[1] + 3 * found[2]).max() > 1e-6


@pytest.mark.parametrize("name", WITH_BIAS)
def test_preset_without_bias_conserves(name: str) -> None:
    """With `bias="zero"` nothing is lost but to the stabilizers, though every layer has a bias."""
    apply, variables, x = network()
    stabilizers = {"epsilon": 1e-12}
    if name != "all_epsilon":
        stabilizers["stabilizer"] = 1e-12
    made = PRESETS[name](bias="zero", **stabilizers)
    found = jax.jit(lrp.explain(apply, made, argnums=1))(variables, x, target=1)
    close(found.relevance.sum((1, 2, 3)), found.output[:, 1], 1e-6)
    kept = jax.jit(lrp.explain(apply, PRESETS[name](**stabilizers), argnums=1))
    lost = kept(variables, x, target=1).relevance.sum((1, 2, 3)) - found.output[:, 1]
    assert np.abs(lost).min() > 1e-3


@pytest.mark.parametrize("name", ["default", *WITH_BIAS])
def test_preset_conserves_in_a_network_without_bias(name: str) -> None:
    apply, variables, x = network(bias=False)
    found = jax.jit(lrp.explain(apply, PRESETS[name](), argnums=1))(variables, x, target=1)
    # stabilizers of 1e-6 keep a share
    close(found.relevance.sum((1, 2, 3)), found.output[:, 1], 1e-3)


# Composites against Zennit's numbers, written out: case 22

GOLDEN = {
    "epsilon_plus": (
        0.95988429,
        [0.02096402, 0.01122433, 0.00681181, 0.0129873, 0.02463457, 0.00618051, 0.11177566,
         0.10938286, 0.03010626, 0.02750553, 0.184813, 0.10893731, 0.00762647, 0.06130046,
         0.17095302, 0.06468117],
    ),
    "epsilon_alpha2_beta1": (
        1.10598146,
        [0.08385608, -0.06804539, 0.02684501, 0.05194919, 0.0985383, -0.50997771, 0.42686756,
         0.41438352, 0.05180451, -0.11672592, 0.34814233, 0.07200168, 0.0064187, -0.07249867,
         0.27311014, 0.01931213],
    ),
    "epsilon_plus_flat": (
        0.96565923,
        [0.01409602, 0.0197734, 0.01396292, 0.00604493, 0.04583116, 0.08897267, 0.09231164,
         0.05423047, 0.06342636, 0.11149092, 0.10808583, 0.05915353, 0.04933034, 0.09171752,
         0.09412292, 0.0531086],
    ),
    "epsilon_alpha2_beta1_flat": (1.17459645, [0.02819204, 0.0395468, 0.02792583, 0.01208986]),
    "epsilon_gamma_box": (
        0.95931161,
        [0.03764968, 0.0322529, 0.03753405, 0.03130298, 0.04279042, 0.06025429, 0.15293677,
         0.11575459, 0.03425358, 0.05047969, 0.12296506, 0.08354852, 0.00240679, 0.03144529,
         0.07742973, 0.04630728],
    ),
    "excitation_backprop": (0.96562645, [0.01550911, 0.0091767, 0.00553582, 0.01373831]),
    "guided_backprop": (1.45755618, [0.8394693, 0.24813728, -1.26717133, -1.25184371]),
    "deconvnet": (0.24333133, [0.03322389, 0.02057431, -0.00183607, -0.00594861]),
    "gradient": (0.99740888, [0.8295573, 0.18931406, -1.29511523, -0.88342261]),
}  # fmt: skip


def golden_network(x: jax.Array) -> jax.Array:
    """Conv ReLU Conv ReLU AvgPool Flatten Linear ReLU Linear, of sines, as case 22 has it."""

    def layer(i: int, s: float, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        weight = np.sin(np.arange(np.prod(shape)) * s + 0.1 * i).reshape(shape)
        return weight, 0.1 * np.sin(np.arange(shape[0]) * 0.5 + 0.2 * i)

    for i, s, shape in ((0, 1.0, (2, 1, 3, 3)), (1, 0.7, (3, 2, 3, 3))):
        w, b = layer(i, s, *shape)
        x = lax.conv_general_dilated(x, w, (1, 1), [(1, 1), (1, 1)]) + b[:, None, None]
        x = jax.nn.relu(x)
    x = lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4
    w, b = layer(2, 1.3, 4, 12)
    x = jax.nn.relu(x.reshape(1, 12) @ w.T + b)
    w, b = layer(3, 0.9, 3, 4)
    return x @ w.T + b


@pytest.mark.parametrize("name", GOLDEN)
def test_case_22(name: str) -> None:
    x = jnp.cos(0.9 * jnp.arange(16.0)).reshape(1, 1, 4, 4)
    made = C.epsilon_gamma_box(-1.0, 1.0) if name == "epsilon_gamma_box" else PRESETS[name]()
    result = lrp.explain(golden_network, made)(x, target=jnp.array([[1.0, 0.0, 0.0]]))
    close(result.output, [[8.50008399, -8.33250252, 6.76066069]], 1e-8)
    total, first = GOLDEN[name]
    found = np.asarray(result.relevance).ravel()
    # eight digits were written down
    np.testing.assert_allclose(found.sum(), total, atol=2e-8)
    np.testing.assert_allclose(found[: len(first)], first, atol=1e-8)


def test_case_22_conservation() -> None:
    x = jnp.cos(0.9 * jnp.arange(16.0)).reshape(1, 1, 4, 4)
    result = lrp.explain(golden_network, C.epsilon_plus(bias="zero"))(x, target=0)
    np.testing.assert_allclose(result.relevance.sum(), 8.50007444, atol=2e-8)
