"""Evaluation of attributions to training samples: scikit-learn, scipy, numbers by hand, errors."""

import jax
import numpy as np
import pytest

from jaxlrp.training_data import metrics

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
TAU = RNG.normal(size=(6, 40))
LABELS = RNG.integers(0, 4, 40)


# --- metrics


def test_class_detection_by_hand():
    tau = [[0.1, 0.9, 0.0], [5.0, -9.0, 1.0], [0.0, 0.0, 0.1]]
    assert metrics.class_detection(tau, [0, 1, 2], [1, 0, 1]) == pytest.approx(2 / 3)
    assert metrics.subclass_detection(tau, [0, 1, 2], [1, 1, 1]) == pytest.approx(1 / 3)


def test_mislabeling_is_the_area_below_the_share_found():
    values, wrong = RNG.normal(size=50), np.arange(50) < 7
    found = np.cumsum(wrong[np.argsort(-values)]) / 7
    area = np.trapezoid(np.concatenate([[0], found]), dx=1 / 50)
    np.testing.assert_allclose(metrics.mislabeling_detection(values, wrong), area, rtol=1e-12)
    for first, expected in (
        (wrong * 1.0, 1 - 7 / 100),
        (-1.0 * wrong, 7 / 100),
        (0.0 * wrong, 0.5),
    ):
        np.testing.assert_allclose(metrics.mislabeling_detection(first, wrong), expected)
    assert np.isnan(metrics.mislabeling_detection(values, np.zeros(50, bool)))


@pytest.mark.parametrize("levels", [None, 3], ids=["", "ties"])
@pytest.mark.entire
def test_shortcut_is_average_precision(levels):
    score = pytest.importorskip("sklearn.metrics").average_precision_score
    tau = TAU if levels is None else np.round(TAU * levels / 6)
    stamped = LABELS == 0
    where = np.array([True, False, True, True, False, True])
    expected = np.mean([score(stamped, row) for row in tau[where]])
    np.testing.assert_allclose(
        metrics.shortcut_detection(tau, stamped, where), expected, rtol=1e-12
    )
    np.testing.assert_allclose(metrics.mixed_data_sets(tau, stamped, where), expected, rtol=1e-12)
    assert metrics.shortcut_detection(stamped[None] * 1.0, stamped) == 1


def test_nothing_to_measure_is_nan():
    stamped, none = LABELS == 0, np.zeros(6, bool)
    assert np.isnan(metrics.shortcut_detection(TAU, stamped, none))
    assert np.isnan(metrics.shortcut_detection(TAU, np.zeros(40, bool)))
    assert np.isnan(metrics.mixed_data_sets(TAU, stamped, none))
    assert np.isnan(metrics.randomization(np.ones((6, 40)), TAU))
    assert np.isnan(metrics.linear_datamodeling_score(TAU, np.eye(40) > 0, np.ones((40, 6))))


def test_rank_correlations_as_in_scipy():
    spearman = pytest.importorskip("scipy.stats").spearmanr
    other = TAU**3 + RNG.normal(size=TAU.shape)
    expected = np.mean([spearman(a, b)[0] for a, b in zip(TAU, other, strict=True)])
    np.testing.assert_allclose(metrics.randomization(TAU, other), expected, rtol=1e-10)
    np.testing.assert_allclose(metrics.randomization(TAU, 2 * TAU + 1), 1)
    subsets = metrics.random_subsets(jax.random.key(3), 15, 40, 0.3)
    assert (subsets.sum(1) == 12).all()
    assert len(np.unique(subsets, axis=0)) == 15
    outputs = subsets @ TAU.T + RNG.normal(size=(15, 6))
    sums = [[TAU[t, s].sum() for s in subsets] for t in range(6)]
    expected = np.mean([spearman(a, b)[0] for a, b in zip(sums, outputs.T, strict=True)])
    found = metrics.linear_datamodeling_score(TAU, subsets, outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_top_k_cardinality_by_hand():
    tau = [[9.0, 8.0, 0.0, 0.0, 1.0], [0.0, 7.0, 9.0, 0.0, 1.0]]  # 0, 1 and 1, 2
    assert metrics.top_k_cardinality(tau, k=2) == 0.75
    assert metrics.top_k_cardinality(tau * 3, k=1) == pytest.approx(1 / 3)
    assert metrics.top_k_cardinality(TAU, k=40) == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.class_detection(TAU[0], LABELS, LABELS),
            r"tau must have shape \(T, N\), got",
        ),
        (
            lambda: metrics.class_detection(TAU * np.inf, LABELS, LABELS[:6]),
            "tau must be finite, got 240",
        ),
        (
            lambda: metrics.class_detection(TAU, LABELS[:9], LABELS[:6]),
            "labels must be 40 integers",
        ),
        (lambda: metrics.class_detection(TAU, LABELS, LABELS), "targets must be 6 integers"),
        (
            lambda: metrics.mislabeling_detection(TAU[0], LABELS),
            r"mislabeled must be booleans of shape \(40,\)",
        ),
        (lambda: metrics.shortcut_detection(TAU, LABELS[:6] == 0), "stamped must be booleans"),
        (lambda: metrics.shortcut_detection(TAU, LABELS == 0, [1] * 6), "where must be booleans"),
        (lambda: metrics.randomization(TAU, TAU[:, :9]), r"must have the shape of tau, \(6, 40\)"),
        (
            lambda: metrics.top_k_cardinality(TAU, 41),
            "k must be at most the number of training samples, 40",
        ),
        (
            lambda: metrics.linear_datamodeling_score(TAU, np.ones((5, 40)), np.ones((5, 6))),
            r"subsets must be booleans of shape \(S, 40\)",
        ),
        (
            lambda: metrics.linear_datamodeling_score(TAU, np.ones((5, 40), bool), np.ones((6, 5))),
            r"outputs must have shape \(5, 6\), got \(6, 5\)",
        ),
        (
            lambda: metrics.random_subsets(jax.random.key(0), 3, 10, 1.0),
            "fraction must be between 0 and 1",
        ),
    ],
)
@pytest.mark.entire
def test_errors_of_metrics(call, message):
    with pytest.raises(ValueError, match=message):
        call()
