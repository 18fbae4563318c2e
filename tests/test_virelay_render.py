"""Tests of signals and text as pictures: where the ink is, and where the relevance."""

from __future__ import annotations

import numpy as np
import pytest

from jaxlrp.virelay import render_signals, render_tokens

RNG = np.random.default_rng(0)


def ink(picture: np.ndarray) -> np.ndarray:
    """Where a picture is dark."""
    return np.asarray(picture) < 128


# Signals


@pytest.mark.parametrize("length", [2, 3, 40, 64, 100, 1000])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_a_map_has_the_sum_of_its_relevance(length, channels):
    shape = (5, length, channels) if channels else (5, length)
    relevance = RNG.normal(size=shape)
    maps = render_signals(RNG.normal(size=shape), relevance, height=48, width=64).relevance
    assert maps.shape == (5, 48, 64)
    found = np.asarray(maps, np.float64)
    if channels:
        panels = found.reshape(5, channels, -1).sum(axis=2)
        np.testing.assert_allclose(panels, relevance.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(
        found.sum(axis=(1, 2)), relevance.reshape(5, -1).sum(axis=1), atol=1e-5
    )


def test_relevance_lies_at_its_time():
    relevance = np.zeros((1, 4))
    relevance[0, 2] = 24.0
    found = render_signals(np.ones((1, 4)), relevance, height=8, width=12).relevance[0]
    expected = np.zeros((8, 12))
    expected[:, 6:9] = 1.0  # the third quarter of the time, 24 over 3 x 8 pixels
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_columns_share_a_sample_by_time():
    """3 samples in 2 columns: the second lies in both, half and half."""
    found = render_signals(np.ones((1, 3)), [[1.0, 10.0, 100.0]], height=8, width=4).relevance[0]
    # Columns of 3/4 of a sample: all of it in the first, then a quarter and half of the next, ...
    np.testing.assert_allclose(found[0] * 8, [0.75, 0.25 + 5.0, 5.0 + 25.0, 75.0], rtol=1e-6)


def test_the_line_goes_through_the_samples():
    signal = np.array([[0.0, 1.0, 0.5, 1.0, 0.0]])
    picture = ink(render_signals(signal, signal, height=101, width=100).images[0])
    expected = 100 - (8.08 + signal[0] * (100 - 2 * 8.08))  # 8 % of the height is margin
    for sample, (column, row) in enumerate(zip((9, 30, 50, 69, 90), expected, strict=True)):
        rows = np.flatnonzero(picture[:, column])
        assert rows.size, sample
        assert rows.min() - 2 <= row <= rows.max() + 2
    assert picture[50].any()
    assert not picture[:5].any()
    assert not picture[-5:].any()


def test_up_is_up():
    rising = np.linspace(0.0, 1.0, 50)[None]
    picture = ink(render_signals(rising, rising, height=64, width=64).images[0])
    rows = [np.flatnonzero(picture[:, column]).mean() for column in (2, 20, 40, 61)]
    assert rows == sorted(rows, reverse=True)


def test_the_line_has_no_gaps():
    signal = RNG.normal(size=(3, 37))
    for picture in np.asarray(render_signals(signal, signal, height=80, width=90).images):
        dark = picture < 250
        for column in range(89):
            here, there = (np.flatnonzero(dark[:, c]) for c in (column, column + 1))
            assert here.min() <= there.max() + 1
            assert there.min() <= here.max() + 1


def test_no_peak_is_lost():
    """One sample of 100,000 stands out."""
    signal = np.zeros((1, 100_000))
    signal[0, 70_123] = 1.0
    picture = ink(render_signals(signal, signal, height=100, width=200).images[0])
    assert np.flatnonzero(picture[:50].any(axis=0)).tolist() == [140]


def test_a_flat_signal_is_a_line_in_the_middle():
    picture = ink(
        render_signals(np.full((1, 9), 3.0), np.ones((1, 9)), height=41, width=20).images[0]
    )
    assert np.flatnonzero(picture.any(axis=1)).tolist() == [20]


def test_range_of_values():
    signal = np.array([[1.0, 1.0], [5.0, 5.0]])
    pictures = ink(render_signals(signal, signal, height=101, width=8, value_range=(0, 2)).images)
    assert np.flatnonzero(pictures[0].any(axis=1)).tolist() == [50]
    assert not pictures[1].any()  # beyond the edge


def test_channels_have_panels():
    signal = np.zeros((1, 20, 2))
    signal[0, :, 1] = np.linspace(0, 1, 20)
    relevance = np.zeros_like(signal)
    relevance[..., 1] = 1.0
    pictures = render_signals(signal, relevance, height=61, width=40)
    assert ink(pictures.images[0])[:30].any()
    assert ink(pictures.images[0])[31:].any()
    panels = pictures.relevance[0].sum(axis=1)
    assert not panels[:30].any()
    assert panels[31:].all()


def test_slices_are_parts_of_the_whole():
    signal = RNG.normal(size=(7, 30))
    pictures = render_signals(signal, signal)
    for array in pictures:
        whole = np.asarray(array)
        assert (whole.shape, whole.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(array[2:5], whole[2:5])
        np.testing.assert_array_equal(array[-1], whole[6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals": np.ones(5)}, r"signals must have shape \(N, T\)"),
        (
            {"signals": np.ones((2, 1)), "relevance": np.ones((2, 1))},
            r"T\) or \(N, T, C\) with T >= 2,",
        ),
        ({"relevance": np.ones((2, 6))}, r"the shape of signals, \(2, 5\), got \(2, 6\)"),
        ({"height": 7}, "height must be at least 8 for 1 channels"),
        ({"width": 3}, "width at least 4"),
        ({"value_range": (1, 1)}, "value_range must be"),
    ],
)
def test_refuses_signals(changes, message):
    arguments = {"signals": np.ones((2, 5)), "relevance": np.ones((2, 5)), **changes}
    with pytest.raises(ValueError, match=message):
        render_signals(arguments.pop("signals"), arguments.pop("relevance"), **arguments)


def test_refuses_what_is_not_finite_when_drawn():
    pictures = render_signals(np.full((2, 5), np.nan), np.ones((2, 5)))
    with pytest.raises(
        ValueError, match="signals must be finite, got NaN or infinity in rows 0 to 1"
    ):
        pictures.images[:]


# Text


def boxes(picture: np.ndarray) -> dict[float, tuple[slice, slice]]:
    """The box of each value of a map."""
    found = {}
    for value in np.unique(picture[picture != 0]):
        rows, columns = np.nonzero(picture == value)
        found[float(value)] = (
            slice(rows.min(), rows.max() + 1),
            slice(columns.min(), columns.max() + 1),
        )
        assert (picture[found[float(value)]] == value).all()
    return found


def test_each_token_has_a_box_with_its_letters():
    words, values = ["a", "great", "film", "##s"], [1.0, 2.0, -3.0, 4.0]
    pictures = render_tokens([words], [values])
    dark, found = ink(pictures.images[0]), boxes(pictures.relevance[0])
    assert set(found) == set(values)
    for box in found.values():
        assert dark[box].any()
    assert not dark[pictures.relevance[0] == 0].any()  # no letter outside
    left = [found[v][1].start for v in values]
    assert left == sorted(left)
    assert found[-3.0][1].stop == found[4.0][1].start  # one word
    assert found[2.0][1].stop < found[-3.0][1].start  # a space
    # As long as it is written.
    wide = {v: found[v][1].stop - found[v][1].start for v in values}
    assert wide[1.0] < wide[-3.0] < wide[2.0]


def test_long_sentences_go_on_in_a_new_line():
    words = ["word"] * 12
    pictures = render_tokens([words, ["a"]], [np.arange(1.0, 13.0), [1.0]], width=160)
    found = boxes(pictures.relevance[0])
    lines = [found[v][0].start for v in np.arange(1.0, 13.0)]
    assert lines == sorted(lines)
    assert len(set(lines)) > 2
    assert all(box[1].stop <= 154 for box in found.values())
    alone = render_tokens([["a"]], [[1.0]], width=160)
    assert pictures.images.shape[1] > alone.images.shape[1]  # all as high as the longest


def test_a_word_stays_on_its_line():
    words = ["▁aaaa", "▁bb", "bbbb", "bbb", "▁c"]
    found = boxes(render_tokens([words], [[1, 2, 3, 4, 5.0]], width=130).relevance[0])
    assert found[1.0][0] != found[2.0][0] == found[3.0][0] == found[4.0][0]


def test_a_word_longer_than_a_line_is_broken():
    words = ["aaaaaaaa", "##bbbbbbbb", "##cccccccc"]
    found = boxes(render_tokens([words], [[1, 2, 3.0]], width=190).relevance[0])
    assert found[1.0][0] == found[2.0][0] != found[3.0][0]


def test_padding_is_ignored():
    found = render_tokens([["a", "b"], ["c"]], np.array([[1.0, 2.0], [3.0, np.nan]]))
    assert set(boxes(found.relevance[1])) == {3.0}


def test_what_cannot_be_printed_is_a_dot():
    found = render_tokens([["a\n", "$x^2$"]], [[1.0, 2.0]])
    assert ink(found.images[0]).any()  # no line break, no formula


@pytest.mark.parametrize(
    ("tokens", "relevance", "options", "message"),
    [
        (["a", "b"], [1.0, 2.0], {}, "a sequence of sentences"),
        ([], [], {}, "a sequence of sentences"),
        ([["a"]], [[1.0], [2.0]], {}, "relevance must have 1 sentences, got 2"),
        ([["a"]], [[1.0]], {"font_size": 5}, "font_size must be at least 6"),
        (
            [["a", "verylongword"]],
            [[1.0, 2.0]],
            {"width": 40},
            r"width must be at least \d+ pixels for",
        ),
    ],
)
def test_refuses_text(tokens, relevance, options, message):
    with pytest.raises(ValueError, match=message):
        render_tokens(tokens, relevance, **options)


def test_refuses_numbers_for_tokens():
    with pytest.raises(TypeError, match="tokens must be strings, got 7 in sentence 1"):
        render_tokens([["a"], [7]], [[1.0], [1.0]])


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_refuses_relevance_of_text_when_drawn(values):
    pictures = render_tokens([["a", "b"]], [values])
    with pytest.raises(ValueError, match="sentence 0 must be 2 finite numbers, one per token,"):
        pictures.relevance[:]
