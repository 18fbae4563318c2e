"""SVMs with additive and Gaussian kernels: sums, scikit-learn, plain formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.ensemble
import sklearn.linear_model
import sklearn.multiclass
import sklearn.svm
from sklearn.metrics.pairwise import additive_chi2_kernel, chi2_kernel

from jaxlrp import heads
from jaxlrp.heads import kernels

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
X = RNG.dirichlet(np.full(6, 0.5), size=60)  # histograms, some bins close to zero
X[:5, 2] = 0
Y = np.digitize(X[:, 0] - X[:, 1] ** 2, [0.02, 0.2])
U, C = X[:20], RNG.normal(size=(20, 3))
B = np.array([0.3, -1.0, 2.0])

TERMS = {
    "linear": lambda u, x: u * x,
    "intersection": np.minimum,
    "chi2": lambda u, x: 2 * u * x / np.maximum(u + x, 1e-300),
    "additive_chi2": lambda u, x: -((u - x) ** 2) / np.maximum(u + x, 1e-300),
    "hellinger": lambda u, x: np.sqrt(u * x),
}


def exact(actual, expected):
    """Float64: sums of some dozens of numbers of order one."""
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", TERMS)
def test_relevance_is_that_of_the_formula_and_sums_to_the_output(kernel):
    result = heads.explain(heads.kernel_machine(U, C, B, kernel))(X, target=2)
    terms = TERMS[kernel](U[None], X[:, None])
    exact(result.output, np.einsum("npd,pk->nk", terms, C) + B)
    exact(result.relevance, np.einsum("npd,p->nd", terms, C[:, 2]) + B[2] / 6)
    exact(result.relevance.sum(1), result.output[:, 2])


def test_derivatives_are_finite_where_features_are_zero():
    x = jnp.zeros((2, 6)).at[0, 1].set(0.5)
    for kernel in TERMS:
        machine = heads.kernel_machine(U, C, B, kernel)
        slopes = jax.grad(lambda x, machine=machine: machine(x).sum())(x)
        assert bool(jnp.isfinite(slopes).all()), kernel


@pytest.mark.parametrize("kernel", ["intersection", "chi2", "hellinger", "linear"])
def test_distance_to_a_center_is_split_exactly(kernel):
    """And no part is negative, up to rounding."""
    w = np.arange(1.0, 21)
    result = heads.explain(heads.kernel_distance(U, w, kernel))(X)
    w, term = w / w.sum(), TERMS[kernel]
    own = np.einsum("i,j,ijd->d", w, w, term(U[:, None], U[None]))
    cross = np.einsum("p,npd->nd", w, term(U[None], X[:, None]))
    exact(result.relevance, term(X, X) - 2 * cross + own)
    exact(result.relevance.sum(1), result.output)
    assert result.relevance.min() > -1e-12
    if kernel == "linear":
        exact(result.output, ((X - w @ U) ** 2).sum(1))


# The Gaussian kernel.


@pytest.fixture
def machine():
    return heads.rbf_machine(U * 3, C, B * 0.1, gamma=2.0)


def test_gaussian_relevance_is_the_integral_from_a_root(machine):
    """Against Gauss and Legendre's 60 nodes, exact for functions this smooth."""
    x, weights = X[20:] * 3, np.eye(3)[np.arange(40) % 3]
    relevance = jax.jit(machine.relevance)(x, weights)
    roots = jax.jit(machine.roots)(x, weights)

    def output(one, w):
        return (machine(one[None])[0] * w).sum()

    explained = jax.vmap(output)(jnp.asarray(x), weights)
    np.testing.assert_allclose(jax.vmap(output)(roots, weights), 0, atol=1e-12)
    exact(relevance.sum(1), explained)
    nodes, shares = np.polynomial.legendre.leggauss(60)
    slopes = jax.jit(jax.vmap(jax.grad(output)))
    mean = sum(
        s / 2 * np.asarray(slopes(roots + (t + 1) / 2 * (x - roots), weights))
        for t, s in zip(nodes, shares, strict=True)
    )
    np.testing.assert_allclose(relevance, mean * (x - roots), rtol=1e-9, atol=1e-11)


def test_a_root_is_on_the_way_to_the_nearest_point_of_the_other_side(machine):
    x = X[20:] * 3
    roots = np.asarray(jax.jit(machine.roots)(x, np.tile([1.0, 0, 0], (40, 1))))
    outputs, at_points = np.asarray(machine(x))[:, 0], np.asarray(machine(U * 3))[:, 0]
    for one, f, root in zip(x, outputs, roots, strict=True):
        other = U[np.sign(at_points) != np.sign(f)] * 3
        end = other[((other - one) ** 2).sum(1).argmin()]
        t = ((root - one) @ (end - one)) / ((end - one) ** 2).sum()
        assert 0 <= t <= 1
        np.testing.assert_allclose(root, one + t * (end - one), atol=1e-12)


def test_level_is_a_reference_value():
    machine = heads.rbf_machine(U, C[:, 0], gamma=5.0, level=0.4)
    result = heads.explain(machine)(X[20:])
    exact(result.relevance.sum(1), result.output[:, 0] - 0.4)


def test_a_sample_on_the_boundary_has_no_relevance(machine):
    root = jax.jit(machine.roots)(X[20:21] * 3, np.eye(3)[:1])
    relevance = jax.jit(machine.relevance)(root, np.eye(3)[:1])
    np.testing.assert_allclose(relevance, 0, atol=1e-7)
    assert np.isfinite(relevance).all()


# From scikit-learn.


def of_pairs(estimator, x):
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(x)
    return estimator.predict(x)


def svc(**options):
    return sklearn.svm.SVC(C=5.0, decision_function_shape="ovo", **options)


ESTIMATORS = {
    "rbf": svc(gamma=3.0),
    "rbf, scale": svc(),
    "linear": svc(kernel="linear"),
    "intersection": svc(kernel=kernels.intersection),
    "chi2": svc(kernel=kernels.chi2),
    "additive_chi2": svc(kernel=additive_chi2_kernel),
    "nu": sklearn.svm.NuSVC(nu=0.2, kernel=kernels.hellinger, decision_function_shape="ovo"),
    "SVR": sklearn.svm.SVR(kernel=kernels.intersection, C=5.0),
    "LinearSVC": sklearn.svm.LinearSVC(),
    "logistic": sklearn.linear_model.LogisticRegression(),
    "ridge": sklearn.linear_model.Ridge(0.1),
    "one against rest": sklearn.multiclass.OneVsRestClassifier(svc(kernel=kernels.intersection)),
}


@pytest.mark.parametrize("classes", [3, 2])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_of_scikit_learn(name, classes):
    y = np.minimum(Y, classes - 1)
    estimator = sklearn.base.clone(ESTIMATORS[name]).fit(X, y)
    head = heads.fitted(estimator, points=X)
    new = RNG.dirichlet(np.ones(6), size=7)
    expected = of_pairs(estimator, new).reshape(7, -1)
    np.testing.assert_allclose(head(new), expected, rtol=1e-10, atol=1e-10)
    last = expected.shape[1] - 1
    relevance = jax.jit(head.relevance)(new, jnp.eye(last + 1)[jnp.full(7, last)])
    exact(relevance.sum(1), head(new)[:, last])


def test_one_class_machine_with_an_additive_kernel():
    machine = sklearn.svm.OneClassSVM(kernel=kernels.intersection, nu=0.3).fit(X)
    head = heads.fitted(machine, points=X)
    np.testing.assert_allclose(head(X)[:, 0], -machine.decision_function(X), atol=1e-12)


def test_precomputed_kernels_are_named():
    machine = svc(kernel="precomputed").fit(kernels.chi2(X, X), Y)
    head = heads.fitted(machine, points=X, kernel="chi2")
    np.testing.assert_allclose(head(X), machine.decision_function(kernels.chi2(X, X)), atol=1e-10)


def test_kernels_for_scikit_learn():
    for name in ("intersection", "chi2", "hellinger"):
        exact(getattr(kernels, name)(X, U), TERMS[name](X[:, None], U[None]).sum(-1))
    zeros = np.zeros((1, 6))
    assert kernels.chi2(zeros, zeros) == 0
    found = heads.kernel_machine(U, C, 0.0, "chi2")(zeros)
    np.testing.assert_array_equal(found, 0)


ONE = np.ones((4, 2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: heads.kernel_machine(U, C, 0, "rbf"), ValueError, "kernel must be one of 'linear'"),
        (lambda: heads.kernel_machine(-U, C), ValueError, "points must be >= 0 for the kernel"),
        (lambda: heads.kernel_machine(U, C[:3]), ValueError, "a row for each of 20 points"),
        (lambda: heads.kernel_machine(U, C, [1.0, 2.0]), ValueError, r"shape \(3,\), one for each output"),
        (lambda: heads.kernel_distance(U, None, "additive_chi2"), ValueError, "must be positive definite"),
        (lambda: heads.kernel_distance(U, -np.ones(20)), ValueError, "weights must be >= 0"),
        (lambda: heads.rbf_machine(U, C, gamma=-1.0), ValueError, "gamma must be positive"),
        (lambda: heads.rbf_machine(U, C, gamma=1.0, level=99.0), ValueError, "level must lie between"),
        (lambda: heads.rbf_machine(U, C, gamma=1.0, level=[0.0] * 2), ValueError, "level must be a number"),
        (lambda: kernels.intersection(-U, U), ValueError, "needs features >= 0"),
        (lambda: kernels.chi2(U, U[:, :2]), ValueError, "x and y must have shapes"),
        (
            lambda: heads.fitted(sklearn.ensemble.RandomForestClassifier()), TypeError,
            "must be a fitted KMeans, .*SVC.*LinearSVC.* of scikit-learn, got RandomForestClassifier",
        ),
        (lambda: heads.fitted(sklearn.svm.SVC()), ValueError, "must be fitted"),
        (
            lambda: heads.fitted(svc(kernel="poly").fit(X, Y)), ValueError,
            "heads.kernels.intersection, .chi2 or .hellinger.*got kernel='poly'",
        ),
        (
            lambda: heads.fitted(svc(kernel=chi2_kernel).fit(X, Y), X), ValueError,
            "got kernel='chi2_kernel'",
        ),
        (
            lambda: heads.fitted(svc(kernel=kernels.chi2).fit(X, Y)), ValueError,
            "scikit-learn keeps no support vectors",
        ),
        (
            lambda: heads.fitted(svc(kernel=kernels.chi2).fit(X, Y), X[:5]), ValueError,
            "points must be the 60 samples",
        ),
        (
            lambda: heads.fitted(sklearn.svm.SVR().fit(X, Y)), ValueError,
            "whose relevance depends on a reference value",
        ),
        (
            lambda: heads.fitted(sklearn.multiclass.OneVsRestClassifier(svc()).fit(X, Y)), ValueError,
            "explain those of other kernels one by one",
        ),
    ],
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
