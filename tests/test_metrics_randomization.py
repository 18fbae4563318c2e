"""Randomization: models initialized again, similarities, and what tells trained from random models."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp
from jaxlrp import metrics
from jaxlrp.metrics.randomization.models import smoothed
from jaxlrp.metrics.similarity import SSIM, Cosine, Spearman

stats = pytest.importorskip("scipy.stats")
skimage = pytest.importorskip("skimage.metrics")

KEY = jax.random.key(7)


class Net(nn.Module):
    """Batch normalization, a parameter of its own, and a name that is not in alphabetical order."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="z")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x)).mean((1, 2))
        x = x * self.param("gain", nn.initializers.constant(2.0), (4,))
        return nn.Dense(3, name="a", bias_init=nn.initializers.ones)(x)


@functools.cache
def net():
    """A model, its variables as if trained, and an input."""
    model, x = Net(), jax.random.normal(KEY, (2, 6, 6, 1))
    variables = jax.tree.map(lambda a: a + 0.5, model.init(jax.random.key(1), x))
    return model, variables, x


def layer(variables, path):
    """The leaves of a layer of `Net`."""
    return [v[path] for v in variables.values() if path in v]


def same(a, b):
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


ORDER = ("z", "BatchNorm_0", "gain", "a")  # from the input to the output


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_layers_are_initialized_as_the_model_does(order):
    model, variables, x = net()
    fresh = model.init(jax.random.key(3), x)
    steps = list(metrics.randomize(model, variables, jax.random.key(3), order=order, inputs=x))
    expected = ORDER[::-1] if order == "top_down" else ORDER
    assert tuple(path for path, _ in steps) == expected
    for i, (_, found) in enumerate(steps):
        changed = expected[i : i + 1] if order == "independent" else expected[: i + 1]
        for path in ORDER:
            source = fresh if path in changed else variables
            assert same(layer(found, path), layer(source, path))
    if order != "independent":
        assert same(steps[-1][1], fresh)  # running statistics, and biases of one, among them
    assert same(variables, net()[1])


def test_some_layers_only():
    model, variables, x = net()
    steps = list(metrics.randomize(model, variables, KEY, layers=("z", "a"), inputs=x))
    assert [path for path, _ in steps] == ["a", "z"]
    assert same(layer(steps[-1][1], "gain"), layer(variables, "gain"))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.out = nnx.Linear(4, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.inner = nnx.LinearGeneral(3, 4, rngs=rngs, kernel_init=nnx.initializers.constant(3.0))

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.inner(x)), deterministic=True))


def test_an_nnx_module():
    trained = Block(nnx.Rngs(0))
    graph, state = nnx.split(trained)
    state = jax.tree.map(lambda a: a + 0.5 if jnp.issubdtype(a.dtype, jnp.floating) else a, state)
    x = jnp.ones((1, 3))
    order = metrics.evaluation_order(lambda s, x: nnx.merge(graph, s)(x), state, x)
    assert order == ("inner", "out")
    assert order == tuple(p for p in lrp.plan(trained, None, x).paths if p != "relu")
    steps = dict(metrics.randomize(lambda key: Block(nnx.Rngs(key)), state, KEY, layers=order))
    fresh = nnx.state(Block(nnx.Rngs(KEY)))
    assert list(steps) == ["out", "inner"]
    assert same(steps["inner"]["out"], fresh["out"])
    assert (steps["inner"]["inner"]["kernel"][...] == 3.0).all()
    assert (steps["out"]["inner"]["kernel"][...] == 3.5).all()
    assert nnx.merge(graph, steps["inner"])(x).shape == (1, 2)


def init(key):
    first, second = jax.random.split(key)
    return [
        {"w": jax.random.normal(first, (3, 4)), "b": jnp.zeros(4)},
        {"w": jax.random.normal(second, (4, 2))},
    ]


def mlp(params, x):
    return jax.nn.relu(x @ params[0]["w"] + params[0]["b"]) @ params[1]["w"]


def test_a_plain_tree_and_a_plan():
    params, x = init(jax.random.key(0)), jnp.ones((1, 3))
    plan = lrp.plan(mlp, None, params, x, argnums=1)
    steps = dict(metrics.randomize(init, params, KEY, layers=plan))
    assert list(steps) == ["1", "0"]
    assert same(steps["0"], init(KEY))
    assert same(steps["1"], [params[0], init(KEY)[1]])
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    for _, found in metrics.randomize(init, half, KEY, layers=("0", "1")):
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, half)
        assert {a.dtype for a in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}


def test_the_order_of_evaluation():
    def fun(p, x):
        p = jax.tree.map(lambda a: a * 1, p)  # before anything is used
        x = jax.jit(lambda p, x: jnp.sin(x * p["c"]) + p["b"])(p, x)
        x, _ = jax.lax.scan(lambda x, w: (x * w + p["d"], None), x, p["e"])
        return x * p["a"] + p["c"], p["unused"]

    p = {name: jnp.ones(()) for name in ("a", "b", "c", "d", "unused")} | {"e": jnp.ones(3)}
    assert metrics.evaluation_order(fun, p, jnp.ones(2)) == ("b", "e", "d", "a", "c")


def test_a_plan_without_a_place_for_a_layer_is_refused():
    model, variables, x = net()
    with pytest.raises(ValueError, match="the plan has no layer of its own for BatchNorm_0, gain"):
        metrics.randomize(
            model, variables, KEY, layers=lrp.plan(model, None, variables, x), inputs=x
        )


def test_similarities_by_formula(x64):
    generator = np.random.default_rng(0)
    a, b = generator.integers(-3, 4, (2, 5, 9, 8, 2)).astype(float)  # with ties
    rows = [(u.ravel(), v.ravel()) for u, v in zip(a, b, strict=True)]
    np.testing.assert_allclose(
        jax.jit(Spearman())(a, b), [stats.spearmanr(u, v)[0] for u, v in rows], rtol=1e-10
    )
    np.testing.assert_allclose(
        jax.jit(Spearman(absolute=True))(a, b), [stats.spearmanr(abs(u), abs(v))[0] for u, v in rows],
        rtol=1e-10,
    )  # fmt: skip
    expected = [u @ v / np.sqrt(u @ u * (v @ v)) for u, v in rows]
    np.testing.assert_allclose(Cosine()(a, b), expected, rtol=1e-10)
    for absolute, length in ((False, 2.0), (True, 1.0)):
        u, v = (abs(a), abs(b)) if absolute else (a, b)
        expected = [
            skimage.structural_similarity(
                p / abs(p).max(), q / abs(q).max(), win_size=5, data_range=length, channel_axis=-1
            )
            for p, q in zip(u, v, strict=True)
        ]
        np.testing.assert_allclose(
            jax.jit(SSIM(absolute=absolute, window=5))(a, b), expected, rtol=1e-10
        )
    moved = jax.jit(SSIM(True, axes=(1, 2), window=5))(np.moveaxis(a, -1, 1), np.moveaxis(b, -1, 1))
    np.testing.assert_allclose(moved, expected, rtol=1e-10)


@pytest.mark.parametrize("how", [Spearman(), Cosine(), SSIM(window=3)])
def test_similarities_of_equal_scaled_and_undefined(how):
    a = jax.random.normal(KEY, (3, 4, 5))
    how = jax.jit(how)
    for scale in (1.0, 1e-30, 1e30):
        np.testing.assert_allclose(how(a, scale * a), 1, rtol=1e-5)
    assert np.all(how(a, -a) < 0.95)
    b = a.at[0].set(0.0).at[1, 0, 0].set(jnp.inf)
    assert np.isnan(how(a, b)).tolist() == [True, True, False]


# An explanation of a linear model whose parameters are the attributions, one matrix for each layer.
TRAINED = {"a": jnp.arange(12.0).reshape(2, 6), "b": jnp.array([[3.0, -1, 2, 0, 1, 5]])}
OTHER = {"a": TRAINED["a"][:, ::-1] * jnp.arange(6.0), "b": -(TRAINED["b"] ** 2)}
X, Y = jax.random.normal(KEY, (4, 6)), jnp.array([0, 1, 1, 0])


def product(v, x, y):
    return x * v["a"][y] + v["b"]


def fixed(key):
    return OTHER


def product_numpy(v, x, y):
    return np.asarray(x) * np.asarray(v["a"])[np.asarray(y)] + np.asarray(v["b"])


def spearman_numpy(a, b):
    return [stats.spearmanr(abs(u), abs(v))[0] for u, v in zip(a, b, strict=True)]


def test_mprt_by_formula():
    test = metrics.MPRT(model=fixed, layers=("b", "a"))
    found = test.similarities(product, TRAINED, X, Y, key=KEY)
    models = [TRAINED, {"a": OTHER["a"], "b": TRAINED["b"]}, OTHER]
    maps = [product_numpy(v, X, Y) for v in models]
    expected = np.stack([spearman_numpy(maps[0], m) for m in maps[1:]], axis=1)
    assert found.layers == ("a", "b")
    np.testing.assert_allclose(found.classical, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found.forward, 1, rtol=1e-5
    )  # both initializations are the same here
    np.testing.assert_allclose(found.corrected, expected - 1, rtol=1e-5, atol=1e-6)
    whole = test(product, TRAINED, X, Y, key=KEY)
    np.testing.assert_allclose(whole, expected.mean(1), rtol=1e-5, atol=1e-6)
    last = metrics.MPRT(model=fixed, layers=("b", "a"), summary="last", reading="corrected")
    np.testing.assert_allclose(
        last(product, TRAINED, X, Y, key=KEY), expected[:, 1] - 1, rtol=1e-5, atol=1e-6
    )


def test_mprt_against_a_control():
    def control(v, x, y):
        return x * v["b"]

    test = metrics.MPRT(model=fixed, layers=("b", "a"), control=control)
    found = test.similarities(product, TRAINED, X, Y, key=KEY)
    plain = metrics.MPRT(model=fixed, layers=("b", "a"))
    of_control = plain.similarities(control, TRAINED, X, Y, key=KEY).classical
    np.testing.assert_allclose(of_control[:, 0], 1, rtol=1e-6)  # "a" does not matter to it
    np.testing.assert_allclose(found.forward, of_control, rtol=1e-6)
    np.testing.assert_allclose(found.corrected, found.classical - of_control, atol=1e-6)


def random_init(key):
    keys = jax.random.split(key)
    return {"a": jax.random.normal(keys[0], (2, 6)), "b": jax.random.normal(keys[1], (1, 6))}


ALL = {
    "MPRT": metrics.MPRT(model=random_init, layers=("b", "a"), reading="corrected", batch_size=3),
    "SmoothMPRT": metrics.SmoothMPRT(model=random_init, layers=("b", "a"), draws=3, batch_size=3),
    "EfficientMPRT": metrics.EfficientMPRT(model=random_init, bins=5, batch_size=3),
}


@pytest.mark.parametrize("name", ALL)
def test_jit_batches_and_singles(name):
    metric = ALL[name]
    assert metric.random
    whole = metric(product, TRAINED, X, Y, key=KEY)
    jitted = jax.jit(lambda v, x: metric(product, v, x, Y, key=KEY))(TRAINED, X)
    np.testing.assert_allclose(jitted, whole, rtol=1e-5, atol=1e-6)
    singles = [metric(product, TRAINED, X[i : i + 1], Y[i : i + 1], key=KEY)[0] for i in range(2)]
    n = 1 if name == "SmoothMPRT" else 2  # the noise of a sample depends on its place
    np.testing.assert_allclose(singles[:n], whole[:n], rtol=1e-5, atol=1e-6)
    other = metric(product, TRAINED, X, Y, key=jax.random.key(8))
    assert not np.allclose(other, whole)


def test_an_explanation_that_ignores_the_model():
    of_input = lambda v, x, y: x  # noqa: E731
    for order in ("top_down", "independent"):
        test = metrics.MPRT(model=random_init, layers=("b", "a"), order=order)
        np.testing.assert_allclose(test(of_input, TRAINED, X, Y, key=KEY), 1, rtol=1e-5)
    np.testing.assert_allclose(ALL["EfficientMPRT"](of_input, TRAINED, X, key=KEY), 0, atol=1e-6)


def test_smooth_mprt_without_noise_is_mprt():
    smooth = metrics.SmoothMPRT(model=random_init, layers=("b", "a"), draws=4, noise=0.0)
    plain = metrics.MPRT(model=random_init, layers=("b", "a"), order="bottom_up")
    np.testing.assert_allclose(
        *(m(product, TRAINED, X, Y, key=KEY) for m in (smooth, plain)), rtol=1e-5
    )


def test_the_noise_of_smooth_mprt():
    x = jnp.array([[0.0, 4.0], [1.0, 1.5]])
    n = 4001
    held = x, None, {}, 2, jax.random.split(KEY), n, 0.1
    np.testing.assert_allclose(
        smoothed(lambda v, x, y: x, None, *held), x, atol=4 * 0.4 / np.sqrt(n)
    )
    # E (x + s e)^2 = x^2 + s^2, with s a tenth of the sample's range, and none in the last draw.
    s = np.array([[0.4], [0.05]])
    found = smoothed(lambda v, x, y: (x - held[0]) ** 2, None, *held)
    np.testing.assert_allclose(found, np.broadcast_to(s**2, (2, 2)), rtol=0.15)
    last = smoothed(lambda v, x, y: jnp.where(x == held[0], 1.0, 0.0), None, *held)
    np.testing.assert_allclose(last * n, 1, rtol=1e-4)


def test_efficient_mprt_by_formula(x64):
    trained, other = (jax.tree.map(lambda a: a.astype(float), v) for v in (TRAINED, OTHER))
    x = jax.random.normal(KEY, (4, 6), float)

    def entropy(v):
        return np.array([
            stats.entropy(np.histogram(a, bins=10)[0]) for a in product_numpy(v, x, Y)
        ])  # fmt: skip

    test = metrics.EfficientMPRT(model=lambda key: other, bins=10)
    found = test.entropies(product, trained, x, Y, key=KEY)
    np.testing.assert_allclose(found.trained, entropy(trained), rtol=1e-10)
    np.testing.assert_allclose(found.randomized, entropy(other), rtol=1e-10)
    expected = entropy(other) / entropy(trained) - 1
    np.testing.assert_allclose(test(product, trained, x, Y, key=KEY), expected, atol=1e-10)
    one = metrics.EfficientMPRT(model=lambda key: other, bins=10, layers=("a",))
    found = one.entropies(product, trained, x, Y, key=KEY).randomized
    np.testing.assert_allclose(found, entropy({"a": other["a"], "b": trained["b"]}), rtol=1e-10)


def test_what_is_undefined():
    zero = lambda key: jax.tree.map(jnp.zeros_like, TRAINED)  # noqa: E731
    test = metrics.MPRT(model=zero, layers=("b", "a"))
    found = test.similarities(product, TRAINED, X, Y, key=KEY)
    assert np.isnan(found.classical).all(axis=0).tolist() == [False, True]
    assert np.isnan(test(product, TRAINED, X, Y, key=KEY)).all()
    constant = lambda v, x, y: jnp.ones_like(x)  # noqa: E731
    assert np.isnan(ALL["EfficientMPRT"](constant, TRAINED, X, key=KEY)).all()
    infinite = lambda v, x, y: jnp.where(x[:, :1] == X[1, 0], jnp.inf, x)  # noqa: E731
    for metric in ALL.values():
        found = metric(infinite, TRAINED, X, key=KEY)
        assert np.isnan(found).tolist() == [False, True, False, False]


ANGLE = jnp.pi / 8 * jnp.arange(5)


def turned(x, y):
    return jnp.stack([jnp.cos(ANGLE[y]), jnp.sin(ANGLE[y])], axis=1) * x


def test_random_logit_draws_each_other_class():
    x, y = jnp.ones((400, 1)) * jnp.ones(2), jnp.arange(400) % 5
    test = metrics.RandomLogit(classes=5, similarity=Cosine())
    found = np.asarray(test(turned, x, y, key=KEY))
    for c in range(5):
        expected = np.cos(np.pi / 8 * np.abs(np.delete(np.arange(5), c) - c))
        count = [np.sum(abs(found[y == c] - e) < 1e-5) for e in np.unique(expected.round(6))]
        assert sum(count) == 80  # never the target itself, whose similarity is 1
        assert min(count) > 8
    keys = jax.random.split(KEY, 400)
    by_key = test(turned, x, y, key=keys)
    singles = [test(turned, x[i : i + 1], y[i : i + 1], key=keys[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(by_key[:5], singles, rtol=1e-6)
    jitted = jax.jit(lambda x, y: test(turned, x, y, key=KEY))(x, y)
    np.testing.assert_allclose(jitted, found, rtol=1e-6)


def test_random_logit_by_formula():
    explain = lambda x, y: product(TRAINED, x, y)  # noqa: E731
    found = metrics.RandomLogit(classes=2)(explain, X, Y, key=KEY)
    pairs = zip(product_numpy(TRAINED, X, Y), product_numpy(TRAINED, X, 1 - Y), strict=True)
    np.testing.assert_allclose(found, [stats.spearmanr(a, b)[0] for a, b in pairs], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.MPRT(model=init, order="down"), ValueError, "order must be one of 'top_down'"),
        (lambda: metrics.MPRT(model=init, reading="x"), ValueError, "reading must be one of 'classical'"),
        (lambda: metrics.MPRT(model=init, summary="x"), ValueError, "summary must be one of 'mean'"),
        (lambda: metrics.SmoothMPRT(model=init, draws=0), ValueError, "draws must be an integer >= 1"),
        (lambda: metrics.SmoothMPRT(model=init, noise=-1.0), ValueError, "noise must be >= 0"),
        (lambda: metrics.EfficientMPRT(model=init, bins=1), ValueError,
         "bins must be an integer >= 2, got 1"),
        (lambda: metrics.RandomLogit(classes=1), ValueError, "classes must be an integer >= 2"),
        (lambda: metrics.RandomLogit(classes=2, similarity="ssim"), TypeError, "got 'ssim'"),
        (lambda: metrics.MPRT(model=init, similarity=SSIM), TypeError, "such as .* got <class"),
        (lambda: SSIM(window=1), ValueError, "window must be an integer >= 2"),
        (lambda: SSIM()(X[..., None], X[..., None]), ValueError, "window must fit into the explanations"),
        (lambda: ALL["MPRT"](product, TRAINED, X, Y), TypeError, "MPRT draws random numbers: pass key"),
        (lambda: ALL["MPRT"](product, TRAINED, X, Y, key=jax.random.split(KEY)), ValueError, "one random"),
        (lambda: ALL["MPRT"](TRAINED, TRAINED, X, Y, key=KEY), TypeError, "explain must be a function"),
        (lambda: ALL["MPRT"](lambda v, x, y: x[:, :2], TRAINED, X, Y, key=KEY), ValueError, "shape of the"),
        (lambda: ALL["SmoothMPRT"](product, TRAINED, Y[:, None], Y, key=KEY), TypeError, "must be floats"),
        (lambda: metrics.MPRT(model=init)(product, TRAINED, X, Y, key=KEY), TypeError, "layers must be"),
        (lambda: metrics.MPRT(model=init, layers="a")(product, TRAINED, X, Y, key=KEY), TypeError,
         "layers must be paths"),
        (lambda: metrics.MPRT(model=init, layers=("a", "c"))(product, TRAINED, X, Y, key=KEY), KeyError,
         "variables have no layer 'c'"),
        (lambda: metrics.MPRT(model=init, layers=("a", "a"))(product, TRAINED, X, Y, key=KEY), ValueError,
         "different paths"),
        (lambda: next(metrics.randomize(init, TRAINED, KEY, layers=("a",))), ValueError,
         r"model must initialize a with the shape that variables have, \(2, 6\), got none"),
        (lambda: metrics.randomize(Block(nnx.Rngs(0)), {}, KEY, layers=()), ValueError,
         "one or more different paths"),
        (lambda: metrics.randomize(Block(nnx.Rngs(0)), TRAINED, KEY, layers=("a",)), TypeError,
         "a new NNX module, such as lambda key"),
        (lambda: metrics.randomize(Net(), TRAINED, KEY), TypeError, "inputs is missing"),
        (lambda: metrics.RandomLogit(classes=2)(turned, X, Y + 1, key=KEY), IndexError, "in .0, 1., got"),
        (lambda: metrics.RandomLogit(classes=2)(turned, X, None, key=KEY), TypeError, "one class for"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Classifier(nn.Module):
    """A small network for handwritten digits."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for width in (64, 64, 32):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


@functools.cache
def digits():
    """The classifier, trained, and 100 digits of 8 x 8 that it has not seen, with their classes."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x = jnp.asarray((data.images - data.images.mean()) / data.images.std(), jnp.float32)[..., None]
    y = jnp.asarray(data.target, jnp.int32)
    model, adam = Classifier(), optax.adam(3e-3)

    def loss(variables, batch):
        logits = model.apply(variables, x[batch])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[batch]).mean()

    def step(state, key):
        variables, moments = state
        gradient = jax.grad(loss)(variables, jax.random.randint(key, (128,), 0, 1400))
        change, moments = adam.update(gradient, moments)
        return (optax.apply_updates(variables, change), moments), None

    @jax.jit
    def train(variables):
        keys = jax.random.split(jax.random.key(1), 300)
        return jax.lax.scan(step, (variables, adam.init(variables)), keys)[0][0]

    with jax.numpy_dtype_promotion("standard"):  # of optax
        variables = train(model.init(jax.random.key(0), x[:1]))
    assert (model.apply(variables, x[1400:]).argmax(-1) == y[1400:]).mean() > 0.9
    return model, variables, x[1400:1500], y[1400:1500]


def gradient(v, x, y):
    model = digits()[0]
    return jax.grad(lambda x: jnp.take_along_axis(model.apply(v, x), y[:, None], 1).sum())(x)


@functools.cache
def explanation(name):
    if name == "gradient":
        return gradient
    if name == "input times gradient":
        return lambda v, x, y: x * gradient(v, x, y)
    rule = {"epsilon": lrp.Epsilon(1e-6), "z+": lrp.ZPlus()}[name]
    explainer = lrp.explain(digits()[0], rule)
    return lambda v, x, y: explainer(v, x, target=y)


def test_mprt_of_digits():
    # Measured: z+ in all layers 1 1 .99 .74, epsilon .35 .37 .33 .29, gradient .08 .13 .06 .02.
    model, variables, x, y = digits()
    test = metrics.MPRT(model=model, control=explanation("input times gradient"))
    found = {
        name: test.similarities(explanation(name), variables, x, y, key=jax.random.key(5))
        for name in ("z+", "epsilon", "gradient")
    }
    mean = {name: np.asarray(s.classical).mean(0) for name, s in found.items()}
    assert found["z+"].layers == ("Dense_3", "Dense_2", "Dense_1", "Dense_0")
    assert mean["z+"][0] > 0.9
    assert np.all(mean["z+"] > mean["epsilon"] + 0.2)
    assert np.all(mean["epsilon"] > mean["gradient"] + 0.12)
    # The classical reading has the gradient before epsilon. Input times gradient, which equals epsilon in a
    # ReLU network, is as similar: the forward pass accounts for all of epsilon's, and for a third of z+'s.
    corrected = {name: np.asarray(s.corrected).mean() for name, s in found.items()}
    assert abs(corrected["epsilon"]) < 0.02
    assert corrected["z+"] > 0.3
    assert corrected["gradient"] < -0.13


@pytest.mark.slow
def test_two_random_models_account_for_what_remains():
    model, variables, x, y = digits()
    test = metrics.MPRT(model=model)
    for name in ("z+", "epsilon"):
        found = test.similarities(explanation(name), variables, x, y, key=jax.random.key(5))
        assert np.all(abs(np.asarray(found.corrected).mean(0)) < 0.1), name


def test_random_logit_and_sparseness_of_digits():
    # Measured: rank correlation of magnitudes for two classes z+ 1.00, epsilon .37, gradient .16; Gini
    # epsilon .50, gradient .41, noise .40.
    _, variables, x, y = digits()
    magnitude = metrics.RandomLogit(classes=10, similarity=Spearman(absolute=True))
    logit, gini = {}, {"noise": metrics.Sparseness()(jax.random.normal(KEY, x.shape)).mean()}
    for name in ("z+", "epsilon", "gradient"):
        explain = functools.partial(explanation(name), variables)
        logit[name] = magnitude(explain, x, y, key=jax.random.key(6)).mean()
        gini[name] = metrics.Sparseness()(explain(x, y)).mean()
    assert logit["z+"] > 0.9
    assert max(logit["epsilon"], logit["gradient"]) < 0.7
    assert gini["epsilon"] > gini["gradient"] + 0.045
    assert gini["epsilon"] > gini["noise"] + 0.05


@pytest.mark.slow
def test_efficient_mprt_of_digits():
    # Measured, with two keys: epsilon .017 .011, input times gradient the same, z+ .003 -.002.
    model, variables, x, y = digits()
    test = metrics.EfficientMPRT(model=model)
    score = {
        name: np.mean(test(explanation(name), variables, x, y, key=jax.random.key(5)))
        for name in ("epsilon", "input times gradient", "z+")
    }
    assert abs(score["epsilon"] - score["input times gradient"]) < 0.002
    assert score["epsilon"] > score["z+"] + 0.007


def test_targets_of_a_small_type_do_not_limit_the_other_class():
    def explain(x, y):  # zero for classes that uint8 does not hold
        return jnp.where(y[:, None] < 256, x, 0)

    x = jnp.tile(jnp.arange(1.0, 4.0), (64, 1))
    found = metrics.RandomLogit(classes=4096)(
        explain, x, jnp.zeros(64, jnp.uint8), key=jax.random.key(0)
    )
    assert np.isnan(found).mean() > 0.8
