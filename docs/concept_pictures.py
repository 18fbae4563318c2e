"""The pictures of the pages on concepts, drawn from what the code of the tutorial has computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxlrp import concepts, plot
from jaxlrp.concepts import figures

LOWER = ("block_7/add", "block_4/add")  # layers below that of the tutorial
GRAY = "0.35"


def draw(name: str, tutorial: Mapping[str, Any]) -> Figure:
    """One picture of `PICTURES`.

    Args:
      name: of the picture.
      tutorial: the names of `tutorials/concepts.md`, after its code has run.
    """
    return PICTURES[name](SimpleNamespace(**tutorial))


def scores(of: Any) -> Figure:
    """Relevance of all channels against their activation."""
    relevance, active = of.found.normalized[0], concepts.normalize(of.found.activation)[0]
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    ax = figure.add_subplot()
    ax.axhline(0, color="0.8", linewidth=0.8)
    ax.scatter(100 * active, 100 * relevance, s=14, color=GRAY)
    ranked = [*of.top[:3], *np.argsort(-active)[:3].tolist()]
    for c in dict.fromkeys(ranked):
        place = (100 * float(active[c]), 100 * float(relevance[c]))
        ax.annotate(f"channel {c}", place, xytext=(5, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel="share of activation, %", ylabel="share of relevance, %")
    ax.margins(x=0.15)
    return figure


def conditional(of: Any) -> Figure:
    """A map without condition, of two channels, and of either of them."""
    one, two = of.top[:2]
    conditions = {
        "no condition": concepts.Condition(),
        f"channel {one}": of.channels[one],
        f"channel {two}": of.channels[two],
        "either": of.channels[one] | of.channels[two],
    }
    return plot.grid(
        list(_maps(of, conditions.values())), images=of.shown, titles=list(conditions), overlay=True
    )


def local(of: Any) -> Figure:
    """The map of a channel, and its relevance in each region."""
    channel = of.top[0]
    relevance = np.asarray(of.by_region.relevance)[0, :, channel]
    parts = np.asarray(of.pixels, float).reshape(len(relevance), *of.shown.shape[:2])
    per_pixel = np.einsum("r,rhw->hw", relevance / parts.sum(axis=(1, 2)), parts)
    return plot.grid(
        [plot.normalize(of.maps[channel], percentile=99), per_pixel], images=of.shown, overlay=True,
        titles=[f"channel {channel}", f"{len(relevance)} regions"],
    )  # fmt: skip


def maximization(of: Any) -> Figure:
    """The samples that rank first for a channel, by relevance and by activation."""
    found = concepts.scores(of.explain, of.channels)(
        of.net.variables, of.samples, target=of.classes
    )
    channel, figure = of.top[1], Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots(2, 4)
    for row, by in zip(axes, ("relevance", "activation"), strict=True):
        best = np.argsort(-np.asarray(concepts.normalize(getattr(found, by)))[:, channel])
        for ax, sample in zip(row, best, strict=False):
            _show(ax, of.to_image(of.samples[sample]))
        row[0].set_ylabel(f"by {by}", fontsize=9)
    return figure


def references(of: Any) -> Figure:
    """From a sample to a reference: relevance under the condition, blurred, cropped, dimmed."""
    every = [reference for held in of.references.values() for reference in held]
    reference = min(every, key=lambda r: r.crop.size)  # whose box is easy to see
    photo = of.to_image(reference.example)
    figure = Figure(figsize=(7.4, 2.2), layout="constrained")
    whole, relevance, heat, crop = figure.subplots(1, 4)
    _show(whole, photo, "sample")
    plot.overlay(plot.normalize(reference.relevance, percentile=99), photo, ax=relevance)
    relevance.set_title("relevance", fontsize=9)
    plot.overlay(reference.heat, photo, ax=heat)
    heat.set_title("blurred, and its box", fontsize=9)
    (top, bottom), (left, right) = reference.box
    box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="k")
    heat.add_patch(box)
    _show(crop, figures.dimmed(reference, to_image=of.to_image), "cropped and dimmed")
    return figure


def graph(of: Any) -> Figure:
    """What the most relevant channel is made of, two levels down."""
    names = (of.layer, *LOWER)
    families = {name: concepts.Channels(name, axis=-1) for name in names}
    found = concepts.graph(of.explain, families, width=(3, 2))(
        of.net.variables, of.image, target=of.cat, node=(of.layer, of.top[0])
    )
    shown = {(of.layer, c): of.references[c] for c in of.top[:1]}
    return figures.graph(found, references=shown, to_image=of.to_image)


def dictionaries(of: Any) -> Figure:
    """Relevance through a direction: from the mean of all crops to that of the cat's."""
    result = of.explain.replace(record=(of.layer,))(of.net.variables, of.samples, target=of.classes)
    means = np.asarray(result.records[of.layer].activation).mean(axis=(1, 2))
    cats = np.arange(len(means)) < 4  # the first photograph
    direction = means[cats].mean(axis=0) - means[~cats].mean(axis=0)
    family = concepts.directions(of.layer, direction[None], axis=-1)
    all_, along = _maps(of, [concepts.Condition(), family[0]])
    return plot.grid(
        [all_, along], images=of.shown, overlay=True, titles=["all relevance", "along the direction"]
    )  # fmt: skip


def report(of: Any) -> Figure:
    """The card of an odd sample: the crop of the cat that is least like the others."""
    found = concepts.scores(of.explain, of.channels)(
        of.net.variables, of.samples, target=of.classes
    )
    shares = np.asarray(found.normalized)[:4]
    means = np.array([np.delete(shares, i, axis=0).mean(axis=0) for i in range(4)])
    odd = int(np.linalg.norm(shares - means, axis=1).argmax())
    return figures.comparison(
        shares[odd], {"mean of the others": means[odd]}, references=of.references,
        to_image=of.to_image, title=f"crop {odd} of the cat",
    )  # fmt: skip


def _maps(of: Any, conditions: Any) -> np.ndarray:
    """A map for each condition, (K, height, width), normalized for display."""
    run = concepts.conditional(of.explain, cut=True)
    found = run(of.net.variables, of.image, target=of.cat, conditions=list(conditions))
    relevance = jax.device_get(found.relevance)[:, 0].sum(axis=-1)
    return np.stack([plot.normalize(one, percentile=99) for one in relevance])


def _show(ax: Axes, picture: np.ndarray, title: str = "") -> None:
    ax.imshow(picture)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])


PICTURES: Mapping[str, Callable[[Any], Figure]] = {
    "concepts_scores": scores,
    "concepts_conditional": conditional,
    "concepts_local": local,
    "concepts_maximization": maximization,
    "concepts_references": references,
    "concepts_graph": graph,
    "concepts_dictionaries": dictionaries,
    "concepts_report": report,
}
