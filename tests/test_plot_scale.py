"""How maps are made readable: clipping that is stated, coarser maps, grids, ends of axes, legends."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxlrp import plot

OUTLIER = np.array(
    [[1.0, -2.0, 3.0, 0.0, 1000.0]]
)  # the 75th percentile of 1, 2, 3, 1000 is 252.25


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def label(figure):
    return figure.axes[-1].get_ylabel()


def test_percentile_is_of_nonzero_magnitudes_and_stands_on_the_bar():
    drawn = plot.heatmap(OUTLIER, percentile=75, colorbar=True)
    assert drawn.images[0].get_clim() == (-252.25, 252.25)
    assert label(drawn.figure) == "relevance, clipped at percentile 75"
    np.testing.assert_array_equal(
        plot.to_rgb(OUTLIER, percentile=75), plot.to_rgb(OUTLIER, limit=252.25)
    )
    whole = plot.heatmap(OUTLIER, percentile=100, colorbar=True)
    assert whole.images[0].get_clim() == (-1000.0, 1000.0)
    assert label(whole.figure) == "relevance"


def test_a_limit_below_the_largest_says_clipped():
    assert label(plot.heatmap(OUTLIER, limit=3.0, colorbar=True).figure) == "relevance, clipped"
    assert label(plot.heatmap(OUTLIER, limit=1e3, colorbar=True).figure) == "relevance"
    wave = np.linspace(-1.0, 1.0, 5)
    assert label(plot.signal(wave, wave, limit=0.5)) == "relevance, clipped"
    assert label(plot.panel([[1.0, 2.0]], limit=1.0).figure) == "relevance, clipped"
    assert label(plot.spectrum(wave, abs(wave), limit=0.5).figure) == "relevance, clipped"


def test_grid_clips_each_map_or_all_at_the_percentile():
    maps = [OUTLIER, OUTLIER / 2]
    own = plot.grid(maps, percentile=75)
    assert [ax.images[0].get_clim()[1] for ax in own.axes[:2]] == [252.25, 126.125]
    ends = [tick.get_text() for tick in own.axes[-1].get_yticklabels()]
    assert ends == ["\N{MINUS SIGN}p75", "0", "+p75"]
    shared = plot.grid(maps, percentile=75, share_limit=True)
    (limit,) = {ax.images[0].get_clim()[1] for ax in shared.axes[:2]}
    assert limit == np.percentile([1, 2, 3, 1000, 0.5, 1, 1.5, 500], 75)
    assert label(own) == label(shared) == "relevance, clipped at percentile 75"


def test_pool_by_hand():
    found = plot.heatmap(np.arange(15.0).reshape(3, 5), pool=2).images[0].get_array()
    want = [
        [3, 3, 5, 5, 6.5],
        [3, 3, 5, 5, 6.5],
        [10.5, 10.5, 12.5, 12.5, 14],
    ]  # smaller at the edge
    np.testing.assert_array_equal(found, want)


def test_pool_and_smooth_keep_the_sum_and_the_other_axis(rng):
    r = rng.normal(size=(9, 7))
    for kwargs in ({"pool": 4}, {"smooth": 2.0}, {"pool": 3, "smooth": 1.0}):
        found = plot.heatmap(r, **kwargs).images[0].get_array()
        np.testing.assert_allclose(found.sum(), r.sum(), rtol=1e-12)
        assert not np.allclose(found, r)
    one = np.zeros((41, 41))
    one[20, 20] = 1.0
    found = np.asarray(plot.heatmap(one, smooth=2.0).images[0].get_array())
    down, across = (np.arange(41) - 20.0,) * 2
    np.testing.assert_allclose(
        found.sum(1) @ down**2, 4.0, rtol=1e-6
    )  # the variance, smooth squared
    np.testing.assert_allclose(found.sum(0) @ across**2, 4.0, rtol=1e-6)


def test_smooth_removes_a_checkerboard():
    r = 1.0 + np.indices((16, 16)).sum(axis=0) % 2 * 2.0 - 1.0  # 0 and 2
    found = np.asarray(plot.heatmap(r, smooth=2.0).images[0].get_array())
    np.testing.assert_allclose(found, 1.0, atol=0.05)  # at the edges too


def test_overlay_and_grid_draw_the_coarse_map(rng):
    r, image = rng.normal(size=(6, 6, 3)), rng.uniform(size=(6, 6, 3))
    want = plot.to_rgb(plot.heatmap(r, pool=2, smooth=0.5).images[0].get_array(), image=image)
    drawn = plot.overlay(r, image, pool=2, smooth=0.5)
    np.testing.assert_array_equal(drawn.images[0].get_array(), want)
    for maps in ([r], {"a": [r]}):
        figure = plot.grid(maps, images=[image], overlay=True, pool=2, smooth=0.5)
        np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), want)


def test_rescale_takes_an_image_of_any_range(rng):
    r, image = rng.normal(size=(4, 4)), rng.uniform(size=(4, 4, 3))
    image[0, 0, 0], image[1, 1, 1] = 0.0, 1.0
    far = (8.0 * image - 3.0).astype(np.float64)
    with pytest.raises(ValueError, match=r"in \[-3, 5\].*or pass rescale=True"):
        plot.overlay(r, far)
    want = plot.to_rgb(r, image=image).astype(int)
    assert np.abs(want - plot.to_rgb(r, image=far, rescale=True)).max() <= 1
    drawn = plot.overlay(r, far, rescale=True).images[0].get_array()
    assert np.abs(want - drawn).max() <= 1
    figure = plot.grid([r], images=far, overlay=True, rescale=True)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), image, atol=1e-12)
    flat = plot.to_rgb(np.zeros((2, 2)), image=np.full((2, 2), 7.0), rescale=True)
    assert (flat == 0).all()


@pytest.mark.parametrize(
    ("count", "rows"),
    [(1, [1]), (5, [5]), (6, [3, 3]), (7, [4, 3]), (8, [4, 4]), (10, [5, 5]), (13, [5, 5, 3])],
)
def test_grid_wraps_many_maps(count, rows):
    figure = plot.grid([np.ones((2, 2))] * count)
    placed = [ax.get_subplotspec().rowspan.start for ax in figure.axes[:-1]]
    assert [placed.count(row) for row in range(len(rows))] == rows
    assert len(placed) == count


@pytest.mark.parametrize("count", [11, 16, 21])
def test_the_last_row_of_a_grid_is_at_least_half_full(count):
    figure = plot.grid([np.ones((1, 1))] * count)
    placed = [ax.get_subplotspec().rowspan.start for ax in figure.axes[:-1]]
    assert placed.count(max(placed)) >= placed.count(0) / 2


def test_axes_end_where_the_signal_ends():
    wave = np.sin(np.arange(9.0))
    assert plot.signal(wave, wave).axes[0].get_xlim() == (0.0, 8.0)
    seconds = plot.signal(wave[:, None], wave[:, None], sample_rate=4.0)
    assert seconds.axes[0].get_xlim() == (0.0, 2.0)


def test_text_legend_shows_the_scale():
    plain = plot.text(["good", "bad"], [2.0, -1.0])
    found = plot.text(["good", "bad"], [2.0, -1.0], legend=True)
    assert found.terminal.startswith(plain.terminal + "\n")
    written = re.sub(r"\x1b\[[\d;]*m", "", found.terminal).split("\n")[-1]
    assert written == "relevance  -2 -1 0 +1 +2"
    colors = re.findall(r"background:(#\w{6})", found.html)
    assert len(colors) == 7
    assert (colors[2], colors[3], colors[4]) == (*_of([-2.0, -1.0]), "#ffffff")
    assert colors[6] == colors[0]  # +2, as "good"
    assert colors[3] == colors[1]  # -1, as "bad"


def _of(values):
    return re.findall(r"background:(#\w{6})", plot.text(["a", "b"], values, limit=2.0).html)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"pool": 0}, ValueError, r"pool must be >= 1, in pixels, got 0"),
        ({"pool": 1.5}, TypeError, r"pool must be an integer, in pixels, got 1\.5"),
        ({"smooth": -1.0}, ValueError, r"smooth must be >= 0 and finite, in pixels, got -1\.0"),
        ({"percentile": 0.0}, ValueError, r"percentile must be in \(0, 100\], got 0\.0"),
        ({"percentile": 99, "limit": 1.0}, ValueError, r"percentile must be None with limit=1\.0, got 99"),
    ],
)  # fmt: skip
def test_what_is_refused(kwargs, error, message):
    r = np.ones((2, 2))
    calls = [plot.heatmap, plot.to_rgb, lambda r, **kwargs: plot.overlay(r, r, **kwargs)]
    if "limit" not in kwargs:
        calls.append(lambda r, **kwargs: plot.grid([r], **kwargs))
    for call in calls:
        with pytest.raises(error, match=message):
            call(r, **kwargs)


def test_rescale_without_an_image_is_refused():
    for call in (plot.to_rgb, lambda r, **kwargs: plot.grid([r], **kwargs)):
        with pytest.raises(ValueError, match="rescale must be False without"):
            call(np.ones((2, 2)), rescale=True)
