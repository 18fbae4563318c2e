"""Figures of circuits: the graph, and how much of the metric circuits of each size keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from jaxlrp.concepts.circuits import CircuitCurve
from jaxlrp.concepts.drawing import (
    AGAINST,
    FOR,
    Names,
    References,
    ToImage,
    Words,
    draw,
    name_of,
)
from jaxlrp.plot.figures import NotebookFigure
from jaxlrp.plot.normalize import as_colormap

if TYPE_CHECKING:
    import networkx as nx

_NODE = 0.42  # inches across
_PICTURE = 0.8
_ROW = 1.25  # inches between rows
_CURVE = 3.2  # inches wide


def circuit(
    found: nx.DiGraph,
    curves: CircuitCurve | Mapping[str, CircuitCurve] | None = None,
    *,
    min_weight: float = 0.01,
    references: References | None = None,
    names: Names = None,
    to_image: ToImage | None = None,
    words: Words | None = None,
    title: str | None = None,
) -> Figure:
    """A circuit as a graph, and beside it how faithful circuits of each size are (ablation curves).

    Each row has the concepts of one layer, the uppermost at the top. The color of a node shows its share of
    the relevance of its layer, and a line the share of its relevance that a node gets from a lower one:
    red is positive, blue is negative, and the width shows the magnitude.

    Args:
      found: the result of `concepts.circuit_graph`.
      curves: the result of `concepts.circuit_curve`; or several by name, such as those of other scores.
        None for the graph alone.
      min_weight: edges of a smaller magnitude are not drawn, >= 0.
      references: from nodes, (name, concept), to references; the first is drawn in the node.
      names: of nodes; None for the concept's number.
      to_image, words: as in `cards`.
      title: of the figure.

    Returns:
      The Figure.

    Raises:
      TypeError, ValueError: if the graph is empty, or curves are something else.
    """
    if not min_weight >= 0:
        raise ValueError(f"min_weight must be >= 0, got {min_weight!r}")
    if not found.number_of_nodes():
        raise ValueError("found must contain at least one node, got none")
    rows = _rows(found)
    given = {"circuit": curves} if isinstance(curves, CircuitCurve) else dict(curves or {})
    for name, curve in given.items():
        if not isinstance(curve, CircuitCurve):
            raise TypeError(
                f"curves[{name!r}] must be the result of concepts.circuit_curve, got "
                f"{type(curve).__name__}"
            )
    node = _NODE if not references else _PICTURE
    wide = max(2.0, 1.15 * node * max(map(len, rows.values())) + 0.3)
    high = max(2.6 if given else 1.0, (_ROW + node - _NODE) * len(rows)) + 0.35
    figure = NotebookFigure(figsize=(1.1 + wide + _CURVE * bool(given), high), layout="constrained")
    axes = figure.subplots(
        1, 1 + bool(given), squeeze=False, width_ratios=[wide + 1.1] + [_CURVE] * bool(given)
    )[0]
    place = _places(rows, wide)
    _edges(axes[0], found, place, min_weight)
    _nodes(axes[0], found, place, node, references or {}, names, to_image, words)
    for i, name in enumerate(rows):
        axes[0].text(-0.05, -i, name, ha="right", va="center", fontsize="small", color="0.3")
    side = 0.6 * node
    axes[0].set(xlim=(-1.1, wide), ylim=(-len(rows) + 1 - side / _ROW - 0.1, side / _ROW + 0.1))
    axes[0].axis("off")
    if given:
        _curves(axes[1], given, found.number_of_nodes())
    if title is not None:
        figure.suptitle(title)
    return figure


def _rows(found: nx.DiGraph) -> dict[str, list[Any]]:
    """The nodes of each family, upper families first; within a family by the mean place of parents."""
    level: dict[str, int] = {node[0]: data.get("level", 0) for node, data in found.nodes(data=True)}
    rows: dict[str, list[Any]] = {}
    at: dict[Any, float] = {}
    for family in sorted(level, key=level.__getitem__):
        nodes = [node for node in found.nodes if node[0] == family]
        mean = {
            n: np.mean([at[p] for p in found.predecessors(n) if p in at] or [0.5]) for n in nodes
        }
        rows[family] = sorted(nodes, key=mean.__getitem__)
        at.update({node: (i + 0.5) / len(nodes) for i, node in enumerate(rows[family])})
    return rows


def _places(rows: Mapping[str, list[Any]], wide: float) -> dict[Any, tuple[float, float]]:
    return {
        node: (wide * (j + 0.5) / len(nodes), float(-i))
        for i, nodes in enumerate(rows.values())
        for j, node in enumerate(nodes)
    }


def _edges(
    ax: Axes, found: nx.DiGraph, place: Mapping[Any, tuple[float, float]], least: float
) -> None:
    """Lines; those that cross a row in between are bent."""
    cmap = as_colormap("relevance")
    for a, b, weight in found.edges(data="weight"):
        if abs(weight) < least:
            continue
        (x, y), (u, v) = place[a], place[b]
        bent = 0.0 if y - v < 1.5 else 0.25 if u <= x else -0.25
        ax.add_patch(
            FancyArrowPatch(
                (x, y), (u, v), arrowstyle="-", connectionstyle=f"arc3,rad={bent}",
                color=cmap(FOR if weight > 0 else AGAINST), alpha=0.7, capstyle="round",
                linewidth=0.3 + 10 * abs(weight), zorder=1 + abs(weight), shrinkA=0, shrinkB=0,
            )
        )  # fmt: skip


def _nodes(
    ax: Axes, found: nx.DiGraph, place: Mapping[Any, tuple[float, float]], node: float,
    references: References, names: Names, to_image: ToImage | None, words: Words | None,
) -> None:  # fmt: skip
    """A disk with the name of each node; or a picture with its name above."""
    shares = dict(found.nodes("relevance", default=0.0))
    most = max(map(abs, shares.values())) or 1.0
    cmap = as_colormap("relevance")
    for key, (x, y) in place.items():
        color = cmap(0.5 + 0.3 * shares[key] / most)
        shown, held = name_of(names, key, str(key[1])), list(references.get(key, ()))[:1]
        if not held:
            ax.scatter([x], [y], s=(72 * _NODE * 0.8) ** 2, color=color, edgecolor="0.4",
                       linewidth=0.6, zorder=4)  # fmt: skip
            ax.text(x, y, shown, ha="center", va="center", fontsize="x-small", zorder=5)
            continue
        tall = node / (_ROW + node - _NODE)
        inset = ax.inset_axes(
            (x - node / 2, y - tall / 2, node, tall), transform=ax.transData, zorder=4
        )
        draw(inset, held[0], to_image, words, node)
        inset.spines[:].set(visible=True, color=color, linewidth=2.5)
        inset.set_title(shown, fontsize="x-small", pad=3, backgroundcolor=(1, 1, 1, 0.7))


def _curves(ax: Axes, curves: Mapping[str, CircuitCurve], size: int) -> None:
    for name, curve in curves.items():
        sizes = np.asarray(curve.sizes)
        order = np.argsort(sizes)
        ax.plot(sizes[order], np.asarray(curve.faithfulness)[order], marker="o", markersize=3,
                label=name)  # fmt: skip
    largest = max(int(np.asarray(curve.sizes).max()) for curve in curves.values())
    if largest > 40:
        ax.set_xscale("symlog", linthresh=2)
        ticks = [0, *(2**i for i in range(0, largest.bit_length(), 2))]
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
    ax.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(size, color="0.5", linewidth=0.8, linestyle=":", zorder=0, label="the graph")
    ax.set(xlabel="concepts kept", ylabel="faithfulness")
    ax.legend(fontsize="small")
