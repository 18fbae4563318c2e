"""EfficientNet-Lite0 over a folder of photographs: relevances on disk, in a run that can be interrupted.

python examples/dataset_attribution.py                       scikit-image's photographs
python examples/dataset_attribution.py --folder ~/photos     a folder of yours
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

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def write_photographs(folder: Path, names: Sequence[str]) -> None:
    """Writes scikit-image's photographs, and a file that only seems to be one."""
    for name in names:
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 the rest of it is missing")


def attribute(folder: Path, out: Path, limit: int | None = None) -> dataset.Summary:
    """Explains the predicted class of each photograph, and the next likely one."""
    net = efficientnet_lite0()
    explain = lrp.explain(net.model.apply, lrp.composites.epsilon_gamma_box(*net.bounds))
    return dataset.attribute_dataset(
        explain,
        folder,
        out,
        args=(net.variables,),
        prepare=lambda image: net.preprocess(image)[0],
        target=dataset.Top(2),
        batch_size=2,
        dtype="float16",
        dims=("height", "width", "channel"),
        limit=limit,
    )


def show(folder: Path, out: Path, path: Path) -> None:
    """Draws the first photographs with the relevance of their two likeliest classes."""
    net = efficientnet_lite0()
    opened = dataset.open_relevance(out)
    count = min(len(opened.ids), 5)
    pictures = []
    for name in opened.ids[:count]:
        with Image.open(folder / str(name)) as image:
            inputs = net.preprocess(np.asarray(image.convert("RGB")))
        pictures.append(net.to_picture(inputs)[0])
    maps = opened.relevance[:count].astype(np.float32).sum(-1)
    figure = plot.grid(
        {
            f"class {rank + 1}": plot.normalize(maps[:, rank], axis=(-2, -1), percentile=99)
            for rank in range(2)
        },
        images=pictures,
        overlay=True,
    )
    figure.savefig(path, dpi=120, bbox_inches="tight")
    for name, classes in zip(opened.ids[:count], opened["target"][:count], strict=True):
        print(f"{name}: {', '.join(net.class_names[c] for c in classes)}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="photographs; scikit-image's by default")
    parser.add_argument(
        "--output", type=Path, default=Path("."), help="for the store and the picture"
    )
    parser.add_argument("--quick", action="store_true", help="two photographs")
    options = parser.parse_args(argv)
    names = PHOTOGRAPHS[2:4] if options.quick else PHOTOGRAPHS
    out = options.output / "relevance.zarr"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.folder is None:
            write_photographs(folder, names)
        if not options.quick:
            attribute(folder, out, limit=2)  # as if it were interrupted: the next run goes on
        print(attribute(folder, out))
        assert dataset.verify(out).ok
        show(folder, out, options.output / "dataset_attribution.png")


if __name__ == "__main__":
    main()
