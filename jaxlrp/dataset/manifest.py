"""The manifest of a store: everything that its numbers depend on."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.dataset import safe_files
from jaxlrp.dataset.durable import write_json
from jaxlrp.dataset.errors import DamagedError, DifferentRunError, StoreError
from jaxlrp.dataset.members import Member
from jaxlrp.dataset.reading import Spec

FILE = "manifest.json"
_FORMAT = "jaxlrp relevance"
_VERSION = 3
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tensorstore")

_DESCRIBED = ("composite", "plan", "model", "target", "conditions")
_LABELS = {"target": "target policy", "condition_names": "condition names"}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the numbers of a store depend on. Written once, before the first chunk.

    Attributes:
      composite, plan, model, target, conditions, program: text and digest of each.
      spec: shapes and dtypes of a sample's input, target and further arguments.
      dtype: dtype in which relevance is stored, None if it is the computed one.
      chunk_size: samples per chunk.
      batch_size: samples per batch, of one process.
      members: the arrays of the store, by name.
      condition_names: names along the condition axis.
      source: short description of the source.
      versions: versions of the packages when the store was made.
      created: time of creation, UTC, ISO 8601.
      command: arguments of the command line, None if it was not used.
    """

    composite: Mapping[str, str]
    plan: Mapping[str, str]
    model: Mapping[str, str]
    target: Mapping[str, str]
    conditions: Mapping[str, str]
    program: Mapping[str, str]
    spec: Spec
    dtype: str | None
    chunk_size: int
    batch_size: int
    members: Mapping[str, Member]
    condition_names: tuple[str, ...]
    source: str
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: versions())
    created: str = dataclasses.field(default_factory=lambda: _now())
    command: Mapping[str, Any] | None = None

    @property
    def identity(self) -> str:
        """A hash of everything that the numbers depend on; the journal line of each chunk holds it too."""
        held = [
            *(getattr(self, key)["digest"] for key in (*_DESCRIBED, "program")),
            *(_tree(part) for part in self.spec),
            self.dtype, self.chunk_size, list(self.condition_names),
            {name: [list(m.shape), m.dtype, list(m.dims)] for name, m in self.members.items()},
        ]  # fmt: skip
        return _checksum(held)

    def write(self, store: Path) -> None:
        held = {"format": _FORMAT, "version": _VERSION} | {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self)
        }
        held["spec"] = [_tree(part) for part in self.spec]
        held["members"] = {k: dataclasses.asdict(m) for k, m in self.members.items()}
        write_json(store / FILE, held | {"checksum": _checksum(held)})

    def check_same(self, now: Manifest, store: Path) -> None:
        """Refuses to resume with a different model, composite, target policy, or samples of another shape.

        Raises:
          DifferentRunError: listing what differs.
        """
        differ = [
            f"{_LABELS.get(key, key)}: {_short(getattr(now, key))} now, "
            f"{_short(getattr(self, key))} in the store"
            for key in _DESCRIBED
            if getattr(self, key)["digest"] != getattr(now, key)["digest"]
        ]
        for key in ("dtype", "chunk_size", "condition_names", "spec", "members"):
            mine, other = getattr(self, key), getattr(now, key)
            if mine != other and not (
                key == "members" and differ
            ):  # members follow from everything else
                differ.append(
                    f"{_LABELS.get(key, key)}: {_brief(other)} now, {_brief(mine)} in the store"
                )
        if not differ and self.program["digest"] != now.program["digest"]:
            this, held = _short(now.program), _short(self.program)
            ours, theirs = now.versions["jax"], self.versions["jax"]
            why = "" if ours == theirs else f" (JAX {ours} now, {theirs} then)"
            differ = [f"computation: {this} now, {held} in the store{why}"]
        if differ:
            raise DifferentRunError(
                f"the store {str(store)!r} was made by a different run; {'; '.join(differ)}. "
                "Use the same arguments to resume it, or choose another folder"
            )


def read(store: Path) -> Manifest:
    """Reads the manifest of a store.

    Raises:
      StoreError: if the folder is not a store.
      DamagedError: if the manifest cannot be read, or holds what no run writes.
    """
    path = store / FILE
    if store.exists() and not store.is_dir():
        raise StoreError(f"{str(store)!r} is a file, but a store is a folder")
    if not (path.exists() or path.is_symlink()):
        if not store.exists():
            raise StoreError(f"the store {str(store)!r} does not exist")
        raise StoreError(f"{str(store)!r} is not a store of relevance: it has no {FILE}")
    try:
        held = _parsed(safe_files.read(path))
        if held.get("format") != _FORMAT or held.get("version") != _VERSION:
            raise StoreError(
                f"{str(path)!r} has a format that this version of jaxlrp cannot read: use the version that "
                "wrote it"
            )
        return _manifest(held)
    except StoreError:
        raise
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except _WRONG as error:
        raise _damaged(path, str(error)) from error


_WRONG = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    OverflowError,
)


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        f"the manifest {str(path)!r} is damaged: {why}. Restore a copy of the file. Without a copy, "
        "remove it and start the same run on the store again: if the journal confirms that the model and "
        "everything else are the same, the manifest is written again, and nothing is computed twice"
    )


def _parsed(data: bytes) -> dict[str, Any]:
    """The JSON of a manifest, with its checksum verified."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        held = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    if not isinstance(held, dict) or "checksum" not in held:
        raise ValueError("it has no checksum")
    if held.pop("checksum") != _checksum(held):
        raise ValueError("its checksum is wrong")
    return held


def _manifest(held: dict[str, Any]) -> Manifest:
    """A manifest from JSON. Fields that this version does not know are ignored."""
    known = [f.name for f in dataclasses.fields(Manifest)]
    missing = [name for name in known if name not in held]
    if missing:
        raise ValueError(f"the field {missing[0]!r} is missing")
    held = {name: held[name] for name in known}
    held["spec"] = Spec(*map(_untree, held["spec"]))
    held["members"] = {name: _member(name, m) for name, m in held["members"].items()}
    held["condition_names"] = tuple(held["condition_names"])
    for name in (*_DESCRIBED, "program"):
        words = held[name]
        if not all(isinstance(words[part], str) for part in ("text", "digest")):
            raise ValueError(f"{name} must have a text and a digest")
    for name in ("chunk_size", "batch_size"):
        if type(held[name]) is not int or not 0 < held[name] < 2**40:
            raise ValueError(f"{name} must be an integer >= 1, got {held[name]!r}")
    if not isinstance(held["source"], str) or not isinstance(held["created"], str):
        raise ValueError("source and created must be strings")
    if not isinstance(held["versions"], dict):
        raise ValueError("versions must be a dictionary")
    return Manifest(**held)


_TAKEN = ("journal", "zarr.json", FILE)


def _member(name: str, held: Mapping[str, Any]) -> Member:
    """An array; its name must be a valid folder name inside the store."""
    if not name or name.startswith(".") or name in _TAKEN or any(c in name for c in "/\\\0"):
        raise ValueError(f"{name!r} is not a valid name of an array")
    shape, dims = tuple(held["shape"]), tuple(held["dims"])
    if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError(f"the array {name!r} has the invalid shape {shape}")
    if len(dims) != len(shape) + 1 or not all(isinstance(d, str) for d in dims):
        raise ValueError(f"the array {name!r} has axes {dims}, which do not fit the shape {shape}")
    return Member(shape, _dtype(held["dtype"]).name, dims)


def _dtype(name: Any) -> np.dtype:
    """A numeric dtype by its name."""
    found = np.dtype(name) if isinstance(name, str) else None
    if found is None or not (jnp.issubdtype(found, jnp.number) or found.kind == "b"):
        raise ValueError(f"{name!r} is not a numeric dtype")
    return found


def _checksum(held: Any) -> str:
    return hashlib.blake2b(json.dumps(held, sort_keys=True).encode(), digest_size=16).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute and write."""
    import jaxlrp

    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"jaxlrp": jaxlrp.__version__, "python": platform.python_version()} | found


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _short(value: Mapping[str, str]) -> str:
    text = value["text"]
    line = text.split("\n")[0]
    shown = line if len(text) <= 60 else f"{line[:57]}..."
    return f"{shown} ({value['digest'][:8]})"


def _brief(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 200 else f"{shown[:197]}..."


def _tree(tree: Any) -> Any:
    """A pytree of shapes in JSON form."""
    if tree is None:
        return None
    if isinstance(tree, jax.ShapeDtypeStruct):
        return {"dtype": np.dtype(tree.dtype).name, "shape": list(tree.shape)}
    if isinstance(tree, Mapping):
        return {"keys": {str(key): _tree(value) for key, value in tree.items()}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_tree(value) for value in tree]}
    raise TypeError(
        f"a sample must be an array, or dictionaries, lists and tuples of arrays, got {type(tree).__name__}"
    )


def _untree(held: Any) -> Any:
    if held is None:
        return None
    if "dtype" in held:
        return jax.ShapeDtypeStruct(tuple(held["shape"]), _dtype(held["dtype"]))
    if "keys" in held:
        return {key: _untree(value) for key, value in held["keys"].items()}
    return (
        [_untree(v) for v in held["list"]] if "list" in held else tuple(map(_untree, held["tuple"]))
    )
