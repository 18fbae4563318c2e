"""Pictures: zero is neutral, red is for, blue is against, and nothing handed in is changed."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import jaxlrp as lrp
from jaxlrp import plot

OURS = ("relevance", "relevance-dark", "relevance-gray")
MIDDLE = {"relevance": 255, "relevance-dark": 0, "relevance-gray": 0xBB, "bwr": 255, "seismic": 255}
RAMP = np.linspace(-1.0, 1.0, 101)[None]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rendered(figure):
    """The pixels of a figure, (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def bare_axes(height, width, scale=20):
    """Axes that fill a figure, so that one entry of a map is a square of scale by scale pixels."""
    figure = Figure(figsize=(width * scale / 100, height * scale / 100), dpi=100)
    return figure.add_axes((0.0, 0.0, 1.0, 1.0))


def lightness(rgb):
    """CIE L* of uint8 sRGB."""
    v = rgb / 255.0
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def panels(figure):
    """The axes that hold a picture, without color bars."""
    return [ax for ax in figure.axes if ax.images]


def colored(ax):
    (line,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    return line


# --- normalize ------------------------------------------------------------------------------------


def test_normalize_by_hand():
    r = np.array([[2.0, -8.0], [4.0, 0.0]])
    np.testing.assert_array_equal(plot.normalize(r), [[0.25, -1.0], [0.5, 0.0]])
    np.testing.assert_array_equal(plot.normalize(r, axis=0), [[0.5, -1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(plot.normalize(r, axis=-1), [[0.25, -1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(plot.normalize(r, method="signed"), [[0.5, -1.0], [1.0, 0.0]])


def test_normalize_signed_scales_each_sign_of_each_picture():
    # Pictures are rows. Largest positive: 2 and 10, largest negative: 4 and none.
    r = np.array([[1.0, 2.0, -4.0, -1.0], [10.0, 5.0, 0.0, 1.0]])
    want = [[0.5, 1.0, -1.0, -0.25], [1.0, 0.5, 0.0, 0.1]]
    np.testing.assert_allclose(plot.normalize(r, axis=1, method="signed"), want, rtol=1e-12)


def test_normalize_percentile_leaves_zeros_out_and_clips():
    # Non-zero magnitudes 1, 2, 3, 100: their median is 2.5. With the 96 zeros it would be 0.
    r = np.zeros(100)
    r[:4] = [1.0, -2.0, 3.0, -100.0]
    got = plot.normalize(r, percentile=50.0)
    np.testing.assert_allclose(got[:4], [0.4, -0.8, 1.0, -1.0], rtol=1e-12)
    assert not got[4:].any()


def test_normalize_of_zero_is_zero():
    r = np.array([[0.0, 0.0], [0.0, 3.0]])
    np.testing.assert_array_equal(plot.normalize(r, axis=1), [[0.0, 0.0], [0.0, 1.0]])
    for method in ("absmax", "signed"):
        np.testing.assert_array_equal(plot.normalize(np.zeros(3), method=method), np.zeros(3))


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_normalize_does_not_leave_the_range_of_floats(scale):
    np.testing.assert_allclose(plot.normalize(scale * np.array([1.0, -2.0])), [0.5, -1.0])


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (np.int32, np.float64),
        (jnp.bfloat16, np.float32),
    ],
)
def test_normalize_dtype(given, returned):
    given_array = np.array([1, -2, 0]).astype(given)
    got = plot.normalize(jnp.asarray(given_array) if given is jnp.bfloat16 else given_array)
    assert isinstance(got, np.ndarray)
    assert got.dtype == returned
    np.testing.assert_array_equal(got, [0.5, -1.0, 0.0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"percentile": 0.0}, r"percentile must be in \(0, 100\], got 0\.0; 100 divides by"),
        ({"percentile": 101}, r"percentile must be in \(0, 100\], got 101"),
        ({"percentile": np.nan}, r"percentile must be in \(0, 100\], got nan"),
        ({"method": "max"}, r"method must be 'absmax' or 'signed', got 'max'"),
        ({"axis": 2}, "axis must be valid for relevance, which has 2 axes, got 2; None scales"),
        ({"axis": (0, -3)}, r"axis must be valid for relevance, which has 2 axes, got \(0, -3\);"),
        ({"axis": ()}, r"axis must be valid for relevance, which has 2 axes, got \(\);"),
    ],
)
def test_normalize_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.normalize(np.ones((2, 2)), **kwargs)


# --- what every function refuses ------------------------------------------------------------------

DRAW = {
    "normalize": plot.normalize,
    "to_rgb": plot.to_rgb,
    "heatmap": plot.heatmap,
    "overlay": lambda r: plot.overlay(r, np.zeros((2, 2))),
    "signal": lambda r: plot.signal(r, np.zeros((2, 2))),
}


@pytest.mark.parametrize("name", DRAW)
def test_what_is_not_relevance_is_refused(name):
    draw = DRAW[name]
    hole = np.array([[1.0, 2.0], [np.nan, np.inf]])
    with pytest.raises(
        ValueError, match=r"relevance must be finite, got nan at index \(1, 0\) \(2 of 4"
    ):
        draw(hole)
    with pytest.raises(ValueError, match=r"relevance must not be empty, got shape \(0, 2\)"):
        draw(np.zeros((0, 2)))
    with pytest.raises(
        TypeError, match=r"relevance must contain real numbers, got dtype complex128; conv"
    ):
        draw(np.zeros((2, 2), complex))
    with pytest.raises(TypeError, match=r"relevance must contain real numbers, got dtype bool"):
        draw(np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="relevance must be an array with rows of equal length:"):
        draw([[1.0], [1.0, 2.0]])
    with pytest.raises(
        TypeError,
        match=r"relevance must be a concrete array.*; plot the result outside of jax\.jit",
    ):
        jax.jit(draw)(jnp.ones((2, 2)))


def test_grid_names_the_map_that_is_wrong():
    good, bad = np.ones((2, 2)), np.full((2, 2), np.nan)
    with pytest.raises(
        ValueError, match=r"explanations\[1\] must be finite, got nan at index \(0, 0\)"
    ):
        plot.grid([good, bad])
    with pytest.raises(ValueError, match=r"explanations\[1\]\[0\] must be finite"):
        plot.grid([[good], [bad]])
    with pytest.raises(ValueError, match=r"explanations\['gamma'\]\[1\] must be finite"):
        plot.grid({"epsilon": [good, good], "gamma": [good, bad]})
    with pytest.raises(ValueError, match=r"images\[0\] must be uint8, or float in \[0, 1\]"):
        plot.grid([good], images=[good * 7])


def test_nothing_is_changed(rng):
    r, image = rng.normal(size=(6, 5, 3)), rng.uniform(size=(6, 5, 3))
    wave, waves = rng.normal(size=(2, 9, 2))
    kept = [a.tobytes() for a in (r, image, wave, waves)]
    for array in (r, image, wave, waves):
        array.flags.writeable = False
    plot.normalize(r, axis=(0, 1), method="signed", percentile=90.0)
    plot.to_rgb(r, image=image)
    rendered(plot.heatmap(r).figure)
    rendered(plot.overlay(r, image).figure)
    rendered(plot.grid({"a": r[None], "b": [r]}, images=[image], overlay=True))
    rendered(plot.signal(waves, wave))
    assert kept == [a.tobytes() for a in (r, image, wave, waves)]


def test_a_picture_keeps_what_it_was_given():
    r, wave = np.ones((4, 4)), np.ones(8)
    image = plot.heatmap(r).images[0]
    line = colored(plot.signal(wave, wave).axes[0])
    r[:], wave[:] = 0.0, 0.0
    for artist in (image, line):
        assert (artist.get_array() == 1.0).all()
    assert line.get_segments()[3][1].tolist() == [3.0, 1.0]


def test_bfloat16(rng):
    r = jnp.asarray(rng.normal(size=(6, 5, 3)), jnp.bfloat16)
    wide = np.asarray(r).astype(np.float64)
    image = jnp.asarray(rng.uniform(size=(6, 5, 3)), jnp.bfloat16)
    np.testing.assert_array_equal(plot.to_rgb(r), plot.to_rgb(wide))
    np.testing.assert_array_equal(
        plot.to_rgb(r, image=image), plot.to_rgb(wide, image=np.asarray(image).astype(np.float64))
    )
    np.testing.assert_array_equal(plot.heatmap(r).images[0].get_array(), wide.sum(-1))
    assert len(panels(plot.grid({"a": r[None]}, images=image[None]))) == 2
    plot.signal(r[:, 0], r[:, 0])


# --- colors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cmap", MIDDLE)
@pytest.mark.parametrize("limit", [None, 0.1, 3.0, 1e-12])
def test_zero_is_exactly_neutral_and_the_sign_is_red_or_blue(cmap, limit):
    negative, zero, positive = plot.to_rgb([[-2.0, 0.0, 1.0]], cmap=cmap, limit=limit)[0].astype(
        int
    )
    assert zero.tolist() == [MIDDLE[cmap]] * 3
    assert positive[0] > positive[2]
    assert negative[2] > negative[0]


def test_no_relevance_at_all_is_neutral():
    assert (plot.to_rgb(np.zeros((2, 3))) == 255).all()
    assert plot.heatmap(np.zeros((2, 3))).images[0].get_clim() == (-1.0, 1.0)


@pytest.mark.parametrize("cmap", OURS)
def test_equal_magnitudes_are_equally_light(cmap):
    light = lightness(plot.to_rgb(RAMP, cmap=cmap)[0])
    np.testing.assert_allclose(light, light[::-1], atol=1.5)  # a step of 1/255 is up to 0.6 in L*
    steps = np.diff(light[50:]) * (1 if cmap == "relevance-dark" else -1)
    assert (steps > -0.4).all()  # monotone but for rounding
    assert abs(light[-1] - light[50]) > 35


def test_any_matplotlib_color_map_works():
    by_name = plot.to_rgb(RAMP, cmap="viridis")
    np.testing.assert_array_equal(by_name, plot.to_rgb(RAMP, cmap=mpl.colormaps["viridis"]))
    np.testing.assert_array_equal(by_name[0, -1], [253, 231, 36])  # viridis at 1
    for wrong in ("blue", None):
        message = rf"cmap must be one of \['relevance', .*\] or .*, got {wrong!r}; list\("
        with pytest.raises(ValueError, match=message):
            plot.to_rgb(RAMP, cmap=wrong)  # type: ignore[arg-type]


def test_limit_saturates():
    rgb = plot.to_rgb([[1.0, 5.0, -1.0, -7.0, 0.9]], limit=1.0)[0]
    assert rgb[:4, 0].tolist() == [0xB3, 0xB3, 0x13, 0x13]  # the ends of the map
    assert rgb[4, 0] > 0xB3
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(
            ValueError, match=rf"limit must be positive and finite, got {wrong}; None"
        ):
            plot.heatmap([[1.0]], limit=wrong)


# --- channels -------------------------------------------------------------------------------------


def test_channels_are_summed_along_the_axis(rng):
    r = rng.normal(size=(4, 5, 3))
    want = plot.to_rgb(r.sum(-1))
    np.testing.assert_array_equal(plot.to_rgb(r), want)
    for axis in (0, 1, 2, -3):
        moved = np.moveaxis(r, -1, axis)
        np.testing.assert_array_equal(plot.to_rgb(moved, channel_axis=axis), want)
        np.testing.assert_array_equal(
            plot.heatmap(moved, channel_axis=axis).images[0].get_array(), moved.sum(axis)
        )
    np.testing.assert_array_equal(plot.to_rgb(r[..., :1]), plot.to_rgb(r[..., 0]))


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8, 2), (3, 8, 3), (1, 8, 1)])
def test_ambiguous_channels_are_refused(shape):
    message = r"channel_axis must be given for relevance of shape \(.*\), because it is ambiguous; "
    with pytest.raises(ValueError, match=message + r"pass -1 for \(H, W, C\) or 0 for \(C, H, W\)"):
        plot.heatmap(np.ones(shape))


def test_a_batch_of_one_is_its_only_sample(rng):
    r, wave = rng.normal(size=(1, 4, 5, 3)), rng.normal(size=(1, 20, 2))
    want = plot.to_rgb(r[0])
    np.testing.assert_array_equal(plot.to_rgb(r), want)
    np.testing.assert_array_equal(plot.to_rgb(r.transpose(0, 3, 1, 2), channel_axis=1), want)
    np.testing.assert_array_equal(plot.to_rgb(r[..., 0]), plot.to_rgb(r[0, ..., 0]))
    for values, line in ((wave, wave), (wave[0], wave), (wave[..., 0], wave[:, :, 0])):
        first = plot.signal(values, line).axes[0]
        np.testing.assert_array_equal(colored(first).get_array(), wave[0, :, 0])
    assert plot.panel(r[..., 0]).images[0].get_array().shape == (4, 5)
    assert plot.spectrogram(r[..., 0], np.abs(r[..., 0])).get_xlim() == (-0.5, 3.5)
    assert len(plot.spectrum(wave[..., 0], np.abs(wave[..., 0])).collections) == 1
    with pytest.raises(ValueError, match=r"channel_axis must be in \[-3, -1\] or \[1, 3\].* got 0"):
        plot.heatmap(r, channel_axis=0)


def test_explanations_are_drawn_as_their_relevance(rng):
    r = rng.normal(size=(2, 4, 5, 3))
    one, both = lrp.Explanation(0.0, r[:1]), lrp.Explanation(0.0, r)
    np.testing.assert_array_equal(plot.to_rgb(one), plot.to_rgb(r[0]))
    np.testing.assert_array_equal(plot.normalize(both), plot.normalize(r))
    drawn = [
        panels(plot.grid(maps))[0].images[0].get_array()
        for maps in ({"a": both}, [one, one], {"a": r})
    ]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[1], drawn[2])
    record = lrp.Record(jnp.asarray(r[0]), jnp.asarray(r[0]))
    assert plot.heatmap(record).images[0].get_array().shape == (4, 5)
    parts = lrp.Explanation(0.0, {"left": r, "right": (r, r)})
    with pytest.raises(TypeError, match=r"has 3: .*relevance\['left'\], .*\['right'\]\[0\], "):
        plot.heatmap(parts)


def test_other_shapes_are_refused():
    with pytest.raises(
        ValueError, match=r"relevance must have shape \(H, W\) .*\(2, 4, 4, 3\); .*: relevance\[0\]"
    ):
        plot.heatmap(np.ones((2, 4, 4, 3)))
    with pytest.raises(ValueError, match=r"relevance must have shape \(H, W\) .*, got \(4,\)"):
        plot.heatmap(np.ones(4))
    with pytest.raises(
        ValueError, match=r"channel_axis must be in \[-3, 2\], got 3; -1 is the last"
    ):
        plot.heatmap(np.ones((4, 4, 3)), channel_axis=3)


# --- heatmap --------------------------------------------------------------------------------------


def test_heatmap_draws_the_pixels():
    ax = bare_axes(1, 3)
    assert plot.heatmap([[2.0, 0.0, -1.0]], ax=ax) is ax
    drawn = rendered(ax.figure)[10, [10, 30, 50]]
    np.testing.assert_array_equal(drawn, plot.to_rgb([[2.0, 0.0, -1.0]])[0])
    assert ax.images[0].get_clim() == (-2.0, 2.0)
    assert [*ax.get_xticks(), *ax.get_yticks()] == []


def test_heatmap_arguments_are_used():
    ax = plot.heatmap([[1.0, -4.0]], title="epsilon", limit=8.0, cmap="bwr", colorbar=True)
    assert ax.get_title() == "epsilon"
    assert ax.images[0].get_clim() == (-8.0, 8.0)
    assert ax.images[0].get_cmap().name == "bwr"
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    ax.figure.canvas.draw()
    assert [t.get_text() for t in bar.get_yticklabels()] == ["\N{MINUS SIGN}8", "0", "+8"]
    assert bar.get_ylim() == (-8.0, 8.0)
    assert plot.heatmap([[1.0]]).figure.axes[1:] == []


# --- overlay --------------------------------------------------------------------------------------


def test_overlay_shows_the_photograph_where_relevance_is_zero(rng):
    image = rng.integers(0, 256, size=(6, 7, 3), dtype=np.uint8)
    r = np.zeros((6, 7))
    r[2, 3], r[4, 1] = 1.0, -1.0
    luma = np.round(image @ np.array([0.2126, 0.7152, 0.0722])).astype(np.uint8)
    for cmap in (*MIDDLE, "viridis"):
        pixels = plot.to_rgb(r, image=image, cmap=cmap)
        same = (pixels == luma[..., None]).all(-1)
        np.testing.assert_array_equal(same, r == 0, err_msg=cmap)
    pixels = plot.to_rgb(r, image=image).astype(int)
    assert pixels[2, 3, 0] > pixels[2, 3, 2] + 50
    assert pixels[4, 1, 2] > pixels[4, 1, 0] + 50


def test_overlay_draws_what_to_rgb_gives(rng):
    r, image = rng.normal(size=(3, 4)), rng.uniform(size=(3, 4))
    ax = bare_axes(3, 4)
    assert plot.overlay(r, image, ax=ax, alpha=0.5, limit=0.7, title="gamma") is ax
    want = plot.to_rgb(r, image=image, alpha=0.5, limit=0.7)
    np.testing.assert_array_equal(
        rendered(ax.figure)[10::20, 10::20][1:], want[1:]
    )  # below the title
    assert ax.get_title() == "gamma"
    colored = plot.overlay(r, image, limit=0.7, cmap="relevance-dark", colorbar=True)
    want = plot.to_rgb(r, image=image, limit=0.7, cmap="relevance-dark")
    np.testing.assert_array_equal(colored.images[0].get_array(), want)
    assert colored.figure.axes[1].get_ylim() == (-0.7, 0.7)


@pytest.mark.parametrize("cmap", OURS)
def test_overlay_on_the_neutral_color_is_the_heatmap(cmap):
    blank = np.full(RAMP.shape, MIDDLE[cmap], np.uint8)
    over = plot.to_rgb(RAMP, image=blank, cmap=cmap, alpha=1.0).astype(int)
    np.testing.assert_allclose(over, plot.to_rgb(RAMP, cmap=cmap), atol=1)  # rounding to uint8


@pytest.mark.parametrize("cmap", ["relevance", "relevance-dark", "bwr"])
def test_opacity_grows_with_magnitude_alike_for_both_signs(cmap):
    # What is left of the contrast between a black and a white photograph is 1 - opacity.
    black, white = np.zeros(RAMP.shape), np.ones(RAMP.shape)
    left = [plot.to_rgb(RAMP, image=i, cmap=cmap, alpha=1.0).astype(float) for i in (black, white)]
    opacity = 1.0 - (left[1] - left[0]).mean(-1)[0] / 255.0
    assert opacity[50] == 0.0
    assert (np.diff(opacity[50:]) > -0.004).all()  # monotone but for rounding
    assert opacity[-1] > 0.9
    np.testing.assert_allclose(opacity, opacity[::-1], atol=0.02)


@pytest.mark.parametrize("cmap", OURS)
def test_films_are_the_faintest_that_make_the_color(cmap):
    # On black only opacity * film is seen, on white 1 - opacity more. A fainter film would have to
    # leave [0, 1], so the faintest touches its edge.
    black, white = (
        plot.to_rgb(RAMP, image=np.full(RAMP.shape, i), cmap=cmap, alpha=1.0)[0] / 255.0
        for i in (0.0, 1.0)
    )
    opacity = 1.0 - (white - black).mean(-1, keepdims=True)
    strong = opacity[:, 0] > 0.2
    assert strong.sum() > 60
    film = (black / np.maximum(opacity, 0.2))[strong]
    to_the_edge = np.minimum(film, 1.0 - film).min(-1)
    np.testing.assert_allclose(to_the_edge, 0.0, atol=0.02)  # rounding, divided by the opacity


def test_alpha_weakens_the_colors():
    image = np.full((1, 1), 0.5)
    gray, half, full = (
        plot.to_rgb([[r]], alpha=a, image=image)[0, 0].astype(float)
        for r, a in [(0.0, 1.0), (1.0, 0.5), (1.0, 1.0)]
    )
    np.testing.assert_allclose(half, (gray + full) / 2, atol=1.0)
    default = plot.to_rgb([[1.0]], image=image)
    np.testing.assert_array_equal(default, plot.to_rgb([[1.0]], alpha=0.9, image=image))
    np.testing.assert_array_equal(default, plot.overlay([[1.0]], image).images[0].get_array())


def test_images_of_all_kinds_agree(rng):
    r = rng.normal(size=(4, 5))
    image = rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    want = plot.to_rgb(r, image=image)
    np.testing.assert_array_equal(plot.to_rgb(r, image=image / 255.0), want)
    np.testing.assert_array_equal(plot.to_rgb(r, image=jnp.asarray(image)), want)
    np.testing.assert_array_equal(
        plot.to_rgb(r, image=np.moveaxis(image, -1, 0), channel_axis=0), want
    )
    gray = image[..., 0]
    np.testing.assert_array_equal(plot.to_rgb(r, image=gray), plot.to_rgb(r, image=gray[..., None]))
    # 1.0005 is rounding, and is clipped
    np.testing.assert_array_equal(
        plot.to_rgb(r, image=np.full((4, 5), 1.0005)), plot.to_rgb(r, image=np.ones((4, 5)))
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.ones((3, 2)),
            r"image must have the height and width of relevance, \(2, 2\), got \(3, 2\)",
        ),
        (
            np.full((2, 2), 1.5),
            r"image must be uint8, or float in \[0, 1\], got float64 in \[1\.5, 1",
        ),
        (
            np.array([[0.5, -0.5]] * 2),
            r"image must be uint8.* in \[-0\.5, 0\.5\]; undo the preproc",
        ),
        (np.ones((2, 2), np.int64), r"image must be uint8.*, got int64 in \[1, 1\]"),
        (np.full((2, 2), np.nan), r"image must be finite, got nan at index \(0, 0\)"),
        (np.ones((2, 2, 4)), r"channel_axis must be given for image of shape \(2, 2, 4\), because"),
    ],
)
def test_overlay_refuses_images(image, message):
    with pytest.raises(ValueError, match=message):
        plot.overlay(np.ones((2, 2)), image)


def test_overlay_refuses_other_arguments():
    with pytest.raises(
        ValueError, match=r"image must have 1 or 3 channels, got 4; drop .*\[\.\.\., :3\]"
    ):
        plot.overlay(np.ones((2, 2)), np.ones((2, 2, 4)), channel_axis=-1)
    for alpha in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match=rf"alpha must be in \(0, 1\], got {alpha}"):
            plot.overlay(np.ones((2, 2)), np.ones((2, 2)), alpha=alpha)
    with pytest.raises(ValueError, match=r"alpha must be None without an image, got 0\.5"):
        plot.to_rgb(np.ones((2, 2)), alpha=0.5)


# --- grid -----------------------------------------------------------------------------------------


def arrays(figure):
    return [np.asarray(ax.images[0].get_array()) for ax in panels(figure)]


def places(figure):
    """(row, column) of each panel."""
    specs = [ax.get_subplotspec() for ax in panels(figure)]
    return [(s.rowspan.start, s.colspan.start) for s in specs]


def test_grid_of_methods_has_a_row_a_sample_and_a_column_a_method(rng):
    maps = {"epsilon": rng.normal(size=(2, 4, 5)), "gamma": list(rng.normal(size=(2, 4, 5, 3)))}
    figure = plot.grid(maps, suptitle="evidence")
    assert places(figure) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    want = [
        maps["epsilon"][0],
        maps["gamma"][0].sum(-1),
        maps["epsilon"][1],
        maps["gamma"][1].sum(-1),
    ]
    for got, expected in zip(arrays(figure), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [ax.get_title() for ax in panels(figure)] == ["epsilon", "gamma", "", ""]
    assert figure.get_suptitle() == "evidence"

    rows = [[maps["epsilon"][i], maps["gamma"][i]] for i in range(2)]
    written_out = plot.grid(rows, titles=["a", "b"])
    for one, other in zip(arrays(written_out), want, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [ax.get_title() for ax in panels(written_out)] == ["a", "b", "", ""]


def test_grid_puts_pictures_in_the_first_column(rng):
    r, images = rng.normal(size=(2, 4, 5)), rng.uniform(size=(2, 4, 5, 3))
    figure = plot.grid({"epsilon": r}, images=images)
    assert places(figure) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [ax.get_title() for ax in panels(figure)] == ["input", "epsilon", "", ""]
    np.testing.assert_array_equal(arrays(figure)[0], images[0])
    np.testing.assert_array_equal(arrays(figure)[2], images[1])
    np.testing.assert_array_equal(arrays(figure)[3], r[1])
    over = plot.grid({"epsilon": r}, images=images, overlay=True)
    np.testing.assert_array_equal(arrays(over)[3], plot.to_rgb(r[1], image=images[1]))


def test_grid_of_a_list_wraps(rng):
    r, image = list(rng.normal(size=(3, 4, 5))), rng.uniform(size=(4, 5, 3))
    assert places(plot.grid(r)) == [(0, 0), (0, 1), (0, 2)]
    assert places(plot.grid(r, n_columns=2)) == [(0, 0), (0, 1), (1, 0)]
    # one picture comes first and counts
    figure = plot.grid(r, images=image, n_columns=2, titles=["a", "b", "c"])
    assert places(figure) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [ax.get_title() for ax in panels(figure)] == ["input", "a", "b", "c"]
    np.testing.assert_array_equal(arrays(figure)[0], image)
    # one picture a map stands above it
    figure = plot.grid(r, images=[image, image / 2, image / 3], n_columns=2, titles=["a", "b", "c"])
    assert places(figure) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0)]
    assert [ax.get_title() for ax in panels(figure)] == ["a", "b", "", "", "c", ""]
    np.testing.assert_array_equal(arrays(figure)[4], image / 3)
    np.testing.assert_array_equal(arrays(figure)[5], r[2])


def test_grid_overlays_in_every_arrangement(rng):
    r, images = list(rng.normal(size=(2, 5, 4, 3))), list(rng.uniform(size=(2, 5, 4, 3)))
    one = plot.grid(r, images=images[0], overlay=True)
    np.testing.assert_array_equal(arrays(one)[2], plot.to_rgb(r[1], image=images[0]))
    each = plot.grid(r, images=images, overlay=True, cmap="relevance-dark")
    want = plot.to_rgb(r[1], image=images[1], cmap="relevance-dark")
    np.testing.assert_array_equal(arrays(each)[3], want)
    shared = plot.grid([r[0], 9 * r[1]], images=images[0], overlay=True, share_limit=True)
    limit = np.abs(9 * r[1].sum(-1)).max()
    want = plot.to_rgb(r[0], image=images[0], limit=limit)
    np.testing.assert_array_equal(arrays(shared)[1], want)
    first = [np.moveaxis(a, -1, 0) for a in (*r, *images)]
    alone = plot.grid(first[:2], images=first[2], overlay=True, channel_axis=0)
    np.testing.assert_array_equal(arrays(alone)[2], arrays(one)[2])
    moved = plot.grid(first[:2], images=first[2:], overlay=True, channel_axis=0)
    for got, want in zip(
        arrays(moved), arrays(plot.grid(r, images=images, overlay=True)), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_grid_limits():
    maps = [np.array([[1.0, -2.0]]), np.array([[4.0, 0.5]])]
    own = plot.grid(maps)
    assert [ax.images[0].get_clim() for ax in panels(own)] == [(-2.0, 2.0), (-4.0, 4.0)]
    shared = plot.grid(maps, share_limit=True)
    assert [ax.images[0].get_clim() for ax in panels(shared)] == [(-4.0, 4.0)] * 2
    labels = [[t.get_text() for t in f.axes[-1].get_yticklabels()] for f in (own, shared)]
    minus = "\N{MINUS SIGN}"
    assert labels == [[minus + "max", "0", "+max"], [minus + "4", "0", "+4"]]


def test_grid_draws_into_a_given_figure():
    figure = Figure()
    spec = figure.add_gridspec(1, 2)
    left, right = figure.add_subfigure(spec[0]), figure.add_subfigure(spec[1])
    assert plot.grid([np.ones((2, 2))], figure=left) is figure
    assert len(panels(left)) == 1
    assert right.axes == []


@pytest.mark.parametrize(
    ("explanations", "kwargs", "error", "message"),
    [
        (
            np.ones((2, 4, 4)),
            {},
            TypeError,
            r"or a dict from method to maps, got ndarray; convert a batch with list\(explanations\)",
        ),
        ([], {}, ValueError, "explanations must contain at least one map, got none"),
        ({}, {}, ValueError, "explanations must contain at least one map, got none"),
        ([[], []], {}, ValueError, "explanations must contain at least one map, got none"),
        (
            [np.ones((2, 2)), [np.ones((2, 2))]],
            {},
            ValueError,
            "maps or all rows, got a mixed",
        ),
        (
            {"a": np.ones((2, 4, 4)), "b": np.ones((3, 4, 4))},
            {},
            ValueError,
            r"explanations must have the same number of maps in all methods, got \[2, 3\]",
        ),
        (
            [[np.ones((2, 2))], [np.ones((2, 2))] * 2],
            {},
            ValueError,
            r"explanations must have the same number of maps in all rows, got \[1, 2\]",
        ),
        (
            {"a": np.ones((4, 4, 3))},
            {},
            ValueError,
            r"explanations\['a'\] must be a list or a batch .*, got shape \(4, 4, 3\); .*x\[None\]",
        ),
        (
            {"a": np.ones((1, 4, 4))},
            {"n_columns": 2},
            ValueError,
            r"n_columns must be None for a dict or rows, got 2; they have one per method",
        ),
        ([np.ones((2, 2))], {"n_columns": 0}, ValueError, r"n_columns must be >= 1, got 0; None"),
        (
            [np.ones((2, 2))],
            {"titles": ["a", "b"]},
            ValueError,
            "titles must have 1 entries, one per column or map, got 2",
        ),
        (
            [np.ones((2, 2))],
            {"overlay": True},
            ValueError,
            r"images must be given for overlay=True",
        ),
        (
            [np.ones((2, 2))],
            {"images": [np.ones((2, 2))] * 2},
            ValueError,
            "images must have 1 entries, one per row or map, got 2",
        ),
        (
            {"a": np.ones((1, 4, 4))},
            {"images": np.ones((2, 4, 4, 3))},
            ValueError,
            "images must have 1 entries, one per row or map, got 2",
        ),
        (
            {"a": np.ones((1, 4, 4))},
            {"images": np.ones((4, 4, 3))},
            ValueError,
            r"images must be a list or a batch .*, got shape \(4, 4, 3\)",
        ),
    ],
)
def test_grid_refuses(explanations, kwargs, error, message):
    with pytest.raises(error, match=message):
        plot.grid(explanations, **kwargs)


# --- signal ---------------------------------------------------------------------------------------


def test_signal_colors_each_sample_by_its_relevance():
    wave, r = np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.0, -0.5])
    figure = plot.signal(r, wave, title="ECG")
    line = colored(figure.axes[0])
    # each sample owns the line half-way to its neighbors
    want = [
        [[0, 0], [0, 0], [0.5, 1]],
        [[0.5, 1], [1, 2], [1.5, 3]],
        [[1.5, 3], [2, 4], [2, 4]],
    ]
    np.testing.assert_allclose(line.get_segments(), want)
    np.testing.assert_array_equal(line.get_array(), r)
    assert line.get_clim() == (-1.0, 1.0)
    rendered(figure)
    positive, zero, negative = np.asarray(line.get_colors())
    assert positive[0] > positive[2]
    assert zero[0] == zero[1] == zero[2]
    assert negative[2] > negative[0]
    widths = np.asarray(line.get_linewidth())
    assert widths[0] > widths[2] > widths[1]
    assert figure.axes[0].get_title() == "ECG"


def test_signal_time_axis():
    wave = np.arange(5.0)
    samples, seconds = plot.signal(wave, wave), plot.signal(wave, wave, sample_rate=4.0)
    assert samples.axes[0].get_xlabel() == "sample"
    assert seconds.axes[0].get_xlabel() == "time (s)"
    assert colored(samples.axes[0]).get_segments()[-1][-1, 0] == 4.0
    assert colored(seconds.axes[0]).get_segments()[-1][-1, 0] == 1.0  # sample 4 at 4 Hz


def test_signal_stacks_channels_with_one_limit(rng):
    wave, r = rng.normal(size=(2, 20, 3))
    r[7, 2] = -9.0
    figure = plot.signal(r, wave)
    first, middle, last = figure.axes[:3]
    for channel, ax in enumerate((first, middle, last)):
        np.testing.assert_array_equal(colored(ax).get_array(), r[:, channel])
        np.testing.assert_array_equal(
            [s[1][1] for s in colored(ax).get_segments()], wave[:, channel]
        )
        assert colored(ax).get_clim() == (-9.0, 9.0)
        assert ax.get_ylabel() == f"channel {channel}"
    assert [ax.get_xlabel() for ax in (first, middle, last)] == ["", "", "sample"]
    assert first.get_shared_x_axes().joined(first, last)


def test_signal_arguments_are_used():
    wave = np.linspace(0.0, 1.0, 4)
    figure = plot.signal(wave, wave, limit=0.5, cmap="bwr", colorbar=False)
    (ax,) = figure.axes
    assert colored(ax).get_clim() == (-0.5, 0.5)
    assert colored(ax).get_cmap().name == "bwr"
    np.testing.assert_allclose(
        np.asarray(colored(ax).get_linewidth())[-2:], 3.2
    )  # saturated from 0.5 on
    assert len(plot.signal(wave, wave).axes) == 2


def test_signal_draws_on_given_axes():
    wave = np.ones((6, 2))
    figure = Figure()
    given = figure.subplots(2)
    assert plot.signal(wave, wave, ax=given) is figure
    assert [len(ax.collections) for ax in given] == [1, 1]
    inside = figure.add_subfigure(figure.add_gridspec(1, 2)[0])
    assert plot.signal(wave[:, 0], wave[:, 0], ax=inside.subplots()) is figure
    with pytest.raises(
        ValueError, match="ax must have one Axes for each of the 2 channels, got 1; create"
    ):
        plot.signal(wave, wave, ax=given[0])


@pytest.mark.parametrize(
    ("shapes", "kwargs", "message"),
    [
        (
            ((5,), (6,)),
            {},
            r"relevance must have the shape of signal, \(6,\), got \(5,\); use both",
        ),
        (((5,), (5, 1)), {}, r"relevance must have the shape of signal, \(5, 1\), got \(5,\)"),
        (((1,), (1,)), {}, r"signal must have shape \(T,\) or \(T, C\) with T >= 2, got \(1,\)"),
        (
            ((2, 5, 1), (2, 5, 1)),
            {},
            r"signal must have shape \(T,\) or \(T, C\) with T >= 2, got \(2, 5, 1\); select one sample",
        ),
        (((3, 9), (3, 9)), {}, r"signal must have time first, \(T, C\), got \(3, 9\).*signal\.T"),
        (
            ((5,), (5,)),
            {"sample_rate": 0.0},
            r"sample_rate must be positive and finite, .* got 0\.0",
        ),
        (
            ((5,), (5,)),
            {"sample_rate": np.inf},
            r"sample_rate must be positive and finite, .* got inf",
        ),
        (((5,), (5,)), {"limit": -1.0}, r"limit must be positive and finite, got -1\.0"),
    ],
)
def test_signal_refuses(shapes, kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.signal(np.ones(shapes[0]), np.ones(shapes[1]), **kwargs)


# --- figures, notebooks and the extra -------------------------------------------------------------


def test_pyplot_does_not_hear_of_our_figures(rng):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    before, r = pyplot.get_fignums(), rng.normal(size=(4, 4))
    figure = Figure()
    ax = figure.add_subplot()
    plot.heatmap(r)
    plot.heatmap(r, ax=ax, colorbar=True)
    plot.overlay(r, np.ones((4, 4)), colorbar=True)
    plot.grid([r, r])
    plot.signal(r[0], r[0])
    assert pyplot.get_fignums() == before
    assert ax.figure is figure


def test_a_notebook_shows_what_is_returned(rng):
    r = rng.normal(size=(4, 4))
    shown = [
        plot.heatmap(r),
        plot.overlay(r, np.ones((4, 4))),
        plot.grid([r]),
        plot.signal(r[0], r[0]),
    ]
    for each in shown:
        assert each._repr_png_().startswith(b"\x89PNG\r\n")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_matplotlib_is_an_extra():
    code = """
import sys
import jaxlrp
assert not any(name.startswith("matplotlib") for name in sys.modules), "import jaxlrp"
import jaxlrp.plot
assert "matplotlib.pyplot" not in sys.modules, "import jaxlrp.plot"
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_names_the_command():
    code = "import sys; sys.modules['matplotlib'] = None; import jaxlrp.plot"
    last = run(code).stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: jaxlrp.plot requires matplotlib, which could not be imported; install it with: "
        'pip install "jaxlrp[plot]"'
    )


def test_public_names():
    assert plot.__all__ == sorted(plot.__all__)
    for name in plot.__all__:
        assert callable(getattr(plot, name))
        assert ">>>" in getattr(plot, name).__doc__
