"""Virtual inspection layers: transforms, what relevance becomes in them, and what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlrp as lrp
from jaxlrp import baselines, composites, inspection
from jaxlrp.inspection import (
    DCT,
    DFT,
    DFT2,
    PCA,
    STDFT,
    Bands,
    Chain,
    Functions,
    Matrix,
    Segments,
    Wavelet,
    decompose,
    inspect,
)

import dense_transforms as dense
from selection import one_in

pytestmark = pytest.mark.usefixtures("x64")


X = np.array([1, -2, 3, 0.5, -1.5, 2.5, -0.5, 4])
R = np.array([0.2, -0.1, 0.5, 0.3, -0.4, 0.6, 0.1, 0.8])


def noise(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def random_pca(n, k=3):
    return PCA.fit(noise(40, n, seed=7), k)


def frequencies(n):
    return DFT().frequencies(n, 1.0)


def of_all(n):
    """Every transform, for signals of n samples; those without an exact inverse too."""
    return {
        "DFT": DFT(),
        "STDFT": STDFT(16, 8),
        "STDFT, hop 5": STDFT(16, 5, "hann", "ones"),
        "STDFT, whole frames": STDFT(8, 8, "rectangle"),
        "STDFT, global": STDFT(16, 8, form="global"),
        "STDFT, own windows": STDFT(8, 3, np.arange(1.0, 9.0), np.arange(9.0, 1.0, -1.0)),
        "DCT": DCT(),
        "haar": Wavelet("haar"),
        "db4": Wavelet("db4", 2),
        "bior2.2": Wavelet("bior2.2"),
        "sym4, symmetric": Wavelet("sym4", 2, mode="symmetric"),
        "bior3.3, reflect": Wavelet("bior3.3", 1, mode="reflect"),
        "PCA": random_pca(n),
        "Matrix": Matrix(noise(5, n, seed=3)),
        "Functions": Functions(lambda x: jnp.flip(x, -1) * 3.0, lambda z: jnp.flip(z, -1) / 3.0),
        "Segments": Segments(7),
        "bands": Chain(DFT(), Bands.mel(4, frequencies=frequencies(n), low=0.02)),
        "segments, DFT": Chain(Segments(9), DFT()),
    }


NAMES = tuple(of_all(64))
INEXACT = ("PCA", "Matrix")


# --- numbers --------------------------------------------------------------------------------------

# Of these, computed by hand and by a dense construction elsewhere, six digits were written down.
NUMBERS = {
    "dft": (DFT(), [1.332917, -0.494658, 0.135, 0.780491, 0.24625]),
    "rectangle, hop 4": (
        STDFT(4, 4, "rectangle", pad="end"),
        [[0.635417, 0.654167, -0.389583], [0.57, -0.263333, 0.793333]],
    ),
    "rectangle, hop 2": (
        STDFT(4, 2, "rectangle", pad="end"),
        [
            [0.395833, 0.195833, -0.091667],
            [0.71625, -0.2925, 0.07625],
            [0.285, -0.106667, 0.821667],
        ],
    ),
    "half-sine, g=1": (
        STDFT(4, 2, synthesis="ones", pad="end"),
        [
            [0.435713, -0.058875, 0.164583],
            [0.287712, -0.165129, 0.12889],
            [0.486528, -0.15558, 0.876159],
        ],
    ),
    "half-sine, g=w": (
        STDFT(4, 2, pad="end"),
        [
            [0.359622, -0.261417, 0.472505],
            [0.282325, -0.345737, 0.139149],
            [0.441652, -0.135044, 1.046945],
        ],
    ),
    "dct": (
        DCT(),
        [1.332917, -0.20439, -0.399677, 0.15407, 0.12625, 0.006907, 0.813011, 0.170912],
    ),
    "haar": (
        Wavelet("haar", 3),
        [1.332917, -0.1275, 0.58125, -0.316667, 0.225, -0.541667, -0.053333, 0.9],
    ),
    "bior2.2": (
        Wavelet("bior2.2", 1),
        [0.304688, 0.952604, -0.472083, 0.02625, 0.616667, -0.076354, 0.221667, 0.426562],
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    transform, expected = NUMBERS[name]
    found = decompose(transform, X, R, axis=0)
    np.testing.assert_allclose(found.relevance, expected, atol=1e-6)
    np.testing.assert_allclose(found.relevance.sum(), 2.0, rtol=1e-12)


def test_numbers_of_odd_length():
    found = decompose(DFT(), X[:7], R[:7], axis=0)
    np.testing.assert_allclose(
        found.relevance, [0.567143, 0.206664, -0.481997, 0.908189], atol=1e-6
    )


def test_numbers_of_the_global_form():
    found = decompose(STDFT(4, 2, form="global", pad="end"), X, R, axis=0)
    row = [0.347787, 0.011098, -0.10784, 0.640266, -0.349889]
    np.testing.assert_allclose(found.relevance[0], row, atol=1e-6)


def test_real_and_imaginary_parts_apart():
    found = decompose(DFT(), X, R, axis=0)
    # The numbers are those of one of the two bins k and N - k, which are equal.
    h = np.array([1.0, 2.0, 2.0, 2.0, 1.0])
    real = [1.332917, -0.108439, -0.1875, 0.140522, 0.24625]
    imag = [0, -0.13889, 0.255, 0.249724, 0]
    np.testing.assert_allclose(found.real / h, real, atol=1e-6)
    np.testing.assert_allclose(found.imag / h, imag, atol=1e-6)
    np.testing.assert_allclose(found.real + found.imag, found.relevance, rtol=1e-12)


def test_relevance_in_one_half_stays_in_its_frames():
    n = np.arange(256)
    x = np.sin(2 * np.pi * 8 * n / 256 + 0.3) + np.sin(2 * np.pi * 24 * n / 256 + 1.1)
    template = np.where(n >= 128, np.sin(2 * np.pi * 24 * n / 256 + 1.1), 0.0)

    def share(transform):
        r = np.abs(decompose(transform, x, x * template, axis=0).relevance)
        ends = (transform.times(256, 1.0) + (64 - 1) / 2).round()
        return r[ends < 128].sum() / r.sum()

    assert share(STDFT(64, 32, pad="end")) == 0.0
    assert share(STDFT(64, 32)) == 0.0
    whole = share(STDFT(64, 32, form="global", pad="end"))
    np.testing.assert_allclose(whole, 0.4236, atol=5e-5)


def test_leakage_between_bins():
    n = np.arange(256)
    tone = np.sin(2 * np.pi * 20.25 * n / 256)
    found = np.abs(decompose(DFT(), tone, tone * tone, axis=0).relevance)
    # The third digit depends on length and phase.
    np.testing.assert_allclose(found[20] / found.sum(), 0.812, atol=5e-3)
    np.testing.assert_allclose(found[17:24].sum() / found.sum(), 0.975, atol=5e-3)


# --- against dense matrices -----------------------------------------------------------------------


def check_against(transform, pair, x, c):
    analysis, synthesis = pair
    flat_x, flat_c = x.ravel(), c.ravel()
    expected = (analysis @ flat_x) * (synthesis.T @ flat_c)
    axes = tuple(range(x.ndim))
    found = decompose(transform, x, x * c, axis=axes if x.ndim > 1 else 0)
    got = np.ravel(found.relevance)
    if len(expected) == 2 * len(got):
        expected = expected.reshape(2, -1)
        np.testing.assert_allclose(np.ravel(found.imag), expected[1], rtol=1e-10, atol=1e-10)
        expected = expected.sum(axis=0)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@given(n=st.integers(2, 40), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=12)
def test_dft_and_dct_are_the_dense_ones(n, seed):
    x, c = noise(n, seed=seed), noise(n, seed=seed + 100)
    check_against(DFT(), dense.dft(n), x, c)
    check_against(DCT(), dense.dct(n), x, c)


@given(
    n=st.integers(9, 40),
    length=st.integers(2, 9),
    hop=st.integers(1, 9),
    name=st.sampled_from(["rectangle", "half-sine", "hann", "hamming"]),
    ones=st.booleans(),
    both=st.booleans(),
)
@settings(deadline=None, max_examples=20)
def test_stdft_is_the_dense_one(n, length, hop, name, ones, both):
    hop = min(hop, length)
    w = dense.window(name, length)
    pair = dense.stdft(
        n, length, hop, w, np.ones(length) if ones else w, length - hop if both else 0
    )
    x, c = noise(n, seed=n), noise(n, seed=n + 1)
    transform = STDFT(
        length, hop, name, "ones" if ones else "window", pad="both" if both else "end"
    )
    analysis, synthesis = pair
    bins = length // 2 + 1
    expected = ((analysis @ x) * (synthesis.T @ c)).reshape(-1, 2, bins).sum(axis=1)
    found = decompose(transform, x, x * c, axis=0)
    np.testing.assert_allclose(found.relevance, expected, rtol=1e-10, atol=1e-10)
    assert found.relevance.shape == (len(transform.times(n, 1.0)), length // 2 + 1)


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (3, 2)])
def test_dft2_is_the_dense_one(shape):
    check_against(DFT2(), dense.dft2(shape), noise(*shape), noise(*shape, seed=1))


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["haar", "db3", "sym4", "bior2.2", "bior3.5", "coif1"])
@pytest.mark.parametrize("mode", ["periodization", "symmetric", "reflect", "zero"])
@pytest.mark.parametrize("n", one_in(3, [23, 16, 64]))
@pytest.mark.filterwarnings("ignore:Level value")
def test_wavelets_are_those_of_pywavelets(name, mode, n):
    level = 2
    transform = Wavelet(name, level, mode)
    template = pywt.wavedec(np.zeros(n), name, mode, level)
    cuts = np.cumsum([len(part) for part in template])[:-1]

    def forward(x):
        return np.concatenate(pywt.wavedec(x, name, mode, level))

    def inverse(z):
        return pywt.waverec(np.split(z, cuts), name, mode)[:n]

    check_against(transform, dense.of_functions(forward, inverse, n), noise(n), noise(n, seed=1))
    names = ["a2", "d2", "d1"]
    bands = transform.subbands(n)
    assert list(bands) == names
    for part, where in zip(pywt.wavedec(X.repeat(n)[:n], name, mode, level), bands, strict=True):
        got = transform.forward(jnp.asarray(X.repeat(n)[:n]))[bands[where]]
        np.testing.assert_allclose(got, part, atol=1e-12)


def test_own_filters_are_taken_as_they_are():
    bank = pywt.Wavelet("db2").filter_bank
    x = jnp.asarray(noise(16))
    own, named = Wavelet(bank, 2), Wavelet("db2", 2)
    np.testing.assert_array_equal(own.forward(x), named.forward(x))
    assert own == Wavelet(bank, 2)


def test_pca_by_hand():
    pca = PCA(np.array([[0.6, 0.8]]), np.array([1.0, 2.0]))
    # x - mean = [2, 1], z = 2.0, back [1.2, 1.6], missing [.8, -.6]; c = [1, 3]
    found = decompose(pca, np.array([3.0, 3.0]), np.array([3.0, 9.0]), axis=0)
    np.testing.assert_allclose(found.relevance, [2.0 * (0.6 + 3 * 0.8)], rtol=1e-12)
    np.testing.assert_allclose(found.residual, 0.8 - 3 * 0.6, rtol=1e-12)
    np.testing.assert_allclose(found.offset, 1.0 + 3 * 2.0, rtol=1e-12)


def test_pca_of_all_components_leaves_no_residual():
    pca = PCA.fit(noise(40, 8, seed=7))
    found = decompose(pca, X, R, axis=0)
    np.testing.assert_allclose(found.residual, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.relevance.sum() + found.offset, 2.0, rtol=1e-12)


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [64, 77])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_lost(name, n, dtype):
    x, c = noise(3, n, dtype=dtype), noise(3, n, seed=1, dtype=dtype)
    r = x * c
    found = decompose(of_all(n)[name], x, r, axis=-1)
    rest = found.residual + found.offset + found.at_zero
    total = found.relevance.reshape(3, -1).sum(axis=1) + rest
    # White noise: rounding is measured against what is summed, since the sum may happen to be near 0.
    # Wavelet filters are known to 12 digits.
    tolerance = 1e-6 if dtype == np.float32 else 1e-11
    np.testing.assert_array_less(np.abs(total - r.sum(axis=1)), tolerance * np.abs(r).sum(axis=1))
    assert found.relevance.dtype == dtype
    if name in INEXACT:
        assert (np.abs(found.residual) > 1e-3).all()
    else:
        np.testing.assert_array_less(
            np.abs(found.residual), tolerance * np.abs(r).sum(axis=1) + 1e-30
        )


@pytest.mark.parametrize("n", [512, 1023])
def test_long_signals_in_float32(n):
    x, c = noise(2, n, dtype=np.float32), noise(2, n, seed=1, dtype=np.float32)
    for transform in (DFT(), STDFT(128, 32, "hann"), DCT(), Wavelet("bior4.4"), Wavelet("haar")):
        found = decompose(transform, x, x * c, axis=-1)
        total = found.relevance.reshape(2, -1).sum(axis=1) + found.residual
        np.testing.assert_array_less(
            np.abs(total - (x * c).sum(axis=1)), 1e-6 * np.abs(x * c).sum(axis=1)
        )


def mlp(n, width=12):
    w, v = noise(n, width, seed=4) / n**0.5, noise(width, 3, seed=5)
    b = noise(width, seed=6) / 4

    def model(x):
        return jax.nn.relu(x @ w + b) @ v

    return model


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_layer_put_before_the_model(name):
    n = 24
    transform, model = of_all(n)[name], mlp(n)
    x = jnp.asarray(noise(2, n))
    # A matrix before the model is a dense layer like the model's own: both get LRP-0.
    rule = lrp.LRP0() if name in INEXACT else lrp.Epsilon(0.1)
    composite = composites.by_kind("dense", rule)
    found = inspect(model, transform, composite, axis=-1)(x, target=1)
    offset = transform.offset((n,))
    offset = 0.0 if offset is None else offset
    missing = x - offset - transform.inverse(transform.forward(x - offset), (n,))

    def with_layer(z):
        return model(offset + transform.inverse(z, (n,)) + missing)

    z = transform.forward(x - offset)
    expected = lrp.explain(with_layer, composite)(z, target=1)
    # The stabilizing `tiny` of the read-out moves zeros alone; the rest is rounding.
    np.testing.assert_allclose(
        found.relevance, transform.pool(expected.relevance), rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(found.output, model(x), rtol=1e-12)


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_batch_vmap_and_jit(name):
    n = 24
    explain = inspect(mlp(n), of_all(n)[name], axis=-1)
    x = jnp.asarray(noise(3, n))
    together = explain(x, target=0)
    single = [explain(row[None], target=0) for row in x]
    mapped = jax.vmap(lambda row: explain(row, target=0))(x)
    compiled = jax.jit(functools.partial(explain, target=0))(x)
    for part in ("relevance", "residual", "offset", "coefficients"):
        whole = getattr(together, part)
        rows = np.concatenate([getattr(one, part) for one in single])
        np.testing.assert_allclose(whole, rows, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(whole, getattr(mapped, part), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(whole, getattr(compiled, part), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["DFT", "STDFT", "DCT", "bior2.2", "PCA", "bands"])
def test_it_can_be_differentiated(name):
    n = 16
    w = noise(n, 4, seed=4)
    explain = inspect(lambda x: jnp.tanh(x @ w).sum(-1), of_all(n)[name], axis=-1)
    weights = noise(*explain(jnp.asarray(noise(n))).relevance.shape, seed=9)

    def loss(x):
        return (explain(x).relevance * weights).sum()

    x, d = jnp.asarray(noise(n)), jnp.asarray(noise(n, seed=8))
    h = 1e-6
    numeric = (loss(x + h * d) - loss(x - h * d)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(x) @ d, numeric, rtol=1e-6)


@pytest.mark.parametrize("shift", [1, 5, 17])
def test_dft_does_not_see_a_circular_shift(shift):
    x, c = noise(32), noise(32, seed=1)
    still = decompose(DFT(), x, x * c, axis=0).relevance
    moved = decompose(DFT(), np.roll(x, shift), np.roll(x * c, shift), axis=0).relevance
    np.testing.assert_allclose(still, moved, rtol=1e-9, atol=1e-12)


def test_linear_in_relevance():
    x, r, s = noise(32), noise(32, seed=1), noise(32, seed=2)
    for transform in of_all(32).values():
        one, two, both = (
            decompose(transform, x, value, axis=0).relevance for value in (r, s, 2 * r - 3 * s)
        )
        np.testing.assert_allclose(both, 2 * one - 3 * two, rtol=1e-9, atol=1e-9)


def test_biorthogonal_relevance_is_not_that_of_the_analysis_bank():
    x, c = noise(16), noise(16, seed=1)
    transform = Wavelet("bior2.2", 2)
    found = decompose(transform, x, x * c, axis=0)
    wrong = transform.forward(jnp.asarray(x)) * transform.forward(jnp.asarray(c))
    assert np.abs(found.relevance - wrong).max() > 0.1


# --- axes, channels, structure --------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("transform", [DFT(), STDFT(4, 2), Wavelet("haar")], ids=repr)
def test_any_axis(axis, transform):
    x, c = noise(8, 9, 10), noise(8, 9, 10, seed=1)
    found = decompose(transform, x, x * c, axis=axis)
    moved = decompose(
        transform, np.moveaxis(x, axis, -1), np.moveaxis(x * c, axis, -1), axis=-1
    ).relevance
    new = moved.ndim - 2
    place = axis % 3
    expected = np.moveaxis(moved, range(-new, 0), range(place, place + new))
    np.testing.assert_allclose(found.relevance, expected, rtol=1e-12, atol=1e-12)
    assert found.residual.shape == tuple(s for i, s in enumerate(x.shape) if i != place)


def test_names_of_axes():
    x = noise(2, 20, 3)
    found = decompose(STDFT(4, 2), x, x, axis="time", dims="batch time channel")
    assert found.dims == ("batch", "frame", "frequency", "channel")
    by_index = decompose(STDFT(4, 2), x, x, axis=1)
    np.testing.assert_array_equal(found.relevance, by_index.relevance)
    assert by_index.dims is None
    image = noise(2, 6, 8, 3)
    found = decompose(DFT2(), image, image, axis=("y", "x"), dims=["n", "y", "x", "c"])
    assert found.dims == ("n", "vertical frequency", "horizontal frequency", "c")
    assert found.relevance.shape == (2, 6, 5, 3)
    assert found.residual.shape == (2, 3)


def test_two_axes_in_either_order():
    image = noise(6, 8)
    rows_first = decompose(DFT2(), image, image**2, axis=(0, 1)).relevance
    columns_first = decompose(DFT2(), image, image**2, axis=(1, 0)).relevance
    swapped = decompose(DFT2(), image.T, image.T**2, axis=(0, 1)).relevance
    np.testing.assert_allclose(columns_first, swapped, rtol=1e-12, atol=1e-12)
    assert rows_first.shape == (6, 5)


def test_linen_and_nnx_models():
    from flax import linen, nnx

    x = jnp.asarray(noise(2, 32, 1, dtype=np.float32))

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Conv(4, (5,))(x))
            return linen.Dense(3)(x.mean(axis=1))

    variables = Net().init(jax.random.key(0), x)
    found = inspect(Net().apply, DFT(), composites.epsilon_plus(), axis=1, argnums=1)(
        variables, x, target=2
    )
    assert found.relevance.shape == (2, 17, 1)
    model = nnx.Linear(32, 3, rngs=nnx.Rngs(0))
    found = inspect(model, DFT(), axis=-1)(x[..., 0], target=0)
    assert found.relevance.shape == (2, 17)


def test_what_explains_already_is_taken_as_it_is():
    model = mlp(24)
    x = jnp.asarray(noise(2, 24))
    composite = composites.by_kind("dense", lrp.ZPlus())
    expected = inspect(model, DFT(), composite, axis=-1)(x, target=1).relevance
    explain = lrp.explain(model, composite)
    for given_ in (explain, jax.jit(explain)):
        got = inspect(given_, DFT(), axis=-1)(x, target=1).relevance
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    second = lrp.explain(lambda scale, x: scale * model(x), composite, argnums=1)
    bound = inspect(functools.partial(second, 1.0), DFT(), axis=-1)(x, target=1)
    np.testing.assert_allclose(bound.relevance, expected, rtol=1e-9, atol=1e-12)
    recorded = inspect(lrp.explain(model, composite, record="*"), DFT(), axis=-1)(x, target=1)
    assert recorded.explanation.records


def test_baselines_are_read_in_another_domain():
    model = mlp(24)
    x = jnp.asarray(noise(2, 24))
    for method in (
        baselines.input_x_gradient(model),
        baselines.integrated_gradients(model, n_steps=4),
        baselines.occlusion(model, window=3, axes=(1,)),
    ):
        found = inspect(method, DFT(), axis=-1)(x, target=1)
        np.testing.assert_allclose(
            found.relevance.sum(-1), found.explanation.relevance.sum(-1), rtol=1e-9
        )


# --- zeros ----------------------------------------------------------------------------------------


def test_zeros_of_the_input_do_not_hide_the_gradient():
    """x may be zero where its frequencies are not: c is needed there, and R = 0 does not tell it."""
    n = 16
    w = jnp.asarray(noise(n, 1, seed=4))
    t = np.arange(n)
    x = jnp.asarray(np.where(t % 4 == 0, 0.0, noise(n)))
    found = inspect(lambda x: x @ w, DFT(), composites.by_kind("dense", lrp.LRP0()), axis=-1)(x)
    expected = np.array([1, *[2] * 7, 1]) * np.real(
        np.fft.rfft(np.asarray(x)) * np.conj(np.fft.rfft(np.asarray(w)[:, 0])) / n
    )
    np.testing.assert_allclose(found.relevance, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found.at_zero, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", [lrp.Flat(), lrp.WSquare(), lrp.ZBox(-3.0, 3.0)], ids=repr)
def test_relevance_on_zeros_is_reported(rule, dtype):
    n = 16
    w = jnp.asarray(noise(n, 2, seed=4, dtype=dtype))
    x = noise(2, n, dtype=dtype)
    x[:, ::4] = 0.0
    explain = inspect(lambda x: x @ w, DFT(), composites.by_kind("dense", rule), axis=-1)
    found = explain(jnp.asarray(x), target=jnp.ones((2, 2), dtype))
    r = found.explanation.relevance
    assert np.abs(r[:, ::4]).min() > 1e-3
    np.testing.assert_allclose(found.at_zero, r[:, ::4].sum(-1), rtol=1e-5)
    total = found.relevance.sum(-1) + found.residual + found.at_zero
    # c = R / x is large near zero, and what it makes of each frequency cancels in the sum
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(total, r.sum(-1), rtol=rtol)
    assert np.isfinite(found.relevance).all()


def test_floor_counts_small_samples_as_zeros():
    x, r = np.array([1e-9, 2.0, -3.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])
    without = decompose(DFT(), x, r, axis=0)
    assert np.abs(without.relevance).max() > 1e8
    found = decompose(DFT(), x, r, axis=0, floor=1e-6)
    np.testing.assert_allclose(found.at_zero, 1.0)
    np.testing.assert_allclose(found.relevance.sum(), 9.0, rtol=1e-12)
    assert np.abs(found.relevance).max() < 10


def test_silence():
    found = decompose(DFT(), np.zeros(8), np.zeros(8), axis=0)
    np.testing.assert_array_equal(found.relevance, np.zeros(5))
    np.testing.assert_array_equal(found.at_zero, 0.0)


def test_bfloat16_signals_are_read_in_float32():
    x = jnp.asarray(noise(32), jnp.bfloat16)
    r = jnp.asarray(noise(32, seed=1), jnp.bfloat16)
    found = decompose(DFT(), x, r, axis=0)
    assert found.relevance.dtype == jnp.float32
    np.testing.assert_allclose(found.relevance.sum(), r.astype(jnp.float32).sum(), rtol=1e-4)


# --- axes in hertz and seconds --------------------------------------------------------------------


def test_frequencies_and_times():
    np.testing.assert_allclose(DFT().frequencies(8, 16.0), [0, 2, 4, 6, 8])
    np.testing.assert_allclose(DFT().frequencies(5, 10.0), [0, 2, 4])
    np.testing.assert_allclose(DCT().frequencies(4, 8.0), [0, 1, 2, 3])
    both, end = STDFT(4, 2), STDFT(4, 2, pad="end")
    np.testing.assert_allclose(both.times(8, 1.0), [-0.5, 1.5, 3.5, 5.5, 7.5])
    np.testing.assert_allclose(end.times(8, 2.0), [0.75, 1.75, 2.75])
    np.testing.assert_allclose(both.frequencies(8, 8.0), [0, 2, 4])
    whole = STDFT(4, 2, form="global", pad="end")
    np.testing.assert_allclose(whole.frequencies(8, 8.0), [0, 1, 2, 3, 4])
    chain = Chain(Segments(4), DFT())
    np.testing.assert_allclose(chain.times(9, 1.0), [2, 6, 10])
    np.testing.assert_allclose(chain.frequencies(9, 8.0), [0, 2, 4])
    assert chain.axes == ("segment", "frequency")


def test_a_tone_is_at_its_frequency():
    rate, n = 1000.0, 500
    tone = np.sin(2 * np.pi * 120 * np.arange(n) / rate)
    for transform in (DFT(), STDFT(100, 50), DCT()):
        found = decompose(transform, tone, tone**2, axis=0)
        r = found.relevance if found.relevance.ndim == 1 else found.relevance.sum(0)
        hertz = transform.frequencies(n, rate)[np.argmax(r)]
        np.testing.assert_allclose(hertz, 120.0, atol=1.01)


# --- bands and aggregation ------------------------------------------------------------------------


def test_bands_are_a_partition_of_unity():
    f = DFT().frequencies(256, 256.0)
    for bands in (
        Bands.eeg(frequencies=f),
        Bands.mel(8, frequencies=f),
        Bands.mel(5, frequencies=f, low=10.0, high=90.0),
        Bands.between({"a": (0.0, 10.0), "b": (20.0, 30.0)}, frequencies=f),
        Bands.of(np.abs(noise(3, len(f)))),
    ):
        np.testing.assert_allclose(bands.weights.sum(axis=0), 1.0, rtol=1e-12)
        assert bands.weights.min() >= 0
        assert bands.names[-1] == "uncovered"
    assert Bands.eeg(frequencies=f).names[:2] == ("delta", "theta")


def test_mel_middles():
    """The middle of each triangle is a whole weight of its own band."""
    middles = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 8) / 2595) - 1)
    bands = Bands.mel(6, frequencies=np.concatenate([middles, [4000.0]])[1:], high=4000.0)
    np.testing.assert_allclose(bands.weights[:6, :6], np.eye(6), atol=1e-9)


def test_bands_of_a_chain_are_the_sums_of_its_relevance():
    f = DFT().frequencies(64, 64.0)
    bands = Bands.mel(4, frequencies=f)
    x, r = noise(2, 64), noise(2, 64, seed=1)
    found = decompose(Chain(DFT(), bands), x, r, axis=-1)
    fine = decompose(DFT(), x, r, axis=-1)
    assert found.relevance.shape == (2, 5)
    np.testing.assert_allclose(found.relevance, fine.relevance @ bands.weights.T, rtol=1e-10)
    summed = inspection.per_band(fine.relevance, bands, axis=-1, how="sum")
    np.testing.assert_allclose(found.relevance, summed, rtol=1e-10)
    found = decompose(Chain(STDFT(64, 32), bands), x, r, axis=1)
    assert found.relevance.shape == (2, 3, 5)
    np.testing.assert_allclose(
        found.relevance.sum(axis=(1, 2)) + found.residual, r.sum(axis=1), rtol=1e-10
    )


def test_bands_by_hand():
    r = jnp.array([[1.0, -3.0, 2.0, 2.0]])
    bands = Bands.of([[1.0, 0.5, 0, 0]], ["low"])
    sums = inspection.per_band(r, bands, axis=1, how="sum")
    np.testing.assert_allclose(sums, [[-0.5, -1.5 + 4]])
    means = inspection.per_band(r, bands, axis=1, how="mean_magnitude")
    np.testing.assert_allclose(means, [[2.5 / 1.5, 5.5 / 2.5]])


def test_segments_and_channels_by_hand():
    r = jnp.arange(1.0, 13.0).reshape(1, 6, 2) * jnp.array([1.0, -1.0])
    sums = inspection.per_segment(r, 4, axis=1, how="sum")
    np.testing.assert_allclose(sums, [[[1 + 3 + 5 + 7, -2 - 4 - 6 - 8], [9 + 11, -10 - 12]]])
    starts = inspection.per_segment(r, [0, 1, 4], axis=1, how="mean_magnitude")
    np.testing.assert_allclose(starts, [[[1, 2], [5, 6], [10, 11]]])
    channels = inspection.per_channel(r, axis=2, how="sum")
    np.testing.assert_allclose(channels, [[36, -42]])
    magnitude = inspection.per_channel(r[0], axis=1, batch_axis=None, how="mean_magnitude")
    np.testing.assert_allclose(magnitude, [6, 7])


def test_wavelet_bands():
    x, r = noise(32), noise(32, seed=1)
    transform = Wavelet("db2", 2)
    found = decompose(transform, x, r, axis=0)
    bands = inspection.per_band(found.relevance, transform.subbands(32), axis=0, how="sum")
    np.testing.assert_allclose(bands.sum(), r.sum(), rtol=1e-9)
    np.testing.assert_allclose(bands[-1], found.relevance[16:].sum(), rtol=1e-9)


# --- streaming ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform", [STDFT(8, 4), STDFT(8, 3, "hann", "ones"), STDFT(8, 8, "rectangle")], ids=repr
)
@pytest.mark.parametrize("frames", [1, 5, 100])
def test_a_stream_gives_the_numbers_of_the_whole(transform, frames):
    x, r = noise(2, 101), noise(2, 101, seed=1)
    x[:, 10] = 0.0  # relevance that no coefficient can carry
    whole = decompose(transform, x, r, axis=-1)
    cuts = [0, 3, 50, 101]
    chunks = [(x[:, a:b], r[:, a:b]) for a, b in itertools.pairwise(cuts)]
    parts = list(inspection.stream(transform, iter(chunks), frames=frames))
    got = np.concatenate([part.relevance for part in parts], axis=-2)
    np.testing.assert_allclose(got, whole.relevance, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(sum(part.at_zero for part in parts), whole.at_zero, rtol=1e-12)
    assert [part.first for part in parts] == list(range(0, got.shape[-2], frames))


def test_windows_of_a_long_signal():
    x = np.arange(23.0)
    for source in (x, [x[:5], x[5:6], x[6:]]):
        parts = list(inspection.windows(source, length=6, hop=4, batch_size=2))
        starts = np.concatenate([part.starts for part in parts])
        np.testing.assert_array_equal(starts, [0, 4, 8, 12, 16, 20])
        assert {part.values.shape for part in parts} == {(2, 6)}
        rows = np.concatenate([part.values[: len(part.starts)] for part in parts])
        padded = np.concatenate([x, np.zeros(3)])
        np.testing.assert_array_equal(rows, [padded[s : s + 6] for s in starts])


def test_windows_with_channels_and_of_short_signals():
    (part,) = inspection.windows(noise(3, 2), length=8, hop=8, batch_size=2)
    assert part.values.shape == (2, 8, 2)
    np.testing.assert_array_equal(part.starts, [0])
    np.testing.assert_array_equal(part.values[1], 0.0)


# --- values ---------------------------------------------------------------------------------------


def test_transforms_are_values():
    assert STDFT(8, 4) == STDFT(8, 4, "half-sine", "window")
    assert hash(STDFT(8, 4, np.ones(8))) == hash(STDFT(8, 4, np.ones(8)))
    assert DFT() == DFT()
    assert jax.tree.leaves(DFT()) == []
    assert len(jax.tree.leaves(random_pca(8))) == 2


def test_transforms_are_arguments_of_jit():
    x, r = noise(16), noise(16, seed=1)
    run = jax.jit(lambda transform, x, r: decompose(transform, x, r, axis=0).relevance)
    for transform in of_all(16).values():
        np.testing.assert_allclose(
            run(transform, x, r),
            decompose(transform, x, r, axis=0).relevance,
            rtol=1e-9,
            atol=1e-11,
        )
    matrix = Matrix(noise(4, 16))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, matrix)
    np.testing.assert_allclose(run(doubled, x, r), 4 * run(matrix, x, r), rtol=1e-9)


def test_no_matrix_of_the_length_is_made():
    n = 4096
    explain = jax.jit(lambda x, r: decompose(DFT(), x, r, axis=-1).relevance)
    compiled = explain.lower(jnp.zeros((1, n)), jnp.zeros((1, n))).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 100 * n * 8  # an N x N array would take 4096 n * 8


# --- refusals -------------------------------------------------------------------------------------

REFUSALS = {
    "transform": (
        lambda: inspect(mlp(8), "dft", axis=-1),
        TypeError,
        "transform must be a Transform",
    ),
    "argnums": (
        lambda: inspect(mlp(8), DFT(), axis=-1, argnums=(0, 1)),
        TypeError,
        r"one explained argument \(argnums an integer >= 0\), got",
    ),
    "composite twice": (
        lambda: inspect(lrp.explain(mlp(8)), DFT(), composites.default(), axis=-1),
        TypeError,
        "already explained: pass composite,",
    ),
    "no argument": (
        lambda: inspect(mlp(8), DFT(), axis=-1, argnums=1)(X),
        TypeError,
        "argnums=1|positional argument 1",
    ),
    "axis": (
        lambda: decompose(DFT(), X, R, axis=1),
        ValueError,
        r"axis must be an integer from -1 to 0 for a signal of 1 axes, or a name of dims, got 1",
    ),
    "axis name": (
        lambda: decompose(DFT(), X, R, axis="time"),
        ValueError,
        "axis='time' is not in dims=None; name the axes of the",
    ),
    "dims": (
        lambda: decompose(DFT(), X, R, axis="time", dims="batch time"),
        ValueError,
        "dims must name each of the 1 axes of the signal once",
    ),
    "number of axes": (
        lambda: decompose(DFT2(), X, R, axis=0),
        ValueError,
        "axis must be 2 distinct axes for this transform, got 0",
    ),
    "relevance": (
        lambda: decompose(DFT(), X, R[:7], axis=0),
        ValueError,
        r"relevance must have the shape of the signal, \(8,\), got \(7,\)",
    ),
    "floor": (
        lambda: decompose(DFT(), X, R, axis=0, floor=-1.0),
        ValueError,
        "must be a number >= 0, got -1",
    ),
    "complex": (
        lambda: decompose(DFT(), X + 0j, R, axis=0),
        TypeError,
        "real floating-point signals, got dtype complex128",
    ),
    "pytree": (
        lambda: inspect(lambda d: d["x"].sum(), DFT(), axis=0)({"x": jnp.asarray(X)}),
        TypeError,
        "the explained argument of inspect must be one array,",
    ),
    "length": (
        lambda: decompose(random_pca(9), X, R, axis=0),
        ValueError,
        "PCA is for signals of 9 samples, got 8",
    ),
    "matrix": (
        lambda: Matrix(np.ones(3)),
        ValueError,
        r"analysis must be a matrix, got shape \(3,\)",
    ),
    "synthesis": (
        lambda: Matrix(np.ones((2, 3)), np.ones((2, 3))),
        ValueError,
        r"synthesis must have shape \(3, 2\), that of analysis transposed, got \(2, 3\)",
    ),
    "count": (
        lambda: PCA.fit(np.ones((4, 3)), 4),
        ValueError,
        "n_components must be between 1 and 3, got 4",
    ),
    "nonlinear": (
        lambda: decompose(Functions(jnp.exp, jnp.log), np.abs(X), R, axis=0),
        TypeError,
        "the inverse of Functions.* must be linear",
    ),
    "segment": (lambda: Segments(0), ValueError, "length must be an integer >= 1, got 0"),
    "empty chain": (lambda: Chain(), ValueError, "at least one transform"),
    "bands inside": (
        lambda: decompose(Chain(Segments(4), Bands.of(np.ones((1, 4))), DFT()), X, R, axis=0),
        ValueError,
        "only the last transform of a chain may sum relevance",
    ),
    "mean inside": (
        lambda: decompose(Chain(Segments(4), random_pca(4)), X, R, axis=0),
        ValueError,
        "only the first transform of a chain may have an offset",
    ),
    "hop": (lambda: STDFT(4, 5), ValueError, "hop must be <= length, 4, got 5"),
    "window": (lambda: STDFT(4, 2, "kaiser"), ValueError, "window must be one of 'rectangle'"),
    "window length": (
        lambda: STDFT(4, 2, np.ones(3)),
        ValueError,
        "window must have length=4 numbers",
    ),
    "form": (lambda: STDFT(4, 2, form="both"), ValueError, "form must be one of 'local', 'global'"),
    "pad": (lambda: STDFT(4, 2, pad="left"), ValueError, "pad must be one of 'both', 'end'"),
    "global synthesis": (
        lambda: STDFT(4, 2, synthesis="window", form="global"),
        ValueError,
        'synthesis must be "ones" in the global form',
    ),
    "uncovered": (
        lambda: decompose(STDFT(4, 2, [0.0, 1, 1, 1], pad="end"), X, R, axis=0),
        ValueError,
        r"the windows sum to zero at sample 0 \(and 0 more\),",
    ),
    "wavelet": (lambda: Wavelet("no"), ValueError, "name must be 'haar' or a discrete wavelet"),
    "filters": (
        lambda: Wavelet(np.ones((4, 3))),
        ValueError,
        "four filters of the same even length,",
    ),
    "mode": (
        lambda: Wavelet("haar", mode="smooth"),
        ValueError,
        "mode must be one of 'periodization'",
    ),
    "level": (lambda: Wavelet("haar", 0), ValueError, "level must be an integer >= 1, got 0"),
    "deep level": (
        lambda: decompose(Wavelet("haar", 4), X, R, axis=0),
        ValueError,
        "level must be <= 3 for a signal of 8 samples, got 4",
    ),
    "too short": (
        lambda: decompose(Wavelet("db8"), X, R, axis=0),
        ValueError,
        "a signal of 8 samples is too short for 'db8'",
    ),
    "rate": (
        lambda: DFT().frequencies(8, 0.0),
        ValueError,
        "sample_rate must be positive and finite",
    ),
    "no frequencies": (
        lambda: random_pca(8).frequencies(8, 1.0),
        TypeError,
        r"PCA has no frequency axis, only: \('component',\)",
    ),
    "no times": (
        lambda: DFT().times(8, 1.0),
        TypeError,
        r"DFT has no time axis, only: \('frequency',\)",
    ),
    "chain without times": (
        lambda: Chain(DFT(), Bands.of(np.ones((1, 5)))).times(8, 1.0),
        TypeError,
        r"has no axis 'frame', only: \('band',\)",
    ),
    "partition": (
        lambda: Bands(np.ones((2, 3)), ("a", "b")),
        ValueError,
        "weights must be >= 0 and sum to 1 for each coefficient, got sums from 2 to 2",
    ),
    "band names": (lambda: Bands(np.ones((1, 3)), ("a", "b")), ValueError, "each of the 2 names"),
    "negative weights": (lambda: Bands.of([[-1.0]]), ValueError, "a matrix of numbers >= 0"),
    "empty band": (
        lambda: Bands.between({"a": (8.0, 9.0)}, frequencies=[0.0, 1.0]),
        ValueError,
        "the band 'a' from 8 to 9 contains none of the 2 frequencies from 0 to 1",
    ),
    "overlap": (
        lambda: Bands.between({"a": (0.0, 2.0), "b": (1.0, 3.0)}, frequencies=[0.0, 1.0, 2.0]),
        ValueError,
        r"the bands \['a', 'b'\] overlap at 1",
    ),
    "mel": (lambda: Bands.mel(0, frequencies=[0.0, 1.0]), ValueError, "mel needs n_bands >= 1"),
    "narrow mel": (
        lambda: Bands.mel(9, frequencies=[0.0, 100.0, 200.0]),
        ValueError,
        "9 mel bands contain none of the 3 frequencies,",
    ),
    "bands length": (
        lambda: decompose(Chain(DFT(), Bands.of(np.ones((1, 4)))), X, R, axis=0),
        ValueError,
        "bands are for 4 coefficients, got 5;",
    ),
    "per_band length": (
        lambda: inspection.per_band(jnp.ones(3), Bands.of(np.ones((1, 4))), axis=0, how="sum"),
        ValueError,
        "bands are for 4 coefficients, but relevance has 3 along axis=0",
    ),
    "how": (
        lambda: inspection.per_segment(jnp.ones(3), 2, axis=0, how="mean"),
        ValueError,
        "how must be 'sum' or 'mean_magnitude', got 'mean'",
    ),
    "segments": (
        lambda: inspection.per_segment(jnp.ones(3), [0, 0], axis=0, how="sum"),
        ValueError,
        r"segments must be a length \(an integer\), or increasing starts from 0",
    ),
    "late segment": (
        lambda: inspection.per_segment(jnp.ones(3), [0, 3], axis=0, how="sum"),
        ValueError,
        "segments must start below 3,",
    ),
    "aggregated axis": (
        lambda: inspection.per_channel(jnp.ones((3, 2)), axis=2, how="sum"),
        ValueError,
        r"axis must be an integer from -2 to 1 for relevance of shape \(3, 2\), got 2",
    ),
    "batch axis": (
        lambda: inspection.per_channel(jnp.ones((3, 2)), axis=0, how="sum"),
        ValueError,
        "batch_axis must not be the axis of the channels, got 0;",
    ),
    "bands as a string": (
        lambda: inspection.per_band(jnp.ones(3), "eeg", axis=0, how="sum"),
        TypeError,
        "bands must be a dictionary such as .* got 'eeg'",
    ),
    "a band as a pair": (
        lambda: inspection.per_band(jnp.ones(3), {"a": (0, 2)}, axis=0, how="sum"),
        TypeError,
        r"bands\['a'\] must be a slice within 3 coefficients, got \(0, 2\)",
    ),
    "a chain of names": (lambda: Chain("dft"), TypeError, "transforms such as DFT.* got 'dft'"),
    "no axis": (
        lambda: decompose(DFT(), X, R, axis=None),
        ValueError,
        "axis must be an integer .* got None",
    ),
    "dims as a number": (
        lambda: decompose(DFT(), X, R, axis=0, dims=2),
        TypeError,
        "dims must be a sequence such as .* got 2",
    ),
    "floor as a string": (
        lambda: decompose(DFT(), X, R, axis=0, floor="0"),
        ValueError,
        "floor must be a number >= 0, got '0'",
    ),
    "slice": (
        lambda: inspection.per_band(jnp.ones(3), {"a": slice(2, 5)}, axis=0, how="sum"),
        ValueError,
        r"bands\['a'\] must be a slice within 3 coefficients, got slice\(2, 5, None\)",
    ),
    "stream": (
        lambda: inspection.stream(STDFT(4, 2, pad="end"), []),
        TypeError,
        'an STDFT in its local form with pad="both"',
    ),
    "empty stream": (
        lambda: list(inspection.stream(STDFT(4, 2), [])),
        ValueError,
        "chunks must contain at least one sample",
    ),
    "chunk": (
        lambda: list(inspection.stream(STDFT(4, 2), [(X, R[:3])])),
        ValueError,
        r"x and relevance of a chunk must have the same shape, got \(8,\) and \(3,\)",
    ),
    "frames": (
        lambda: inspection.stream(STDFT(4, 2), [], frames=0),
        ValueError,
        "frames must be an integer >= 1, got 0",
    ),
    "windows hop": (
        lambda: inspection.windows(X, length=2, hop=3),
        ValueError,
        "hop must be <= length, 2, got 3: samples between frames would be skipped",
    ),
    "no samples": (
        lambda: list(inspection.windows(X[:0], length=2, hop=2)),
        ValueError,
        "source must contain at least one sample",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=message):
        call()


def test_missing_pywavelets_is_named(monkeypatch):
    import importlib

    from jaxlrp.inspection import wavelets

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    wavelets._filters.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "jaxlrp\[wavelets\]"'):
        Wavelet("db2")
    assert Wavelet("haar", 1).forward(jnp.asarray(X)).shape == (8,)


def test_events_are_summed_by_label():
    """Against a loop in NumPy; labels of all samples, or of each, in any place; -1 counts nowhere."""
    rng = np.random.default_rng(0)
    r = rng.normal(size=(3, 20, 2)).astype(np.float32)
    labels = rng.integers(-1, 3, (3, 20, 1))

    def by_hand(r, labels, how, against):
        found = np.zeros((3, 4, 2))
        for i, c in np.ndindex(3, 2):
            values = r[i, :, c] if how == "sum" else np.abs(r[i, :, c])
            used = values[labels[i, :, 0] >= 0].mean()
            for k in range(4):
                own = values[labels[i, :, 0] == k]
                if how == "sum":
                    found[i, k, c] = own.sum() - against * len(own) * used
                else:
                    found[i, k, c] = (own.mean() if len(own) else np.nan) - against * used
        return found

    for how, against in itertools.product(("sum", "mean_magnitude"), (False, True)):
        events = functools.partial(
            inspection.per_event, axis=1, number=4, how=how, against_mean=against
        )
        expected = by_hand(r, labels, how, against)
        np.testing.assert_allclose(events(r, labels), expected, rtol=1e-5, atol=1e-5)  # float32
        same = np.repeat(labels[:1], 3, axis=0)
        np.testing.assert_allclose(
            events(r, labels[0, :, 0]), by_hand(r, same, how, against), rtol=1e-5, atol=1e-5
        )
    total = inspection.per_event(r, labels, axis=1, number=3, how="sum", against_mean=True).sum(1)
    np.testing.assert_allclose(total, 0, atol=1e-5)
    for wrong, error, message in (
        (labels[:, :5], ValueError, "events must have shape"),
        (labels + 0.5, TypeError, "events must be integers"),
    ):
        with pytest.raises(error, match=message):
            inspection.per_event(r, wrong, axis=1, number=3, how="sum")


def test_domains_of_one_explanation_have_the_same_sum():
    """One explanation, in several domains: what `inspect` finds in each, and equal sums."""
    w = noise(5, 32)

    def model(x):
        return jax.nn.relu(x @ w.T).sum(axis=-1)

    x = noise(3, 32, seed=1)
    transforms = {"spectrum": DFT(), "spectrogram": STDFT(8, 4), "principal": random_pca(32)}
    found = inspection.domains(model, transforms, composites.all_epsilon(), axis=-1)(x)
    explained = lrp.explain(model, composites.all_epsilon())
    np.testing.assert_array_equal(found.relevance["signal"], explained(x).relevance)
    for name, transform in transforms.items():
        alone = inspect(explained, transform, axis=-1)(x)
        np.testing.assert_array_equal(found.relevance[name], alone.relevance)
        np.testing.assert_array_equal(found[name].explanation.relevance, explained(x).relevance)
        # The rounding of a few hundred float64 operations.
        np.testing.assert_allclose(found.sums[name], found.sums["signal"], rtol=1e-11)
    assert abs(found["principal"].residual).sum() > 0.1  # and is part of the sum
    again = jax.jit(inspection.domains(explained, transforms, axis=-1))(x)
    np.testing.assert_allclose(again.relevance["spectrum"], found.relevance["spectrum"], rtol=1e-9)


@pytest.mark.parametrize(
    ("transforms", "error", "message"),
    [
        (DFT(), TypeError, "transforms"),
        ({}, ValueError, "at least one"),
        ({"signal": DFT()}, ValueError, "signal"),
        ({"a": "DFT"}, TypeError, r"transforms\['a'\]"),
    ],
)
def test_domains_refuse(transforms, error, message):
    with pytest.raises(error, match=message):
        inspection.domains(lambda x: x.sum(), transforms, axis=-1)


def test_domains_need_the_explained_argument():
    explain = inspection.domains(lambda x: x.sum(), {"spectrum": DFT()}, axis=-1)
    with pytest.raises(TypeError, match="missing positional argument 0"):
        explain()
