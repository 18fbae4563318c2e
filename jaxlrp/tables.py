"""Relevance of tables: one-hot columns summed into their feature, and averages over a data set.

Arrays are (samples, columns). To draw them, see `jaxlrp.plot`: `bar`, `beeswarm`, `waterfall`, `scatter`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_mapping, check_sequence
from jaxlrp._described import described

__all__ = ["Summary", "groups", "sum_groups", "summarize"]

_SUCH_AS = '{"age": [0], "color": [1, 2, 3]}'


def groups(
    names: Iterable[str], features: Sequence[str], separator: str = "_"
) -> dict[str, tuple[int, ...]]:
    """The columns of each feature, where one-hot columns are named "feature_category".

    This is how `pandas.get_dummies` and scikit-learn's `OneHotEncoder` name them. No feature is guessed
    from a prefix: columns of features that you do not name stay alone.

    Args:
      names: of the columns, in order, such as `frame.columns`.
      features: those that are spread over several columns. If two fit a column, the longer one has it.
      separator: between the feature and the category.

    Returns:
      From each feature to the positions of its columns, in the order of their first columns.

    Raises:
      TypeError: if `features` is a string.
      ValueError: if names are repeated, or a feature has no column.

    Example:
      >>> groups(["age", "color_blue", "color_red"], ["color"])
      {'age': (0,), 'color': (1, 2)}
    """
    check_sequence("features", features, '["color"]')
    columns = [str(name) for name in names]
    repeated = [name for i, name in enumerate(columns) if name in columns[:i]]
    if repeated:
        raise ValueError(f"names must be unique, got {repeated[0]!r} more than once")
    by_length = sorted(features, key=len, reverse=True)
    found: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(columns):
        owner = next((f for f in by_length if name.startswith(f"{f}{separator}")), name)
        found[owner] = (*found.get(owner, ()), i)
    for feature in features:
        if not any(columns[i] != feature for i in found.get(feature, ())):
            raise ValueError(
                f"features must be the beginnings of column names: no column begins with "
                f"{feature + separator!r}; the columns are {_few(columns)}"
            )
    return found


def sum_groups(relevance: Array, groups: Mapping[str, Sequence[int]]) -> Array:
    """The relevance of features that are spread over several columns: the sum of their columns.

    LRP is additive, so the sum over one-hot columns is the relevance of the category, and nothing is lost:
    the sum over all groups equals the sum over all columns.

    Args:
      relevance: (..., F).
      groups: from each feature to the positions of its columns, as returned by `groups`. Each column
        must be in exactly one group.

    Returns:
      (..., G), in the order of `groups`, of the dtype of `relevance`.

    Raises:
      TypeError: if `groups` is not a mapping.
      ValueError: if a column is in no group or in several, or does not exist.

    Example:
      >>> r = jnp.array([[5.0, 1.0, -3.0]])
      >>> sum_groups(r, {"age": [0], "color": [1, 2]}).tolist()
      [[5.0, -2.0]]
    """
    check_mapping("groups", groups, _SUCH_AS)
    relevance = jnp.asarray(relevance)
    count = relevance.shape[-1] if relevance.ndim else 0
    owner = np.full(count, -1)
    for g, (feature, columns) in enumerate(groups.items()):
        for i in columns:
            if not 0 <= i < count:
                raise ValueError(
                    f"groups[{feature!r}] must contain positions from 0 to {count - 1}, got {i}"
                )
            if owner[i] >= 0:
                raise ValueError(
                    f"groups must contain each column once, got column {i} in "
                    f"{list(groups)[owner[i]]!r} and in {feature!r}"
                )
            owner[i] = g
    if (owner < 0).any():
        raise ValueError(
            f"groups must contain each column once; column {int(np.argmin(owner))} of {count} is in none; "
            "give a column that stands alone a group of its own"
        )
    sums = jnp.zeros((*relevance.shape[:-1], len(groups)), relevance.dtype)
    return sums.at[..., owner].add(relevance)


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Summary:
    """Relevance of features over the samples of each class. All arrays are (classes, F).

    Attributes:
      classes: their labels, sorted; ("all",) without classes.
      count: (classes,), the number of samples.
      mean: of relevance: evidence for and against cancels.
      magnitude: the mean of |relevance|: how much the feature matters, whatever its sign.
      spread: the standard deviation of relevance (divided by the count, not by count - 1).
    """

    classes: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    count: Array
    mean: Array
    magnitude: Array
    spread: Array


def summarize(relevance: Array, by: Sequence[object] | Array | None = None) -> Summary:
    """Mean and spread of the relevance of each feature over a data set, or over each class of it.

    Args:
      relevance: (N, F).
      by: (N,), the class of each sample: integers or strings. None: one class of all samples.

    Returns:
      A `Summary`.

    Raises:
      ValueError: if a shape does not match.

    Example:
      >>> r = jnp.array([[1.0, 2.0], [3.0, -2.0], [5.0, 0.0]])
      >>> found = summarize(r, by=["cat", "cat", "dog"])
      >>> found.classes, found.mean.tolist(), found.magnitude[0].tolist()
      (('cat', 'dog'), [[2.0, 0.0], [5.0, 0.0]], [2.0, 2.0])
      >>> found.spread[0].tolist()
      [1.0, 2.0]
    """
    relevance = jnp.asarray(relevance)
    if relevance.ndim != 2 or not len(relevance):
        raise ValueError(f"relevance must have shape (N, F) with N >= 1, got {relevance.shape}")
    names, members = members_by_class(by, len(relevance))
    parts = [relevance[np.flatnonzero(members == k)] for k in range(len(names))]
    return Summary(
        names,
        jnp.array([len(part) for part in parts]),
        jnp.stack([part.mean(axis=0) for part in parts]),
        jnp.stack([jnp.abs(part).mean(axis=0) for part in parts]),
        jnp.stack([part.std(axis=0) for part in parts]),
    )


def members_by_class(
    by: Sequence[object] | Array | None, samples: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted labels, and for each sample the position of its label among them."""
    if by is None:
        return ("all",), np.zeros(samples, int)
    labels = np.asarray(by)
    if labels.shape != (samples,):
        raise ValueError(
            f"by must have one label for each of the {samples} samples, got shape {labels.shape}"
        )
    found, members = np.unique(labels, return_inverse=True)
    return tuple(str(label) for label in found), members


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
