"""Finds again the frequencies that a network listens to, in signals where all are equally loud.

    python examples/frequencies.py [--output DIR] [--quick]

Each signal is a sum of 10 to 49 sinusoids of unit amplitude and random phase, with frequencies out of
1 ... 63 cycles per 512 samples. A dense network says which of 5, 16, 32 and 53 are among them: 16
classes. In time nothing can be seen, and the amplitude spectrum does not tell what matters from
what does not; the relevance of the frequencies does. The signals are made on the spot; the task is
that of Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309.

Ends with exit code 1 if the network is not accurate or its frequencies are not found.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxlrp import Gamma, composites, inspection, plot, targets

LENGTH = 512  # samples
HIGHEST = 63  # cycles per signal
DETECTED = np.array([5, 16, 32, 53])
OTHERS = np.setdiff1d(np.arange(1, HIGHEST + 1), DETECTED)

ANGLES = 2 * np.pi * np.outer(np.arange(HIGHEST + 1), np.arange(LENGTH)) / LENGTH
SINES, COSINES = np.sin(ANGLES).astype(np.float32), np.cos(ANGLES).astype(np.float32)

COMPOSITES = {
    "relevance, epsilon": composites.all_epsilon(),
    "relevance, gamma": composites.by_kind("dense", Gamma(0.25)),
}
OURS = "relevance, epsilon"


class MLP(nn.Module):
    """512 - 1024 - 1024 - 16."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features in (1024, 1024):
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(2 ** len(DETECTED))(x)


def signals(key: Array, n: int) -> tuple[Array, Array, Array]:
    """(signals (n, 512), classes (n,), which frequencies they hold (n, 64))."""
    of_class, of_count, of_others, of_phase = jax.random.split(key, 4)
    y = jax.random.randint(of_class, (n,), 0, 2 ** len(DETECTED))
    detected = (y[:, None] >> jnp.arange(len(DETECTED))) & 1
    count = jax.random.randint(of_count, (n, 1), 10, 50) - detected.sum(1, keepdims=True)
    order = jax.random.uniform(of_others, (n, len(OTHERS))).argsort(axis=1)
    others = order.argsort(axis=1) < count
    held = jnp.zeros((n, HIGHEST + 1), bool).at[:, DETECTED].set(detected == 1)
    held = held.at[:, OTHERS].set(others)
    phase = jax.random.uniform(of_phase, held.shape, maxval=2 * np.pi)
    x = (held * jnp.cos(phase)) @ SINES + (held * jnp.sin(phase)) @ COSINES
    return x, y, held


def train(model: MLP, steps: int, size: int = 256) -> dict:
    """Trains on signals that are new in each step."""
    variables = model.init(jax.random.key(0), jnp.zeros((1, LENGTH)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))

    def loss(variables, x, y):
        logits = model.apply(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(variables, state, key):
        x, y, _ = signals(key, size)
        updates, state = optimizer.update(jax.grad(loss)(variables, x, y), state)
        return optax.apply_updates(variables, updates), state

    state = optimizer.init(variables)
    for key in jax.random.split(jax.random.key(1), steps):
        variables, state = step(variables, state, key)
    return variables


def measure(score: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """(share of the positive score on the wanted bins, share of wanted bins among the top ones).

    As many top bins are taken as are wanted; signals of which none is wanted are left out.
    """
    some = wanted.any(axis=1)
    score, wanted = score[some], wanted[some]
    positive = np.maximum(score, 0)
    share = (positive * wanted).sum(axis=1) / positive.sum(axis=1)
    place = (-score).argsort(axis=1).argsort(axis=1)
    count = wanted.sum(axis=1)
    precision = (wanted & (place < count[:, None])).sum(axis=1) / count
    return float(share.mean()), float(precision.mean())


def picture(x: np.ndarray, found: inspection.Inspection, wanted: np.ndarray) -> Figure:
    """One signal and its spectrum, with the relevance of each; `found` is of this signal alone."""
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    above, below = figure.subplots(2)
    plot.signal(found.explanation.relevance, x, ax=above, title="signal, with relevance in time")
    bins = slice(0, HIGHEST + 2)
    amplitude = np.abs(found.coefficients) * 2 / LENGTH
    plot.spectrum(found.relevance[bins], amplitude[bins], ax=below)
    below.set_title("its spectrum, with relevance of frequencies")
    below.set_xlabel("frequency (cycles per 512 samples)")
    below.set_ylim(0, 1.3)
    (present,) = np.nonzero(wanted)
    below.plot(present, np.full(len(present), 1.1), "kv", label="present and to be detected")
    absent = np.setdiff1d(DETECTED, present)
    below.plot(absent, np.full(len(absent), 1.1), "v", color="k", mfc="w", label="absent")
    below.legend(loc="upper right", ncols=2, frameon=False, borderaxespad=0)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="train for fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    model = MLP()
    variables = train(model, 300 if arguments.quick else 3000)
    x, y, held = signals(jax.random.key(2), 500 if arguments.quick else 2000)
    wanted = np.zeros((len(x), LENGTH // 2 + 1), bool)
    wanted[:, DETECTED] = held[:, DETECTED]

    results = {}
    for name, composite in COMPOSITES.items():
        explain = inspection.inspect(model.apply, inspection.DFT(), composite, axis=1)
        run = jax.jit(lambda x, f=explain: f(variables, x, target=targets.predicted))
        results[name] = run(x)
    shown = results[OURS]
    scores = {name: np.asarray(found.relevance) for name, found in results.items()}
    scores["amplitude"] = np.abs(shown.coefficients)
    measured = {name: measure(score, wanted) for name, score in scores.items()}

    accuracy = float((shown.output.argmax(axis=-1) == y).mean())
    console.print(f"accuracy on {len(x)} new signals: {accuracy:.4f}")
    table = Table(title="Are the frequencies found that decide?")
    for column in ("score of a bin", "share of its positive part there", "precision of top bins"):
        table.add_column(column, justify="left" if column == "score of a bin" else "right")
    for name, (share, precision) in measured.items():
        table.add_row(name, f"{share:.3f}", f"{precision:.3f}")
    console.print(table)

    one = int(np.flatnonzero(wanted.sum(1) == 2)[0])
    path = arguments.output / "frequencies.png"
    of_one = jax.tree.map(lambda a: np.asarray(a[one]), shown)
    picture(np.asarray(x[one]), of_one, wanted[one]).savefig(path, dpi=120)
    console.print(f"picture: {path}")

    share, precision = measured[OURS]
    least = (0.95, 0.70, 0.95) if arguments.quick else (0.98, 0.75, 0.99)
    if not all(a >= b for a, b in zip((accuracy, share, precision), least, strict=True)):
        console.print(f"FAILED: accuracy, share and precision must be at least {least}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
