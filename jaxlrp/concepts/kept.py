"""Relevance of reference samples on disk, so that a report does not locate them again."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxlrp.concepts.locate import Locator, Pair
from jaxlrp.concepts.references import Reference, View


@dataclasses.dataclass(frozen=True)
class Kept:
    """A folder of maps, each in a file that is named by a hash of what it depends on.

    If a file is missing or cannot be read, its map is computed and written again.

    Attributes:
      folder: where the files are; None stores nothing.
      identity: what all maps depend on: the run that made the scores, the concepts, the axes.
    """

    folder: Path | None
    identity: str

    def references(
        self, locator: Locator, view: View, pairs: Sequence[Pair], progress: str
    ) -> dict[int, list[Reference]]:
        """The references of concepts, those of one concept in the order of `pairs`."""
        keys, examples = self._inputs(locator, pairs)
        known = {i: held for i, key in enumerate(keys) if (held := self._read(key)) is not None}
        left = [i for i in range(len(pairs)) if i not in known]
        located = locator.each([pairs[i] for i in left], progress)
        for i, (_, example, relevance) in zip(left, located, strict=True):
            known[i] = view.summed(example, relevance)[1].astype(np.float32)
            self._write(keys[i], known[i])
        found: dict[int, list[Reference]] = {concept: [] for concept, _, _ in pairs}
        for i, (concept, row, value) in enumerate(pairs):
            found[concept].append(view.from_map(concept, row, value, examples[i], known[i]))
        return found

    def _inputs(
        self, locator: Locator, pairs: Sequence[Pair]
    ) -> tuple[list[str], list[np.ndarray]]:
        """The key and the example of each pair."""
        keys, examples = [], []
        for begin in range(0, len(pairs), locator.batch_size):
            now = pairs[begin : begin + locator.batch_size]
            inputs = locator.inputs(np.array([row for _, row, _ in now]))
            examples += list(locator.examples(inputs))
            for i, (concept, row, _) in enumerate(now):
                target = None if locator.targets is None else int(np.asarray(locator.targets)[row])
                keys.append(self._key(concept, target, [np.asarray(a)[i] for a in inputs]))
        return keys, examples

    def _key(self, concept: int, target: int | None, inputs: Sequence[np.ndarray]) -> str:
        found = hashlib.blake2b(digest_size=16)
        found.update(f"{self.identity} {concept} {target}".encode())
        for a in inputs:
            found.update(f" {a.dtype} {a.shape} ".encode())
            found.update(np.ascontiguousarray(a).tobytes())
        return found.hexdigest()

    def _read(self, key: str) -> np.ndarray | None:
        if self.folder is None:
            return None
        try:
            found = io.BytesIO((self.folder / f"{key}.npz").read_bytes())
            with np.load(found, allow_pickle=False) as held:
                return held["relevance"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _write(self, key: str, relevance: np.ndarray) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{uuid.uuid4().hex}.part"
        with partial.open("wb") as file:
            np.savez_compressed(file, relevance=relevance)
        os.replace(partial, self.folder / f"{key}.npz")
