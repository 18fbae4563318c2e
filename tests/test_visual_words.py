"""Bags of visual words and Fisher vectors: formulas in NumPy, scikit-learn, exact sums down to pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.mixture
import sklearn.svm

from jaxlrp import heads, metrics
from jaxlrp import visual_words as vw
from jaxlrp.heads import kernels

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
IMAGES = RNG.random((12, 10, 13))
DESCRIPTORS = RNG.normal(size=(12, 9, 4)) + RNG.normal(size=(12, 1, 4))
FLAT = DESCRIPTORS.reshape(-1, 4)


def exact(actual, expected):
    """Float64: sums of some dozens of numbers of order one."""
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def shared(terms, relevance):
    """The formula of the paper, in loops: terms (L, F), relevance (F,)."""
    found = np.zeros(len(terms))
    for f, r in enumerate(relevance):
        total = terms[:, f].sum()
        found += r * (terms[:, f] / total if total else 1 / len(terms))
    return found


@pytest.fixture(scope="module")
def words():
    return sklearn.cluster.KMeans(15, n_init=1, random_state=0).fit(FLAT)


@pytest.fixture(scope="module")
def mixture():
    return sklearn.mixture.GaussianMixture(3, covariance_type="diag", random_state=0).fit(FLAT)


def test_histogram_of_words(words):
    bag = vw.fitted(words)
    counts = [np.bincount(words.predict(one), minlength=15) / 9 for one in DESCRIPTORS]
    exact(bag(DESCRIPTORS), counts)
    r = RNG.normal(size=(12, 15))
    assert (np.array(counts) == 0).any()  # words that nobody has: their relevance is shared evenly
    found = bag.relevance(DESCRIPTORS, r)
    for one, given, own in zip(DESCRIPTORS, r, found, strict=True):
        exact(own, shared(np.eye(15)[words.predict(one)], given))
    exact(found.sum(1), r.sum(1))


def test_soft_assignment():
    centers = RNG.normal(size=(5, 4))
    bag, r = vw.bag_of_words(centers, beta=0.7), RNG.normal(size=(12, 5))
    terms = np.exp(-0.7 * ((DESCRIPTORS[:, :, None] - centers) ** 2).sum(-1))
    terms /= terms.sum(-1, keepdims=True)
    exact(bag(DESCRIPTORS), terms.mean(1))
    exact(bag.relevance(DESCRIPTORS, r), [shared(t, g) for t, g in zip(terms, r, strict=True)])


def fisher_terms(mixture, one):
    w, mu, sigma = mixture.weights_, mixture.means_, np.sqrt(mixture.covariances_)
    gamma = mixture.predict_proba(one)
    first, second = [], []
    for k in range(3):
        scaled = (one - mu[k]) / sigma[k]
        first.append(gamma[:, [k]] * scaled / np.sqrt(w[k]))
        second.append(gamma[:, [k]] * (scaled**2 - 1) / np.sqrt(2 * w[k]))
    return np.hstack(first + second)


def test_fisher_vectors(mixture):
    """Terms by the formula with scikit-learn's posterior; improved by power and norm."""
    fisher = vw.fitted(mixture)
    terms = np.array([fisher_terms(mixture, one) for one in DESCRIPTORS])
    z = terms.mean(1)
    v = np.sign(z) * np.sqrt(np.abs(z))
    expected = v / np.linalg.norm(v, axis=1, keepdims=True)
    np.testing.assert_allclose(fisher(DESCRIPTORS), expected, rtol=1e-9, atol=1e-10)
    r = RNG.normal(size=(12, 24))
    np.testing.assert_allclose(
        fisher.relevance(DESCRIPTORS, r),
        [shared(t, g) for t, g in zip(terms, r, strict=True)],
        rtol=1e-7, atol=1e-8,  # quotients of sums that cancel
    )  # fmt: skip


def test_relevance_of_components_far_away_is_not_lost():
    """Their responsibility is e^-450 or less: such a feature counts as one that nobody contributes to."""
    fisher = vw.fisher_vectors([[0.0] * 4, [15.0] * 4, [99.0] * 4], np.ones((3, 4)), np.ones(3))
    r = np.ones((12, 24))  # such as the share of a bias
    exact(fisher.relevance(DESCRIPTORS, r).sum(1), r.sum(1))


def test_fisher_vectors_are_derivatives_of_the_likelihood(mixture):
    """z_mu sqrt(w) / sigma is the derivative of the mean log likelihood by the means (autodiff)."""
    fisher = vw.fisher_vectors(mixture.means_, mixture.covariances_, mixture.weights_, power=1.0)
    w, sigma = mixture.weights_, np.sqrt(mixture.covariances_)

    def likelihood(mu, sigma):
        squares = (((DESCRIPTORS[0][:, None] - mu) / sigma) ** 2).sum(-1) / 2
        return jax.nn.logsumexp(jnp.log(w) - squares - jnp.log(sigma).sum(-1), axis=1).mean()

    by_mean, by_sigma = jax.grad(likelihood, (0, 1))(mixture.means_, sigma)
    z, _ = fisher.mean_and_terms(jnp.asarray(DESCRIPTORS[0]), jnp.ones(9, bool))
    np.testing.assert_allclose(
        z[:12].reshape(3, 4), by_mean * sigma / np.sqrt(w)[:, None], rtol=1e-8
    )
    np.testing.assert_allclose(
        z[12:].reshape(3, 4), by_sigma * sigma / np.sqrt(2 * w)[:, None], rtol=1e-7, atol=1e-9
    )


def test_epsilon_loses_what_it_says(mixture):
    fisher, r = vw.fitted(mixture), RNG.normal(size=(12, 24))
    z = np.array([fisher_terms(mixture, one).mean(0) for one in DESCRIPTORS])
    found = fisher.relevance(DESCRIPTORS, r, epsilon=0.2)
    np.testing.assert_allclose(
        found.sum(1), (r * np.abs(z) / (np.abs(z) + 0.2)).sum(1), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("name", ["words", "mixture"])
def test_missing_descriptors_are_left_out(name, request):
    vocabulary = vw.fitted(request.getfixturevalue(name))
    valid = np.arange(9) < np.arange(12)[:, None] % 9 + 1
    given = np.where(valid[..., None], DESCRIPTORS, np.nan)
    features = vocabulary(given, valid)
    r = RNG.normal(size=features.shape)
    relevance = vocabulary.relevance(given, r, valid)
    assert (np.asarray(relevance)[~valid] == 0).all()
    for i in (0, 4, 8):
        kept = DESCRIPTORS[i : i + 1, : i + 1]
        exact(vocabulary(kept)[0], features[i])
        np.testing.assert_allclose(vocabulary.relevance(kept, r[i : i + 1])[0], relevance[i, : i + 1],
                                   rtol=1e-9, atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("kernel", [kernels.intersection, kernels.chi2, None])
def test_pixels_sum_to_the_score_of_the_machine(kernel, words, mixture):
    """The whole way: pixels, descriptors, features, output."""
    y = np.arange(12) % 2
    patches = vw.patches(IMAGES, 4, 3)
    descriptors = patches.values.reshape(12, -1, 16)[..., :4]
    vocabulary = vw.fitted(words if kernel else mixture)
    features = np.asarray(vocabulary(descriptors))
    svm = (sklearn.svm.SVC(kernel=kernel) if kernel else sklearn.svm.LinearSVC()).fit(features, y)
    result = heads.explain(heads.fitted(svm, points=features))(features)
    of_descriptors = vocabulary.relevance(descriptors, result.relevance)
    maps = vw.to_pixels(of_descriptors, patches.boxes, (10, 13))
    # 1e-9: terms of Fisher vectors cancel
    np.testing.assert_allclose(
        maps.sum((1, 2)), svm.decision_function(features), rtol=1e-9, atol=1e-9
    )


def test_patches_and_pixels():
    found = vw.patches(IMAGES, 4, 3)
    assert found.values.shape == (12, 3 * 4, 4, 4)
    for i, (top, left, bottom, right) in enumerate(found.boxes):
        np.testing.assert_array_equal(found.values[:, i], IMAGES[:, top:bottom, left:right])
    r, expected = RNG.normal(size=(12, 12)), np.zeros((12, 10, 13))
    for i, (top, left, bottom, right) in enumerate(found.boxes):
        expected[:, top:bottom, left:right] += r[:, i, None, None] / 16
    exact(vw.to_pixels(r, found.boxes, (10, 13)), expected)
    own = np.broadcast_to(found.boxes, (12, 12, 4))
    exact(vw.to_pixels(r, own, (10, 13)), expected)


def test_context_ratio_by_hand():
    a = np.array([[[4.0, 2.0], [1.0, -2.0]], [[0.0, 0.0], [1.0, 1.0]]])
    masks = metrics.box_masks([[0, 0, 1, 2], [0, 0, 1, 2]], (2, 2))
    np.testing.assert_allclose(metrics.ContextRatio()(a, masks), [1 / 6, np.nan])
    np.testing.assert_allclose(metrics.ContextRatio(positive=False)(a, masks), [-1 / 6, np.nan])
    assert metrics.ContextRatio().higher_is_better is None
    channels = np.stack([a, a], -1)
    found = metrics.ContextRatio(channels=-1)(channels, masks[..., None])
    np.testing.assert_allclose(found, [1 / 6, np.nan])


BAG = vw.bag_of_words(np.eye(4))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BAG(FLAT), ValueError, r"descriptors must have shape \(images, descriptors, 4\)"),
        (lambda: BAG(DESCRIPTORS[..., :3]), ValueError, r"shape \(images, descriptors, 4\)"),
        (lambda: BAG(DESCRIPTORS * np.nan), ValueError, "descriptors must be finite"),
        (lambda: BAG(DESCRIPTORS, np.ones((12, 9))), ValueError, "valid must be booleans"),
        (lambda: BAG(DESCRIPTORS, np.arange(12)[:, None] + np.zeros(9) > 0), ValueError, "image 0 has"),
        (lambda: BAG.relevance(DESCRIPTORS, np.ones((12, 5))), ValueError, r"shape \(12, 4\), that of"),
        (lambda: BAG.relevance(DESCRIPTORS, np.ones((12, 4)), epsilon=-1), ValueError, "epsilon must be"),
        (lambda: vw.bag_of_words(np.eye(4), beta=0.0), ValueError, "beta must be positive"),
        (lambda: vw.fisher_vectors(np.eye(2), -np.eye(2), [1, 1]), ValueError, "variances must be"),
        (lambda: vw.fisher_vectors(np.eye(2), np.ones((2, 2)), [1]), ValueError, "weights must be"),
        (lambda: vw.fisher_vectors(np.eye(2), np.ones((2, 2)), [1, 1], power=0), ValueError, "power must"),
        (lambda: vw.fitted(sklearn.cluster.DBSCAN()), TypeError, "KMeans, MiniBatchKMeans, Gaussian"),
        (
            lambda: vw.fitted(sklearn.mixture.GaussianMixture().fit(FLAT)), ValueError,
            "covariance_type='diag', of which Fisher vectors are made, got covariance_type='full'",
        ),
        (lambda: vw.patches(IMAGES, 11, 1), ValueError, "at least 11 pixels high and wide"),
        (lambda: vw.patches(IMAGES[0], 2, 1), ValueError, r"images must have shape \(N, H, W\)"),
        (lambda: vw.to_pixels(np.ones((1, 2)), np.zeros((3, 4), int), (5, 5)), ValueError, r"boxes \(L"),
        (lambda: vw.to_pixels(np.ones((1, 1)), [[0, 0, 6, 2]], (5, 5)), ValueError, "inside an image of 5"),
        (lambda: vw.to_pixels(np.ones((1, 1)), [[0, 0, 0, 2]], (5, 5)), ValueError, "top < bottom"),
        (lambda: metrics.box_masks([[0.0, 0, 1, 2]], (5, 5)), ValueError, "boxes must be integers"),
        (lambda: metrics.box_masks([0, 0, 1, 2], (5, 5)), ValueError, r"boxes must be \(n, 4\)"),
    ],
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
