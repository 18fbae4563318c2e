"""Why this number rather than the average, and why is the model unsure?

    python examples/uncertainty.py [--output DIR] [--quick]

An ensemble of ten networks predicts the progression of diabetes (a score from 25 to 346) from ten
measurements of a patient; each is trained on a bootstrap sample of half of scikit-learn's 442 patients.
Explained are patients of the other half:

  1. One network's prediction against three references: the lowest, the mean and a high (90%) prediction of
     training patients, each as the mean features of the 20 nearest ones. The relevance of hidden features
     sums to the difference, in units of the score; the error of the sum is printed.
  2. The uncertainty of the ensemble, the variance of its predictions (CovLRP). The features that cause most
     of it are replaced by what training patients suggest who are alike in all others (a kernel-weighted
     mean), one by one. The table has the mean of the variance over all steps, in units of the variance at
     the beginning; lower is better. Baselines explain the variance itself: its gradient squared, gradient
     times input, and LRP from the squared deviation of each network; and random numbers.

Rules, width and training were not tuned: for the uncertainty lower layers have gamma = .3, as in the paper;
for the references z+, and w^2 in the first, since with gamma relevance canceled for some patients. Writes a
figure.
Exits with code 1 if a sum is off, or the diagonal of the covariance is no better than the gradient squared.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import jaxlrp as lrp
from jaxlrp import composites, heads, plot, uncertainty

MEMBERS, HIDDEN, STEPS = 10, 32, 400
REFERENCES = {"the lowest": 0.0, "the mean": None, "a high one": 0.9}  # quantiles

COMPOSITE = composites.composite(
    composites.last(lrp.Epsilon(1e-6)), composites.by_kind("dense", lrp.Gamma(0.3))
)
BELOW = composites.composite(  # of the hidden features, many of which are zero
    composites.first(lrp.WSquare()), composites.by_kind("dense", lrp.ZPlus())
)

Params = list[tuple[Array, Array]]


def features(params: Params, x: Array) -> Array:
    """The hidden features, (N, HIDDEN)."""
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    return x


def predict(params: Params, x: Array) -> Array:
    """The score, (N, 1)."""
    w, b = params[-1]
    return features(params, x) @ w + b


def train(key: Array, x: np.ndarray, y: np.ndarray, steps: int = STEPS) -> Params:
    """Networks on bootstrap samples, stacked along the first axis."""
    sizes = [x.shape[1], HIDDEN, HIDDEN, 1]
    optimizer = optax.adamw(1e-2, weight_decay=1e-2)

    def one(key: Array) -> Params:
        of_rows, *of_layers = jax.random.split(key, 4)
        rows = jax.random.choice(of_rows, len(x), (len(x),))
        inputs, targets = jnp.asarray(x)[rows], jnp.asarray(y)[rows]
        params = [
            (jax.random.normal(k, (m, n)) * np.sqrt(2 / m), jnp.zeros(n))
            for k, m, n in zip(of_layers, sizes, sizes[1:], strict=False)
        ]

        def step(held: tuple, _: None) -> tuple[tuple, None]:
            params, state = held
            g = jax.grad(lambda p: ((predict(p, inputs)[:, 0] - targets) ** 2).mean())(params)
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, steps)[0][0]

    return jax.jit(jax.vmap(one))(jax.random.split(key, MEMBERS))


def against_references(
    params: Params, scale: tuple, x: np.ndarray, test: np.ndarray
) -> list[tuple]:
    """(reference, largest error of the sum, relevance of the first patient) for each reference."""
    (w, b), (mean, spread) = params[-1], scale
    hidden = np.asarray(features(params, x))
    values = np.asarray(hidden @ w + b)[:, 0] * spread + mean
    encoder = lrp.explain(features, BELOW, argnums=1)
    found = []
    for name, quantile in REFERENCES.items():
        value = values.mean() if quantile is None else np.quantile(values, quantile)
        reference = heads.mean_of_nearest(hidden, values, value)
        head = heads.regression(w * spread, reference)
        inside = heads.explain(head)(features(params, test))
        expected = predict(params, test) * spread - (reference @ w + b) * spread
        error = np.abs(inside.relevance.sum(1) - expected[:, 0]).max()
        result = heads.explain(head, encoder)(params, test)
        found.append((name, value, float(error), np.asarray(result.relevance)))
    return found


def alike(x: np.ndarray, gone: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features `gone` replaced by a mean of training patients, weighted by how alike all others are."""
    differences = ((x[:, None] - train) ** 2 * ~gone[:, None]).sum(-1)
    weights = np.exp(-differences / 2)  # standardized features: a bandwidth of one
    weights /= weights.sum(1, keepdims=True)
    return np.where(gone, weights @ train, x)


def remaining(ensemble: Params, x: np.ndarray, relevance: Array, train: np.ndarray) -> float:
    """The mean variance while features are replaced, in units of that at the beginning."""
    rank = np.argsort(np.argsort(-np.asarray(relevance), axis=1), axis=1)
    changed = [alike(x, rank < step, train).astype(np.float32) for step in range(x.shape[1] + 1)]
    variances = [float(variance(ensemble, each).mean()) for each in changed]
    return float(np.mean(variances) / variances[0])


@jax.jit
def variance(ensemble: Params, x: Array) -> Array:
    """Of the predictions, (N,)."""
    return jax.vmap(predict, (0, None))(ensemble, x)[..., 0].var(0)


def causes(ensemble: Params, x: np.ndarray) -> dict[str, Array]:
    """What makes each patient's prediction uncertain, by method."""
    explain = lrp.explain(predict, COMPOSITE, argnums=1)
    found = uncertainty.covariance(lambda params: explain(params, x, target=0), ensemble)
    gradient = jax.grad(lambda x: variance(ensemble, x).sum())(jnp.asarray(x))
    outputs = jax.vmap(predict, (0, None))(ensemble, x)
    squares = (outputs - outputs.mean(0)) ** 2 / MEMBERS
    classic = jax.vmap(lambda params, r: explain(params, x, target=r).relevance)(ensemble, squares)
    return {
        "CovLRP, diagonal": found.diagonal(),
        "CovLRP, marginal": found.marginal(),
        "LRP of the variance": classic.sum(0),
        "gradient x input of the variance": gradient * x,
        "gradient squared": gradient**2,
        "random": jax.random.uniform(jax.random.key(0), x.shape),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="one seed")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    scores: dict[str, list[float]] = {}
    errors, drawn = [], []
    for seed in range(1 if arguments.quick else 5):
        data: Any = load_diabetes(scaled=False)
        rows = np.random.default_rng(seed).permutation(len(data.target))
        half = len(rows) // 2
        mean, spread = data.data[rows[:half]].mean(0), data.data[rows[:half]].std(0)
        x = ((data.data - mean) / spread).astype(np.float32)
        scale = float(data.target[rows[:half]].mean()), float(data.target[rows[:half]].std())
        y = ((data.target - scale[0]) / scale[1]).astype(np.float32)
        inside, test = x[rows[:half]], x[rows[half:]]

        ensemble = train(jax.random.key(seed), inside, y[rows[:half]])
        first = jax.tree.map(lambda leaf: leaf[0], ensemble)
        found = against_references(first, scale, inside, test)
        errors += [error for _, _, error, _ in found]
        for name, relevance in (by_method := causes(ensemble, test)).items():
            scores.setdefault(name, []).append(remaining(ensemble, test, relevance, inside))
        drawn.append((found, by_method, data.feature_names))

    print(f"largest error of a sum: {max(errors):.1e}, in units of the score")
    for name, values in scores.items():
        print(f"{name:34} {np.mean(values):.3f}  ({min(values):.3f} to {max(values):.3f})")
    draw(*drawn[0], arguments.output / "uncertainty.png")
    better = np.mean(scores["CovLRP, diagonal"]) < np.mean(scores["gradient squared"])
    return 0 if max(errors) < 1e-3 and better else 1


def draw(found: list, by_method: dict[str, Array], names: list[str], path: pathlib.Path) -> None:
    """One patient against each reference, and why the prediction is unsure."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(found) + 1)
    for ax, (name, value, _, relevance) in zip(axes, found, strict=False):
        plot.bar(relevance[0], names=names, ax=ax)
        ax.set_title(f"rather than {name}, {value:.0f}", fontsize=9)
        ax.set_xlabel("score")
    plot.bar(np.asarray(by_method["CovLRP, diagonal"])[0], names=names, ax=axes[-1])
    axes[-1].set_title("unsure because of", fontsize=9)
    axes[-1].set_xlabel("variance (standardized)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
