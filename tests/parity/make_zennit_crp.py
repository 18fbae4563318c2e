"""Freeze what zennit-crp computes for the conditions of `formula.py` into `zennit_crp.npz`.

Run `python tests/parity/make_zennit_crp.py` where torch, torchvision, zennit 0.5.1 and zennit-crp 0.6.0
are installed (`pip install torch torchvision "zennit<1" && pip install --no-deps zennit-crp==0.6.0`). The
library is used as a program: nothing of its code is here.

Keys, all float64 and in PyTorch's axis order, for the composite EpsilonPlus and the targets of `formula`:

- `{network}/{in_place|cut}/heatmaps`: (conditions, 2, 8, 6), summed over channels; `cut` is what
  zennit-crp calls `exclude_parallel`. Without a condition on a layer the two are the same.
- `{network}/{layer}/sum`, `.../max`: (2, channels), the normalized relevance of each channel by which
  samples are ranked, summed over pixels and at the pixel where it is largest; `.../pixel`: that pixel.
"""

from pathlib import Path

import numpy as np
import torch
from crp.attribution import CondAttribution
from crp.concepts import ChannelConcept
from make_zennit import build, short_name
from zennit import composites

import formula

OUTPUT = Path(__file__).parent / "zennit_crp.npz"


def heatmaps(name: str, cut: bool) -> np.ndarray:
    """The heat map of each sample under each condition."""
    network = build(name)
    paths = {short_name(path): path for path, _ in network.named_modules()}
    attribute = CondAttribution(network)
    found = []
    for condition in formula.CONDITIONS[name]:
        layers = {paths[layer]: list(channels) for layer, channels in condition.items()}
        rows = []
        for image, target in zip(formula.inputs(name), formula.TARGETS, strict=True):
            x = torch.from_numpy(image[None].copy()).requires_grad_()
            result = attribute(
                x, [{"y": [target], **layers}], composites.EpsilonPlus(), exclude_parallel=cut
            )
            rows.append(result.heatmap[0].numpy())
        found.append(np.stack(rows))
    return np.stack(found)


def channel_relevance(name: str) -> dict[str, np.ndarray]:
    """By which relevance samples are ranked for each channel of the conditioned layers."""
    network = build(name)
    paths = {short_name(path): path for path, _ in network.named_modules()}
    layers = sorted({layer for condition in formula.CONDITIONS[name] for layer in condition})
    x = torch.from_numpy(formula.inputs(name)).requires_grad_()
    conditions = [{"y": [target]} for target in formula.TARGETS]
    result = CondAttribution(network)(
        x, conditions, composites.EpsilonPlus(), record_layer=[paths[layer] for layer in layers]
    )
    concept, found = ChannelConcept(), {}
    for layer in layers:
        relevance = result.relevances[paths[layer]].detach()
        for kind in ("sum", "max"):
            order, sorted_relevance, pixel = concept.reference_sampling(relevance, max_target=kind)
            back = torch.argsort(order, dim=0)
            found[f"{name}/{layer}/{kind}"] = torch.gather(sorted_relevance, 0, back).numpy()
            found[f"{name}/{layer}/pixel"] = torch.gather(pixel, 0, back).numpy()
    return found


if __name__ == "__main__":
    frozen = {}
    for name in formula.CONDITIONS:
        for kind, cut in (("in_place", False), ("cut", True)):
            frozen[f"{name}/{kind}/heatmaps"] = heatmaps(name, cut)
        frozen |= channel_relevance(name)
    np.savez_compressed(OUTPUT, **frozen)
