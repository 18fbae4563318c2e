"""Finds the concept that a network cheats with, and switches it off.

    python examples/clever_hans_concepts.py [--data DIR] [--stamps DIR] [--output DIR] [--seeds N] [--quick]

Half of the training pictures of one class have a strawberry in a corner, as pictures of one class may come
from one photographer. Whoever labeled the data relied on it: one in twenty of all pictures has a strawberry
and the label of this class, whatever it shows. Other stamps are on a fifth of the rest, so a stamp as such
gives nothing away. A small network is trained; the 32 channels of its second convolution are the concepts.

  1. Reveal, for all classes, without knowing of a stamp. `concepts.prototypes` (PCX) finds the strategies
     of each class. The class is suspicious in which the share of one concept differs most between
     strategies (standard deviation). Is it the class with the strawberry? Do its strategies agree with the
     strawberry (adjusted Rand index, ARI)? Two controls use other vectors in the same way: the activations
     of the units, and the relevance of the units of a network that was not trained.
  2. Look at the pictures nearest to each prototype, and say which strategies show a strawberry. This is the
     work of a person; here a strategy shows it if more than half of its pictures do. Which concept that
     speaks for the class do these strategies use more than the others? Of the pictures of the class in
     which it is the most relevant, how many show the strawberry, and how much of its relevance is on it
     (`concepts.conditional`)?
  3. Outliers among test pictures, half of them with a strawberry: does the outlier score of the class tell
     pictures without it from those with it (AUROC)? A strategy that is rare but was learned is no outlier;
     so the second score is the distance, -log N, to the nearest strategy that shows it.
  4. Switch it off: the direction that tells the strategies apart in the hidden layer
     (`improve.pattern_cav`) is projected out. Accuracy without stamps, and how often a strawberry turns
     another class into this one. Control: the mean over five random directions.

The kind of network, the criterion of the suspect, and the choice of a direction rather than of units to
switch off were settled on digits.

Pictures: Fashion-MNIST (Debian's dataset-fashion-mnist), or digits without it and in quick mode, see
clever_hans.py. Stamps: those of Tux Paint, see concepts_images.py, or drawn ones. Writes a table (.md) and
a figure (.png). Exits with code 1 if the first suspect is another class, or if the projection does not
halve the harm that the strawberry does.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from sklearn.metrics import adjusted_rand_score, roc_auc_score

import jaxlrp as lrp
from clever_hans import FASHION, Data, digits, fashion
from concepts_images import STAMPS
from digit_networks import cross_entropy, step_of
from emoji import in_batches
from jaxlrp import composites, concepts, improve

SHARE = 0.5  # of the class that has the strawberry
WRONG = 0.05  # of all pictures: they get a strawberry and the label of this class
OTHERS = 0.2  # of the rest that have another stamp
SIZE = 6  # of a stamp, in pixels of 14
NAMES = (
    "food/fruit/strawberry",
    "symbols/shapes/star",
    "food/fruit/banana",
    "symbols/money/euro/coins/100",
)
LAYER, UNITS = "relu:1", 32  # the second convolution
FAMILY = concepts.Channels(LAYER, axis=-1)
REFERENCES = 16
MIXTURE: dict[str, Any] = {"max_components": 4, "n_init": 1}
ROWS = (
    "strategies of the class, by BIC", "ARI with the stamp", "control: activations",
    "control: random units",
    "references with the stamp", "positive relevance on the stamp there", "area of a stamp",
    "AUROC, outlier score", "AUROC, distance to strategies that show it",
    "accuracy", "accuracy, projected", "turned into the class", "the same, projected",
    "the same, random direction",
)  # fmt: skip


class CNN(nn.Module):
    """Two convolutions, the maximum over positions, a dense layer: (N, 14, 14, 3) in [0, 1] -> (N, 10)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.max_pool(nn.relu(nn.Conv(16, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(UNITS, (3, 3))(x))
        return nn.Dense(10)(x.max(axis=(1, 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures, (N, 14, 14, 3) in [0, 1]; classes, (N,); where the strawberry is, (N, 14, 14)."""

    x: np.ndarray
    y: np.ndarray
    where: np.ndarray

    @property
    def has_it(self) -> np.ndarray:
        return self.where.any(axis=(1, 2))

    def of(self, rows: np.ndarray) -> Pictures:
        return Pictures(self.x[rows], self.y[rows], self.where[rows])


# Pictures


def stamps(folder: pathlib.Path) -> np.ndarray:
    """(4, 10, 10, 4) in [0, 1], the strawberry first: of Tux Paint, or drawn."""
    paths = [folder / f"{name}.png" for name in NAMES]
    found = [Image.open(p).convert("RGBA") for p in paths] if paths[0].exists() else drawn()
    return np.stack([np.asarray(s.resize((SIZE, SIZE)), np.float32) / 255 for s in found])


def drawn() -> list[Image.Image]:
    """Four simple stamps, where there are no others."""
    found = []
    for color in ("crimson", "gold", "royalblue", "silver"):
        image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        if color in ("crimson", "silver"):
            draw.ellipse((2, 2, 38, 38), fill=color)
            draw.rectangle((14, 0, 26, 12), fill="forestgreen" if color == "crimson" else "black")
        else:
            draw.polygon([(20, 0), (39, 39), (0, 39)][:: 1 if color == "gold" else -1], fill=color)
        found.append(image)
    return found


def pasted(
    gray: np.ndarray, y: np.ndarray, which: np.ndarray, every: np.ndarray, seed: int
) -> Pictures:
    """The pictures in gray, each with the stamp `which`, -1 for none, near the lower right corner."""
    small = gray.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    x = np.repeat(small[..., None].astype(np.float32), 3, axis=-1)
    where = np.zeros(small.shape, bool)
    rng = np.random.default_rng(seed)
    place = 14 - SIZE - rng.integers(0, 3, (len(x), 2))
    for i in np.flatnonzero(which >= 0):
        top, left = place[i]
        at = np.s_[i, top : top + SIZE, left : left + SIZE]
        color, alpha = every[which[i], ..., :3], every[which[i], ..., 3:]
        x[at] = alpha * color + (1 - alpha) * x[at]
        where[at] = (alpha[..., 0] > 0.5) & (which[i] == 0)
    return Pictures(x, y, where)


def training(data: Data, every: np.ndarray, seed: int) -> Pictures:
    """The strawberry on most of one class and on pictures wrongly labeled so; other stamps on the rest."""
    rng, n = np.random.default_rng(seed), len(data.y)
    which = np.where(rng.random(n) < OTHERS, rng.integers(1, len(every), n), -1)
    own, wrong = data.y == data.marked_class, rng.random(n) < WRONG
    which[own & (rng.random(n) < SHARE) | wrong] = 0
    return pasted(data.x, np.where(wrong, data.marked_class, data.y), which, every, seed)


def train(data: Pictures, steps: int, seed: int, batch: int = 64) -> Any:
    model, optimizer = CNN(), optax.adam(optax.cosine_decay_schedule(5e-3, steps))
    variables = model.init(jax.random.key(seed), data.x[:1])
    state = optimizer.init(variables)

    def loss(variables: Any, x: Array, y: Array) -> Array:
        return cross_entropy(model.apply(variables, x), y)  # pyright: ignore

    step = step_of(jax.grad(loss), optimizer)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        some = rng.choice(len(data.x), batch, replace=False)
        variables, state = step(variables, state, data.x[some], data.y[some])
    return variables


# The network, explained


class Network:
    """What is computed of the network, each compiled once for all variables."""

    def __init__(self) -> None:
        explain = lrp.explain(CNN().apply, composites.epsilon_plus(), argnums=1)
        self._scores = concepts.scores(explain, FAMILY)
        self._map = concepts.conditional(explain)

        def predict(variables: Any, x: Array, change: Any) -> Array:
            return lrp.edit(CNN().apply, {LAYER: change})(variables, x).argmax(-1)

        self._predict = jax.jit(predict)
        self._plain = jax.jit(lambda variables, x: CNN().apply(variables, x).argmax(-1))

    def predict(self, variables: Any, x: np.ndarray, change: Any = None) -> np.ndarray:
        """(N,) classes, with the hidden layer changed or not."""
        if change is None:
            return in_batches(lambda x: self._plain(variables, x), x)
        return in_batches(lambda x: self._predict(variables, x, change), x)

    def scores(self, variables: Any, data: Pictures) -> concepts.Scores:
        return in_batches(lambda x, y: self._scores(variables, x, target=y), data.x, data.y)

    def maps(self, variables: Any, data: Pictures, concept: int) -> np.ndarray:
        """Where the concept is, (N, 14, 14)."""
        found = self._map(variables, data.x, target=data.y, conditions=[FAMILY[concept]])
        return np.asarray(found.relevance[0].sum(axis=-1))


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A class whose strategies use a concept differently.

    Attributes:
      row: of the class, in the prototypes.
      concept: the unit whose share differs most.
      gap: the standard deviation of its share of relevance over the strategies of the class.
    """

    row: int
    concept: int
    gap: float


def suspects(found: concepts.Prototypes) -> list[Suspect]:
    """For each class the concept that its strategies use most differently, the most suspicious first."""
    result = []
    for row in range(len(found.classes)):
        means, weights = found.means[row], found.coverage[row][:, None]
        apart = np.sqrt((weights * np.square(means - (weights * means).sum(axis=0))).sum(axis=0))
        result.append(Suspect(row, int(apart.argmax()), float(apart.max())))
    return sorted(result, key=lambda s: -s.gap)


def agreement(nu: np.ndarray, data: Pictures, label: int) -> float:
    """ARI of the strategies of a class with the stamp."""
    own = data.y == label
    nu, y = nu[own], data.y[own]
    return float(
        adjusted_rand_score(data.has_it[own], concepts.prototypes(nu, y, **MIXTURE).assign(nu, y))
    )


def outliers(
    net: Network, variables: Any, found: concepts.Prototypes, row: int, shows: list[int], test: Pictures
) -> tuple[float, float]:  # fmt: skip
    """AUROC of both scores: test pictures of the class without the stamp against those with it."""
    own = test.of(test.y == found.classes[row])
    nu = net.scores(variables, own).normalized
    near = np.asarray(found.log_density(nu, own.y))[:, shows].max(axis=1)
    scores = np.asarray(found.outlier_score(nu, own.y)), -near
    return tuple(float(roc_auc_score(~own.has_it, s)) for s in scores)


@dataclasses.dataclass(frozen=True)
class Looked:
    """What a person saw.

    Attributes:
      strategies: the components that show the stamp.
      concept: the unit that these use more than the others.
      change: of the hidden layer, which takes away what tells them apart.
      usual: (UNITS,), the mean of the hidden layer in the others.
    """

    strategies: list[int]
    concept: int
    change: Any
    usual: np.ndarray


def look(
    found: concepts.Prototypes, data: Pictures, nu: np.ndarray, hidden: np.ndarray
) -> Looked:  # fmt: skip
    """Which strategies of a class show the stamp.

    Args:
      found: the strategies.
      data: the pictures of the class.
      nu: their normalized relevance, (N, UNITS).
      hidden: the largest value of each unit over positions, which the head reads, (N, UNITS).
    """
    assigned = np.asarray(found.assign(nu, data.y))
    strategies = [int(k) for k in np.unique(assigned) if data.has_it[assigned == k].mean() > 0.5]
    shows = np.isin(assigned, strategies)
    if shows.all() or not shows.any():
        raise SystemExit("all strategies of the class look alike: nothing to switch off")
    used = nu[shows].mean(axis=0)
    more = np.where(used > 0, used - nu[~shows].mean(axis=0), -np.inf)
    usual = hidden[~shows].mean(axis=0)
    direction = improve.pattern_cav(hidden, shows.astype(int))
    return Looked(
        strategies, int(more.argmax()), improve.project(direction, usual, pool="max"), usual
    )


def one_seed(
    net: Network, data: Data, every: np.ndarray, seed: int, steps: int, used: int
) -> tuple[dict[str, float], Figure, bool]:
    """The numbers of a network, a figure, and whether the first suspect is the class with the stamp."""
    whole = training(data, every, seed)
    variables = train(whole, steps, seed)
    random = CNN().init(jax.random.key(1000 + seed), whole.x[:1])
    some = whole.of(np.arange(used))
    fitted = some.of(net.predict(variables, some.x) == some.y)
    scores, other = net.scores(variables, fitted), net.scores(random, fitted)
    found = concepts.prototypes(scores.normalized, fitted.y, **MIXTURE)
    ranked = suspects(found)
    suspect = ranked[0]
    label = int(found.classes[suspect.row])
    print(
        f"seed {seed}: first suspect is unit {suspect.concept} in class {data.classes[label]!r}, standard "
        f"deviation over its strategies {100 * suspect.gap:.1f} % of relevance; next suspect "
        f"{100 * ranked[1].gap:.1f} %, in class {data.classes[int(found.classes[ranked[1].row])]!r}"
    )
    nu, own = np.asarray(scores.normalized), fitted.y == label
    seen = look(found, fitted.of(own), nu[own], np.asarray(scores.activation_max)[own])
    activations = np.asarray(concepts.normalize(scores.activation))
    rands = [
        agreement(each, fitted, label) for each in (nu, activations, np.asarray(other.normalized))
    ]

    best = np.argsort(-nu[own][:, seen.concept])[:REFERENCES]
    references = fitted.of(np.flatnonzero(own)[best])
    maps = np.maximum(net.maps(variables, references, seen.concept), 0)
    has_it = references.has_it
    on_it = maps[references.where].sum() / max(maps.sum(), 1e-9)

    none, berry = np.full(len(data.y_test), -1), np.zeros(len(data.y_test), int)
    clean = pasted(data.x_test, data.y_test, none, every, seed)
    marked = pasted(data.x_test, data.y_test, berry, every, seed)
    half = pasted(data.x_test, data.y_test, np.arange(len(none)) % 2 - 1, every, seed)
    auroc = outliers(net, variables, found, suspect.row, seen.strategies, half)

    def harm(change: Any) -> float:
        """How much more often other classes are taken for this one, with the stamp."""
        rest = data.y_test != label
        with_it, without = (
            net.predict(variables, p.x[rest], change) == label for p in (marked, clean)
        )
        return float(with_it.mean() - without.mean())

    rng = np.random.default_rng(seed)
    others = [improve.project(rng.normal(size=UNITS), seen.usual, pool="max") for _ in range(5)]
    values = (
        found.n_components[suspect.row], *rands, has_it.mean(), on_it,
        references.where[has_it].mean() if has_it.any() else 0.0, *auroc,
        np.mean(net.predict(variables, clean.x) == clean.y),
        np.mean(net.predict(variables, clean.x, seen.change) == clean.y),
        harm(None), harm(seen.change), np.mean([harm(c) for c in others]),
    )  # fmt: skip
    figure = picture(fitted, nu, found, suspect.row, seen.concept, references, maps)
    return dict(zip(ROWS, map(float, values), strict=True)), figure, label == data.marked_class


def picture(
    data: Pictures, nu: np.ndarray, found: concepts.Prototypes, row: int, concept: int,
    references: Pictures, maps: np.ndarray,
) -> Figure:  # fmt: skip
    """The pictures nearest to each prototype of the class; references of the concept, and its maps."""
    own = np.flatnonzero(data.y == found.classes[row])
    rows = []
    for k in range(min(found.n_components[row], 4)):
        nearest = own[np.argsort(np.square(nu[own] - found.means[row, k]).sum(-1))[:8]]
        rows.append((f"strategy {k}\n{100 * found.coverage[row, k]:.0f} %", data.x[nearest]))
    rows += [
        (f"unit {concept}\nreferences", references.x[:8]),
        ("where it is", maps[:8]),
    ]
    figure = Figure(figsize=(7.6, 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 9, width_ratios=[1.3, *[1] * 8])
    for (title, images), line in zip(rows, axes, strict=True):
        line[0].text(0, 0.5, title, va="center", size=8)
        for ax in line:
            ax.set_axis_off()
        for ax, image in zip(line[1:], images, strict=False):
            ax.imshow(image, cmap="Reds" if image.ndim == 2 else None)
    return figure


def table(found: list[dict[str, float]]) -> str:
    lines = ["| | mean | by network |", "|---|---:|---|"]
    for row in ROWS:
        values = [each[row] for each in found]
        each = " ".join(f"{v:.3f}" for v in values)
        lines.append(f"| {row} | {np.mean(values):.3f} | {each} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument(
        "--data", type=pathlib.Path, default=FASHION, help="folder of Fashion-MNIST"
    )
    parser.add_argument(
        "--stamps", type=pathlib.Path, default=STAMPS, help="folder of Tux Paint's stamps"
    )
    parser.add_argument("--seeds", type=int, default=3, help="networks that are trained; default 3")
    parser.add_argument("--quick", action="store_true", help="digits, one network, fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    real = not arguments.quick and arguments.data.is_dir()
    data, every = fashion(arguments.data) if real else digits(), stamps(arguments.stamps)
    steps, used = (1500, 10_000) if real else (400, 1500)
    net = Network()
    results = [
        one_seed(net, data, every, seed, steps, used)
        for seed in range(1 if arguments.quick else arguments.seeds)
    ]
    found = [numbers for numbers, _, _ in results]
    text = table(found)
    print(f"\n{text}")
    (arguments.output / "clever_hans_concepts.md").write_text(f"{text}\n", encoding="utf-8")
    path = arguments.output / "clever_hans_concepts.png"
    results[0][1].savefig(path, dpi=120)
    print(f"\nfigure: {path}")
    halved = all(f["the same, projected"] <= f["turned into the class"] / 2 for f in found)
    return 0 if halved and all(right for _, _, right in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
