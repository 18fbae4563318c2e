"""Samples with all that is needed to score them: target, mask, context, attributions, a random number."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp.dataset.source import Elements, Id, Indexed, Sample, Source, Stream, element

MASK, SEGMENTS = "mask", "segments"


@dataclasses.dataclass(frozen=True, eq=False)
class Arranger:
    """From a sample of the data to a sample of the run.

    Attributes:
      given: for each explainer with attributions, from the position and the id of a sample to those.
      classes: number of classes that targets may have; None for targets that are not classes.
      targets: whether targets of the data are used.
      segments: how many segments a sample may have; None where no metric uses those of the data.
    """

    given: Mapping[str, Callable[[int, Id], np.ndarray]]
    classes: int | None
    targets: bool
    segments: int | None = None

    def __call__(self, sample: Sample, position: int) -> Sample:
        """The sample with its extras by name: "number", "context", "label", "mask", "attributions".

        Raises:
          ValueError, LookupError: if its target or a segment is out of range, or it has no attributions.
        """
        extra = dict(sample.extra)
        found: dict[str, Any] = {"number": number_of(sample.id)}
        for name in (MASK, SEGMENTS):
            if name in extra:
                found[name] = extra.pop(name)
        if self.segments is not None and SEGMENTS in found:
            largest = int(np.max(found[SEGMENTS]))
            if largest >= self.segments:
                raise ValueError(
                    f"segment {largest} is out of range: a metric has Segments with "
                    f"number={self.segments}"
                )
        found["context"] = extra
        if self.targets:
            if self.classes is not None and not 0 <= int(sample.target) < self.classes:
                raise ValueError(
                    f"target {int(sample.target)} is out of range: the model has {self.classes} classes, "
                    f"0 to {self.classes - 1}"
                )
            found["label"] = sample.target
        if self.given:
            found["attributions"] = {k: of(position, sample.id) for k, of in self.given.items()}
        return Sample(sample.id, sample.input, None, found)


def number_of(name: Id) -> np.ndarray:
    """A number that belongs to a sample alone, from which its random keys are made."""
    return np.uint32(zlib.crc32(repr(name).encode()))  # pyright: ignore[reportReturnType]


def arranged(source: Source, arrange: Arranger) -> Source:
    """The source whose samples are arranged when they are fetched."""
    if isinstance(source, Indexed):

        def fetch(positions: Sequence[int]) -> list[Sample]:
            samples = source.fetch(positions)
            return [arrange(s, i) for s, i in zip(samples, positions, strict=True)]

        return dataclasses.replace(source, fetch=fetch)
    if isinstance(source, Elements):
        return dataclasses.replace(source, items=_Items(source.items, arrange))
    return dataclasses.replace(source, items=_Iterated(source, arrange))


@dataclasses.dataclass(frozen=True, eq=False)
class _Items:
    """Items by index, arranged."""

    held: Any
    arrange: Arranger

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, position: int) -> Sample | None:
        item = self.held[position]
        return None if item is None else self.arrange(element(item, position), position)


@dataclasses.dataclass(frozen=True, eq=False)
class _Iterated:
    """Items one after the other, arranged."""

    source: Stream
    arrange: Arranger

    def __iter__(self) -> Iterator[Sample | None]:
        for position, item in enumerate(self.source.items):
            yield None if item is None else self.arrange(element(item, position), position)
