"""Prototype networks: relevance by the formula in NumPy, deselection, refit against scikit-learn, leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import jaxlrp as lrp
from jaxlrp import composites, heads, prototypes

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
Z = RNG.random((7, 3, 2, 4))
P = RNG.random((5, 4))
P[0] = Z[2, 1, 1]  # a part of a sample, as ProtoPNet has it
W, B = RNG.normal(size=(5, 3)), np.array([0.5, -1.0, 0.0])


@pytest.fixture
def layer():
    return prototypes.layer(P, W, B)


def by_hand(z, p):
    """The similarity and its relevance, (6, 4), of one sample and prototype."""
    parts = z.reshape(-1, 4)
    d = ((parts - p) ** 2).sum(1)
    s = np.log((d + 1) / (d + 1e-4))
    r = np.zeros((6, 4))
    close = 1 / ((parts[s.argmax()] - p) ** 4 + 1e-12)
    r[s.argmax()] = s.max() * close / close.sum()
    return s.max(), r


def test_relevance_of_a_prototype(layer):
    """rtol 1e-9: of a part that is the prototype, distances are zero exactly."""
    for p in (0, 3):
        result = heads.explain(layer.similarities)(Z, target=p)
        for z, s, r in zip(Z, np.asarray(result.output)[:, p], result.relevance, strict=True):
            expected, shares = by_hand(z, P[p])
            np.testing.assert_allclose(s, expected, rtol=1e-9)
            np.testing.assert_allclose(r.reshape(6, 4), shares, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(result.relevance.sum((1, 2, 3)), result.output[:, p], rtol=1e-12)
    assert float(layer.similarities(Z)[2, 0]) == pytest.approx(-np.log(1e-4))
    assert int(layer.similarities.where(Z)[2, 0]) == 3


def test_relevance_of_a_class(layer):
    """Sums over prototypes; to the logit less its bias. A network below continues it."""
    result = heads.explain(layer)(Z, target=1)
    expected = [sum(W[p, 1] * by_hand(z, P[p])[1] for p in range(5)) for z in Z]
    np.testing.assert_allclose(result.relevance.reshape(7, 6, 4), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        result.relevance.sum((1, 2, 3)), result.output[:, 1] - B[1], rtol=1e-9
    )
    np.testing.assert_allclose(
        layer.of_prototypes(Z, 1).sum(1) + B[1], result.output[:, 1], rtol=1e-9
    )

    w = RNG.random((2, 4))  # positive: nothing is absorbed
    encoder = lrp.explain(lambda x: jax.nn.relu(x @ w), composites.all_epsilon(0.0))
    x = RNG.random((7, 3, 2, 2))
    found = heads.explain(layer, encoder)(x, target=1)
    np.testing.assert_allclose(found.relevance.sum((1, 2, 3)), found.output[:, 1] - B[1], rtol=1e-7)


def test_deselection(layer):
    s = np.asarray(layer.similarities(Z))
    everywhere, one = layer.deselect([0, 3]), layer.deselect([0, 3], classes=[2])
    kept = np.isin(np.arange(5), [0, 3], invert=True)
    np.testing.assert_allclose(everywhere(Z), s[:, kept] @ W[kept] + B, rtol=1e-9)
    np.testing.assert_allclose(one(Z)[:, :2], layer(Z)[:, :2])
    np.testing.assert_allclose(one(Z)[:, 2], everywhere(Z)[:, 2])
    assert np.array_equal(np.asarray(layer.mask), np.ones((5, 3)))  # a value: unchanged
    r = heads.explain(everywhere)(Z, target=0)
    np.testing.assert_allclose(r.relevance.sum((1, 2, 3)), r.output[:, 0] - B[0], rtol=1e-9)


def test_refit_is_logistic_regression():
    """Against scikit-learn: with weights of zero before, l2 |w|^2 is its penalty, C = 1 / (2 N l2)."""
    z, y = RNG.random((60, 6, 4)), RNG.integers(0, 3, 60)
    begun = prototypes.layer(P, np.zeros((5, 3))).deselect([1])
    found = prototypes.refit(begun, z, y, l2=1e-3)
    kept = [0, 2, 3, 4]
    s = np.asarray(begun.similarities(z))[:, kept]
    theirs = LogisticRegression(C=1 / (2 * 60 * 1e-3), tol=1e-10, max_iter=5000).fit(s, y)
    p = jax.nn.softmax(found(z))
    np.testing.assert_allclose(p, theirs.predict_proba(s), atol=1e-5)  # both stop near the minimum
    np.testing.assert_array_equal((found.weights * found.mask)[1], 0)
    stiff = prototypes.refit(prototypes.layer(P, W), z, y, l2=1e4)
    np.testing.assert_allclose(stiff.weights, W, atol=1e-3)


def test_an_artifact_is_found_and_its_leak_closed():
    """A channel of its own at one position: the prototype of class 0 that has it rises, no other."""
    z = RNG.random((80, 4, 3)) * 0.5
    y = RNG.integers(0, 2, 80)
    z[:, 1, 0] = 0.5 + 0.5 * y  # the true feature
    marked = z.copy()
    marked[:, 2] = [0.0, 0.0, 3.0]
    vectors = np.array([[0.5, 0.2, 0.2], [1.0, 0.2, 0.2], [0.0, 0.0, 3.0]])
    with_mark = np.where((y == 0)[:, None, None], marked, z)
    layer = prototypes.refit(prototypes.layer(vectors, np.zeros((3, 2))), with_mark, y)
    rise = np.asarray(prototypes.rise(layer, z[y == 1], marked[y == 1]))
    assert rise.argmax() == 2
    assert rise[2] > 5
    assert np.abs(rise[:2]).max() < 1
    leak = prototypes.leakage(layer(z), layer(marked), y, into=0)
    assert leak.after > 0.9
    clean = prototypes.refit(layer.deselect([2]), with_mark, y)
    closed = prototypes.leakage(clean(z), clean(marked), y, into=0)
    assert closed.after <= closed.before + 0.1
    assert closed.with_artifact > 0.8


def test_leakage_by_hand():
    found = prototypes.leakage(np.eye(3)[[0, 1, 2, 0]], [0, 0, 0, 0], [0, 1, 2, 1], into=0)
    assert found == prototypes.Leakage(0.75, 0.25, 1 / 3, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prototypes.layer(P, W[:3]), "weights must have a row for each of 5 prototypes"),
        (lambda: prototypes.layer(P, W, [1.0, 2.0]), r"bias must be a number or have shape \(3,\)"),
        (lambda: prototypes.layer(P, W, epsilon=0.0), "epsilon must be above 0 and below 1"),
        (lambda: prototypes.layer(P[0], W), r"vectors must have shape \(prototypes, channels\)"),
        (lambda: prototypes.layer(P, W)(Z[..., :3]), r"features must have shape \(N, ..., 4\)"),
        (lambda: prototypes.layer(P, W).deselect([5]), "prototypes must be from 0 to 4"),
        (lambda: prototypes.layer(P, W).deselect([]), "prototypes must be indices"),
        (lambda: prototypes.layer(P, W).deselect([0], classes=[3]), "classes must be from 0 to 2"),
        (
            lambda: prototypes.refit(prototypes.layer(P, W), Z, [0, 1]),
            "labels must be 7 class indices",
        ),
        (
            lambda: prototypes.refit(prototypes.layer(P, W), Z, [3] * 7),
            "labels must be from 0 to 2",
        ),
        (lambda: prototypes.refit(prototypes.layer(P, W), Z, [0] * 7, l2=-1), "l2 must be >= 0"),
        (lambda: prototypes.rise(prototypes.layer(P, W), Z, Z[:2]), "of one shape"),
        (lambda: prototypes.leakage([0], [0], [0, 1], 0), "must be of the same samples"),
        (
            lambda: prototypes.leakage([0], [0], [0], 0),
            "labels must have other classes than into=0",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_programs(layer):
    """jit and vmap agree with the batch."""
    explain = heads.explain(layer)
    relevance = explain(Z, target=0).relevance
    np.testing.assert_allclose(
        jax.jit(lambda z: explain(z, target=0).relevance)(jnp.asarray(Z)), relevance
    )
