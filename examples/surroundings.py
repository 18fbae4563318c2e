"""Which predictor looks at the surroundings instead of the object: SVMs on visual words, or a CNN?

    python examples/surroundings.py [--data FOLDER] [--output DIR] [--quick]

Gray pictures of 64 x 64 pixels: an animal, food or a vehicle, a stamp of the drawing program Tux Paint with
an exact mask, on a texture of scikit-image (brick, grass, gravel). Three predictors are trained twice for
each of three seeds: where 9 of 10 pictures of a class have the same texture ("tied"), and where textures
are drawn at random ("free"). Held-out stamps are shown on textures of the same distribution.

  BoVW, intersection   100 visual words of histograms of gradients, SVM with the histogram intersection
  BoVW, chi2           the same with the chi-squared kernel
  Fisher vectors       a mixture of 16 Gaussians of the same descriptors, linear SVM
  CNN                  two convolutions and two dense layers, trained on the same pictures

Explained is the output of the true class. The context ratio is the mean positive relevance of a pixel of
the texture, divided by that of a pixel of the object. Relevance of descriptors is shared evenly by the
pixels of their patch, which reaches over the border of an object. So that of the CNN (preset
epsilon_gamma_box) is given as it is, and shared by the same patches ("in patches"); "all patches alike" is
what the ratio is for a constant.

What the predictors do is measured without explanations: accuracy with the texture of the class less
accuracy with another texture ("swap"). A ratio says something if it is higher for predictors that depend
on textures. Nothing was tuned; all options are defaults, or were set once: patches of 16 x 16 pixels,
8 apart, C = 1. Fisher vectors are explained exactly, and with epsilon = mean |z| against cancellation.

Stamps (a Debian package, GPL-2, unpacked; without it the example says so and exits with code 0):

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python examples/surroundings.py --data stamps/usr/share/tuxpaint/stamps

Writes a figure. Exits with code 1 if relevance does not sum to the output, or if the ratio of a predictor
is not higher where textures are tied (mean of the seeds).
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
from matplotlib.figure import Figure
from PIL import Image
from sklearn.cluster import MiniBatchKMeans
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC, LinearSVC

import jaxlrp as lrp
from digit_networks import CNN, cross_entropy, markdown, spread, train
from jaxlrp import composites, heads, metrics, plot, visual_words
from jaxlrp.heads import kernels

STAMPS = pathlib.Path("/usr/share/tuxpaint/stamps")
CLASSES = ("animals", "food", "vehicles")
TEXTURES = ("brick", "grass", "gravel")
SIDE, OBJECT = 64, 40
SIZE, STRIDE = 16, 8  # of patches


class Pictures(NamedTuple):
    """Pictures (N, 64, 64) in [0, 1], masks, classes, and the texture of each."""

    x: np.ndarray
    masks: np.ndarray
    y: np.ndarray
    textures: np.ndarray


def read(folder: pathlib.Path) -> list[list[np.ndarray]]:
    """Stamps of each class as gray values and alpha, (H, W, 2) in [0, 1], 40 pixels at most."""
    found = []
    for name in CLASSES:
        stamps = []
        for path in sorted((folder / name).rglob("*.png")):
            image = Image.open(path).convert("LA")
            image.thumbnail((OBJECT, OBJECT))
            held = np.asarray(image, float) / 255
            if 0.2 < (held[..., 1] > 0.5).mean() < 1 and min(held.shape[:2]) > 12:
                stamps.append(held)
        found.append(stamps)
    return found


@functools.cache
def texture(name: str) -> np.ndarray:
    image = Image.fromarray(getattr(skimage.data, name)()).resize((256, 256))
    return np.asarray(image, float) / 255


def compose(
    stamps: list[list[np.ndarray]], count: int, tied: float, rng: np.random.Generator
) -> Pictures:
    """As many pictures of each class; `tied`: the share of them with the texture of their class."""
    y = np.arange(count) % len(CLASSES)
    textures = np.where(rng.random(count) < tied, y, rng.integers(0, len(TEXTURES), count))
    x, masks = np.zeros((count, SIDE, SIDE)), np.zeros((count, SIDE, SIDE), bool)
    for i in range(count):
        stamp = stamps[y[i]][rng.integers(len(stamps[y[i]]))]
        a, b = rng.integers(0, 256 - SIDE, 2)
        x[i] = texture(TEXTURES[textures[i]])[a : a + SIDE, b : b + SIDE]
        h, w, _ = stamp.shape
        a, b = rng.integers(0, SIDE - h + 1), rng.integers(0, SIDE - w + 1)
        place = slice(a, a + h), slice(b, b + w)
        gray, alpha = stamp[..., 0], stamp[..., 1]
        x[i][place] = alpha * gray + (1 - alpha) * x[i][place]
        masks[i][place] = alpha > 0.5
    return Pictures(x.astype(np.float32), masks, y.astype(np.int32), textures)


def swapped(pictures: Pictures, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same objects on the texture of their class, and on another one."""
    found = []
    for shift in (0, 1):
        x = pictures.x.copy()
        for i, y in enumerate(pictures.y):
            a, b = rng.integers(0, 256 - SIDE, 2)
            other = texture(TEXTURES[(y + shift) % len(TEXTURES)])[a : a + SIDE, b : b + SIDE]
            x[i] = np.where(pictures.masks[i], x[i], other)
        found.append(x)
    return found[0], found[1]


def descriptors(x: np.ndarray) -> np.ndarray:
    """Histograms of gradients of 2 x 2 cells in 8 directions, (N, L, 32), of unit length."""
    return np.concatenate([_descriptors(x[i : i + 100]) for i in range(0, len(x), 100)])


def _descriptors(x: np.ndarray) -> np.ndarray:
    values = visual_words.patches(x, SIZE, STRIDE).values
    dy, dx = np.gradient(values, axis=(2, 3))
    strength, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    bins = ((angle + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    each = strength[..., None] * (bins[..., None] == np.arange(8))
    n, patches, half = *values.shape[:2], SIZE // 2
    cells = each.reshape(n, patches, 2, half, 2, half, 8).sum((3, 5)).reshape(n, patches, 32)
    return (cells / (np.linalg.norm(cells, axis=-1, keepdims=True) + 1e-3)).astype(float)


class Predictor(NamedTuple):
    """Classes of pictures, and maps of the true class by name with the error of their sum."""

    predict: Any
    explain: Any


def of_words(vocabulary: Any, kernel: Any, data: Pictures) -> Predictor:
    """An SVM on the features of a vocabulary; `kernel` None for a linear one."""
    features = np.asarray(vocabulary(descriptors(data.x)))
    svm = LinearSVC(C=1.0) if kernel is None else OneVsRestClassifier(SVC(kernel=kernel, C=1.0))
    svm.fit(features, data.y)
    head = heads.fitted(svm, points=features)
    explainer, outputs = heads.explain(head), jax.jit(lambda d: head(vocabulary(d)))

    def explain(x: np.ndarray, y: np.ndarray) -> dict[str, tuple[Any, float]]:
        given = descriptors(x)
        boxes = visual_words.patches(x, SIZE, STRIDE).boxes
        features = vocabulary(given)
        result = explainer(features, target=y)
        score = result.output[np.arange(len(y)), y]
        mean = [] if kernel else [float(jnp.abs(vocabulary_mean(vocabulary, given)).mean())]
        found = {}
        for epsilon in (0.0, *mean):
            r = vocabulary.relevance(given, result.relevance, epsilon=epsilon)
            maps = visual_words.to_pixels(r, boxes, (SIDE, SIDE))
            error = 0.0 if epsilon else float(jnp.abs(maps.sum((1, 2)) - score).max())
            found[" epsilon" if epsilon else ""] = maps, error
        return found

    return Predictor(lambda x: np.asarray(outputs(descriptors(x)).argmax(1)), explain)


def vocabulary_mean(vocabulary: Any, given: np.ndarray) -> Any:
    """z, before it is normalized."""
    return jax.lax.map(lambda d: vocabulary.terms(d).mean(0), jnp.asarray(given))


def in_patches(maps: Any, boxes: np.ndarray) -> Any:
    """Positive relevance of pixels collected by patches, and shared evenly by their pixels again."""
    positive = np.maximum(np.asarray(maps), 0)
    sums = np.stack([positive[:, a:c, b:d].sum((1, 2)) for a, b, c, d in boxes], axis=1)
    return visual_words.to_pixels(sums, boxes, (SIDE, SIDE))


def of_network(data: Pictures, seed: int, steps: int) -> Predictor:
    net = CNN((8, 16), 32)
    variables = net.init(jax.random.key(seed), data.x[:1, ..., None])

    def loss(v: Any, x: Any, y: Any) -> Any:
        return cross_entropy(net.apply(v, x), y)  # pyright: ignore

    variables = train(jax.grad(loss), variables, data.x[..., None], data.y, steps, seed, batch=32)
    explainer = lrp.explain(net.apply, composites.epsilon_gamma_box(0.0, 1.0), argnums=1)
    outputs = jax.jit(net.apply)

    def explain(x: np.ndarray, y: np.ndarray) -> dict[str, tuple[Any, float]]:
        maps = explainer(variables, x[..., None], target=y).relevance[..., 0]
        boxes = visual_words.patches(x, SIZE, STRIDE).boxes
        return {"": (maps, 0.0), " in patches": (in_patches(maps, boxes), 0.0)}

    return Predictor(lambda x: np.asarray(outputs(variables, x[..., None]).argmax(1)), explain)  # pyright: ignore


def predictors(data: Pictures, seed: int, quick: bool) -> dict[str, Predictor]:
    rng = np.random.default_rng(seed)
    sample = descriptors(data.x).reshape(-1, 32)
    sample = sample[rng.permutation(len(sample))[: 1000 if quick else 10000]]
    words = MiniBatchKMeans(40 if quick else 100, n_init=1, random_state=seed).fit(sample)
    components = 4 if quick else 16
    mixture = GaussianMixture(
        components, covariance_type="diag", reg_covar=1e-4, random_state=seed, max_iter=100
    ).fit(sample)
    bag, fisher = visual_words.fitted(words), visual_words.fitted(mixture)
    further = {} if quick else {"BoVW, chi2": of_words(bag, kernels.chi2, data)}
    return {
        "BoVW, intersection": of_words(bag, kernels.intersection, data),
        **further,
        "Fisher vectors": of_words(fisher, None, data),
        "CNN": of_network(data, seed, 10 if quick else 400),
    }


def run(
    stamps: list[list[np.ndarray]], seed: int, quick: bool
) -> tuple[dict[str, dict[str, float]], dict[str, Any], float]:
    """Numbers by predictor and training data, maps of some pictures, the largest error of a sum."""
    rng = np.random.default_rng(seed)
    parts: list[list[list[np.ndarray]]] = [[], []]
    for held in stamps:  # half of the stamps of each class are held out
        order = rng.permutation(len(held))
        parts[0].append([held[i] for i in order[::2]])
        parts[1].append([held[i] for i in order[1::2]])
    found, maps, worst = {}, {}, 0.0
    measure = metrics.ContextRatio()
    for name, tied in (("tied", 0.9), ("free", 0.0))[: 1 if quick else 2]:
        data = compose(parts[0], 60 if quick else 600, tied, rng)
        test = compose(parts[1], 30 if quick else 150, tied, rng)
        same, other = swapped(test, rng)
        even = np.ones((len(test.x), len(visual_words.patches(test.x, SIZE, STRIDE).boxes)))
        boxes = visual_words.patches(test.x, SIZE, STRIDE).boxes
        alike = visual_words.to_pixels(even, boxes, (SIDE, SIDE))
        found[f"all patches alike, {name}"] = {"ratio": float(measure(alike, test.masks).mean())}
        for predictor, made in predictors(data, seed, quick).items():
            accuracy = [float((made.predict(x) == test.y).mean()) for x in (test.x, same, other)]
            for kind, (relevance, error) in made.explain(test.x, test.y).items():
                row = f"{predictor}{kind}, {name}"
                ratio = np.asarray(measure(relevance, test.masks))
                found[row] = {
                    "ratio": float(np.nanmedian(ratio)),
                    "accuracy": accuracy[0],
                    "swap": accuracy[1] - accuracy[2],
                }
                worst = max(worst, error)
                maps[row] = relevance[:3]
        maps[name] = test.x[:3]
    return found, maps, worst


def draw(maps: dict[str, Any], path: pathlib.Path) -> None:
    """Three pictures, and their maps where textures are tied."""
    rows = [row for row in maps if row.endswith(", tied")]
    figure = Figure(figsize=(2 * len(rows) + 2, 6), layout="constrained")
    axes = figure.subplots(3, len(rows) + 1)
    for i in range(3):
        axes[i, 0].imshow(maps["tied"][i], cmap="gray", vmin=0, vmax=1)
        for j, row in enumerate(rows, 1):
            plot.heatmap(np.asarray(maps[row][i]), channel_axis=None, ax=axes[i, j])
            if i == 0:
                axes[i, j].set_title(row.removesuffix(", tied"), fontsize=8)
        for ax in axes[i]:
            ax.set_axis_off()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=STAMPS)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="one seed, fewer pictures and words")
    arguments = parser.parse_args()
    if not (arguments.data / CLASSES[0]).is_dir():
        print(f"no stamps in {arguments.data}: see the first lines of this file")
        return 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_x64", True)  # terms of Fisher vectors cancel
    stamps, quick = read(arguments.data), arguments.quick
    print("stamps: " + ", ".join(f"{len(s)} {n}" for s, n in zip(stamps, CLASSES, strict=True)))

    scores: dict[str, dict[str, list[float]]] = {}
    worst, maps = 0.0, {}
    for seed in range(1 if quick else 3):
        found, maps, error = run(stamps, seed, quick)
        worst = max(worst, error)
        for row, numbers in found.items():
            for name, value in numbers.items():
                scores.setdefault(row, {}).setdefault(name, []).append(value)
    columns = ("ratio", "accuracy", "swap")
    print(markdown(["", *columns], {
        row: [spread(held[c]) if c in held else "" for c in columns]
        for row, held in scores.items()
    }))  # fmt: skip
    print(f"largest error of a sum: {worst:.1e}")
    draw(maps, arguments.output / "surroundings.png")
    tied = {row: np.mean(h["ratio"]) for row, h in scores.items() if row.endswith(", tied")}
    lower = [
        row.removesuffix(", tied")
        for row, ratio in tied.items()
        if "alike" not in row and not quick and ratio <= np.mean(scores[row[:-4] + "free"]["ratio"])
    ]
    if lower:
        print("no higher where textures are tied: " + ", ".join(lower))
    return 1 if lower or worst > 1e-6 else 0


if __name__ == "__main__":
    raise SystemExit(main())
