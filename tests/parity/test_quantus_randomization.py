"""Scores of randomization equal those of Quantus 0.6.0; where it is wrong, those of the paper."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import metrics

import quantus_model as net
from numeric import close
from quantus_goldens import RTOL, digits, each_explanation, same_distribution

pytestmark = pytest.mark.usefixtures("x64")

LAYERS = tuple(net.LAYERS)


def variables(weights):
    """The weights as Flax would hold them."""
    return {
        layer: {name: jnp.asarray(getattr(weights, name)) for name in names}
        for layer, names in net.LAYERS.items()
    }


def weights_of(variables):
    return net.Weights(**{name: a for layer in variables.values() for name, a in layer.items()})


def call(p, make, i=slice(None), method="__call__", **kwargs):
    """A metric of models that are randomized as `make_quantus.py` did."""
    fresh = variables(net.randomized(p.weights, LAYERS))
    metric = make(model=lambda key: fresh, layers=LAYERS)
    return getattr(metric, method)(
        lambda v, x, y: p.explain_with(weights_of(v), x, y), variables(p.weights), p.x[i], p.y[i],
        **{"key": jax.random.key(0), **kwargs},
    )  # fmt: skip


@each_explanation
@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_mprt(explanation, order):
    p = digits(explanation)
    found = call(p, functools.partial(metrics.MPRT, order=order), method="similarities")
    assert found.layers == (LAYERS[::-1] if order == "top_down" else LAYERS)
    for i, layer in enumerate(found.layers):
        close(found.classical[:, i], p[f"mprt_{order}"][LAYERS.index(layer)], RTOL)


@each_explanation
def test_the_mean_of_mprt_is_over_randomized_models(explanation):
    """Quantus takes the trained model's similarity to itself, 1, into the mean."""
    p = digits(explanation)
    found = call(p, metrics.MPRT)
    close(found, p["mprt_top_down"].mean(axis=0), RTOL)
    close(p["mprt_average"], (1 + p["mprt_top_down"].sum(axis=0)) / 3, RTOL)
    close(call(p, functools.partial(metrics.MPRT, summary="last")), p["mprt_last"], RTOL)


@each_explanation
def test_smooth_mprt(explanation):
    """Quantus gives the two models different noise, which makes their explanations less similar."""
    p = digits(explanation)
    random = net.randomized(p.weights, LAYERS)
    spread = 0.1 * np.ptp(p.x, axis=(1, 2, 3), keepdims=True)
    rng = np.random.default_rng(0)

    def smoothed(weights, noise):
        maps = [np.asarray(net.EXPLANATIONS[explanation](np, weights, p.x + e, p.y)) for e in noise]
        return np.abs(np.mean(maps, axis=0)).reshape(8, -1)

    def rank_correlation(a, b):
        a, b = (np.argsort(np.argsort(m, axis=1), axis=1) for m in (a, b))
        return [np.corrcoef(r, s)[0, 1] for r, s in zip(a, b, strict=True)]

    def simulated(same):
        rows = []
        for _ in range(100):
            first, second = (spread * rng.normal(size=(10, *p.x.shape)) for _ in range(2))
            first[-1] = second[-1] = 0
            trained = smoothed(p.weights, first)
            rows.append(rank_correlation(trained, smoothed(random, first if same else second)))
        return np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / 10

    def z(a, b):
        return np.abs(a[0] - b[0]) / np.hypot(a[1], b[1])

    quantus = p["smooth_mprt_last/mean"], p["smooth_mprt_last/error"]
    assert z(simulated(same=False), quantus).max() < 4
    make = functools.partial(metrics.SmoothMPRT, draws=10, summary="last")
    same_distribution(lambda i: call(p, make, i), *simulated(same=True), len(p.x))
    assert np.abs(simulated(same=True)[0] - quantus[0]).max() < 0.03


@each_explanation
def test_efficient_mprt(explanation):
    p = digits(explanation)
    close(call(p, metrics.EfficientMPRT), p["emprt"], RTOL)


@each_explanation
def test_rules_for_bins_count_axes_in_quantus(explanation):
    """They take the number of axes of an example, 3, for that of its values, 64. Here bins are given."""
    p = digits(explanation)
    rules = {
        "square": np.sqrt,
        "sturges": lambda n: np.log2(n) + 1,
        "rice": lambda n: 2 * np.power(n, 1 / 3),
        "scotts": lambda n: np.ptp(p.a) / (3.5 * p.a.std() / np.power(n, 1 / 3)),
        "freedman": lambda n: (
            np.ptp(p.a) / (2 * np.subtract(*np.percentile(p.a, [75, 25])) / np.power(n, 1 / 3))
        ),
    }
    for name, rule in rules.items():
        assert p[f"bins_{name}"] == int(rule(3)) < int(rule(64))
    assert metrics.EfficientMPRT(model=lambda key: None).bins == 100


@each_explanation
def test_random_logit(explanation):
    p = digits(explanation)
    a, b = (jnp.asarray(p.explain(p.x, y)) for y in (p.y, p["random_logit/other"]))
    close(metrics.similarity.Spearman()(a, b), p["random_logit"], RTOL)
    metric = metrics.RandomLogit(classes=10)
    drawn = np.stack([metric(p.explain, p.x, p.y, key=jax.random.key(i)) for i in range(60)])
    hit = np.abs(drawn - p["random_logit"]) < RTOL
    assert hit.any(axis=0).all()  # the class that Quantus drew is among those drawn here
    assert 0.04 < hit.mean() < 0.2  # as one of nine
    assert (np.abs(drawn - 1) > 1e-3).all()  # and the target is not
