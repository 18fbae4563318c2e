"""Relevance as tables of pandas, and as labeled arrays of xarray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp._extras import need


def only_array(relevance: Any, name: str = "relevance") -> Any:
    """The one array that a relevance is.

    Raises:
      TypeError: if it is a pytree of several, naming them.
    """
    if jax.tree_util.all_leaves([relevance]):
        return relevance
    paths, _ = jax.tree_util.tree_flatten_with_path(relevance)
    parts = [f"result.relevance{jax.tree_util.keystr(path)}" for path, _ in paths]
    raise TypeError(
        f"{name} must be one array, but this explanation has {len(parts)}: pass one of them, "
        f"{', '.join(parts[:8])}"
    )


def to_pandas(
    relevance: Any, columns: Sequence[str] | None, tokens: Any, index: Sequence[Any] | None
) -> Any:
    """See `Explanation.to_pandas`."""
    pandas = need("pandas", "Explanation.to_pandas", "pandas")
    if tokens is not None:
        if columns is not None or index is not None:
            raise TypeError("columns and index are for tables: leave them out with tokens")
        return pandas.DataFrame(_token_rows(_numpy(only_array(relevance)), tokens))
    single = jax.tree_util.all_leaves([relevance])
    named = _columns(_numpy(relevance), "") if single else _columns_of_parts(relevance)
    values = list(named.values())
    if len({len(column) for column in values}) > 1:
        raise ValueError(
            "relevance must have as many samples in all its parts, got "
            f"{ {name: len(column) for name, column in named.items()} }"
        )
    if columns is not None and len(columns) != len(values):
        raise ValueError(
            f"columns must have {len(values)} names, one for each feature, got {len(columns)}"
        )
    table = pandas.DataFrame(np.stack(values, axis=1), index=index)
    table.columns = list(columns) if columns is not None else list(named)
    return table


def to_xarray(relevance: Any, dims: Sequence[str] | None, coords: Mapping[str, Any] | None) -> Any:
    """See `Explanation.to_xarray`."""
    xarray = need("xarray", "Explanation.to_xarray", "xarray")
    values = _numpy(only_array(relevance))
    if dims is not None and len(dims) != values.ndim:
        raise ValueError(
            f"dims must have {values.ndim} names, one for each axis of relevance of shape {values.shape}, "
            f"got {tuple(dims)}"
        )
    return xarray.DataArray(values, dims=dims, coords=coords, name="relevance")


def summed_over_features(values: np.ndarray, tokens: Any) -> np.ndarray:
    """One relevance for each token: of embedded tokens, the sum over the axis of features."""
    if all(isinstance(token, str) for token in tokens):
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
        embedded = values.ndim == 2 and len(values) == len(tokens) > 1
    else:
        embedded = values.ndim == 3
    return values.sum(axis=-1) if embedded else values


def _numpy(value: Any) -> np.ndarray:
    """An array that pandas and xarray know: bfloat16 and its like become float32."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _columns(values: np.ndarray, name: str) -> dict[Any, np.ndarray]:
    """The columns of a table (samples, features); one sample is one row."""
    if values.ndim > 2:
        raise ValueError(
            f"relevance{name and f' of {name}'} must have shape (samples, features) or (features,), got "
            f"{values.shape}: sum over the other axes, pass tokens=, or use to_xarray"
        )
    rows = np.atleast_2d(values)
    return {f"{name}/{i}" if name else i: rows[:, i] for i in range(rows.shape[1])}


def _columns_of_parts(relevance: Any) -> dict[Any, np.ndarray]:
    """The columns of several tables, or of several features (samples,)."""
    found: dict[Any, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(relevance)[0]:
        name, values = jax.tree_util.keystr(path, simple=True, separator="/"), _numpy(leaf)
        found |= _columns(values, name) if values.ndim > 1 else {name: np.atleast_1d(values)}
    return found


def _token_rows(values: np.ndarray, tokens: Any) -> dict[str, list[Any]]:
    """One row for each token: its sentence, its position, the token and its relevance."""
    values = summed_over_features(values, tokens)
    single = all(isinstance(token, str) for token in tokens)
    sentences = [list(tokens)] if single else [list(sentence) for sentence in tokens]
    table, counts = np.atleast_2d(values), [len(sentence) for sentence in sentences]
    fits = table.ndim == 2 and len(table) == len(sentences)
    width = table.shape[1]
    if not fits or max(counts) > width or (single and counts != [width]):
        raise ValueError(
            f"relevance of shape {values.shape} does not fit {len(sentences)} sentences of {counts} "
            "tokens: there must be one for each token, or a padded array (sentences, tokens)"
        )
    rows = [
        (i, position, token, value)
        for i, (sentence, row) in enumerate(zip(sentences, table, strict=True))
        for position, (token, value) in enumerate(zip(sentence, row, strict=False))
    ]
    names = ("sentence", "position", "token", "relevance")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}
