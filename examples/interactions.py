"""Which measurements act together? Interactions of features, on tables with planted and with true labels.

    python examples/interactions.py [--output DIR] [--seeds N] [--quick]

Networks learn from half of scikit-learn's wine (178 wines, 13 measurements) and breast cancer (569 tumors,
30 measurements) and are explained on the other half. Two questions:

  1. Planted: the label of a table is replaced by the sum of a measurement and the products of two pairs of
     others, all drawn at random. Are the pairs found among all? The figure is the area under the ROC curve.
  2. The true label: a network's interaction of two features is measured by four evaluations, f(x) - f(x
     without i) - f(x without j) + f(x without both), for each pair. How well do magnitudes agree, by
     Spearman's rank correlation within each sample? `higher_order.interactions` needs an explanation for
     each feature, not for each pair.

Baselines: the product of the relevances of both features (what matters is paired with what matters), the
correlation of both features, and random numbers. A feature that is left out has its mean. Rules, width and
training were not tuned. Writes the measured and the found interactions of one sample as pictures.

Not shown in the first question, over five seeds: there the product of relevances ranks the planted pairs
higher. It cannot tell them from other pairs of features that matter, but these are few among all pairs.
Exits with code 1 if interactions are no better than the product of relevances in the second question.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.metrics import roc_auc_score

from jaxlrp import composites, higher_order, plot

HIDDEN, STEPS, EXPLAINED = 32, 600, 40
OURS, PRODUCT = "interactions", "product of relevances"
METHODS = (OURS, PRODUCT, "correlation", "random")
TABLES = {"wine": load_wine, "breast cancer": load_breast_cancer}

Params = list[tuple[Array, Array]]


def predict(params: Params, x: Array) -> Array:
    """Features (N, D) -> outputs (N, K)."""
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def fit(key: Array, x: Array, loss: Callable[[Array], Array], outputs: int) -> Params:
    """A network with two hidden layers; `loss` is that of its outputs for `x`."""
    sizes = [x.shape[1], HIDDEN, HIDDEN, outputs]
    keys = jax.random.split(key, 3)
    params = [
        (jax.random.normal(k, (a, b)) * jnp.sqrt(2 / a), jnp.zeros(b))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimizer = optax.adamw(5e-3, weight_decay=1e-2)

    def step(held: tuple, _: None) -> tuple:
        params, state = held
        g = jax.grad(lambda p: loss(predict(p, x)))(params)
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, STEPS))(
        params
    )
    return params


def split(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Features and labels of both halves, standardized by the first, and the names of features."""
    data = TABLES[name](as_frame=True)
    x, y = data.data.to_numpy(np.float32), data.target.to_numpy()
    order = np.random.default_rng(seed).permutation(len(x))
    first, second = order[: len(x) // 2], order[len(x) // 2 :]
    mean, deviation = x[first].mean(axis=0), x[first].std(axis=0)
    x = (x - mean) / deviation
    return x[first], y[first], x[second], y[second], list(data.data.columns)


def found(
    params: Params, x: Array, target: Array, train: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The magnitude of the interaction of all pairs by each method, (N, pairs)."""
    explain = higher_order.interactions(predict, composites.all_epsilon(1e-6), argnums=1)
    held = explain(params, x, target=target)
    rows, columns = np.triu_indices(x.shape[1], 1)
    relevance = np.abs(np.asarray(held.relevance))
    shape = (len(x), len(rows))
    return {
        OURS: np.abs(np.asarray(held.symmetric()))[:, rows, columns],
        PRODUCT: relevance[:, rows] * relevance[:, columns],
        "correlation": np.broadcast_to(np.abs(np.corrcoef(train.T))[rows, columns], shape),
        "random": np.random.default_rng(seed).uniform(size=shape),
    }


def measured(params: Params, x: Array, target: Array) -> np.ndarray:
    """f(x) - f(x without i) - f(x without j) + f(x without both), (N, pairs), of the target's output."""
    size = x.shape[1]
    rows, columns = np.triu_indices(size, 1)
    one = 1 - np.eye(size, dtype=np.float32)

    @jax.jit
    def outputs(masks: Array) -> Array:
        return jax.lax.map(
            lambda mask: jnp.take_along_axis(predict(params, x * mask), target[:, None], 1)[:, 0],
            masks,
        )

    whole, single = outputs(np.ones((1, size), np.float32)), np.asarray(outputs(one))
    both = np.asarray(outputs(one[rows] * one[columns]))
    return (np.asarray(whole) - single[rows] - single[columns] + both).T


def planted(name: str, seed: int) -> tuple[dict[str, float], float]:
    """The area under the ROC curve of each method, and the share of variance that the network explains."""
    x, _, test, _, _ = split(name, seed)
    a, b, c, d, e = np.random.default_rng(100 + seed).permutation(x.shape[1])[:5]

    def label(x: np.ndarray) -> np.ndarray:
        return np.clip(x[:, a] * x[:, b] + x[:, c] * x[:, d] + x[:, e], -5, 5)

    y = jnp.asarray(label(x))
    params = fit(jax.random.key(seed), jnp.asarray(x), lambda z: ((z[:, 0] - y) ** 2).mean(), 1)
    error = np.mean((np.asarray(predict(params, jnp.asarray(test)))[:, 0] - label(test)) ** 2)
    shown = jnp.asarray(test[:EXPLAINED])
    scores = found(params, shown, jnp.zeros(len(shown), int), x, seed)
    pairs = {tuple(sorted(pair)) for pair in ((a, b), (c, d))}
    truth = [pair in pairs for pair in zip(*np.triu_indices(x.shape[1], 1), strict=True)]
    areas = {m: float(roc_auc_score(truth, each.mean(axis=0))) for m, each in scores.items()}
    return areas, float(1 - error / label(test).var())


def real(name: str, seed: int) -> tuple[dict[str, float], float, dict[str, np.ndarray]]:
    """Rank correlation with what is measured by each method, the accuracy, and a sample for a picture."""
    x, y, test, label, _ = split(name, seed)
    classes = int(y.max()) + 1
    of = jnp.asarray(y)
    params = fit(
        jax.random.key(seed), jnp.asarray(x),
        lambda z: optax.softmax_cross_entropy_with_integer_labels(z, of).mean(), classes,
    )  # fmt: skip
    predicted = np.asarray(predict(params, jnp.asarray(test)).argmax(axis=1))
    shown, target = jnp.asarray(test[:EXPLAINED]), jnp.asarray(predicted[:EXPLAINED])
    truth = np.abs(measured(params, shown, target))
    scores = found(params, shown, target, x, seed)
    agreement = {
        m: float(np.mean([spearmanr(a, b).statistic for a, b in zip(each, truth, strict=True)]))
        for m, each in scores.items()
    }
    return (
        agreement,
        float((predicted == label).mean()),
        {"measured": truth[0], OURS: scores[OURS][0]},
    )


def draw(sample: dict[str, np.ndarray], names: list[str], path: pathlib.Path) -> None:
    """Magnitudes of one sample, measured and found, side by side."""
    rows, columns = np.triu_indices(len(names), 1)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for ax, (title, values) in zip(figure.subplots(1, 2), sample.items(), strict=True):
        matrix = np.zeros((len(names), len(names)))
        matrix[rows, columns] = matrix[columns, rows] = values / values.max()
        plot.heatmap(matrix, channel_axis=None, ax=ax)
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        ax.set_yticks(range(len(names)), names, fontsize=7)
        ax.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--seeds", type=int, default=5, help="networks and splits; default 5")
    parser.add_argument("--quick", action="store_true", help="wine alone, one seed")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=100)
    tables = ["wine"] if arguments.quick else list(TABLES)
    seeds = range(1 if arguments.quick else arguments.seeds)

    better = True
    for question, run, what in (
        ("planted pairs: area under the ROC curve", planted, "variance explained"),
        ("true labels: rank correlation with measured interactions", real, "accuracy"),
    ):
        table = Table(title=f"{question}, mean (smallest to largest) over {len(seeds)} seeds")
        for column in ("method", *tables):
            table.add_column(column)
        runs = {name: [run(name, seed) for seed in seeds] for name in tables}
        for method in METHODS:
            values = [[each[0][method] for each in runs[name]] for name in tables]
            table.add_row(
                method, *(f"{np.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in values)
            )
        table.add_row(what, *(f"{np.mean([each[1] for each in runs[n]]):.2f}" for n in tables))
        console.print(table)
        if run is real:
            for name in tables:
                mean = {m: np.mean([each[0][m] for each in runs[name]]) for m in (OURS, PRODUCT)}
                better &= bool(mean[OURS] > mean[PRODUCT])
            path = arguments.output / "interactions.png"
            draw(runs["wine"][0][2], split("wine", 0)[4], path)
            console.print(f"figure: {path}")
    return 0 if better else 1


if __name__ == "__main__":
    raise SystemExit(main())
