"""A report of a screening: the findings of each domain, how surprising they are, and their effects."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp._checks import as_path, check_count
from jaxlrp._html import page, table, text
from jaxlrp.spray.findings import Finding, Screening
from jaxlrp.spray.preprocess import Step, l1_normalize
from jaxlrp.spray.ranking import Ranking, cluster_means
from jaxlrp.spray.report import Pictures, class_names, number, section

if TYPE_CHECKING:
    from jaxlrp.spray.report import Draw

_HOW_TO_READ_A_SCREENING = (
    "Each class was split into clusters of samples whose predictions have similar explanations, in several "
    "domains of relevance. Fisher measures how clear the best split of a class is (1000 is practically "
    "perfect). t is the number of standard deviations by which the logarithm of this score exceeds that of "
    "other classes. p is the probability of such a score by chance anywhere in this table. A star marks "
    "surprising findings. The effect compares the outputs of the cluster with those of the rest of its "
    "class, which is an association; it is an effect of the pattern only where the pattern was removed. "
    "A surprising finding may be a Clever Hans or a legitimate second way to recognize the class: look at "
    "the samples."
)
_FINDINGS = 100  # lines of the table


def screening_report(
    path: str | os.PathLike[str],
    screening: Screening,
    relevance: Any = None,
    preprocess: Step = l1_normalize,
    *,
    inputs: Any = None,
    names: Mapping[int, str] | Sequence[str] | None = None,
    max_classes: int = 10,
    max_examples: int = 6,
    draw: Draw | None = None,
    title: str = "Screening of explanations",
) -> Path:
    """Writes a screening as one self-contained HTML file.

    The file has a table of all findings (class, domain, score, significance, effect on predictions), a
    table of classes by domains and, for the first classes, what `report` shows, in the domain where the
    class is most surprising. Images always show the relevance as given, whatever the domain.

    Args:
      path: the file; an existing file is replaced.
      screening: returned by `screen`.
      relevance, preprocess, inputs, names, max_classes, max_examples, draw, title: as in `report`.

    Returns:
      The path.

    Raises:
      ImportError, ValueError: as in `report`.

    Example:
      >>> import jax
      >>> from jaxlrp.spray import screen
      >>> maps = np.random.default_rng(0).normal(size=(30, 8, 8))
      >>> found = screen(maps, np.zeros(30, int), key=jax.random.key(0))
      >>> screening_report("screening.html", found, maps)  # doctest: +SKIP
      PosixPath('screening.html')
    """
    from jaxlrp.spray import figures

    check_count("max_classes", max_classes)
    check_count("max_examples", max_examples)
    called = class_names(names, screening.classes)
    pictures = Pictures(relevance, inputs, preprocess, draw or figures.draw_sample)
    parts = [text("p", _HOW_TO_READ_A_SCREENING), _findings(screening, called)]
    parts += [text("h2", "Findings by domain"), _matrix(screening, called)]
    for category in screening.classes[:max_classes]:
        best = screening.of_class(category)[0]
        ranking = _with_means(screening.rankings[best.domain], category, relevance, preprocess)
        (analysis,) = (a for a in screening.analyses[best.domain] if a.category == category)
        name = f"{called[category]}, domain {best.domain}"
        parts += section(analysis, ranking, name, None, max_examples, pictures)
    left = len(screening.classes) - max_classes
    if left > 0:
        parts.append(text("p", f"{left} more classes are not shown with images."))
    target = as_path("path", path)
    target.write_text(page(title, parts), encoding="utf-8")
    return target


def _findings(screening: Screening, called: Mapping[int, str]) -> str:
    rows = [
        [
            i,
            called[f.category],
            f.domain,
            number(f.fisher),
            f"{f.t:.1f}",
            _p_value(f, screening.alpha),
            f"{f.candidate.size} ({f.candidate.share:.1%})",
            "not measured: no outputs were given" if f.effect is None else str(f.effect),
        ]
        for i, f in enumerate(screening.findings[:_FINDINGS], start=1)
    ]
    head = ["rank", "class", "domain", "Fisher", "t", "corrected p", "size", "effect"]
    return table(head, rows)


def _matrix(screening: Screening, called: Mapping[int, str]) -> str:
    """Score and corrected p-value of each class in each domain."""
    rows = []
    for i, category in enumerate(screening.classes, start=1):
        by_domain = {f.domain: f for f in screening.of_class(category)}
        cells = [
            f"{number(by_domain[d].fisher)} ({_p_value(by_domain[d], screening.alpha)})"
            if d in by_domain
            else "one cluster"
            for d in screening.analyses
        ]
        rows.append([i, called[category], *cells])
    return table(["rank", "class", *(f"{d}: Fisher (p)" for d in screening.analyses)], rows)


def _p_value(found: Finding, alpha: float) -> str:
    if np.isnan(found.p_value):
        return "unknown"
    return f"{found.p_value:.2g}" + (" *" if found.p_value <= alpha else "")


def _with_means(ranking: Ranking, category: int, relevance: Any, preprocess: Step) -> Ranking:
    """The clusters of one class, with their mean relevance."""
    of_class = ranking.of_class(category)
    if relevance is not None:
        means = cluster_means(relevance, [c.rows for c in of_class], preprocess, batch_size=256)
        pairs = zip(of_class, means, strict=True)
        of_class = tuple(dataclasses.replace(c, mean=mean) for c, mean in pairs)
    return dataclasses.replace(ranking, candidates=of_class)
