"""What a benchmark with known truth is: samples, answers, masks, and changes with known answers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import linen as nn

from jaxlrp._checks import check_one_of
from jaxlrp._described import described
from jaxlrp.errors import near

Answer = Literal["class", "classes", "number"]
_TOLERANCE = 0.2


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """The samples of a benchmark after something was changed, with the answers that are right then.

    Attributes:
      inputs: float32 (n, ...), as those of the benchmark.
      answers: as those of the benchmark.
      targets: int32 (n,), the class to explain; None where the output is one number.
      context: further arguments of the network by name, (n, ...).
    """

    inputs: np.ndarray
    answers: np.ndarray
    targets: np.ndarray | None
    context: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
    """Samples for which it is known what the answer depends on.

    Made by a generator such as `scenes`. It can be trained on (`train`), and its masks say where relevance
    must be.

    Attributes:
      name: of the generator.
      inputs: float32 (n, ...). Multiples of 1/64 unless pictures were given; the background has mean 0.
      answers: what the network has to give. `answer="class"`: int32 (n,). "classes": float32 (n, classes),
        one where a class is present. "number": float32 (n,).
      targets: int32 (n,), the class to explain; None where the output is one number.
      masks: booleans (n, ...) by name, drawn at the resolution of the inputs. Axes may have length 1, as
        that of the channels.
      truth: the name of the mask of what the answer depends on.
      other: the name of a mask of the same kind that the answer does not depend on, such as the object that
        another question would have asked for. What ignores the network and the question scores the same on
        both, so the score on this mask is that of chance. None where there is no such mask.
      changes: by name, as "target", "distractor" and "background": samples with one thing changed, and the
        right answers then.
      wrong: the same inputs with another question than the one that masks belong to, or None.
      context: further arguments of the network by name, (n, ...), such as the question.
      model: a small Flax network that can solve it.
      steps: of training that are enough for it.
      answer: what kind of answer it has.
      channels: axes of an example that hold channels to be pooled; None where each value is a position.
      segments: integers (n, ...), the part that each value belongs to, -1 for none; or None.
      parts: names of the segments.
    """

    name: str
    inputs: np.ndarray
    answers: np.ndarray
    targets: np.ndarray | None
    masks: Mapping[str, np.ndarray]
    truth: str
    other: str | None
    changes: Mapping[str, Change]
    wrong: Change | None
    context: Mapping[str, np.ndarray]
    model: nn.Module
    steps: int
    answer: Answer = "class"
    channels: int | None = None
    segments: np.ndarray | None = None
    parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {len(self)} samples {self.inputs.shape[1:]}, masks {', '.join(self.masks)}, "
            f"changes {', '.join(self.changes)}, {self.hash[:12]}>"
        )

    @property
    def hash(self) -> str:
        """SHA-256 of all arrays: inputs, answers, masks, changes. Equal seeds give equal hashes."""
        digest = hashlib.sha256()
        for path, array in _arrays(self):
            digest.update(f"{path} {array.dtype.str.lstrip('<|=>')} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @property
    def area(self) -> dict[str, float]:
        """The share of positions that each mask covers, on average: the score of a uniform map."""
        return {name: float(mask.mean()) for name, mask in self.masks.items()}

    def select(self, which: Any) -> Benchmark:
        """Some of the samples.

        Args:
          which: booleans (n,), integers, or a slice.
        """

        def of(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[which]
            if isinstance(value, Mapping):
                return {name: of(held) for name, held in value.items()}
            return _replaced(value, of) if isinstance(value, Change) else value

        return _replaced(self, of)

    def changed(self, name: str) -> Change:
        """One of the changes.

        Raises:
          KeyError: if there is no such change.
        """
        if name not in self.changes:
            raise KeyError(f"{self.name} has no change {name!r}: {near(str(name), self.changes)}")
        return self.changes[name]

    def mask(self, name: str | None = None) -> np.ndarray:
        """One of the masks; None for that of the truth.

        Raises:
          KeyError: if there is no such mask.
        """
        name = self.truth if name is None else name
        if name not in self.masks:
            raise KeyError(f"{self.name} has no mask {name!r}: {near(str(name), self.masks)}")
        return self.masks[name]

    def data(self, mask: str | None = None) -> dict[str, np.ndarray]:
        """Data for `metrics.evaluate`.

        Args:
          mask: the name of the mask; None for that of the truth.

        Raises:
          KeyError: if there is no such mask.
        """
        found = {"input": self.inputs, "mask": self.mask(mask), **self.context}
        if self.targets is not None:
            found["target"] = self.targets
        if self.segments is not None:
            found["segments"] = self.segments
        return found

    def correct(self, outputs: Any, change: Change | None = None) -> np.ndarray:
        """Whether outputs give the right answer, booleans (n,).

        "class": the largest output is that of the class. "classes": the output of the explained class has
        the right sign. "number": it is within a fifth of the standard deviation of the answers.

        Args:
          outputs: of the network, (n, classes) or (n,).
          change: the changed samples that they belong to; None for the samples themselves.

        Raises:
          ValueError: if outputs do not have the shape that the answers ask for.
        """
        check_one_of("answer", self.answer, ("class", "classes", "number"))
        answers = self.answers if change is None else change.answers
        found = np.asarray(outputs)
        expected = answers.shape if self.answer != "class" else (len(answers), found.shape[-1])
        if found.shape != expected:
            raise ValueError(f"outputs must have shape {expected}, got {found.shape}")
        if self.answer == "class":
            return found.argmax(axis=1) == answers
        if self.answer == "number":
            return np.abs(found - answers) < _TOLERANCE * self.answers.std()
        targets = self.targets if change is None else change.targets
        assert targets is not None
        rows = np.arange(len(answers))
        return (found[rows, targets] > 0) == (answers[rows, targets] > 0)


def _replaced(value: Any, of: Any) -> Any:
    held = {field.name: of(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return type(value)(**held)


def _arrays(value: Any, path: str = "") -> list[tuple[str, np.ndarray]]:
    """All arrays with their paths, in a fixed order."""
    if isinstance(value, np.ndarray):
        return [(path, value)]
    if isinstance(value, Mapping):
        return [a for name in sorted(value) for a in _arrays(value[name], f"{path}/{name}")]
    if isinstance(value, Benchmark | Change):
        fields = sorted(field.name for field in dataclasses.fields(value))
        return [a for name in fields for a in _arrays(getattr(value, name), f"{path}/{name}")]
    return []
