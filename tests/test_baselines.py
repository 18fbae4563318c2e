"""Each method against numbers worked by hand, against frozen ones, and as a function."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

import jaxlrp as lrp
from jaxlrp import baselines as B
from jaxlrp.baselines.problem import weighted_sum

from numeric import close

KEY = jax.random.key(7)


pytestmark = pytest.mark.usefixtures("x64")


def array(*values: Any) -> jax.Array:
    return jnp.asarray(values, jnp.float64)


# --- a network whose values another library has frozen --------------------------------------------


def parameters(i: int, scale: float, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The i-th layer's weight and bias, by formula."""
    weight = np.sin(np.arange(np.prod(shape)) * scale + 0.1 * i).reshape(shape)
    return weight, 0.1 * np.sin(np.arange(shape[0]) * 0.5 + 0.2 * i)


LAYERS = [
    parameters(i, scale, shape)
    for i, (scale, shape) in enumerate(
        [(1.0, (2, 1, 3, 3)), (0.7, (3, 2, 3, 3)), (1.3, (4, 12)), (0.9, (3, 4))]
    )
]
PICTURE = np.cos(0.9 * np.arange(16)).reshape(1, 1, 4, 4)


def frozen(x: jax.Array) -> jax.Array:
    """Convolution, ReLU, convolution, ReLU, average pool, dense, ReLU, dense; NCHW."""
    for weight, bias in LAYERS[:2]:
        numbers = ("NCHW", "OIHW", "NCHW")
        x = lax.conv_general_dilated(
            x, jnp.asarray(weight), (1, 1), "SAME", dimension_numbers=numbers
        )
        x = jax.nn.relu(x + bias[:, None, None])
    x = x.reshape(-1, 3, 2, 2, 2, 2).mean(axis=(3, 5)).reshape(-1, 12)
    x = jax.nn.relu(x @ LAYERS[2][0].T + LAYERS[2][1])
    return x @ LAYERS[3][0].T + LAYERS[3][1]


def test_the_frozen_network_is_the_one_that_was_frozen():
    # All frozen values have eight decimals: 1e-8 of values of size 1.
    close(frozen(jnp.asarray(PICTURE)), [[8.50008399, -8.33250252, 6.76066069]], rtol=1e-8)


def test_gradient_is_the_frozen_one():
    result = B.gradient(frozen)(PICTURE, target=0)
    assert abs(result.relevance.sum() - 0.99740888) < 1e-8
    expected = [0.8295573, 0.18931406, -1.29511523, -0.88342261]
    close(result.relevance[0, 0, 0], expected, rtol=1e-8)


def test_integrated_gradients_are_the_frozen_ones():
    # Zennit 1.0.0, n_iter=20: points at t = 1/20, ..., 1. Its sum misses f(x) - f(0) = 8.07572721.
    result = B.integrated_gradients(frozen, n_steps=20, method="right")(PICTURE, target=0)
    assert abs(result.relevance.sum() - 8.09969048) < 2e-8
    expected = [0.82234955, 0.11446479, 0.28827878, 0.78492778]
    close(result.relevance[0, 0, 0], expected, rtol=2e-8)


def test_occlusion_is_the_frozen_one():
    # Zennit 1.0.0, window=2, stride=2: it hides all but the window.
    explain = B.occlusion(frozen, window=2, stride=2, axes=(2, 3), mode="keep")
    blocks = np.array([[2.80564218, 4.52597552], [1.93456991, 4.16734828]])
    expected = np.kron(blocks, np.ones((2, 2)))
    close(explain(PICTURE, target=0).relevance[0, 0], expected, rtol=1e-8)


# --- what all methods have in common --------------------------------------------------------------

KERNEL = np.sin(np.arange(3 * 3 * 2 * 3) * 1.7).reshape(3, 3, 2, 3)
HEAD = np.sin(np.arange(3 * 3) * 0.8 + 0.3).reshape(3, 3)
IMAGES = np.cos(np.arange(3 * 6 * 5 * 2) * 0.9 + 0.2).reshape(3, 6, 5, 2)
LABELS = np.array([2, 0, 1])
NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array) -> jax.Array:
    kernel = jnp.asarray(KERNEL).astype(x.dtype)
    return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=NHWC)


def smooth_network(x: jax.Array) -> jax.Array:
    """(batch, 6, 5, 2) to (batch, 3), without kinks."""
    return jax.nn.softplus(conv(x)).mean(axis=(1, 2)) @ jnp.asarray(HEAD).astype(x.dtype)


METHODS: dict[str, Callable[..., Any]] = {
    "gradient": B.gradient,
    "input_x_gradient": B.input_x_gradient,
    "smooth_grad": functools.partial(B.smooth_grad, n_samples=5, batch_size=2),
    "smooth_grad times_input": functools.partial(
        B.smooth_grad, n_samples=3, batch_size=2, times_input=True
    ),
    "integrated_gradients": functools.partial(B.integrated_gradients, n_steps=5, batch_size=2),
    "smooth_taylor": functools.partial(B.smooth_taylor, n_samples=5, batch_size=2),
    "occlusion": functools.partial(B.occlusion, window=(3, 2), stride=(2, 2), batch_size=4),
    "grad_cam": functools.partial(B.grad_cam, layer="conv_general_dilated"),
}
SAMPLED = ("smooth_grad", "smooth_grad times_input", "smooth_taylor")
CHUNKED = ("smooth_grad", "smooth_taylor", "integrated_gradients", "occlusion")
every_method = pytest.mark.parametrize("name", METHODS)


def keyed(name: str, key: Any = KEY) -> dict[str, Any]:
    return {"key": key} if name in SAMPLED else {}


@functools.cache
def plain(name: str) -> lrp.Explanation:
    """A method's explanation of the network, computed eagerly."""
    return METHODS[name](smooth_network)(IMAGES, target=LABELS, **keyed(name))


@every_method
def test_result_is_an_explanation_like_the_argument(name: str):
    result = plain(name)
    assert isinstance(result, lrp.Explanation)
    assert result.relevance.shape == IMAGES.shape
    assert result.relevance.dtype == jnp.float64
    assert bool(jnp.all(jnp.isfinite(result.relevance)))
    assert float(jnp.abs(result.relevance).max()) > 1e-3
    close(result.output, smooth_network(jnp.asarray(IMAGES)), rtol=1e-13)
    assert result.aux is None
    assert result.records == {}


@every_method
def test_jit_equals_eager(name: str):
    explain = jax.jit(METHODS[name](smooth_network))
    jitted = explain(IMAGES, target=LABELS, **keyed(name))
    close(jitted.relevance, plain(name).relevance, rtol=1e-12)
    close(jitted.output, plain(name).output, rtol=1e-12)


@every_method
def test_batch_of_n_equals_n_singles(name: str):
    keys = jax.random.split(KEY, 3)
    explain = jax.jit(METHODS[name](smooth_network))
    whole = explain(IMAGES, target=LABELS, **keyed(name, keys))
    for i in range(3):
        one = slice(i, i + 1)
        single = explain(IMAGES[one], target=LABELS[one], **keyed(name, keys[one]))
        close(single.relevance, whole.relevance[one], rtol=1e-12)


@every_method
def test_vmap_equals_a_loop_over_functions_of_one_example(name: str):
    options = {} if "gradient" in name else {"batch_axis": None}
    options |= {"occlusion": {"axes": (0, 1)}, "grad_cam": {"resize": None}}.get(name, {})
    explain = METHODS[name](lambda x: smooth_network(x[None])[0], **options)
    keys = jax.random.split(KEY, 3)

    @jax.jit
    def one(x: jax.Array, target: jax.Array, key: jax.Array) -> jax.Array:
        return explain(x, target=target, **keyed(name, key)).relevance

    together = jax.vmap(one)(jnp.asarray(IMAGES), jnp.asarray(LABELS), keys)
    for i in range(3):
        alone = one(jnp.asarray(IMAGES[i]), jnp.asarray(LABELS[i]), keys[i])
        close(together[i], alone, rtol=1e-12)


@every_method
def test_is_linear_in_the_weights_of_the_outputs(name: str):
    options = {"relu": False} if name == "grad_cam" else {}
    explain = jax.jit(METHODS[name](smooth_network, **options))
    c, d = np.sin(np.arange(9)).reshape(3, 3), np.cos(np.arange(9)).reshape(3, 3)
    one, other, both = (
        explain(IMAGES, target=w, **keyed(name)).relevance for w in (c, d, 2 * c - 3 * d)
    )
    close(both, 2 * np.asarray(one) - 3 * np.asarray(other), rtol=1e-12)


@every_method
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_relevance_has_the_dtype_of_the_argument(name: str, dtype: Any):
    # The float64 explanation is the oracle. bfloat16 has 8 bits: each of a dozen roundings of the
    # network is 2^-9 of its value, seen against the largest relevance.
    explain = jax.jit(METHODS[name](smooth_network, **({"noise": 0.0} if name in SAMPLED else {})))
    result = explain(jnp.asarray(IMAGES, dtype), target=LABELS, **keyed(name))
    assert result.relevance.dtype == dtype
    assert result.output.dtype == dtype
    exact = explain(
        jnp.asarray(jnp.asarray(IMAGES, dtype), jnp.float64), target=LABELS, **keyed(name)
    ).relevance
    if name == "smooth_taylor":  # without noise it is zero in any dtype
        assert not bool(jnp.any(result.relevance))
        return
    rtol = {jnp.float32: 1e-5, jnp.bfloat16: 5e-2}[dtype]
    np.testing.assert_allclose(
        np.asarray(result.relevance, np.float64), exact, atol=rtol * float(jnp.abs(exact).max())
    )


@every_method
def test_aux_arguments_and_keywords(name: str):
    """Explained comes second; a keyword reaches the function; aux is handed through."""

    def function(scale: jax.Array, x: jax.Array, *, power: int) -> tuple[jax.Array, dict]:
        return scale**power * smooth_network(x), {"scale": scale}

    explain = METHODS[name](function, argnums=1, has_aux=True)
    result = explain(np.float64(3.0), IMAGES, power=2, target=LABELS, **keyed(name))
    assert float(result.aux["scale"]) == 3.0
    close(result.relevance, 9.0 * np.asarray(plain(name).relevance), rtol=1e-12)


@every_method
def test_a_linen_module(name: str):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.Conv(3, (3, 3), (2, 2), use_bias=False, param_dtype=jnp.float64, name="last")(x)
            return jax.nn.softplus(x).mean(axis=(1, 2)) @ jnp.asarray(HEAD)

    variables = {"params": {"last": {"kernel": KERNEL}}}
    options = {"layer": "last"} if name == "grad_cam" else {}
    explain = METHODS[name](Network().apply, argnums=1, **options)
    result = jax.jit(explain)(variables, IMAGES, target=LABELS, **keyed(name))
    close(result.relevance, plain(name).relevance, rtol=1e-11)


class NNXNetwork(nnx.Module):
    """`smooth_network` in NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        options = {"use_bias": False, "param_dtype": jnp.float64, "rngs": rngs}
        self.last = nnx.Conv(2, 3, (3, 3), (2, 2), **options)
        self.last.kernel[...] = jnp.asarray(KERNEL)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.softplus(self.last(x)).mean(axis=(1, 2)) @ jnp.asarray(HEAD)


@every_method
def test_an_nnx_module(name: str):
    options = {"layer": "last"} if name == "grad_cam" else {}
    explain = METHODS[name](NNXNetwork(nnx.Rngs(0)), **options)
    result = jax.jit(explain)(IMAGES, target=LABELS, **keyed(name))
    close(result.relevance, plain(name).relevance, rtol=1e-11)


@every_method
def test_a_target_is_missing(name: str):
    with pytest.raises(TypeError, match=r"target is missing: the output is float64\[3, 3\]"):
        METHODS[name](smooth_network)(IMAGES, **keyed(name))


@every_method
def test_the_explained_argument_is_missing(name: str):
    with pytest.raises(
        TypeError, match=r"argnums=1 names the argument to explain.* only 1 positional"
    ):
        METHODS[name](smooth_network, argnums=1)(IMAGES, target=0, **keyed(name))


@every_method
@pytest.mark.parametrize("x", [None, "picture"], ids=["None", "string"])
def test_the_explained_argument_is_no_array(name: str, x: Any):
    with pytest.raises(
        TypeError, match=r"\(argnums=\(0,\)\) must be a numeric array or a pytree of"
    ):
        METHODS[name](smooth_network)(x, target=0, **keyed(name))


@every_method
def test_aux_is_missing(name: str):
    with pytest.raises(TypeError, match=r"must return \(output, auxiliary\)"):
        METHODS[name](smooth_network, has_aux=True)(IMAGES, target=0, **keyed(name))


@every_method
def test_fun_is_none(name: str):
    with pytest.raises(
        TypeError, match="fun must be a function, a Linen module or an NNX module, got 3"
    ):
        METHODS[name](3)


# --- memory ---------------------------------------------------------------------------------------


def temporary_bytes(explain: Callable[..., Any], name: str) -> int:
    x = jnp.ones((2, 32, 32, 2))
    compiled = jax.jit(lambda x: explain(x, target=0, **keyed(name)).relevance).lower(x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def counted(name: str, count: int, batch_size: int) -> Callable[..., Any]:
    """A method that evaluates `count` points, `batch_size` of them at once."""
    if name == "occlusion":
        window = {16: 8, 256: 2}[count]
        return B.occlusion(smooth_network, window=window, batch_size=batch_size)
    option = "n_steps" if name == "integrated_gradients" else "n_samples"
    return getattr(B, name)(smooth_network, batch_size=batch_size, **{option: count})


@pytest.mark.parametrize("name", CHUNKED)
def test_memory_is_that_of_a_batch(name: str):
    few, many, wide = (
        temporary_bytes(counted(name, count, batch_size), name)
        for count, batch_size in [(16, 2), (256, 2), (256, 32)]
    )
    # Sixteen times the points: 16 more bytes for each, their index and weight, and no more.
    assert many <= few + 16 * 240, (few, many)
    # And the measure measures: with sixteen times the batch there is far more.
    assert wide > 8 * few, (few, wide)


@pytest.mark.parametrize("name", CHUNKED)
def test_batches_do_not_change_the_result(name: str):
    x = np.kron(IMAGES, np.ones((1, 2, 2, 1)))[:, :8, :8]
    results = [
        jax.jit(counted(name, 16, batch_size))(x, target=LABELS, **keyed(name)).relevance
        for batch_size in (5, 100)
    ]
    close(results[1], results[0], rtol=1e-12)


def test_what_fills_the_last_batch_counts_for_nothing():
    # Three rounds of four are twelve terms, two of them too many: they must not be evaluated
    # beyond the last, where a term may not be finite.
    def term(i: jax.Array) -> dict[str, jax.Array]:
        return {"a": jnp.where(i < 10, i.astype(jnp.float64), jnp.nan)}

    total = weighted_sum(term, np.arange(10.0), 4)
    assert float(total["a"]) == 285.0  # the sum of the squares below ten


def test_a_jitted_function_stays_jitted():
    calls = []

    @jax.jit
    def function(x: jax.Array) -> jax.Array:
        calls.append(1)
        return (x**2).sum()

    explain = B.gradient(function)
    assert [explain(array(x)).relevance.tolist() for x in (1.0, 2.0)] == [[2.0], [4.0]]
    assert len(calls) == 1


# --- gradient, input times gradient ---------------------------------------------------------------


def products(x: jax.Array) -> jax.Array:
    """(x0 x1, x1^2)."""
    return jnp.stack([x[..., 0] * x[..., 1], x[..., 1] ** 2], axis=-1)


def test_gradient_by_hand():
    explain = B.gradient(products)
    assert explain(array(2, -3), target=0).relevance.tolist() == [-3, 2]
    assert explain(array(2, -3), target=1).relevance.tolist() == [0, -6]
    assert explain(array(2, -3), target=array(10, 1)).relevance.tolist() == [-30, 14]
    batch = explain(array([2, -3], [4, 5]), target=jnp.array([1, 0]))
    assert batch.relevance.tolist() == [[0, -6], [5, 4]]


def test_input_x_gradient_by_hand():
    # Quadratic: twice the output.
    explain = B.input_x_gradient(products)
    assert explain(array(2, -3), target=0).relevance.tolist() == [-6, -6]
    assert explain(array(2, -3), target=1).relevance.tolist() == [0, 18]


def test_input_x_gradient_is_lrp_0_of_a_relu_network():
    def network(x: jax.Array) -> jax.Array:
        return jax.nn.relu(conv(x)).mean(axis=(1, 2)) @ jnp.asarray(HEAD)

    ours = B.input_x_gradient(network)(IMAGES, target=LABELS).relevance
    rules = lrp.composites.by_kind(("conv", "dense"), lrp.LRP0())
    theirs = lrp.explain(network, rules)(IMAGES, target=LABELS).relevance
    close(ours, theirs)
    score = np.asarray(network(jnp.asarray(IMAGES)))[np.arange(3), LABELS]
    close(ours.sum(axis=(1, 2, 3)), score)


def test_targets_are_settled_at_the_input():
    # f = (x, 1 - x). At x = 2 class 0 is predicted; below x = 1/2 it would be class 1.
    explain = B.integrated_gradients(lambda x: jnp.concatenate([x, 1 - x], axis=-1), n_steps=8)
    result = explain(array([2.0]), target=lrp.targets.predicted)
    close(result.relevance, [[2.0]], rtol=1e-14)
    # c = 5 f(x) = (10, -5): s(x) - s(0) = 10 (2 - 0) - 5 (-1 - 1) = 30.
    close(explain(array([2.0]), target=lambda z: 5 * z).relevance, [[30.0]], rtol=1e-14)
    # With x taken away, f = (0, 1), the score 2 of class 0 is lost; of class 1 it would be -2.
    removed = B.occlusion(lambda x: jnp.concatenate([x, 1 - x], axis=-1), window=1, axes=(1,))
    assert removed(array([2.0]), target=lrp.targets.predicted).relevance.tolist() == [[2.0]]


def test_a_pytree_and_several_arguments():
    def function(inputs: dict[str, jax.Array], z: jax.Array) -> jax.Array:
        return inputs["a"] @ array([2.0], [-1.0]) + inputs["b"] ** 2 + z * inputs["b"]

    inputs = {"a": array([3.0, 4.0]), "b": array([5.0])}
    z = array([7.0])
    result = B.input_x_gradient(function)(inputs, z)  # b: 5 (2 * 5 + 7)
    assert jax.tree.map(lambda r: r.tolist(), result.relevance) == {"a": [[6, -4]], "b": [[85]]}
    both = B.integrated_gradients(function, argnums=(0, 1), n_steps=3)(inputs, z)
    # b^2 + z b on the line from zero: b (b + z / 2) = 42.5 and z b / 2 = 17.5.
    close(both.relevance[0]["a"], [[6, -4]])
    close(both.relevance[0]["b"], [[42.5]])
    close(both.relevance[1], [[17.5]])
    # From (a, b, z) = (1, 5, 7): only a has moved.
    start = ({"a": 1.0, "b": 5.0}, 7.0)
    moved = B.integrated_gradients(function, argnums=(0, 1), baseline=start)(inputs, z).relevance
    close(moved[0]["a"], [[4, -3]])
    assert moved[0]["b"].tolist() == [[0.0]]
    assert moved[1].tolist() == [[0.0]]


def test_complex_arguments():
    # s = |z|^2, and the derivative of s along z itself is 2 |z|^2; its integral from zero |z|^2.
    z = jnp.asarray([3 + 4j, 1 - 2j])

    def power(z: jax.Array) -> jax.Array:
        return (jnp.real(z) ** 2 + jnp.imag(z) ** 2).sum()

    times = B.input_x_gradient(power)(z).relevance
    assert times.dtype == jnp.float64
    close(times, [50, 10])
    close(B.integrated_gradients(power, n_steps=2)(z).relevance, [25, 5])
    # s = 3 Re z - 2 Im z is linear over the reals: each z brings its own value, of either sign.
    linear = B.input_x_gradient(lambda z: (3 * jnp.real(z) - 2 * jnp.imag(z)).sum())
    close(linear(z).relevance, [1, 7])
    close(linear(1j * z).relevance, [-18, 4])


# --- integrated gradients -------------------------------------------------------------------------


def test_integrated_gradients_of_powers():
    # s = x^4 separates: R = x^4 - b^4. Its derivative has degree 3, for which two points suffice.
    def function(x: jax.Array) -> jax.Array:
        return (x**4).sum()

    explain = B.integrated_gradients(function, n_steps=2, baseline=array(1.0, -1.0, 0.0))
    close(explain(array(2.0, 3.0, 0.5)).relevance, [15, 80, 0.0625], rtol=1e-13)


@pytest.mark.parametrize(
    ("method", "steps", "expected"),
    [
        ("midpoint", 1, 9.0),  # 3 * 2 * (3 / 2), exact for a quadratic
        ("right", 1, 18.0),  # 3 * 2 * 3
        ("right", 2, 13.5),  # 3 * 2 * (3 / 2 + 3) / 2
        ("gauss-legendre", 1, 9.0),
    ],
)
def test_integrated_gradients_where_the_points_lie(method: Any, steps: int, expected: float):
    explain = B.integrated_gradients(lambda x: (x**2).sum(), n_steps=steps, method=method)
    close(explain(array(3.0)).relevance, [expected], rtol=1e-14)


@pytest.mark.parametrize(
    "baseline",
    [0.0, 0.5, np.float64(0.5), np.array([0.3, -0.2]), IMAGES[:1] * 0.4, np.flip(IMAGES, 0)],
    ids=["zero", "number", "scalar", "channels", "image", "images"],
)
def test_integrated_gradients_are_complete(baseline: Any):
    # This network has no kinks: the error is 1e-11 with 8 points, and rounding with 16.
    explain = jax.jit(B.integrated_gradients(smooth_network, n_steps=16, baseline=baseline))
    relevance = explain(IMAGES, target=LABELS).relevance
    from_ = jnp.asarray(np.broadcast_to(baseline, IMAGES.shape))
    difference = smooth_network(jnp.asarray(IMAGES)) - smooth_network(from_)
    close(relevance.sum(axis=(1, 2, 3)), np.asarray(difference)[np.arange(3), LABELS], rtol=1e-12)


def test_integrated_gradients_in_bfloat16_add_up_in_float32():
    # 2048 terms of 3 / 2048, one by one: a sum in bfloat16 would not grow beyond one half.
    explain = B.integrated_gradients(
        lambda x: (3 * x).sum(), n_steps=2048, method="midpoint", batch_size=1
    )
    assert explain(jnp.ones(2, jnp.bfloat16)).relevance.tolist() == [3.0, 3.0]


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 5, 32])
def test_smooth_grad_of_a_linear_function_is_its_weights(samples: int):
    w = np.array([[2.0, -1.0], [1.0, 3.0], [0.5, 7.0]])
    explain = B.smooth_grad(lambda x: x @ w, n_samples=samples, batch_size=4)
    x = array([1.0, 2.0, 4.0], [0.0, -5.0, 3.0])
    expected = [[-1.0, 3.0, 7.0], [2.0, 1.0, 0.5]]
    close(explain(x, target=jnp.array([1, 0]), key=KEY).relevance, expected, rtol=1e-15)
    explain = B.smooth_grad(lambda x: x @ w, n_samples=samples, batch_size=4, times_input=True)
    expected = [[-1.0, 6.0, 28.0], [0.0, -5.0, 1.5]]
    close(explain(x, target=jnp.array([1, 0]), key=KEY).relevance, expected, rtol=1e-15)


def half_square(x: jax.Array) -> jax.Array:
    """Its gradient is x itself: SmoothGrad is then the mean of the noisy copies."""
    return (x**2).sum(axis=tuple(range(1, x.ndim))) / 2


def test_noise_is_a_fraction_of_the_range_of_each_example():
    # Ranges 4, 40 and 0; noise 0.1; the mean of 4 copies has half the deviation. The deviation of
    # 5000 numbers is known to 1 %; five of its standard errors are allowed.
    x = np.stack([np.linspace(-1, 3, 5000), np.linspace(10, 50, 5000), np.full(5000, 6.0)])
    relevance = B.smooth_grad(half_square, n_samples=4, noise=0.1)(
        jnp.asarray(x), key=KEY
    ).relevance
    deviation = np.asarray(relevance - x).std(axis=1)
    np.testing.assert_allclose(deviation[:2], [0.2, 2.0], rtol=0.05)
    assert abs(np.asarray(relevance - x)[0].mean()) < 5 * 0.2 / np.sqrt(5000)
    np.testing.assert_allclose(relevance[2], x[2], rtol=1e-14)
    # As one example its range is 51: -1 to 50.
    alone = B.smooth_grad(lambda x: (x**2).sum() / 2, n_samples=4, noise=0.1, batch_axis=None)
    deviation = np.asarray(alone(jnp.asarray(x), key=KEY).relevance - x).std()
    np.testing.assert_allclose(deviation, 2.55, rtol=0.03)


def test_smooth_grad_smooths():
    # s = x^3: E[3 (x + sigma e)^2] = 3 x^2 + 3 sigma^2, with sigma = 0.5 * 2. Of 20000 samples, the
    # standard error at x = 1 is sqrt(36 + 18) / sqrt(20000) = 0.052: five of them.
    explain = B.smooth_grad(
        lambda x: (x**3).sum(), n_samples=20000, noise=0.5, batch_size=2000, batch_axis=None
    )
    relevance = explain(array(-1.0, 0.0, 1.0), key=KEY).relevance
    np.testing.assert_allclose(relevance, [6.0, 3.0, 6.0], atol=0.26)


@pytest.mark.parametrize("noise", [0.0, 0, np.float32(0.0)])
def test_without_noise_smooth_grad_is_the_gradient(noise: Any):
    smoothed = B.smooth_grad(smooth_network, n_samples=3, noise=noise)(IMAGES, target=1, key=KEY)
    exact = B.gradient(smooth_network)(IMAGES, target=1)
    close(smoothed.relevance, exact.relevance, rtol=1e-13)


def test_smooth_taylor_of_a_linear_function():
    # R = (x - mean z) w, and SmoothGrad of x^2 / 2 tells the mean z of the same key.
    w = np.linspace(-2.0, 3.0, 7)
    x = jnp.asarray(np.sin(np.arange(14.0)).reshape(2, 7))
    mean = B.smooth_grad(half_square, n_samples=6)(x, key=KEY).relevance
    assert float(jnp.abs(x - mean).max()) > 0.01
    explain = B.smooth_taylor(lambda x: x @ w[:, None], n_samples=6)
    result = explain(x, key=KEY)
    close(result.relevance, np.asarray(x - mean) * w, rtol=1e-12)
    # ... which sums to s(x) - mean s(z).
    close(result.relevance.sum(axis=1), (np.asarray(x) - np.asarray(mean)) @ w, rtol=1e-12)


def test_smooth_taylor_of_a_quadratic_function():
    # s = a x^2 / 2: (x - z) a z = -sigma e a (x + sigma e), on average -a sigma^2 = -4 a, with
    # sigma = 2. At x = 10, a = 1 a term deviates by sigma sqrt(x^2 + 2 sigma^2) = 20.8: five
    # standard errors of 40000 samples are 0.52.
    a = np.array([1.0, -2.0])
    explain = B.smooth_taylor(
        lambda x: (a * x**2).sum() / 2, n_samples=40000, noise=0.2, batch_size=4000, batch_axis=None
    )
    relevance = explain(array(10.0, 0.0), key=KEY).relevance
    np.testing.assert_allclose(relevance, [-4.0, 8.0], atol=0.52)


@pytest.mark.parametrize("name", SAMPLED)
def test_keys(name: str):
    explain = jax.jit(METHODS[name](smooth_network))

    def relevance(key: Any, x: Any = IMAGES, target: Any = LABELS) -> np.ndarray:
        return np.asarray(explain(x, target=target, key=key).relevance)

    first = relevance(jax.random.key(1))
    np.testing.assert_array_equal(first, relevance(jax.random.key(1)))
    assert np.abs(first - relevance(jax.random.key(2))).max() > 1e-4
    # An example does not depend on the others of the batch, and no two have the same noise.
    others = np.concatenate([IMAGES[:1], np.flip(IMAGES[:2])])
    close(relevance(jax.random.key(1), others)[0], first[0], rtol=1e-12)
    same = relevance(jax.random.key(1), np.repeat(IMAGES[:1], 3, 0), np.repeat(LABELS[:1], 3))
    assert min(np.abs(same[i] - same[i - 1]).max() for i in range(3)) > 1e-4
    # One key for each example.
    keys = jax.random.split(jax.random.key(3), 3)
    close(relevance(keys[::-1], IMAGES[::-1], LABELS[::-1])[::-1], relevance(keys), rtol=1e-12)


def test_legacy_keys():
    explain = B.smooth_grad(half_square, n_samples=2)
    x = jnp.asarray(np.sin(np.arange(6.0)).reshape(2, 3))
    for key, legacy in [
        (jax.random.key(1), jax.random.PRNGKey(1)),
        (jax.random.split(KEY, 2), jax.random.key_data(jax.random.split(KEY, 2))),
    ]:
        ours, theirs = explain(x, key=key), explain(x, key=legacy)
        np.testing.assert_array_equal(ours.relevance, theirs.relevance)
        assert float(jnp.abs(ours.relevance - x).max()) > 1e-3


def test_noise_differs_between_samples_and_between_arrays():
    # Mean of 64 independent copies: an eighth of the deviation, not all of it.
    x = {"a": jnp.linspace(0.0, 1.0, 4000)[None], "b": jnp.linspace(0.0, 1.0, 4000)[None]}
    explain = B.smooth_grad(
        lambda x: half_square(x["a"]) + half_square(x["b"]), n_samples=64, noise=1.0
    )
    relevance = explain(x, key=KEY).relevance
    a, b = (np.asarray(relevance[name] - x[name]).ravel() for name in "ab")
    np.testing.assert_allclose([a.std(), b.std()], 0.125, rtol=0.06)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(4000)


def test_the_batch_axis_may_be_any():
    def function(x: jax.Array) -> jax.Array:  # (time, batch) -> (time, batch)
        return jnp.cumsum(x**2, axis=0)

    x = np.sin(np.arange(12.0)).reshape(4, 3)
    weights = np.cos(np.arange(12.0)).reshape(4, 3)
    keys = jax.random.split(KEY, 3)
    across = B.smooth_taylor(function, batch_axis=1, n_samples=3)
    along = B.smooth_taylor(lambda x: function(x.T).T, batch_axis=0, n_samples=3)
    close(
        across(x, target=weights, key=keys).relevance.T,
        along(x.T, target=weights.T, key=keys).relevance,
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize(
    ("options", "key", "error", "match"),
    [
        ({}, None, TypeError, r"smooth_\w+ draws random numbers: pass key=jax\.random\.key"),
        ({}, 3, TypeError, r"key must be one random key such as jax.random.key\(0\), got 3"),
        ({}, np.zeros(3), TypeError, r"key must be one random key such as"),
        ({}, "two", ValueError, r"one random key, or one for each of 3 examples, got keys of shape \(2,\)"),
        ({"n_samples": 0}, KEY, ValueError, r"n_samples must be an integer >= 1, got 0"),
        ({"n_samples": 2.0}, KEY, ValueError, r"n_samples must be an integer >= 1, got 2\.0"),
        ({"n_samples": True}, KEY, ValueError, r"n_samples must be an integer >= 1, got True"),
        ({"batch_size": 0}, KEY, ValueError, r"batch_size must be an integer >= 1, got 0"),
        ({"noise": "0.1"}, KEY, TypeError, r"noise must be a number or an array, got the string '0\.1'"),
        ({"noise": -0.1}, KEY, ValueError, r"noise must be >= 0, got -0\.1"),
        ({"noise": float("nan")}, KEY, ValueError, r"noise must be >= 0, got nan"),
        ({"batch_axis": -1}, KEY, TypeError, r"batch_axis must be an integer >= 0 or None, got -1"),
        ({"batch_axis": 1}, KEY, ValueError, r"\(3, 6, 5, 2\), .* \(3, 3\), must have the same"),
        ({"batch_axis": 2}, KEY, ValueError, "along batch_axis=2; pass batch_axis=None for a"),
    ],
)  # fmt: skip
def test_noise_is_refused(name: str, options: dict, key: Any, error: Any, match: str):
    key = jax.random.split(KEY, 2) if isinstance(key, str) else key
    with pytest.raises(error, match=match):
        METHODS[name](smooth_network, **options)(IMAGES, target=0, key=key)


def test_several_keys_for_one_example_are_refused():
    explain = B.smooth_grad(lambda x: x.sum(), batch_axis=None)
    with pytest.raises(ValueError, match=r"key must be one random key, got keys of shape \(2,\)"):
        explain(array(1.0, 2.0), key=jax.random.split(KEY, 2))


def test_one_number_has_no_range():
    with pytest.raises(
        ValueError, match=r"shape \(2,\), has one number per example, so there is no range"
    ):
        B.smooth_grad(lambda x: x**2)(array(1.0, 2.0), key=KEY)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("occlusion", "grad_cam")]
)
def test_integers_have_no_gradient(name: str):
    with pytest.raises(TypeError, match="floating-point, got dtype int64; explain"):
        METHODS[name](lambda x: x)(np.arange(6).reshape(2, 3), target=0, **keyed(name))


@pytest.mark.parametrize("name", SAMPLED)
def test_complex_numbers_have_no_range(name: str):
    with pytest.raises(TypeError, match="must be real and floating-point, got dtype complex128"):
        METHODS[name](lambda x: jnp.abs(x))(np.ones((2, 3), complex), target=0, key=KEY)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_steps": 0}, r"n_steps must be an integer >= 1, got 0"),
        ({"batch_size": 1.5}, r"batch_size must be an integer >= 1, got 1\.5"),
        ({"method": "left"}, r"'gauss-legendre', 'midpoint' or 'right', got 'left'"),
        ({"baseline": np.zeros(3)}, r"baseline of shape \(3,\) does not broadcast to .* \(3, 6,"),
        ({"baseline": np.zeros((1, 3, 6, 5, 2))}, r"baseline of shape \(1, 3, 6, 5, 2\) does not"),
        ({"baseline": [0.0, 0.0]}, r"baseline must be a number or have the structure of the"),
    ],
)  # fmt: skip
def test_integrated_gradients_refuse(options: dict, match: str):
    with pytest.raises(ValueError, match=match):
        B.integrated_gradients(smooth_network, **options)(IMAGES, target=0)


# --- occlusion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["remove", "keep"])
@pytest.mark.parametrize(
    ("window", "stride", "rows", "columns"),
    [
        (2, None, [0, 2, 4], [0, 2, 3]),  # of six rows and five columns: the last window moves back
        ((3, 2), (2, 1), [0, 2, 3], [0, 1, 2, 3]),
        ((6, 5), 3, [0], [0]),
        (1, 1, range(6), range(5)),
    ],
)
def test_occlusion_window_by_window(mode: Any, window: Any, stride: Any, rows: Any, columns: Any):
    height, width = window if isinstance(window, tuple) else (window, window)
    value = np.array([0.3, -0.7])
    score = jax.jit(lambda x: smooth_network(x)[np.arange(3), LABELS])
    total, count = np.zeros((3, 6, 5)), np.zeros((6, 5))
    for i, j in itertools.product(rows, columns):
        x = IMAGES.copy() if mode == "remove" else np.broadcast_to(value, IMAGES.shape).copy()
        here = np.s_[:, i : i + height, j : j + width]
        x[here] = value if mode == "remove" else IMAGES[here]
        s = np.asarray(score(x)) if mode == "keep" else np.asarray(score(IMAGES) - score(x))
        total[here] += s[:, None, None]
        count[here[1:]] += 1
    options = {"window": window, "stride": stride, "value": value, "mode": mode, "batch_size": 4}
    relevance = jax.jit(B.occlusion(smooth_network, **options))(IMAGES, target=LABELS).relevance
    close(relevance, np.repeat((total / count)[..., None], 2, axis=-1))


def test_occlusion_of_a_linear_function_by_hand():
    # Windows at 0, 2 and 3 of five entries; x w = [1, -4, 6, 20, 5].
    w = np.array([1.0, 2.0, -3.0, 5.0, 1.0])
    x = array([1.0, -2.0, -2.0, 4.0, 5.0])
    explain = B.occlusion(lambda x: x @ w, window=2, axes=(-1,))
    assert explain(x).relevance.tolist() == [[-3.0, -3.0, 26.0, 25.5, 25.0]]
    # Behind ones instead of zeros: x - 1 = [0, -3, -3, 3, 4], times w = [0, -6, 9, 15, 4].
    explain = B.occlusion(lambda x: x @ w, window=2, axes=(1,), value=1.0)
    assert explain(x).relevance.tolist() == [[-6.0, -6.0, 24.0, 21.5, 19.0]]


def test_occlusion_of_tokens():
    table = np.array([0.0, 1.0, 10.0, 100.0])

    def function(tokens: jax.Array) -> jax.Array:
        return jnp.asarray(table, jnp.float32)[tokens].sum(axis=1)

    tokens = np.array([[3, 1, 2], [0, 2, 2]])
    result = B.occlusion(function, window=1, axes=(1,))(tokens)
    assert result.relevance.tolist() == [[100.0, 1.0, 10.0], [0.0, 10.0, 10.0]]
    assert result.relevance.dtype == jnp.float32
    masked = B.occlusion(function, window=1, axes=(1,), value=1)(tokens)
    assert masked.relevance.tolist() == [[99.0, 0.0, 9.0], [-1.0, 9.0, 9.0]]


def test_occlusion_of_several_outputs_scores_their_sum():
    def function(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"a": 2 * x["in"], "b": x["in"] ** 2}

    weights = {"a": array([1.0, 1.0], [0.0, 0.0]), "b": array([0.0, 1.0], [1.0, 0.0])}
    explain = B.occlusion(function, window=1, axes=(1,))
    relevance = explain({"in": array([3.0, 4.0], [5.0, 6.0])}, target=weights).relevance
    assert relevance["in"].tolist() == [[6.0, 24.0], [25.0, 0.0]]


def pair(x: Any) -> Any:
    return x["a"] + x["b"]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"window": 7}, ValueError, r"window must be <= 6, the length of axis 1 of the input, .* got 7"),
        ({"window": (2, 6)}, ValueError, r"window must be <= 5, the length of axis 2 of .* got 6"),
        ({"window": 2, "stride": 3}, ValueError, r"stride must be <= window \(2\), got 3: entries"),
        ({"window": 0}, ValueError, r"window must be an integer >= 1, got 0"),
        ({"window": "2"}, ValueError, r"window must be one integer, .* got '2'"),
        ({"window": 2, "axes": 1}, TypeError, r"axes must be a sequence such as \(1, 2\), got 1"),
        ({"window": 2, "value": "black"}, TypeError, r"value must be a number .* got the string 'black'"),
        ({"window": 2, "stride": 0}, ValueError, r"stride must be an integer >= 1, got 0"),
        ({"window": (2, 2, 2)}, ValueError, r"window must be one .* axes \(1, 2\), got \(2, 2, 2\)"),
        ({"window": 2, "axes": (1, 4)}, ValueError, r"axes must be distinct axes of .* got \(1, 4\)"),
        ({"window": 2, "axes": (1, 1)}, ValueError, r"axes must be distinct axes .* got \(1, 1\)"),
        ({"window": 2, "axes": ()}, ValueError, r"axes must be distinct axes .* got \(\)"),
        ({"window": 2, "axes": (0, 1)}, ValueError, r"other than its batch_axis=0"),
        ({"window": 2, "batch_size": 0}, ValueError, r"batch_size must be an integer >= 1, got 0"),
        ({"window": 2, "mode": "hide"}, ValueError, r"mode must be 'remove' or 'keep', got 'hide'"),
        ({"window": 2, "argnums": (0,)}, TypeError, r"explains one argument, got argnums=\(0,\)"),
        ({"window": 2, "value": np.zeros(3)}, ValueError, r"value of shape \(3,\) does not"),
        ({"window": 2, "batch_axis": 1}, ValueError, "number of examples along batch_axis=1;"),
    ],
)  # fmt: skip
def test_occlusion_refuses(options: dict, error: Any, match: str):
    with pytest.raises(error, match=match):
        B.occlusion(smooth_network, **options)(IMAGES, target=0)


def test_occlusion_explains_one_array():
    with pytest.raises(TypeError, match="occlusion explains one array, got the pytree"):
        B.occlusion(pair, window=1, axes=(1,))({"a": np.ones((2, 3)), "b": np.ones((2, 3))})


def test_an_output_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 6, 5, 2\), and the output, of shape \(\)"):
        B.occlusion(lambda x: x.sum(), window=2)(IMAGES)


# --- Grad-CAM -------------------------------------------------------------------------------------

PATCH = np.sin(np.arange(2 * 2 * 2 * 3) * 1.3).reshape(2, 2, 2, 3)
READ = 10 * np.cos(np.arange(3 * 2 * 3 * 4) * 0.7).reshape(3 * 2 * 3, 4)
TALL = np.sin(np.arange(2 * 6 * 4 * 2) * 0.37).reshape(2, 6, 4, 2)


def seen(x: jax.Array) -> jax.Array:
    """A convolution of 2x2 patches, ReLU, and a linear read-out: (batch, 6, 4, 2) to (batch, 4)."""
    x = lax.conv_general_dilated(x, jnp.asarray(PATCH), (2, 2), "VALID", dimension_numbers=NHWC)
    return jax.nn.relu(x).reshape(x.shape[0], -1) @ READ


def seen_by_hand(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(activations, map without ReLU): the gradient of a linear read-out is its column."""
    patches = TALL.reshape(2, 3, 2, 2, 2, 2)  # batch, row, in row, column, in column, channel
    activation = np.maximum(np.einsum("niajbc,abck->nijk", patches, PATCH), 0)
    gradient = READ[:, target].T.reshape(2, 3, 2, 3)
    weights = gradient.mean(axis=(1, 2))
    return activation, np.einsum("bijk,bk->bij", activation, weights)


@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_by_hand(relu: bool):
    target = np.array([1, 0])
    _, cam = seen_by_hand(target)
    assert (cam > 0.01).any()
    assert (cam < -0.01).any()  # so that the ReLU of the map shows
    cam = np.maximum(cam, 0) if relu else cam
    explain = B.grad_cam(seen, "relu", resize=None, relu=relu)
    close(explain(TALL, target=target).relevance, cam)
    # "nearest", to twice the size: each position becomes a square, in both channels.
    explain = B.grad_cam(seen, "relu", resize="nearest", relu=relu)
    grown = np.kron(cam, np.ones((1, 2, 2)))
    close(explain(TALL, target=target).relevance, np.repeat(grown[..., None], 2, axis=-1))


def test_grad_cam_at_the_convolution_is_before_the_relu():
    # There the gradient is zero where the ReLU is off, and the activation is below zero.
    activation, _ = seen_by_hand(np.array([1, 0]))
    patches = TALL.reshape(2, 3, 2, 2, 2, 2)
    before = np.einsum("niajbc,abck->nijk", patches, PATCH)
    gradient = READ[:, [1, 0]].T.reshape(2, 3, 2, 3) * (activation > 0)
    cam = np.einsum("bijk,bk->bij", before, gradient.mean(axis=(1, 2)))
    explain = B.grad_cam(seen, "conv_general_dilated", resize=None, relu=False)
    close(explain(TALL, target=np.array([1, 0])).relevance, cam)


def test_grad_cam_is_resized_linearly():
    # From two positions a, b to four, whose centers lie at -1/4, 1/4, 3/4, 5/4 of the way.
    kernel = np.ones((2, 1, 1))

    def function(x: jax.Array) -> jax.Array:  # (batch, 4, 1) to (batch, 1)
        numbers = ("NHC", "HIO", "NHC")
        x = lax.conv_general_dilated(
            x, jnp.asarray(kernel), (2,), "VALID", dimension_numbers=numbers
        )
        return x.mean(axis=1)

    x = array([[1.0], [2.0], [3.0], [8.0]])  # a = 3, b = 11, and a weight of one half
    relevance = B.grad_cam(function, "conv_general_dilated")(x).relevance
    close(relevance[0, :, 0], [1.5, 0.75 * 1.5 + 0.25 * 5.5, 0.25 * 1.5 + 0.75 * 5.5, 5.5])


def test_grad_cam_with_channels_first_and_one_example():
    activation, _ = seen_by_hand(np.array([1, 0]))
    cam = np.einsum("ijk,k->ij", activation[0], READ[:, 1].reshape(6, 3).mean(axis=0))

    def one(x: jax.Array) -> jax.Array:
        """(2, 6, 4) to (4,): the same network with channels first, of one example."""
        x = lax.conv_general_dilated(
            x[None], jnp.asarray(PATCH), (2, 2), "VALID", dimension_numbers=("NCHW", "HWIO", "NCHW")
        )
        return jnp.moveaxis(jax.nn.relu(x[0]), 0, -1).ravel() @ READ

    options = {"channel_axis": 0, "batch_axis": None, "relu": False, "resize": "nearest"}
    relevance = B.grad_cam(one, "relu", **options)(np.moveaxis(TALL[0], -1, 0), target=1).relevance
    close(relevance, np.broadcast_to(np.kron(cam, np.ones((2, 2))), (2, 6, 4)))
    # The convolution itself sees a batch of one, which is an axis too many.
    with pytest.raises(
        ValueError, match=r"shape \(2, 6, 4\), must have the axes .* \(1, 3, 3, 2\)"
    ):
        B.grad_cam(one, "conv_general_dilated", **options)(np.moveaxis(TALL[0], -1, 0), target=1)


def scanned(x: jax.Array) -> jax.Array:
    def step(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ kernel), None

    kernels = jnp.asarray(np.sin(np.arange(12.0)).reshape(3, 2, 2))
    return lax.scan(step, x, kernels)[0].mean(axis=(1, 2))


def branched(x: jax.Array) -> jax.Array:
    return lax.cond(x.sum() > 0, jnp.tanh, jnp.sin, x).mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("function", "layer", "options", "error", "match"),
    [
        (seen, "rleu", {}, ValueError, r"there is no layer 'rleu': the nearest are 'relu'"),
        (seen, "conv*", {}, ValueError, r"no layer 'conv\*': the nearest are 'conv_general"),
        (seen, 3, {}, TypeError, r"layer must be the path of a layer \(a string\), got 3"),
        (seen, "dot_general", {}, ValueError, r"'dot_general', of shape \(2, 4\), has no"),
        (seen, "relu", {"channel_axis": 0}, ValueError, "besides batch_axis=0 and channel_axis=0;"),
        (seen, "relu", {"channel_axis": 4}, ValueError, "channel_axis=4 is not an axis of layer 'relu'"),
        (seen, "relu", {"batch_axis": -5}, ValueError, "batch_axis=-5 is not an axis of layer 'relu'"),
        (scanned, "tanh", {}, lrp.UnsupportedError, "'tanh' is inside a `scan` and has"),
    ],
)  # fmt: skip
def test_grad_cam_refuses(function: Any, layer: Any, options: dict, error: Any, match: str):
    with pytest.raises(error, match=match):
        B.grad_cam(function, layer, **options)(TALL, target=0)


@pytest.mark.parametrize("taken", ["tanh", "sin"])
def test_grad_cam_in_a_branch(taken: str):
    """In the branch that is taken it is that of the function alone, in the other it is zero."""
    x = jnp.abs(TALL) if taken == "tanh" else -jnp.abs(TALL)
    alone = {"tanh": jnp.tanh, "sin": jnp.sin}[taken]
    expected = B.grad_cam(lambda x: alone(x).mean(axis=(1, 2)), taken, relu=False)(x, target=0)
    other = {"tanh": "sin", "sin": "tanh"}[taken]
    found = {name: B.grad_cam(branched, name, relu=False)(x, target=0) for name in (taken, other)}
    assert np.abs(expected.relevance).max() > 0
    np.testing.assert_allclose(found[taken].relevance, expected.relevance, rtol=1e-6)
    assert not found[other].relevance.any()


def test_grad_cam_refuses_to_resize_what_does_not_fit():
    def patches(x: jax.Array) -> jax.Array:  # an image as a row of its pixels
        x = x.reshape(2, 24, 2) @ jnp.asarray(PATCH[0, 0])
        return jnp.tanh(x).sum(axis=1)

    with pytest.raises(
        ValueError, match=r"shape \(2, 6, 4, 2\), must have the axes .* \(2, 24, 3\)"
    ):
        B.grad_cam(patches, "dot_general")(TALL, target=0)
    assert B.grad_cam(patches, "dot_general", resize=None)(TALL, target=0).relevance.shape == (
        2,
        24,
    )
    with pytest.raises(TypeError, match="one array to resize the map to, got 2; pass"):
        B.grad_cam(lambda x: patches(pair(x)), "dot_general")({"a": TALL, "b": TALL}, target=0)


def test_adaptive_noise_finds_the_minimum_of_each_example():
    """A pattern search on log-parabolas: each example within .5 % of its own minimum, and never worse.

    Without the decay of the rate, steps of a tenth end farther away.
    """
    minima = jnp.array([0.05, 0.3, 2.0])
    found = B.adaptive_noise(
        lambda noise: jnp.log(noise / minima) ** 2, jnp.full(3, 0.3), iterations=80
    )
    np.testing.assert_allclose(found.noise, minima, rtol=0.005)
    np.testing.assert_array_equal(found.history.min(axis=0), found.history[-1])
    assert (jnp.diff(found.history, axis=0) <= 0).all()
    np.testing.assert_array_equal(found.history[-1], found.score)
    # an example alone finds the same
    alone = B.adaptive_noise(
        lambda noise: jnp.log(noise / minima[1:2]) ** 2, jnp.full(1, 0.3), iterations=80
    )
    np.testing.assert_array_equal(alone.noise, found.noise[1:2])
    undefined = B.adaptive_noise(
        lambda noise: jnp.where(noise > 0.31, jnp.nan, noise), jnp.full(2, 0.3), iterations=3
    )
    assert (undefined.noise < 0.3).all()
    for wrong, message in (
        (lambda: B.adaptive_noise(0.1, jnp.ones(2)), "score must be a function"),
        (lambda: B.adaptive_noise(jnp.sum, jnp.ones(2)), "score must return one number for each"),
        (lambda: B.adaptive_noise(jnp.abs, 0.3), "start must be one number for each example"),
        (lambda: B.adaptive_noise(jnp.abs, jnp.ones(2), rate=1), "rate must be > 0 and < 1"),
        (lambda: B.adaptive_noise(jnp.abs, jnp.ones(2), decay=0), "decay must be > 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            wrong()
