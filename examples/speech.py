"""What does a speech detector detect? An LSTM on the raw waveform, in noise that is louder than speech.

    pip install --no-deps silero-vad==6.2.3
    apt-get install pocketsphinx-testdata
    python examples/speech.py [--data DIR] [--output DIR] [--quick]

Silero VAD predicts for every 32 ms whether someone speaks; it remembers the past only in the
state of an LSTM. Real speech (the recordings in that Debian package, or in DIR) is placed between two
seconds of louder noise, white or pink, and the logit of one frame is explained:

  begun   Seven frames into the speech. The noise before it is not evidence for speech: relevance should
          be in the speech, although it has less of the energy and of the time.
  middle  In the middle of the speech.
  over    Five frames after the speech, while the network still detects it: the evidence is only in
          the state. Removing the speech lowers this logit, so its relevance should be positive.

The last table shows how far back the state carries relevance. Writes a figure. Exits
with code 1 if the relevance is not in the speech.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import wave
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, tuning
from jaxlrp.pretrained import Pretrained, silero_vad

RATE = 16000
FRAME = 512
DATA = pathlib.Path("/usr/share/pocketsphinx/test/data")
RECORDINGS = ("librivox/*.wav", "cards/*.wav", "*.raw", "tidigits/*.raw")  # 16 bit, 16 kHz
NOISE, SPEECH = RATE, 3 * RATE // 2  # samples: before and after, and at most
LOUD, LOUDER = 0.05, 1.5  # root mean square of speech; of noise relative to speech
BEGUN, OVER = 6, 5  # frames
LAGS = (0, 1, 2, 4, 8, 16, 32, 64)

# The spectrum is a filter bank on a signed waveform; gradient x input gives its contributions.
# The epsilon in units of the root mean square was chosen by defaults.py on several networks. This one, with
# seven of these recordings, is one of them.
FILTERS = composites.by_path("stft", lrp.LRP0())
METHODS = {
    "LRP-all": FILTERS + composites.recommended("recurrent"),
    "LRP-all, epsilon 1e-6": FILTERS + composites.recurrent(epsilon=1e-6),
    "LRP-half": FILTERS + composites.recurrent("half", epsilon=tuning.relative(0.1)),
}
OURS, GRADIENT = "LRP-all", "gradient x input"


class Scenes(NamedTuple):
    """Speech between noises.

    Attributes:
      sound: (N, T), float32.
      is_speech: (N, T), bool.
      logits: of each frame, (N, T / 512).
      first, last: the frames that contain the start and the end of the speech, (N,).
    """

    sound: np.ndarray
    is_speech: np.ndarray
    logits: np.ndarray
    first: np.ndarray
    last: np.ndarray


def read(path: pathlib.Path) -> np.ndarray:
    """The recording without surrounding silence, at most 1.5 s, with the same loudness as all others."""
    if path.suffix == ".wav":
        with wave.open(str(path)) as file:
            raw = file.readframes(file.getnframes())
    else:
        raw = path.read_bytes()
    sound = np.frombuffer(raw, "<i2").astype(np.float64)
    loudness = sound[: sound.size // 160 * 160].reshape(-1, 160).std(axis=1)  # every 10 ms
    (heard,) = np.nonzero(loudness > 0.1 * np.percentile(loudness, 95))
    sound = sound[heard[0] * 160 : (heard[-1] + 1) * 160][:SPEECH]
    return LOUD * sound / sound.std()


def noise(rng: np.random.Generator, size: int, pink: bool) -> np.ndarray:
    white = np.fft.rfft(rng.normal(size=size))
    falling = np.sqrt(np.maximum(np.arange(white.size), 20)) if pink else 1.0
    sound = np.fft.irfft(white / falling, size)
    return LOUDER * LOUD * sound / sound.std()


def scenes(net: Pretrained, speech: list[np.ndarray], kind: str) -> Scenes:
    """Each recording between two sounds: "silence", "white" or "pink"."""
    rng, size = np.random.default_rng(0), 2 * NOISE + SPEECH
    sound, is_speech = np.zeros((len(speech), size)), np.zeros((len(speech), size), bool)
    for row, mark, spoken in zip(sound, is_speech, speech, strict=True):
        if kind != "silence":
            row[:] = noise(rng, size, kind == "pink")
        mark[NOISE : NOISE + spoken.size] = True
        row[mark] = spoken
    sound = net.preprocess(sound)
    is_speech = np.pad(is_speech, ((0, 0), (0, sound.shape[1] - size)))
    of_frame = is_speech.reshape(len(speech), -1, FRAME).any(axis=2)
    last = of_frame.shape[1] - 1 - of_frame[:, ::-1].argmax(axis=1)
    logits = np.asarray(jax.jit(net.model.apply)(net.variables, sound))
    return Scenes(sound, is_speech, logits, of_frame.argmax(axis=1), last)


def joined(parts: list[Scenes]) -> Scenes:
    return Scenes(*map(np.concatenate, zip(*parts, strict=True)))


def explainers(net: Pretrained) -> dict:
    """(sounds, frames one-hot) -> relevance of each sample, compiled once for all targets."""

    def compiled(explain):
        return jax.jit(
            lambda sound, at: explain(net.variables, sound, target=lambda z: z * at).relevance
        )

    apply = net.model.apply
    found = {name: compiled(lrp.explain(apply, c, argnums=1)) for name, c in METHODS.items()}
    return found | {GRADIENT: compiled(baselines.input_x_gradient(apply, argnums=1))}


def mean_share(amount: np.ndarray, inside: np.ndarray) -> float:
    """The share of an amount >= 0 that is inside, averaged over scenes."""
    total = amount.sum(axis=1)
    return float(np.mean((amount * inside).sum(axis=1) / np.maximum(total, 1e-30)))


def compare(given: Scenes, frames: np.ndarray, relevance: dict[str, np.ndarray]) -> Table:
    """Table of shares of the sound up to the frame."""
    at = np.arange(given.sound.shape[1])
    heard = at < (frames[:, None] + 1) * FRAME
    table = Table("", "in speech", "of positive", "speech is positive")
    for name, amount in (("time", heard * 1.0), ("energy", heard * given.sound**2)):
        table.add_row(name, f"{mean_share(amount, given.is_speech):.3f}", "", "")
    for name, r in relevance.items():
        net_positive = ((r * given.is_speech).sum(axis=1) > 0).sum()
        table.add_row(
            name,
            f"{mean_share(np.abs(r), given.is_speech):.3f}",
            f"{mean_share(np.maximum(r, 0), given.is_speech):.3f}",
            f"{net_positive} of {len(r)}",
        )
    return table


def by_lag(frames: np.ndarray, relevance: dict[str, np.ndarray]) -> Table:
    """Share of |relevance| by its number of frames before the explained one."""
    spans = list(itertools.pairwise(LAGS))
    table = Table("frames before", *(f"{a}" if b == a + 1 else f"{a} - {b - 1}" for a, b in spans))
    for name, r in relevance.items():
        size = np.abs(r).reshape(len(r), -1, FRAME).sum(axis=2)
        lag = frames[:, None] - np.arange(size.shape[1])
        shares = [mean_share(size, (lag >= a) & (lag < b)) for a, b in spans]
        table.add_row(name, *(f"{share:.3f}" for share in shares))
    return table


def occluded(net: Pretrained, given: Scenes, frames: np.ndarray) -> str:
    """The drop of the logits without the speech, and without the noise before it."""
    heard, rows = jax.jit(net.model.apply), np.arange(len(frames))
    before = np.arange(given.sound.shape[1]) < NOISE
    falls = [
        given.logits[rows, frames]
        - np.asarray(heard(net.variables, np.where(silent, 0, given.sound)))[rows, frames]
        for silent in (given.is_speech, np.broadcast_to(before, given.sound.shape))
    ]
    ranges = [f"{fall.mean():.1f} ({fall.min():.1f} to {fall.max():.1f})" for fall in falls]
    return f"the logit falls by {ranges[0]} without the speech, by {ranges[1]} without the noise before it"


def draw(given: Scenes, shown: dict[str, tuple[int, dict[str, np.ndarray]]], path) -> None:
    """Draws a scene: its waveform and logit, and the relevance of frames for each target and method."""
    rows = 1 + sum(len(found) for _, found in shown.values())
    figure = Figure(figsize=(10, 1.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True)
    seconds = np.arange(given.sound.shape[1]) / RATE
    middles = (np.arange(given.logits.shape[1]) + 0.5) * FRAME / RATE
    (spoken,) = np.nonzero(given.is_speech[0])
    axes[0].plot(seconds, given.sound[0], color="0.6", linewidth=0.3)
    axes[0].set_title("sound (gray) and logit of speech", loc="left", fontsize=9)
    right = axes[0].twinx()
    right.plot(middles, given.logits[0], color="tab:blue")
    right.axhline(0, color="tab:blue", linewidth=0.5)
    lines = iter(axes[1:])
    for target, (frame, found) in shown.items():
        for name, relevance in found.items():
            ax = next(lines)
            r = relevance.reshape(-1, FRAME).sum(axis=1)
            r = r / np.abs(r).max()
            ax.bar(middles, r, FRAME / RATE, color=np.where(r > 0, "tab:red", "tab:blue"))
            ax.axvline(middles[frame], color="black", linestyle=":")
            ax.set_title(f"{target} (dotted): relevance, {name}", loc="left", fontsize=9)
            ax.set_ylim(-1.1, 1.1)
    for ax in axes:
        ax.axvspan(spoken[0] / RATE, spoken[-1] / RATE, color="lightyellow", linewidth=0, zorder=0)
    axes[-1].set_xlabel(
        "seconds; speech is yellow, louder noise around it; each row is scaled by its maximum"
    )
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="recordings of speech")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="fewer recordings, one noise")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    paths = [path for pattern in RECORDINGS for path in sorted(arguments.data.glob(pattern))]
    if not paths:
        console.print(
            f"no speech in {arguments.data}: apt-get install pocketsphinx-testdata, or pass another "
            "folder with --data"
        )
        return 2
    speech = [read(path) for path in (paths[2:8:2] if arguments.quick else paths)]
    net, kinds = silero_vad(), ("pink",) if arguments.quick else ("pink", "white")
    noisy = joined([scenes(net, speech, kind) for kind in kinds])
    quiet = scenes(net, speech, "silence")
    explain = explainers(net)
    frames_of = {
        "begun": noisy.first + BEGUN,
        "middle": (noisy.first + noisy.last) // 2,
        "over": noisy.last + OVER,
    }

    shown, failed, rows = {}, False, np.arange(len(noisy.sound))
    for target, frames in frames_of.items():
        said = noisy.logits[rows, frames] > 0
        given, frames = Scenes(*(part[said] for part in noisy)), frames[said]
        at = np.zeros_like(given.logits)
        at[np.arange(len(frames)), frames] = 1
        # All scenes are explained, so that nothing is compiled twice.
        every = np.zeros_like(noisy.logits)
        every[said] = at
        found = {name: np.asarray(f(noisy.sound, every))[said] for name, f in explain.items()}
        console.print(
            f"\n[bold]{target}[/]: speech is detected in {len(frames)} of {len(said)} scenes"
        )
        console.print(occluded(net, given, frames))
        console.print(compare(given, frames, found))
        if target == "middle":
            console.print("\n|relevance| by lag in this case:")
            console.print(by_lag(frames, found))
        if target != "begun" and said[0]:
            shown[target] = (frames[0], {name: found[name][0] for name in (OURS, GRADIENT)})
        ours, gradient = (
            mean_share(np.abs(found[name]), given.is_speech) for name in (OURS, GRADIENT)
        )
        positive = ((found[OURS] * given.is_speech).sum(axis=1) > 0).all()
        failed |= not positive or (target != "over" and (ours < 0.95 or ours < gradient))

    middle = (quiet.first + quiet.last) // 2
    at = np.eye(quiet.logits.shape[1], dtype=np.float32)[middle]
    silent = mean_share(np.abs(np.asarray(explain[OURS](quiet.sound, at))), quiet.is_speech)
    console.print(
        f"\nwith digital silence around: {silent:.3f} of |relevance| in the speech ({OURS})"
    )
    path = arguments.output / "speech.png"
    draw(noisy, shown, path)
    console.print(f"figure: {path}")
    if failed:
        console.print(
            "FAILED: .95 of |relevance| must be in the speech while it lasts, more than for gradient x "
            "input, and the speech must have positive relevance in every scene"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
