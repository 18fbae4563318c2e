"""Which explanations find what a network must have used? Eight benchmarks with known truth.

    python examples/known_truth.py [--output DIR] [--quick] [--only NAME ...] [--methods NAME ...]
        [--seeds 3]

Scenes with questions, planted marks, creatures, mosaics of digits, events and tones in series, a
multiplexer, sums of two numbers: for each, a small network is trained, and only samples are kept on which
it obeys: it answers right, and also after the target, the distractor or the background is changed. Then
all composites, baselines and controls are scored by relevance mass and rank accuracy, with six poolings.

The *lift* is the score on the true mask less that on a mask of the same kind which another question would
have asked for. It is 0 for whatever ignores the network or the question, so three planted failures must
have none: random weights, explanations of another question, masks of other samples.

Nothing is tuned: rules have their defaults, steps of integrated gradients and noise of SmoothGrad too.
Writes a table of all scores (CSV), tables in Markdown, and a figure. Exits with code 1 if a planted failure
has a mean lift of more than .05 or a network does not obey on half of the samples, or LRP's default has no
lift (of creatures, where networks are saturated, at a quarter of the contrast).
"""

from __future__ import annotations

import argparse
import csv
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_digits

import jaxlrp as lrp
from jaxlrp import baselines, composites, inspection, metrics
from jaxlrp.metrics import truth
from known_truth_more import DIMMED, further
from known_truth_tables import (
    Row,
    draw,
    failures,
    figure,
    interval,
    lifts,
    markdown,
    means,
    poolings,
    rows_of,
)

KEPT = 128  # samples that are explained
RANDOM = 2  # networks with random weights for each seed
FAILURE = 0.05  # the largest lift of a planted failure


class Case(NamedTuple):
    """One benchmark: from (number, seed) to samples, and the axes along which values are neighbors."""

    make: Callable[..., truth.Benchmark]
    axes: tuple[int, ...] | None
    window: dict[str, Any]


def mosaics(number: int, seed: int) -> truth.Benchmark:
    """Mosaics of digits; odd seeds take them from the second half of the data set."""
    digits = load_digits()
    half = slice(seed % 2, None, 2)
    pictures = (digits.images[half, ..., None] / 16).astype(np.float32)
    return truth.mosaics(pictures, digits.target[half], number, seed)


IMAGE = {"window": 3, "axes": (1, 2), "batch_size": 64}
TIME = {"window": 4, "axes": (1,), "batch_size": 64}
CELL = {"window": 1, "axes": (1,), "batch_size": 64}
CASES = {
    "scenes": Case(truth.scenes, (0, 1), IMAGE),
    "artefacts": Case(truth.artefacts, (0, 1), IMAGE),
    "creatures": Case(truth.creatures, (0, 1), IMAGE),
    "mosaics": Case(mosaics, (0, 1), IMAGE),
    "events": Case(truth.events, (0,), TIME),
    "frequencies": Case(truth.frequencies, (0,), {}),
    "multiplexer": Case(truth.multiplexer, None, CELL),
    "arithmetic": Case(truth.arithmetic, None, CELL),
}
QUICK = {"multiplexer": 500}  # steps


def methods(name: str, quick: bool, only: list[str] | None = None) -> dict[str, Any]:
    """Composites and baselines by name, made once so that seeds share what is compiled."""
    some = CASES[name].make(4, 0)
    model = some.model
    chosen = ["default", "all_epsilon", "epsilon_plus"] if quick else list(composites.PRESETS)
    if name != "arithmetic":  # they differ from epsilon in gates, attention and normalization only
        chosen = [one for one in chosen if one not in _LIKE_EPSILON]
    if name == "frequencies":  # gradients, occlusion and Grad-CAM have no relevance of frequencies
        chosen = [one for one in chosen if one not in _GRADIENTS]
    found: dict[str, Any] = {}
    for one in chosen:
        made = composites.PRESETS[one]
        found[one] = lrp.explain(model, made(-1, 1) if one == "epsilon_gamma_box" else made())
    found["input x gradient"] = baselines.input_x_gradient(model)
    found["integrated gradients"] = baselines.integrated_gradients(model)
    if not quick and name != "frequencies":
        smooth = baselines.smooth_grad(model)
        found["SmoothGrad"] = functools.partial(smooth, key=jax.random.key(0))
        found["occlusion"] = baselines.occlusion(model, **CASES[name].window)
        if (layer := last_map(some)) is not None:
            found["Grad-CAM"] = baselines.grad_cam(model, layer)
    return {n: method for n, method in found.items() if only is None or n in only}


def last_map(some: truth.Benchmark) -> str | None:
    """The activation of the last convolution, for Grad-CAM; None in a network without any."""
    net = truth.untrained(some, jax.random.key(0))
    plan = lrp.plan(
        some.model, None, net.variables, some.inputs, argnums=1, fun_kwargs=dict(some.context)
    )
    convolutions = [row.path for row in plan.rows if row.kind == "conv"]
    maps = [
        row.path
        for row in plan.rows
        if row.kind == "activation" and convolutions and convolutions[-1] in row.before
    ]
    return maps[0] if maps else None


_LIKE_EPSILON = ("attnlrp", "cp_lrp", "relp", "gim")
_GRADIENTS = ("gradient", "guided_backprop", "deconvnet", "beta_smooth")


def explainers(name: str, made: dict[str, Any], net: truth.Trained) -> dict[str, Any]:
    """Methods and controls for one network; of amplitudes, where frequencies are explained."""
    controls = metrics.controls.standard(CASES[name].axes)
    if name != "frequencies":
        return {**made, **controls}

    def heard(explain: Any) -> Any:
        inspected = inspection.inspect(explain, inspection.DFT(), axis=1)
        return lambda x, y, **context: inspected(net.variables, x, target=y, **context).relevance

    def amplitude(control: Any) -> Any:
        return lambda x, y, **_: control(np.abs(np.fft.rfft(x, axis=1)).astype(np.float32))

    return {n: heard(e) for n, e in made.items()} | {n: amplitude(c) for n, c in controls.items()}


def run(name: str, seed: int, made: dict[str, Any], quick: bool) -> tuple[list[Row], dict, Any]:
    """All scores of one benchmark and seed, shares of samples, and what a figure needs."""
    case = CASES[name]
    number = 1000 if quick else 4000
    train, test = case.make(number, 2 * seed), case.make(256, 2 * seed + 1)
    net = truth.train(train, jax.random.key(seed), steps=QUICK[name] if quick else None)
    kept, shares = truth.keep(net, test)
    kept = kept.select(slice(0, KEPT))
    found = truth.attribute(explainers(name, made, net), kept, net)
    pools = truth.SIX_POOLS[1:2] if quick else truth.SIX_POOLS
    scores = truth.score(found, kept, pools=pools)
    rows = [r for m, e in scores.items() for r in rows_of(name, seed, "network", m, e)]
    rows += rows_of(name, seed, "network", "lift", truth.lift(scores, kept))

    both = (kept.truth, "other")
    wrong = truth.attribute(explainers(name, made, net), kept.wrong, net)
    failures = [
        ("wrong question", wrong, kept),
        ("other masks", found, truth.shuffled(kept, seed)),
    ]
    for i in range(1 if quick else RANDOM):
        random = truth.untrained(kept, jax.random.key(1000 + RANDOM * seed + i))
        got = truth.attribute(explainers(name, made, random), kept, random)
        failures.append(("random weights", got, kept))
    for failure, attributions, samples in failures:
        failed = truth.lift(truth.score(attributions, samples, masks=both, pools=pools), samples)
        rows += rows_of(name, seed, failure, "lift", failed)
    rows += further(name, seed, kept, net, found, made)
    return rows, shares, (kept, found)


def report(rows: list[Row], shares: dict, output: pathlib.Path, limit: float = FAILURE) -> int:
    """Prints and writes tables; the exit code."""
    with (output / "known_truth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
    failed, worst = failures(rows)
    parts = {"Mean lift of all methods and poolings, and of planted failures": failed}
    for kind in ("mass", "rank"):
        title = f"Lift of {kind}, from the least to the largest of six poolings"
        parts[title] = lifts(rows, "network", kind)
        title = f"Lift of {kind}, of pictures at {DIMMED}"
        parts[title] = lifts([r for r in rows if r.explained == DIMMED], DIMMED, kind)
    for name in dict.fromkeys(r.benchmark for r in rows):
        mask = CASES[name].make(4, 0).truth
        for kind in (
            "mass",
            "rank",
            "correlation",
            "single drops",
            "parts flipped",
            "contrastivity",
        ):
            parts[f"{name}, {mask}: {kind}"] = poolings(rows, name, mask, kind)
    logits = [[label, interval(v)] for (_, label), v in means(rows, mask="saturation").items()]
    parts["Falls of the logit without parts, and what the gradient predicts"] = markdown(
        [["", "logit"], *logits]
    )
    kept = [["", "samples kept", "right answers"]] + [
        [name, interval([s["kept"] for s in held]), interval([s["unchanged"] for s in held])]
        for name, held in shares.items()
    ]
    parts["Samples on which the network obeys"] = markdown(kept)
    filled = {title: table for title, table in parts.items() if table.count("\n") > 1}
    text = "\n\n".join(f"### {title}\n\n{table}" for title, table in filled.items())
    (output / "known_truth.md").write_text(text + "\n", encoding="utf-8")
    figure(rows).savefig(output / "known_truth.png", dpi=120)
    for title, table in filled.items():
        if title.startswith(("Mean lift", "Lift", "Falls", "Samples")):
            print(f"{title}\n{table}\n")
    obeys = min(np.mean([s["kept"] for s in held]) for held in shares.values())
    lifted = [
        r
        for r in rows
        if r.mask == "lift" and r.explained == (DIMMED if r.benchmark == "creatures" else "network")
    ]
    found = [v for (e, _), v in means(lifted).items() if e == "default"]
    good = worst <= limit and obeys >= 0.5
    good = good and (not found or min(map(np.mean, found)) > FAILURE)  # not if it is left out
    print(
        f"largest lift of a planted failure {worst:.3f}; smallest share of samples kept {obeys:.2f}"
    )
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument(
        "--quick", action="store_true", help="two benchmarks, few methods, one seed"
    )
    parser.add_argument("--only", nargs="+", choices=CASES, help="some of the benchmarks")
    parser.add_argument(
        "--methods", nargs="+", help='some of the methods, such as default "Grad-CAM"'
    )
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    names = list(QUICK) if arguments.quick else arguments.only or list(CASES)
    rows: list[Row] = []
    shares: dict[str, list[dict[str, float]]] = {}
    for name in names:
        start = time.process_time()
        made = methods(name, arguments.quick, arguments.methods)
        if not made:
            parser.error(f"--methods: {name} has none of {', '.join(arguments.methods)}")
        for seed in range(1 if arguments.quick else arguments.seeds):
            new, share, shown = run(name, seed, made, arguments.quick)
            rows += new
            shares.setdefault(name, []).append(share)
            print(f"{name}, seed {seed}: kept {share['kept']:.2f}", flush=True)
        if name in ("scenes", "creatures"):
            draw(*shown, arguments.output / f"known_truth_{name}.png")
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    # One seed and one pooling: the standard error of a mean lift is about .04.
    return report(rows, shares, arguments.output, 3 * FAILURE if arguments.quick else FAILURE)


if __name__ == "__main__":
    raise SystemExit(main())
