"""Exposures, one-hot: one column for each level of each factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxlrp._checks import check_mapping


class Exposures(NamedTuple):
    """What people are exposed to.

    Attributes:
      values: 0 or 1, (N, D); of the columns of a factor, one is 1 in each row.
      names: of columns, (D,), such as "smoking=yes".
      factors: the factor of each column, (D,), such as "smoking".
    """

    values: np.ndarray
    names: tuple[str, ...]
    factors: tuple[str, ...]


def one_hot(table: Mapping[str, ArrayLike]) -> Exposures:
    """Exposures from factors with a few levels each.

    Every level has a column, also the one that seems to be no exposure: it may be the harmful one.

    Args:
      table: for each factor, the level of each person, (N,): numbers, booleans or strings. Cut continuous
        values into levels first, such as by `np.digitize`.

    Raises:
      TypeError: if it is no dictionary.
      ValueError: if a factor has another length, a level is missing (NaN), all have the same level, or more
        than twenty levels look like a continuous value.

    Example:
      >>> from jaxlrp import causes
      >>> causes.one_hot({"drug": [True, False], "sex": ["f", "m"]})  # doctest: +NORMALIZE_WHITESPACE
      Exposures(values=array([[0, 1, 1, 0], [1, 0, 0, 1]]),
                names=('drug=False', 'drug=True', 'sex=f', 'sex=m'),
                factors=('drug', 'drug', 'sex', 'sex'))
    """
    check_mapping("table", table, '{"smoking": ["no", "yes"]}')
    columns, names, factors = [], [], []
    count = None
    for factor, given in table.items():
        held = np.asarray(given)
        count = len(held) if count is None and held.ndim == 1 else count
        if held.ndim != 1 or len(held) != count or not count:
            raise ValueError(
                f"table[{factor!r}] must have a level for each person, ({count or 'N'},), got shape "
                f"{held.shape}"
            )
        if held.dtype.kind == "f" and not np.isfinite(held).all():
            raise ValueError(
                f"table[{factor!r}] must not have NaN: give those who are unknown a level of their own"
            )
        levels = np.unique(held)
        if not 2 <= len(levels) <= 20:
            raise ValueError(
                f"table[{factor!r}] must have 2 to 20 levels, got {len(levels)}: leave a constant out, and "
                "cut continuous values into levels, such as by np.digitize"
            )
        for level in levels:
            columns.append(held == level)
            names.append(f"{factor}={level}")
            factors.append(factor)
    if not columns:
        raise ValueError("table must have a factor, got an empty one")
    return Exposures(np.stack(columns, axis=1).astype(int), tuple(names), tuple(factors))


def as_exposures(exposures: Any, factors: Sequence[str] | None = None) -> Exposures:
    """Exposures, checked.

    Args:
      exposures: `Exposures`, or an array (N, D).
      factors: of the columns of an array.

    Raises:
      ValueError: if they are not one-hot.
    """
    if not isinstance(exposures, Exposures):
        held = np.asarray(exposures)
        if factors is None:
            raise ValueError(
                "exposures must be one-hot with known factors, got an array: make them by "
                'causes.one_hot({"smoking": smoking, "sex": sex})'
            )
        names = tuple(f"{f}:{i}" for i, f in enumerate(factors))
        exposures = Exposures(held, names, tuple(factors))
    values, names, of_columns = exposures
    values = np.asarray(values)
    if values.ndim != 2 or not values.size or len(of_columns) != values.shape[1]:
        raise ValueError(
            f"exposures must have shape (N, {len(of_columns)}), a column for each level, got "
            f"{values.shape}"
        )
    if not np.isin(values, (0, 1)).all():
        bad = values[~np.isin(values, (0, 1))][0]
        raise ValueError(f"exposures must be one-hot, 0 or 1, got {bad!r}: make them by one_hot")
    for factor in dict.fromkeys(of_columns):
        sums = values[:, [f == factor for f in of_columns]].sum(1)
        if (sums != 1).any():
            row = int((sums != 1).argmax())
            raise ValueError(
                f"exposures must be one-hot: of the columns of {factor!r}, one must be 1 in each row, but "
                f"row {row} has {int(sums[row])}; a column for the absence of an exposure is needed too"
            )
    return Exposures(values.astype(int), tuple(names), tuple(of_columns))
