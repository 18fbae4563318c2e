"""Pictures of spectra and spectrograms: what is drawn where, in which units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxlrp import inspection, plot
from jaxlrp.plot import spectrogram, spectrum

R = np.array([0.5, -2.0, 0.0, 1.0])
A = np.array([1.0, 4.0, 2.0, 3.0])
HERTZ = np.array([0.0, 50.0, 100.0, 150.0])


def bars(ax):
    """(frequency, height, relevance) of every bar."""
    (collection,) = ax.collections
    segments = [
        (*s[1], r) for s, r in zip(collection.get_segments(), collection.get_array(), strict=True)
    ]
    return sorted(tuple(float(v) for v in s) for s in segments)


def test_every_bar_has_its_place_height_and_relevance():
    ax = spectrum(R, A, frequencies=HERTZ)
    assert bars(ax) == [tuple(row) for row in np.stack([HERTZ, A, R], axis=1).tolist()]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("frequency (Hz)", "amplitude")
    assert ax.collections[0].get_clim() == (-2.0, 2.0)
    assert spectrum(R, A).get_xlabel() == "bin"


def test_relevant_bars_lie_on_top():
    drawn = spectrum(R, A).collections[0].get_array()
    np.testing.assert_array_equal(np.abs(drawn), sorted(np.abs(R)))


def test_zero_is_gray_and_signs_have_colors():
    (collection,) = spectrum(R, A, limit=1.0).collections
    collection.update_scalarmappable()
    colors = dict(zip(collection.get_array().tolist(), collection.get_colors(), strict=True))
    assert to_hex(colors[0.0]) == "#bbbbbb"
    assert to_hex(colors[1.0]) == "#b1191b"
    assert to_hex(colors[-2.0]) == "#0953c1"


def test_a_spectrogram_has_time_to_the_right_and_frequency_upwards():
    r = np.arange(6.0).reshape(2, 3)
    ax = spectrogram(r, times=[1.0, 1.5], frequencies=[0.0, 10.0, 20.0], title="here")
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), r.T)
    assert image.origin == "lower"
    assert image.get_extent() == [0.75, 1.75, -5.0, 25.0]
    assert image.get_clim() == (-5.0, 5.0)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == (
        "time (s)",
        "frequency (Hz)",
        "here",
    )
    plain = spectrogram(r)
    assert (plain.get_xlabel(), plain.get_ylabel()) == ("frame", "bin")


def test_amplitude_is_drawn_below_relevance():
    r = np.array([[0.0, 0.0, 1.0]])
    a = np.array([[1.0, 1e-9, 1.0]])
    (image,) = spectrogram(r, a).images
    loud, quiet, relevant = np.asarray(image.get_array())[:, 0]
    assert loud.tolist() == [127, 127, 127] or loud.tolist() == [128, 128, 128]
    assert quiet.tolist() == [255, 255, 255]
    assert relevant[0] > relevant[2] + 50


def test_nothing_is_changed_and_bfloat16_is_drawn():
    r, a = jnp.asarray(R, jnp.bfloat16), np.array(A)
    spectrum(r, a)
    spectrogram(r[None], a[None])
    np.testing.assert_array_equal(a, A)


def test_own_axes_and_no_color_scale():
    ax = spectrum(R, A, colorbar=False)
    assert len(ax.figure.axes) == 1
    assert spectrum(R, A, ax=ax, colorbar=False) is ax
    assert len(ax.collections) == 2
    assert len(spectrogram(R[None], colorbar=False).figure.axes) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum(R, A[:3]), r"same shape \(K,\) with K >= 2, got \(4,\) and \(3,\);"),
        (lambda: spectrum(np.stack([R, R]), np.stack([A, A])), "select one sample of a batch"),
        (lambda: spectrum(R, -A), r"amplitude must be >= 0, got -4"),
        (lambda: spectrum(R, A, frequencies=HERTZ[:2]), r"frequencies must have shape \(4,\)"),
        (lambda: spectrum(R, A, frequencies=-HERTZ), "frequencies must be increasing"),
        (lambda: spectrum(R, A, limit=0.0), "limit must be positive"),
        (lambda: spectrogram(R), r"relevance must have shape \(frames, bins\), got \(4,\)"),
        (lambda: spectrogram(R[None], A), "amplitude must have the shape of relevance"),
        (
            lambda: spectrogram(R[None], times=[0.0, 1.0]),
            r"times must have shape \(1,\), got \(2,\)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_traced_arrays_are_refused():
    with pytest.raises(TypeError, match="relevance must be a concrete array"):
        jax.jit(lambda r: spectrum(r, A))(R)


def test_two_domains_share_time_and_sum():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 64)), rng.normal(size=64)
    for transform in (inspection.DFT(), inspection.STDFT(16, 8)):
        found = inspection.inspect(lambda x: x @ w, transform, axis=-1)(x)
        figure = plot.domains(found, x, transform, sample_rate=64.0, title="both")
        upper, lower = figure.axes[:2]
        sums = [float(axes.get_title().rpartition(" ")[2]) for axes in (upper, lower)]
        np.testing.assert_allclose(sums, (x @ w)[0], rtol=1e-3)  # four digits are shown
        framed = isinstance(transform, inspection.STDFT)
        assert (upper.get_xlim() == lower.get_xlim()) == framed
        assert lower.get_xlabel() == ("time (s)" if framed else "frequency (Hz)")
    with pytest.raises(TypeError, match="found must be"):
        plot.domains(found.relevance, x, transform, sample_rate=64.0)
    with pytest.raises(ValueError, match="one signal"):
        plot.domains(found, np.concatenate([x, x]), transform, sample_rate=64.0)
