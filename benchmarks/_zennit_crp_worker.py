"""zennit-crp's side of `concepts.py`: runs in a Python that has torch and zennit-crp, and no JAX.

python _zennit_crp_worker.py case.npz result.npz

Reads what `_zennit_worker.py` reads, and in "config" the name of a layer and the number of conditions,
each on one of its channels. Writes seconds and heat maps (conditions, height, width) of the first image.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from _zennit_worker import MODELS, composite_of, load, seconds

from crp.attribution import CondAttribution  # isort: skip


def run(source: str, destination: str) -> None:
    with np.load(source) as file:
        arrays = dict(file)
    config = json.loads(str(arrays.pop("config")))
    torch.set_num_threads(config["threads"])
    x = torch.from_numpy(np.ascontiguousarray(arrays.pop("x")[:1].transpose(0, 3, 1, 2)))
    target = int(arrays.pop("target")[0])
    kind = config["model"].pop("type")
    model = MODELS[kind](x.shape[2], **config["model"]).eval()
    load(model, arrays)
    attribute = CondAttribution(model)
    conditions = [{"y": [target], config["layer"]: [i]} for i in range(config["conditions"])]

    def call() -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        composite = composite_of("epsilon_plus", leaf, 0.0, 0.0)
        return attribute(leaf, conditions, composite, exclude_parallel=False).heatmap

    times, heatmaps = seconds(call, config["repeats"])
    np.savez(destination, seconds=times, heatmaps=heatmaps.numpy())


if __name__ == "__main__":
    run(*sys.argv[1:])
