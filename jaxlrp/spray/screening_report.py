"""A report of a screening: which domain found what, how surprising it is, and its effect."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp._checks import check_count
from jaxlrp.spray.html import page, table, text
from jaxlrp.spray.preprocess import Step, l1_normalize
from jaxlrp.spray.ranking import Ranking, cluster_means
from jaxlrp.spray.report import Pictures, class_names, number, section
from jaxlrp.spray.screening import Finding, Screening

if TYPE_CHECKING:
    from jaxlrp.spray.report import Draw

_HOW_TO_READ_A_SCREENING = (
    "Each class was parted into clusters of samples whose predictions have alike explanations, in several "
    "domains of relevance. Fisher is how clearly the best cut of a class is cut (1000 is as good as "
    "perfect), t how many standard deviations the logarithm of this score lies above that of other "
    "classes, and p the probability of such a score by chance anywhere in this table. A star marks what is "
    "surprising. The effect compares outputs of the cluster with those of the rest of its class, which "
    "is an association; only where the pattern was removed is it an effect of the pattern. "
    "What is surprising may be a Clever Hans or an honest second way to be that class: look at the samples."
)
_FINDINGS = 100  # lines of the table


def screening_report(
    path: str | os.PathLike[str],
    screening: Screening,
    relevance: Any = None,
    prepare: Step = l1_normalize,
    *,
    inputs: Any = None,
    names: Mapping[int, str] | Sequence[str] | None = None,
    classes: int = 10,
    examples: int = 6,
    draw: Draw | None = None,
    title: str = "Screening of explanations",
) -> Path:
    """Writes a screening with its pictures as one HTML file that needs no other file and no network.

    A table of all findings: class, domain, score, how surprising it is, effect on predictions. A table of
    which domain found which class. For the first classes, in the domain where they are most surprising,
    what `report` shows. The pictures are of the relevance as it was given, whatever the domain.

    Args:
      path: of the file; one that is there is replaced.
      screening: of `screen`.
      relevance, prepare, inputs, names, classes, examples, draw, title: as in `report`.

    Returns:
      The path.

    Raises:
      ImportError, ValueError: as `report` does.

    Example:
      >>> import jax
      >>> from jaxlrp.spray import screen
      >>> maps = np.random.default_rng(0).normal(size=(30, 8, 8))
      >>> found = screen(maps, np.zeros(30, int), key=jax.random.key(0))
      >>> screening_report("screening.html", found, maps)  # doctest: +SKIP
      PosixPath('screening.html')
    """
    from jaxlrp.spray import figures

    check_count("classes", classes)
    check_count("examples", examples)
    called = class_names(names, screening.classes)
    pictures = Pictures(relevance, inputs, prepare, draw or figures.draw_sample)
    parts = [text("p", _HOW_TO_READ_A_SCREENING), _findings(screening, called)]
    parts += [text("h2", "Which domain found what"), _matrix(screening, called)]
    for category in screening.classes[:classes]:
        best = screening.of(category)[0]
        ranking = _with_means(screening.rankings[best.domain], category, relevance, prepare)
        (analysis,) = (a for a in screening.analyses[best.domain] if a.category == category)
        name = f"{called[category]}, domain {best.domain}"
        parts += section(analysis, ranking, name, None, examples, pictures)
    left = len(screening.classes) - classes
    if left > 0:
        parts.append(text("p", f"{left} more classes are not shown with pictures."))
    target = Path(path)
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
    """Classes by domains: score and corrected p-value."""
    rows = []
    for i, category in enumerate(screening.classes, start=1):
        by_domain = {f.domain: f for f in screening.of(category)}
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


def _with_means(ranking: Ranking, category: int, relevance: Any, prepare: Step) -> Ranking:
    """The clusters of one class, with their means of relevance."""
    of_class = ranking.of(category)
    if relevance is not None:
        means = cluster_means(relevance, [c.rows for c in of_class], prepare, batch=256)
        pairs = zip(of_class, means, strict=True)
        of_class = tuple(dataclasses.replace(c, mean=mean) for c, mean in pairs)
    return dataclasses.replace(ranking, candidates=of_class)
