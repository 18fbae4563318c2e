"""Every rule on every linear layer, against the dense matrix that the layer is.

The matrix is the Jacobian of the user's function and its bias is f(0); NumPy does the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from hypothesis import HealthCheck, assume, given, settings
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C

import oracle
from numeric import promoting

RTOL = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 2e-2}

# Stabilizers are large, so that an ill-conditioned denominator does not hide an error.
RULES: list[tuple[lrp.rules.Rule, Callable, dict[str, Any]]] = [
    (lrp.Epsilon(0.5), oracle.epsilon, {"epsilon": 0.5}),
    (lrp.Epsilon(0.5, bias="zero"), oracle.epsilon, {"epsilon": 0.5, "bias": "zero"}),
    (lrp.ZPlus(bias="absorb", stabilizer=0.3), oracle.zplus, {"stabilizer": 0.3}),
    (
        lrp.AlphaBeta(2.0, 1.0, bias="zero", stabilizer=0.3),
        oracle.alpha_beta,
        {"bias": "zero", "stabilizer": 0.3},
    ),
    (
        lrp.Gamma(0.6, bias="absorb", stabilizer=0.3),
        oracle.gamma,
        {"gamma": 0.6, "stabilizer": 0.3},
    ),
    (
        lrp.ZBox(-2.0, 3.0, stabilizer=0.3),
        oracle.zbox,
        {"low": -2.0, "high": 3.0, "stabilizer": 0.3},
    ),
    (lrp.WSquare(bias="absorb", stabilizer=0.3), oracle.wsquare, {"stabilizer": 0.3}),
    (lrp.Flat(stabilizer=0.3), oracle.flat, {"stabilizer": 0.3}),
]

ALL = tuple(range(len(RULES)))

quick = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def rows(fun: Callable, x: Any) -> list[str]:
    return [row.kind for row in lrp.plan(fun, None, x).rows]


def check(
    fun: Callable[[jax.Array], jax.Array],
    x: Any,
    kind: str,
    dtype: str = "float64",
    rules: Sequence[int] = ALL,
    exact: Callable[[jax.Array], jax.Array] | None = None,
) -> None:
    """Compares the rules on `fun`, one linear layer, with the oracle on its matrix.

    Args:
      fun: x -> output; it may compute in `dtype`.
      x: the input, in float64.
      kind: the kind of layer that it must be found to be, the only one.
      dtype: of the input.
      rules: which of `RULES`.
      exact: the function in float64, where `fun` is not.
    """
    exact = exact or fun
    given = jnp.asarray(x, dtype)
    x = np.asarray(given, np.float64)
    assert rows(fun, given) == [kind]
    matrix, bias, z = dense_matrix(exact, x)
    r = np.asarray(jnp.asarray(normal(*z.shape, seed=9), dtype), np.float64)
    np.testing.assert_allclose(x.ravel() @ matrix + bias, z.ravel(), rtol=1e-9, atol=1e-9)

    @jax.jit
    def explain_all(x: jax.Array, r: jax.Array) -> list[jax.Array]:
        explains = [lrp.explain(fun, C.by_kind(kind, RULES[i][0])) for i in rules]
        return [explain(x, target=r).relevance for explain in explains]

    for i, found in zip(rules, explain_all(given, jnp.asarray(r, dtype)), strict=True):
        rule, formula, parameters = RULES[i]
        if formula is oracle.flat:
            parameters = {**parameters, "connected": matrix != 0}
        assert found.dtype == given.dtype
        assert found.shape == given.shape
        expected = formula(matrix, bias, x.ravel(), r.ravel(), **parameters).reshape(x.shape)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            np.asarray(found, np.float64),
            expected,
            rtol=RTOL[dtype],
            atol=RTOL[dtype] * scale,
            err_msg=repr(rule),
        )


def dense_matrix(
    fun: Callable[[jax.Array], jax.Array], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Jacobian (n_in, n_out) of an affine function, f(0) and f(x)."""

    @jax.jit
    def compute(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        units = jnp.eye(x.size).reshape(x.size, *x.shape)
        bias, push = jax.linearize(fun, jnp.zeros_like(x))
        return jax.vmap(push)(units), bias, fun(x)

    matrix, bias, z = map(np.asarray, compute(jnp.asarray(x)))
    return matrix.reshape(x.size, z.size), bias.ravel(), z


# Dense layers

EINSUMS = {
    "ij,jk->ik": ((3, 4), (4, 5)),
    "ij,kj->ik": ((3, 4), (5, 4)),
    "ij,jk->ki": ((3, 4), (4, 5)),
    "bij,jk->bik": ((2, 3, 4), (4, 2)),
    "bij,ijk->bk": ((2, 3, 4), (3, 4, 2)),
    "bij,jik->kb": ((2, 3, 4), (4, 3, 2)),
    "bij,bjk->bik": ((2, 3, 4), (2, 4, 3)),
    "bij,kbj->bik": ((2, 3, 4), (3, 2, 4)),
    "bhij,hjk->bhik": ((2, 2, 3, 2), (2, 2, 3)),
    "bihj,hjk->bik": ((2, 3, 2, 2), (2, 2, 3)),
    "btd,dhk->bhtk": ((2, 2, 3), (3, 2, 2)),
    "bthd,hdk->btk": ((2, 2, 3, 2), (3, 2, 4)),
    "bthd,khd->kbt": ((2, 2, 3, 2), (4, 3, 2)),
    "btdh,hdk->btk": ((2, 2, 2, 3), (3, 2, 4)),
    "btd,hdk->bthk": ((2, 2, 3), (2, 3, 2)),
    "i,ij->j": ((4,), (4, 3)),
    "i,i->": ((4,), (4,)),
    "ij,k->ijk": ((2, 3), (4,)),
    "bi,i->b": ((2, 3), (3,)),
}


@pytest.mark.sampled
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("spec", EINSUMS)
def test_einsum(spec: str, side: str) -> None:
    left, right = EINSUMS[spec]
    w, x = normal(*right), normal(*left, seed=1)
    operands, out = spec.split("->")
    a, b = operands.split(",")
    if side == "left":
        check(lambda x: jnp.einsum(spec, x, w), x, "dense", rules=(0, 4, 6, 7))
    else:
        check(lambda x: jnp.einsum(f"{b},{a}->{out}", w, x), x, "dense", rules=(1, 2, 3, 5))


@quick
@given(data=st.data(), dtype=st.sampled_from(["float64", "float32", "bfloat16"]))
def test_dot_general(data: st.DataObject, dtype: str) -> None:
    """Any dimension numbers: input left or right, batch dimensions in the kernel."""
    size = st.integers(1, 3)
    batch = data.draw(st.lists(size, max_size=1), "batch")
    contracted = data.draw(st.lists(size, max_size=2), "contracted")
    free = data.draw(st.lists(size, max_size=2), "free of x")
    features = data.draw(st.lists(size, max_size=2), "free of w")
    assume(np.prod(batch + contracted + free + features) <= 60)
    assume(batch + contracted + features)  # a kernel that is one number is a factor, no layer

    def layout(own: list[int], name: str) -> tuple[list[int], list[int], list[int]]:
        """A shape of shuffled dimensions, and where batch and contracted ones are in it."""
        sizes = batch + contracted + own
        order = data.draw(st.permutations(range(len(sizes))), name)
        place = {d: i for i, d in enumerate(order)}
        nb, nc = len(batch), len(contracted)
        return ([sizes[d] for d in order], [place[d] for d in range(nb)],
                [place[d] for d in range(nb, nb + nc)])  # fmt: skip

    x_shape, x_batch, x_contract = layout(free, "order of x")
    w_shape, w_batch, w_contract = layout(features, "order of w")
    w, x = normal(*w_shape), normal(*x_shape, seed=1)
    left = data.draw(st.booleans(), "input is the left operand")
    rule = data.draw(st.integers(0, len(RULES) - 1), "rule")
    if left:
        numbers = ((x_contract, w_contract), (x_batch, w_batch))
    else:
        numbers = ((w_contract, x_contract), (w_batch, x_batch))

    def apply(x: jax.Array) -> jax.Array:
        kernel = jnp.asarray(w, x.dtype)
        return lax.dot_general(*((x, kernel) if left else (kernel, x)), numbers)

    def exact(x: jax.Array) -> jax.Array:
        kernel = jnp.asarray(jnp.asarray(w, dtype), x.dtype)
        return lax.dot_general(*((x, kernel) if left else (kernel, x)), numbers)

    check(apply, x, "dense", dtype, [rule], exact)


def test_dense_general() -> None:
    for axis, features in ((-1, 4), ((-2, -1), (2, 3)), ((1,), (2, 2))):
        layer = nn.DenseGeneral(
            features, axis=axis, param_dtype=float, bias_init=nn.initializers.normal(1.0)
        )
        x = normal(2, 3, 4)
        variables = layer.init(jax.random.key(0), x)
        check(lambda x, m=layer, v=variables: m.apply(v, x), x, "dense", rules=(0, 1, 4, 6))


def test_dense_general_with_batch_dims() -> None:
    layer = nn.DenseGeneral(
        3, axis=-1, batch_dims=0, param_dtype=float, bias_init=nn.initializers.normal(1.0)
    )
    x = normal(2, 3, 4)
    variables = layer.init(jax.random.key(0), x)
    check(lambda x: layer.apply(variables, x), x, "dense")


def test_nnx_linear() -> None:
    linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=float)
    linear.bias[...] = jnp.array([1.0, -2.0, 0.5])
    check(lambda x: linear(x), normal(2, 4), "dense")
    einsum = nnx.Einsum("bij,jhk->bihk", (4, 2, 3), (2, 3), rngs=nnx.Rngs(0), param_dtype=float)
    check(lambda x: einsum(x), normal(2, 2, 4), "dense", rules=(0, 3, 4, 6))


# Convolutions

LAYOUTS = {
    1: [("NCH", "OIH", "NCH"), ("NHC", "HIO", "NHC"), ("HNC", "HIO", "NHC")],
    2: [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC"), ("CNHW", "IHWO", "HWNC")],
    3: [("NCDHW", "OIDHW", "NCDHW"), ("NDHWC", "DHWIO", "NDHWC")],
}


def arrange(sizes: dict[str, int], layout: str) -> tuple[int, ...]:
    return tuple(sizes[c] for c in layout)


@settings(quick, max_examples=15)
@given(
    data=st.data(),
    dims=st.sampled_from([1, 1, 2, 2, 2, 3]),
    dtype=st.sampled_from(["float64", "float64", "float32", "bfloat16"]),
    groups=st.sampled_from(["one", "two", "depthwise"]),
)
def test_convolution(data: st.DataObject, dims: int, dtype: str, groups: str) -> None:
    """Strides, dilations of kernel and input, groups, padding and layouts of any sort."""
    layout = data.draw(st.sampled_from(LAYOUTS[dims]), "layout")
    small = st.integers(1, 2)
    per_group = data.draw(small, "outputs per group")
    ins, count = {"one": (2, 1), "two": (4, 2), "depthwise": (3, 3)}[groups]
    kernel_sizes = [data.draw(st.integers(1, 3 if dims < 3 else 2), "kernel") for _ in range(dims)]
    spatial = "DHW"[3 - dims :] if dims != 1 else "H"
    if dims == 2:
        spatial = "HW"
    sizes = {c: data.draw(st.integers(3, 5 if dims < 3 else 3), "size") for c in spatial}
    strides = [data.draw(small, "stride") for _ in range(dims)]
    dilation = [data.draw(small, "dilation") for _ in range(dims)]
    base = [data.draw(small, "input dilation") if dims < 3 else 1 for _ in range(dims)]
    explicit = st.lists(st.tuples(small, st.integers(-1, 2)), min_size=dims, max_size=dims)
    padding = data.draw(st.one_of(st.sampled_from(["SAME", "VALID"]), explicit), "padding")
    rule = data.draw(st.integers(0, len(RULES) - 1), "rule")
    lhs = arrange({"N": 2, "C": ins, **sizes}, layout[0])
    rhs = arrange(
        {
            "O": per_group * count,
            "I": ins // count,
            **dict(zip(spatial, kernel_sizes, strict=True)),
        },
        layout[1],
    )
    features = per_group * count
    where = layout[2].index("C")
    w, x, b = normal(*rhs), normal(*lhs, seed=1), normal(features, seed=2)
    b = b.reshape([features if d == where else 1 for d in range(dims + 2)])

    def convolve(x: jax.Array, w: Any, b: Any) -> jax.Array:
        out = lax.conv_general_dilated(
            x, jnp.asarray(w, x.dtype), strides, padding, base, dilation, layout, count
        )
        return out + jnp.asarray(b, x.dtype)

    try:
        shape = jax.eval_shape(lambda x: convolve(x, w, b), jnp.asarray(x)).shape
    except (ValueError, TypeError):
        assume(False)
    assume(0 < np.prod(shape) <= 300)
    rounded = [np.asarray(jnp.asarray(a, dtype), float) for a in (w, b)]
    check(
        lambda x: convolve(x, w, b),
        x,
        "conv",
        dtype,
        [rule],
        lambda x: convolve(x, *rounded),
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 0), (2, 1)]], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)], ids=str)
def test_conv_transpose(padding: Any, strides: tuple[int, int]) -> None:
    w, x = normal(3, 2, 2, 3), normal(1, 3, 3, 2, seed=1)
    for transpose in (False, True):
        kernel = np.swapaxes(w, 2, 3) if transpose else w
        check(
            lambda x, k=kernel, t=transpose: lax.conv_transpose(
                x, k, strides, padding, transpose_kernel=t
            ),
            x,
            "conv",
            rules=(0, 2, 4, 7) if transpose else (1, 3, 5, 6),
        )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(4, (3, 2), strides=2, padding="SAME", param_dtype=float),
        nn.Conv(4, (3, 3), padding=((1, 2), (0, 1)), kernel_dilation=2, param_dtype=float),
        nn.Conv(4, (2, 2), feature_group_count=2, param_dtype=float),
        nn.ConvTranspose(3, (3, 2), strides=(2, 2), param_dtype=float),
        nn.ConvTranspose(3, (3, 3), strides=(2, 2), padding="VALID", param_dtype=float),
    ],
    ids=["strided", "dilated", "grouped", "transposed", "transposed_valid"],
)
def test_linen_convolutions(layer: nn.Module) -> None:
    x = normal(1, 5, 4, 2)
    variables = layer.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda a: a + 0.3, variables)  # a bias that is not zero
    check(lambda x: layer.apply(variables, x), x, "conv", rules=(0, 1, 3, 4))


def test_nnx_convolutions() -> None:
    conv = nnx.Conv(2, 3, (3, 3), strides=2, rngs=nnx.Rngs(0), param_dtype=float)
    conv.bias[...] = jnp.array([1.0, -2.0, 0.5])
    check(lambda x: conv(x), normal(1, 5, 5, 2), "conv", rules=(1, 4))
    transposed = nnx.ConvTranspose(2, 3, (2, 2), strides=2, rngs=nnx.Rngs(0), param_dtype=float)
    check(lambda x: transposed(x), normal(1, 3, 3, 2), "conv", rules=(2, 4))


def test_conv_local_and_patches() -> None:
    """A convolution whose kernel is the explained value, and one of a constant image."""
    image = normal(1, 2, 4, 4)
    check(
        lambda k: lax.conv(image, k, (1, 1), "VALID"), normal(2, 2, 2, 2), "conv", rules=(0, 2, 4)
    )


PATCHES = {  # layout, kernel, strides, padding
    "patches": (("NHWC", "HWIO", "NHWC"), (2, 3), (2, 3), "VALID"),
    "a margin is left over": (("NCHW", "OIHW", "NCHW"), (3, 2), (3, 2), "VALID"),
    "one row": (("NHWC", "HWIO", "NCHW"), (1, 2), (3, 2), "VALID"),
    "strided pixels": (("NHWC", "IOHW", "HWNC"), (1, 1), (2, 3), "VALID"),
    "features in the middle": (("NHWC", "HOWI", "NHWC"), (2, 2), (2, 2), "VALID"),
    "windows apart": (("NHWC", "HWIO", "NHWC"), (2, 2), (3, 3), "VALID"),
    "a margin is added": (("NHWC", "HWIO", "NHWC"), (2, 2), (2, 2), ((1, 1), (0, 2))),
}


def patches(case: str) -> tuple[Callable[[jax.Array], jax.Array], np.ndarray]:
    layout, kernel, strides, padding = PATCHES[case]
    sizes = {"N": 2, "C": 3, "H": 7, "W": 6}
    w = normal(*arrange({"I": 3, "O": 4, "H": kernel[0], "W": kernel[1]}, layout[1]))

    def convolve(x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout)

    return convolve, normal(*arrange(sizes, layout[0]), seed=1)


@pytest.mark.parametrize("case", PATCHES)
def test_convolution_over_patches(case: str) -> None:
    check(*patches(case), "conv", rules=(0, 1, 4, 5))


def test_patches_are_a_matrix_product() -> None:
    """The transpose of such a convolution runs as a slow loop."""
    for case in list(PATCHES)[:4]:
        convolve, x = patches(case)
        explain = lrp.explain(convolve, C.by_kind("conv", lrp.rules.Epsilon(1e-6)))
        traced = jax.make_jaxpr(lambda x: explain(x, target=jnp.ones_like).relevance)  # noqa: B023
        assert str(traced(jnp.asarray(x))).count("conv_general_dilated[") == 1  # forwards


# What is folded in

SCALE, SHIFT = np.array([1.5, -0.5, 2.0, -1.0]), np.array([0.3, -1.0, 0.0, 2.0])
MEAN, VAR = np.array([0.2, -0.4, 1.0, 0.0]), np.array([0.5, 2.0, 1.0, 0.1])


def batch_norm(z: jax.Array, axis: int = -1) -> jax.Array:
    """As Flax computes it; with scales of both signs."""
    shape = [4 if d == axis % z.ndim else 1 for d in range(z.ndim)]
    scale, shift, mean, var = (jnp.asarray(a).reshape(shape) for a in (SCALE, SHIFT, MEAN, VAR))
    return (z - mean) * (lax.rsqrt(var + 1e-3) * scale) + shift


W, B = normal(3, 4), normal(4, seed=3)
K = normal(2, 2, 3, 4, seed=4)


def conv(x: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, K, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


DENSE_FOLDS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "bias": lambda x: x @ W + B,
    "bias_left": lambda x: B + x @ W,
    "minus": lambda x: x @ W - B,
    "from": lambda x: B - x @ W,
    "negated": lambda x: -(x @ W + B),
    "scaled": lambda x: (x @ W + B) * SCALE,
    "divided": lambda x: (x @ W + B) / SCALE,
    "number": lambda x: 0.5 * (x @ W + 1.0) / 3.0,
    "batch_norm": lambda x: batch_norm(x @ W + B),
    "batch_norm_twice": lambda x: batch_norm(batch_norm(x @ W)) * -2.0,
    "reshape": lambda x: (x @ W).reshape(2, 2, 2) * SCALE.reshape(2, 2) + SHIFT.reshape(2, 2),
    "reshape_and_back": lambda x: batch_norm((x @ W).reshape(1, 2, 4)).reshape(2, 2, 2) - 1.0,
    "transpose": lambda x: batch_norm((x @ W).T, 0),
    "transpose_reshape": lambda x: (x @ W).T.reshape(2, 2, 2) * SCALE.reshape(2, 2, 1) + 1.0,
    "expand": lambda x: batch_norm((x @ W)[:, None, :, None], 2),
    "squeeze": lambda x: jnp.squeeze((x @ W)[:, None, :] + B, 1) * SCALE,
    "weight_norm": lambda x: x @ (W / jnp.linalg.norm(W, axis=0) * SCALE) + B,
    "weight_standardized": lambda x: x @ ((W - W.mean(0)) / jnp.sqrt(W.var(0) + 1e-3)) + B,
    "masked_weight": lambda x: x @ jnp.where(W > 0, W, 0.1 * W) + jnp.tanh(B),
    "quantized": lambda x: x @ (jnp.round(W * 16) / 16) * 1.5,
    "checkpointed_weight": lambda x: x @ jax.checkpoint(jnp.sin)(W) + B,
}

CONV_FOLDS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "batch_norm": lambda x: batch_norm(conv(x)),
    "bias_then_batch_norm": lambda x: batch_norm(conv(x) + B),
    "to_nchw": lambda x: batch_norm(conv(x).transpose(0, 3, 1, 2), 1),
    "flattened": lambda x: conv(x).reshape(1, 9, 4) * SCALE + SHIFT,
    "split_channels": lambda x: conv(x).reshape(1, 3, 3, 2, 2) * SCALE.reshape(2, 2) - 1.0,
    "nchw_flattened": lambda x: batch_norm(conv(x).transpose(0, 3, 1, 2).reshape(1, 4, 9), 1),
    "weight_standardized": lambda x: (
        lax.conv_general_dilated(
            x,
            (K - K.mean((0, 1, 2))) * lax.rsqrt(jnp.var(K, (0, 1, 2)) + 1e-3) * SCALE,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        + B
    ),
}


@pytest.mark.parametrize("name", DENSE_FOLDS)
def test_folded_into_a_dense_layer(name: str) -> None:
    check(DENSE_FOLDS[name], normal(2, 3, seed=5), "dense", rules=(0, 1, 3, 4, 6))


@pytest.mark.parametrize("name", CONV_FOLDS)
def test_folded_into_a_convolution(name: str) -> None:
    check(CONV_FOLDS[name], normal(1, 3, 3, 3, seed=6), "conv", rules=(0, 1, 3, 4, 6))


def test_folded_into_a_transposed_convolution() -> None:
    w = normal(2, 2, 3, 4, seed=7)
    check(
        lambda x: batch_norm(lax.conv_transpose(x, w, (2, 2), "SAME") + B),
        normal(1, 2, 2, 3),
        "conv",
        rules=(0, 1, 4, 6),
    )


def test_folded_into_a_grouped_convolution() -> None:
    w = normal(4, 1, 2, 2)

    def apply(x: jax.Array) -> jax.Array:
        out = lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=2)
        return batch_norm(out, 1)

    check(apply, normal(1, 2, 3, 3), "conv", rules=(0, 1, 4, 6))


def test_folded_into_an_einsum_with_batch_dimensions() -> None:
    w = normal(2, 3, 4)
    shift = normal(2, 1, 4, seed=1)
    check(
        lambda x: batch_norm(jnp.einsum("hbi,hio->hbo", x, w) + shift),
        normal(2, 2, 3),
        "dense",
        rules=(0, 1, 4, 6),
    )


class Block(nn.Module):
    """A convolution and a BatchNorm."""

    @nn.compact
    @promoting  # BatchNorm initializes its statistics in float32
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (2, 2), param_dtype=float)(x)
        return nn.BatchNorm(use_running_average=True, param_dtype=float)(x)


def test_flax_batch_norm() -> None:
    x = normal(1, 3, 3, 3)
    variables = Block().init(jax.random.key(0), x)
    for group, name, value in (
        ("params", "scale", SCALE), ("params", "bias", SHIFT),
        ("batch_stats", "mean", MEAN), ("batch_stats", "var", VAR),
    ):  # fmt: skip
        variables[group]["BatchNorm_0"][name] = jnp.asarray(value)
    variables["params"]["Conv_0"]["bias"] = jnp.asarray(B)
    check(lambda x: Block().apply(variables, x), x, "conv")


def test_linen_weight_norm() -> None:
    layer = nn.WeightNorm(nn.Dense(4, param_dtype=float, bias_init=nn.initializers.normal(1.0)))
    x = normal(2, 3)
    variables = promoting(layer.init)(jax.random.key(0), x)  # its scale is in float32
    check(promoting(lambda x: layer.apply(variables, x)), x, "dense")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_folded_in_narrow_types(kind: str, dtype: str) -> None:
    """The model computes in a narrow type and keeps its parameters in a wide one."""
    x = normal(2, 3, seed=5) if kind == "dense" else normal(1, 3, 3, 3, seed=6)
    w, b, scale = (np.asarray(jnp.asarray(a, dtype), float) for a in (W, B, SCALE))
    k = np.asarray(jnp.asarray(K, dtype), float)

    def apply(x: jax.Array, dtype: str = dtype) -> jax.Array:
        cast = [jnp.asarray(a).astype(dtype) for a in (w, b, scale, k)]
        if kind == "dense":
            z = x.astype(dtype) @ cast[0]
        else:
            z = lax.conv_general_dilated(
                x.astype(dtype), cast[3], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return (z + cast[1]) * cast[2]

    check(apply, x, kind, dtype, exact=lambda x: apply(x, "float64"))


# What must not be folded in


@pytest.mark.parametrize(
    ("fun", "kinds"),
    [
        (lambda x: x @ W * np.array([[1.0], [2.0]]), ["dense"]),  # a factor per example
        (lambda x: x @ W + np.array([[1.0], [2.0]]), ["dense", "shift"]),
        (lambda x: (x @ W + B) * x.sum(), ["dense", "pool", "product"]),
        (lambda x: (lambda z: (z + 1.0) + (z * 2.0))(x @ W), None),  # two users
        (lambda x: (x @ W).reshape(-1) + normal(8), ["dense", "shift"]),  # mixes batch and features
    ],
)
def test_not_folded(fun: Callable, kinds: list[str] | None) -> None:
    x = jnp.asarray(normal(2, 3, seed=5))
    found = lrp.plan(fun, None, x)
    if kinds is not None:
        assert list(rows(fun, x)) == kinds
    assert "mul" not in found.rows[0].absorbed
    assert "add" not in found.rows[0].absorbed or kinds is not None
    if "product" in rows(fun, x):
        return
    exact = C.by_kind(("dense", "shift", "scale", "sum", "pool"), lrp.Epsilon(0.0))
    exact = exact + C.by_kind(("sum", "pool"), lrp.LRP0())
    z = np.asarray(fun(x))
    r = normal(*z.shape, seed=8)
    relevance = lrp.explain(fun, exact)(x, target=jnp.asarray(r)).relevance
    expected = np.asarray(x) * np.asarray(jax.vjp(fun, x)[1](jnp.asarray(r / z))[0])
    np.testing.assert_allclose(relevance, expected, rtol=1e-9)


@pytest.mark.parametrize("rule", [0, 1, 2, 3, 4, 5, 6])
def test_scale_layer(rule: int) -> None:
    """BatchNorm apart from any layer: a matrix with numbers on its diagonal alone."""
    x = normal(3, 4, seed=5)
    check(lambda x: batch_norm(x), x, "scale", rules=[rule])
    check(lambda x: (x - MEAN) / SCALE + B, x, "scale", rules=[rule])


def test_two_layers_in_a_row_stay_two() -> None:
    v = normal(4, 2)
    assert rows(lambda x: batch_norm(x @ W) @ v + 1.0, normal(2, 3)) == ["dense", "dense"]
