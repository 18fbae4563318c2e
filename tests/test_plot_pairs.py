"""Lines between two inputs."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from jaxlrp import plot

WORDS = ["a", "dog"], ["one", "cat", "sat"]
VALUES = np.array([[2.0, 0.0, 0.5], [0.0, -4.0, 0.0]])


def lines(axes):
    (found,) = (c for c in axes.collections if isinstance(c, LineCollection))
    return found


def test_sentences():
    """Wide lines for large relevance, the largest last; none for zeros; red for, blue against."""
    drawn = lines(plot.pairs(VALUES, *WORDS))
    np.testing.assert_allclose(drawn.get_linewidths(), [3 / 8, 3 / 2, 3])
    np.testing.assert_allclose(drawn.get_colors()[:, 3], [1 / 8, 1 / 2, 1])
    red, blue = drawn.get_colors()[1], drawn.get_colors()[2]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    # the shorter column is centered: its words are half a row lower
    assert drawn.get_segments()[2].tolist() == [[0, 1.5], [1, 1]]
    assert len(lines(plot.pairs(VALUES, *WORDS, top=1)).get_segments()) == 1


def test_pictures():
    """A line joins the centers of two tiles; the right picture is scaled to the height of the left."""
    values = np.zeros((2, 2, 1, 2))
    values[1, 0, 0, 1] = 1.0
    left, right = np.zeros((4, 8)), np.zeros((2, 2, 3))
    axes = plot.pairs(values, left, right)
    (line,) = lines(axes).get_segments()
    assert line.tolist() == [[2, 3], [13, 2]]  # the right one begins at 1.25 * 8 and is 4 wide
    assert axes.get_xlim() == (0, 14)


def test_nothing_relevant():
    assert not lines(plot.pairs(np.zeros((2, 3)), *WORDS)).get_segments()


@pytest.mark.parametrize(
    ("relevance", "left", "message"),
    [
        (VALUES, ["a"], "left must be 2 words, as many as relevance has on this side, got 1"),
        (VALUES, [1, 2], "got 2 of int"),
        (np.zeros(3), ["a"], r"relevance must have shape \(words, words\)"),
        (VALUES * np.nan, WORDS[0], "relevance"),
    ],
)
def test_errors(relevance, left, message):
    with pytest.raises(ValueError, match=message):
        plot.pairs(relevance, left, WORDS[1])
