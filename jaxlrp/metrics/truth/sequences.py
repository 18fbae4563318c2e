"""Toy arithmetic for recurrent networks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Sequences
from jaxlrp.metrics.truth.scenes import UNIT

Operation = Literal["add", "subtract"]


def arithmetic(
    number: int, seed: int = 0, *, operation: Operation = "add", length: int = 8
) -> Benchmark:
    """What is the sum, or the difference, of the two marked numbers? Sequences for a recurrent network.

    Each step has a number from -1 to 1 and a mark, which is 1 at two steps a < b and 0 elsewhere. The
    answer is n_a + n_b or n_a - n_b, so n_a and n_b (or -n_b) are the contributions of the two numbers. See
    `agreement`.

    Masks, of steps and the two channels: "numbers": those of the marked steps; "other": those of two steps
    without a mark; "steps": numbers and marks of the marked steps.

    Changes: "target": other numbers at the marked steps; "distractor": other numbers everywhere else. There
    is no background. In the wrong question, the marks are at two other steps.

    Args:
      number: of sequences, >= 1.
      seed: an integer >= 0.
      operation: "add" or "subtract".
      length: steps, >= 6.

    Returns:
      A `Benchmark` with a number as answer.

    Raises:
      ValueError: if an argument is invalid.

    References:
      Hochreiter and Schmidhuber (1997), https://doi.org/10.1162/neco.1997.9.8.1735, for the problem; Arras
      et al. (2019), https://arxiv.org/abs/1904.11829, for its use with explanations

    Example:
      >>> from jaxlrp.metrics import truth
      >>> found = truth.arithmetic(100, seed=0, operation="subtract")
      >>> a, b = found.inputs[0, found.inputs[0, :, 1] == 1, 0]
      >>> bool(a - b == found.answers[0])
      True
    """
    check_one_of("operation", operation, ("add", "subtract"))
    if check_count("length", length) < 6:
        raise ValueError(f"length must be >= 6, for three pairs of steps, got {length}")
    draws = Draws(number, seed)
    pairs = np.sort(draws.orders(length)[:, :6].reshape(number, 3, 2), axis=2)
    values, redrawn = (draws.around_zero(64, length) for _ in range(2))
    sign = 1 if operation == "add" else -1

    def at(role: int) -> np.ndarray:
        return (np.arange(length) == pairs[:, role, :, None]).any(axis=1)

    def change(values: np.ndarray, role: int = 0) -> Change:
        first, second = np.take_along_axis(values, pairs[:, role], axis=1).T
        inputs = np.stack([values, 64 * at(role)], axis=-1).astype(np.float32) * UNIT
        answers = (first + sign * second).astype(np.float32) * UNIT
        return Change(inputs, answers, None, {})

    is_number = np.array([True, False])
    marked, original = at(0), change(values)
    return Benchmark(
        name="arithmetic",
        inputs=original.inputs,
        answers=original.answers,
        targets=None,
        masks={
            "numbers": marked[..., None] & is_number,
            "other": at(1)[..., None] & is_number,
            "steps": np.repeat(marked[..., None], 2, axis=2),
        },
        truth="numbers",
        other="other",
        changes={
            "target": change(np.where(marked, redrawn, values)),
            "distractor": change(np.where(marked, values, redrawn)),
        },
        wrong=change(values, role=2),
        context={},
        model=Sequences(),
        steps=3000,
        answer="number",
    )


def agreement(benchmark: Benchmark, attributions: Any) -> tuple[float, float]:
    """How well relevance of the two marked numbers agrees with what they contribute.

    Pearson's correlation, over sequences, of the relevance of step a with n_a, and of that of step b with
    the contribution of n_b, which is what is left of the answer.

    Args:
      benchmark: from `arithmetic`.
      attributions: (n, length, 2), or an `Explanation`; both channels of a step are summed.

    Returns:
      Two numbers from -1 to 1, `nan` where relevance is constant.

    Raises:
      ValueError: if the benchmark is another one, or shapes do not fit.

    References:
      Arras et al. (2019), https://arxiv.org/abs/1904.11829, section 4.1
    """
    found = np.asarray(getattr(attributions, "relevance", attributions))
    if benchmark.name != "arithmetic" or found.shape != benchmark.inputs.shape:
        raise ValueError(
            f"benchmark must be of truth.arithmetic, with attributions {benchmark.inputs.shape}, got "
            f"{benchmark.name!r} and {found.shape}"
        )
    marked = benchmark.inputs[..., 1] == 1
    relevance = found.sum(axis=-1)[marked].reshape(-1, 2)
    first = benchmark.inputs[..., 0][marked].reshape(-1, 2)[:, 0]
    parts = np.stack([first, benchmark.answers - first], axis=1)
    with np.errstate(invalid="ignore"):
        return tuple(float(np.corrcoef(relevance[:, i], parts[:, i])[0, 1]) for i in range(2))  # type: ignore[return-value]
