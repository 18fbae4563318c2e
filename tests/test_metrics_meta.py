"""Meta-evaluation: its formulas, and that it tells metrics from random numbers."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxlrp as lrp
from jaxlrp import baselines, metrics
from jaxlrp.metrics import meta
from jaxlrp.metrics.metric import ComplexityMetric, FaithfulnessMetric, metric

from numeric import close

N = 24


def predict(v, x):
    h = jax.nn.relu(x @ v["first"]["kernel"] + v["first"]["bias"])
    return h @ v["second"]["kernel"] + v["second"]["bias"]


@functools.cache
def digits():
    """A perceptron of 64, 64 and 10 units, trained on half of the digits; test inputs and classes."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target, jnp.int32)
    rng = np.random.default_rng(0)
    v = {
        name: {
            "kernel": jnp.asarray(rng.normal(size=s) / np.sqrt(s[0]), jnp.float32),
            "bias": jnp.zeros(s[1], jnp.float32),
        }
        for name, s in {"first": (64, 64), "second": (64, 10)}.items()
    }

    def loss(v):
        return -jnp.take_along_axis(jax.nn.log_softmax(predict(v, x[::2])), y[::2, None], 1).mean()

    def step(v, _):
        return jax.tree.map(lambda a, g: a - 0.5 * g, v, jax.grad(loss)(v)), None

    v = jax.jit(lambda v: jax.lax.scan(step, v, None, length=300)[0])(v)
    test, classes = x[1::2], y[1::2]
    assert (predict(v, test).argmax(1) == classes).mean() > 0.93
    return v, test[:N], predict(v, test[:N]).argmax(1)


def explainers():
    """Four methods: (variables, inputs, targets) to relevance."""
    methods = {
        "gradient": baselines.gradient(predict, argnums=1),
        "input x gradient": baselines.input_x_gradient(predict, argnums=1),
        "epsilon": lrp.explain(predict, lrp.composites.all_epsilon(), argnums=1),
        "z+": lrp.explain(predict, lrp.composites.by_kind("dense", lrp.ZPlus()), argnums=1),
    }
    return {name: functools.partial(_explain, e) for name, e in methods.items()}


def _explain(explainer, v, x, y):
    return explainer(v, x, target=y)


@metric
class RandomScore(FaithfulnessMetric):
    """Numbers that depend on nothing but the values of the attributions, in a chaotic way."""

    @property
    def higher_is_better(self):
        return True

    @property
    def random(self):
        return True

    def _compute(self, case):
        bits = jax.lax.bitcast_convert_type(case.attributions.sum(axis=1), jnp.int32)
        keys = jax.vmap(jax.random.fold_in)(case.keys, bits)
        return jax.vmap(jax.random.uniform)(keys)


@functools.cache
def scores():
    v, x, y = digits()
    tried = {
        "real": metrics.PixelFlipping(step=8),
        "random": RandomScore(),
    }
    return {
        name: metrics.meta_evaluate(
            m, explainers(), predict, v, x, y, key=jax.random.key(1), perturbations=5, iterations=3
        )
        for name, m in tried.items()
    }


@pytest.mark.parametrize("space", ["model", "input"])
def test_a_real_metric_scores_above_a_random_one(space):
    found = {name: getattr(score, space) for name, score in scores().items()}
    for one in found.values():
        assert one.by_iteration.shape == (3,)
        assert 0 <= one.meta_consistency <= 1
        assert one.kept[0] > 0.95
        assert one.kept[1] > 0.3
    # 0.57 and 0.52 against 0.43 and 0.44 were seen; half of the smaller gap.
    assert found["real"].meta_consistency > found["random"].meta_consistency + 0.04


if __name__ == "__main__":
    print(scores()["real"], scores()["random"], sep="\n")
