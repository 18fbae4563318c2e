"""Embeddings of reference samples and of words, for the search of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.concepts import findings
from jaxlrp.concepts.references import Reference

Embed = Callable[[list[np.ndarray]], ArrayLike]
EmbedText = Callable[[list[str]], ArrayLike]
EmbedSamples = Callable[[np.ndarray], ArrayLike]


def check_search(
    embed: Any, embed_samples: Any, embed_text: Any, search_words: Sequence[str]
) -> None:
    """Refuses a search that cannot be computed."""
    if embed is not None and embed_samples is not None:
        raise ValueError("embed and embed_samples exclude each other: pass one of them")
    embed = embed_samples if embed is None else embed
    if isinstance(search_words, str):
        raise TypeError(f"search_words must be a list of words, got the string {search_words!r}")
    if (embed_text is not None or search_words) and (
        embed is None or embed_text is None or not search_words
    ):
        raise ValueError(
            "embed, embed_text and search_words must be passed together: two functions into one space, and "
            "the words of the page's search (embed_samples may take the place of embed)"
        )


def embedded(
    embed: Embed | None,
    embed_samples: EmbedSamples | None,
    located: Mapping[int, list[Reference]],
    pictures: Any,
) -> np.ndarray:
    """(concepts, d), the direction of the mean over references; zero for a concept without references."""
    every = [r for held in located.values() for r in held]
    if embed is not None:
        given, what = embed([pictures.pixels(r) for r in every]), "embed"
    else:
        assert embed_samples is not None  # the caller has one of them
        given, what = embed_samples(np.array([r.row for r in every])), "embed_samples"
    vectors = findings.unit(checked_vectors(given, len(every), what))
    ends = np.cumsum([len(held) for held in located.values()])[:-1]
    parts = np.split(vectors, ends)
    means = [p.mean(axis=0) if len(p) else np.zeros(vectors.shape[1]) for p in parts]
    return findings.unit(np.stack(means))


def checked_vectors(given: ArrayLike, count: int, what: str) -> np.ndarray:
    """(count, d)

    Raises:
      ValueError: if they have another shape, or are not finite.
    """
    found = np.asarray(given)
    if found.ndim != 2 or len(found) != count:
        raise ValueError(
            f"{what} must return a vector for each of {count} items, ({count}, d), got {found.shape}"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{what} must return finite vectors, got NaN or infinity")
    return found


def similarity_of(words: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(words, concepts), cosine."""
    if words.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"embed_text must return vectors of the same length as embed, {vectors.shape[1]}, got "
            f"{words.shape[1]}"
        )
    return findings.unit(words) @ vectors.T
