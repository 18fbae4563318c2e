"""What a search has evaluated, in a folder: a line for each candidate, on disk before the next begins."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlrp import composites
from jaxlrp.dataset import canonical, fingerprint
from jaxlrp.dataset.durable import Lock, full_disk_as_error, write_json
from jaxlrp.dataset.errors import DifferentRunError, StoreError
from jaxlrp.dataset.lines import parse, written
from jaxlrp.metrics.metric import Metric
from jaxlrp.tuning.data import Data
from jaxlrp.tuning.families import Family

HEADER, LINES = "search.json", "candidates.jsonl"
Key = tuple[str, str, str]
"""A part of the data, the digest of a family, and the values."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a candidate.

    Attributes:
      scores: by the digest of a metric, the score of each sample, (n,).
      slopes: by the digest of the metric, derivatives of its mean by hyperparameter.
    """

    scores: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    slopes: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


class Journal:
    """Scores of candidates, kept in memory and, with a folder, on disk.

    Args:
      folder: where to keep them; None for memory alone.
      identity: of the search, by name: what all scores depend on.

    Raises:
      DifferentRunError: if the folder belongs to another search.
      StoreError: if it is in use or damaged.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, str]) -> None:
        self._held: dict[Key, Entry] = {}
        self._lock, self._file = None, None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = Lock(folder)
        try:
            self._check(identity)
            for line in self._lines():
                if (found := parse(line)) is not None and found.get("kind") == "candidate":
                    self._join(*_read(found))
            self._file = (folder / LINES).open("ab")
        except BaseException:
            self._lock.release()
            raise

    def _check(self, identity: Mapping[str, str]) -> None:
        path = self._folder / HEADER
        if not path.exists():
            write_json(path, dict(identity))
            return
        try:
            stored = json.loads(path.read_text("utf8"))
        except ValueError as error:
            raise StoreError(f"{str(path)!r} is damaged: {error}") from None
        changed = [
            k for k in identity if not isinstance(stored, dict) or stored.get(k) != identity[k]
        ]
        if changed:
            raise DifferentRunError(
                f"{str(self._folder)!r} has a search with other {', '.join(changed)}: choose another "
                "folder, or pass what it was started with"
            )

    def _lines(self) -> list[bytes]:
        path = self._folder / LINES
        if not path.exists():
            return []
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):  # a line that a kill cut off
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
            data = data[: data.rfind(b"\n") + 1]
        return data.splitlines(keepends=True)

    def find(self, key: Key) -> Entry:
        """What is known of a candidate."""
        return self._held.get(key, Entry())

    def add(self, key: Key, entry: Entry) -> None:
        """Keeps what was computed of a candidate."""
        # float64, as it is read again: a search that continues must find the same ties
        entry = Entry({k: np.asarray(v, float) for k, v in entry.scores.items()}, entry.slopes)
        self._join(key, entry)
        if self._file is not None:
            line = {
                "run": 0, "kind": "candidate", "key": list(key),
                "scores": {k: held.tolist() for k, held in entry.scores.items()},
                "slopes": {k: dict(held) for k, held in entry.slopes.items()},
            }  # fmt: skip
            with full_disk_as_error(self._folder):
                self._file.write(written(line))
                self._file.flush()
                os.fsync(self._file.fileno())

    def _join(self, key: Key, entry: Entry) -> None:
        known = self.find(key)
        self._held[key] = Entry({**known.scores, **entry.scores}, {**known.slopes, **entry.slopes})

    def close(self) -> None:
        """Lets other processes use the folder."""
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()


def _read(found: Mapping[str, Any]) -> tuple[Key, Entry]:
    part, family, values = found["key"]
    scores = {name: np.array(held, float) for name, held in found["scores"].items()}
    return (part, family, values), Entry(scores, found["slopes"])


def key_of(part: str, family: str, values: Mapping[str, float]) -> Key:
    """The key of a candidate.

    Args:
      part: of the data.
      family: its digest.
      values: of the hyperparameters.
    """
    return part, family, json.dumps({k: values[k] for k in sorted(values)})


def of_search(
    fun: Callable[..., Any], args: tuple[Any, ...], data: Data, key: Any, held_out: float
) -> dict[str, str]:
    """What all scores of a search depend on, as digests by name."""
    drawn = None if key is None else np.asarray(jax.random.key_data(key)).tolist()
    traced = jax.make_jaxpr(lambda args, x, context: fun(*args, x, **context))(
        args, data.inputs[:1], {name: a[:1] for name, a in data.context.items()}
    )
    of_pytree = jax.tree_util.tree_leaves_with_path
    return {
        "model": canonical.program(traced),
        "parameters": fingerprint.parameters(of_pytree(args)).digest,
        "data": fingerprint.parameters(of_pytree(data)).digest,
        "key": str(drawn),
        "held_out": repr(held_out),
    }


def of_family(family: Family) -> str:
    """A digest of a family: of its ranges, and of the composite in the middle."""
    middle = family({name: held.at(0.5) for name, held in family.ranges.items()})
    try:
        shown = composites.code(middle)
    except ValueError:
        shown = canonical.without_addresses(repr(middle))
    return fingerprint.digest([shown, repr(dict(family.ranges))])


def of_metric(metric: Metric) -> str:
    """A digest of a metric with its options."""
    return fingerprint.described(metric)["digest"]
