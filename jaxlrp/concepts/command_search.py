"""The search of the command of concepts: words, and what embeds them."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Embedder:
    """Embeds words, and references of concepts in the same space.

    Attributes:
      embed_text: from words to vectors (words, d).
      embed: from crops to vectors; None if the names of samples stand for them.
    """

    embed_text: Callable[[list[str]], ArrayLike]
    embed: Callable[[list[np.ndarray]], ArrayLike] | None = None

    def search(self, ids: Sequence[Any], words: Sequence[str]) -> dict[str, Any]:
        """The arguments of `concepts.report` for these words.

        Args:
          ids: of the samples, in the order of rows.
          words: to search for.
        """
        given: dict[str, Any] = {"embed_text": self.embed_text, "search_words": list(words)}
        if self.embed is not None:
            return given | {"embed": self.embed}
        names = names_of_samples(ids)

        def embed_samples(rows: np.ndarray) -> ArrayLike:
            return self.embed_text([names[row] for row in rows])

        return given | {"embed_samples": embed_samples}


def load_embedder(name: str) -> Embedder:
    """What `--embedder` names.

    Raises:
      ImportError: if MiniLM is not installed.
      ValueError: if there is no such function, or it returns something else.
    """
    if name == "minilm":
        return _minilm()
    module, _, function = name.partition(":")
    if not all(map(str.isidentifier, [*module.split("."), function])):
        raise ValueError(f"--embedder must be minilm or module:function, got {name!r}")
    try:
        found = getattr(importlib.import_module(module), function)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"--embedder {name}: {error}") from error
    parts = [getattr(found, part, None) for part in ("embed", "embed_text")]
    if not all(map(callable, parts)):
        raise ValueError(
            f"--embedder {name} must return an object with embed(crops) and embed_text(words), got "
            f"{type(found).__name__}"
        )
    return Embedder(embed=found.embed, embed_text=found.embed_text)


def _minilm() -> Embedder:
    """MiniLM reads words only: the names of samples stand for their pictures."""
    from jaxlrp.pretrained import minilm

    net = minilm()

    def embed_text(words: list[str]) -> ArrayLike:
        ids, mask, _ = net.preprocess(list(words))
        return np.asarray(net.model.apply(net.variables, ids, mask))

    return Embedder(embed_text)


def names_of_samples(ids: Sequence[Any]) -> list[str]:
    """The ids of samples as words: of a file its path without the suffix, "animals zebra"."""
    stems = [re.sub(r"\.\w{1,5}$", "", str(name)) for name in ids]
    return [" ".join(re.findall(r"[^\W_]+", stem)) or stem for stem in stems]
