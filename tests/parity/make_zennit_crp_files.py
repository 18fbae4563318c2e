"""Freeze the files that zennit-crp writes for 60 images into `zennit_crp_files.npz`.

Run `python tests/parity/make_zennit_crp_files.py` where torch, torchvision, zennit 0.5.1 and zennit-crp
0.6.0 are installed; see `make_zennit_crp.py`. The library is used as a program: nothing of its code is
here.

Keys are the paths of the files, with the name of a layer in `formula` in place of that in PyTorch: for the
composite EpsilonPlus and the network "vgg", the reference samples of each channel and of each (channel,
class), by relevance and by activation: summed and normalized, and at the largest pixel and not normalized.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from crp.attribution import CondAttribution
from crp.concepts import ChannelConcept
from crp.visualization import FeatureVisualization
from make_zennit import build, short_name
from zennit import composites

import formula

OUTPUT = Path(__file__).parent / "zennit_crp_files.npz"
NETWORK, LAYERS = "vgg", ("conv2", "conv4")


class Images(torch.utils.data.Dataset):
    """Images and their classes."""

    def __init__(self) -> None:
        self.images, self.classes = formula.data_set()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.images[i]), int(self.classes[i])


def files() -> dict[str, np.ndarray]:
    network = build(NETWORK)
    names = {
        path: short_name(path) for path, _ in network.named_modules() if short_name(path) in LAYERS
    }
    found = {}
    for kind, normalized in (("sum", True), ("max", False)):
        with tempfile.TemporaryDirectory() as folder:
            concepts = {path: ChannelConcept() for path in names}
            run = FeatureVisualization(
                CondAttribution(network), Images(), concepts, max_target=kind,
                abs_norm=normalized, path=folder,
            )  # fmt: skip
            run.run(composites.EpsilonPlus(), 0, len(Images()), batch_size=16, checkpoint=2)
            for path in sorted(Path(folder).glob("**/*.npy")):
                key = str(path.relative_to(folder))
                for layer, name in names.items():
                    key = key.replace(f"/{layer}/", f"/{name}/").replace(f"/{layer}_", f"/{name}_")
                found[key] = np.load(path)
    return found


if __name__ == "__main__":
    np.savez_compressed(OUTPUT, **files())
