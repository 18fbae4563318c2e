"""A report of what a model uses: one self-contained HTML file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.concepts import findings
from jaxlrp.concepts.opened import StoredScores
from jaxlrp.concepts.references import Reference, references
from jaxlrp.concepts.report_page import Card, ClassRow, Contents, OddRow, percent, render
from jaxlrp.concepts.statistics import normalized_on_host
from jaxlrp.concepts.topk import TopK
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer

Embed = Callable[[list[np.ndarray]], ArrayLike]
EmbedText = Callable[[list[str]], ArrayLike]

_BLOCK = 2**25  # bytes of scores that are read at once
_USES = 3  # classes that are named on a card


@dataclasses.dataclass(frozen=True)
class ReportSize:
    """How much a report shows.

    Attributes:
      cards: concepts, at most.
      per_class: top concepts of each class.
      classes: classes, those with most samples.
      references: reference samples of each concept.
      odd: samples.
      alike: pairs of concepts.
    """

    cards: int = 24
    per_class: int = 5
    classes: int = 10
    references: int = 6
    odd: int = 8
    alike: int = 12

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
    embed_text: EmbedText | None = None,
    search_words: Sequence[str] = (),
    size: ReportSize | None = None,
    batch_size: int = 16,
    progress: str = "auto",
    title: str | None = None,
) -> Path:
    """Writes what a model uses as one self-contained HTML file.

    It answers, in this order: what does the model see (a card for each concept, with its share of
    relevance, where it is in a sample, and its reference samples); what does it use for each class; which
    samples are odd; which concepts are alike. A text field filters the cards by the names of classes and,
    with `embed` and `embed_text`, orders them by similarity to the words of a list. The file needs no
    network.

    Args:
      path: the file; an existing file is replaced.
      explainer: with which the scores were collected.
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
      embed_text: from words to vectors (words, d) in the same space.
      search_words: the words to which similarity is computed. A page has no model, so others cannot be
        ranked.
      size: how much is shown.
      batch_size: samples that are located together, >= 1.
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
    _check_search(embed, embed_text, search_words)
    groups, classes = _groups(scores)
    found = _means(scores, name, classes)
    shown = findings.choose(found.means, found.counts, size.per_class, size.cards)
    if not shown:
        raise ValueError(
            f"no concept of {name!r} has positive mean relevance in any class: there is nothing to show"
        )
    if not callable(fetch) and len(np.asarray(fetch)) != len(scores.ids):
        raise ValueError(
            f"fetch holds {len(np.asarray(fetch))} inputs, but {len(scores.ids)} samples have scores: give "
            "the inputs of scores.ids, in that order; samples that failed have no scores"
        )
    give = fetch if callable(fetch) else np.asarray(fetch).__getitem__
    located = references(
        explainer, concepts, _top(scores, name, size.references), give, axes=axes, of=shown,
        targets=scores.targets, n=size.references, args=args, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    pass_ = findings.profiles(
        _blocks(scores, name), groups, found.means, found.counts, shown, size.odd
    )
    pictures = report_pictures.Pictures(explainer, give, tuple(args), tuple(axes), to_image, words)
    called = _called(labels, classes)
    largest = findings.best(found.counts)[: size.classes]
    cosine, by = pass_.cosine, f"their normalized relevance over {len(scores.ids)} samples"
    similarity = None
    if embed is not None:
        vectors = _embedded(embed, located, pictures)
        cosine, by = findings.unit(vectors) @ findings.unit(vectors).T, "embeddings of references"
        if embed_text is not None and search_words:
            held = _vectors(embed_text(list(search_words)), len(search_words), "embed_text")
            similarity = _similarity(held, vectors)
    contents = Contents(
        title=title or f"Concepts of {name}",
        facts=_facts(scores, name, found, shown),
        cards=[
            _card(concept, found, called, located[concept], pictures, scores, groups)
            for concept in shown
        ],
        classes=[
            ClassRow(called[g], int(found.counts[g]), _leading(found.means[g], size.per_class))
            for g in largest
        ],
        more_classes=len(called) - len(largest),
        odd=[
            OddRow(
                f"sample {scores.ids[odd.row]}",
                called[odd.group],
                odd.distance,
                odd.differ,
                pictures.sample(odd.row, str(scores.ids[odd.row])),
            )
            for odd in pass_.odd
        ],
        alike=[(shown[i], shown[j], value) for i, j, value in findings.pairs(cosine, size.alike)],
        alike_by=by,
        thumbnails={
            concept: pictures.thumbnail(held[0]) for concept, held in located.items() if held
        },
        words=list(search_words) if similarity is not None else [],
        similarity=similarity,
    )
    target = Path(path)
    target.write_text(render(contents), encoding="utf-8")
    return target


@dataclasses.dataclass(frozen=True, eq=False)
class _Means:
    """Mean normalized relevance (classes, concepts) and number of samples (classes,)."""

    means: np.ndarray
    counts: np.ndarray

    @property
    def overall(self) -> np.ndarray:
        return np.average(self.means, axis=0, weights=self.counts)


def _groups(scores: StoredScores) -> tuple[np.ndarray, list[int] | None]:
    """The index of each sample's class among those with samples, and these; None without classes."""
    if not len(scores.ids):
        raise ValueError(f"the store {str(scores.path)!r} has no samples: collect some first")
    if scores.targets is None:
        return np.zeros(len(scores.ids), np.int64), None
    classes, groups = np.unique(scores.targets, return_inverse=True)
    return groups, classes.tolist()


def _means(scores: StoredScores, name: str, classes: list[int] | None) -> _Means:
    found = scores.statistics(name, per_class=False if classes is None else classes)
    return _Means(np.atleast_2d(found.prototypes), np.atleast_1d(found.count))


def _called(labels: Any, classes: list[int] | None) -> list[str]:
    if classes is None:
        return ["all samples"]
    if labels is None or not len(labels):
        return [f"class {c}" for c in classes]
    try:
        return [f"{labels[c]} ({c})" for c in classes]
    except (KeyError, IndexError):
        raise ValueError(
            f"labels must name every class, up to {max(classes)}, got {len(labels)} names"
        ) from None


def _top(scores: StoredScores, name: str, n: int) -> TopK:
    """The samples with the largest normalized relevance of each concept, if it is positive."""
    found = scores.top(name, k=min(n, len(scores.ids)))
    return dataclasses.replace(found, rows=np.where(found.values > 0, found.rows, -1))


def _blocks(scores: StoredScores, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    held = scores[name].relevance
    size = max(_BLOCK // (held.dtype.itemsize * held.shape[-1]), 1)
    for begin in range(0, len(scores.ids), size):
        rows = np.arange(begin, min(begin + size, len(scores.ids)))
        yield rows, normalized_on_host(held[begin : begin + size])


def _leading(means: np.ndarray, n: int) -> list[tuple[int, float]]:
    order = findings.best(means)[:n]
    return [(c, float(means[c])) for c in order if means[c] > 0]


def _card(
    concept: int, found: _Means, called: list[str], held: list[Reference], pictures: Any,
    scores: StoredScores, groups: np.ndarray,
) -> Card:  # fmt: skip
    column = found.means[:, concept]
    uses = [(called[g], s) for g, s in _leading(column, _USES)]
    names = [name for name, _ in uses] + [called[groups[r.row]] for r in held]
    return Card(
        concept,
        float(found.overall[concept]),
        uses,
        [pictures.whole(r, f"{scores.ids[r.row]}") for r in held[:1] if len(r.axes) == 2],
        [pictures.crop(r, f"{scores.ids[r.row]} ({percent(r.value)})") for r in held],
        list(dict.fromkeys(names)),
    )


def _facts(scores: StoredScores, name: str, found: _Means, shown: list[int]) -> list[str]:
    classes = f", {len(found.counts)} classes" if scores.targets is not None else ""
    failed = f"; {len(scores.failed)} could not be explained" if scores.failed else ""
    covered = np.abs(found.overall[shown]).sum() / max(np.abs(found.overall).sum(), 1e-12)
    return [
        f"Layer {name}: {found.means.shape[1]} concepts, {len(scores.ids)} samples{classes}{failed}.",
        f"Shown are the {len(shown)} concepts that count most for the classes: they have {covered:.1%} of "
        "all mean relevance. What a concept stands for is for you to judge: look at its references, and "
        "change that part of an input to be sure.",
    ]


def _check_search(embed: Any, embed_text: Any, search_words: Sequence[str]) -> None:
    if isinstance(search_words, str):
        raise TypeError(f"search_words must be a list of words, got the string {search_words!r}")
    if (embed_text is not None or search_words) and (
        embed is None or embed_text is None or not search_words
    ):
        raise ValueError(
            "a search by similarity takes embed, embed_text and search_words together: two functions "
            "into one space, and the words that the page knows"
        )


def _embedded(embed: Embed, located: Mapping[int, list[Reference]], pictures: Any) -> np.ndarray:
    """(concepts, d), of the references of each concept; zero for one without references."""
    crops = [pictures.pixels(r) for held in located.values() for r in held]
    vectors = findings.unit(_vectors(embed(crops), len(crops), "embed"))
    ends = np.cumsum([len(held) for held in located.values()])[:-1]
    parts = np.split(vectors, ends)
    return np.stack([p.mean(axis=0) if len(p) else np.zeros(vectors.shape[1]) for p in parts])


def _vectors(given: ArrayLike, count: int, what: str) -> np.ndarray:
    found = np.asarray(given)
    if found.ndim != 2 or len(found) != count:
        raise ValueError(
            f"{what} must return a vector for each of {count} items, ({count}, d), got {found.shape}"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{what} must return finite vectors, but some are not")
    return found


def _similarity(words: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    if words.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"embed_text must give vectors of the length of those of embed, {vectors.shape[1]}, got "
            f"{words.shape[1]}"
        )
    return findings.unit(words) @ findings.unit(vectors).T
