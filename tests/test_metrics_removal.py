"""What features of an input are, and what takes the place of those that are removed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from jaxlrp.metrics import features, removal

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@functools.cache
def compiled(removed):
    return jax.jit(removed.__call__)


def run(removed, x, keep, drawn=None):
    """Inputs without some values, as NumPy."""
    return np.asarray(compiled(removed)(jnp.asarray(x), jnp.asarray(keep), drawn))


class TestFeatures:
    def test_blocks_by_hand(self):
        blocks = features.Blocks((0, 1), (2, 3))
        expected = [[0, 0, 0, 1], [0, 0, 0, 1], [2, 2, 2, 3]]
        assert blocks.labels((7, 3, 4, 2))[0, ..., 0].tolist() == expected
        assert blocks.labels((7, 3, 4, 2)).shape == (1, 3, 4, 1)
        assert blocks.count((7, 3, 4, 2)) == 4
        assert blocks.sizes((7, 3, 4, 2)).tolist() == [[6, 2, 3, 1]]

    @pytest.mark.parametrize(
        ("axes", "count"), [(0, 3), (-1, 2), ((-2, 0), 12), ((0, 1, 2), 24), ((1, -1), 8)]
    )
    def test_axes_are_those_of_an_example(self, axes, count):
        blocks = features.Blocks(axes)
        assert blocks.count((5, 3, 4, 2)) == count == int(blocks.labels((5, 3, 4, 2)).max()) + 1

    def test_totals_by_hand(self):
        a = jnp.arange(12.0).reshape(1, 2, 3, 2)
        assert features.Elements().total(a, (1, 2, 3, 2)).tolist() == [list(range(12))]
        assert features.Blocks(0).total(a, (1, 2, 3, 2)).tolist() == [[15, 51]]
        assert features.Blocks((0, 1), 2).total(a, (1, 2, 3, 2)).tolist() == [[36, 30]]
        one_channel = a.sum(-1, keepdims=True)
        assert features.Blocks((0, 1), 2).total(one_channel, (1, 2, 3, 2)).tolist() == [[36, 30]]

    def test_segments_that_a_sample_lacks(self):
        segments = features.Segments(jnp.array([[0, 2, 2], [1, -1, 0]]))
        a = jnp.array([[1.0, 2, 4], [8, 16, 32]])
        assert segments.total(a, (2, 3)).tolist() == [[1, 0, 6], [32, 8, 0]]
        assert segments.present((2, 3)).tolist() == [[True, False, True], [True, True, False]]
        values = jnp.array([[10, 20, 30], [40, 50, 60]])
        assert segments.spread(values, (2, 3), absent=-7).tolist() == [[10, 30, 30], [50, -7, 40]]
        which = jnp.array([1, 1, 0])
        found = segments.spread(values[which], (2, 3), absent=-7, which=which)
        assert found.tolist() == [[50, -7, 40], [50, -7, 40], [10, 30, 30]]

    def test_superpixels(self):
        side = np.zeros((2, 32, 32), bool)
        side[0, :, 13:], side[1, 9:] = True, True
        images = 50.0 * side[..., None] + RNG.uniform(0, 0.1, (2, 32, 32, 3))
        labels = np.asarray(features.superpixels(images, 16).segmentation)
        assert labels.shape == (2, 32, 32, 1)
        for own, found in zip(side, labels[..., 0], strict=True):
            assert sorted(set(found.flat)) == list(range(found.max() + 1))
            assert 8 <= found.max() <= 20
            assert not set(found[own]) & set(found[~own])  # none crosses the edge
        one = features.superpixels(images[..., 0], 16, channel_axis=None, compactness=1)
        assert np.shape(one.segmentation) == (2, 32, 32)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: features.Blocks(2).count((1, 4, 4)), r"axis 2 of features\.Blocks does not exist"),
            (lambda: features.Blocks((0, -2)).count((1, 4, 4)), r"must differ, got \(0, -2\)"),
            (lambda: features.Blocks((0, 1), (4, 5)).count((1, 4, 4)), "size 5 .* larger than axis 1"),
            (lambda: features.Blocks(()), "at least one axis"),
            (lambda: features.Blocks(0, 0), "size must be an integer >= 1, got 0"),
            (lambda: features.Segments(np.full((1, 3), -1)), "no label >= 0"),
            (lambda: features.Segments(np.array([[4]]), 3), "5 segments, more than number=3"),
            (lambda: features.Segments(np.zeros((2, 3), int)).labels((1, 3)), "broadcasts to the inputs"),
            (
                lambda: features.Elements().total(jnp.ones((1, 4, 1)), (1, 4, 2)),
                "have one value along axis 1",
            ),
            (lambda: features.superpixels(np.zeros((4, 4, 3))), "must be a batch"),
            (lambda: features.superpixels(np.full((1, 4, 4, 3), np.nan)), "must be finite"),
            (lambda: features.superpixels(np.zeros((1, 4, 4, 3)), compactness=0), "must be > 0, got 0"),
        ],
    )  # fmt: skip
    def test_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_labels_must_be_integers(self):
        with pytest.raises(TypeError, match=r"must be integers \(labels\), got float64"):
            features.Segments(np.zeros((1, 3)))


IMAGES = RNG.normal(size=(3, 6, 5, 2))
KEEP = RNG.random((3, 6, 5, 1)) < 0.6
DATA = RNG.normal(size=(9, 6, 5, 2))

INTERPOLATE = removal.Linear(0, noise=0.0)
REMOVALS = {
    "constant": removal.Constant(np.array([1.0, -1.0])),
    "mean": removal.Mean((0, 1)),
    "least": removal.Least(),
    "largest": removal.Largest(),
    "uniform": removal.Uniform(5.0, 6.0),
    "noise": removal.Noise(2.0),
    "blur": removal.Blur(1.5),
    "linear": removal.Linear((0, 1), noise=0.3),
    "series": INTERPOLATE,
    "marginal": removal.Donors(DATA),
    "conditional": removal.Donors(DATA, neighbors=2),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_contract_of_removals(name):
    """What is kept is kept exactly, what is removed changes; a sample does not depend on others."""
    removed = REMOVALS[name]
    drawn = keys(3) if removed.random else None
    found = run(removed, IMAGES, KEEP, drawn)
    assert found.dtype == IMAGES.dtype
    whole = np.broadcast_to(KEEP, IMAGES.shape)
    np.testing.assert_array_equal(found[whole], IMAGES[whole])
    assert (found != IMAGES)[~whole].mean() > 0.9  # the least value is its own replacement
    one = run(removed, IMAGES[1:2], KEEP[1:2], None if drawn is None else drawn[1:2])
    close(one, found[1:2])
    if removed.random:
        others = [run(removed, IMAGES, KEEP, keys(3, seed)) for seed in range(1, 5)]
        assert (np.stack(others) != found).any()


def test_replacements_by_hand():
    x = jnp.array([[1.0, 2.0, 6.0], [0.0, 4.0, 5.0]])
    none = jnp.zeros((2, 3), bool)

    def of(r):
        return r(x, none, keys(2)).tolist()

    assert of(removal.Constant(7.0)) == [[7.0] * 3] * 2
    assert of(removal.Constant(np.array([7.0, 8, 9]))) == [[7.0, 8, 9]] * 2
    assert of(removal.Mean()) == [[3.0] * 3] * 2
    assert of(removal.Least()) == [[1.0] * 3, [0.0] * 3]
    assert of(removal.Largest()) == [[6.0] * 3, [5.0] * 3]
    weights = np.exp(-0.5 * np.subtract.outer(np.arange(3), np.arange(3)) ** 2)
    weights /= weights.sum(1, keepdims=True)
    close(of(removal.Blur(1.0, axes=(0,))), np.asarray(x) @ weights.T)
    tokens = removal.Constant(99)(jnp.array([[4, 5]]), jnp.array([[True, False]]), None)
    assert tokens.tolist() == [[4, 99]]
    assert tokens.dtype == int


def test_random_replacements_in_distribution():
    x = jnp.full((1, 20000), 3.0)
    none = jnp.zeros((1, 20000), bool)
    uniform = np.asarray(removal.Uniform(-1.0, 3.0)(x, none, keys(1)))
    assert -1 <= uniform.min() < -0.99
    assert 2.99 < uniform.max() <= 3
    assert abs(uniform.mean() - 1) < 0.05
    noise = np.asarray(removal.Noise(0.5)(x, none, keys(1)))
    assert abs(noise.mean() - 3) < 0.02
    assert abs(noise.std() - 0.5) < 0.02


def imputed(image, keep):
    """ROAD's linear system of one image (height, width, channels), by a sparse direct solver."""
    height, width, channels = image.shape
    missing = np.argwhere(~keep)
    index = {tuple(p): k for k, p in enumerate(missing)}
    matrix, right = lil_matrix((len(missing), len(missing))), np.zeros((len(missing), channels))
    for k, (i, j) in enumerate(missing):
        for di, dj in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]:
            beside = (i + di, j + dj)
            if 0 <= beside[0] < height and 0 <= beside[1] < width:
                weight = 1 / 12 if di and dj else 1 / 6
                matrix[k, k] += weight
                if keep[beside]:
                    right[k] += weight * image[beside]
                else:
                    matrix[k, index[beside]] -= weight
    found = image.copy()
    found[~keep] = spsolve(matrix.tocsc(), right).reshape(-1, channels)
    return found


@functools.cache
def hard_image():
    """An image, far from zero, of which a large connected part and some single pixels are removed."""
    rng = np.random.default_rng(3)
    image = 40 + rng.normal(size=(24, 20, 2)).cumsum(0).cumsum(1) / 10
    keep = rng.random((24, 20)) < 0.9
    keep[3:21, 4:] = False
    return image, keep, imputed(image, keep)


class TestLinear:
    def test_is_the_direct_solution(self):
        image, keep, expected = hard_image()
        linear = removal.Linear((0, 1), noise=0.0, tolerance=1e-13)
        found = run(linear, image[None], keep[None, ..., None])
        close(found[0], expected, rtol=1e-10)

    def test_error_at_the_default_tolerance(self):
        """The residual that is left is 1e-5 of the range; the error in a large hole is larger."""
        image, keep, expected = hard_image()
        linear = removal.Linear((0, 1), noise=0.0)
        for dtype in (jnp.float32, jnp.float64):
            found = linear(
                jnp.asarray(image[None], dtype), jnp.asarray(keep[None, ..., None]), None
            )
            error = np.abs(np.asarray(found[0], np.float64) - expected).max() / np.ptp(image)
            assert error < 1e-3, dtype

    def test_masks_for_each_channel(self):
        image, keep, _ = hard_image()
        both = np.stack([keep, np.roll(keep, 3, axis=0)], axis=-1)
        linear = removal.Linear((0, 1), noise=0.0, tolerance=1e-13)
        found = run(linear, image[None], both[None])
        for c in range(2):
            close(
                found[0, ..., c], imputed(image[..., c : c + 1], both[..., c])[..., 0], rtol=1e-10
            )

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.booleans(), min_size=9, max_size=9).filter(any), st.integers(0, 1000))
    def test_one_axis_is_numpy_interp(self, keep, seed):
        x = np.random.default_rng(seed).normal(size=(1, 9, 2))
        keep = np.array(keep)
        found = run(INTERPOLATE, x, keep[None, :, None])
        at = np.flatnonzero(keep)
        expected = [np.interp(np.arange(9), at, x[0, at, c]) for c in range(2)]
        np.testing.assert_allclose(found[0], np.stack(expected, -1), rtol=1e-12, atol=1e-12)

    def test_three_axes_keep_a_linear_ramp(self):
        """Weights are symmetric, so a ramp is its own interpolation inside kept borders."""
        x = np.einsum("i,j,k->ijk", np.arange(5.0), np.ones(4), np.ones(5)) + 2 * np.arange(5.0)
        keep = np.ones((5, 4, 5), bool)
        keep[1:-1, 1:-1, 1:-1] = False
        linear = removal.Linear((0, 1, 2), noise=0.0, tolerance=1e-13)
        found = run(linear, x[None], keep[None])
        np.testing.assert_allclose(found[0], x, rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("axes", [0, (0, 1)])
    def test_nothing_kept_is_the_mean(self, axes):
        x = jnp.asarray(IMAGES)
        keep = jnp.asarray(KEEP).at[1].set(False)
        linear = removal.Linear(axes, noise=0.0)
        found = run(linear, x, keep)
        over = 0 if axes == 0 else (0, 1)
        close(found[1], np.broadcast_to(IMAGES[1].mean(over, keepdims=True), (6, 5, 2)))
        close(found[0], run(linear, x[:1], keep[:1])[0])

    def test_noise_is_on_removed_values_alone(self):
        x = jnp.zeros((1, 200, 200, 1))
        keep = jnp.arange(200)[None, :, None, None] % 2 == 0
        found = run(removal.Linear((0, 1), noise=0.25), x, keep, keys(1))[0, ..., 0]
        assert (found[::2] == 0).all()
        assert abs(found[1::2].std() - 0.25) < 0.01
        assert not removal.Linear(noise=0.0).random
        assert removal.Linear().random

    def test_a_grid_of_one_position(self):
        x = jnp.ones((2, 1, 1, 3))
        found = run(removal.Linear((0, 1), noise=0.0), x, np.zeros((2, 1, 1, 1), bool))
        assert found.tolist() == x.tolist()

    def test_refused(self):
        with pytest.raises(TypeError, match=r"inputs must be floats, got int64; for ids of tokens"):
            removal.Linear(0)(jnp.zeros((1, 3), int), jnp.ones((1, 3), bool), keys(1))
        with pytest.raises(ValueError, match=r"noise must be >= 0, got -1\.0"):
            removal.Linear(0, noise=-1.0)
        with pytest.raises(ValueError, match="tolerance must be > 0, got 0"):
            removal.Linear(0, tolerance=0)
        with pytest.raises(ValueError, match=r"at least one axis to interpolate along, got \(\)"):
            removal.Linear(())


class TestDonors:
    def many(self, donors, x, keep, n=600):
        draw = jax.jit(lambda x, keep, k: donors(x, keep, k))
        x, keep = (jnp.broadcast_to(a, (n, *a.shape[1:])) for a in (x, keep))
        return np.asarray(draw(x, keep, keys(n)))

    def test_marginal_draws_each_other_row_alike(self):
        data = jnp.asarray(np.arange(15.0).reshape(5, 3))
        found = self.many(removal.Donors(data), data[2:3], jnp.array([[True, False, False]]))
        assert (found[:, 0] == 6).all()
        assert (found[:, 2] - found[:, 1] == 1).all()  # all removed values come from one row
        rows, counts = np.unique(found[:, 1], return_counts=True)
        assert rows.tolist() == [1, 4, 10, 13]  # never its own, 7
        assert (abs(counts - 150) < 60).all()

    def test_conditional_is_among_the_closest_in_what_is_kept(self):
        rng = np.random.default_rng(1)
        data = rng.normal(size=(12, 5)) * [1, 1, 50, 1, 0] + 7
        x = rng.normal(size=(1, 5)) + 7
        keep = np.array([[True, True, True, False, True]])
        scale = np.where(data.std(0) > 0, data.std(0), np.inf)
        distance = (((x - data) / scale)[:, keep[0]] ** 2).sum(1)
        best = np.argsort(distance)[:3]
        found = self.many(removal.Donors(data, neighbors=3), jnp.asarray(x), jnp.asarray(keep))
        rows, counts = np.unique(found[:, 3], return_counts=True)
        np.testing.assert_array_equal(rows, np.sort(data[best, 3]))
        assert (abs(counts - 200) < 60).all()

    def test_own_row_is_left_out(self):
        data = jnp.asarray(np.arange(6.0).reshape(3, 2))
        found = self.many(removal.Donors(data, neighbors=3), data[:1], jnp.array([[True, False]]))
        assert set(found[:, 1]) == {3.0, 5.0}

    def test_tokens_by_how_many_differ(self):
        data = jnp.array([[5, 6, 7, 1], [5, 6, 9, 2], [5, 8, 9, 3], [900, 6, 7, 4]])
        x, keep = jnp.array([[5, 6, 10, 0]]), jnp.array([[True, True, True, False]])
        found = self.many(removal.Donors(data, neighbors=2), x, keep)
        assert found.dtype == int
        assert set(found[:, 3]) == {1, 2}

    def test_refused(self):
        with pytest.raises(ValueError, match=r"neighbors=4 must be at most .* in data, 3"):
            removal.Donors(np.zeros((3, 2)), neighbors=4)
        with pytest.raises(ValueError, match="neighbors must be an integer >= 1, got 0"):
            removal.Donors(np.zeros((3, 2)), neighbors=0)
        with pytest.raises(ValueError, match=r"float64\[2\], got float64\[3\]"):
            removal.Donors(np.zeros((3, 3)))(jnp.zeros((1, 2)), jnp.ones((1, 2), bool), keys(1))


IDS = jnp.array([[3, 1, 4]])


@pytest.mark.parametrize(
    ("removed", "x", "error", "message"),
    [
        (removal.Mean(), IDS, TypeError, "removal.Mean returns float(32|64), .* are int32: for ids"),
        (removal.Uniform(), IDS, TypeError, "removal.Uniform returns"),
        (removal.Noise(), IDS, TypeError, "removal.Noise returns"),
        (removal.Blur(1.0, (0,)), IDS, TypeError, "removal.Blur returns"),
        (removal.Constant(0.5), IDS, ValueError, r"which are int32, got 0\.5"),
        (removal.Constant(-1), IDS.astype(jnp.uint8), ValueError, "which are uint8, got -1"),
        (removal.Constant(IDS + 0.0), jnp.ones((1, 2)), ValueError, r"one example, \(2,\), got shape"),
        (removal.Constant(jnp.ones((2, 3))), jnp.ones((2, 3)), ValueError, r"got shape \(2, 3\)"),
        (removal.Mean((1,)), jnp.ones((1, 3)), ValueError, "axes must be axes of an example, which has 1"),
        (removal.Blur(1.0), jnp.ones((1, 3)), ValueError, "axes must be axes of an example"),
        (removal.Linear(), jnp.ones((1, 3)), ValueError, "axes must be axes of an example"),
    ],
)  # fmt: skip
def test_no_value_of_the_input_is_put_in(removed, x, error, message):
    with pytest.raises(error, match=message):
        removed(x, jnp.zeros(x.shape, bool), keys(len(x)))


def test_integral_constants_suit_integers():
    keep = jnp.array([[True, False, False]])
    for value in (9.0, np.int8(9), jnp.array([9, 9, 9]), np.full((1, 3), 9.0)):
        assert removal.Constant(value)(IDS, keep, None).tolist() == [[3, 9, 9]]
