"""A report of what a model uses: one self-contained HTML file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import as_path, check_count
from jaxlrp.concepts import findings, report_circuits, report_strategies
from jaxlrp.concepts.extras import need
from jaxlrp.concepts.graph import Grower, graph
from jaxlrp.concepts.kept import Kept
from jaxlrp.concepts.locate import Locator, locate
from jaxlrp.concepts.opened import StoredScores
from jaxlrp.concepts.references import Reference, View
from jaxlrp.concepts.report_numbers import Means, groups_of, leading, means_of, names_of, top_pairs
from jaxlrp.concepts.report_page import Card, ClassRow, Contents, OddRow, percent, render
from jaxlrp.concepts.report_search import (
    Embed,
    EmbedSamples,
    EmbedText,
    check_search,
    checked_vectors,
    embedded,
    similarity_of,
)
from jaxlrp.concepts.scores import Families, by_name
from jaxlrp.concepts.statistics import normalized_on_host
from jaxlrp.concepts.units import Concepts
from jaxlrp.errors import counted
from jaxlrp.explanation.explainer import Explainer

_USES = 3  # classes that are named on a card
_ALIKE = (
    "Each of the concepts above beside the concept of the whole layer, with a card or without, that is "
    "relevant for the same samples: cosine of normalized relevance over {} samples."
)
_ALIKE_BY_EMBEDDING = (
    "Pairs of the concepts above: cosine of the embeddings of their reference samples."
)


@dataclasses.dataclass(frozen=True)
class ReportSize:
    """How much a report shows.

    Attributes:
      cards: the maximum number of concepts with a card.
      per_class: number of top concepts of each class.
      classes: number of classes, those with the most samples.
      references: number of reference samples of each concept.
      odd: number of odd samples.
      alike: number of pairs of similar concepts.
      outliers: number of outliers of each class, with `strategies`.
      graphs: number of attribution graphs, with `below`.
      circuits: number of classes with a circuit, with `circuits`: those with the most samples.
    """

    cards: int = 24
    per_class: int = 5
    classes: int = 10
    references: int = 6
    odd: int = 8
    alike: int = 12
    outliers: int = 3
    graphs: int = 4
    circuits: int = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_count(field.name, getattr(self, field.name))


def report(
    path: str | os.PathLike[str],
    explainer: Explainer,
    concepts: Concepts,
    scores: StoredScores,
    fetch: Callable[[np.ndarray], Any] | ArrayLike,
    *,
    axes: Sequence[int],
    name: str | None = None,
    args: Sequence[Any] = (),
    labels: Mapping[int, str] | Sequence[str] | None = None,
    to_image: Callable[[np.ndarray], np.ndarray] | None = None,
    words: Callable[[np.ndarray], Sequence[str]] | None = None,
    embed: Embed | None = None,
    embed_samples: EmbedSamples | None = None,
    embed_text: EmbedText | None = None,
    search_words: Sequence[str] = (),
    strategies: int | None = None,
    below: Families | None = None,
    circuits: int | None = None,
    size: ReportSize | None = None,
    batch_size: int = 16,
    keep: str | os.PathLike[str] | None = None,
    progress: str = "auto",
    title: str | None = None,
) -> Path:
    """Writes what a model uses as one self-contained HTML file.

    It answers, in this order: what does the model see (a card for each concept, with its share of
    relevance, where it is in a sample, and its reference samples); what does it use for each class; on
    request by which strategies, what concepts are made of, and which carry the score; which samples are
    odd; which concepts are alike. A text field filters the cards by the names of classes and, with `embed`
    and `embed_text`, sorts them by similarity to the words of a list. The file needs no network access.

    Args:
      path: the file; an existing file is replaced.
      explainer: the explainer with which the scores were collected.
      concepts: the concepts of one layer.
      scores: the result of `open_scores`.
      fetch: from rows of `scores`, an array of integers, to the batch of their inputs; or the inputs
        themselves, (samples, *shape). See `references`.
      axes: the axes of one example, without the batch, along which concepts are located: (0, 1) for images
        (height, width, channels).
      name: of the concepts in `scores`; None for their layer.
      args: the positional arguments of the explainer before those that `fetch` returns.
      labels: names of the classes; None for their numbers.
      to_image, words: how to show an example; see `figures.cards`.
      embed: from reference crops, uint8 (height, width, 3) for images and parts of examples otherwise, to
        vectors (crops, d). With it concepts are alike if their references are, else if they are relevant
        for the same samples.
      embed_samples: in place of `embed`, from rows of `scores` to vectors (rows, d), such as embeddings of
        the names of samples.
      embed_text: from words to vectors (words, d) in the same space.
      search_words: the words to which similarity is computed. A page has no model, so others cannot be
        ranked.
      strategies: adds the strategies of each class and their outliers (PCX, see `prototypes`, which needs
        scikit-learn): the largest number of components that is tried; None leaves them out.
      below: adds attribution graphs of the first concepts: families of lower layers, as in `graph`.
      circuits: adds the circuit of each class as a graph, with its ablation curve (see `circuit_graph`
        and `circuit_curve`): the number of concepts of this layer and of those `below` that it has, >= 1.
        Scores must have targets.
      size: how much is shown.
      batch_size: samples that are located together, >= 1.
      keep: a folder for the relevance of reference samples. What an earlier report of the same scores left
        there, even if it was interrupted, is not computed again. None keeps nothing.
      progress: "bar", "log", "none" or "auto", as in `attribute_dataset`.
      title: of the page.

    Returns:
      The path.

    Raises:
      ImportError: if matplotlib is not installed (extra ``concepts``).
      KeyError, TypeError, ValueError: if an argument is invalid, or there is no sample.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> explain = lrp.explain(lambda x: jnp.tanh(x).sum((1, 2)) @ jnp.array([[1.0, -1.0]] * 3))
      >>> family = concepts.Channels("tanh", axis=-1)
      >>> x, y = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype("f4"), np.array([0, 1] * 3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     done = concepts.collect(explain, family, (x, y), f"{folder}/scores", progress="none")
      ...     stored = concepts.open_scores(f"{folder}/scores")
      ...     file = concepts.report(
      ...         f"{folder}/a.html", explain, family, stored, x, axes=(0, 1), progress="none"
      ...     )
      ...     file.name
      'a.html'
    """
    from jaxlrp.concepts import report_pictures

    size, name = size or ReportSize(), concepts.layer if name is None else name
    check_search(embed, embed_samples, embed_text, search_words)
    if strategies is not None:
        check_count("strategies", strategies)
        need("sklearn.mixture", "the strategies of a report")  # before anything is computed
    grow = _grower(explainer, concepts, name, below)
    made = _circuits(explainer, concepts, name, below, circuits, scores)
    check_count("batch_size", batch_size)
    groups, classes = groups_of(scores)
    called, found = names_of(labels, classes), means_of(scores, name, classes)
    shown = findings.choose(found.means, found.counts, size.per_class, size.cards)
    if not shown:
        raise ValueError(
            f"no concept of {name!r} has positive mean relevance in any class: there is nothing to show"
        )
    if not callable(fetch) and len(np.asarray(fetch)) != len(scores.ids):
        raise ValueError(
            f"fetch contains {len(np.asarray(fetch))} inputs, but {len(scores.ids)} samples have "
            "scores: pass the inputs of scores.ids, in that order; samples that failed have no scores"
        )
    give = fetch if callable(fetch) else np.asarray(fetch).__getitem__
    blocks = ((rows, normalized_on_host(r)) for rows, r in scores.blocks(name, "relevance"))
    seen = findings.profiles(blocks, groups, found.means, found.counts, shown, size.odd)
    alike = findings.pairs(seen.cosine, shown, range(seen.cosine.shape[1]), size.alike)
    by_embedding = embed is not None or embed_samples is not None
    more = [] if by_embedding else [c for pair in alike for c in pair[:2] if c not in shown]
    locator = Locator(locate(explainer, concepts), give, scores.targets, tuple(args), batch_size)
    kept = Kept(None if keep is None else Path(keep), f"{scores.identity} {name} {tuple(axes)}")
    wanted = dict.fromkeys(shown, size.references) | dict.fromkeys(more, 1)
    pairs = top_pairs(scores, name, wanted)
    located = {c: [] for c in wanted} | kept.references(locator, View(tuple(axes)), pairs, progress)
    pictures = report_pictures.Pictures(explainer, give, tuple(args), tuple(axes), to_image, words)
    largest = findings.best(found.counts)[: size.classes]
    alike_by, similarity = _ALIKE.format(len(scores.ids)), None
    if by_embedding:
        vectors = embedded(embed, embed_samples, {c: located[c] for c in shown}, pictures)
        alike = findings.pairs(vectors @ vectors.T, shown, shown, size.alike)
        alike_by = _ALIKE_BY_EMBEDDING
        if embed_text is not None and search_words:
            held = checked_vectors(embed_text(list(search_words)), len(search_words), "embed_text")
            similarity = similarity_of(held, vectors)
    contents = Contents(
        title=title or f"Concepts of {name}",
        facts=_facts(scores, name, found, shown),
        cards=[
            _card(concept, found, called, located[concept], pictures, scores, groups)
            for concept in shown
        ],
        classes=[
            ClassRow(called[g], int(found.counts[g]), leading(found.means[g], size.per_class))
            for g in largest
        ],
        more_classes=len(called) - len(largest),
        odd=[_odd_row(odd, called, pictures, str(scores.ids[odd.row])) for odd in seen.odd],
        alike=alike,
        alike_by=alike_by,
        thumbnails={
            concept: pictures.thumbnail(held[0]) for concept, held in located.items() if held
        },
        words=list(search_words) if similarity is not None else [],
        similarity=similarity,
    )
    sections = {}
    if strategies is not None:
        fitted = report_strategies.fit(scores, name, groups, largest, strategies)
        sections["By which strategies does it recognize each class?"] = (
            report_strategies.strategies(
                contents, fitted, called, scores.ids, pictures, size.outliers
            )
        )
    if grow is not None:
        first = [located[c][0] for c in shown if located[c]][: size.graphs]
        sections["What are concepts made of?"] = report_strategies.graphs(
            grow, name, first, pictures.call, scores.targets, pictures
        )
    if made is not None:
        assert scores.targets is not None  # `_circuits` has looked
        sections["Which concepts carry the score?"] = report_circuits.section(
            made, groups, largest[: size.circuits], called, scores.targets, pictures.call, located,
            to_image, words,
        )  # fmt: skip
    contents = dataclasses.replace(contents, sections=sections)
    target = as_path("path", path)
    target.write_text(render(contents), encoding="utf-8")
    return target


def _grower(
    explainer: Explainer, concepts: Concepts, name: str, below: Families | None
) -> Grower | None:
    """What makes attribution graphs."""
    if below is None:
        return None
    lower = by_name(below)
    if name in lower:
        raise ValueError(f"below must have lower layers than the report, got its own, {name!r}")
    need("networkx", "the graphs of a report")
    return graph(explainer, {name: concepts, **lower})


def _circuits(
    explainer: Explainer, concepts: Concepts, name: str, below: Families | None, size: int | None,
    scores: StoredScores,
) -> report_circuits.Circuits | None:  # fmt: skip
    """What makes circuits, before anything is computed."""
    if size is None:
        return None
    need("networkx", "the circuits of a report")
    if scores.targets is None:
        raise ValueError(
            "circuits need scores with targets, a class for each sample: collect scores with target=, or "
            "leave circuits out"
        )
    families = {name: concepts, **({} if below is None else by_name(below))}
    return report_circuits.circuits_of(explainer, name, families, check_count("circuits", size))


def _card(
    concept: int, found: Means, called: list[str], held: list[Reference], pictures: Any,
    scores: StoredScores, groups: np.ndarray,
) -> Card:  # fmt: skip
    column = found.means[:, concept]
    uses = [(called[g], s) for g, s in leading(column, _USES)]
    names = [name for name, _ in uses] + [called[groups[r.row]] for r in held]
    return Card(
        concept,
        float(found.overall[concept]),
        uses,
        [pictures.whole(r, f"{scores.ids[r.row]}") for r in held[:1] if len(r.axes) == 2],
        [pictures.crop(r, f"{scores.ids[r.row]} ({percent(r.value)})") for r in held],
        list(dict.fromkeys(names)),
    )


def _odd_row(odd: findings.Odd, called: list[str], pictures: Any, name: str) -> OddRow:
    picture = pictures.sample(odd.row, name)
    return OddRow(f"sample {name}", called[odd.group], odd.distance, odd.differ, picture)


def _facts(scores: StoredScores, name: str, found: Means, shown: list[int]) -> list[str]:
    classes = f", {counted(len(found.counts), 'class')}" if scores.targets is not None else ""
    failed = f"; {len(scores.failed)} could not be explained" if scores.failed else ""
    covered = np.abs(found.overall[shown]).sum() / max(np.abs(found.overall).sum(), 1e-12)
    held = f"{counted(found.means.shape[1], 'concept')}, {counted(len(scores.ids), 'sample')}"
    return [
        f"Layer {name}: {held}{classes}{failed}.",
        f"Shown: {counted(len(shown), 'concept')}, those that count most for the classes, {covered:.1%} of "
        "all mean relevance. What a concept stands for is for you to judge: look at its references, and "
        "change that part of an input to be sure.",
    ]
