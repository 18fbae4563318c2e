"""Complexity: attributions against the formulas in plain NumPy and SciPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlrp import metrics
from jaxlrp.metrics import features

spatial = pytest.importorskip("scipy.spatial")

pytestmark = pytest.mark.usefixtures("x64")

A = np.random.default_rng(0).standard_normal((4, 6, 5, 2))


def gini(v):
    """Half the mean absolute difference between two features, in units of the mean."""
    v = abs(v)
    return abs(v[:, None] - v).mean() / (2 * v.mean())


def entropy(v):
    p = abs(v) / abs(v).sum()
    return -(p * np.log(p)).sum()


SOME = {
    "Sparseness": (metrics.Sparseness, {}, gini),
    "Complexity": (metrics.Complexity, {}, entropy),
    "EffectiveComplexity": (
        metrics.EffectiveComplexity, {"epsilon": 0.3}, lambda v: (abs(v) > 0.3 * abs(v).max()).sum()
    ),
    "EffectiveComplexity absolute": (
        metrics.EffectiveComplexity, {"epsilon": 0.3, "relative": False},
        lambda v: (abs(v) > 0.3).sum(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_formula(name):
    make, options, formula = SOME[name]
    np.testing.assert_allclose(make(**options)(A), [formula(a.ravel()) for a in A], rtol=1e-10)
    np.testing.assert_allclose(
        make(**options)(A.astype(np.float32)), [formula(a.ravel()) for a in A], rtol=1e-5
    )
    pixels = make(**options, features=features.Blocks((0, 1)))(A)
    np.testing.assert_allclose(pixels, [formula(a.sum(-1).ravel()) for a in A], rtol=1e-10)


def test_features_that_a_sample_lacks_do_not_count():
    labels = np.array([[0, 1, 2, 3], [0, 0, 1, -1]])
    a = np.array([[1.0, 2.0, -3.0, 4.0], [1.0, 2.0, -1.0, 9.0]])
    for make, options, formula in SOME.values():
        found = make(**options, features=features.Segments(labels))(a)
        expected = [formula(np.array([1.0, 2.0, -3.0, 4.0])), formula(np.array([3.0, -1.0]))]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", SOME)
def test_batch_equals_singles_and_jit_equals_eager(name):
    make, options, _ = SOME[name]
    metric = make(**options)
    whole = metric(A)
    np.testing.assert_allclose([metric(a[None])[0] for a in A], whole, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(metric)(A), whole, rtol=1e-12)


def test_what_is_undefined():
    a = np.stack([np.zeros((6, 5)), np.full((6, 5), np.nan), np.full((6, 5), 2.0)])
    for make, options, _ in SOME.values():
        assert np.isnan(make(**options)(a)).tolist() == [True, True, False]
    assert np.isnan(metrics.Coherence()(a)).all()
    line = np.zeros((1, 6, 5))
    line[0, 2] = 1.0
    assert np.isnan(metrics.Coherence()(line)).all()


def test_extremes():
    one, even = np.eye(1, 8), np.ones((1, 8))
    np.testing.assert_allclose(metrics.Sparseness()(one), [1 - 1 / 8])
    np.testing.assert_allclose(metrics.Sparseness()(even), [0], atol=1e-12)
    np.testing.assert_allclose(metrics.Complexity()(one), [0])
    np.testing.assert_allclose(metrics.Complexity()(even), [np.log(8)])
    assert metrics.EffectiveComplexity()(one).tolist() == [1.0]
    assert metrics.EffectiveComplexity()(even).tolist() == [8.0]


SCALED = [
    (make(**options), 1 if name == "Sparseness" else -1)
    for name, (make, options, _) in SOME.items()
    if options.get("relative", True)
]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_scale_order_and_direction(seed, scale):
    generator = np.random.default_rng(seed)
    a = generator.standard_normal((3, 12))
    order = generator.permutation(12)
    for metric, sign in SCALED:
        assert metric.higher_is_better == (sign > 0)
        found = metric(a)
        np.testing.assert_allclose(metric(-scale * a), found, rtol=1e-9)
        np.testing.assert_allclose(metric(a[:, order]), found, rtol=1e-9)
        assert np.all(sign * (np.asarray(metric(a**3)) - found) >= -1e-12)  # sparser


def test_a_small_scale_does_not_vanish():
    small = (1e-30 * A).astype(np.float32)
    for name in ("Sparseness", "Complexity", "EffectiveComplexity"):
        make, options, formula = SOME[name]
        np.testing.assert_allclose(
            make(**options)(small), [formula(a.ravel()) for a in A], rtol=1e-4
        )


def coherence(sizes, percentile=80.0):
    """MST-C with the tree of all pairs of points, by Prim's algorithm."""
    points = np.argwhere((sizes >= np.percentile(sizes, percentile)) & (sizes > 0)).astype(float)
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    nearest, length = distance[0].copy(), 0.0
    for _ in range(len(points) - 1):
        nearest[nearest == 0] = np.inf  # in the tree
        i = np.argmin(nearest)
        length += nearest[i]
        inside = ~np.isfinite(nearest)
        nearest = np.minimum(nearest, distance[i])
        nearest[inside], nearest[i] = np.inf, np.inf
    x, y = points[spatial.ConvexHull(points).vertices].T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return 100 * np.hypot(*sizes.shape) / np.sqrt(area) * len(points) / length


def test_coherence():
    maps = np.random.default_rng(2).standard_normal((3, 20, 15, 2))
    maps[1] *= (np.arange(20) // 10)[:, None, None]  # half of it zero
    maps[2, 1:, 1:-1] = 0  # more than 80 percent of it
    found = metrics.Coherence()(maps)
    np.testing.assert_allclose(found, [coherence(abs(m.sum(-1))) for m in maps], rtol=1e-10)
    turned = metrics.Coherence(axes=(1, 0))(maps)
    np.testing.assert_allclose(turned, found, rtol=1e-10)
    moved = metrics.Coherence(axes=(-2, -1))(np.moveaxis(maps, -1, 1))
    np.testing.assert_allclose(moved, found, rtol=1e-10)
    fewer = metrics.Coherence(percentile=95)(maps[:1])
    np.testing.assert_allclose(fewer, [coherence(abs(maps[0].sum(-1)), 95)], rtol=1e-10)


def test_coherence_of_a_full_square():
    a = np.zeros((1, 40, 40))
    a[0, 5:35, 5:35] = 1
    np.testing.assert_allclose(
        metrics.Coherence()(a), 100 * np.hypot(40, 40) / 29 * 900 / 899, rtol=1e-10
    )


def test_two_groups_are_less_coherent_than_one():
    one, two = np.zeros((2, 1, 30, 30))
    one[0, 10:16, 10:20] = 1
    two[0, 2:8, 2:7] = two[0, 20:26, 23:28] = 1
    near = np.zeros((1, 30, 30))
    near[0, 10:16, 10:15] = near[0, 10:16, 17:22] = 1
    scores = [float(metrics.Coherence()(m)[0]) for m in (one, near, two)]
    assert scores == sorted(scores, reverse=True)
    # The distance between the groups is part of the tree: 59 edges of length 1, and one between corners.
    hull = 100 * np.hypot(30, 30) / np.sqrt(spatial.ConvexHull(np.argwhere(two[0])).volume)
    expected = hull * 60 / (58 + np.hypot(20 - 7, 23 - 6))
    np.testing.assert_allclose(scores[2], expected, rtol=1e-10)


def test_total_variation_is_that_of_the_formula():
    """Of NumPy, at two scales, with channels summed; no scale, no sample affects another."""
    a = np.random.default_rng(0).normal(size=(3, 7, 6, 2))
    found = metrics.TotalVariation(scales=(1, 3), percentile=90)(a)
    for map_, score in zip(a, found, strict=True):
        v = np.abs(map_).sum(-1)
        v = np.minimum(v, np.percentile(v, 90)) / np.percentile(v, 90)
        coarse = v[:6, :6].reshape(2, 3, 2, 3).mean((1, 3))
        terms = [sum(np.abs(np.diff(u, axis=i)).mean() for i in (0, 1)) for u in (v, coarse)]
        np.testing.assert_allclose(score, np.mean(terms), rtol=1e-5)  # float32
    np.testing.assert_allclose(
        metrics.TotalVariation()(1e6 * a), metrics.TotalVariation()(a), rtol=1e-5
    )
    assert np.isnan(metrics.TotalVariation()(np.zeros((1, 4, 4)))[0])
    row = metrics.TotalVariation(axes=(1,), percentile=100)(np.array([[[0.0, 2.0], [0.0, 2.0]]]))
    assert float(row[0]) == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.TotalVariation(scales=(0,)), ValueError, "scales must be an integer >= 1"),
        (lambda: metrics.TotalVariation(scales=()), ValueError, "scales must be a tuple"),
        (lambda: metrics.TotalVariation(percentile=0), ValueError, "percentile must be > 0"),
        (lambda: metrics.TotalVariation(scales=(5,))(np.ones((1, 8, 8))), ValueError, "at least 2 blocks"),
        (lambda: metrics.EffectiveComplexity(epsilon=-1.0), ValueError, r"epsilon must be >= 0, got -1\.0"),
        (lambda: metrics.Coherence(percentile=101), ValueError, "percentile must be in .* got 101"),
        (lambda: metrics.Coherence(axes=(0,)), ValueError, "axes must be two axes of positions"),
        (lambda: jax.jit(metrics.Coherence())(A), TypeError, "Coherence runs on the host"),
        (lambda: metrics.Coherence(axes=(0, 3))(A), ValueError, "axes must be axes of an example"),
        (lambda: metrics.Sparseness()(A[0, 0, 0]), ValueError, "write attributions"),
        (lambda: metrics.Sparseness()(A + 1j), TypeError, "attributions must be real"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_scipy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.spatial", None)
    with pytest.raises(ImportError, match=r'Coherence requires scipy.*"jaxlrp\[metrics\]"'):
        metrics.Coherence()(jnp.asarray(A))
