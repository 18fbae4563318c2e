"""Figures of how concepts relate: attribution graphs, comparison with prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.concepts.differences import notable
from jaxlrp.concepts.drawing import (
    AGAINST,
    FOR,
    Names,
    References,
    ToImage,
    Words,
    draw,
    label,
    name_of,
)
from jaxlrp.concepts.extras import need
from jaxlrp.plot.figures import NotebookFigure
from jaxlrp.plot.normalize import as_colormap, as_real

if TYPE_CHECKING:
    import networkx as nx


def graph(
    found: nx.DiGraph,
    *,
    references: References | None = None,
    names: Names = None,
    to_image: ToImage | None = None,
    words: Words | None = None,
    title: str | None = None,
) -> Figure:
    """An attribution graph with the concept at the top and one row for each family of concepts.

    The width of a line shows the magnitude of its weight; red is positive, blue is negative.

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
        parents = sorted(found.predecessors(b), key=place.__getitem__)
        t = 0.3 + 0.45 * (parents.index(a) + 0.5) / len(parents)  # so that labels do not collide
        arrow = FancyArrowPatch(
            (x, y - box[1] / 2), (u, v + box[1] / 2), arrowstyle="-", mutation_scale=8,
            color=as_colormap("relevance")(FOR if weight > 0 else AGAINST), alpha=0.75,
            linewidth=0.4 + 12 * abs(weight), transform=figure.transFigure, capstyle="round",
            zorder=abs(weight),
        )  # fmt: skip
        figure.add_artist(arrow)
        text = figure.text(
            (1 - t) * x + t * u, (1 - t) * (y - box[1] / 2) + t * (v + box[1] / 2),
            f"{100 * weight:+.1f} %", fontsize=6, ha="center", va="center", zorder=5,
        )  # fmt: skip
        text.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="w")])
    for node, (x, y) in place.items():
        ax = figure.add_axes((x - box[0] / 2, y - box[1] / 2, *box), zorder=3)
        ax.set(xticks=[], yticks=[])
        for reference in list((references or {}).get(node, ()))[:1]:
            draw(ax, reference, to_image, words, box[0] * size[0])
        shown = name_of(names, node, str(node[1]))
        if ax.images or ax.lines or ax.texts:
            ax.set_title(shown, fontsize="small", pad=2, backgroundcolor=(1, 1, 1, 0.7))
        else:
            ax.text(0.5, 0.5, shown, ha="center", va="center", transform=ax.transAxes)
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
    """Compares a sample with prototypes, concept by concept: what it uses more and less than they do.

    It shows the `n` concepts that matter most in the sample or in the first prototype, and from the others
    the `n_different` concepts in which these two differ most.

    Args:
      sample: (concepts,), normalized relevance, such as `Scores.normalized[0]`.
      prototypes: by name, (concepts,) each, such as the mean normalized relevance of a class.
      names: of concepts; None for their numbers.
      n: >= 1.
      n_different: >= 0.
      references: from concepts to references; the first three are drawn beside the row.
      to_image, words: as in `cards`.
      title: of the figure.

    Returns:
      The Figure.

    Raises:
      ValueError: if there is no prototype, or the numbers of concepts differ.

    References:
      Dreyer et al. (2024), Understanding the (Extra-)Ordinary, https://arxiv.org/abs/2311.16681
    """
    values = as_real(sample, "sample")
    rows = {name: as_real(p, f"prototypes[{name!r}]") for name, p in prototypes.items()}
    if not rows or values.ndim != 1 or any(p.shape != values.shape for p in rows.values()):
        raise ValueError(
            f"prototypes must contain at least one array of the shape of sample, {values.shape}, got "
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
        label(figure.add_subplot(spec[i, 0]), name_of(names, concept), None, 1.0)
        for j, reference in enumerate(shown[concept]):
            draw(figure.add_subplot(spec[i, 1 + j]), reference, to_image, words, 1.0)
        ax = figure.add_subplot(spec[i, len(widths) - 1])
        for k, (name, column) in enumerate(columns.items()):
            value = float(column[concept])
            solid = {
                "color": cmap(FOR if value > 0 else AGAINST),
                "alpha": 1.0 if k == 0 else 0.55,
            }
            ax.barh(-k, value, height=0.75, **solid)
            ax.text(max(value, 0.0) + 0.02 * limit, -k, f"{100 * value:+.1f} %  {name}",
                    va="center", fontsize="x-small")  # fmt: skip
        ax.set(
            xlim=(1.05 * below, 1.6 * limit), ylim=(-len(columns) + 0.4, 0.6), xticks=[], yticks=[]
        )
        ax.axvline(0, color="0.6", linewidth=0.5)
        ax.spines[:].set_visible(False)
    if title is not None:
        figure.suptitle(title)
    return figure


def _rows(found: nx.DiGraph) -> dict[str, list[Any]]:
    """The nodes of each family, upper families first; within a family by the mean place of parents."""
    networkx = need("networkx", "figures.graph")
    if not found.number_of_nodes():
        raise ValueError("graph must contain at least one node, got none")
    between = networkx.DiGraph([(a[0], b[0]) for a, b in found.edges])
    between.add_nodes_from(name for name, _ in found.nodes)
    rows: dict[str, list[Any]] = {}
    at: dict[Any, float] = {}
    for family in networkx.topological_sort(between):
        nodes = [node for node in found.nodes if node[0] == family]
        mean = {node: np.mean([at[p] for p in found.predecessors(node)] or [0.5]) for node in nodes}
        rows[family] = sorted(nodes, key=mean.__getitem__)
        at.update({node: (i + 0.5) / len(nodes) for i, node in enumerate(rows[family])})
    return rows
