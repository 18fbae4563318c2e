"""What a study shows, to whom, and in which order."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp._checks import check_sequence
from jaxlrp._extras import need

_LONGEST = 1000  # characters of a text


@dataclasses.dataclass(frozen=True, eq=False)
class Stimulus:
    """One image and what can be answered.

    Attributes:
      image: uint8 (H, W, 3) or (H, W), such as from `jaxlrp.plot.reveal`; not modified.
      options: the answers to choose from, at least two different strings.
      correct: the right one, which is never sent to the page; None if there is none.
      condition: what is compared, such as the name of an explainer; never sent to the page.
      group: stimuli with the same group show the same thing under different conditions, such as one photo
        by several explainers. A participant sees one of them, and the conditions take turns from one
        participant to the next. None: everyone sees it.

    Raises:
      TypeError, ValueError: naming what is wrong.
    """

    image: Any
    options: Sequence[str]
    correct: str | None = None
    condition: str = ""
    group: str | None = None

    def __post_init__(self) -> None:
        image = np.asarray(self.image)
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise ValueError(
                f"image must be uint8 of shape (H, W) or (H, W, 3), such as from plot.reveal, got "
                f"{image.dtype} {image.shape}"
            )
        if not image.size:
            raise ValueError(f"image must have at least one pixel, got shape {image.shape}")
        check_sequence("options", self.options, '["dog", "cat"]')
        options = tuple(self.options)
        for value in options:
            check_text("options", value)
        if len(options) < 2 or len(set(options)) != len(options):
            raise ValueError(f"options must be at least two different strings, got {options!r}")
        if self.correct is not None and self.correct not in options:
            raise ValueError(
                f"correct must be one of the options, {', '.join(map(repr, options))}, got {self.correct!r}"
            )
        check_text("condition", self.condition, empty=True)
        if self.group is not None:
            check_text("group", self.group)
        object.__setattr__(self, "image", image.copy())
        object.__setattr__(self, "options", options)


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """What is shown.

    Attributes:
      stimuli: at least one.
      question: above each of them.
      title: of the page.
      introduction: what participants read first: what they will see, and what is recorded.
      seed: of the order of stimuli, which differs from one participant to the next, >= 0.

    Raises:
      TypeError, ValueError: naming what is wrong.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import study
      >>> gray = np.full((8, 8, 3), 128, np.uint8)
      >>> held = study.Study([
      ...     study.Stimulus(gray, ["dog", "cat"], "dog", condition, group="photo 1")
      ...     for condition in ("LRP", "gradient")
      ... ])
      >>> [held.stimuli[i].condition for number in (0, 1) for i in held.order(number)]
      ['LRP', 'gradient']
    """

    stimuli: Sequence[Stimulus]
    question: str = "What is in the picture?"
    title: str = "A study"
    introduction: str = (
        "You will see pictures, one after the other, and choose an answer for each. Your answers and the "
        "time that they take are recorded."
    )
    seed: int = 0

    def __post_init__(self) -> None:
        check_sequence("stimuli", self.stimuli, "[study.Stimulus(image, options)]")
        stimuli = tuple(self.stimuli)
        if not stimuli:
            raise ValueError("stimuli is empty: pass at least one study.Stimulus")
        for each in stimuli:
            if not isinstance(each, Stimulus):
                raise TypeError(
                    f"stimuli must be study.Stimulus objects, got {type(each).__name__}"
                )
        for name in ("question", "title", "introduction"):
            check_text(name, getattr(self, name))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")
        object.__setattr__(self, "stimuli", stimuli)

    def order(self, number: int) -> list[int]:
        """The indices of the stimuli that a participant sees, in order.

        Args:
          number: of the participant, counted from 0 in order of appearance.
        """
        groups: dict[str, list[int]] = {}
        for i, stimulus in enumerate(self.stimuli):
            groups.setdefault(
                f"={i}" if stimulus.group is None else f"+{stimulus.group}", []
            ).append(i)
        # In turns, beginning with another condition in each group: a Latin square.
        shown = [each[(number + turn) % len(each)] for turn, each in enumerate(groups.values())]
        return np.random.default_rng((self.seed, number)).permutation(shown).tolist()

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all that is shown and compared: two studies with the same one are the same."""
        found = hashlib.sha256(
            json.dumps([self.question, self.title, self.introduction, self.seed]).encode()
        )
        for each in self.stimuli:
            facts = [each.options, each.correct, each.condition, each.group, each.image.shape]
            found.update(json.dumps(facts).encode())
            found.update(np.ascontiguousarray(each.image).tobytes())
        return found.hexdigest()

    def png(self, index: int) -> bytes:
        """The image of a stimulus as a PNG file.

        Raises:
          ImportError: without Pillow, which comes with matplotlib.
        """
        held = io.BytesIO()
        image = need("PIL.Image", "a study", "plot").fromarray(self.stimuli[index].image)
        image.save(held, "png")
        return held.getvalue()


def check_text(name: str, value: Any, empty: bool = False) -> None:
    """Refuses what is no string, too long, or empty.

    Raises:
      TypeError, ValueError: naming the argument.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text (a string), got {type(value).__name__}")
    if len(value) > _LONGEST or not (empty or value.strip()):
        raise ValueError(f"{name} must have 1 to {_LONGEST} characters, got {len(value)}")
