"""Freezes what Silero VAD hears in PyTorch: writes silero.npz beside itself.

Needs torch, numpy and, without its dependencies, silero-vad: pip install --no-deps silero-vad==6.2.3

The network is the archive that `silero_vad.load_silero_vad()` loads, called as its users do: one
frame after the other. It imports nothing of jaxlrp.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])


def sounds(rate: int) -> np.ndarray:
    """A buzz whose formants move, alone, in noise, and noise alone: (3, 12 frames), float32.

    A source of pulses at 120 Hz with resonances like those of a mouth is speech enough for the
    network to be sure of it for some frames.
    """
    rng = np.random.default_rng(0)
    size = 12 * rate * 32 // 1000
    t = np.arange(size) / rate
    voice = np.zeros(size)
    for harmonic in range(1, 25):
        frequency = 120 * harmonic * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))
        first, second = (
            600 + 200 * np.sin(2 * np.pi * 4 * t),
            1500 + 400 * np.cos(2 * np.pi * 3 * t),
        )
        loud = np.exp(-(((frequency - first) / 150) ** 2)) + 0.5 * np.exp(
            -(((frequency - second) / 200) ** 2)
        )
        voice += (loud + 0.05) * np.sin(2 * np.pi * np.cumsum(frequency) / rate)
    voice *= 0.1 * (np.sin(2 * np.pi * 4 * t) > -0.5)
    noise = rng.normal(scale=0.02, size=size)
    return np.stack([voice, voice + noise, noise]).astype(np.float32)


def hear(network: torch.nn.Module, sounds: np.ndarray, rate: int) -> np.ndarray:
    """Probabilities of speech, (N, frames), float64 of float32."""
    size = rate * 32 // 1000
    found = []
    for sound in sounds:
        network.reset_states()
        with torch.no_grad():
            found.append([
                network(torch.from_numpy(sound[i : i + size]), rate).item()
                for i in range(0, len(sound), size)
            ])  # fmt: skip
    return np.array(found)


def main() -> None:
    """Writes sounds, float32, and probabilities, float64, for each sample rate."""
    network = torch.jit.load(FOLDER / "data" / "silero_vad.jit").eval()
    found = {}
    for rate in (16000, 8000):
        found[f"sounds_{rate}"] = sounds(rate)
        found[f"speech_{rate}"] = hear(network, sounds(rate), rate)
        print(found[f"speech_{rate}"].round(3))
    np.savez_compressed(Path(__file__).with_name("silero.npz"), **found)


if __name__ == "__main__":
    main()
