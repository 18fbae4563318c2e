"""Prototypes of strategies: densities, assignment and differences against other implementations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.mixture import GaussianMixture

from jaxlrp import concepts

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")

SIX = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2], [1.0, 1.0], [1.2, 1.0], [1.0, 1.2]])


def using(rng, samples, used, concepts=64):
    """Normalized relevance of samples that use a few concepts, each for a similar share."""
    nu = np.abs(rng.normal(0, 0.002, (samples, concepts)))
    nu[:, used] += rng.uniform(0.2, 0.3, (samples, len(used)))
    return nu / nu.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def planted():
    """Two strategies of one class, and samples that mix one with concepts that no sample used."""
    rng = np.random.default_rng(0)
    nu = np.concatenate([using(rng, 120, [1, 2, 3, 4]), using(rng, 60, [10, 11, 12, 13])])
    strategy = np.repeat([0, 1], [120, 60])
    usual = np.concatenate([using(rng, 20, [1, 2, 3, 4]), using(rng, 20, [10, 11, 12, 13])])
    return nu, strategy, usual, using(rng, 40, [1, 2, 30, 31])


def covariances(found, y, k):
    """The covariance of a component from its whitening matrix."""
    w = found.whitening[y, k]
    return np.diag(w**-2) if w.ndim == 1 else np.linalg.inv(w @ w.T)


def test_six_points_by_hand():
    found = concepts.prototypes(SIX, np.zeros(6, int), n_components=2, covariance="full")
    order = np.argsort(found.means[0, :, 0])
    close(found.means[0][order], [[0.2 / 3] * 2, [1 + 0.2 / 3] * 2], rtol=1e-12)
    score = found.outlier_score(np.array([[0.0, 0.0], [0.5, 0.5]]), 0)
    close(score, [-1.33584497, 39.90487586], rtol=1e-8)


@pytest.mark.parametrize(("covariance", "theirs"), [("diagonal", "diag"), ("full", "full")])
def test_scikit_learn_agrees(covariance, theirs):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(0, 1, (80, 4)), rng.normal(4, 2, (20, 4))])
    found = concepts.prototypes(
        x, np.full(100, 3), n_components=2, covariance=covariance, min_variance=1e-3
    )
    mixture = GaussianMixture(
        2, covariance_type=theirs, reg_covar=1e-3, n_init=3, max_iter=500, random_state=0
    ).fit(x)
    new = rng.normal(1.5, 2, (200, 4))
    close(-found.outlier_score(new, 3), mixture.score_samples(new), rtol=1e-10)
    close(found.bic[0, 1], mixture.bic(x), rtol=1e-12)
    density = np.stack(
        [
            multivariate_normal(found.means[0, k], covariances(found, 0, k)).logpdf(new)
            for k in range(2)
        ],
        axis=1,
    )
    close(found.log_density(new, 3), density, rtol=1e-8)
    np.testing.assert_array_equal(found.assign(new, 3), density.argmax(axis=1))
    weighted = density + np.log(found.weights[0])
    assert (weighted.argmax(axis=1) != density.argmax(axis=1)).any()  # weights would matter


def test_planted_strategies_are_found(planted):
    nu, strategy, usual, unusual = planted
    found = concepts.prototypes(nu, np.zeros(180, int))
    assert found.n_components.tolist() == [2]  # by BIC, of 1 to 8
    component = found.assign(nu, 0)
    assert adjusted_rand_score(strategy, component) == 1.0
    scores = found.outlier_score(np.concatenate([usual, unusual]), 0)
    assert roc_auc_score(np.repeat([0, 1], 40), scores) == 1.0
    close(found.coverage[0], [2 / 3, 1 / 3], rtol=1e-12)  # the most common strategy first
    for k, row in enumerate(found.samples[0]):
        assert strategy[row] == k
        distances = np.square(nu - found.means[0, k]).sum(axis=1)
        assert row == distances.argmin()


def test_difference_in_words(planted):
    nu, _, _, unusual = planted
    found = concepts.prototypes(nu, np.zeros(180, int), n_components=2)
    difference = found.difference(unusual, np.zeros(40, int), component=0)
    close(difference.delta, unusual - found.means[0, 0], rtol=1e-12)
    extreme = np.argsort(np.asarray(difference.delta).mean(axis=0))
    assert set(extreme[-2:]) == {30, 31}
    assert set(extreme[:2]) == {3, 4}
    words = difference.describe(0, n=4, n_different=2, names={30: "stamp"}).splitlines()
    assert words[0] == "sample 0 against prototype 0 of class 0:"
    said = [re.fullmatch(r"  (\w+|as usual) +(stamp|concept \d+): .*", line) for line in words[1:]]
    assert len(said) == 6
    verdicts = {match[2]: match[1] for match in said if match}
    assert verdicts["stamp"] == verdicts["concept 31"] == "overused"
    assert verdicts["concept 3"] == verdicts["concept 4"] == "underused"
    assert verdicts["concept 1"] == "as usual"
    nearest = found.difference(nu[:1], 0)
    assert nearest.component.tolist() == found.assign(nu[:1], 0).tolist()


def test_full_covariance_rejects_new_samples():
    rng = np.random.default_rng(0)
    x, new = rng.dirichlet(np.ones(64), 40), rng.dirichlet(np.ones(64), 40)
    y = np.zeros(40, int)
    with pytest.warns(UserWarning, match=r"class 0 has 40 samples for 1 components of 64 concepts"):
        full = concepts.prototypes(x, y, n_components=1, covariance="full")
    diagonal = concepts.prototypes(x, y, n_components=1)
    gap = [np.mean(f.outlier_score(new, 0) - f.outlier_score(x, 0)) for f in (full, diagonal)]
    assert gap[0] > 100 > 10 * abs(gap[1])


def varying_together(seed):
    """60 samples of 24 concepts in three groups, of very different variance: to fit and to score."""
    rng = np.random.default_rng(seed)
    factors = np.repeat(rng.normal(size=(60, 3)), 8, axis=1)
    scale = np.geomspace(0.001, 0.1, 24)
    return np.split(0.1 + scale * (factors + 0.5 * rng.normal(size=(60, 24))), 2)


def test_shrunk_covariance_is_ledoit_and_wolfs_of_standardized_samples():
    x, _ = varying_together(0)
    found = concepts.prototypes(x, np.zeros(30, int), n_components=1, covariance="shrunk")
    deviation = np.sqrt(x.var(axis=0) + 1e-6)
    z = (x - x.mean(axis=0)) / deviation
    # Ledoit and Wolf (2004), lemmas 3.2 to 3.4, with the mean taken as known
    s = z.T @ z / 30
    m = np.trace(s) / 24
    d2 = np.square(s - m * np.eye(24)).sum() / 24
    b2 = np.mean([np.square(np.outer(row, row) - s).sum() / 24 for row in z]) / 30
    shrinkage = min(b2, d2) / d2
    assert 0.05 < shrinkage < 0.5
    expected = (1 - shrinkage) * s + shrinkage * m * np.eye(24)
    expected = expected * np.outer(deviation, deviation) + 1e-6 * np.eye(24)
    close(covariances(found, 0, 0), expected, rtol=1e-8)
    density = multivariate_normal(x.mean(axis=0), expected).logpdf(x[:5])
    close(found.outlier_score(x[:5], 0), -density, rtol=1e-8)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:class 0 has 30 samples")
def test_shrunk_covariance_knows_new_samples_best(seed):
    x, new = varying_together(seed)
    score = {
        kind: float(np.mean(concepts.prototypes(
            x, np.zeros(30, int), n_components=1, covariance=kind
        ).outlier_score(new, 0)))
        for kind in ("shrunk", "diagonal", "full")
    }  # fmt: skip
    assert score["shrunk"] < min(score["diagonal"], score["full"]) - 3  # nats; seen: 7 at the least


def test_shrunk_components_with_one_sample_have_a_density():
    x = np.concatenate([SIX, [[9.0, 9.0]]])
    found = concepts.prototypes(x, np.zeros(7, int), n_components=3, covariance="shrunk")
    assert np.isfinite(found.outlier_score(x, 0)).all()
    assert found.coverage.min() == pytest.approx(1 / 7)


@pytest.fixture(scope="module")
def of_classes(planted):
    """Two strategies of class 2, one of class 5."""
    nu = np.concatenate([planted[0], using(np.random.default_rng(3), 90, [20, 21])])
    y = np.repeat([2, 5], [180, 90])
    return concepts.prototypes(nu, y), nu, y


def test_classes_have_their_own_components(of_classes):
    found, nu, y = of_classes
    assert found.n_components.tolist() == [2, 1]
    assert found.samples[1, 1] == -1
    assert y[found.samples[1, 0]] == 5
    assert set(np.asarray(found.assign(nu, y))[y == 5].tolist()) == {0}
    by_class = np.stack([found.outlier_score(nu, label) for label in (2, 5)])
    prior = np.log([[180 / 270], [90 / 270]])
    close(found.outlier_score(nu), -np.logaddexp.reduce(prior - by_class), rtol=1e-10)
    close(found.outlier_score(nu, y), np.where(y == 2, *by_class), rtol=1e-12)


def test_jit_equals_eager_and_float32_is_close(of_classes):
    found, nu, y = of_classes
    for name in ("outlier_score", "assign"):
        traced = jax.jit(lambda held, *given, name=name: getattr(held, name)(*given))
        close(traced(found, nu, y), getattr(found, name)(nu, y), rtol=1e-12)
    with jax.enable_x64(False):
        scores = found.outlier_score(jnp.asarray(nu, jnp.float32), y.astype(np.uint8))
        assert scores.dtype == jnp.float32
    close(scores, found.outlier_score(nu, y), rtol=1e-4)  # variances near 1e-6


def test_a_class_without_samples(of_classes):
    found, nu, _ = of_classes
    with pytest.raises(ValueError, match=r"classes contains \[3\], for which there was no sample"):
        found.outlier_score(nu[:2], np.array([2, 3]))
    traced = jax.jit(found.outlier_score)(nu[:2], np.array([2, 3]))
    assert np.isnan(traced).tolist() == [False, True]
    assert jax.jit(found.assign)(nu[:2], np.array([2, 3])).tolist()[1] == -1


def test_saved_and_loaded(of_classes, tmp_path):
    found, nu, y = of_classes
    found.save(tmp_path / "strategies.npz")
    again = concepts.Prototypes.load(tmp_path / "strategies.npz")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.outlier_score(nu, y), found.outlier_score(nu, y))
    assert repr(again) == "Prototypes(components by class {2: 2, 5: 1}, concepts=64)"


@pytest.mark.parametrize("harm", ["cut", "pickle", "shape", "other"])
def test_damaged_files_are_refused(of_classes, tmp_path, harm):
    path = tmp_path / "strategies.npz"
    of_classes[0].save(path)
    with np.load(path) as file:
        held = dict(file)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif harm == "other":
        np.savez(path, a=np.ones(3))
    else:
        bad = {"pickle": held["weights"].astype(object), "shape": held["weights"][:, :1]}[harm]
        np.savez(path, **(held | {"weights": bad}))
    with pytest.raises(ValueError, match=r"is not a complete file of Prototypes\.save"):
        concepts.Prototypes.load(path)


ONES = np.zeros(6, int)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"relevance": SIX[0]}, r"relevance must be floats of shape \(samples, concepts\)"),
        ({"relevance": np.where(SIX == 1.2, np.nan, SIX)}, r"2 samples have NaN or inf.* row 4"),
        ({"classes": ONES[:5]}, r"classes must be integers of shape \(6,\)"),
        ({"classes": ONES + 0.5}, r"classes must be integers of shape \(6,\).*got float64"),
        ({"n_components": 7}, r"class 0 has 6 samples, fewer than n_components=7"),
        ({"n_components": "aic"}, r"n_components must be 'bic' or an integer >= 1, got 'aic'"),
        ({"classes": np.array([0, 0, 0, 0, 0, 4])}, r"class 4 has 1 sample"),
        ({"covariance": "diag"}, r"covariance must be one of 'diagonal', 'full'"),
        ({"min_variance": 0.0}, r"min_variance must be > 0, got 0\.0"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        concepts.prototypes(**{"relevance": SIX, "classes": ONES} | given)


def test_bad_input_of_methods(of_classes):
    found, nu, y = of_classes
    with pytest.raises(
        ValueError, match=r"relevance must have shape \(samples, 64\), got \(270, 2\)"
    ):
        found.assign(nu[:, :2], y)
    with pytest.raises(ValueError, match=r"integers of shape \(270,\).*got float64"):
        found.assign(nu, y + 0.0)
