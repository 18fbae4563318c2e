"""Explains real photographs, classified by a real ImageNet network.

    python examples/image_classification.py [--output DIR] [--quick]

Writes two pictures: five photographs under several composites, and pictures of two photographs
whose classes must each find their relevance in their own half. Prints how often they do, with the
share of the positive relevance there (mass) and of the strongest pixels there (rank).
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import composites, plot
from jaxlrp.pretrained import Pretrained, efficientnet_lite0
from jaxlrp.pretrained.efficientnet_lite import normalize
from photographs import CLASSES, TwoPhotographs, photograph, two_photograph_composites

Explain = Callable[..., np.ndarray]


def explainers(net: Pretrained) -> dict[str, Explain]:
    """Methods by name: (inputs, target) -> relevance of each pixel, (N, 224, 224)."""
    named = {
        "epsilon_gamma_box": composites.epsilon_gamma_box(*net.bounds),
        "epsilon_plus_flat": composites.epsilon_plus_flat(),
        "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
        "default": composites.default(),
    }
    methods = {name: lrp.explain(net.model.apply, composite) for name, composite in named.items()}
    methods["input x gradient"] = lrp.baselines.input_x_gradient(net.model.apply)

    def pixels(explain: Callable[..., lrp.Explanation]) -> Explain:
        run = jax.jit(lambda x, t: explain(net.variables, x, target=t).relevance.sum(-1))
        return lambda x, t: np.asarray(run(jnp.asarray(x), jnp.asarray(t)))

    return {name: pixels(explain) for name, explain in methods.items()}


def visible(relevance: np.ndarray) -> np.ndarray:
    """Scales each map to [-1, 1] and clips its strongest pixels, so that the rest can be seen."""
    return plot.normalize(relevance, axis=(-2, -1), percentile=99)


def mass(relevance: np.ndarray, region: np.ndarray) -> float:
    """The share of the positive relevance that lies in a region."""
    positive = np.maximum(relevance, 0)
    return float(positive[region].sum() / positive.sum())


def rank(relevance: np.ndarray, region: np.ndarray) -> float:
    """The share of the k most relevant pixels that lie in a region of k pixels."""
    k = int(region.sum())
    return float(region.ravel()[np.argsort(relevance, axis=None)[-k:]].mean())


def single_photographs(net: Pretrained, methods: dict[str, Explain], path: pathlib.Path) -> None:
    """Draws each photograph beside its explanations; the target is the predicted class."""
    inputs = np.concatenate([net.preprocess(photograph(name)) for name in CLASSES])
    predict = jax.jit(lambda x: jax.nn.softmax(net.model.apply(net.variables, x)))
    probability = np.asarray(predict(inputs))
    targets = probability.argmax(-1)
    relevance = {name: visible(explain(inputs, targets)) for name, explain in methods.items()}
    captions = [
        f"{net.class_names[t]} {p[t]:.2f}" for t, p in zip(targets, probability, strict=True)
    ]
    figure = plot.grid(
        relevance, images=list(net.to_picture(inputs)), suptitle=" | ".join(captions), overlay=True
    )
    figure.savefig(path, dpi=120, bbox_inches="tight")


def two_photographs(
    net: Pretrained, methods: dict[str, Explain], path: pathlib.Path, limit: int | None
) -> Table:
    """Checks that the relevance of each class lies in its own half; draws the first ones."""
    predict = jax.jit(lambda x: net.model.apply(net.variables, x)[0])
    pairs = two_photograph_composites(lambda picture: np.asarray(predict(normalize(picture)[None])))
    pairs = pairs[:limit]
    table = Table(title=f"{2 * len(pairs)} classes in pictures of two photographs")
    for column in ("method", "own half", "mass", "rank"):
        table.add_column(column, justify="left" if column == "method" else "right")
    drawn: dict[str, list[np.ndarray]] = {}
    for name, explain in methods.items():
        found = [_explain_pair(explain, pair) for pair in track(pairs, description=name)]
        shares = [
            (mass(r, region), rank(r, region))
            for pair, maps in zip(pairs, found, strict=True)
            for r, region in zip(maps, pair.regions, strict=True)
        ]
        right = sum(share > 0.5 for share, _ in shares)
        means = np.mean(shares, axis=0)
        table.add_row(name, f"{right} of {len(shares)}", *(f"{m:.3f}" for m in means))
        drawn[name] = [r for maps in found[:2] for r in visible(maps)]
    images = [pair.picture for pair in pairs[:2] for _ in pair.targets]
    names = [net.class_names[t] for pair in pairs[:2] for t in pair.targets]
    figure = plot.grid(drawn, images=images, suptitle=" | ".join(names), overlay=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    return table


def _explain_pair(explain: Explain, pair: TwoPhotographs) -> np.ndarray:
    inputs = np.repeat(normalize(pair.picture)[None], 2, axis=0)
    return explain(inputs, np.array(pair.targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="two pairs and two methods only")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    net = efficientnet_lite0()
    methods = explainers(net)
    if arguments.quick:
        methods = {name: methods[name] for name in ("epsilon_gamma_box", "default")}
    singles = arguments.output / "photographs.png"
    single_photographs(net, methods, singles)
    pairs = arguments.output / "two_photographs.png"
    console.print(two_photographs(net, methods, pairs, 2 if arguments.quick else None))
    console.print(f"pictures: {singles}, {pairs}")


if __name__ == "__main__":
    main()
