"""Explanations as files, an `.npz` with a JSON header, read without pickle; as Flax state dictionaries."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxlrp import _compat
from jaxlrp._checks import as_path
from jaxlrp.explanation.result import Explanation, Record

_HEADER = "explanation.json"
_FORMAT, _VERSION = "jaxlrp explanation", 1
_FIELDS = ("output", "relevance", "aux", "records", "parameters", "gains")
# What reading a file raises that is cut off, or that something else wrote.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, AttributeError, EOFError,
    RecursionError,
)  # fmt: skip


def save(path: str | os.PathLike[str], explanation: Explanation) -> None:
    """Writes an explanation to a file that `load` reads.

    The file is an `.npz`: one NumPy array for each array, and a JSON header that holds their structure. It
    holds nothing that is executed. An existing file is replaced once the new one is complete.

    Args:
      path: of the file, by convention `*.npz`.
      explanation: what an explainer gave. Its parts may be arrays of any dtype, numbers, strings, None,
        and dictionaries, lists and tuples of these.

    Raises:
      TypeError: if a part is of another type, or traced; the message names it.
      OSError: if the file cannot be written.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxlrp as lrp
      >>> result = lrp.explain(lambda x: {"sum": x["a"] + x["b"]})(
      ...     {"a": jnp.ones(2), "b": jnp.ones(2)}, target={"sum": jnp.ones(2)}
      ... )
      >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
      ...     lrp.save(file.name, result)
      ...     lrp.load(file.name)
      Explanation(output={'sum': float32[2]}, relevance={'a': float32[2], 'b': float32[2]})
    """
    path = as_path("path", path)
    if not isinstance(explanation, Explanation):
        raise TypeError(
            "explanation must be an Explanation, the result of an explainer, got "
            f"{type(explanation).__name__}"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist: create it first")
    arrays: list[np.ndarray] = []
    parts = {name: _tree(getattr(explanation, name), name, arrays) for name in _FIELDS}
    header = json.dumps({"format": _FORMAT, "version": _VERSION, **parts})
    partial = path.with_name(f"{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w") as file:
            file.writestr(_HEADER, header)
            for i, array in enumerate(arrays):
                with file.open(f"{i}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Explanation:
    """Reads an explanation that `save` wrote, also from an untrusted source: nothing in it is executed.

    Args:
      path: of the file.

    Returns:
      The `Explanation`, with NumPy arrays of the same dtypes.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is something else, is damaged, or was written by a newer jaxlrp.
    """
    path = as_path("path", path)
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            header = json.loads(file.read(_HEADER))
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']!r}")
            if header["version"] > _VERSION:
                raise ValueError(
                    f"its version {header['version']} is newer than {_VERSION}: update jaxlrp"
                )
            found = {name: _value(header[name], file) for name in _FIELDS}
        records = {key: Record(**parts) for key, parts in found.pop("records").items()}
        return Explanation(**found, records=records)
    except _UNREADABLE as error:
        raise ValueError(
            f"{str(path)!r} is not a complete file of lrp.save: {type(error).__name__}: {error}"
        ) from error


def _tree(value: Any, where: str, arrays: list[np.ndarray]) -> Any:
    """JSON for a pytree; its arrays are added to `arrays`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Record):
        value = {"relevance": value.relevance, "activation": value.activation}
    if isinstance(value, Mapping):
        if all(isinstance(key, (str, int)) for key in value):
            pairs = value.items()
            return {"dict": [[key, _tree(v, f"{where}[{key!r}]", arrays)] for key, v in pairs]}
    elif type(value) in (list, tuple):
        parts = [_tree(v, f"{where}[{i}]", arrays) for i, v in enumerate(value)]
        return {type(value).__name__: parts}
    elif _compat.is_array(value):
        return _array(value, where, arrays)
    raise TypeError(
        f"{where} of the explanation cannot be saved: it is a {type(value).__name__}; arrays, numbers, "
        "strings, None, and dictionaries, lists and tuples of these can. Convert it with "
        "dataclasses.replace(explanation, ...)"
    )


def _array(value: Any, where: str, arrays: list[np.ndarray]) -> dict[str, Any]:
    if _compat.is_traced(value):
        raise TypeError(f"{where} of the explanation is traced: save it outside of jax.jit")
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        raise TypeError(
            f"{where} of the explanation has dtype {value.dtype}: save jax.random.key_data of it"
        )
    array = np.asarray(value)
    leaf = {"array": len(arrays), "dtype": array.dtype.name}
    # bfloat16 and its like are no types of NumPy's files
    arrays.append(array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array)
    return leaf


def _value(tree: Any, file: zipfile.ZipFile) -> Any:
    """The pytree of some JSON."""
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        with file.open(f"{int(tree['array'])}.npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
        return array.view(np.dtype(tree["dtype"])) if array.dtype.name != tree["dtype"] else array
    ((kind, parts),) = tree.items()
    if kind == "dict":
        return {key: _value(part, file) for key, part in parts}
    return {"list": list, "tuple": tuple}[kind](_value(part, file) for part in parts)


def _register(cls: type, names: tuple[str, ...]) -> None:
    def to_state(value: Any) -> dict[str, Any]:
        return {name: serialization.to_state_dict(getattr(value, name)) for name in names}

    def from_state(value: Any, state: dict[str, Any]) -> Any:
        pairs = ((name, getattr(value, name)) for name in names)
        return cls(**{n: serialization.from_state_dict(v, state[n], name=n) for n, v in pairs})

    serialization.register_serialization_state(cls, to_state, from_state)


_register(Record, ("relevance", "activation"))
_register(Explanation, _FIELDS)
