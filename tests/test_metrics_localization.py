"""Localization: attributions and masks against the formulas in plain NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from jaxlrp import metrics

pytestmark = pytest.mark.usefixtures("x64")

A = np.random.default_rng(0).standard_normal((5, 4, 3, 2))
MASKS = np.random.default_rng(1).random((5, 4, 3, 1)) < 0.4
ALL = {
    "PointingGame": metrics.PointingGame(),
    "RelevanceMass": metrics.RelevanceMass(),
    "RelevanceMass signed": metrics.RelevanceMass(positive=False),
    "RelevanceRank": metrics.RelevanceRank(),
    "TopKIntersection": metrics.TopKIntersection(k=5),
    "TopKIntersection weighted": metrics.TopKIntersection(k=5, weighted=True),
    "AttributionLocalization": metrics.AttributionLocalization(),
    "AttributionLocalization weighted": metrics.AttributionLocalization(weighted=True),
    "LocalizationAUC": metrics.LocalizationAUC(),
    "Focus": metrics.Focus(),
}
# Of values v and booleans s of one sample, from the papers.
FORMULAS = {
    "PointingGame": lambda v, s: float(s[np.argmax(v)]),
    "RelevanceMass": lambda v, s: v[s & (v > 0)].sum() / v[v > 0].sum(),
    "RelevanceMass signed": lambda v, s: v[s].sum() / v.sum(),
    "RelevanceRank": lambda v, s: s[np.argsort(-v)[: s.sum()]].mean(),
    "TopKIntersection": lambda v, s: s[np.argsort(-v)[:5]].mean(),
    "TopKIntersection weighted": lambda v, s: s[np.argsort(-v)[:5]].mean() * v.size / s.sum(),
    "AttributionLocalization": lambda v, s: v[s & (v > 0)].sum() / v[v > 0].sum(),
    "AttributionLocalization weighted": lambda v, s: (
        v[s & (v > 0)].sum() / v[v > 0].sum() * v.size / s.sum()
    ),
    "LocalizationAUC": lambda v, s: roc_auc_score(s, v),
    "Focus": lambda v, s: v[s & (v > 0)].sum() / v[v > 0].sum(),
}


def with_(metric, **options):
    """The same metric with other options."""
    held = {f: getattr(metric, f) for f in ("k", "positive", "weighted") if hasattr(metric, f)}
    return type(metric)(**held, **options)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [None, -1])
def test_formula(name, channels):
    metric = with_(ALL[name], channels=channels)
    a = A if channels is None else A.sum(-1)
    s = np.broadcast_to(MASKS, A.shape) if channels is None else MASKS[..., 0]
    expected = [FORMULAS[name](v.ravel(), m.ravel()) for v, m in zip(a, s, strict=True)]
    np.testing.assert_allclose(metric(A, MASKS), expected, rtol=1e-10)
    single = A.astype(np.float32)
    np.testing.assert_allclose(metric(single, MASKS), expected, rtol=1e-4)
    assert metric(single, MASKS).dtype == np.float32


@pytest.mark.parametrize("name", ALL)
def test_batch_equals_singles_and_jit_equals_eager(name):
    metric = ALL[name]
    whole = metric(A, MASKS)
    singles = [metric(a[None], m[None])[0] for a, m in zip(A, MASKS, strict=True)]
    np.testing.assert_allclose(whole, singles, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(metric)(A, MASKS), whole, rtol=1e-12)


POOLED = {
    "sum": lambda a: a.sum(-1),
    "sum,abs": lambda a: abs(a.sum(-1)),
    "sum,pos": lambda a: np.maximum(a.sum(-1), 0),
    "max-norm": lambda a: abs(a).max(-1),
    "l1-norm": lambda a: abs(a).sum(-1),
    "l2-norm": lambda a: np.linalg.norm(a, axis=-1),
    "l2-norm,sq": lambda a: (a**2).sum(-1),
}


@pytest.mark.parametrize("pool", POOLED)
def test_pooling(pool):
    found = metrics.RelevanceMass(pool=pool, channels=-1, positive=False)(A, MASKS)
    v = POOLED[pool](A)
    expected = (v * MASKS[..., 0]).sum((1, 2)) / v.sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_several_channel_axes():
    found = metrics.LocalizationAUC(pool="l2-norm", channels=(1, 2))(A, MASKS.any(2, keepdims=True))
    v, s = np.linalg.norm(A.reshape(5, 4, 6), axis=-1), MASKS.any((2, 3))
    expected = [
        roc_auc_score(m, a) if 0 < m.sum() < 4 else np.nan for a, m in zip(v, s, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_position_is_inside_where_one_channel_is():
    mask = np.zeros((1, 3, 2), bool)
    mask[0, 1, 0] = True
    a = np.array([[[1.0, 0.0], [0.0, 5.0], [0.0, 0.0]]])
    assert metrics.PointingGame(channels=1)(a, mask).tolist() == [1.0]
    assert metrics.PointingGame()(a, mask).tolist() == [0.0]


def test_weighting_is_the_papers_and_not_that_of_quantus():
    # Kohlbrenner et al. (2020): mu_w = mu S_tot / S_in. Quantus 0.6 multiplies by |s| instead, over the
    # size of what is left of the inputs without their first two samples.
    a, mask = np.ones((4, 6)), np.zeros((4, 6), bool)
    mask[:, :2] = True
    found = metrics.AttributionLocalization(weighted=True)(a, mask)
    np.testing.assert_allclose(found, np.ones(4), rtol=1e-12)  # uniform relevance: the area's share
    mu = (a * mask).sum(1) / a.sum(1)
    assert not np.allclose(mu * mask.sum(1) / a[2:].size, found)
    assert metrics.AttributionLocalization(weighted=True)(a[:1] * mask[:1], mask[:1]) == 3.0


def test_ties_count_as_their_average_over_orders():
    # The two largest of 3, 1, 1, 1 are the first and any of the others, one of which is inside.
    a, mask = np.array([[3.0, 1.0, 1.0, 1.0]]), np.array([[True, True, False, False]])
    np.testing.assert_allclose(metrics.RelevanceRank()(a, mask), [(1 + 1 / 3) / 2])
    np.testing.assert_allclose(metrics.TopKIntersection(k=3)(a, mask), [(1 + 2 / 3) / 3])
    np.testing.assert_allclose(metrics.LocalizationAUC()(a, mask), [(2 + 1) / 4])
    # One of the largest inside suffices.
    assert metrics.PointingGame()(a[:, ::-1] * 0 + [1, 2, 2, 0], mask).tolist() == [1.0]


def test_what_is_undefined():
    a = np.array(
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [np.nan, 1.0, 2.0], [2.0, 2.0, 2.0], [0, -1, -2]]
    )
    masks = np.array([[False] * 3, [True] * 3] + [[True, False, False]] * 3)
    for name, metric in ALL.items():
        if name.startswith("TopK"):
            metric = metrics.TopKIntersection(k=2)
        found = metric(a, masks)
        assert np.isnan(found[:3]).all(), name  # an empty mask, one that covers all, NaN
        ordered = name.split()[0] in (
            "PointingGame",
            "RelevanceRank",
            "TopKIntersection",
            "LocalizationAUC",
        )
        assert np.isnan(found[3]) == ordered, name  # no order
        positive = name in ("RelevanceMass", "Focus") or name.startswith("AttributionLocalization")
        assert np.isnan(found[4]) == positive, name  # nothing is positive
    assert np.isnan(metrics.RelevanceMass(positive=False)(np.array([[1.0, -1.0]]), masks[2:3, :2]))
    # A mask that covers every position by one channel of each.
    halves = np.array([[[True, False], [False, True]]])
    assert np.isnan(metrics.RelevanceMass(channels=-1)(np.ones((1, 2, 2)), halves))


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10**6), area=st.floats(0.1, 0.9), scale=st.floats(1e-3, 1e3))
def test_bounds_scale_and_order(seed, area, scale):
    generator = np.random.default_rng(seed)
    a = generator.integers(-3, 4, (4, 12)).astype(float)  # with ties
    masks = generator.random((4, 12)) < area
    order = generator.permutation(12)
    for name, metric in ALL.items():
        found = np.asarray(metric(a, masks))
        low, high = metric.bounds
        assert np.all(np.isnan(found) | ((found >= low) & (found <= high + 1e-12))), name
        np.testing.assert_allclose(metric(scale * a, masks), found, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            metric(a[:, order], masks[:, order]), found, rtol=1e-9, atol=1e-12
        )


def test_more_relevance_inside_is_better():
    mask = MASKS[:1]
    good, bad = np.where(mask, 1.0, 0.1) * np.abs(A[:1]), np.where(mask, 0.1, 1.0) * np.abs(A[:1])
    for name, metric in ALL.items():
        assert metric.higher_is_better
        assert not metric.random
        assert metric(good, mask) >= metric(bad, mask), name
    assert metrics.LocalizationAUC()(np.where(mask, 1.0, 0.0) * np.ones_like(A[:1]), mask) == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.PointingGame(pool="mean"), ValueError, "pool must be one of 'sum'"),
        (lambda: metrics.TopKIntersection(k=0), ValueError, "k must be an integer >= 1, got 0"),
        (lambda: metrics.TopKIntersection()(A, MASKS), ValueError, "k must be <= 24, the number"),
        (lambda: metrics.PointingGame(channels="C")(A, MASKS), ValueError, "channels must be .* got 'C'"),
        (lambda: metrics.PointingGame(channels=3)(A, MASKS), ValueError, "channels must be axes of an"),
        (lambda: metrics.PointingGame(channels=(2, -1))(A, MASKS), ValueError, "must be distinct axes"),
        (lambda: metrics.PointingGame()(A, MASKS * 1), TypeError, "masks must be booleans, got int"),
        (lambda: metrics.PointingGame()(A, MASKS[:, 1:]), ValueError, "masks must have the shape of"),
        (lambda: metrics.PointingGame()(A[0, 0, 0], MASKS), ValueError, "write attributions"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


X = jnp.arange(8.0).reshape(8, 1, 1, 1) * jnp.ones((8, 3, 2, 1))
Y = jnp.array([0, 0, 0, 1, 1, 1, 2, 2])


def numpy(found):
    return type(found)(*map(np.asarray, found))


def test_mosaics():
    found = numpy(metrics.mosaics(X, Y, jax.random.key(0), number=6))
    assert found.inputs.shape == (6, 6, 4, 1)
    for i in range(6):
        parts = [found.inputs[i, r : r + 3, c : c + 2, 0] for r in (0, 3) for c in (0, 2)]
        inside = [found.masks[i, r : r + 3, c : c + 2, 0] for r in (0, 3) for c in (0, 2)]
        assert [int(p[0, 0]) for p in parts] == found.samples[i].tolist()
        assert all((p == p[0, 0]).all() for p in parts)
        assert len(set(found.samples[i].tolist())) == 4
        assert found.quadrants[i].sum() == 2
        assert (found.quadrants[i] == (np.asarray(Y)[found.samples[i]] == found.targets[i])).all()
        assert [bool(m.all()) for m in inside] == found.quadrants[i].tolist()
        assert [bool(m.any()) for m in inside] == found.quadrants[i].tolist()
    assert sorted(found.targets.tolist()) == [0, 0, 1, 1, 2, 2]  # classes take turns
    places = {
        tuple(q) for q in metrics.mosaics(X, Y, jax.random.key(1), number=50).quadrants.tolist()
    }
    assert len(places) == 6  # any two of the four
    same, other = (metrics.mosaics(X, Y, jax.random.key(k), number=6).samples for k in (0, 1))
    assert (same == found.samples).all()
    assert (other != found.samples).any()


def test_mosaics_of_series_and_focus():
    found = numpy(metrics.mosaics(X[:, :, 0], Y, jax.random.key(0), number=3, axes=0))
    assert found.inputs.shape == (3, 12, 1)
    assert found.masks.shape == (3, 12, 1)
    assert (found.masks[:, ::3, 0] == found.quadrants).all()
    a = np.where(found.masks, 3.0, 1.0)
    np.testing.assert_allclose(metrics.Focus()(a, found.masks), 0.75)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": None}, TypeError, "targets is missing: pass one class"),
        ({"targets": jnp.arange(8)}, ValueError, "two samples of one class and two of others"),
        ({"targets": jnp.zeros(8, int)}, ValueError, "two samples of one class and two of others"),
        ({"axes": (0, 1, 2)}, ValueError, "axes must be one or two axes of an example"),
        ({"number": 0}, ValueError, "number must be an integer >= 1"),
    ],
)
def test_mosaics_bad_input(change, error, message):
    given_ = {"inputs": X, "targets": Y, "key": jax.random.key(0), "number": 2} | change
    with pytest.raises(error, match=message):
        metrics.mosaics(**given_)
