"""Which concepts does a text detector use, and how much do they read beside the text?

    pip install "onnx>=1.17" onnxruntime && pip install --no-deps rapidocr-onnxruntime==1.4.4
    python examples/detector.py [--output DIR] [--quick]

The detector of PP-OCRv4 (rapidocr-onnxruntime, Apache-2.0) gives each pixel a score of being text. It is
read from its ONNX file (`jaxlrp.onnx`), and its map must equal that of onnxruntime to 1e-4. 24 pictures are
drawn on the spot: a word on a background, plain, striped, noisy or a photograph of scikit-image, with the
exact box of the word. The detection of the word is explained (`targets.Segmentation` with the box); the
concepts are the channels of three layers: two of the backbone, at a quarter and at a 32nd of the size of
the picture, and one of the head.

  1. `concepts.scores`: how many channels make up half of the relevance?
  2. `concepts.context` (L-CRP): how much of a channel's relevance lies outside of the box of the word? With
     `signed=True`, two passes for all channels; the mean over channels is weighted by their relevance.
     Control: the box of the next picture, which the explained word does not fill.
  3. If the surroundings are replaced by gray, does the relevance of a channel change more, the larger its
     context score is? Spearman's rank correlation over all channels that carry at least a thousandth of the
     relevance, and the same with the scores of the control.

What came out: 20 of 24 words are found, and of the relevance of their channels .04 to .06 lies outside of
the box (control .68 to .71). The third check shows nothing: the correlations are -.01, .07 and .03, and
.18, .13 and .02 for the control. With so little context there is not much that could change.

Writes a figure. Exits with code 1 if the maps differ by more than 1e-4, or if the context of the box is not
below that of the control. --quick takes four pictures and one layer. Without the packages above it says so
and exits with code 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import pathlib

# Hundreds of operators, run a few times: compile fast. Must be set before JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import skimage.data
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

import jaxlrp as lrp
from jaxlrp import composites, concepts, plot

PACKAGES = ("onnx", "onnxruntime", "rapidocr_onnxruntime")
SCORE = "p2o.Add.281"  # before the sigmoid
LAYERS = {"p2o.Conv.33": "1/4", "p2o.Conv.36": "1/32", "p2o.Relu.10/relu": "1/4, head"}
HEIGHT, WIDTH = 64, 160  # multiples of 32
WORDS = (
    "coffee", "EXIT", "Berlin", "42 km", "open", "Library", "hello", "TAXI", "menu", "north", "Stop", "b6",
)  # fmt: skip
FONTS = ("DejaVuSans", "DejaVuSerif-Bold", "DejaVuSansMono", "DejaVuSans-BoldOblique")
LEAST = 1e-3  # the share of relevance from which on a channel counts


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures (N, 64, 160, 3), uint8; the box of the word, (N, 64, 160), bool."""

    pixels: np.ndarray
    inside: np.ndarray

    @property
    def x(self) -> np.ndarray:
        """What the network takes: (N, 3, 64, 160), BGR, in [-1, 1]."""
        return (self.pixels[..., ::-1] / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)

    @property
    def mask(self) -> np.ndarray:
        """The box in the layout of the network's input."""
        return np.repeat(self.inside[:, None], 3, axis=1)

    def without_context(self) -> Pictures:
        """The same words on gray."""
        return Pictures(
            np.where(self.inside[..., None], self.pixels, 127).astype(np.uint8), self.inside
        )


def background(kind: int, rng: np.random.Generator) -> np.ndarray:
    """(64, 160, 3), uint8: plain, striped, noisy, or a part of a photograph."""
    color = rng.integers(60, 256, 3)
    plain = np.broadcast_to(color, (HEIGHT, WIDTH, 3)).astype(float)
    if kind == 1:
        stripes = np.sin(np.arange(WIDTH) * rng.uniform(0.15, 0.6))[None, :, None]
        plain = plain + 40 * stripes
    elif kind == 2:
        plain = plain + rng.normal(0, 25, plain.shape)
    elif kind == 3:
        photograph = getattr(skimage.data, rng.choice(["coffee", "chelsea", "astronaut"]))()
        top, left = (
            rng.integers(0, n - m)
            for n, m in zip(photograph.shape, (2 * HEIGHT, 2 * WIDTH), strict=False)
        )
        part = photograph[top : top + 2 * HEIGHT, left : left + 2 * WIDTH]
        plain = np.asarray(Image.fromarray(part).resize((WIDTH, HEIGHT)), float)
    return np.clip(plain, 0, 255).astype(np.uint8)


def draw(n: int) -> Pictures:
    """A word on each background."""
    rng = np.random.default_rng(0)
    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pixels, boxes = [], []
    for i in range(n):
        picture = Image.fromarray(background(i % 4, rng))
        font = ImageFont.truetype(
            str(folder / f"{FONTS[i % len(FONTS)]}.ttf"), int(rng.integers(16, 27))
        )
        word = WORDS[i % len(WORDS)]
        left, top, right, bottom = font.getbbox(word)
        x = int(rng.integers(4 - left, WIDTH - 4 - right))
        y = int(rng.integers(4 - top, HEIGHT - 4 - bottom))
        dark = np.asarray(picture).mean() > 128
        ImageDraw.Draw(picture).text(
            (x, y), word, font=font, fill=(10, 10, 30) if dark else (250, 250, 230)
        )
        pixels.append(np.asarray(picture))
        boxes.append((y + top - 2, x + left - 2, y + bottom + 2, x + right + 2))
    return Pictures(np.stack(pixels), concepts.regions.boxes((HEIGHT, WIDTH), boxes))


def compare(path: str, x: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest difference to onnxruntime, and the map of the network, (N, 64, 160) in [0, 1]."""
    import onnxruntime

    from jaxlrp.onnx import convert

    run = onnxruntime.InferenceSession(path)
    (expected,) = run.run(None, {run.get_inputs()[0].name: x})
    found = np.asarray(jax.jit(convert(path))(x))
    return float(np.abs(found - expected).max()), found[:, 0]


def spread(scores: np.ndarray, relevance: np.ndarray) -> float:
    """The mean of context scores, weighted by the magnitudes of relevance."""
    weights = np.where(np.isfinite(scores), np.abs(relevance), 0)
    return float(np.sum(weights * np.nan_to_num(scores)) / weights.sum())


def half(share: np.ndarray) -> float:
    """The number of channels that make up half of the magnitude of relevance; mean over pictures."""
    ordered = np.sort(np.abs(share), axis=1)[:, ::-1]
    return float(
        (np.cumsum(ordered, axis=1) < 0.5 * ordered.sum(axis=1, keepdims=True)).sum(1).mean() + 1
    )


def correlation(context: np.ndarray, share: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of context scores with the relative change of relevance, over channels and pictures."""
    counts = (np.abs(share) > LEAST) & np.isfinite(context)
    change = np.abs(other - share) / np.maximum(np.abs(share), LEAST)
    return float(spearmanr(context[counts], change[counts]).statistic)


def figure_of(data: Pictures, maps: np.ndarray, relevance: np.ndarray) -> Figure:
    """Pictures with the box, what is detected, and the relevance of the word."""
    shown = min(len(maps), 8)
    figure = Figure(figsize=(7.5, 1.02 * shown), layout="constrained")
    axes = figure.subplots(shown, 3, squeeze=False)
    for i, line in enumerate(axes):
        line[0].imshow(data.pixels[i])
        rows, columns = np.nonzero(data.inside[i])
        corner, size = (columns.min(), rows.min()), (np.ptp(columns), np.ptp(rows))
        line[0].add_patch(Rectangle(corner, *size, fill=False, edgecolor="red"))
        line[1].imshow(maps[i], cmap="gray", vmin=0, vmax=1)
        plot.overlay(plot.normalize(relevance[i], percentile=99), data.pixels[i] / 255, ax=line[2])
        for ax in line:
            ax.set_axis_off()
    for ax, title in zip(
        axes[0], ("picture", "text detected", "relevance of the word"), strict=True
    ):
        ax.set_title(title, fontsize=9)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="four pictures, one layer")
    arguments = parser.parse_args()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"{', '.join(missing)} not installed: nothing to do. "
            + (__doc__ or "").split("\n")[2].strip()
        )
        return 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=110)

    from jaxlrp.onnx import convert

    package = importlib.util.find_spec("rapidocr_onnxruntime")
    assert package is not None
    assert package.submodule_search_locations
    (path,) = map(str, pathlib.Path(package.submodule_search_locations[0]).rglob("*det_infer.onnx"))
    data = draw(4 if arguments.quick else 24)
    difference, maps = compare(path, data.x)
    console.print(f"largest difference to onnxruntime {difference:.1e}, {len(maps)} pictures")
    hit = maps > 0.3
    console.print(
        f"text found in {int((hit & data.inside).any(axis=(1, 2)).sum())} boxes of {len(maps)}; of the "
        f"pixels found, {(hit & data.inside).sum() / max(hit.sum(), 1):.2f} are inside, which has "
        f"{data.inside.mean():.2f} of the area"
    )

    net = convert(path, [SCORE]).then(lambda z: z.transpose(0, 2, 3, 1))  # one class, channels last
    explain = lrp.explain(net, composites.default())
    layers = list(LAYERS)[1:2] if arguments.quick else list(LAYERS)
    target = lrp.targets.Segmentation(0, jnp.asarray(data.inside))
    relevance = np.asarray(explain(data.x, target=target).relevance).sum(axis=1)
    ok = difference < 1e-4
    table = Table(title="Channels of the text detector")
    for column in (
        "layer", "size", "channels", "half of relevance in", "context", "box of the next picture",
        "correlation with the change on gray", "control",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in ("layer", "size") else "right")
    for layer in layers:
        family = concepts.Channels(layer, axis=1)
        score = concepts.scores(explain, family)
        share, gray = (
            np.asarray(score(d.x, target=target).normalized) for d in (data, data.without_context())
        )
        context = concepts.context(explain, family, signed=True)
        own, other = (
            np.asarray(context(data.x, target=target, mask=mask))
            for mask in (data.mask, np.roll(data.mask, -1, axis=0))
        )
        both = [correlation(c, share, gray) for c in (own, other)]
        ok = ok and spread(own, share) < spread(other, share)
        numbers = (half(share), spread(own, share), spread(other, share), *both)
        table.add_row(layer, LAYERS[layer], str(share.shape[1]), *(f"{v:.2f}" for v in numbers))
    console.print(table)
    figure = arguments.output / "detector.png"
    figure_of(data, maps, relevance).savefig(figure, dpi=110)
    console.print(f"figure: {figure}")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
