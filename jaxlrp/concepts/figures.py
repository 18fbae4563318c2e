"""Figures of concepts: cards, atlas, attribution graph, comparison with prototypes.

All functions draw with matplotlib, ``pip install "jaxlrp[concepts]"``, and return a Figure that needs no
display and is not registered with pyplot; a notebook shows it, a script saves it with ``savefig``. Red is
relevance for the explained output, blue against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxlrp.concepts.extras import need

need("matplotlib", "jaxlrp.concepts.figures")

import numpy as np  # noqa: E402
from matplotlib import patheffects  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyArrowPatch, Patch  # noqa: E402
from numpy.typing import ArrayLike  # noqa: E402

from jaxlrp._checks import check_count  # noqa: E402
from jaxlrp.concepts.drawing import ToImage, Words, dimmed, displayable, draw  # noqa: E402
from jaxlrp.concepts.local import LocalRelevance  # noqa: E402
from jaxlrp.concepts.references import Reference  # noqa: E402
from jaxlrp.plot import heatmap, overlay  # noqa: E402
from jaxlrp.plot.image import NotebookFigure  # noqa: E402
from jaxlrp.plot.normalize import as_colormap, as_gray, as_real  # noqa: E402

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["atlas", "cards", "comparison", "dimmed", "graph"]

References = Mapping[Any, Sequence[Reference]]
Names = Mapping[Any, str] | Callable[[Any], str] | None

_INCHES = 1.25  # width of a crop
_FOR, _AGAINST = 0.93, 0.07  # places in the color map


def cards(
    references: References,
    *,
    maps: Mapping[int, ArrayLike] | None = None,
    shares: Mapping[int, float] | None = None,
    image: ArrayLike | None = None,
    names: Names = None,
    n: int = 8,
    to_image: ToImage | None = None,
    words: Words | None = None,
    title: str | None = None,
) -> Figure:
    """Concept cards, a row for each concept: its share, where it is in a sample, and its references.

    Args:
      references: from concepts to their references, as `concepts.references` returns them.
      maps: from concepts to the relevance of a sample under the condition on the concept, (height, width),
        drawn with a color limit that all share; None for none.
      shares: from concepts to normalized relevance in that sample, written and drawn as a bar.
      image: the sample, (height, width, 3), under the maps; None for maps alone.
      names: of concepts; None for their numbers.
      n: references in a row, at most, >= 1.
      to_image: from an example to a displayable image; see `dimmed`.
      words: for tokens: from the ids of a crop to a string for each.
      title: of the figure.

    Returns:
      The Figure.

    Raises:
      ValueError: if there is no concept, or a map has another shape.
    """
    check_count("n", n)
    if not references:
        raise ValueError("references is empty: name at least one concept")
    shown = {concept: list(found)[:n] for concept, found in references.items()}
    columns = max([1, *(len(found) for found in shown.values())])
    wide = 2.4 if words is not None else _INCHES
    widths = [1.1] + [_INCHES] * (maps is not None) + [wide] * columns
    figure = NotebookFigure(
        figsize=(sum(widths) + 0.1, len(shown) * (_INCHES + 0.08) + 0.35), layout="compressed"
    )
    spec = figure.add_gridspec(len(shown), len(widths), width_ratios=widths)
    limit = None
    if maps is not None:
        missing = [concept for concept in shown if concept not in maps]
        if missing:
            raise ValueError(f"maps must have a map for each concept, but has none for {missing}")
        limit = max(float(np.abs(as_real(maps[c], "maps")).max()) for c in shown) or None
    most = max((abs(float(s)) for s in (shares or {}).values()), default=0.0) or 1.0
    for row, (concept, found) in enumerate(shown.items()):
        share = None if shares is None else float(shares[concept])
        _label(figure.add_subplot(spec[row, 0]), _name(names, concept), share, most)
        if maps is not None:
            ax = figure.add_subplot(spec[row, 1])
            if image is None:
                heatmap(maps[concept], ax=ax, limit=limit)
            else:
                overlay(maps[concept], image, ax=ax, limit=limit)
            if row == 0:
                ax.set_title("in this sample", fontsize="small")
        for i, reference in enumerate(found):
            ax = figure.add_subplot(spec[row, len(widths) - columns + i])
            draw(ax, reference, to_image, words, wide)
            if row == i == 0:
                ax.set_title("references", fontsize="small", loc="left")
    if title is not None:
        figure.suptitle(title)
    return figure


def atlas(
    found: LocalRelevance,
    regions: ArrayLike,
    image: ArrayLike,
    *,
    example: int = 0,
    n: int = 6,
    names: Names = None,
    references: References | None = None,
    to_image: ToImage | None = None,
    title: str | None = None,
) -> Figure:
    """The concept atlas: each region in the color of its most relevant concept.

    The color is the stronger, the more relevant the concept is there, per pixel of the region. Regions in
    which no concept has positive relevance stay gray.

    Args:
      found: the result of `concepts.local`.
      regions: with which it was computed, (regions, height, width) up to axes of length 1.
      image: the sample, (height, width, 3), uint8 or floats in [0, 1].
      example: which one of the batch.
      n: concepts with a color of their own, those of the largest relevance, 1 to 10; others share one.
      names: of concepts; None for their numbers.
      references: from concepts to references; the first is drawn beside the picture.
      to_image: as in `cards`.
      title: of the picture.

    Returns:
      The Figure.

    Raises:
      ValueError: if shapes do not fit, or `n` is out of range.
    """
    if not 1 <= check_count("n", n) <= 10:
        raise ValueError(f"n must be 1 to 10, got {n}")
    pixels = displayable(np.asarray(image), (0, 1), None)
    parts = np.asarray(regions, np.float64)
    parts = parts.reshape(len(parts), *[size for size in parts.shape[1:] if size != 1])
    relevance = np.asarray(found.relevance)
    relevance = relevance[example] if relevance.ndim == 3 else relevance
    if parts.shape != (len(relevance), *pixels.shape[:2]):
        raise ValueError(
            f"regions must have shape {(len(relevance), *pixels.shape[:2])}, that of the relevance and "
            f"the image, up to axes of length 1, got {np.shape(regions)}"
        )
    best, value = relevance.argmax(axis=1), np.maximum(relevance.max(axis=1), 0.0)
    total = {int(c): float(value[best == c].sum()) for c in np.unique(best[value > 0])}
    kept = sorted(total, key=lambda c: -total[c])[:n]
    colors = {c: _hues()[i] for i, c in enumerate(kept)}
    density = value / np.maximum(parts.sum(axis=(1, 2)), 1e-12)
    strength = 0.8 * np.sqrt(density / (density.max() or 1.0))
    films = np.array([colors.get(int(c), (0.35, 0.35, 0.35)) for c in best])
    gray = np.repeat(as_gray(pixels)[..., None], 3, axis=-1)
    opacity = np.einsum("r,rhw->hw", strength, parts)[..., None]
    tint = np.einsum("r,rhw,rc->hwc", strength, parts, films)
    canvas = np.clip(gray * (1 - opacity) + tint, 0, 1)

    figure = NotebookFigure(figsize=(7.2, 4.6), layout="compressed")
    spec = figure.add_gridspec(max(len(kept), 1), 2, width_ratios=[4.6, 1.0])
    ax = figure.add_subplot(spec[:, 0])
    ax.imshow(canvas)
    ax.contour(parts.argmax(axis=0), levels=np.arange(len(parts)) + 0.5, colors="w",
               linewidths=0.3, alpha=0.6)  # fmt: skip
    ax.set(xticks=[], yticks=[], title=title or "")
    if references is None:
        handles = [Patch(color=colors[c], label=_name(names, c)) for c in kept]
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        return figure
    for i, concept in enumerate(kept):
        side = figure.add_subplot(spec[i, 1])
        side.set(xticks=[], yticks=[])
        for reference in list(references.get(concept, ()))[:1]:
            draw(side, reference, to_image, None, 1.0)
        side.spines[:].set(linewidth=3, color=colors[concept], visible=True)
        side.set_ylabel(_name(names, concept), rotation=0, ha="right", va="center", fontsize="small")
    return figure


def graph(
    found: nx.DiGraph,
    *,
    references: References | None = None,
    names: Names = None,
    to_image: ToImage | None = None,
    words: Words | None = None,
    title: str | None = None,
) -> Figure:
    """An attribution graph, the concept at the top, each family of concepts in a row of its own.

    Lines are the wider the larger the magnitude of their weight, red for positive and blue for negative.

    Args:
      found: the result of `concepts.graph`.
      references: from nodes, (name, concept), to references; the first is drawn in the node.
      names: of nodes; None for the concept's number.
      to_image, words: as in `cards`.
      title: of the figure.

    Returns:
      The Figure.

    Raises:
      ValueError: if the graph is empty.
    """
    rows = _rows(found)
    widest = max(map(len, rows.values()))
    size = (max(1.25 * widest + 1.5, 4.0), 1.6 * len(rows) + 0.3)
    figure = NotebookFigure(figsize=size)
    left, place = 1.3 / size[0], {}
    high = (1 - 0.3 * bool(title) / size[1]) / len(rows)
    for i, (family, nodes) in enumerate(rows.items()):
        y = 1 - 0.3 * bool(title) / size[1] - (i + 0.5) * high
        figure.text(0.1 / size[0], y, family, va="center", fontsize="small", color="0.3")
        for j, node in enumerate(nodes):
            place[node] = (left + (1 - left) * (j + 0.5) / len(nodes), y)
    box = (min(0.95 / size[0], 0.85 * (1 - left) / widest), 0.95 / size[1])
    for a, b, weight in found.edges(data="weight"):
        (x, y), (u, v) = place[a], place[b]
        arrow = FancyArrowPatch(
            (x, y - box[1] / 2), (u, v + box[1] / 2), arrowstyle="-", mutation_scale=8,
            color=as_colormap("relevance")(_FOR if weight > 0 else _AGAINST), alpha=0.75,
            linewidth=0.4 + 12 * abs(weight), transform=figure.transFigure, capstyle="round",
            zorder=abs(weight),
        )  # fmt: skip
        figure.add_artist(arrow)
        text = figure.text(
            0.42 * x + 0.58 * u, 0.42 * (y - box[1] / 2) + 0.58 * (v + box[1] / 2),
            f"{100 * weight:+.1f} %", fontsize=6, ha="center", va="center", zorder=5,
        )  # fmt: skip
        text.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="w")])
    for node, (x, y) in place.items():
        ax = figure.add_axes((x - box[0] / 2, y - box[1] / 2, *box), zorder=3)
        ax.set(xticks=[], yticks=[])
        for reference in list((references or {}).get(node, ()))[:1]:
            draw(ax, reference, to_image, words, box[0] * size[0])
        label = _name(names, node, str(node[1]))
        if ax.images or ax.lines or ax.texts:
            ax.set_title(label, fontsize="small", pad=2, backgroundcolor=(1, 1, 1, 0.7))
        else:
            ax.text(0.5, 0.5, label, ha="center", va="center", transform=ax.transAxes)
    if title is not None:
        figure.suptitle(title, y=1 - 0.05 / size[1], va="top")
    return figure


def comparison(
    sample: ArrayLike,
    prototypes: Mapping[str, ArrayLike],
    *,
    names: Names = None,
    n: int = 3,
    n_different: int = 2,
    references: References | None = None,
    to_image: ToImage | None = None,
    words: Words | None = None,
    title: str | None = None,
) -> Figure:
    """A sample beside prototypes, concept by concept: what it uses more and less than they do.

    Shown are the `n` concepts that count most in the sample or in the first prototype, and of the others
    the `n_different` in which these two differ most.

    Args:
      sample: (concepts,), normalized relevance, such as `Scores.normalized[0]`.
      prototypes: by name, (concepts,) each, such as the mean normalized relevance of a class.
      names: of concepts; None for their numbers.
      n: >= 1.
      n_different: >= 0.
      references: from concepts to references, the first three drawn beside the row.
      to_image, words: as in `cards`.
      title: of the figure.

    Returns:
      The Figure.

    Raises:
      ValueError: if there is no prototype, or numbers of concepts differ.

    References:
      Dreyer et al. (2024), Understanding the (Extra-)Ordinary, https://arxiv.org/abs/2311.16681
    """
    values = as_real(sample, "sample")
    rows = {name: as_real(p, f"prototypes[{name!r}]") for name, p in prototypes.items()}
    if not rows or values.ndim != 1 or any(p.shape != values.shape for p in rows.values()):
        raise ValueError(
            f"prototypes must hold at least one array of the shape of sample, {values.shape}, got "
            f"{[p.shape for p in rows.values()]}"
        )
    if n_different < 0:
        raise ValueError(f"n_different must be >= 0, got {n_different}")
    chosen = notable(values, next(iter(rows.values())), check_count("n", n), n_different)
    columns = {"sample": values, **rows}
    shown = {c: list((references or {}).get(c, ()))[:3] for c in chosen}
    crops = max(len(found) for found in shown.values())
    widths = [1.1] + [1.0] * crops + [1.3 * len(columns)]
    figure = NotebookFigure(figsize=(sum(widths), 1.05 * len(chosen) + 0.6), layout="compressed")
    spec = figure.add_gridspec(len(chosen), len(widths), width_ratios=widths)
    limit = max(float(np.abs(column[chosen]).max()) for column in columns.values()) or 1.0
    below = min(0.0, *(float(column[chosen].min()) for column in columns.values()))
    cmap = as_colormap("relevance")
    for i, concept in enumerate(chosen):
        _label(figure.add_subplot(spec[i, 0]), _name(names, concept), None, 1.0)
        for j, reference in enumerate(shown[concept]):
            draw(figure.add_subplot(spec[i, 1 + j]), reference, to_image, words, 1.0)
        ax = figure.add_subplot(spec[i, len(widths) - 1])
        for k, (name, column) in enumerate(columns.items()):
            value = float(column[concept])
            solid = {"color": cmap(_FOR if value > 0 else _AGAINST), "alpha": 1.0 if k == 0 else 0.55}
            ax.barh(-k, value, height=0.75, **solid)
            ax.text(max(value, 0.0) + 0.02 * limit, -k, f"{100 * value:+.1f} %  {name}",
                    va="center", fontsize="x-small")  # fmt: skip
        ax.set(xlim=(1.05 * below, 1.6 * limit), ylim=(-len(columns) + 0.4, 0.6), xticks=[], yticks=[])
        ax.axvline(0, color="0.6", linewidth=0.5)
        ax.spines[:].set_visible(False)
    if title is not None:
        figure.suptitle(title)
    return figure


def notable(sample: np.ndarray, prototype: np.ndarray, n: int, n_different: int) -> list[int]:
    """The `n` concepts of the largest relevance in either, then those that differ most of the rest."""
    size = np.maximum(np.abs(sample), np.abs(prototype))
    first = np.argsort(-size, kind="stable")[:n].tolist()
    differ = np.argsort(-np.abs(sample - prototype), kind="stable").tolist()
    return first + [c for c in differ if c not in first][:n_different]


def _rows(found: nx.DiGraph) -> dict[str, list[Any]]:
    """The nodes of each family, upper families first; within a family by the mean place of parents."""
    networkx = need("networkx", "figures.graph")
    if not found.number_of_nodes():
        raise ValueError("the graph is empty")
    between = networkx.DiGraph([(a[0], b[0]) for a, b in found.edges])
    between.add_nodes_from(name for name, _ in found.nodes)
    rows: dict[str, list[Any]] = {}
    at: dict[Any, float] = {}
    for family in networkx.topological_sort(between):
        nodes = [node for node in found.nodes if node[0] == family]

        def mean(node: Any) -> float:
            parents = [at[p] for p in found.predecessors(node)]
            return sum(parents) / len(parents) if parents else 0.5

        rows[family] = sorted(nodes, key=mean)
        at |= {node: (i + 0.5) / len(nodes) for i, node in enumerate(rows[family])}
    return rows


def _hues() -> list[tuple[float, float, float]]:
    """Ten colors that are easy to tell apart."""
    import matplotlib

    return [tuple(c) for c in matplotlib.colormaps["tab10"].colors]  # type: ignore[attr-defined]


def _name(names: Names, key: Any, default: str | None = None) -> str:
    if names is not None:
        found = names(key) if callable(names) else names.get(key)
        if found is not None:
            return str(found).replace("$", r"\$")
    return default or f"concept {key}"


def _label(ax: Axes, name: str, share: float | None, most: float) -> None:
    """The name of a concept, and its share as a number and a bar."""
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.text(0, 0.62, name, fontsize="small", va="center", wrap=True)
    if share is None:
        return
    ax.text(0, 0.4, f"{100 * share:+.1f} %", fontsize="small", va="center", color="0.3")
    color = as_colormap("relevance")(_FOR if share > 0 else _AGAINST)
    ax.barh(0.22, 0.9 * abs(share) / most, height=0.08, color=color)
