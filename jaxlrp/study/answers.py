"""The file of answers: JSON lines, each on disk before it is confirmed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlrp._checks import as_path
from jaxlrp.dataset.durable import full_disk_as_error, sync_folder
from jaxlrp.dataset.errors import DifferentRunError, StoreError, StoreLockedError
from jaxlrp.study.stimuli import Study

_NORMAL = 1.96


class Answer(NamedTuple):
    """What a participant answered.

    Attributes:
      participant: the code that was entered.
      stimulus: index in the study.
      condition, group: of the stimulus.
      answer: the option that was chosen.
      correct: whether it is the right one; None if none is.
      seconds: from the moment when the image was visible, as the browser says.
      time: of the day, seconds since 1970.
    """

    participant: str
    stimulus: int
    condition: str
    group: str | None
    answer: str
    correct: bool | None
    seconds: float
    time: float


class Book:
    """A file of answers that is open for more.

    Args:
      path: of the file.
      study: whose answers it holds.
      resume: whether the file may exist.

    Raises:
      FileExistsError: if it exists, and is not to be continued.
      jaxlrp.dataset.DifferentRunError, StoreError: if it is of another study, damaged, or in use.
    """

    def __init__(self, path: Path, study: Study, resume: bool) -> None:
        self._study, self._path = study, path
        self._guard = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._done: dict[str, set[int]] = {}
        exists = path.exists()
        if exists and not resume:
            raise FileExistsError(
                f"{str(path)!r} exists and is not overwritten: choose another file, or pass resume=True to "
                "add answers to it"
            )
        self._file = path.open("ab") if exists else path.open("xb")
        try:
            _lock(self._file, path)
            if exists:
                self._continue()
            else:
                self._write({"kind": "study", "digest": study.digest, "title": study.title})
                sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def _continue(self) -> None:
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1  # what follows was cut off by a kill, and never confirmed
        lines = _lines(data[:whole], self._path)
        if not lines:
            self._file.truncate(0)
            self._write({"kind": "study", "digest": self._study.digest, "title": self._study.title})
            return
        if lines[0].get("digest") != self._study.digest:
            raise DifferentRunError(
                f"{str(self._path)!r} holds answers of another study, {lines[0].get('title')!r}: choose "
                "another file, or pass the study that it was started with"
            )
        if whole < len(data):
            self._file.truncate(whole)
        for line in lines[1:]:
            if line["kind"] == "participant":
                self._numbers[line["participant"]] = line["number"]
            else:
                self._done.setdefault(line["participant"], set()).add(line["stimulus"])

    def next(self, participant: str) -> tuple[int | None, int, int]:
        """What comes next: (index of a stimulus, or None at the end; how many are done; of how many)."""
        with self._guard:
            if participant not in self._numbers:
                number = len(self._numbers)
                self._write({"kind": "participant", "participant": participant, "number": number})
                self._numbers[participant] = number
            order = self._study.order(self._numbers[participant])
            done = self._done.get(participant, set())
            left = [i for i in order if i not in done]
            return (left[0] if left else None), len(order) - len(left), len(order)

    def add(self, participant: str, index: int, answer: str, seconds: float) -> None:
        """Writes an answer to the disk; one that is there already is not written again.

        Raises:
          ValueError: if the participant has not been asked this, or `answer` is no option.
        """
        with self._guard:
            number = self._numbers.get(participant)
            if number is None or index not in self._study.order(number):
                raise ValueError("this participant was not asked about this stimulus")
            stimulus = self._study.stimuli[index]
            if answer not in stimulus.options:
                raise ValueError("the answer is none of the options")
            if not math.isfinite(seconds) or seconds < 0:
                raise ValueError("seconds must be a finite number >= 0")
            if index in self._done.get(participant, set()):
                return  # the page asked twice, because the confirmation got lost
            right = None if stimulus.correct is None else answer == stimulus.correct
            held = Answer(
                participant,
                index,
                stimulus.condition,
                stimulus.group,
                answer,
                right,
                seconds,
                time.time(),
            )
            self._write({"kind": "answer", **held._asdict()})
            self._done.setdefault(participant, set()).add(index)

    def _write(self, fields: dict[str, Any]) -> None:
        if self._file.closed:
            raise StoreError("the server is being stopped")
        with full_disk_as_error(self._path):
            start = self._file.tell()
            try:
                self._file.write(json.dumps(fields, ensure_ascii=False).encode("utf8") + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(start)  # so that the next line does not follow half a line
                raise

    def close(self) -> None:
        """Lets other processes use the file."""
        with self._guard:
            self._file.close()


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StoreLockedError(
            f"another server is writing to {str(path)!r}: stop it, or choose another file"
        ) from None


def _lines(data: bytes, path: Path) -> list[dict[str, Any]]:
    """The lines of a file, all of which end with a line break."""
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            fields = json.loads(line)
            kind = fields["kind"]
            if kind not in ("study", "participant", "answer") or (kind == "study") != (number == 1):
                raise ValueError(f"a line of kind {kind!r}")
            if kind == "participant":
                _ = fields["participant"], fields["number"]
            if kind == "answer":
                _ = [fields[name] for name in Answer._fields]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"line {number} of {str(path)!r} is damaged ({error}): repair or remove that line"
            ) from None
        found.append(fields)
    return found


def read(path: str | os.PathLike[str]) -> list[Answer]:
    """The answers in a file, in the order in which they were given.

    The file may be in use. Each line is a JSON object, so other programs read it as well, for example
    `pandas.read_json(path, lines=True)`.

    Args:
      path: of the file that was passed to `serve`.

    Raises:
      FileNotFoundError: if there is none.
      jaxlrp.dataset.StoreError: if a line is damaged; the last one may be incomplete.
    """
    path = as_path("path", path)
    data = path.read_bytes()
    lines = _lines(data[: data.rfind(b"\n") + 1], path)
    return [
        Answer(**{name: line[name] for name in Answer._fields})
        for line in lines
        if line["kind"] == "answer"
    ]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What participants answered under each condition.

    Attributes:
      conditions: names, in order of appearance.
      participants, answers: how many, by condition.
      correct: the share of right answers, the mean over participants; `nan` if no answer is right or wrong.
      interval: half of a 95 % interval of that mean, by its deviation between participants; `nan` for fewer
        than two of them.
      seconds: the median time of an answer.
    """

    conditions: tuple[str, ...]
    participants: tuple[int, ...]
    answers: tuple[int, ...]
    correct: tuple[float, ...]
    interval: tuple[float, ...]
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        lines = [
            "| condition | participants | answers | correct | seconds |",
            "|---|---|---|---|---|",
        ]
        for row in zip(*(getattr(self, f.name) for f in dataclasses.fields(self)), strict=True):
            name, people, count, share, half, seconds = row
            lines.append(
                f"| {name} | {people} | {count} | {share:.3f} ± {half:.3f} | {seconds:.1f} |"
            )
        return "\n".join(lines)


def summary(answers: Iterable[Answer]) -> Summary:
    """The share of right answers under each condition.

    Answers of one person are not independent, so shares are averaged over participants first.

    Args:
      answers: from `read`.

    Raises:
      ValueError: if there are none.

    Example:
      >>> from jaxlrp import study
      >>> said = [study.Answer(who, 0, "LRP", None, "dog", right, 2.0, 0.0)
      ...         for who, right in (("a", True), ("a", True), ("b", False))]
      >>> study.summary(said).correct
      (0.5,)
    """
    held = list(answers)
    if not held:
        raise ValueError("answers is empty: nobody has answered yet")
    rows = []
    for condition in dict.fromkeys(a.condition for a in held):
        own = [a for a in held if a.condition == condition]
        people = list(dict.fromkeys(a.participant for a in own))
        right: list[list[bool]] = [
            [a.correct for a in own if a.participant == p and a.correct is not None] for p in people
        ]
        shares = np.array([np.mean(each) for each in right if each])
        mean = float(shares.mean()) if len(shares) else math.nan
        half = _NORMAL * shares.std(ddof=1) / len(shares) ** 0.5 if len(shares) > 1 else math.nan
        seconds = float(np.median([a.seconds for a in own]))
        rows.append((condition, len(people), len(own), mean, float(half), seconds))
    return Summary(*zip(*rows, strict=True))
