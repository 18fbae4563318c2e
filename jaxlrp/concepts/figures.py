"""Figures of concepts: cards, atlas, attribution graph, circuit, comparison with prototypes.

All functions draw with matplotlib, ``pip install "jaxlrp[concepts]"``, and return a Figure that needs no
display and is not registered with pyplot; a notebook shows it, a script saves it with ``savefig``. Red
marks evidence for the explained output, blue marks evidence against it.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp.concepts.extras import need

need("matplotlib", "jaxlrp.concepts.figures")

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from numpy.typing import ArrayLike  # noqa: E402

from jaxlrp._checks import check_count  # noqa: E402
from jaxlrp.concepts.circuit_figure import circuit  # noqa: E402
from jaxlrp.concepts.diagrams import comparison, graph  # noqa: E402
from jaxlrp.concepts.drawing import (  # noqa: E402
    Names,
    References,
    ToImage,
    Words,
    dimmed,
    displayable,
    draw,
    label,
    name_of,
)
from jaxlrp.concepts.local import LocalRelevance  # noqa: E402
from jaxlrp.plot import heatmap, overlay  # noqa: E402
from jaxlrp.plot.figures import NotebookFigure  # noqa: E402
from jaxlrp.plot.normalize import as_real  # noqa: E402
from jaxlrp.plot.pixels import as_gray  # noqa: E402

__all__ = ["atlas", "cards", "circuit", "comparison", "dimmed", "graph"]


_INCHES = 1.25  # width of a crop


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
    """Concept cards, one row for each concept: its share, where it is in a sample, and its references.

    Args:
      references: from concepts to their references, as `concepts.references` returns them.
      maps: from concepts to the relevance of a sample under the condition on the concept, (height, width),
        drawn with a common color scale; None for none.
      shares: from concepts to normalized relevance in that sample, shown as a number and as a bar.
      image: the sample, (height, width, 3), under the maps; None for maps alone.
      names: of concepts; None for their numbers.
      n: the maximum number of references in a row, >= 1.
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
        raise ValueError("references is empty: pass the references of at least one concept")
    shown = {concept: list(found)[:n] for concept, found in references.items()}
    columns = max([1, *(len(found) for found in shown.values())])
    wide = 2.4 if words is not None else _INCHES
    tall = 0.75 if words is not None and maps is None else _INCHES
    widths = [1.1] + [_INCHES] * (maps is not None) + [wide] * columns
    figure = NotebookFigure(
        figsize=(sum(widths) + 0.1, len(shown) * (tall + 0.08) + 0.35), layout="compressed"
    )
    spec = figure.add_gridspec(len(shown), len(widths), width_ratios=widths)
    limit = None
    if maps is not None:
        missing = [concept for concept in shown if concept not in maps]
        if missing:
            raise ValueError(f"maps must have a map for each concept, but {missing} are missing")
        limit = max(float(np.abs(as_real(maps[c], "maps")).max()) for c in shown) or None
    most = max((abs(float(s)) for s in (shares or {}).values()), default=0.0) or 1.0
    for row, (concept, found) in enumerate(shown.items()):
        share = None if shares is None else float(shares[concept])
        label(figure.add_subplot(spec[row, 0]), name_of(names, concept), share, most)
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

    The saturation of the color shows the relevance of the concept per pixel of the region. Regions in which
    no concept has positive relevance stay gray.

    Args:
      found: the result of `concepts.local`.
      regions: the regions for which it was computed, (regions, height, width) up to axes of length 1.
      image: the sample, (height, width, 3), uint8 or floats in [0, 1].
      example: which one of the batch.
      n: the number of concepts with their own color, 1 to 10: those with the largest relevance. The others
        share one color.
      names: of concepts; None for their numbers.
      references: from concepts to references; the first is drawn beside the image.
      to_image: as in `cards`.
      title: of the figure.

    Returns:
      The Figure.

    Raises:
      ValueError: if shapes do not fit, or `n` is out of range.
    """
    if not 1 <= check_count("n", n) <= 10:
        raise ValueError(f"n must be in [1, 10], got {n}")
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
    canvas[_borders(parts.argmax(axis=0))] += 0.35

    figure = NotebookFigure(figsize=(7.2, 4.6), layout="compressed")
    spec = figure.add_gridspec(max(len(kept), 1), 2, width_ratios=[4.6, 1.0])
    ax = figure.add_subplot(spec[:, 0])
    ax.imshow(np.clip(canvas, 0, 1))
    ax.set(xticks=[], yticks=[], title=title or "")
    if references is None:
        handles = [Patch(color=colors[c], label=name_of(names, c)) for c in kept]
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        return figure
    for i, concept in enumerate(kept):
        side = figure.add_subplot(spec[i, 1])
        side.set(xticks=[], yticks=[])
        for reference in list(references.get(concept, ()))[:1]:
            draw(side, reference, to_image, None, 1.0)
        side.spines[:].set(linewidth=3, color=colors[concept], visible=True)
        side.set_ylabel(
            name_of(names, concept), rotation=0, ha="right", va="center", fontsize="small"
        )
    return figure


def _borders(labels: np.ndarray) -> np.ndarray:
    """Where a label differs from the one to the right or below."""
    found = np.zeros(labels.shape, bool)
    found[:-1] |= labels[:-1] != labels[1:]
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return found


def _hues() -> list[tuple[float, float, float]]:
    """Ten colors that are easy to tell apart."""
    return [tuple(c) for c in matplotlib.colormaps["tab10"].colors]  # type: ignore[attr-defined]
