"""Which classes of samples are kept apart in a state over a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np


def chosen_classes(
    per_class: bool | Sequence[int], targets: np.ndarray | None, count: int | None
) -> list[int] | None:
    """The classes that are kept apart; None for all samples together.

    Args:
      per_class: True, False, or classes.
      targets: (samples,), the class of each sample; None if classes are not known.
      count: number of classes.

    Raises:
      TypeError, ValueError: if a class has no samples, or classes are not known.
    """
    if per_class is False:
        return None
    if targets is None or count is None:
        raise ValueError(
            "per_class needs one class for each sample, but no class was explained: pass per_class=False; "
            "or collect into another folder, with targets in the source or "
            "target=jaxlrp.targets.predicted"
        )
    if per_class is True:
        return list(range(count))
    if isinstance(per_class, (str, int)) or not all(
        isinstance(c, (int, np.integer)) and not isinstance(c, bool) for c in per_class
    ):
        raise TypeError(f"per_class must be True, False or a list of classes, got {per_class!r}")
    there = np.unique(targets)
    for c in per_class:
        if c not in there:
            shown = ", ".join(map(str, there[:10])) + (", ..." if len(there) > 10 else "")
            raise ValueError(f"per_class must be classes with samples, {shown}, got {c}")
    if len(set(per_class)) < len(per_class) or not len(per_class):
        raise ValueError(
            "per_class must be True, False or a list of one or more distinct classes, got "
            f"{per_class!r}"
        )
    return [int(c) for c in per_class]


def members(
    groups: list[int] | None, targets: np.ndarray | None, rows: np.ndarray
) -> Iterator[tuple[Any, np.ndarray]]:
    """(place in the state, which of these rows belong there)."""
    if groups is None:
        yield ..., np.arange(len(rows))
        return
    assert targets is not None
    classes = targets[rows]
    there = set(classes.tolist())
    for place, c in enumerate(groups):
        if c in there:
            yield place, np.flatnonzero(classes == c)


def put(state: Any, place: Any, part: Any) -> None:
    """Replaces a part of a state of NumPy arrays."""
    for whole, new in zip(jax.tree.leaves(state), jax.tree.leaves(part), strict=True):
        whole[place] = new
