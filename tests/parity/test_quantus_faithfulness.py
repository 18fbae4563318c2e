"""Scores of faithfulness equal those of Quantus 0.6.0; where it is wrong, those of the paper."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from jaxlrp import metrics
from jaxlrp.metrics import features, removal

from numeric import close
from quantus_goldens import RTOL, color, digits, each_explanation, each_problem, same_distribution

pytestmark = pytest.mark.usefixtures("x64")

BLACK = removal.Least()  # the name that Quantus gives the least value of a sample
PATCHES = features.Blocks((0, 1), 2)


def curves(p, metric):
    return metric.curves(p.predict, p.x, p.a, p.y)


def step(p):
    return 4 if p.channels is None else 3


@each_problem
def test_pixel_flipping(p):
    make = functools.partial(metrics.PixelFlipping, step=step(p))
    for name, what in (("pixel_flipping", BLACK), ("pixel_flipping_white", removal.Largest())):
        found = curves(p, make(removal=what))
        close(found.morf[:, 1:], p[name], RTOL)  # Quantus leaves out the unchanged input
        close(found.morf[:, 0], p.probability(p.x), RTOL)
    close(p.faithfulness(make(removal=BLACK, order="morf")), p["pixel_flipping_auc"], RTOL)


@each_explanation
def test_flipping_of_whole_pixels(explanation):
    p = color(explanation)
    metric = metrics.PixelFlipping(removal=BLACK, features=features.Blocks((0, 1)))
    found = metric.curves(p.predict, p.x, p.a.sum(axis=-1, keepdims=True), p.y)
    close(found.morf[:, 1:], p["pixels_flipping"], RTOL)


@each_problem
def test_region_perturbation(p):
    metric = metrics.RegionPerturbation(features=PATCHES, removal=BLACK)
    found = curves(p, metric)
    for order in ("morf", "lerf"):
        curve = np.asarray(getattr(found, order))
        close(curve[:, :1] - curve[:, 1:], p[f"region_{order}"], RTOL)
    # AOPC is the mean over all points, the unchanged input included; Quantus returns the curve alone.
    theirs = p["region_morf"]
    close(p.faithfulness(metric), theirs.sum(axis=1) / (theirs.shape[1] + 1), RTOL)


@each_problem
def test_selectivity(p):
    metric = metrics.Selectivity(features=PATCHES, removal=BLACK)
    close(curves(p, metric).morf[:, 1:], p["selectivity"], RTOL)
    close(p.faithfulness(metric), np.trapezoid(p["selectivity"], axis=1), RTOL)


@each_problem
def test_estimate(p):
    metric = metrics.FaithfulnessEstimate(step=step(p), removal=BLACK, score="logit")
    close(p.faithfulness(metric), p["estimate"], RTOL)


@each_problem
def test_sufficiency(p):
    """Quantus takes |a|, and gives 0 where a sample has no neighbor."""
    found = metrics.Sufficiency(threshold=0.8)(p.predict, p.x, np.abs(p.a), p.y)
    close(np.nan_to_num(found), p["sufficiency"], RTOL)
    assert (p["sufficiency"][np.isnan(found)] == 0).all()


@each_explanation
def test_correlation(explanation):
    p = digits(explanation)
    for metric in (
        metrics.FaithfulnessCorrelation(size=16, runs=30, removal=BLACK),
        metrics.SensitivityN(sizes=(16,), runs=30, removal=BLACK),  # by its definition the same
    ):
        same_distribution(
            lambda i, metric=metric: metric(p.predict, p.x[i], p.a[i], p.y[i], key=jax.random.key(0)),
            p["correlation/mean"], p["correlation/error"], len(p.x),
        )  # fmt: skip


@each_explanation
def test_sensitivity_n_of_quantus_is_another_number(explanation):
    """It correlates over samples, and drops of all chunks so far with the attribution of the last alone."""
    p = digits(explanation)
    a, low = p.a.reshape(8, -1), p.x.reshape(8, -1).min(axis=1)
    order = np.argsort(-a, axis=1)
    theirs, summed = [], []
    for k in range(1, 5):
        x = p.x.reshape(8, -1).copy()
        np.put_along_axis(x, order[:, : 8 * k], low[:, None], axis=1)
        drop = p.probability(p.x) - p.probability(x.reshape(p.x.shape))
        ordered = np.take_along_axis(a, order, axis=1)
        theirs.append(np.corrcoef(drop, ordered[:, 8 * k - 8 : 8 * k].sum(axis=1))[0, 1])
        summed.append(np.corrcoef(drop, ordered[:, : 8 * k].sum(axis=1))[0, 1])
    close(theirs, p["sensitivity_n_8"], RTOL)
    assert np.abs(np.subtract(summed, theirs)[1:]).max() > 0.1


@each_explanation
def test_monotonicity_correlation(explanation):
    p = digits(explanation)
    metric = metrics.MonotonicityCorrelation(draws=10)
    same_distribution(
        lambda i: metric(p.predict, p.x[i], p.a[i], p.y[i], key=jax.random.key(0)),
        p["monotonicity_correlation/mean"], p["monotonicity_correlation/error"], len(p.x),
    )  # fmt: skip


@each_explanation
def test_monotonicity(explanation):
    """Quantus puts the baseline where the baseline is, so the score never moves, and all is monotone."""
    p = digits(explanation)
    assert (p["monotonicity"] == 1).all()
    x, a = p.x.reshape(8, -1), p.a.reshape(8, -1)
    order, scores = np.argsort(a, axis=1), []
    for k in range(4, 65, 4):
        back = np.broadcast_to(x.min(axis=1, keepdims=True), x.shape).copy()
        chosen = order[:, :k]
        np.put_along_axis(back, chosen, np.take_along_axis(x, chosen, axis=1), axis=1)
        scores.append(p.probability(back.reshape(p.x.shape)))
    rises = np.diff(scores, axis=0) >= 0
    make = functools.partial(metrics.Monotonicity, step=4, removal=BLACK)
    close(p.faithfulness(make()), rises.all(axis=0))
    close(p.faithfulness(make(summary="share")), rises.mean(axis=0))
    assert not rises.all(axis=0).any()


@each_explanation
def test_infidelity(explanation):
    p = digits(explanation)
    whole = metrics.Infidelity(features=features.Blocks((0, 1), 8), removal=BLACK)
    close(p.faithfulness(whole), p["infidelity_whole"], RTOL)
    # Of several patches, Quantus removes each in addition to those before.
    low = p.x.min(axis=(1, 2, 3), keepdims=True)
    apart, added, so_far = [], [], p.x.copy()
    for i in (0, 4):
        for j in (0, 4):
            patch = np.s_[:, i : i + 4, j : j + 4]
            alone = p.x.copy()
            alone[patch] = so_far[patch] = np.broadcast_to(low, alone[patch].shape)
            for found, x in ((apart, alone), (added, so_far)):
                predicted = (p.a * (p.x - x)).sum(axis=(1, 2, 3))
                found.append((predicted - (p.logit(p.x) - p.logit(x))) ** 2)
    close(np.mean(added, axis=0), p["infidelity_patches"], RTOL)
    metric = metrics.Infidelity(features=features.Blocks((0, 1), 4), removal=BLACK)
    close(p.faithfulness(metric), np.mean(apart, axis=0), RTOL)
    assert np.abs(np.subtract(added, apart)).max() > 0.1


@each_explanation
def test_irof(explanation):
    """The area begins at the unchanged input, where p_0 / p_0 = 1, that of Quantus one step later."""
    p = digits(explanation)
    segments = features.Segments(p.of_problem("segments")[..., None].astype(int))
    metric = metrics.IROF(features=segments, removal=removal.Constant(0.3))
    curve = np.asarray(curves(p, metric).morf)
    curve = curve / curve[:, :1]
    close(6 - np.trapezoid(curve[:, 1:], axis=1), p["irof"], RTOL)
    close(p.faithfulness(metric), p["irof"] - (1 + curve[:, 1]) / 2, RTOL)
    # By default Quantus takes the mean of the whole batch, anew after each removal.
    own = metrics.IROF(features=segments)
    curve = np.asarray(curves(p, own).morf)
    curve = curve / curve[:, :1]
    assert np.abs(6 - np.trapezoid(curve[:, 1:], axis=1) - p["irof_batch"]).max() > 0.1


@each_explanation
def test_road(explanation):
    """Quantus returns the accuracy at each percentage, but of the first batch only."""
    p = digits(explanation)
    metric = metrics.ROAD(percentages=(10, 30, 50, 70, 90), removal=removal.Linear(noise=0.0))
    for n in (8, 4):
        found = metric.accuracy(p.predict, p.x[:n], p.a[:n], p.y[:n])
        close(found.morf, p[f"road_{n}"], RTOL)
    close(p.faithfulness(metric).mean(), p["road_8"].mean(), RTOL)
    assert (p["road_8"] != p["road_4"]).any()


@each_explanation
def test_linear_imputation(explanation):
    p = digits(explanation)
    keep = np.ones((8, 64), bool)
    np.put_along_axis(keep, np.argsort(-p.a.reshape(8, -1), axis=1)[:, :19], False, axis=1)
    impute = removal.Linear(noise=0.0, tolerance=1e-12)
    close(impute(jax.numpy.asarray(p.x), keep.reshape(p.x.shape), None), p["imputed"], RTOL)
