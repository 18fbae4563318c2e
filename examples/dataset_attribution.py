"""Explains a folder of photos with EfficientNet-Lite0, onto disk, in a run that can be interrupted.

python examples/dataset_attribution.py                       scikit-image's photos
python examples/dataset_attribution.py --folder ~/photos     your own folder
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import jaxlrp as lrp
from jaxlrp import dataset, plot
from jaxlrp.pretrained import efficientnet_lite0

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def write_photos(folder: Path, names: Sequence[str]) -> None:
    """Writes scikit-image's photos, and a broken file."""
    for name in names:
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 the rest of it is missing")


def attribute(folder: Path, output: Path, limit: int | None = None) -> dataset.Summary:
    """Explains the two most likely classes of each photo."""
    net = efficientnet_lite0()
    explainer = lrp.explain(net.model.apply, lrp.composites.epsilon_gamma_box(*net.input_range))
    return dataset.attribute_dataset(
        explainer,
        folder,
        output,
        args=(net.variables,),
        preprocess=lambda image: net.preprocess(image)[0],
        target=dataset.Top(2),
        batch_size=2,
        limit=limit,
        store=dataset.StoreOptions(dtype="float16", dims=("height", "width", "channel")),
    )


def show(folder: Path, store: Path, path: Path) -> None:
    """Plots the first photos with the relevance of their two most likely classes."""
    net = efficientnet_lite0()
    opened = dataset.open_relevance(store)
    count = min(len(opened.ids), 5)
    images = []
    for name in opened.ids[:count]:
        with Image.open(folder / str(name)) as image:
            inputs = net.preprocess(np.asarray(image.convert("RGB")))
        images.append(net.to_image(inputs)[0])
    maps = opened.relevance[:count].astype(np.float32).sum(-1)
    figure = plot.grid(
        {
            f"class {rank + 1}": plot.normalize(maps[:, rank], axis=(-2, -1), percentile=99)
            for rank in range(2)
        },
        images=images,
        overlay=True,
    )
    figure.savefig(path, dpi=120, bbox_inches="tight")
    for name, classes in zip(opened.ids[:count], opened["target"][:count], strict=True):
        print(f"{name}: {', '.join(net.labels[c] for c in classes)}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="photos; scikit-image's by default")
    parser.add_argument(
        "--output", type=Path, default=Path("."), help="folder for the store and the figure"
    )
    parser.add_argument("--quick", action="store_true", help="two photos")
    options = parser.parse_args(argv)
    names = PHOTOS[2:4] if options.quick else PHOTOS
    store = options.output / "relevance.zarr"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.folder is None:
            write_photos(folder, names)
        if not options.quick:
            attribute(folder, store, limit=2)  # as if interrupted: the next run resumes
        print(attribute(folder, store))
        assert dataset.verify(store).ok
        show(folder, store, options.output / "dataset_attribution.png")


if __name__ == "__main__":
    main()
