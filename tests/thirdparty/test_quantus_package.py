"""Our models and explainers in Quantus 0.6, and Quantus' scores of our explanations.

Optional: `pip install "quantus==0.6.0" && python -m pytest -m thirdparty`; neither PyTorch nor TensorFlow.
"""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites, metrics
from jaxlrp.metrics import quantus as bridge

quantus = pytest.importorskip("quantus")
pytestmark = [pytest.mark.thirdparty, pytest.mark.filterwarnings("ignore")]

QUIET = {"disable_warnings": True}
CLASSES = 4


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


NET = Network()
X = (
    np.random.default_rng(0).normal(size=(7, 8, 6, 3)).astype(np.float32)
)  # 7: batches are filled up
VARIABLES = NET.init(jax.random.key(0), X)
Y = np.asarray(NET.apply(VARIABLES, X).argmax(axis=1))
EXPLAINER = lrp.explain(NET.apply, composites.epsilon_plus())
MODEL = bridge.quantus_model(
    NET.apply,
    VARIABLES,
    layers=metrics.evaluation_order(NET.apply, VARIABLES, X),
    initialize=lambda key: NET.init(key, X[:1]),
    hidden=lambda v, x: {"logits": NET.apply(v, x)},
    batch_size=4,
)


def attributions() -> jax.Array:
    return EXPLAINER(VARIABLES, X, target=Y).relevance


def score(metric, explainer=EXPLAINER, **kwargs):
    with bridge.accepted():
        return metric(
            model=MODEL,
            x_batch=bridge.channels_first(X),
            y_batch=Y,
            channel_first=True,
            explain_func=bridge.explain_func(explainer),
            **{"a_batch": None, **kwargs},
        )


def test_quantus_asks_our_explainer_for_the_attributions_it_is_otherwise_given():
    metric = quantus.PixelFlipping(features_in_step=4, return_auc_per_sample=True, **QUIET)
    asked = score(metric)
    given = score(metric, a_batch=bridge.channels_first(attributions()))
    np.testing.assert_allclose(asked, given, rtol=1e-5)


def test_pixel_flipping_agrees():
    theirs = score(quantus.PixelFlipping(features_in_step=4, return_auc_per_sample=True, **QUIET))
    ours = metrics.PixelFlipping(step=4, order="morf", removal=metrics.removal.Least())
    found = ours(lambda x: NET.apply(VARIABLES, x), X, attributions(), Y)
    np.testing.assert_allclose(
        found, theirs, rtol=1e-4
    )  # both in float32, sums of 36 probabilities


def test_a_score_of_a_robustness_metric_is_that_of_the_same_perturbations():
    noise = np.random.default_rng(1).normal(size=(3, 7, 144)) / 10
    draws = iter(noise)
    metric = quantus.MaxSensitivity(
        nr_samples=3, perturb_func=lambda arr, **_: (arr + next(draws)).astype(np.float32), **QUIET
    )
    a = np.asarray(attributions()).reshape(7, -1)
    first = np.moveaxis(noise.reshape(3, 7, 3, 8, 6), 2, -1)
    moved = [
        EXPLAINER(VARIABLES, jnp.asarray(X + d, jnp.float32), target=Y).relevance for d in first
    ]
    change = [np.linalg.norm(np.asarray(b).reshape(7, -1) - a, axis=1) for b in moved]
    np.testing.assert_allclose(
        score(metric), np.max(change, axis=0) / np.linalg.norm(a, axis=1), rtol=1e-4
    )


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_layers_are_randomized_in_order(order):
    scores = score(quantus.MPRT(layer_order=order, **QUIET))
    layers = ["Conv_0", "Dense_0"]
    assert list(scores)[1:] == (layers[::-1] if order == "top_down" else layers)
    np.testing.assert_allclose(scores["original"], 1)
    new = NET.init(jax.random.key(42), X[:1])["params"]
    params = dict(VARIABLES["params"])
    for name in list(scores)[1:]:
        params = (dict(VARIABLES["params"]) if order == "independent" else params) | {
            name: new[name]
        }
        a, b = (
            np.abs(np.asarray(EXPLAINER(v, X, target=Y).relevance)).reshape(7, -1)
            for v in (VARIABLES, {"params": params})
        )
        ranks = [np.argsort(np.argsort(m, axis=1), axis=1) for m in (a, b)]
        expected = [np.corrcoef(p, q)[0, 1] for p, q in zip(*ranks, strict=True)]
        np.testing.assert_allclose(scores[name], expected, atol=2e-3)  # ties of zero pixels


RUNS = [
    quantus.RegionPerturbation(patch_size=2, **QUIET),
    quantus.Selectivity(patch_size=2, **QUIET),
    quantus.FaithfulnessCorrelation(subset_size=16, nr_runs=5, return_aggregate=False, **QUIET),
    quantus.FaithfulnessEstimate(features_in_step=4, **QUIET),
    quantus.Monotonicity(features_in_step=4, **QUIET),
    quantus.MonotonicityCorrelation(features_in_step=12, nr_samples=2, **QUIET),
    quantus.Sufficiency(**QUIET),
    quantus.AvgSensitivity(nr_samples=2, **QUIET),
    quantus.LocalLipschitzEstimate(nr_samples=2, **QUIET),
    quantus.RelativeInputStability(nr_samples=2, **QUIET),
    quantus.RelativeOutputStability(nr_samples=2, **QUIET),
    quantus.RelativeRepresentationStability(nr_samples=2, **QUIET),
    quantus.Consistency(**QUIET),
    quantus.RandomLogit(num_classes=CLASSES, **QUIET),
    quantus.Sparseness(**QUIET),
    quantus.Complexity(**QUIET),
    quantus.EffectiveComplexity(**QUIET),
    quantus.Completeness(**QUIET),
    quantus.NonSensitivity(**QUIET),
]


@pytest.mark.parametrize("metric", RUNS, ids=lambda m: type(m).__name__)
def test_it_runs(metric):
    assert len(score(metric)) == 7


def test_efficient_mprt_runs():
    assert np.isfinite(score(quantus.EfficientMPRT(**QUIET), softmax=True)).all()


def test_a_series_is_channels_last_for_the_model():
    x = np.random.default_rng(0).normal(size=(3, 10, 2)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)

    def fun(x):
        return x.reshape(len(x), -1) @ w

    explainer = lrp.explain(fun, lrp.Epsilon())
    y = np.array([0, 1, 2])
    with bridge.accepted():
        scores = quantus.Sparseness(**QUIET)(
            model=bridge.quantus_model(fun),
            x_batch=bridge.channels_first(x),
            y_batch=y,
            channel_first=True,
            explain_func=bridge.explain_func(explainer),
        )
    a = np.sort(np.abs(np.asarray(explainer(x, target=y).relevance)).reshape(3, -1), axis=1)
    weights = 2 * np.arange(1, 21) - 21
    np.testing.assert_allclose(scores, (a * weights).sum(axis=1) / (20 * a.sum(axis=1)), atol=1e-5)


def test_accepted_puts_back_what_it_replaced():
    from quantus.helpers import utils

    before = utils.get_wrapped_model, utils.calculate_auc
    with contextlib.ExitStack() as stack:
        stack.enter_context(bridge.accepted())
        assert utils.get_wrapped_model is not before[0]
    assert (utils.get_wrapped_model, utils.calculate_auc) == before
    with pytest.raises(ValueError, match="needs to be"), bridge.accepted():
        quantus.PixelFlipping(**QUIET)(
            model=NET, x_batch=bridge.channels_first(X), y_batch=Y, channel_first=True,
            a_batch=bridge.channels_first(attributions()),
        )  # fmt: skip


def test_what_quantus_cannot_do_is_said():
    with pytest.raises(NotImplementedError, match=r"jaxlrp\.metrics\.InputInvariance"):
        score(quantus.InputInvariance(**QUIET))
