"""Plots of tables: order, names, sums, colors, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxlrp as lrp
from jaxlrp import plot

# Mean |R| by column: 2, 5, 1, 3. Row sums: -2, 5.
R = np.array([[1.0, -5.0, 1.0, 1.0], [3.0, 5.0, 1.0, -4.0]])
R[1, 3] = -5.0
NAMES = ["a", "b", "c", "d"]
FRAME = pd.DataFrame(
    {
        "age": [30.5, np.nan],
        "place": pd.Categorical(["sea", "land"], categories=["sea", "land", "air"]),
        "mood": ["good", "bad"],
        "smokes": [True, False],
    }
)
DRAW = {
    "bar": plot.bar,
    "beeswarm": plot.beeswarm,
    "waterfall": lambda r, v=None, **k: plot.waterfall(r, v, sample=0, output=1.0, **k),
    "scatter": lambda r, v=FRAME, **k: plot.scatter(r, FRAME if v is None else v, 0, **k),
}
ROWS = ("bar", "beeswarm", "waterfall")


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def widths(ax):
    return [float(bar.get_width()) for bar in ax.patches]


def drawn(ax):
    FigureCanvasAgg(ax.figure).draw()
    return ax


def points(ax):
    """Of each collection of points: places and colors."""
    drawn(ax)
    return [(np.asarray(c.get_offsets()), c.get_facecolors()) for c in ax.collections]


# --- order, names, sums -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_sorted_by_size_and_the_rest_is_summed(name):
    few = labels(DRAW[name](R, names=NAMES, max_display=3))
    order = "bac" if name == "waterfall" else "bda"  # of one sample: 1, -5, 1, 1
    assert few[:3] == [*order[:2], "2 other features"]
    assert labels(DRAW[name](R, names=NAMES, max_display=4))[:3] == list(order)
    assert labels(DRAW[name](R, names=NAMES, max_display=1))[0] == "4 other features"


def test_bars_are_means_of_magnitudes():
    assert widths(plot.bar(R, max_display=3)) == [5.0, 3.0, 3.0]
    assert labels(plot.bar(R)) == ["feature 1", "feature 3", "feature 0", "feature 2"]


def test_bars_of_one_sample_are_signed():
    for one in (plot.bar(R, sample=1, names=NAMES, max_display=3), plot.bar(R[1], max_display=3)):
        assert widths(one) == [5.0, -5.0, 4.0]
        blue, red = (one.patches[i].get_facecolor() for i in (1, 0))
        assert blue[2] > blue[0]
        assert red[0] > red[2]
    assert widths(plot.bar(R, sample=-1)) == widths(plot.bar(R[1:]))


def test_bars_by_class():
    r = np.concatenate([R, 3 * R[:1]])
    ax = plot.bar(r, names=NAMES, by=["x", "y", "x"], max_display=2)
    assert widths(ax) == [10.0, 6.0, 5.0, 9.0]  # b and the rest: of x, then of y
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x (2)", "y (1)"]
    assert len(plot.bar(R[:1], by=["x"]).get_legend().get_texts()) == 1


@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize("max_display", [1, 2, 9])
def test_a_waterfall_goes_from_zero_to_the_output(sample, max_display):
    ax = plot.waterfall(R, sample=sample, output=7.5, max_display=max_display)
    left = [float(bar.get_x()) for bar in ax.patches]
    ends = [x + width for x, width in zip(left, widths(ax), strict=True)]
    assert ends[0] == 7.5
    assert left[-1] == 0.0
    assert ends[1:] == left[:-1]
    assert widths(ax)[-1] == 7.5 - R[sample].sum()
    np.testing.assert_allclose(sum(widths(ax)[:-1]), R[sample].sum(), rtol=1e-12)


def test_a_waterfall_may_begin_where_relevance_does():
    ax = plot.waterfall([2.0, -1.0], output=1001.0, from_zero=False)
    low, high = ax.get_xlim()
    assert 998 < low < 999
    assert 1001 < high < 1002
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["+2", "\N{MINUS SIGN}1", "+1,000", "output = 1,001"]
    assert plot.waterfall([2.0, -1.0], output=1001.0).get_xlim()[0] == 0.0


def model(x):
    hidden = jax.nn.relu(x @ jnp.array([[1.0, -1.0], [2.0, 1.0]]) + 0.5)
    return hidden @ jnp.array([1.0, 3.0]) - 2.0


def test_a_waterfall_of_an_explanation_says_what_was_absorbed():
    x = jnp.array([[1.0, 2.0], [1.0, 0.5]])
    explain = lrp.explain(model)
    found = explain(x)
    # hidden = [5.5, 1.5], output = 8; relevance = [1 - 3, 4 + 6]; biases = .5 + 1.5 - 2
    ax = plot.waterfall(found, sample=0, names=["u", "v"])
    np.testing.assert_allclose(widths(ax), [10.0, -2.0, 0.0], atol=1e-4)
    # hidden = [2.5, 0], output = .5; relevance = [1, 1]; biases = .5 - 2
    ax = plot.waterfall(found, sample=1, ledger=explain.ledger(x[1:]))
    assert labels(ax)[-1] == "absorbed: biases \N{MINUS SIGN}1.5"
    with pytest.raises(ValueError, match=r"ledger must be of this sample alone, with output 8 and"):
        plot.waterfall(found, sample=0, ledger=explain.ledger(x))
    two = lrp.explain(lambda x: x @ jnp.eye(2))(x, target=1)
    with pytest.raises(
        ValueError, match=r"several outputs per sample, here \(2, 2\) for 2 samples"
    ):
        plot.waterfall(two, sample=0)
    assert plot.waterfall(two, sample=0, output=two.output[0, 1]).patches[0].get_width() == 2.0


# --- frames -----------------------------------------------------------------------------------------


def test_names_and_values_of_a_frame():
    assert labels(plot.beeswarm(R, FRAME)) == ["place", "smokes", "age", "mood"]
    shown = labels(plot.bar(R, FRAME, sample=1))
    assert shown == ["place = land", "smokes = False", "age = missing", "mood = bad"]
    assert labels(plot.bar(R[0], FRAME.iloc[0]))[:2] == ["place = sea", "age = 30.5"]
    assert labels(plot.bar(R[0], FRAME.iloc[0], names=NAMES))[0] == "b = sea"
    unknown = FRAME.assign(place=pd.Categorical([None, "sea"]))
    assert labels(plot.bar(R, unknown, sample=0))[0] == "place = missing"
    nullable = FRAME.assign(
        place=pd.array([3, None], "Int64"), mood=pd.array([None, "x"], "string")
    )
    assert labels(plot.bar(R, nullable, sample=1))[::3] == ["place = missing", "mood = x"]
    assert labels(plot.bar(R[0], [1.0, np.inf, 2.0, 3.0]))[0] == "feature 1 = missing"
    with pytest.raises(ValueError, match=r"unique names, got \['a', 'b', 'a', 'c'\]"):
        plot.bar(R, pd.DataFrame(R, columns=list("abac")))
    objects = np.array([["u", None], ["v", 1.5]], object)
    assert labels(plot.bar(R[:, :2], objects, sample=0)) == [
        "feature 1 = missing",
        "feature 0 = u",
    ]
    numbers = plot.bar(R[0], [[1, 25000, 0.123456, -4e9]])
    assert labels(numbers)[:3] == ["feature 1 = 25,000", "feature 0 = 1", "feature 2 = 0.1235"]
    assert labels(numbers)[3] == "feature 3 = \N{MINUS SIGN}4e+09"


def test_colors_are_those_of_values():
    x = np.arange(8.0)[:, None]
    r = np.concatenate([x - 3.5, -0.1 * x], axis=1)
    values = np.concatenate([x, 7 - x], axis=1)
    values[0, 0] = np.nan
    (missing, gray), (places, colors), *_ = points(plot.beeswarm(r, values, cmap="viridis"))
    assert missing[:, 0].tolist() == [-3.5]
    assert gray.tolist() == [[0.75, 0.75, 0.75, 1.0]]
    np.testing.assert_array_equal(places[:, 0], r[1:, 0])
    np.testing.assert_allclose(colors[0], colormaps["viridis"](0.0))
    np.testing.assert_allclose(colors[-1], colormaps["viridis"](1.0))
    ((_, plain),) = points(plot.beeswarm(r[:, :1]))
    assert len(plain) == 1


def test_no_two_points_of_a_swarm_coincide():
    r = np.random.default_rng(0).normal(size=300).round(1)[:, None]
    ((places, _),) = points(plot.beeswarm(r))
    assert len(np.unique(places, axis=0)) == 300
    assert np.abs(places[:, 1]).max() <= 0.4
    ((few, _),) = points(plot.beeswarm([[1.0], [1.0], [3.0]]))
    np.testing.assert_allclose(few[:, 1], [-0.04, 0.04, 0.0])
    *_, (rest, _) = points(plot.beeswarm(R, FRAME, max_display=2))
    assert rest[:, 0].tolist() == [3.0, -1.0]


def test_scatter_puts_relevance_over_values():
    values = np.array([[1.0, 5.0], [2.0, 6.0], [np.nan, 7.0]])
    r = np.array([[10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    ((places, colors),) = points(plot.scatter(r, values, "a", color="b", names=["a", "b"]))
    assert places.tolist() == [[1.0, 10.0], [2.0, 20.0]]
    assert not np.array_equal(colors[0], colors[1])
    ax = plot.scatter(R, FRAME, "place", color="mood")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["sea", "land", "air"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["bad", "good"]
    ((land, _), (sea, _)) = points(ax)  # in the order of moods
    assert (round(sea[0, 0]), sea[0, 1]) == (0, -5.0)
    assert (round(land[0, 0]), land[0, 1]) == (1, 5.0)


# --- what all do ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAW)
def test_axes_of_the_user_and_nothing_else(name):
    own = Figure().add_subplot()
    assert DRAW[name](R, FRAME, ax=own, title="t") is own
    assert own.get_title() == "t"
    figure = DRAW[name](R, FRAME).figure
    assert figure._repr_png_().startswith(b"\x89PNG")
    r, values = R.copy(), np.arange(8.0).reshape(2, 4)
    r.flags.writeable = values.flags.writeable = False
    drawn(DRAW[name](jnp.asarray(r), jnp.asarray(values)))
    drawn(DRAW[name](r, values))
    drawn(DRAW[name](0 * r, 0 * values))


@pytest.mark.parametrize("name", DRAW)
def test_what_does_not_match_is_refused(name):
    draw = DRAW[name]
    with pytest.raises(ValueError, match=r"relevance must have shape \(F,\) or \(N, F\), got \(2,"):
        draw(R[..., None])
    with pytest.raises(ValueError, match="relevance must be finite"):
        draw(R * np.nan)
    with pytest.raises(ValueError, match=r"values must have the shape of relevance, \(2, 4\), got"):
        draw(R, FRAME[["age"]])
    with pytest.raises(ValueError, match="names must have 4 entries, one per column of relevance"):
        draw(R, FRAME, names=["a"])
    with pytest.raises(TypeError, match=r'names must be a sequence such as \["age", "income"\]'):
        draw(R, FRAME, names="abcd")
    with pytest.raises(TypeError, match="values must contain numbers or labels, got dtype complex"):
        draw(R, R * 1j)
    both = lrp.explain(lambda a, b: (a + b).sum(1), argnums=(0, 1))(
        jnp.ones((2, 4)), jnp.ones((2, 4))
    )
    with pytest.raises(TypeError, match=r"one array, but this explanation has 2"):
        draw(both, FRAME)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot.bar(R, max_display=0), ValueError, "max_display must be an integer >= 1"),
        (lambda: plot.bar(R, sample=2), ValueError, "sample must be a position below 2, got 2"),
        (lambda: plot.bar(R, sample="a"), TypeError, "sample must be an integer, got 'a'"),
        (lambda: plot.bar(R, sample=0, by=[0, 1]), ValueError, "by must be None for one sample"),
        (lambda: plot.bar(R, by=[0]), ValueError, "by must have one label for each of the 2 sam"),
        (lambda: plot.waterfall(R, output=1.0), ValueError, "sample must be given for 2 samples"),
        (lambda: plot.waterfall(R[0]), ValueError, "output must be given with an array of rel"),
        (
            lambda: plot.waterfall(R, sample=0, output=[1.0, 2.0]),
            ValueError,
            r"output must be one number, that of the sample, got shape \(2,\)",
        ),
        (lambda: plot.scatter(R, None, 0), ValueError, "values must be the table that was expl"),
        (
            lambda: plot.scatter(R, FRAME, "sex"),
            ValueError,
            "feature must be one of the 4 columns, got 'sex'; they are 'age', 'place'",
        ),
        (lambda: plot.scatter(R, FRAME, 0, color=4), ValueError, "color must be a position below"),
        (lambda: plot.scatter(R, FRAME, 1.0), TypeError, "feature must be the name or position"),
        (
            lambda: plot.scatter(R, np.full((2, 4), np.nan), 0),
            ValueError,
            "values of 'feature 0' must not all be missing",
        ),
    ],
)
def test_what_one_plot_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
