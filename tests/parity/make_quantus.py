"""Freezes the scores that Quantus 0.6.0 gives to explanations of two small networks, in `quantus.npz`.

    pip install quantus==0.6.0 && python tests/parity/make_quantus.py

made with NumPy 2.4.6, SciPy 1.17.1, scikit-learn 1.9.1 and scikit-image 0.26.0; neither PyTorch nor
TensorFlow. The network is NumPy (`quantus_model.py`), in float64. Quantus is used as a program: nothing of
its code is here.

Keys: "digits/..." is a network trained on scikit-learn's digits, with images (8, 8, 8, 1), and "color/..."
one of random weights, with images (6, 8, 6, 3). Each has "x", "y", its weights, "mask", "segments", and
attributions "{explanation}/a", all channels-last. "{problem}/{explanation}/{score}" is one number for each
sample, or a curve. Of a random score there are "mean" and "error" over many draws. "failed" lists the calls
that raise, with the exception.
"""

from __future__ import annotations

import functools
import pathlib
import unittest.mock
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn.datasets
import sklearn.neural_network

import quantus_model as net

np.trapz, np.NaN = np.trapezoid, np.nan  # type: ignore[attr-defined]  # what Quantus asks of NumPy 1

import quantus  # noqa: E402
import quantus.functions.similarity_func as similarity  # noqa: E402
from quantus.helpers import utils  # noqa: E402
from quantus.helpers.model.model_interface import ModelInterface  # noqa: E402

OUTPUT = pathlib.Path(__file__).with_name("quantus.npz")
QUIET = {"disable_warnings": True, "display_progressbar": False}
DRAWS = 100


class Model(ModelInterface):
    """The network for Quantus, whose images are (n, channels, height, width)."""

    def predict(self, x: np.ndarray, **kwargs: Any) -> np.ndarray:
        found = net.logits(np, self.model, np.moveaxis(x, 1, -1))
        if not self.softmax:
            return found
        found = np.exp(found - found.max(axis=1, keepdims=True))
        return found / found.sum(axis=1, keepdims=True)

    def shape_input(
        self, x: np.ndarray, shape: Any, channel_first: Any = None, batched: bool = False
    ):
        return x.reshape(shape)

    def get_model(self) -> net.Weights:
        return self.model

    def get_softmax_arg_model(self) -> net.Weights:
        return self.model

    def state_dict(self) -> dict[str, Any]:
        return self.model._asdict()

    def get_random_layer_generator(
        self, order: str = "top_down", seed: int = 42
    ) -> Iterator[tuple[str, net.Weights]]:
        names = list(net.LAYERS) if order == "bottom_up" else list(net.LAYERS)[::-1]
        for i, name in enumerate(names):
            changed = (name,) if order == "independent" else tuple(names[: i + 1])
            yield name, net.randomized(self.model, changed)

    @property
    def random_layer_generator_length(self) -> int:
        return len(net.LAYERS)

    def add_mean_shift_to_first_layer(self, input_shift: float, shape: Any) -> net.Weights:
        return net.shifted(np, self.model, input_shift)

    def get_hidden_representations(self, x: np.ndarray, *args: Any) -> np.ndarray:
        return net.hidden(np, self.model, np.moveaxis(x, 1, -1))


def wrapped(model: Any, channel_first: bool, softmax: bool, **kwargs: Any) -> Model:
    return model if isinstance(model, Model) else Model(model, channel_first, softmax)


def digits() -> tuple[net.Weights, np.ndarray, np.ndarray]:
    """A trained network, eight noisy digits of four classes, no two pixels equal, and the classes."""
    data = sklearn.datasets.load_digits()
    x = data.images[..., None] / 16
    fit = sklearn.neural_network.MLPClassifier(
        (24,), activation="tanh", random_state=0, max_iter=60
    )
    fit.fit(x.reshape(len(x), -1), data.target)
    weights = net.Weights(fit.coefs_[0], fit.intercepts_[0], fit.coefs_[1], fit.intercepts_[1])
    noise = np.random.RandomState(0).uniform(0.05, 0.25, size=(8, 8, 8, 1))
    few = np.flatnonzero(data.target < 4)[:8]
    return weights, 0.8 * x[few] + noise, data.target[few]


def color() -> tuple[net.Weights, np.ndarray, np.ndarray]:
    draw = np.random.RandomState(1)
    x = draw.normal(size=(6, 8, 6, 3))
    weights = net.random_weights((144, 16, 4), seed=2)
    return weights, x, net.logits(np, weights, x).argmax(axis=1)


class Scores:
    """Calls of Quantus on one network and one explanation, and their results by name."""

    def __init__(self, weights: net.Weights, x: np.ndarray, y: np.ndarray, explain: Any):
        a = explain(np, weights, x, y)
        self.weights, self.x, self.y = weights, np.moveaxis(x, -1, 1), y
        self.a, self.explain = np.moveaxis(a, -1, 1), explain
        self.found: dict[str, np.ndarray] = {"a": a}
        self.failed: list[str] = []

    def explain_func(
        self, model: Any, inputs: np.ndarray, targets: Any, **kwargs: Any
    ) -> np.ndarray:
        weights = model.model if isinstance(model, Model) else model
        found = self.explain(np, weights, np.moveaxis(inputs, 1, -1), targets)
        return np.moveaxis(found, -1, 1)

    def call(self, metric: Any, again: bool = False, **kwargs: Any) -> Any:
        """One call; `again` where Quantus explains, and so gets no attributions."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return metric(
                model=self.weights, x_batch=self.x.copy(), y_batch=self.y.copy(),
                a_batch=None if again else self.a.copy(), channel_first=True,
                explain_func=self.explain_func, **kwargs,
            )  # fmt: skip

    def add(self, name: str, metric: Any, again: bool = False, **kwargs: Any) -> None:
        try:
            self.found[name] = np.asarray(self.call(metric, again, **kwargs), np.float64)
        except (AssertionError, IndexError, TypeError, ValueError) as error:
            self.failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:80]}")

    def draw(
        self, name: str, metric: Any, again: bool = False, of: Callable[..., Any] = np.asarray,
        draws: int = DRAWS, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Mean and standard error of a random score over many draws."""
        np.random.seed(0)
        found = np.stack([of(self.call(metric, again, **kwargs)) for _ in range(draws)])
        self.found[f"{name}/mean"] = found.mean(axis=0)
        self.found[f"{name}/error"] = found.std(axis=0, ddof=1) / draws**0.5


def flips(s: Scores, step: int, patch: int) -> None:
    """Metrics that run on images with any number of channels."""
    make = functools.partial(quantus.PixelFlipping, features_in_step=step, **QUIET)
    s.add("pixel_flipping", make())
    s.add("pixel_flipping_white", make(perturb_baseline="white"))
    s.add("pixel_flipping_auc", make(return_auc_per_sample=True))
    for order in ("morf", "lerf"):
        s.add(f"region_{order}", quantus.RegionPerturbation(patch_size=patch, order=order, **QUIET))
    s.add("selectivity", quantus.Selectivity(patch_size=patch, **QUIET))
    s.add("estimate", quantus.FaithfulnessEstimate(features_in_step=step, **QUIET))
    s.add("sufficiency", quantus.Sufficiency(threshold=0.8, **QUIET))


def faithfulness(s: Scores, segments: np.ndarray) -> None:
    """The others, which need one channel, or in which channels change nothing."""
    for size, name in ((8, "whole"), (4, "patches"), (3, "padded")):
        metric = quantus.Infidelity(perturb_patch_sizes=[size], n_perturb_samples=1, **QUIET)
        s.add(f"infidelity_{name}", metric)
    s.add("monotonicity", quantus.Monotonicity(features_in_step=4, **QUIET))
    for step in (1, 8):
        metric = quantus.SensitivityN(
            features_in_step=step, n_max_percentage=0.5, return_aggregate=False, **QUIET
        )
        s.add(f"sensitivity_n_{step}", metric)
    make = functools.partial(
        quantus.FaithfulnessCorrelation, nr_runs=30, subset_size=16, return_aggregate=False, **QUIET
    )
    s.draw("correlation", make())
    s.draw("monotonicity_correlation", quantus.MonotonicityCorrelation(nr_samples=10, **QUIET))
    of_segments = functools.partial(unittest.mock.patch.object, utils, "get_superpixel_segments")
    with of_segments(side_effect=list(segments)):
        metric = quantus.IROF(perturb_baseline=0.3, return_aggregate=False, **QUIET)
        s.add("irof", metric, batch_size=1)
    with of_segments(side_effect=list(segments)):
        s.add("irof_batch", quantus.IROF(return_aggregate=False, **QUIET))
    for size in (len(s.x), 4):
        scores = s.call(
            quantus.ROAD(percentages=[10, 30, 50, 70, 90], noise=0.0, **QUIET), batch_size=size
        )
        s.found[f"road_{size}"] = np.array(list(scores.values()))
    order = np.argsort(-s.a.reshape(len(s.x), -1), axis=1)[:, : 64 * 3 // 10]
    pairs = zip(s.x, order, strict=True)
    imputed = [quantus.noisy_linear_imputation(x, i, noise=0.0) for x, i in pairs]
    s.found["imputed"] = np.moveaxis(np.stack(imputed), 1, -1)


def robustness(s: Scores) -> None:
    few = {"nr_samples": 10, "normalise": False, **QUIET}
    s.draw("max_sensitivity", quantus.MaxSensitivity(lower_bound=0.2, **few), again=True)
    s.draw("avg_sensitivity", quantus.AvgSensitivity(lower_bound=0.2, **few), again=True)
    s.draw("lipschitz", quantus.LocalLipschitzEstimate(perturb_std=0.1, **few), again=True)
    few |= {"return_nan_when_prediction_changes": False}
    for name, metric in (
        ("ris", quantus.RelativeInputStability),
        ("ros", quantus.RelativeOutputStability),
        ("rrs", quantus.RelativeRepresentationStability),
    ):
        s.draw(f"log_{name}", metric(**few), again=True, of=np.log)
    s.add("continuity", quantus.Continuity(nr_steps=8, normalise=False, **QUIET), again=True)
    functions = quantus.functions.discretise_func
    s.add("consistency", quantus.Consistency(**QUIET))
    for name in ("top_n_sign", "sign", "rank"):
        metric = quantus.Consistency(discretise_func=getattr(functions, name), abs=False, **QUIET)
        s.add(f"consistency_{name}", metric)


def localization(s: Scores, mask: np.ndarray) -> None:
    mask = np.moveaxis(mask, -1, 1)
    positive = {"abs": False, "positive_attributions": True, **QUIET}  # as in the paper
    for name, metric in {
        "pointing": quantus.PointingGame(**QUIET),
        "pointing_weighted": quantus.PointingGame(weighted=True, **QUIET),
        "mass": quantus.RelevanceMassAccuracy(**QUIET),
        "rank": quantus.RelevanceRankAccuracy(**QUIET),
        "top_k": quantus.TopKIntersection(k=10, **QUIET),
        "top_k_influence": quantus.TopKIntersection(k=10, concept_influence=True, **QUIET),
        "attribution": quantus.AttributionLocalisation(**positive),
        "attribution_weighted": quantus.AttributionLocalisation(weighted=True, **positive),
        "attribution_default": quantus.AttributionLocalisation(**QUIET),
        "auc": quantus.AUC(**QUIET),
    }.items():
        s.add(name, metric, s_batch=mask)
    s.add("pointing_empty", quantus.PointingGame(**QUIET), s_batch=np.zeros_like(mask))
    quadrants = [(i % 2, i // 2 % 2, 1 - i % 2, 1 - i // 2 % 2) for i in range(len(s.x))]
    s.add("focus", quantus.Focus(**QUIET), custom_batch=quadrants)


def complexity(s: Scores) -> None:
    s.add("sparseness", quantus.Sparseness(normalise=False, **QUIET))
    s.add("complexity", quantus.Complexity(**QUIET))
    s.add("effective", quantus.EffectiveComplexity(eps=0.05, normalise=False, **QUIET))


def randomization(s: Scores) -> None:
    for order in ("top_down", "bottom_up", "independent"):
        scores = s.call(quantus.MPRT(layer_order=order, **QUIET), again=True)
        s.found[f"mprt_{order}"] = np.array([scores[name] for name in net.LAYERS])
    for name in ("average", "last"):
        s.add(
            f"mprt_{name}",
            quantus.MPRT(**{f"return_{name}_correlation": True}, **QUIET),
            again=True,
        )
    bins = {"n_bins": 100}
    s.add(
        "emprt",
        quantus.EfficientMPRT(complexity_func_kwargs=bins, **QUIET),
        again=True,
        softmax=True,
    )
    for rule in ("Freedman Diaconis", "Scotts", "Square Root", "Sturges Formula", "Rice"):
        kwargs = {"rule": rule, "min_n_bins": 1, "max_n_bins": 10**6}
        metric = quantus.EfficientMPRT(complexity_func_kwargs=kwargs, **QUIET)
        s.call(metric, again=True, softmax=True)
        s.found[f"bins_{rule.split()[0].lower()}"] = np.array(kwargs["n_bins"])

    def explain(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> np.ndarray:
        return s.explain_func(model, inputs, targets)

    metric = quantus.SmoothMPRT(nr_samples=10, return_last_correlation=True, **QUIET)
    with unittest.mock.patch.object(quantus, "explain", explain):
        s.draw("smooth_mprt_last", metric, again=True, draws=40)
    others: list[np.ndarray] = []
    recorded = s.explain_func

    def record(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> np.ndarray:
        others.append(targets)
        return recorded(model, inputs, targets)

    metric = quantus.RandomLogit(
        num_classes=10, similarity_func=similarity.correlation_spearman, **QUIET
    )
    with unittest.mock.patch.object(s, "explain_func", record):
        s.add("random_logit", metric, again=True)
    s.found["random_logit/other"] = others[-1]
    s.add("random_logit_ssim", quantus.RandomLogit(num_classes=10, **QUIET), again=True)
    s.add(
        "random_logit_cosine",
        quantus.RandomLogit(num_classes=10, similarity_func=similarity.cosine, **QUIET),
        again=True,
    )


def axioms(s: Scores) -> None:
    s.add("completeness", quantus.Completeness(normalise=False, perturb_baseline=0.0, **QUIET))
    for step in (1, 2):
        metric = quantus.NonSensitivity(eps=0.02, features_in_step=step, normalise=False, **QUIET)
        s.add(f"non_sensitivity_{step}", metric)
    s.add("input_invariance", quantus.InputInvariance(input_shift=0.5, **QUIET), again=True)


def of_problem(problem: str, s: Scores, mask: np.ndarray, segments: np.ndarray) -> Scores:
    flips(s, 4 if problem == "digits" else 3, patch=2)
    if problem == "color":
        s.a = s.a.sum(axis=1, keepdims=True)  # one number for each pixel
        s.add("pixels_flipping", quantus.PixelFlipping(features_in_step=3, **QUIET))
    localization(s, mask)
    complexity(s)
    if problem == "digits":
        for run in (
            functools.partial(faithfulness, segments=segments),
            robustness,
            randomization,
            axioms,
        ):
            run(s)
    return s


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    failed: list[str] = []
    for problem, (weights, x, y) in {"digits": digits(), "color": color()}.items():
        draw = np.random.RandomState(3)
        mask = draw.uniform(size=(*x.shape[:-1], 1)) < 0.3
        segments = np.stack([draw.randint(0, 6, size=x.shape[1:-1]) for _ in x])
        arrays |= {f"{problem}/{k}": v for k, v in weights._asdict().items()}
        arrays |= {f"{problem}/x": x, f"{problem}/y": y, f"{problem}/mask": mask}
        for name, explain in net.EXPLANATIONS.items():
            found = of_problem(problem, Scores(weights, x, y, explain), mask, segments)
            arrays |= {f"{problem}/{name}/{key}": value for key, value in found.found.items()}
            failed += [f"{problem}/{name}/{line}" for line in found.failed]
        arrays[f"{problem}/segments"] = segments.astype(np.uint8)
    np.savez_compressed(OUTPUT, failed=np.array(failed), **arrays)
    print("\n".join(failed))
    print(f"{len(arrays)} arrays, {OUTPUT.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    with unittest.mock.patch.object(utils, "get_wrapped_model", wrapped):
        main()
