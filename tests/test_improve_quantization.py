"""Quantization: ECQ and ECQx against NumPy, and what follows from the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import improve

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
W = RNG.normal(size=(40, 30))
R = np.abs(RNG.normal(size=W.shape)) ** 2  # relevance: skewed, its mean far below its maximum


def grid(w, bits):
    most = 2 ** (bits - 1) - 1
    return np.percentile(np.abs(w), 99.9) / most * np.arange(-most, most + 1)


def assigned(w, levels, strength, factor=1.0):
    """The index of the cheapest level, as written in the paper."""
    d, middle = levels[1] - levels[0], len(levels) // 2
    nearest = np.abs(w[..., None] - levels).argmin(axis=-1)
    share = np.bincount(nearest.ravel(), minlength=len(levels)) / w.size
    share[middle] = max(share[middle], 0.5)
    with np.errstate(divide="ignore"):
        information = -np.log2(share)
    information[share == 0] = 1e9
    cost = ((w[..., None] - levels) / d) ** 2 + strength * information
    cost[..., middle] *= factor
    return cost.argmin(axis=-1)


def sparsity(index, levels):
    return np.mean(index == len(levels) // 2)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("strength", [0.0, 0.7, 3.0])
def test_ecq_is_the_formula(bits, strength):
    found = improve.ecq(W, bits, strength)
    levels = grid(W, bits)
    np.testing.assert_allclose(found.centroids, levels, rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(found.index, assigned(W, levels, strength))
    assert found.index.dtype == np.uint8
    assert len(found.centroids) == 2**bits - 1
    np.testing.assert_array_equal(found.dense, found.centroids[found.index])


def test_without_strength_each_weight_takes_the_nearest_level():
    found = improve.ecq(W, 4, 0.0)
    inside = np.abs(W) <= float(found.centroids[-1])
    step = float(found.centroids[-1]) / 7
    assert np.abs(np.asarray(found.dense) - W)[inside].max() <= step / 2 + 1e-12


def test_ecqx_at_its_first_exponent_is_the_formula():
    levels, r = grid(W, 4), R / R.max()
    beta = np.log(0.5) / np.log(r.mean())
    expected = assigned(W, levels, 1.5, 2 * r**beta)
    wanted = sparsity(assigned(W, levels, 1.5), levels)
    assert beta < 1
    assert 2 * r.mean() ** beta == pytest.approx(1)
    p = 0.5  # so wide that the exponent stays, if zeros are not more than those of ECQ
    found = improve.ecq(W, 4, 1.5, relevance=-R, p=p)
    if sparsity(expected, levels) <= wanted:
        np.testing.assert_array_equal(found.index, expected)
    else:
        assert float(found.sparsity) <= wanted


@pytest.mark.parametrize("power", [0.5, 1.0, 4.0])  # of relevance: even, to a few weights
@pytest.mark.parametrize("p", [0.02, 0.1])
def test_the_exponent_keeps_the_sparsity_in_its_range(power, p):
    plain = improve.ecq(W, 4, 1.5)
    found = improve.ecq(W, 4, 1.5, relevance=R**power, p=p)
    assert plain.sparsity - p <= found.sparsity <= plain.sparsity
    assert not np.array_equal(found.index, plain.index)
    # what becomes zero is less relevant
    zero, before = (np.asarray(q.dense) == 0 for q in (found, plain))
    assert R[zero].mean() < R[before].mean()


def test_the_exponent_ends_at_one():
    """Relevance is nearly the same everywhere: no exponent up to 1 makes zero cheap enough."""
    levels, r = grid(W, 4), (R / R.max()) ** 0.1
    found = improve.ecq(W, 4, 1.5, relevance=r)
    assert found.sparsity < improve.ecq(W, 4, 1.5).sparsity - 0.1
    np.testing.assert_array_equal(found.index, assigned(W, levels, 1.5, 2 * r))


@pytest.mark.parametrize("value", [0.0, 1.0, 3.7])
def test_constant_relevance_changes_nothing(value):
    found = improve.ecq(W, 4, 1.5, relevance=np.full(W.shape, value))
    np.testing.assert_array_equal(found.index, improve.ecq(W, 4, 1.5).index)


def test_relevance_has_no_units():
    one, other = (improve.ecq(W, 4, 1.5, relevance=R * scale) for scale in (1.0, 1024.0))
    np.testing.assert_array_equal(one.index, other.index)


def test_jit_and_vmap_over_strengths():
    strengths = jnp.array([0.0, 1.0, 2.0])
    together = jax.jit(jax.vmap(lambda s: improve.ecq(W, 4, s, relevance=R)))(strengths)
    for i, strength in enumerate(strengths):
        one = improve.ecq(W, 4, strength, relevance=R)
        np.testing.assert_array_equal(together.index[i], one.index)


def test_entropy_and_bytes_of_a_known_distribution():
    centroids = jnp.arange(-3.0, 4.0)  # 3 bits
    index = jnp.array([3] * 8 + [4] * 4 + [2] * 2 + [0] * 2, jnp.uint8)  # 1/2, 1/4, 1/8, 1/8
    found = improve.Quantized(index, centroids)
    np.testing.assert_allclose(found.entropy, 1.75, rtol=1e-12)
    np.testing.assert_allclose(found.sparsity, 0.5)
    assert found.bits == 3
    assert found.packed_bytes == 16 * 3 // 8 + 7 * 8
    assert found.coded_bytes == 4 + 7 * 8  # 28 bits
    assert improve.Quantized(jnp.zeros(5, jnp.uint8), centroids).entropy == 0


def test_straight_through_is_the_quantized_array_with_derivative_one():
    found = improve.ecq(W, 3, 1.0)
    np.testing.assert_array_equal(improve.straight_through(jnp.asarray(W), found), found.dense)
    weight = RNG.normal(size=W.shape)
    grad = jax.grad(lambda w: (weight * improve.straight_through(w, found)).sum())(jnp.asarray(W))
    np.testing.assert_array_equal(grad, weight)


def test_training_through_it_lowers_the_loss():
    """The weights move although the quantized ones have no derivative."""
    x, w = jnp.asarray(RNG.normal(size=(64, 8))), jnp.asarray(RNG.normal(size=(8, 1)))
    y = x @ (w + 0.7)

    @jax.jit
    def step(w):
        q = improve.ecq(w, 4, 0.05)
        value, g = jax.value_and_grad(
            lambda w: jnp.square(x @ improve.straight_through(w, q) - y).mean()
        )(w)
        return w - 0.05 * g, value

    values = []
    for _ in range(40):
        w, value = step(w)
        values.append(float(value))
    assert min(values[-5:]) < 0.2 * values[0]


def test_momentum_and_strengths():
    new, old = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 0.0])}
    found = improve.relevance_momentum(new, old, momentum=0.25)
    np.testing.assert_allclose(found["w"], [1.5, 1.5])
    assert improve.relevance_momentum(new) is new
    strengths = improve.layer_strengths({"a": np.ones(50), "b": np.ones((10, 10))}, 2.0)
    assert strengths["b"] == pytest.approx(2.0)
    assert strengths["a"] == pytest.approx(2.0 * 0.55 / 1.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: improve.ecq(W, 1, 1.0), "bits must be an integer in 2 to 8, got 1"),
        (lambda: improve.ecq(W, 9, 1.0), "bits must be an integer in 2 to 8, got 9"),
        (lambda: improve.centroids(W, 4.0), "bits must be an integer in 2 to 8, got 4.0"),
        (lambda: improve.ecq(np.array([1.0, np.nan]), 4, 1.0), "w must be finite"),
        (lambda: improve.ecq(np.zeros(4), 4, 1.0), "w must have weights other than zero"),
        (lambda: improve.ecq(W, 4, -1.0), r"strength must be >= 0, got -1\.0"),
        (lambda: improve.ecq(W, 4, 1.0, p=-0.1), r"p must be >= 0, got -0\.1"),
        (lambda: improve.ecq(W, 4, 1.0, relevance=R[:3]), r"shape of w, \(40, 30\), got \(3, 30\)"),
        (lambda: improve.ecq(W, 4, 1.0, relevance=R * np.nan), "relevance must be finite"),
        (lambda: improve.straight_through(jnp.ones(3), improve.ecq(W, 4, 1.0)), r"shape of w, \(3,\)"),
        (lambda: improve.relevance_momentum(R, R, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: improve.layer_strengths({}, 1.0), "at least one array"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantized_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
