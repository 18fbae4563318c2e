"""Benchmarks in which a question names one of three places where something is planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flax import linen as nn

from jaxlrp.metrics.truth.benchmark import Benchmark, Change


def asked_of(
    name: str,
    what: str,
    *,
    kinds: np.ndarray,
    other_kinds: np.ndarray,
    asked: np.ndarray,
    places: np.ndarray,
    drawn: Callable[[np.ndarray, np.ndarray], np.ndarray],
    backgrounds: tuple[np.ndarray, np.ndarray],
    model: nn.Module,
) -> Benchmark:
    """A benchmark with four classes: which kind is planted in the sensor or channel that is asked for?

    Args:
      name, what: of the benchmark, and of its truth.
      kinds: of what is planted, (n, 3).
      other_kinds: that they become in the changes, (n, 3).
      asked: orders of the three, (n, 3): the one asked for, "other", and that of the wrong question.
      places: where it is planted, booleans (n, ..., 3).
      drawn: from kinds and one of the backgrounds to inputs.
      backgrounds: of the samples, and of their change.
      model: for it.
    """
    count, rows = kinds.shape[1], np.arange(len(kinds))
    mine = np.arange(count) == asked[:, :1]

    def change(kinds: np.ndarray, background: np.ndarray = backgrounds[0], role: int = 0) -> Change:
        chosen = asked[:, role]
        answers = kinds[rows, chosen].astype(np.int32)
        question = np.eye(count, dtype=np.float32)[chosen]
        inputs = drawn(kinds, background).astype(np.float32)
        return Change(inputs, answers, answers, {"question": question})

    order = asked.reshape(len(asked), *[1] * (places.ndim - 2), count)
    original = change(kinds)
    return Benchmark(
        name=name,
        inputs=original.inputs,
        answers=original.answers,
        targets=original.targets,
        masks={
            what: places & (np.arange(count) == order[..., :1]),
            "other": places & (np.arange(count) == order[..., 1:2]),
            f"{what}s": places,
        },
        truth=what,
        other="other",
        changes={
            "target": change(np.where(mine, other_kinds, kinds)),
            "distractor": change(np.where(mine, kinds, other_kinds)),
            "background": change(kinds, backgrounds[1]),
        },
        wrong=change(kinds, role=2),
        context=original.context,
        model=model,
        steps=2000,
    )
