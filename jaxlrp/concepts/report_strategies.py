"""Sections of a report: the strategies of each class with their outliers; what concepts are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp._html import figure_tag, text
from jaxlrp.concepts import findings
from jaxlrp.concepts.graph import Grower
from jaxlrp.concepts.opened import StoredScores
from jaxlrp.concepts.prototypes import prototypes
from jaxlrp.concepts.references import Reference
from jaxlrp.concepts.report_page import Contents, picture, thumbnail
from jaxlrp.concepts.statistics import normalized_on_host
from jaxlrp.concepts.strategies import Prototypes

_TOP, _DIFFER = 3, 3  # concepts that are named for a strategy, and for an outlier
_LEAST = 3  # samples of a class that has strategies
_RULE = (
    "The strategies of a class are the components of a Gaussian mixture of normalized relevance (PCX), as "
    "many as the Bayesian information criterion chooses: the share of samples that each covers, the sample "
    "nearest to its mean, and the concepts of largest mean. Outliers have the lowest density under the "
    "mixture of their class: which concepts do they use more or less than their strategy?"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """Mixtures of some classes, and the rows of the store that they were fitted to.

    Attributes:
      found: the mixtures; its classes are indices of groups.
      rows: (samples,), the row of each sample in the store.
      relevance: (samples, concepts), normalized.
      groups: (samples,), of the samples.
    """

    found: Prototypes
    rows: np.ndarray
    relevance: np.ndarray
    groups: np.ndarray


def fit(
    scores: StoredScores, name: str, groups: np.ndarray, largest: Sequence[int], most: int
) -> Fitted | None:
    """The strategies of the largest classes; None if none of them has three samples.

    Args:
      scores, name: of the family of concepts.
      groups: (samples,), the index of each row's class.
      largest: indices of classes.
      most: components that are tried, at most.
    """
    count = np.bincount(groups)
    kept = [g for g in largest if count[g] >= _LEAST]
    if not kept:
        return None
    rows = np.flatnonzero(np.isin(groups, kept))
    wanted, parts = np.isin(np.arange(len(groups)), rows), {}
    for at, relevance in scores.blocks(name, "relevance"):
        inside = wanted[at]
        for row, one in zip(at[inside], normalized_on_host(relevance)[inside], strict=True):
            parts[int(row)] = one
    relevance = np.stack([parts[int(row)] for row in rows]).astype(np.float64)
    found = prototypes(relevance, groups[rows], max_components=most)
    return Fitted(found, rows, relevance, groups[rows])


def strategies(
    contents: Contents, fitted: Fitted | None, called: Sequence[str], ids: Sequence[Any], pictures: Any,
    odd: int,
) -> list[str]:  # fmt: skip
    """The section of strategies and outliers, as HTML.

    Args:
      contents: of the page, for the small pictures of concepts.
      fitted: the result of `fit`.
      called: the name of each group.
      ids: of the rows of the store.
      pictures: the `Pictures` of the report.
      odd: outliers of each class, at most.
    """
    if fitted is None:
        return [text("p", _RULE), text("p", "No class has three samples.")]
    parts = [text("p", _RULE)]
    for i, group in enumerate(np.asarray(fitted.found.classes).tolist()):
        own = np.flatnonzero(fitted.groups == group)
        parts += [text("h3", f"{called[group]} ({len(own)} samples)")]
        for k in range(int(fitted.found.n_components[i])):
            parts += _strategy(contents, fitted, i, k, ids, pictures)
        score = np.asarray(fitted.found.outlier_score(fitted.relevance[own], group))
        for at in findings.best(score)[:odd]:
            parts += _outlier(contents, fitted, int(own[at]), float(score[at]), ids, pictures)
    return parts


def _strategy(
    contents: Contents, fitted: Fitted, i: int, k: int, ids: Sequence[Any], pictures: Any
) -> list[str]:
    mean, row = fitted.found.means[i, k], int(fitted.rows[fitted.found.samples[i, k]])
    nearest = pictures.sample(row, f"{ids[row]}, the nearest")
    return [
        text("p", f"strategy {k}: {fitted.found.coverage[i, k]:.0%} of the samples"),
        '<div class="row uses">',
        picture(nearest) if nearest else "",
        *(
            thumbnail(contents, c, f"concept {c}: {mean[c]:+.1%}")
            for c in findings.best(np.abs(mean))[:_TOP]
        ),
        "</div>",
    ]


def _outlier(
    contents: Contents, fitted: Fitted, at: int, score: float, ids: Sequence[Any], pictures: Any
) -> list[str]:
    group, row = int(fitted.groups[at]), int(fitted.rows[at])
    apart = fitted.found.difference(fitted.relevance[at : at + 1], group)
    delta, own = np.asarray(apart.delta)[0], fitted.relevance[at]
    usual = np.asarray(apart.prototype)[0]
    strategy = int(np.asarray(apart.component)[0])
    shown = pictures.sample(row, f"{ids[row]}")
    return [
        text(
            "p",
            f"outlier sample {ids[row]}: -log density {score:.1f} nats, nearest strategy {strategy}",
        ),
        '<div class="row uses">',
        picture(shown) if shown else "",
        *(
            thumbnail(
                contents,
                c,
                f"concept {c} {'over' if delta[c] > 0 else 'under'}used: {own[c]:+.1%}, usually "
                f"{usual[c]:+.1%}",
            )
            for c in findings.best(np.abs(delta))[:_DIFFER]
        ),
        "</div>",
    ]


def graphs(
    grow: Grower,
    name: str,
    located: Sequence[Reference],
    call: Any,
    targets: np.ndarray | None,
    pictures: Any,
) -> list[str]:
    """The section of attribution graphs, as HTML.

    Args:
      grow: the result of `concepts.graph`; `name` is the family of the report in it.
      located: one reference of each concept that gets a graph.
      call: from a row to the arguments of the explainer.
      targets: (samples,), the class that was explained; None if there is none.
      pictures: the `Pictures` of the report.
    """
    from jaxlrp.concepts import figures

    parts = [
        text(
            "p",
            "What the concept uses in its first reference sample: the lower concepts that get its "
            "relevance, and those that they use (red: for it, blue: against it; the width is the share).",
        )
    ]
    for reference in located:
        target = None if targets is None else int(targets[reference.row])
        found = grow(*call(reference.row), target=target, node=(name, reference.concept))
        drawn = figures.graph(
            found, references={(name, reference.concept): [reference]}, to_image=pictures.to_image
        )
        tag = figure_tag(drawn, f"attribution graph of concept {reference.concept}")
        parts += [text("h3", f"Concept {reference.concept}"), f"<figure>{tag}</figure>"]
    return parts
