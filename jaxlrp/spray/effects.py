"""How a cluster relates to predictions: outputs and accuracy inside and outside of it."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Effect:
    """Outputs of the samples of a cluster, compared with the rest of its class.

    A difference between cluster and rest is an association: the cluster may be easier for another reason.
    Only `changed_output` and `changed_predictions` measure the effect of the pattern, because they compare
    each sample with itself.

    Attributes:
      output, rest_output: mean output of the class inside and outside the cluster, in the units of the
        outputs (logits, probabilities). NaN if there are no samples.
      accuracy, rest_accuracy: fraction of samples whose largest output is that of the class. Always one if
        the classes are predictions.
      changed_output: mean output of the class in the cluster after its pattern was removed; None if not
        measured.
      changed_predictions: fraction of samples in the cluster whose prediction changed after the removal.
    """

    output: float
    rest_output: float
    accuracy: float
    rest_accuracy: float
    changed_output: float | None = None
    changed_predictions: float | None = None

    def __str__(self) -> str:
        lines = [
            f"class output {self.output:.3g} (rest {self.rest_output:.3g})",
            f"accuracy {self.accuracy:.1%} (rest {self.rest_accuracy:.1%})",
        ]
        if self.changed_output is not None:
            lines.append(f"with the pattern removed: class output {self.changed_output:.3g}")
            lines.append(f"{self.changed_predictions:.1%} of its predictions change")
        return ", ".join(lines)


def effect(
    category: int, outputs: ArrayLike, rest: ArrayLike, changed: ArrayLike | None = None
) -> Effect:
    """Compares the outputs of a cluster with those of the rest of its class.

    Args:
      category: the class, a column of the outputs.
      outputs: (n, classes), logits or probabilities of the samples in the cluster.
      rest: (m, classes) of the other samples of the class.
      changed: (n, classes) of the samples in the cluster, in the same order, after the suspected pattern
        was removed from the inputs; None if not measured.

    Returns:
      `Effect`.

    Raises:
      ValueError: if a shape is wrong.

    Example:
      >>> print(effect(1, [[0.0, 4.0], [0.0, 2.0]], [[0.0, 1.0], [2.0, 1.0]]))
      class output 3 (rest 1), accuracy 100.0% (rest 50.0%)
    """
    inside, outside = np.asarray(outputs, np.float64), np.asarray(rest, np.float64)
    for name, values in (("outputs", inside), ("rest", outside)):
        if values.ndim != 2 or not 0 <= category < values.shape[1]:
            raise ValueError(
                f"{name} must have shape (samples, classes) with a column for class {category}, got "
                f"{values.shape}"
            )
    found = Effect(
        _mean(inside[:, category]),
        _mean(outside[:, category]),
        _mean(inside.argmax(axis=1) == category),
        _mean(outside.argmax(axis=1) == category),
    )
    if changed is None:
        return found
    after = np.asarray(changed, np.float64)
    if after.shape != inside.shape:
        raise ValueError(
            f"changed must have the shape of the outputs of the cluster, {inside.shape}, in the order of "
            f"its rows, got {after.shape}"
        )
    return dataclasses.replace(
        found,
        changed_output=_mean(after[:, category]),
        changed_predictions=_mean(after.argmax(axis=1) != inside.argmax(axis=1)),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
