"""What the plots of tables read: relevance, names and values of columns, and their order."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlrp._checks import check_count, check_sequence
from jaxlrp.errors import counted
from jaxlrp.plot.normalize import as_real

Labels = tuple[str, ...]
_MISSING = ("nan", "<NA>", "NaT")  # as Python prints NaN and pandas its own


@dataclasses.dataclass(frozen=True)
class Columns:
    """A table of relevance, with what is known of its columns.

    Attributes:
      relevance: (N, F).
      names: F of them.
      values: (N, F), NaN where missing or infinite; codes in columns of labels. None if not given.
      labels: by position, the labels of a column that holds labels; a code is a position among them.
    """

    relevance: np.ndarray
    names: Labels
    values: np.ndarray | None = None
    labels: dict[int, Labels] = dataclasses.field(default_factory=dict)

    def order(self) -> np.ndarray:
        """The columns by mean |relevance|, the largest first."""
        return np.argsort(-np.abs(self.relevance).mean(axis=0), kind="stable")

    def sample(self, index: int) -> "Columns":
        """The table of one sample."""
        values = None if self.values is None else self.values[index][None]
        return Columns(self.relevance[index][None], self.names, values, self.labels)

    def described(self, column: int) -> str:
        """The name of a column, and its value if the table has one sample."""
        name = self.names[column]
        if self.values is None or len(self.values) != 1:
            return name
        value = self.values[0, column]
        if np.isnan(value):
            return f"{name} = missing"
        labels = self.labels.get(column)
        return (
            f"{name} = {number(value, 4)}" if labels is None else f"{name} = {labels[int(value)]}"
        )

    def find(self, feature: int | str, argument: str) -> int:
        """The position of a column, given by its name or position."""
        if isinstance(feature, str):
            if feature not in self.names:
                shown = ", ".join(map(repr, self.names[:8]))
                raise ValueError(
                    f"{argument} must be one of the {len(self.names)} columns, got {feature!r}; "
                    f"they are {shown}{', ...' if len(self.names) > 8 else ''}"
                )
            return self.names.index(feature)
        count = len(self.names)
        if isinstance(feature, bool) or not isinstance(feature, int | np.integer):
            raise TypeError(f"{argument} must be the name or position of a column, got {feature!r}")
        if not -count <= feature < count:
            raise ValueError(f"{argument} must be a position below {count}, got {feature}")
        return int(feature) % count


def read(relevance: Any, values: Any, names: Sequence[str] | None) -> Columns:
    """The table of what a user passes to a plot.

    Raises:
      TypeError: if relevance is not one array of real numbers.
      ValueError: if shapes do not match.
    """
    found = _relevance(relevance)
    if hasattr(values, "to_frame") and hasattr(values, "index"):
        values = values.to_frame().T  # one row of a pandas frame
    columns = getattr(values, "columns", None)
    table = None if values is None else _values(values, columns, found.shape)
    if names is not None:
        check_sequence("names", names, '["age", "income"]')
        given = tuple(str(name) for name in names)
    elif columns is not None:
        given = tuple(str(name) for name in columns)
    else:
        given = tuple(f"feature {i}" for i in range(found.shape[1]))
    if len(given) != found.shape[1]:
        raise ValueError(
            f"names must have {found.shape[1]} entries, one per column of relevance, got {len(given)}"
        )
    if table is None:
        return Columns(found, given)
    return Columns(found, given, *table)


def one_sample(table: Columns, sample: int | None, what: str) -> Columns:
    """The table of `sample`, or the whole table if it has one sample and None is given."""
    count = len(table.relevance)
    if sample is None:
        if count > 1:
            raise ValueError(f"sample must be given for {count} samples; {what} shows one of them")
        return table
    if isinstance(sample, bool) or not isinstance(sample, int | np.integer):
        raise TypeError(f"sample must be an integer, got {sample!r}")
    if not -count <= sample < count:
        raise ValueError(f"sample must be a position below {count}, got {sample}")
    return table.sample(int(sample))


def _relevance(given: Any) -> np.ndarray:
    values = as_real(given, "relevance")
    if values.ndim not in (1, 2):
        raise ValueError(
            f"relevance must have shape (F,) or (N, F), got {values.shape}; sum over further axes, "
            "such as those of an embedding"
        )
    return values.reshape(-1, values.shape[-1])


def _values(values: Any, names: Any, shape: tuple[int, ...]) -> tuple[Any, dict[int, Labels]]:
    """The numbers of a table, and the labels of its columns."""
    if names is not None:
        if len(set(names)) < len(names):
            raise ValueError(f"values must have columns with unique names, got {list(names)}")
        columns = [values[name] for name in names]
    else:
        array = np.asarray(values)
        array = array[None] if array.ndim == 1 else array
        columns = list(array.T) if array.ndim == 2 else []
    found = [_column(column, i) for i, column in enumerate(columns)]
    got = (len(found[0][0]) if found else 0, len(found))
    if got != shape:
        raise ValueError(
            f"values must have the shape of relevance, {shape}, got {got if found else np.shape(values)}; "
            "if columns were encoded, sum their relevance first with jaxlrp.tables.sum_groups"
        )
    labels = {i: names for i, (_, names) in enumerate(found) if names is not None}
    return np.stack([numbers for numbers, _ in found], axis=1), labels


def _column(column: Any, position: int) -> tuple[np.ndarray, Labels | None]:
    """Numbers, NaN where missing or infinite; of a column of labels, codes and the labels."""
    if hasattr(column, "cat") and hasattr(column.cat, "codes"):  # pandas
        codes = np.asarray(column.cat.codes, np.float64)
        labels = tuple(str(label) for label in column.cat.categories)
        return np.where(codes < 0, np.nan, codes), labels
    entries = np.asarray(column)
    if jnp.issubdtype(entries.dtype, jnp.number) and entries.dtype.kind != "c":
        numbers = entries.astype(np.float64)
        return np.where(np.isfinite(numbers), numbers, np.nan), None
    if entries.dtype == bool:
        return entries.astype(np.float64), ("False", "True")
    if entries.dtype.kind not in "OUST":
        raise TypeError(
            f"values must contain numbers or labels, got dtype {entries.dtype} in column {position}"
        )
    given = entries.tolist()
    missing = [entry is None or str(entry) in _MISSING for entry in given]
    held = [entry for entry, absent in zip(given, missing, strict=True) if not absent]
    if all(isinstance(entry, int | float | np.number) for entry in held):
        return np.array(
            [np.nan if no else float(e) for e, no in zip(given, missing, strict=True)]
        ), None
    labels = tuple(sorted({str(entry) for entry in held}))
    code = {label: float(i) for i, label in enumerate(labels)}
    return np.array(
        [np.nan if no else code[str(e)] for e, no in zip(given, missing, strict=True)]
    ), labels


def shown(table: Columns, max_display: int) -> tuple[list[int], list[int]]:
    """The columns that get a row of their own, the largest first, and those that share the last row."""
    check_count("max_display", max_display)
    order = [int(i) for i in table.order()]
    if len(order) <= max_display:
        return order, []
    return order[: max_display - 1], order[max_display - 1 :]


def others(rest: list[int]) -> str:
    return counted(len(rest), "other feature")


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number as people write it: no exponent below ten million."""
    plain = 10.0**digits <= abs(value) < 1e7
    form = ",.0f" if plain else f".{digits}g"
    return f"{value:{'+' * sign}{form}}".replace("-", "\N{MINUS SIGN}")
