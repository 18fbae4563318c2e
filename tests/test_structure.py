"""What is found in a traced function: layers, their attributes, and how each is explained."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax
from jax.experimental import pallas

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.layers import Layer
from jaxlrp.network.model import model_of
from jaxlrp.network.trace import trace

from numeric import close, promoting

EXACT = C.composite(
    C.by_kind(("dense", "conv", "scale", "shift", "sum", "pool"), lrp.LRP0()), name="exact"
)


pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def layers(fun: Any, *args: Any) -> tuple[Layer, ...]:
    """The layers of a function of which the last argument is explained."""
    return trace(Arguments(model_of(fun, len(args) - 1, False), args), {}).network.layers()


def kinds(fun: Any, *args: Any) -> list[str]:
    return [layer.kind for layer in layers(fun, *args)]


def relevance(fun: Any, x: jax.Array, r: Any, composite: Any = EXACT) -> jax.Array:
    return jax.jit(lrp.explain(fun, composite))(x, target=jnp.asarray(r)).relevance


def linear_relevance(fun: Callable, x: jax.Array, r: jax.Array) -> np.ndarray:
    """LRP-0 of a linear function by its matrix, R_j = sum_k x_j J_kj / z_k R_k."""
    z, x = np.asarray(fun(x)).ravel(), np.asarray(x)
    matrix = np.asarray(jax.jacobian(fun)(jnp.asarray(x))).reshape(z.size, x.size)
    shares = np.divide(np.ravel(r), z, out=np.zeros(z.size), where=z != 0)
    return (x.ravel() * (matrix.T @ shares)).reshape(x.shape)


# Activations

SLOPE = jnp.array([0.1, 0.2, -0.3, 0.4], jnp.float32)


@promoting  # NumPy's numbers are in float64
def gelu_tanh(x: jax.Array) -> jax.Array:
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@promoting  # NumPy's numbers are in float64
def gelu_erf(x: jax.Array) -> jax.Array:
    return x / 2 * (1 + lax.erf(x / np.sqrt(2)))


@jax.custom_jvp
def own_relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


own_relu.defjvps(lambda t, out, x: jnp.where(x > 0, t, 0))


@jax.custom_vjp
def own_swish(x: jax.Array) -> jax.Array:
    return x * jax.nn.sigmoid(x)


own_swish.defvjp(lambda x: (own_swish(x), x), lambda x, g: (g,))

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu_linen": nn.relu,
    "relu_max": lambda x: jnp.maximum(x, 0),
    "relu_max_left": lambda x: jnp.maximum(0.0, x),
    "relu_where": lambda x: jnp.where(x > 0, x, 0),
    "relu_where_less": lambda x: jnp.where(x <= 0, jnp.zeros_like(x), x),
    "relu_product": promoting(lambda x: x * (x > 0)),  # float times bool is the point
    "relu_abs": lambda x: (x + jnp.abs(x)) / 2,
    "relu_clip": lambda x: jnp.clip(x, 0),
    "relu_custom_jvp": own_relu,
    "relu_jit": jax.jit(lambda x: jnp.maximum(x, 0)),
    "relu6": jax.nn.relu6,
    "relu6_clip": lambda x: jnp.clip(x, 0, 6),
    "relu6_min": lambda x: jnp.minimum(jnp.maximum(x, 0), 6),
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
    "leaky_relu": jax.nn.leaky_relu,
    "leaky_relu_where": lambda x: jnp.where(x >= 0, x, 0.1 * x),
    "leaky_relu_max": lambda x: jnp.maximum(x, 0.1 * x),
    "prelu": lambda x: jnp.where(x >= 0, x, SLOPE.astype(x.dtype) * x),
    "gelu_tanh": jax.nn.gelu,
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_inline_tanh": gelu_tanh,
    "gelu_inline_erf": gelu_erf,
    "silu": jax.nn.silu,
    "silu_inline": lambda x: x * jax.nn.sigmoid(x),
    "silu_division": lambda x: x / (1 + jnp.exp(-x)),
    "silu_custom_vjp": own_swish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "hard_swish": jax.nn.hard_swish,
    "hard_swish_inline": lambda x: x * jnp.clip(x + 3, 0, 6) / 6,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_sigmoid_inline": lambda x: jnp.clip(0.2 * x + 0.5, 0, 1),
    "hard_tanh": jax.nn.hard_tanh,
    "sigmoid": jax.nn.sigmoid,
    "sigmoid_inline": lambda x: 1 / (1 + jnp.exp(-x)),
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "softplus_inline": lambda x: jnp.log1p(jnp.exp(x)),
    "softsign": jax.nn.soft_sign,
    "softsign_inline": lambda x: x / (1 + jnp.abs(x)),
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "mish_jax": jax.nn.mish,
    "log_sigmoid": jax.nn.log_sigmoid,
    "squareplus": jax.nn.squareplus,
    "abs": jnp.abs,
    "square": jnp.square,
    "product_with_itself": lambda x: x * x,
    "power": lambda x: x**3,
    "cos": jnp.cos,
    "exp": jnp.exp,
    "own": lambda x: jnp.sin(x) * x + jnp.exp(-(x**2)),
    "own_of_two_steps": lambda x: jnp.tanh(2.0 * jnp.tanh(x) + 1.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_one_layer(name: str) -> None:
    f = ACTIVATIONS[name]
    w, b, v = normal(3, 4), normal(4, seed=1), normal(4, 2, seed=2)
    x = normal(5, 3, seed=3)
    assert kinds(lambda x: f(x @ w + b) @ v, x) == ["dense", "activation", "dense"]
    assert kinds(lambda x: (f(x @ w + b), 0)[0], x) == ["dense", "activation"]


@functools.cache
def handed_on(dtype: str) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """What relevance each activation hands on, and what it ought to, all in one function.

    What f(0) is was not made by an input of zero, and stays where it is.
    """
    x = jnp.array([[-1.5, 0.0, 0.5, 7.0], [-4.0, 2.0, -0.1, 1.0]], dtype)
    r = normal(2, 4).astype(dtype)

    def apply(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {name: f(x[name]) for name, f in ACTIVATIONS.items()}

    explain = jax.jit(lrp.explain(apply, EXACT))
    found = explain(dict.fromkeys(ACTIVATIONS, x), target=dict.fromkeys(ACTIVATIONS, r))
    made = {name: (x != 0) | (z == 0) for name, z in found.output.items()}
    return found.relevance, {name: jnp.where(made[name], r, 0) for name in made}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_hands_relevance_on(name: str, dtype: str) -> None:
    found, expected = handed_on(dtype)
    assert found[name].dtype == dtype
    rtol = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 2e-2}[dtype]
    close(found[name].astype(float), expected[name].astype(float), rtol)


@pytest.mark.parametrize(
    "f",
    [lambda x: 2 * x + 1, lambda x: -(x - 0.5) / 3, lambda x: jnp.where(jnp.arange(4) > 1, x, 0),
     lambda x: x * jnp.cos(SLOPE) + jnp.exp(SLOPE), lambda x: x + 2 * x],
)  # fmt: skip
def test_elementwise_but_affine_is_no_activation(f: Callable) -> None:
    assert "activation" not in kinds(f, jnp.ones((2, 4), jnp.float32))


# Sums and gates


def test_residual_adds() -> None:
    w, v = normal(4, 4), normal(4, 4, seed=1)
    x = normal(4, seed=2)

    def net(x: jax.Array) -> jax.Array:
        h = x + jax.nn.relu(x @ w)
        return h + jax.nn.relu(h) @ v

    assert kinds(net, x) == ["dense", "activation", "sum", "activation", "dense", "sum"]
    close(relevance(net, x, net(x)), x * jax.grad(lambda x: net(x).sum())(x))


def test_case_12_skip() -> None:
    w = jnp.full((2, 2), 5.0)
    x = jnp.array([2.0, 3.0])
    found = lrp.explain(lambda x: x + x @ w, EXACT)(x, target=1)
    close(found.output, [27, 28])
    close(found.relevance, [10, 18])


def squeeze_excite(gate: Callable, left: bool) -> Callable:
    w1, w2 = normal(3, 2), normal(2, 3, seed=1)

    def net(x: jax.Array) -> jax.Array:
        s = gate(jax.nn.relu(x.mean(axis=(1, 2), keepdims=True) @ w1) @ w2)
        return s * x if left else x * s

    return net


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    "gate",
    [
        pytest.param(jax.nn.sigmoid, id="sigmoid"),
        pytest.param(jax.nn.hard_sigmoid, id="hard_sigmoid"),
        pytest.param(lambda x: jnp.clip(0.2 * x + 0.5, 0, 1), id="clip"),
        pytest.param(lambda x: 1 / (1 + jnp.exp(-x)), id="exp"),
        pytest.param(lambda x: jax.nn.relu6(x + 3) / 6, id="relu6"),
    ],
)
def test_squeeze_excite(gate: Callable, left: bool) -> None:
    net = squeeze_excite(gate, left)
    x, r = normal(2, 4, 4, 3, seed=2), normal(2, 4, 4, 3, seed=3)
    assert kinds(net, x)[-1] == "gate"
    close(relevance(net, x, r), r)


@pytest.mark.parametrize(
    ("fun", "kind", "left"),
    [
        (lambda a, b: jax.nn.silu(a) * b, "product", 0.5),
        (lambda a, b: jax.nn.gelu(a) * b, "product", 0.5),
        (lambda a, b: jax.nn.sigmoid(a) * jnp.tanh(b), "gate", 0.0),
        (lambda a, b: jax.nn.sigmoid(a) * b, "gate", 0.0),
        (lambda a, b: (1 - jax.nn.sigmoid(a)) * b, "gate", 0.0),
        (lambda a, b: (1.0 - 0.5 * jax.nn.sigmoid(a)) * jnp.tanh(b), "gate", 0.0),
        (lambda a, b: a * b, "product", 0.5),
        (lambda a, b: jnp.sqrt(jnp.abs(a)) * b, "product", 0.5),
    ],
)
def test_products(fun: Callable, kind: str, left: float) -> None:
    """SwiGLU and GEGLU halve; an LSTM's gates give all to the signal."""
    x = normal(2, 3)
    assert kinds(lambda x: fun(x[0], x[1]), x)[-1] == kind
    r = normal(3, seed=1)
    found = relevance(lambda x: fun(x[0], x[1]), x, r)
    close(found, [left * r, (1 - left) * r])


def test_glu() -> None:
    x, r = normal(2, 6), normal(2, 3, seed=1)
    assert kinds(jax.nn.glu, x)[-1] == "gate"
    close(relevance(jax.nn.glu, x, r)[:, :3], r)
    close(relevance(jax.nn.glu, x, r)[:, 3:], np.zeros((2, 3)))


# Softmax


def manual_softmax(x: jax.Array) -> jax.Array:
    e = jnp.exp(x)
    return e / e.sum(-1, keepdims=True)


def shifted_softmax(x: jax.Array) -> jax.Array:
    e = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return e / jnp.sum(e, -1, keepdims=True)


def masked_softmax(x: jax.Array) -> jax.Array:
    wide = jnp.concatenate([x, jnp.full((*x.shape[:-1], 1), 2.0, x.dtype)], -1)
    wide = jnp.where(jnp.arange(wide.shape[-1]) < x.shape[-1], wide, -jnp.inf)
    return jax.nn.softmax(wide, axis=-1)[..., : x.shape[-1]]


SOFTMAX = {
    "jax": jax.nn.softmax,
    "linen": nn.softmax,
    "manual": manual_softmax,
    "shifted": shifted_softmax,
    "masked": masked_softmax,
    "where": lambda x: jax.nn.softmax(x, where=jnp.ones_like(x, bool)),
    "jit": jax.jit(manual_softmax),
    "axis": lambda x: jax.nn.softmax(x[..., None], axis=-2)[..., 0],
}


@pytest.mark.parametrize("name", SOFTMAX)
def test_case_9_softmax(name: str) -> None:
    f = SOFTMAX[name]
    x = jnp.array([1.0, 2.0, 3.0])
    assert "activation" not in kinds(f, x)
    assert "normalizer" not in kinds(f, x)
    s = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    for r, expected in (
        ([1.0, 0, 0], [0.9099694, -0.4894569, -1.9957229]),
        ([1.0, 2, 3], [0.4598166, 1.0632583, -2.9743372]),
    ):
        close(relevance(f, x, r), expected, 1e-6)
        close(relevance(f, x, r), x * (np.array(r) - s * np.sum(r)))


def test_softmax_in_float32_of_a_bfloat16_model() -> None:
    x = jnp.array([1.0, 2.0, 3.0], jnp.bfloat16)

    def f(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(x.astype(jnp.float32)).astype(jnp.bfloat16)

    assert kinds(f, x) == []
    found = relevance(f, x, jnp.array([1.0, 0.0, 0.0], jnp.bfloat16))
    close(found.astype(float), [0.9099694, -0.4894569, -1.9957229], 2e-2)


@pytest.mark.parametrize(
    "f",
    [
        jax.nn.log_softmax,
        lambda x: jnp.log(jnp.exp(x).sum(keepdims=True)),
        lambda x: jax.nn.logsumexp(x, keepdims=True),
    ],
)
def test_log_softmax_and_logsumexp_are_left_to_autodiff(f: Callable) -> None:
    x = normal(4)
    assert kinds(f, x) in ([], ["sum"])
    r = normal(*f(x).shape, seed=1)
    close(relevance(f, x, r), x * jax.vjp(f, x)[1](r / f(x))[0])


# Normalizers


def normalized(
    x: np.ndarray, r: np.ndarray, axes: tuple[int, ...], scale: Any, shift: Any, eps: float
) -> np.ndarray:
    """LRP-0 of (x - mean) / fixed deviation * scale + shift."""
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    factor = scale / np.sqrt(var + eps)
    s = r * factor / ((x - mean) * factor + shift)
    return x * (s - s.mean(axes, keepdims=True))


CASE_7 = (
    np.array([1.0, 2, 1, 2]),
    np.array([-2.0, -2, 2, 2]),
    np.array([1.0, 1, -3, -3]),
    np.array([1 / 3, 1 / 3, 2 / 3, 2 / 3]),
    np.array([2 / 15, 172 / 45, 2 / 45, -188 / 45]),
)


def manual_layer_norm(x: jax.Array, gamma: Any = 1.0, beta: Any = 0.0, eps: Any = 0.0) -> jax.Array:
    centered = x - x.mean(-1, keepdims=True)
    return centered / jnp.sqrt((centered**2).mean(-1, keepdims=True) + eps) * gamma + beta


def jnp_layer_norm(x: jax.Array, gamma: Any = 1.0, beta: Any = 0.0, eps: Any = 0.0) -> jax.Array:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(var + eps) * gamma + beta


def folded_layer_norm(x: jax.Array, gamma: Any = 1.0, beta: Any = 0.0, eps: Any = 0.0) -> jax.Array:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * (lax.rsqrt(var + eps) * gamma) + beta


def linen_layer_norm(fast: bool) -> Callable:
    @promoting  # Flax computes in the dtype of input and parameters together
    def f(x: jax.Array, gamma: Any = 1.0, beta: Any = 0.0, eps: Any = 0.0) -> jax.Array:
        n = x.shape[-1]
        params = {"scale": jnp.broadcast_to(gamma, (n,)), "bias": jnp.broadcast_to(beta, (n,))}
        norm = nn.LayerNorm(epsilon=eps, use_fast_variance=fast)
        return norm.apply({"params": params}, x)

    return f


@promoting  # parameters in float32
def nnx_layer_norm(x: jax.Array, gamma: Any = 1.0, beta: Any = 0.0, eps: Any = 0.0) -> jax.Array:
    norm = nnx.LayerNorm(x.shape[-1], epsilon=eps, rngs=nnx.Rngs(0))
    norm.scale[...] = jnp.broadcast_to(jnp.asarray(gamma, norm.scale.dtype), x.shape[-1:])
    norm.bias[...] = jnp.broadcast_to(jnp.asarray(beta, norm.bias.dtype), x.shape[-1:])
    return norm(x)


LAYER_NORMS = {
    "manual": manual_layer_norm,
    "jnp": jnp_layer_norm,
    "folded": folded_layer_norm,
    "linen": linen_layer_norm(fast=False),
    "linen_fast": linen_layer_norm(fast=True),
    "nnx": nnx_layer_norm,
}


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_case_7_layer_norm(name: str) -> None:
    x, gamma, beta, r, expected = CASE_7
    close(normalized(x, r, (0,), gamma, beta, 0.0), expected)

    def f(x: jax.Array) -> jax.Array:
        return LAYER_NORMS[name](x, jnp.asarray(gamma), jnp.asarray(beta))

    # NNX keeps its parameters in float32, where these small numbers are exact
    assert "normalizer" in kinds(f, jnp.asarray(x))
    for composite in (EXACT, None):
        close(relevance(f, jnp.asarray(x), r, composite), expected, 1e-9)


MEANS: dict[str, Callable] = {
    "mean": lambda x: x.mean(-1)[..., None],
    "keepdims": lambda x: x.mean(-1, keepdims=True),
    "everything": jnp.mean,
    "sum": lambda x: 0.25 * x.sum(-1, keepdims=True),
    "sum, divided": lambda x: x.sum(-1, keepdims=True) / 4,
}


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_that_is_subtracted_is_no_pool(name: str) -> None:
    mean, x = MEANS[name], normal(3, 4)
    assert kinds(lambda x: x - mean(x), x) == []
    assert kinds(lambda x: mean(x) - x, x) == ["pool"]
    assert kinds(lambda x: x + mean(x), x) == ["pool", "sum"]
    assert kinds(lambda x: x - mean(x) * x, x) == ["pool", "product"]


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_case_8_layer_norm(name: str) -> None:
    x = jnp.array([1.0, 2, 4, 5])
    found = relevance(LAYER_NORMS[name], x, [1.0, 0, 0, 0])
    close(found, [-0.375, 0.25, 0.5, 0.625])
    y = LAYER_NORMS[name](x)
    np.testing.assert_allclose(relevance(LAYER_NORMS[name], x, y), np.zeros(4), atol=1e-12)


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_layer_norm_of_a_batch(name: str) -> None:
    x, r = normal(2, 3, 6), normal(2, 3, 6, seed=1)
    gamma, beta = normal(6, seed=2), normal(6, seed=3)
    gamma, beta = gamma.astype(jnp.float32), beta.astype(jnp.float32)

    @promoting  # parameters in float32
    def f(x: jax.Array) -> jax.Array:
        return LAYER_NORMS[name](x, gamma, beta, 1e-3)

    expected = normalized(*map(np.asarray, (x, r)), (-1,), *map(np.asarray, (gamma, beta)), 1e-3)
    close(relevance(f, x, r), expected, 1e-8)


RMS_NORMS = {
    "mean": lambda x: x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6),
    "scaled": lambda x: (
        (x / jnp.sqrt(jnp.mean(jnp.square(x), -1, keepdims=True))) * SLOPE.astype(x.dtype)
    ),
    # parameters in float32
    "linen": promoting(lambda x: nn.RMSNorm().apply({"params": {"scale": SLOPE}}, x)),
    "nnx": promoting(lambda x: nnx.RMSNorm(4, rngs=nnx.Rngs(0))(x)),
    "einsum": lambda x: x * lax.rsqrt(jnp.einsum("...i,...i->...", x, x) / 4)[..., None],
    "power": lambda x: x * (jnp.mean(x**2, -1, keepdims=True) + 1e-6) ** -0.5,
    "l2": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "l1": lambda x: x / jnp.sum(jnp.abs(x), -1, keepdims=True),
    "max": lambda x: x / jnp.max(jnp.abs(x), -1, keepdims=True),
    "clipped": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9),
    "left": lambda x: lax.rsqrt(jnp.mean(x**2, -1, keepdims=True)) * x,
}


@pytest.mark.parametrize("name", RMS_NORMS)
def test_rms_norm_is_diagonal(name: str) -> None:
    """With the denominator held fixed, each output comes from its own input alone."""
    x, r = normal(2, 4), normal(2, 4, seed=1)
    assert "normalizer" in kinds(RMS_NORMS[name], x)
    close(relevance(RMS_NORMS[name], x, r), r)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_group_norm(library: str) -> None:
    x, r = normal(2, 3, 3, 4), normal(2, 3, 3, 4, seed=1)
    beta = jnp.array([0.5, -0.25, 1.0, 2.0], jnp.float32)
    if library == "linen":
        params = {"params": {"scale": SLOPE, "bias": beta}}

        @promoting  # parameters in float32
        def f(x: jax.Array) -> jax.Array:
            return nn.GroupNorm(2, epsilon=1e-3).apply(params, x)
    else:

        @promoting  # parameters in float32
        def f(x: jax.Array) -> jax.Array:
            norm = nnx.GroupNorm(4, 2, epsilon=1e-3, rngs=nnx.Rngs(0))
            norm.scale[...], norm.bias[...] = SLOPE, beta
            return norm(x)

    grouped = np.asarray(x).reshape(2, 9, 2, 2)
    expected = normalized(
        grouped,
        np.asarray(r).reshape(grouped.shape),
        (1, 3),
        np.asarray(SLOPE, float).reshape(2, 2)[:, None, :].transpose(1, 0, 2),
        np.asarray(beta, float).reshape(2, 2)[:, None, :].transpose(1, 0, 2),
        1e-3,
    )
    assert "normalizer" in kinds(f, x)
    close(relevance(f, x, r), expected.reshape(x.shape), 1e-8)


def test_a_magnitude_is_no_normalizer() -> None:
    """sqrt(re^2 + im^2) is homogeneous of degree one: it conserves, and divides nothing."""
    x = normal(8)

    def explicit(x: jax.Array) -> jax.Array:
        z = jnp.fft.rfft(x)
        return jnp.sqrt(z.real**2 + z.imag**2)

    for f in (explicit, lambda x: jnp.abs(jnp.fft.rfft(x))):
        assert "normalizer" not in kinds(f, x)
        y = f(x)
        found = relevance(f, x, y)
        close(found, x * jax.vjp(f, x)[1](jnp.ones_like(y))[0])
        close(found.sum(), y.sum())


def test_a_numerator_takes_all() -> None:
    w = normal(4, 4, seed=3)
    x, r = normal(4), normal(4, seed=1)
    f = lambda x: x / (2 + jnp.cos(x @ w))  # noqa: E731
    assert "quotient" in kinds(f, x)
    close(relevance(f, x, r), r)


# One module, two calls


class Twice(nn.Module):
    """Calls one dense layer twice."""

    def setup(self) -> None:
        self.layer = nn.Dense(2, use_bias=False, param_dtype=float)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer(self.layer(x))


class TwiceNNX(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.Linear(2, 2, use_bias=False, param_dtype=float, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer(self.layer(x))


def test_case_14_module_called_twice() -> None:
    kernel = jnp.array([[1.0, 2.0], [3.0, 4.0]]).T
    x = jnp.array([1.0, -2.0])
    variables = {"params": {"layer": {"kernel": kernel}}}
    plan = lrp.plan(Twice().apply, EXACT, variables, x)
    assert plan.paths == ("layer", "layer:1")
    found = lrp.explain(Twice().apply, EXACT, argnums=1)(variables, x, target=0)
    close(found.relevance, [7, -20])

    model = TwiceNNX(nnx.Rngs(0))
    model.layer.kernel[...] = kernel
    assert lrp.plan(model, EXACT, x).paths == ("layer", "layer:1")
    close(lrp.explain(model, EXACT)(x, target=0).relevance, [7, -20])


def test_shared_weights() -> None:
    w = normal(3, 3)

    def net(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ w) @ w.T

    x = normal(3, seed=1)
    explain = lrp.explain(net, EXACT)
    close(explain(x, w, target=1).relevance, x * jax.grad(lambda x: net(x, w)[1])(x))


# Maxima


def pooled(x: np.ndarray, r: np.ndarray, window: int, stride: int, pad: int = 0) -> np.ndarray:
    """Winner takes all on (H, W), by the loop of the definition; of equals, the first."""
    padded = np.pad(x, pad, constant_values=-np.inf)
    found = np.zeros_like(padded)
    for i in range(r.shape[0]):
        for j in range(r.shape[1]):
            part = padded[i * stride : i * stride + window, j * stride : j * stride + window]
            a, b = np.unravel_index(part.argmax(), part.shape)
            found[i * stride + a, j * stride + b] += r[i, j]
    return found[pad : pad + x.shape[0], pad : pad + x.shape[1]]


def test_case_2_max_pool() -> None:
    x = jnp.array([[1.0, 2, 3], [10, 5, 6], [7, 8, 9]])
    r = jnp.array([[1.0, 2], [3, 4]]) / 30
    expected = np.array([[0, 0, 0], [4, 0, 2], [0, 0, 4]]) / 30
    found = relevance(lambda x: nn.max_pool(x[None, :, :, None], (2, 2), (1, 1))[0, :, :, 0], x, r)
    close(found, expected)
    found = relevance(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"), x, r
    )
    close(found, expected)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.max(keepdims=True),
        lambda x: nn.max_pool(x[None, :, None], (4,), (4,))[0, :, 0],
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (4,), (4,), "VALID"),
        lambda x: -((-x).min(keepdims=True)),
    ],
    ids=["max", "linen", "lax", "min"],
)
def test_case_21_first_of_equals(f: Callable) -> None:
    x = jnp.array([2.0, 2, 1, 0])
    close(relevance(f, x, [5.0]), [5, 0, 0, 0])
    close(relevance(f, x[::-1], [5.0]), [0, 0, 5, 0])
    assert "maxpool" in kinds(f, x)


def test_case_21_maximum_of_two_values() -> None:
    a, b = jnp.array([2.0, 1, 3]), jnp.array([2.0, 4, -1])
    for f, expected in (
        (jnp.maximum, [[5, 0, 7], [0, 6, 0]]),
        (jnp.minimum, [[5, 6, 0], [0, 0, 7]]),
    ):
        x = jnp.stack([a, b])
        assert kinds(lambda x, f=f: f(x[0], x[1]), x)[-1:] == ["maxpool"]
        close(relevance(lambda x, f=f: f(x[0], x[1]), x, [5.0, 6, 7]), expected)


@pytest.mark.parametrize(
    ("window", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 3, 0), (3, 3, 1)]
)
def test_max_pool_windows(window: int, stride: int, pad: int) -> None:
    rng = np.random.default_rng(window + stride)
    x = rng.integers(-4, 1, size=(7, 7)).astype(float)  # many ties, none above the padding's zero

    def f(x: jax.Array) -> jax.Array:
        out = nn.max_pool(
            x[None, :, :, None], (window, window), (stride, stride), ((pad, pad), (pad, pad))
        )
        return out[0, :, :, 0]

    r = rng.normal(size=f(jnp.asarray(x)).shape)
    close(relevance(f, jnp.asarray(x), r), pooled(x, r, window, stride, pad))


def test_max_over_axes() -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, size=(3, 4, 2)).astype(float))
    r = normal(4)
    found = np.asarray(relevance(lambda x: x.max(axis=(0, 2)), x, r))
    expected = np.zeros((3, 4, 2))
    for j in range(4):
        i, k = np.unravel_index(np.asarray(x[:, j]).argmax(), (3, 2))
        expected[i, j, k] = r[j]
    close(found, expected)


# Linear functions that are no layer of weights

ROLL = {
    "mean": lambda x: x.mean(axis=(1, 2)),
    "sum": lambda x: x.sum(axis=-1),
    # Flax divides by a NumPy integer
    "avg_pool": promoting(lambda x: nn.avg_pool(x, (2, 2), (2, 2))),
    "avg_pool_overlapping": promoting(lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME")),
    "avg_pool_uncounted": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
    "pad_reflect": lambda x: jnp.pad(x, ((0, 0), (2, 2), (1, 1), (0, 0)), mode="reflect"),
    "slice": lambda x: x[:, 1:, ::2],
    "dynamic_slice": lambda x: lax.dynamic_slice_in_dim(x, 1, 2, axis=1),
    "take": lambda x: x[:, jnp.array([2, 0, 0])],
    "take_along_axis": lambda x: jnp.take_along_axis(x, jnp.zeros((2, 1, 4, 3), int), axis=1),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x, jnp.ones_like(x)], axis=-1),
    "stack": lambda x: jnp.stack([x, -x]),
    "split": lambda x: jnp.split(x, 3, axis=-1)[1] + x[..., :1],
    "flip": lambda x: x[:, ::-1, ::-1],
    "roll": lambda x: jnp.roll(x, (1, 2), axis=(1, 2)),
    "transpose": lambda x: x.transpose(0, 3, 1, 2).reshape(2, 3, 16),
    "where": lambda x: jnp.where(jnp.arange(4)[:, None] > 1, x, 0.0),
    "mask": lambda x: x * jnp.array([0.0, 1.0, 2.0]),
    "tril": lambda x: jnp.tril(x[..., 0]),
    "cumsum": lambda x: jnp.cumsum(x, axis=1),
    "repeat": lambda x: jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2),
    "tile": lambda x: jnp.tile(x, (1, 2, 1, 1)),
    "broadcast": lambda x: jnp.broadcast_to(x[:, :1], x.shape),
    "nearest": lambda x: jax.image.resize(x, (2, 8, 8, 3), "nearest"),
    "bilinear": lambda x: jax.image.resize(x, (2, 6, 7, 3), "bilinear"),
    "pixel_shuffle": lambda x: x[..., :1].reshape(2, 2, 2, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5),
    "scatter": lambda x: jnp.zeros((2, 6, 4, 3), x.dtype).at[:, jnp.array([0, 5, 1, 2])].set(x),
    "scatter_add": lambda x: jnp.zeros((2, 2, 4, 3), x.dtype).at[:, jnp.array([0, 1, 1, 0])].add(x),
    "fft": lambda x: jnp.fft.irfft(
        jnp.fft.rfft(x, axis=1) * jnp.arange(3, dtype=complex)[:, None, None], axis=1
    ),
    "ordered": lambda x: jnp.sort(x, axis=1),
}


@pytest.mark.parametrize("name", ROLL)
def test_linear_function(name: str) -> None:
    f = ROLL[name]
    x = normal(2, 4, 4, 3)
    r = jnp.asarray(np.random.default_rng(1).normal(size=f(x).shape) * (np.asarray(f(x)) != 0))
    close(relevance(f, x, r), linear_relevance(f, x, r))
    assert {"activation", "product", "unsupported", "normalizer"}.isdisjoint(kinds(f, x))


@pytest.mark.parametrize("name", ["mean", "sum", "avg_pool", "avg_pool_overlapping"])
def test_pools_are_layers(name: str) -> None:
    x = normal(2, 4, 4, 3)
    assert kinds(ROLL[name], x) == ["pool"]
    r = normal(*ROLL[name](x).shape, seed=1)
    one = lrp.explain(ROLL[name], C.by_kind("pool", lrp.Norm(0.0)))(x, target=r).relevance
    close(one, linear_relevance(ROLL[name], x, r))


# Embeddings


class Tokens(nn.Module):
    """Embeds tokens, adds positions, averages."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        h = nn.Embed(7, 4, name="embed")(tokens)
        return nn.Dense(3, name="head")(jnp.tanh(h).mean(axis=-2))


class TokensNNX(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(self.embed(tokens)).mean(axis=-2))


def test_embedding() -> None:
    tokens = jnp.array([[1, 5, 5, 0], [2, 2, 3, 6]])
    variables = Tokens().init(jax.random.key(0), tokens)
    model = TokensNNX(nnx.Rngs(0))
    for fun, table, rest, found in (
        (
            Tokens().apply,
            variables["params"]["embed"]["embedding"],
            variables["params"]["head"],
            lrp.explain(Tokens().apply, EXACT, argnums=1)(variables, tokens, target=1),
        ),
        (
            model,
            model.embed.embedding[...],
            {"kernel": model.head.kernel[...], "bias": model.head.bias[...]},
            lrp.explain(model, EXACT)(tokens, target=1),
        ),
    ):
        args = (variables, tokens) if fun is not model else (tokens,)
        assert kinds(fun, *args) == ["embedding", "activation", "pool", "dense"]
        h = np.tanh(np.asarray(table, float)[np.asarray(tokens)])
        logit = h.mean(1) @ np.asarray(rest["kernel"], float)[:, 1] + float(rest["bias"][1])
        expected = (h @ np.asarray(rest["kernel"], float)[:, 1]) / 4
        assert found.relevance.shape == tokens.shape
        close(found.relevance, expected, 1e-5)
        assert np.abs(np.asarray(found.output)[:, 1] - logit).max() < 1e-5


@pytest.mark.parametrize(
    "embed",
    [lambda t, e: e[t], lambda t, e: jnp.take(e, t, axis=0), lambda t, e: jax.nn.one_hot(t, 7) @ e],
    ids=["index", "take", "one_hot"],
)
def test_embedding_in_plain_jax(embed: Callable) -> None:
    e, w = normal(7, 4), normal(4, 2, seed=1)
    tokens = jnp.array([3, 0, 6])
    found = lrp.explain(lambda t: (embed(t, e) @ w).sum(0), EXACT)(tokens, target=1)
    close(found.relevance, (e[tokens] @ w)[:, 1])


def test_position_embedding_is_a_bias() -> None:
    x, p, w = normal(3, 4), normal(3, 4, seed=1), normal(4, 2, seed=2)
    f = lambda x: ((x + p) @ w).sum(0)  # noqa: E731
    assert kinds(f, x) == ["shift", "dense", "pool"]
    close(lrp.explain(f, EXACT)(x, target=0).relevance, x * w[:, 0])


# stop_gradient, control flow, rematerialization


def test_stop_gradient_stops_relevance() -> None:
    x = jnp.array([1.0, -2.0])
    close(relevance(lambda x: 2 * x + lax.stop_gradient(x), x, [3.0, 6.0]), [2, 4])
    with pytest.raises(
        ValueError, match="only through operations that carry no relevance: `stop_grad"
    ):
        relevance(lambda x: lax.stop_gradient(x) * 2, x, [3.0, 6.0])
    with pytest.raises(ValueError, match="does not depend on the explained argument"):
        lrp.explain(lambda x: jnp.ones(2) * x.shape[0])(x, target=0)


def steps(x: jax.Array, w: jax.Array, loop: str) -> jax.Array:
    """Four steps of a recurrence, looped or unrolled."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(h @ w[0] + x @ w[1])
        return h, jax.nn.relu(h)

    h = jnp.zeros(w.shape[-1])
    if loop == "scan":
        h, ys = lax.scan(step, h, x)
        return h + ys.sum(0)
    if loop == "remat":
        step = jax.checkpoint(step)
    if loop == "scan of remat":
        h, ys = lax.scan(jax.checkpoint(step), h, x)
        return h + ys.sum(0)
    total = jnp.zeros_like(h)
    if loop == "fori":

        def body(t: jax.Array, carry: tuple) -> tuple:
            h, y = step(carry[0], x[t])
            return h, carry[1] + y

        h, total = lax.fori_loop(0, len(x), body, (h, total))
        return h + total
    for t in range(len(x)):
        h, y = step(h, x[t])
        total = total + y
    return h + total


@pytest.mark.parametrize("loop", ["scan", "remat", "scan of remat", "fori"])
def test_loops_equal_the_unrolled_loop(loop: str) -> None:
    x, w = normal(4, 3, seed=1), normal(2, 3, 3)
    composite = C.composite(C.by_kind("dense", lrp.Gamma(0.5)), C.by_kind("sum", lrp.LRP0()))
    found = jax.jit(lrp.explain(lambda x: steps(x, w, loop), composite))(x, target=1)
    plain = lrp.explain(lambda x: steps(x, w, "unrolled"), composite)(x, target=1)
    close(found.output, plain.output)
    close(found.relevance, plain.relevance)
    assert np.abs(plain.relevance).min() > 1e-6


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cond_takes_the_branch(sign: float) -> None:
    w = normal(2, 3, 3)

    def left(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ w[0])

    def right(x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ w[1]) + x

    def net(x: jax.Array) -> jax.Array:
        return lax.cond(x[0] > 0, left, right, x)

    x = sign * jnp.abs(normal(3, seed=2))
    composite = C.by_kind("dense", lrp.ZPlus())
    branch = left if sign > 0 else right
    expected = lrp.explain(branch, composite)(x, target=jnp.ones(3)).relevance
    close(lrp.explain(net, composite)(x, target=jnp.ones(3)).relevance, expected)
    index = jnp.array(0 if sign > 0 else 1)
    switched = lrp.explain(lambda x: lax.switch(index, [left, right], x), composite)
    close(switched(x, target=jnp.ones(3)).relevance, expected)


class Scanned(nn.Module):
    """A dense layer and a tanh, three times, by `nn.scan` with `nn.remat`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
                return jnp.tanh(nn.Dense(4, name="dense", param_dtype=float)(x)), None

        scan = nn.scan(
            nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return scan(name="blocks")(x, None)[0]


def test_linen_scan_of_remat() -> None:
    x = normal(2, 4)
    variables = Scanned().init(jax.random.key(0), x)
    kernel = variables["params"]["blocks"]["dense"]["kernel"]

    def unrolled(x: jax.Array) -> jax.Array:
        for w in kernel:
            x = jnp.tanh(x @ w)
        return x

    found = lrp.explain(Scanned().apply, C.all_epsilon(0.1), argnums=1)(variables, x, target=1)
    expected = lrp.explain(unrolled, C.all_epsilon(0.1))(x, target=1)
    close(found.relevance, expected.relevance)


# Errors


class Trained(nn.Module):
    """Dropout and BatchNorm, both or one in training mode."""

    drop: bool
    norm: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not self.norm, name="norm")(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not self.drop, name="drop")(x)


def apply_trained(drop: bool, norm: bool) -> tuple[Callable, Any, jax.Array]:
    x = normal(3, 4).astype(jnp.float32)
    variables = Trained(False, False).init(jax.random.key(0), x)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.key(1)}
        return Trained(drop, norm).apply(variables, x, rngs=rngs, mutable=["batch_stats"])[0]

    return apply, variables, x


def test_training_mode_of_linen() -> None:
    with pytest.raises(
        lrp.TrainingModeError, match=r"(?s)at random at 'drop'.*dropout.*deterministic=True"
    ):
        lrp.plan(apply_trained(True, False)[0], None, *apply_trained(True, False)[1:], argnums=1)
    with pytest.raises(lrp.TrainingModeError, match=r"(?s)BatchNorm.*'norm'.*use_running_average"):
        lrp.plan(apply_trained(False, True)[0], None, *apply_trained(False, True)[1:], argnums=1)
    fun, variables, x = apply_trained(False, False)
    assert [row.kind for row in lrp.plan(fun, None, variables, x, argnums=1).rows] == ["dense"]


class TrainedNNX(nnx.Module):
    """The same in NNX."""

    def __init__(self, kind: str, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(4, 4, rngs=rngs)
        self.last = (
            nnx.Dropout(0.5, rngs=rngs) if kind == "dropout" else nnx.BatchNorm(4, rngs=rngs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.dense(x))


@pytest.mark.parametrize(("kind", "message"), [("dropout", "at random"), ("norm", "BatchNorm")])
def test_training_mode_of_nnx(kind: str, message: str) -> None:
    model = TrainedNNX(kind, nnx.Rngs(0))
    x = normal(3, 4).astype(jnp.float32)
    model.train()
    with pytest.raises(lrp.TrainingModeError, match=rf"(?s){message}.*'last'.*model\.eval\(\)"):
        lrp.plan(model, None, x)
    model.eval()
    assert [row.kind for row in lrp.plan(model, None, x).rows] == ["dense"]


def test_own_dropout() -> None:
    mask = jax.random.key(0)

    def net(x: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(mask, 0.5, x.shape), x / 0.5, 0)

    with pytest.raises(lrp.TrainingModeError, match="masks values at random"):
        lrp.plan(net, None, normal(3))


def test_random_features_are_no_dropout() -> None:
    """A random feature is added, as in a diffusion network; values mask and scale themselves."""

    def net(x: jax.Array) -> jax.Array:
        h = x + jax.random.normal(jax.random.key(0), x.shape)
        return jnp.where(h > 0, h, 0.1 * h) * jax.nn.sigmoid(h)

    x = normal(3)
    result = lrp.explain(net)(x, target=net(x))
    np.testing.assert_array_equal(result.output, net(x))
    assert np.isfinite(result.relevance).all()


def doubling(x: jax.Array) -> jax.Array:
    return lax.while_loop(lambda x: x.sum() < 100, lambda x: 2 * x, x)


UNKNOWN = {
    "while": (lambda x: doubling(x), r"while"),
    "inv": (lambda x: jnp.linalg.inv(x.reshape(2, 2)), r"\w+"),
    "cholesky": (lambda x: jnp.linalg.cholesky(x.reshape(2, 2)), r"cholesky"),
    "eigh": (lambda x: jnp.linalg.eigvalsh(x.reshape(2, 2)), r"eigh"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_operation(name: str) -> None:
    fun, primitive = UNKNOWN[name]
    line = (doubling if name == "while" else fun).__code__.co_firstlineno + (name == "while")
    with pytest.raises(lrp.UnsupportedError, match=rf"explain `{primitive}`") as caught:
        lrp.plan(fun, None, jnp.abs(normal(4)))
    assert re.search(rf"test_structure\.py:{line} ", str(caught.value))
    assert ("by_operation(" in str(caught.value)) == (name != "while")  # which has no derivative


def test_a_kernel_is_told_from_its_implementation_in_jax() -> None:
    def double(x_ref, out_ref):
        out_ref[...] = 2 * x_ref[...]

    def net(x: jax.Array) -> jax.Array:
        return pallas.pallas_call(double, jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)

    def called(x: jax.Array) -> jax.Array:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    for fun, name in ((net, "pallas_call"), (called, "pure_callback")):
        message = rf"explain `{name}`.*choose an implementation in JAX operations"
        with pytest.raises(lrp.UnsupportedError, match=message):
            lrp.plan(fun, None, normal(4))


class Unknown(nn.Module):
    """Computes what cannot be explained, in a named module."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Root(name="inner")(nn.Dense(4, name="dense")(x))


class Root(nn.Module):
    """The Cholesky factor of a matrix."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return lax.linalg.cholesky(x, symmetrize_input=False)


def test_unknown_operation_names_the_module() -> None:
    x = normal(4, 4).astype(jnp.float32)
    variables = Unknown().init(jax.random.key(0), x)
    line = Root.__call__.__wrapped__.__code__.co_firstlineno + 2 if hasattr(
        Root.__call__, "__wrapped__"
    ) else r"\d+"  # fmt: skip
    message = rf"(?s)`cholesky` at 'inner/cholesky'.*test_structure\.py:{line}"
    with pytest.raises(lrp.UnsupportedError, match=message):
        lrp.plan(Unknown().apply, None, variables, x)
    for rule in (lrp.rules.Gradient(), lrp.Custom(lambda layer, x, r: r)):
        composite = C.by_operation("cholesky", rule) + C.all_epsilon()
        plan = lrp.plan(Unknown().apply, composite, variables, x)
        assert plan["inner/cholesky"] == rule


def test_unknown_operation_off_the_way_is_no_error() -> None:
    w = normal(3)
    x = normal(3, seed=1)
    roots = lambda x: jnp.linalg.cholesky(x[:, None] * x + jnp.eye(3)).sum(0)  # noqa: E731
    f = lambda x: x * jnp.cumprod(w) + lax.stop_gradient(roots(x))  # noqa: E731
    close(
        lrp.explain(lambda x: f(x).sum(), EXACT)(x, target=jnp.asarray(f(x).sum())).relevance,
        x * np.cumprod(w),
    )


# Mixed precision


class Mixed(nn.Module):
    """Computes in bfloat16 with parameters in float32."""

    dtype: Any

    @nn.compact
    @promoting  # LayerNorm computes its statistics in float32
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), dtype=self.dtype, name="conv")(x))
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x).mean(axis=(1, 2))
        return nn.Dense(3, dtype=self.dtype, name="dense")(x).astype(jnp.float32)


@pytest.mark.parametrize("composite", [None, C.epsilon_plus(), C.epsilon_plus_flat()], ids=str)
def test_bfloat16_model(composite: Any) -> None:
    x = jnp.abs(normal(2, 5, 5, 2)).astype(jnp.float32)
    variables = Mixed(jnp.float32).init(jax.random.key(1), x)
    half, full = (Mixed(d) for d in (jnp.bfloat16, jnp.float32))
    plans = [lrp.plan(m.apply, composite, variables, x) for m in (half, full)]
    assert plans[0].paths == plans[1].paths
    found = lrp.explain(half.apply, composite, argnums=1)(variables, x, target=1)
    expected = lrp.explain(full.apply, composite, argnums=1)(variables, x, target=1)
    assert found.relevance.dtype == jnp.float32
    # three layers, each with values rounded to 8 bits
    scale = np.abs(expected.relevance).max()
    np.testing.assert_allclose(found.relevance, expected.relevance, atol=6e-2 * scale)


@pytest.mark.parametrize("preset", ["default", "attnlrp", "excitation_backprop"])
def test_a_layer_wider_than_its_input_explains_in_strict_promotion(preset: str) -> None:
    """A user may forbid implicit promotion: rules cast explicitly."""
    table, ids, x = normal(7, 4).astype(jnp.float32), jnp.array([3, 0, 6]), normal(2, 4)
    w = lax.complex(normal(4, 3, seed=1), normal(4, 3, seed=2))
    for fun, arg in (
        (lambda i: table[i], ids),
        (lambda x: jnp.tanh(x.astype(float)), x.astype(jnp.float32)),
        (lambda x: x.astype(float) + jnp.tanh(x.astype(float)), x.astype(jnp.float32)),
        (lambda x: (jax.nn.relu(x).astype(complex) @ w).real, x),
    ):
        found = {}
        for promotion in ("standard", "strict"):
            with jax.numpy_dtype_promotion(promotion):
                found[promotion] = lrp.explain(fun, C.PRESETS[preset]())(arg, target=lambda z: z)
        strict = found["strict"].relevance
        np.testing.assert_array_equal(strict, found["standard"].relevance)
        if arg is not ids:
            assert strict.dtype == arg.dtype


# Attributes


class Attributes(nn.Module):
    """Two branches on the input, of one and two convolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = nn.relu(nn.Conv(4, (3, 3), name="a1")(x))
        a = nn.BatchNorm(use_running_average=True, name="bn")(nn.Conv(4, (3, 3), name="a2")(a))
        b = nn.Conv(4, (1, 1), name="b")(x)
        h = nn.relu(a + b)
        h = nn.max_pool(h, (2, 2), (2, 2))
        h = nn.gelu(nn.Dense(5, name="hidden")(h.reshape(len(h), -1)))
        return nn.Dense(3, name="head")(h)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.float16, jnp.bfloat16])
def test_relu_is_known_in_any_dtype(dtype: Any) -> None:
    """Guided backpropagation and what is known of signs rest on it."""
    w = normal(2, 2).astype(dtype)
    x = jnp.array([1.0, -2.0], dtype)
    found = layers(lambda x: jax.nn.relu(jax.nn.relu(x) @ w) @ w, x)
    assert [layer.relu for layer in found] == [True, False, True, False]
    assert [layer.nonnegative for layer in found] == [False, True, False, True]
    assert [layer.rectified for layer in found] == [False, True, False, False]
    explain = lrp.explain(jax.nn.relu, C.guided_backprop())
    found = explain(jnp.abs(x), target=jnp.array([-1.0, 1.0], dtype)).relevance
    close(found.astype(float), [0, 1])


def test_attributes() -> None:
    x = normal(2, 4, 4, 2).astype(jnp.float32)
    variables = Attributes().init(jax.random.key(0), x)
    found = {layer.path: layer for layer in layers(Attributes().apply, variables, x)}
    parameterized = {p: la for p, la in found.items() if la.kind in ("dense", "conv")}
    assert {p: (la.depth, la.height) for p, la in parameterized.items()} == {
        "a1": (0, 3), "a2": (1, 2), "b": (0, 2), "hidden": (2, 1), "head": (3, 0),
    }  # fmt: skip
    assert [p for p, la in parameterized.items() if la.first] == ["a1", "b"]
    assert [p for p, la in parameterized.items() if la.last] == ["head"]
    assert [p for p, la in parameterized.items() if la.nonnegative] == ["a2", "hidden"]
    assert [p for p, la in parameterized.items() if la.rectified] == ["a1"]
    assert {p: la.module for p, la in parameterized.items()} == {
        "a1": "Conv", "a2": "Conv", "b": "Conv", "hidden": "Dense", "head": "Dense",
    }  # fmt: skip
    assert [n for n in found["a2"].absorbed if n in ("add", "sub", "mul")] == [
        "add", "sub", "mul", "add"
    ]  # fmt: skip
    assert "mul" not in found["a1"].absorbed
    assert "add" in found["hidden"].absorbed


@pytest.mark.parametrize(
    ("f", "nonnegative"),
    [
        (jax.nn.relu, True),
        (jax.nn.relu6, True),
        (jax.nn.sigmoid, True),
        (jax.nn.softmax, True),
        (jax.nn.hard_sigmoid, True),
        (jnp.exp, True),
        (jnp.abs, True),
        (jnp.square, True),
        (lambda x: jnp.where(x > 0, x, 0), False),  # is, but intervals do not see it
        (lambda x: jnp.maximum(jax.nn.relu(x), -1.0), True),
        (lambda x: jax.nn.relu(x).reshape(2, 2, 2).max(1), True),
        (lambda x: nn.max_pool(jax.nn.relu(x)[..., None], (2,), (2,), "SAME")[..., 0], True),
        (promoting(lambda x: nn.avg_pool(jax.nn.relu(x)[..., None], (2,), (2,))[..., 0]), True),
        (lambda x: jax.nn.relu(x) + jax.nn.sigmoid(x @ jnp.ones((4, 4))), True),
        (lambda x: jnp.concatenate([jax.nn.relu(x), jnp.abs(x)], -1), True),
        (lambda x: jnp.concatenate([jax.nn.relu(x), x], -1), False),
        (lambda x: jax.nn.relu(x) * 2.0 + 1.0, True),
        (lambda x: jax.nn.relu(x) * -2.0, False),
        (lambda x: jax.nn.relu(x) - 1.0, False),
        (lambda x: jax.nn.relu(x) * SLOPE.astype(x.dtype), False),
        (jax.nn.leaky_relu, False),
        (jax.nn.gelu, False),
        (jnp.tanh, False),
        (lambda x: x, False),
        (lambda x: x**3, False),
        (lambda x: -jax.nn.relu(x), False),
    ],
)
def test_nonnegative(f: Callable, nonnegative: bool) -> None:
    x = normal(2, 4)
    w = normal(f(x).shape[-1], 3)
    assert layers(lambda x: f(x) @ w, x)[-1].nonnegative is nonnegative


@pytest.mark.parametrize(
    ("f", "rectified"),
    [
        (jax.nn.relu, True),
        (lambda z: jnp.maximum(z, 0), True),
        (jax.nn.relu6, True),
        (jax.nn.gelu, False),
        (jax.nn.leaky_relu, False),
        (jnp.abs, False),
        (lambda z: jax.nn.relu(z) + z, False),
        (lambda z: jnp.maximum(z, 1.0), False),
        (lambda z: jax.nn.relu(-z), True),  # the sign is folded into the weight
        # folded, and the ReLU comes after
        (lambda z: jax.nn.relu(z * SLOPE.astype(z.dtype)), True),
        (lambda z: (jax.nn.relu(z), z)[0], True),
    ],
)
def test_rectified(f: Callable, rectified: bool) -> None:
    w = normal(3, 4)
    assert layers(lambda x: f(x @ w), normal(2, 3))[0].rectified is rectified


def test_an_output_is_not_rectified() -> None:
    w = normal(3, 4)

    def net(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = x @ w
        return z, jax.nn.relu(z)

    assert not layers(net, normal(3))[0].rectified


def test_resize_is_no_first_layer() -> None:
    """An interpolation has no parameters: a convolution behind it is the first layer."""
    kernel = normal(3, 3, 2, 4)

    def net(x: jax.Array) -> jax.Array:
        x = jax.image.resize(x, (1, 6, 6, 2), "bilinear")
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert layers(net, normal(1, 4, 4, 2))[-1].first


# Masks of tokens


@pytest.mark.parametrize("mask", [lambda i: i > 0, lambda i: i != 3, lambda i: ~(i == 0)])
def test_a_mask_made_of_tokens_is_a_constant(mask: Callable) -> None:
    table = normal(9, 4)
    ids = jnp.array([3, 1, 0, 2])

    def pooled(ids: jax.Array) -> jax.Array:
        return (table[ids] * mask(ids)[:, None].astype(table.dtype)).sum(axis=0)

    assert kinds(pooled, ids) == ["embedding", "pool"]
    r = normal(4, seed=1)
    found = lrp.explain(pooled, EXACT)(ids, target=r).relevance
    close(found.sum(), r.sum())
    close(np.asarray(found) * ~np.asarray(mask(ids)), np.zeros(4))


def test_a_one_hot_vector_of_tokens_is_an_embedding() -> None:
    table, ids = normal(9, 4), jnp.array([3, 1, 0, 2])
    r = normal(4, 4, seed=1)
    found = lrp.explain(lambda ids: jax.nn.one_hot(ids, 9) @ table, EXACT)(ids, target=r).relevance
    close(found, r.sum(axis=1))


# Masks added to scores


@pytest.mark.parametrize("low", [-np.inf, float(np.finfo(np.float64).min), -1e9])
@pytest.mark.parametrize("preset", ["default", "attnlrp", "cp_lrp", "epsilon_plus", "all_epsilon"])
def test_a_mask_added_to_scores_loses_nothing(low: float, preset: str) -> None:
    """A masked score has no relevance: infinity times zero, or a quotient that overflows."""
    w, mask = normal(4, 3), jnp.array([0.0, 0.0, 0.0, low])
    x = normal(4, 4, seed=1)

    def after_a_factor(x: jax.Array) -> jax.Array:
        return jax.nn.softmax((x @ w) @ (x @ w).T / 2 + mask) @ (x @ w)

    def after_a_layer(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(x @ w + mask[1:]) @ w.T

    for fun in (after_a_factor, after_a_layer):
        composite = C.PRESETS[preset]()
        found = lrp.explain(fun, composite)(x, target=1).relevance
        assert np.isfinite(found).all()
        assert np.abs(found).max() > 1e-3


def test_a_written_factor_makes_no_batch_norm() -> None:
    bias = normal(4)
    assert kinds(lambda x: (x @ x.T) * 0.5 + bias, normal(4, 4)) == ["product", "shift"]
    scale = normal(4, seed=1)
    assert kinds(lambda x: x * scale + bias, normal(4, 4)) == ["scale"]


# Segments


SEGMENTS = np.array([0, 0, 1, 1, 1, 1])


def segment_softmax(x: jax.Array, stopped: bool) -> jax.Array:
    high = jax.ops.segment_max(x, SEGMENTS, 2)[SEGMENTS]
    e = jnp.exp(x - (jax.lax.stop_gradient(high) if stopped else high))
    total = jax.ops.segment_sum(e, SEGMENTS, 2)
    return e / jnp.maximum(total, 1e-16)[SEGMENTS]


@pytest.mark.parametrize("stopped", [True, False])
def test_a_softmax_over_segments_is_a_softmax(stopped: bool) -> None:
    x, w = normal(6, 3), normal(3, 1, seed=2)

    def by_segments(x: jax.Array) -> jax.Array:
        p = segment_softmax((x @ w)[:, 0], stopped)
        return jax.ops.segment_sum(p[:, None] * x, SEGMENTS, 2)

    def by_axes(x: jax.Array) -> jax.Array:
        parts = (x[:2], x[2:])
        return jnp.stack([(jax.nn.softmax(p @ w, axis=0) * p).sum(axis=0) for p in parts])

    assert "attention" in kinds(by_segments, x)
    r = normal(2, 3, seed=3)
    for preset in (EXACT, C.attnlrp(epsilon=0.0), C.cp_lrp(epsilon=0.0)):
        a, b = (lrp.explain(f, preset)(x, target=r).relevance for f in (by_segments, by_axes))
        close(a, b, 1e-9)


def test_maximum_over_segments() -> None:
    x = jnp.array([1.0, 3.0, 2.0, 5.0, 4.0, 0.5])
    r = jnp.array([2.0, 7.0])
    found = lrp.explain(lambda x: jax.ops.segment_max(x, SEGMENTS, 2))(x, target=r).relevance
    close(found, [0, 2, 0, 7, 0, 0])


def test_the_affine_part_of_a_normalizer_behind_a_reshape() -> None:
    """Group normalization: statistics over groups, then scale and shift of channels."""
    scale, shift = normal(4), normal(4, seed=1)

    def group_norm(x: jax.Array) -> jax.Array:
        g = x.reshape(3, 2, 2)
        d = g - g.mean(-1, keepdims=True)
        d = d * jax.lax.rsqrt(jnp.square(d).mean(-1, keepdims=True) + 1e-3)
        return d.reshape(3, 4) * scale + shift

    plan = lrp.plan(group_norm, None, normal(3, 4))
    assert [
        repr(rule) for rule, row in zip(plan.rules, plan.rows, strict=True) if row.kind == "scale"
    ] == ["LRP0()"]


def test_layers_in_bodies_are_named_in_order() -> None:
    """Not by where their operations happen to lie in memory."""
    w = normal(3, 3)

    def f(x):
        for _ in range(8):
            x = jax.checkpoint(lambda x: x @ w)(x)
        return x

    paths = lrp.plan(f, None, normal(2, 3)).paths
    assert paths == ("dot_general", *(f"dot_general:{i}" for i in range(1, 8)))


def test_an_activation_is_computed_again_rather_than_held() -> None:
    w = jnp.ones((64, 64), jnp.float32)

    def net(x: jax.Array) -> jax.Array:
        for _ in range(4):
            x = jax.nn.gelu(x @ w, approximate=False) @ w
        return x.sum(axis=0, keepdims=True)

    def held(fun: Callable) -> int:
        x = jax.ShapeDtypeStruct((4096, 64), jnp.float32)
        return jax.jit(fun).lower(x).compile().memory_analysis().temp_size_in_bytes

    explain = lrp.explain(net, C.attnlrp())
    explained = held(lambda x: explain(x, target=0).relevance)
    assert explained <= held(jax.grad(lambda x: net(x)[0, 0]))
