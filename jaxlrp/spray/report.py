"""A report of a ranking: one self-contained HTML file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxlrp._checks import as_path, check_count
from jaxlrp._html import figure_tag, page, table, text
from jaxlrp.errors import counted
from jaxlrp.spray.analysis import Analysis
from jaxlrp.spray.preprocess import Step, l1_normalize
from jaxlrp.spray.ranking import Candidate, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draw = Callable[[Axes, np.ndarray, np.ndarray | None], None]
    Panel = tuple[str, np.ndarray, np.ndarray | None]

_HOW_TO_READ = (
    "Each class was split into clusters of samples whose predictions have similar explanations. A cluster "
    "is ranked high if it is clearly separated from the rest of its class (Fisher's criterion; 1000 is "
    "practically perfect). It may be a Clever Hans, such as a watermark, or a legitimate second way to "
    "recognize the class: look at where the relevance is, and change that part of the input to be sure."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Sources of the images of a sample."""

    relevance: Any
    inputs: Any
    preprocess: Step
    draw: Draw


def report(
    path: str | os.PathLike[str],
    analyses: Sequence[Analysis],
    ranking: Ranking,
    relevance: Any = None,
    preprocess: Step = l1_normalize,
    *,
    inputs: Any = None,
    names: Mapping[int, str] | Sequence[str] | None = None,
    view: str | None = None,
    max_classes: int = 10,
    max_examples: int = 6,
    draw: Draw | None = None,
    title: str = "Spectral relevance analysis",
) -> Path:
    """Writes a ranking as one self-contained HTML file.

    The file has a table of all classes and, for the top-ranked ones, the eigenvalues, a view, the mean
    relevance of each cluster and its most typical samples.

    Args:
      path: the file; an existing file is replaced.
      analyses: returned by `analyze`.
      ranking: returned by `rank` for these analyses; mean maps need a ranking that was given `relevance`.
      relevance: as in `analyze`; None to show no samples.
      preprocess: function from a batch of relevance to what is drawn: (n, T), (n, H, W), or (n, H, W, 3).
      inputs: (N, ...), the explained inputs: images (N, H, W) or (N, H, W, C), uint8 or in [0, 1], or
        signals (N, T). None for relevance alone.
      names: names of the classes.
      view: the name of an embedding whose first two columns are drawn; None for the last of each analysis.
      max_classes: number of classes that are shown with images, >= 1.
      max_examples: number of samples that are shown per cluster, >= 1.
      draw: function that draws one sample. It is called with a matplotlib Axes, the preprocessed relevance
        of a sample or of a cluster mean, and the input or None. None draws signals as lines and images as
        heatmaps.
      title: title of the page.

    Returns:
      The path.

    Raises:
      ImportError: if matplotlib is not installed (extra ``plot``).
      ValueError: if an argument is invalid, or the shape of a sample needs `draw`.

    Example:
      >>> import jax
      >>> from jaxlrp.spray import analyze, rank
      >>> maps = np.random.default_rng(0).normal(size=(30, 8, 8))
      >>> analyses = analyze(maps, np.zeros(30, int), key=jax.random.key(0))
      >>> ranking = rank(analyses, maps)
      >>> report("spray.html", analyses, ranking, maps, names=["cat"])  # doctest: +SKIP
      PosixPath('spray.html')
    """
    from jaxlrp.spray import figures

    check_count("max_classes", max_classes)
    check_count("max_examples", max_examples)
    by_class = {found.category: found for found in analyses}
    missing = [c for c in ranking.classes if c not in by_class]
    if missing:
        raise ValueError(
            f"analyses must contain every class of ranking, but class {missing[0]} is missing"
        )
    called = class_names(names, ranking.classes)
    pictures = Pictures(relevance, inputs, preprocess, draw or figures.draw_sample)
    parts = [text("p", _HOW_TO_READ), _overview(ranking, by_class, called)]
    for category in ranking.classes[:max_classes]:
        analysis = by_class[category]
        parts += section(analysis, ranking, called[category], view, max_examples, pictures)
    left = len(ranking.classes) - max_classes
    if left > 0:
        parts.append(text("p", f"{left} more classes are not shown with images."))
    target = as_path("path", path)
    target.write_text(page(title, parts), encoding="utf-8")
    return target


def class_names(names: Any, classes: Sequence[int]) -> dict[int, str]:
    if names is None:
        return {c: f"class {c}" for c in classes}
    try:
        return {c: f"{names[c]} ({c})" for c in classes}
    except (KeyError, IndexError):
        raise ValueError(
            f"names must cover every class, up to {max(classes)}, got {len(names)} names"
        ) from None


def _overview(ranking: Ranking, by_class: Mapping[int, Analysis], called: Mapping[int, str]) -> str:
    rows = []
    for i, category in enumerate(ranking.classes, start=1):
        first, all_of_it = ranking.of_class(category)[0], ranking.of_class(category)
        samples = len(by_class[category].index)
        rows.append(
            [
                i,
                called[category],
                samples,
                len(all_of_it),
                number(first.fisher),
                first.cluster,
                f"{first.size} ({first.share:.1%})",
                _purity(first),
            ]
        )
    head = ["rank", "class", "samples", "clusters", "Fisher", "cluster", "its size", "its purity"]
    return table(head, rows)


def section(
    analysis: Analysis,
    ranking: Ranking,
    name: str,
    view: str | None,
    max_examples: int,
    pictures: Pictures,
) -> list[str]:
    from jaxlrp.spray import figures

    clustering = analysis.clusterings[ranking.clustering]
    shown = list(analysis.embeddings)[-1] if view is None else view
    if shown not in analysis.embeddings:
        raise ValueError(f"view must be one of {sorted(analysis.embeddings)}, got {shown!r}")
    overview = figures.overview(analysis, clustering, shown)
    parts = [
        text("h2", name),
        figure_tag(overview, f"eigenvalues and {shown} of {name}"),
    ]
    for found in ranking.of_class(analysis.category):
        facts = (
            f"{counted(found.size, 'sample')} ({found.share:.1%}), Fisher {number(found.fisher)}"
        )
        if found.purity is not None:
            facts += f", purity {_purity(found)}"
        parts.append(text("h3", f"Cluster {found.cluster}: {facts}"))
        strip = _strip(found, max_examples, pictures)
        if strip:
            panels = figures.strip(strip, pictures.draw)
            parts.append(figure_tag(panels, f"mean and typical samples of cluster {found.cluster}"))
        rows = ", ".join(map(str, found.rows[:max_examples].tolist()))
        parts.append(text("p", f"Most typical rows of the data set: {rows}"))
    return parts


def _strip(found: Candidate, max_examples: int, pictures: Pictures) -> list[Panel]:
    """(title, relevance, input) of the mean and of the most typical samples."""
    panels: list[Panel] = [] if found.mean is None else [("mean", found.mean, None)]
    if pictures.relevance is None:
        return panels
    for row in found.rows[:max_examples].tolist():
        # One sample at a time: a store is read only where needed, whatever its batch size.
        part = pictures.relevance[row : row + 1]
        values = np.asarray(pictures.preprocess(jnp.asarray(part)))
        below = None if pictures.inputs is None else np.asarray(pictures.inputs[row : row + 1])[0]
        panels.append((f"row {row}", values[0], below))
    return panels


def number(score: float) -> str:
    return f"{score:.3g}" if score < 1000 else "≥ 1000"


def _purity(found: Candidate) -> str:
    return "" if found.purity is None else f"{found.purity:.3f}"
