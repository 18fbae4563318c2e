"""Attribution to training samples: scikit-learn, retraining, formulas in NumPy, exact sums, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import jaxlrp as lrp
from jaxlrp import composites, higher_order
from jaxlrp import training_data as td

datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")

pytestmark = pytest.mark.usefixtures("x64")

PIXELS, DIGITS = datasets.load_digits(return_X_y=True)
PIXELS = PIXELS / 16
SMALL = PIXELS.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)  # 4 x 4 pixels
LAM = 3e-3


# --- the support vector machine


@pytest.fixture(scope="module")
def view():
    with jax.enable_x64(True):
        return td.fit_svm(PIXELS[:300], DIGITS[:300], C=0.1, tol=1e-9, max_epochs=2000)


def primal(w, phi, y, C):
    scores, own = phi @ w.T, np.eye(len(w))[y]
    return (w**2).sum() / 2 + C * ((scores + 1 - own).max(1) - (scores * own).sum(1)).sum()


def test_it_is_the_minimum_of_the_primal(view):
    svm = pytest.importorskip("sklearn.svm").LinearSVC(
        C=0.1, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=100_000
    )
    phi, y = PIXELS[:300], DIGITS[:300]
    w = svm.fit(phi, y).coef_
    # our gap bounds the distance of the objectives; weights differ by the root of it
    np.testing.assert_allclose(primal(view.weights, phi, y, 0.1), primal(w, phi, y, 0.1), rtol=1e-8)
    np.testing.assert_allclose(view.weights, w, atol=3e-4)


@pytest.mark.parametrize(
    ("C", "objective", "zeros"),
    [
        (1e-3, 0.9587344670, 0.0),
        (0.1, 22.2935310980, 0.607),
        (1.0, 57.3775203248, 0.792),
    ],
)
@pytest.mark.slow
@pytest.mark.entire
def test_a_thousand_digits_as_scikit_learn(C, objective, zeros):
    """Objectives and shares of zero rows that scikit-learn 1.7 has reached with tol=1e-10."""
    phi, y = PIXELS[:1000], DIGITS[:1000]
    found = td.fit_svm(phi, y, C=C, tol=1e-7, max_epochs=4000)
    assert found.gap <= 1e-7
    np.testing.assert_allclose(primal(found.weights, phi, y, C), objective, rtol=1e-7)
    np.testing.assert_allclose((found.alpha == 0).all(1).mean(), zeros, atol=0.003)


def test_the_gap_is_between_primal_and_dual(view):
    phi, y, alpha = PIXELS[:300], DIGITS[:300], np.asarray(view.alpha)
    w = alpha.T @ phi
    dual = -(w**2).sum() / 2 - (alpha * (1 - np.eye(10)[y])).sum()
    value = primal(w, phi, y, 0.1)
    np.testing.assert_allclose(view.gap, (value - dual) / value, atol=1e-13)
    with pytest.warns(UserWarning, match=r"gap of .*, not tol=1e-09, in 2 epochs: .*max_epochs"):
        early = td.fit_svm(phi, y, C=0.1, tol=1e-9, max_epochs=2)
    assert (early.epochs, early.gap > 1e-3) == (2, True)


def test_dual_variables_are_feasible_and_optimal(view):
    """KKT: a class below its cap has the largest of w_m . phi + 1[m != y]."""
    own = np.eye(10)[DIGITS[:300]]
    alpha = np.asarray(view.alpha)
    np.testing.assert_allclose(alpha.sum(1), 0, atol=1e-15)
    assert (alpha <= 0.1 * own + 1e-15).all()
    losses = PIXELS[:300] @ np.asarray(view.weights).T + 1 - own
    slack = losses.max(1, keepdims=True) - losses
    assert slack[alpha < 0.1 * own - 1e-9].max() < 1e-3


def test_it_sums_to_the_score(view):
    test, c = PIXELS[300:340], DIGITS[300:340]
    tau = view.attribute(test, c)
    expected = np.einsum("nt,td,nd->tn", np.asarray(view.alpha)[:, c], test, PIXELS[:300])
    np.testing.assert_allclose(tau, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(tau.sum(1), view(test)[np.arange(40), c], atol=1e-13)
    of_itself = view.attribute(PIXELS[:300], DIGITS[:300])
    np.testing.assert_allclose(view.self_influence(), np.diagonal(of_itself), atol=1e-14)
    assert view.self_influence().min() >= 0
    agreed = (np.asarray(view(test)).argmax(1) == c).mean()
    assert float(view.agreement(test, c)) == pytest.approx(agreed)
    assert agreed > 0.8


def test_a_sample_of_zeros_has_its_dual_variables_at_the_bounds():
    phi = np.vstack([PIXELS[:50], np.zeros((1, 64))])
    found = td.fit_svm(phi, np.append(DIGITS[:50], 3), C=0.2)
    np.testing.assert_allclose(found.alpha[-1], np.where(np.arange(10) == 3, 0.2, -0.2 / 9))
    assert found.gap <= 1e-3


def test_float32_reaches_the_default_gap():
    found = td.fit_svm(PIXELS[:300].astype(np.float32), DIGITS[:300])
    assert found.alpha.dtype == np.float32
    assert found.gap <= 1e-3


# --- heat maps of pairs


def encode(w, x):
    return jax.nn.relu(x @ w[0]) @ w[1]


def test_maps_sum_to_the_contribution_and_are_margins_of_pairs():
    keys = jax.random.split(jax.random.key(0))
    w = [jax.random.normal(keys[0], (16, 12)), jax.random.normal(keys[1], (12, 6))]
    features = encode(w, SMALL[:80])
    fitted = td.fit_svm(features, DIGITS[:80], C=0.01)
    rule = composites.all_epsilon(1e-14)
    encoder = lrp.explain(encode, rule, argnums=1)
    c = DIGITS[80:83]
    rows = np.abs(fitted.attribute(encode(w, SMALL[80:83]), c)).argmax(1)
    maps = td.pair_maps(fitted, encoder, (w, SMALL[80:83]), (w, SMALL[rows]), rows=rows, targets=c)
    expected = np.asarray(fitted.attribute(encode(w, SMALL[80:83]), c))[np.arange(3), rows]
    assert np.abs(expected).min() > 0.01
    np.testing.assert_allclose(maps.contribution, expected, rtol=1e-10)
    np.testing.assert_allclose(maps.test.relevance.sum(1), expected, rtol=1e-9)
    np.testing.assert_allclose(maps.train.relevance.sum(1), expected, rtol=1e-9)
    of_pair = higher_order.pairs(lambda x: encode(w, x[None])[0], rule)
    for t, i in enumerate(rows):
        whole = fitted.alpha[i, c[t]] * of_pair(jnp.asarray(SMALL[80 + t]), jnp.asarray(SMALL[i]))
        scale = np.abs(whole).max()
        np.testing.assert_allclose(maps.test.relevance[t], whole.sum(1), atol=1e-9 * scale)
        np.testing.assert_allclose(maps.train.relevance[t], whole.sum(0), atol=1e-9 * scale)


def test_wrong_pairs_are_refused():
    encoder = lrp.explain(lambda x: x @ jnp.eye(16))
    fitted = td.fit_svm(SMALL[:40], DIGITS[:40])
    given = (fitted, encoder, (SMALL[:1],), (SMALL[1:2],))
    with pytest.raises(
        ValueError, match="train must be the inputs of the training samples that rows"
    ):
        td.pair_maps(*given, rows=[2], targets=[0])
    with pytest.raises(ValueError, match=r"must compute features of shape \(2, 16\)"):
        td.pair_maps(*given, rows=[1, 2], targets=[0, 0])
    with pytest.raises(TypeError, match="encoder must be the result of"):
        td.pair_maps(fitted, encode, *given[2:], rows=[1], targets=[0])
    with pytest.raises(ValueError, match="must begin at its output and not be a gradient"):
        td.pair_maps(
            fitted, lrp.explain(lambda x: x @ jnp.eye(16), composites.gradient()), *given[2:],
            rows=[1], targets=[0],
        )  # fmt: skip


# --- logistic regression, for which influence is compared with retraining


def retrained(phi, y, weights, lam=LAM):
    """The minimum over W (K, D) of 1/N sum_i weights_i CE_i + lam |W|^2, by scipy."""
    own = np.eye(10)[y]

    def objective(flat):
        w = flat.reshape(10, -1)
        logits = phi @ w.T
        logs = logits - logits.max(1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(1, keepdims=True))
        g = ((np.exp(logs) - own) * weights[:, None]).T @ phi / len(phi) + 2 * lam * w
        value = -(weights * (logs * own).sum(1)).mean() + lam * (w**2).sum()
        return value, g.ravel()

    options = {"ftol": 1e-16, "gtol": 1e-9, "maxiter": 2000}
    found = minimize(
        objective, np.zeros(10 * phi.shape[1]), jac=True, options=options, method="L-BFGS-B"
    )
    assert np.abs(found.jac).max() < 1e-6
    return found.x.reshape(10, -1)


def loss(w, sample):
    x, y = sample
    return -jax.nn.log_softmax(w @ x)[y]


def squared_norm(w):
    return LAM * (w**2).sum()


def losses(w, phi, y):
    logits = phi @ np.asarray(w).T
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


@pytest.fixture(scope="module")
def logistic():
    """(minimum, training samples, explained samples)."""
    w = retrained(SMALL[:150], DIGITS[:150], np.ones(150))
    return w, (SMALL[:150], DIGITS[:150]), (SMALL[150:180], DIGITS[150:180])


@pytest.fixture(scope="module")
def exact(logistic):
    with jax.enable_x64(True):
        return np.asarray(td.influence(loss, *logistic, regularizer=squared_norm))


def test_influence_is_leaving_one_out(logistic, exact):
    """Over 20 retrainings; influence is of first order, so it is not equal."""
    w, (x, y), test = logistic
    before, changes = losses(w, *test), []
    for i in range(0, 150, 8):
        kept = np.ones(150)
        kept[i] = 0
        changes.append(losses(retrained(x, y, kept), *test) - before)
    found = exact[:, ::8]
    assert np.corrcoef(np.ravel(np.transpose(changes)), found.ravel())[0, 1] > 0.99
    slope = (np.transpose(changes) * found).sum() / (found**2).sum()
    assert 0.9 < slope < 1.3


def test_influence_of_ridge_regression_is_exact():
    """A quadratic objective: influence / (1 - h) is the change itself, h the leverage of the sample."""
    x, y, test = PIXELS[:200], DIGITS[:200] - 4.5, PIXELS[200:205]
    n, lam = len(x), 1e-2

    def fit(kept):
        return np.linalg.solve(x[kept].T @ x[kept] / n + lam * np.eye(64), x[kept].T @ y[kept] / n)

    w = fit(np.arange(n))
    tau = td.influence(
        lambda w, sample: (sample[0] @ w - sample[1]) ** 2, w, (x, y), test,
        score=lambda w, x: x @ w, regularizer=lambda w: lam * (w**2).sum(), batch_size=64,
    )  # fmt: skip
    leverage = np.einsum("nd,nd->n", x, np.linalg.solve(x.T @ x / n + lam * np.eye(64), x.T).T / n)
    for i in (0, 3, 77, 199):
        change = test @ (fit(np.delete(np.arange(n), i)) - w)
        np.testing.assert_allclose(-tau[:, i] / (1 - leverage[i]), change, rtol=1e-10)


def probabilities(w, phi):
    e = np.exp(phi @ np.asarray(w).T)
    return e / e.sum(1, keepdims=True)


def test_products_of_gradients(logistic):
    """The gradient of a logistic regression is (p - y) phi^T."""
    w, (x, y), (xt, yt) = logistic

    def dot(w):
        errors, others = probabilities(w, x) - np.eye(10)[y], probabilities(w, xt) - np.eye(10)[yt]
        sizes = [np.sqrt((e**2).sum(1) * (v**2).sum(1)) for e, v in ((others, xt), (errors, x))]
        return (others @ errors.T) * (xt @ x.T), sizes

    found, sizes = dot(w)
    np.testing.assert_allclose(td.gradient_dot(loss, *logistic, batch_size=64), found, atol=1e-13)
    np.testing.assert_allclose(
        td.gradient_cosine(loss, *logistic), found / np.outer(*sizes), rtol=1e-9, atol=1e-12
    )
    both = td.tracin(loss, [w, 0 * w], [0.5, 0.1], *logistic[1:])
    np.testing.assert_allclose(both, 0.5 * found + 0.1 * dot(0 * w)[0], atol=1e-13)

    def logit(w, sample):
        return (w @ sample[0])[sample[1]]

    of_logits = td.gradient_dot(loss, *logistic, score=logit)
    expected = (np.eye(10)[yt] @ (np.eye(10)[y] - probabilities(w, x)).T) * (xt @ x.T)
    np.testing.assert_allclose(of_logits, expected, atol=1e-13)


def test_similarities():
    found = td.cosine_similarity(SMALL[3:8], SMALL[:3])  # training samples first, as everywhere
    a, b = SMALL[:3], SMALL[3:8]
    np.testing.assert_allclose(td.dot_similarity(b, a), a @ b.T, rtol=1e-12)
    sizes = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    np.testing.assert_allclose(found, a @ b.T / sizes, rtol=1e-12)
    assert (td.cosine_similarity(b, np.zeros((1, 16))) == 0).all()


def test_representer_points_sum_to_the_logit(logistic):
    w, (x, y), (xt, yt) = logistic
    points = td.fit_representer(x, y, l2=LAM, tol=1e-13)
    np.testing.assert_allclose(points.weights, w, atol=1e-4)  # scipy stops before
    errors = np.eye(10)[y] - probabilities(points.weights, x)
    np.testing.assert_allclose(points.alpha, errors / (2 * LAM * 150), atol=1e-12)
    tau = points.attribute(xt, yt)
    np.testing.assert_allclose(tau.sum(1), points(xt)[np.arange(30), yt], atol=1e-11)
    assert points.residual < 1e-12
    rough = td.fit_representer(x, y, l2=LAM, max_steps=1)
    assert rough.residual > 1e-3


def test_linear_datamodeling_score(logistic, exact):
    """The reference: .98 for influence, .60 for the gradient dot, 0 for random numbers."""
    _, (x, y), test = logistic
    subsets = td.metrics.random_subsets(jax.random.key(0), 40, 150)
    outputs = np.stack([-losses(retrained(x, y, s * 2.0), *test) for s in subsets])
    dot = td.gradient_dot(loss, *logistic)
    noise = jax.random.normal(jax.random.key(1), exact.shape)
    scores = [
        td.metrics.linear_datamodeling_score(t, subsets, outputs) for t in (exact, dot, noise)
    ]
    assert scores[0] > 0.9
    assert 0.9 > scores[1] > 0.4
    assert abs(scores[2]) < 0.1


# --- solvers


def test_arnoldi_of_full_rank_is_exact(logistic, exact):
    """Eigenvalues have a condition of about 1e2."""
    arnoldi = td.Arnoldi(rank=160)
    found = td.influence(loss, *logistic, regularizer=squared_norm, solver=arnoldi, batch_size=40)
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-9 * np.abs(exact).max())


def test_arnoldi_keeps_the_largest_eigenvalues():
    x = np.random.default_rng(0).normal(size=(60, 30)) * np.geomspace(3, 0.1, 30)
    y, w = x[:, 0] - 1, np.zeros(30)
    arnoldi = td.Arnoldi(rank=8, iterations=30, damping=0.01)
    found = td.influence(
        lambda w, s: (s[0] @ w - s[1]) ** 2 / 2,
        w,
        (x, y),
        x[:4],
        score=lambda w, x: x @ w,
        solver=arnoldi,
    )
    values, vectors = np.linalg.eigh(x.T @ x / 60)
    top = vectors[:, -8:]
    expected = -(x[:4] @ top / (values[-8:] + 0.01)) @ (top.T @ (-y[:, None] * x).T) / 60
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def mlp(params, x):
    (w, b), v = params
    return jax.nn.log_softmax(jnp.tanh(x @ w + b) @ v)


def mlp_loss(params, sample):
    return -mlp(params, sample[0])[sample[1]]


def kronecker(params, x, y=None):
    """The Fisher matrix of each layer as K-FAC has it, dense."""
    (w, b), v = params
    h = np.tanh(x @ w + b)
    logits = h @ v
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.eye(v.shape[1])
    s_out = s_in = 0
    for k in range(v.shape[1]):
        chance = p[:, k] if y is None else (y == k).astype(float)
        last = labels[k] - p
        first = (last @ v.T) * (1 - h**2)
        s_out = s_out + (last * chance[:, None]).T @ last / len(x)
        s_in = s_in + (first * chance[:, None]).T @ first / len(x)
    ones = np.hstack([x, np.ones((len(x), 1))])
    return np.kron(ones.T @ ones / len(x), s_in), np.kron(h.T @ h / len(x), s_out)


@pytest.mark.parametrize("expected_outcomes", [True, False])
def test_kfac_as_in_numpy(expected_outcomes):
    rng = np.random.default_rng(1)
    params = ((rng.normal(size=(4, 3)), rng.normal(size=3)), rng.normal(size=(3, 5)))
    x, y = rng.normal(size=(20, 4)), rng.integers(0, 5, 20)
    outcomes = (lambda params, sample: mlp(params, sample[0])) if expected_outcomes else None
    found = td.influence(
        mlp_loss, params, (x, y), (x[:3], y[:3]), solver=td.KFAC(0.1, outcomes), batch_size=8
    )
    blocks = kronecker(params, x, None if expected_outcomes else y)
    # weights row by row, then the bias, as in a~ = (a, 1); then the weights of the last layer
    g = jax.vmap(lambda *sample: jax.grad(mlp_loss)(params, sample))(x, y)
    (gw, gb), gv = g
    g = [np.hstack([np.reshape(gw, (20, -1)), gb]), np.reshape(gv, (20, -1))]
    expected = sum(
        a[:3] @ np.linalg.solve(block + 0.1 * np.eye(len(block)), a.T) / 20
        for a, block in zip(g, blocks, strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spelling", ["x @ w", "w.T x", "einsum"])
def test_kfac_is_exact_for_a_linear_regression(spelling):
    """One output of variance one: the Fisher matrix is the Hessian. Weights on either side of a product."""
    x, y = SMALL[:60], DIGITS[:60] / 10
    w = np.linspace(-1, 1, 16)[:, None]
    w = w.T if spelling == "w.T x" else w

    def predict(w, x):
        if spelling == "einsum":
            return jnp.einsum("dk,d->k", w, x)[0]
        return (w @ x if spelling == "w.T x" else x @ w)[0]

    def outcomes(w, sample):  # one above the mean and one below, of equal probability
        z = predict(w, sample[0])
        return -((z - jax.lax.stop_gradient(z) - jnp.array([1.0, -1.0])) ** 2) / 2

    def squared(w, sample):
        return (predict(w, sample[0]) - sample[1]) ** 2 / 2

    given = (squared, w, (x, y), (x[:5], y[:5]))
    np.testing.assert_allclose(
        td.influence(*given, solver=td.KFAC(1e-3, outcomes)),
        td.influence(*given, solver=td.Exact(1e-3)), rtol=1e-8, atol=1e-10,
    )  # fmt: skip


def test_kfac_weighs_its_term():
    """Twice the objective and twice the damping: the same influence."""
    x, y = SMALL[:30], DIGITS[:30] / 10

    def squared(w, sample):
        return (sample[0] @ w - sample[1])[0] ** 2

    def of(weight):
        terms = {"data": td.Term(squared, (x, y[:, None]), weight)}
        return td.influence_of_terms(
            terms,
            np.ones((16, 1)),
            x[:2],
            score=lambda w, x: (x @ w)[0],
            solver=td.KFAC(0.1 * weight),
        )["data"]

    np.testing.assert_allclose(of(2.0), of(1.0), rtol=1e-10)


def test_terms_are_weighted_means(logistic, exact):
    """Two halves of the data as two terms, of half the weight each, are one objective."""
    w, (x, y), test = logistic
    terms = {
        "first": td.Term(loss, (x[:50], y[:50]), weight=1 / 3),
        "second": td.Term(loss, (x[50:], y[50:]), weight=2 / 3),
    }
    found = td.influence_of_terms(
        terms, w, test, score=lambda w, s: -loss(w, s), regularizer=squared_norm, batch_size=30
    )
    both = np.hstack([found["first"], found["second"]])
    np.testing.assert_allclose(both, exact, rtol=1e-9, atol=1e-12)


# --- memory, and what is refused


def test_no_array_of_all_pairs_of_training_samples():
    """N = 200 samples of 5 features and 3 classes."""
    largest = []

    def sizes(jaxpr):
        for eqn in jaxpr.eqns:
            yield from (v.aval.size for v in eqn.outvars if hasattr(v.aval, "size"))
            for value in jax.tree.leaves(eqn.params, is_leaf=lambda v: hasattr(v, "jaxpr")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)

    n = 200
    x, y = jnp.asarray(SMALL[:n, :5]), jnp.asarray(DIGITS[:n] % 3)
    from jaxlrp.training_data import representer, svm

    one = jnp.asarray(1.0)
    for made in (
        jax.make_jaxpr(lambda x: svm._solve(x, y, one, 1e-3, 9, jax.random.key(0), classes=3))(x),
        jax.make_jaxpr(lambda x: representer._newton(x, jnp.eye(3)[y], one, 1e-3, 9))(x),
    ):
        largest.append(max(sizes(made.jaxpr)))
    assert n * 3 <= max(largest) < n * n / 10


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (
            SMALL[:5],
            np.array([0, 1, 3, 3, 1]),
            {},
            r"a sample of each class from 0 to 3, got none of \[2\]",
        ),
        (SMALL[:1], np.array([1]), {}, "two classes at the least, got only class 1 in 1 sample"),
        (SMALL[:5], np.array([0, 1, 0, 1]), {}, r"labels must be 5 integers, of shape \(5,\)"),
        (SMALL[:2], np.array([0.0, 1.0]), {}, "labels must be 2 integers"),
        (SMALL[:2], np.array([-1, 1]), {}, "labels must be at least 0, got values from -1 to 1"),
        (SMALL[:2] * np.nan, np.array([0, 1]), {}, "features must be finite, got 32 NaN or inf"),
        (SMALL[0], np.array([0, 1]), {}, r"features must have shape \(N, D\), got \(16,\)"),
    ],
)
@pytest.mark.entire
def test_data_that_cannot_be_fitted(features, labels, options, message):
    for fit in (td.fit_svm, td.fit_representer):
        with pytest.raises(ValueError, match=message):
            fit(features, labels, **options)


def test_options_are_checked():
    x, y = SMALL[:40], DIGITS[:40]
    for options in ({"C": 0}, {"C": np.inf}, {"tol": -1}, {"max_epochs": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            td.fit_svm(x, y, **options)
    with pytest.raises(ValueError, match="l2 must be a positive number, got 0"):
        td.fit_representer(x, y, l2=0)
    fitted = td.fit_svm(x, y)
    with pytest.raises(
        ValueError, match="targets must be at least 0 and below 10, got values from 10"
    ):
        fitted.attribute(x[:1], [10])
    with pytest.raises(ValueError, match=r"features must have shape \(N, 16\), got \(1, 15\)"):
        fitted(x[:1, :15])
    for solver, message in (
        (lambda: td.KFAC(damping=0), "damping must be > 0"),
        (lambda: td.Exact(damping=-1), "damping must be >= 0"),
        (lambda: td.Arnoldi(rank=5, iterations=4), "iterations must be at least rank, 5, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            solver()


def test_what_the_loss_cannot_take_is_named():
    def loss(w, sample):
        return (sample[0] @ w - sample[1]) ** 2

    train, narrow = (np.ones((4, 2)), np.ones(4)), (np.ones((3, 5)), np.ones(3))
    message = (
        r"loss cannot be computed: .* one sample of test, .* \(shapes \(5,\), \(\)\): TypeError"
    )
    with pytest.raises(ValueError, match=message):
        td.influence(loss, np.ones(2), train, narrow)


def test_a_singular_hessian_is_refused(logistic):
    """Without a regularizer, the same vector may be added to the weights of all classes."""
    with pytest.raises(
        ValueError, match=r"the Hessian is singular in float64.*Exact\(damping=1e-3\)"
    ):
        td.influence(loss, *logistic)
    assert np.isfinite(td.influence(loss, *logistic, solver=td.Exact(1e-3))).all()


def test_what_influence_refuses(logistic):
    w, (x, y), test = logistic
    with pytest.raises(ValueError, match="loss must return a scalar for one sample"):
        td.gradient_dot(lambda w, s: w @ s[0], w, (x, y), test)
    with pytest.raises(ValueError, match="train must be arrays with one leading axis"):
        td.gradient_dot(loss, w, (x, y[:5]), test)
    with pytest.raises(ValueError, match="2 checkpoints and 1 learning rate"):
        td.tracin(loss, [w, w], [0.1], (x, y), test)
    with pytest.raises(TypeError, match=r"solver must be Exact\(\), KFAC\(\) or Arnoldi\(\)"):
        td.influence(loss, w, (x, y), test, solver="exact")
    with pytest.raises(ValueError, match=r"up to 10,000 parameters, got 10,240"):
        td.influence(loss, np.zeros((640, 16)), (x, y), test)
    with pytest.raises(ValueError, match="takes one term and no regularizer"):
        td.influence(loss, w, (x, y), test, regularizer=squared_norm, solver=td.KFAC())
    with pytest.raises(ValueError, match=r"got the parameter \['scale'\] of shape \(16,\)"):
        td.influence(
            lambda p, s: loss(p["w"], (s[0] * p["scale"], s[1])), {"w": w, "scale": np.ones(16)},
            (x, y), test, solver=td.KFAC(),
        )  # fmt: skip
    with pytest.raises(ValueError, match="the Hessian must be finite and not zero"):
        td.influence(lambda w, s: w.sum(), w, (x, y), test, solver=td.Arnoldi(rank=2))
    with pytest.raises(ValueError, match="terms must be one at the least"):
        td.influence_of_terms({}, w, test, score=loss)
    with pytest.raises(TypeError, match=r"terms\['a'\] must be a Term"):
        td.influence_of_terms({"a": loss}, w, test, score=loss)
