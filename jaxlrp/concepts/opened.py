"""Reading the scores of a data set: the top samples of each concept, and statistics."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxlrp._checks import check_count
from jaxlrp.concepts.classes import chosen_classes, members, put
from jaxlrp.concepts.scores import Scores
from jaxlrp.concepts.statistics import Moments, Statistics, normalized_on_host
from jaxlrp.concepts.topk import TopK, empty
from jaxlrp.dataset.errors import StoreError
from jaxlrp.dataset.members import TARGET
from jaxlrp.dataset.relevance import LazyArray, Relevance, open_relevance
from jaxlrp.dataset.source import Id
from jaxlrp.errors import counted, near

By = Literal["relevance", "relevance_max", "activation", "activation_max"]

_POSITIONS = {
    "relevance": "position",
    "relevance_max": "position",
    "activation": "activation_position",
    "activation_max": "activation_position",
}
_NAMES = tuple(f.name for f in dataclasses.fields(Scores))
_BLOCK = 2**22  # bytes that are read at once: of larger blocks, glibc returns less to the system


@dataclasses.dataclass(frozen=True, eq=False)
class LazyScores:
    """The scores of one family of concepts on disk: lazy arrays with the names and shapes of `Scores`.

    `held[10:20]` is a `Scores` of NumPy arrays.
    """

    relevance: LazyArray
    relevance_max: LazyArray
    position: LazyArray
    activation: LazyArray
    activation_max: LazyArray
    activation_position: LazyArray
    residual: LazyArray

    def __len__(self) -> int:
        return len(self.relevance)

    def __getitem__(self, key: Any) -> Scores:
        return Scores(**{name: getattr(self, name)[key] for name in _NAMES})

    @property
    def concepts(self) -> int:
        """How many concepts there are."""
        return self.relevance.shape[-1]


class StoredScores(Mapping[str, LazyScores]):
    """The scores of a data set: a mapping from names of families of concepts to `LazyScores`.

    Rows are sorted by the ids of the samples, whatever the order in which they were computed. The same
    samples give the same rows, no matter how often a run was interrupted and on how many devices or hosts
    it ran. If the source is an array, a row is the index in that array, unless samples failed.

    Names of families contain "." instead of "/"; both are accepted.

    Attributes:
      path: the folder of the store.
      ids: the id of each row.
      targets: (samples,), integers, the class of each sample that was explained; None if no class was.
      classes: the number of classes; None without `targets`.
      failed: the reason for each sample without scores, by id.
    """

    def __init__(self, opened: Relevance) -> None:
        self.path = opened.path
        self.failed = opened.failed
        ids = opened.ids
        order = sorted(range(len(ids)), key=lambda row: (isinstance(ids[row], str), ids[row]))
        self.ids: Sequence[Id] = [ids[row] for row in order]
        self._opened, self._order = opened, np.array(order, np.intp)
        self._names = _families(opened)
        self.targets, self.classes = self._classes()

    def _classes(self) -> tuple[np.ndarray | None, int | None]:
        held = self._opened.get("target")
        if held is None or held.ndim != 1:
            return None, None
        found = held[:].astype(np.int64)[self._order]
        output = self._opened.get("output")
        known = output.shape[1] if output is not None and output.ndim == 2 else 0
        return found, max(known, int(found.max(initial=-1)) + 1)

    def __getitem__(self, name: str) -> LazyScores:
        held = self._arrays(name)
        return LazyScores(**{key: array.take(self._order) for key, array in held.items()})

    def _arrays(self, name: str) -> dict[str, LazyArray]:
        """The arrays of a family, with rows in the order in which they lie on disk."""
        found = name.replace("/", ".") if isinstance(name, str) else name
        if found not in self._names:
            raise KeyError(f"there are no concepts {name!r}: {near(str(name), self._names)}")
        return {key: self._opened[f"relevance.{found}.{key}"] for key in _NAMES}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        lines = [
            f"<scores of concepts for {counted(len(self.ids), 'sample')} in {str(self.path)!r}>"
        ]
        lines += [f"  {name}: {counted(self[name].concepts, 'concept')}" for name in self]
        return "\n".join(lines)

    def top(
        self,
        name: str,
        k: int = 40,
        by: By = "relevance",
        *,
        normalized: bool = True,
        per_class: bool | Sequence[int] = False,
    ) -> TopK:
        """The k samples with the largest score of each concept: relevance or activation maximization.

        Scores are read in blocks of at most 4 MiB, or of one chunk of the store.

        Args:
          name: of the family of concepts.
          k: how many samples are kept for each concept, >= 1, at most as many as there are.
          by: which of the `Scores`.
          normalized: whether each score is divided by the sum of the magnitudes of all concepts' scores in
            the sample; see `normalize`.
          per_class: True for the samples of each class, or a list of classes.

        Returns:
          A `TopK` of NumPy arrays (concepts, k), or (classes, concepts, k). The same scores give bitwise
          the same result, however the samples were divided among chunks, runs and hosts. If a class has
          fewer than k samples, the remaining entries are empty.

        Raises:
          KeyError: if there are no such concepts.
          TypeError, ValueError: if there are fewer than k samples, a class has none, or an argument is
            invalid.
        """
        check_count("k", k)
        if by not in _POSITIONS:
            raise ValueError(f"by must be one of {', '.join(map(repr, _POSITIONS))}, got {by!r}")
        arrays = self._arrays(name)
        if k > len(self.ids):
            raise ValueError(
                f"k must be <= {len(self.ids)}, the number of samples in the store, got {k}: use a "
                "smaller k, or collect more samples"
            )
        groups = chosen_classes(per_class, self.targets, self.classes)
        values = arrays[by]
        dtype = np.float64 if values.dtype == np.float64 else np.float32
        shape = values.shape[1:] if groups is None else (len(groups), values.shape[1])
        state = empty(shape, k, dtype)
        for rows, found, where in self.blocks(name, by, _POSITIONS[by]):
            scores = normalized_on_host(found) if normalized else found
            scores = scores.astype(dtype, copy=False)
            for place, chosen in members(groups, self.targets, rows):
                more = TopK.of(scores[chosen], rows[chosen], k, positions=where[chosen])
                put(state, place, state[place].merge(more))
        return state

    def statistics(self, name: str, *, per_class: bool | Sequence[int] = True) -> Statistics:
        """Mean and variance of relevance, activation and normalized relevance of each concept.

        Args:
          name: of the family of concepts.
          per_class: True for each class, a list of classes, or False for all samples together.

        Returns:
          `Statistics` with arrays (classes, concepts), or (concepts,). Runs that divided the data
          differently agree up to rounding in float64.

        Raises:
          KeyError: if there are no such concepts.
          TypeError, ValueError: if `per_class` is invalid, or a class has no samples.
        """
        groups = chosen_classes(per_class, self.targets, self.classes)
        count = self._arrays(name)["relevance"].shape[1]
        shape = (count,) if groups is None else (len(groups), count)
        state = Statistics(*(_nothing(shape) for _ in dataclasses.fields(Statistics)))
        for rows, relevance, active in self.blocks(name, "relevance", "activation"):
            for place, chosen in members(groups, self.targets, rows):
                more = Statistics.of(relevance[chosen], active[chosen])
                put(state, place, jax.tree.map(lambda a, i=place: a[i], state).merge(more))
        return state

    def blocks(self, name: str, *scores: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Scores in blocks of at most 4 MiB, or of one chunk, in the order in which samples lie on disk.

        Args:
          name: of the family of concepts.
          scores: names of arrays of `Scores`, such as "relevance".

        Yields:
          (rows, one array for each of `scores`).
        """
        arrays = [self._arrays(name)[key] for key in scores]
        rows = np.empty(len(self._order), np.int64)
        rows[self._order] = np.arange(len(self._order))
        each = sum(a.dtype.itemsize * max(a.shape[1], 1) for a in arrays)
        size, chunk = max(_BLOCK // each, 1), self._opened.manifest.chunk_size
        size = max(size // chunk, 1) * chunk
        for begin in range(0, len(rows), size):
            part = slice(begin, begin + size)
            yield rows[part], *(a[part] for a in arrays)

    @property
    def identity(self) -> str:
        """A hash of everything that the scores depend on, except the samples."""
        return self._opened.manifest.identity


def _families(opened: Relevance) -> tuple[str, ...]:
    """The names of the families of concepts in a store.

    Raises:
      StoreError: if it has other contents.
    """
    ends = f".{_NAMES[0]}"
    names = tuple(
        found.removeprefix("relevance.").removesuffix(ends)
        for found in opened
        if found.startswith("relevance.") and found.endswith(ends)
    )
    parts = {f"relevance.{name}.{key}" for name in names for key in _NAMES}
    if not names or not parts <= set(opened):
        raise StoreError(
            f"the store {str(opened.path)!r} contains relevance of inputs, not scores of concepts: open it "
            "with jaxlrp.dataset.open_relevance, or make one with jaxlrp.concepts.collect"
        )
    if TARGET in opened[f"relevance.{names[0]}{ends}"].dims:
        raise StoreError(
            f"the store {str(opened.path)!r} has several targets for each sample: read it with "
            "jaxlrp.dataset.open_relevance, or collect with one target for each sample"
        )
    return names


def _nothing(shape: tuple[int, ...]) -> Moments:
    return Moments(np.zeros(shape[:-1], np.int64), np.zeros(shape), np.zeros(shape))


def open_scores(path: str | os.PathLike[str]) -> StoredScores:
    """Opens the scores that `collect` stored, even while a run is writing to the store.

    Args:
      path: the folder of the store.

    Returns:
      A mapping from names of families to lazy arrays, with `.top` and `.statistics`.

    Raises:
      StoreError: if the folder is not a store, or does not hold scores of concepts.
      DamagedError: if the store cannot be read.
    """
    return StoredScores(open_relevance(path))
