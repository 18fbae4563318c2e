"""What a store is: everything that its numbers depend on."""

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

from jaxlrp.dataset import foreign
from jaxlrp.dataset.durable import write_json
from jaxlrp.dataset.errors import DamagedError, DifferentRunError, StoreError
from jaxlrp.dataset.program import Member
from jaxlrp.dataset.reading import Spec

FILE = "manifest.json"
_FORMAT = "jaxlrp relevance"
_VERSION = 2
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tensorstore")

_ASKED = {
    "composite": "composite",
    "plan": "plan",
    "model": "model",
    "target": "target policy",
    "conditions": "conditions",
}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a store is. It is written once, before the first chunk.

    Attributes:
      composite, plan, model, target, conditions, program: text and digest of each.
      spec: shape and dtype of a sample's input, target and further arguments.
      dtype: in which relevances are stored, None for their own.
      chunk: samples of a chunk.
      batch: samples of a batch, of one process.
      members: the arrays of the store.
      condition_names: of the condition axis.
      source: what the samples came from.
      versions: of the packages when the store was made.
      created: when, UTC.
      command: what the command line was asked for, None where it was not used.
    """

    composite: Mapping[str, str]
    plan: Mapping[str, str]
    model: Mapping[str, str]
    target: Mapping[str, str]
    conditions: Mapping[str, str]
    program: Mapping[str, str]
    spec: Spec
    dtype: str | None
    chunk: int
    batch: int
    members: Mapping[str, Member]
    condition_names: tuple[str, ...]
    source: str
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: versions())
    created: str = dataclasses.field(default_factory=lambda: _now())
    command: Mapping[str, Any] | None = None

    @property
    def identity(self) -> str:
        """A hash of all that its numbers depend on; each chunk's line in the journal has it too."""
        held = [
            *(getattr(self, key)["digest"] for key in (*_ASKED, "program")),
            *(_tree(part) for part in self.spec),
            self.dtype, self.chunk, list(self.condition_names),
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
        """Refuses to go on with another model, composite, target policy, or other samples.

        Raises:
          DifferentRunError: saying what differs.
        """
        differ = [
            f"the {what} is {_short(getattr(now, key))}, the store has {_short(getattr(self, key))}"
            for key, what in _ASKED.items()
            if getattr(self, key)["digest"] != getattr(now, key)["digest"]
        ]
        for key in ("dtype", "chunk", "condition_names", "spec", "members"):
            mine, other = getattr(self, key), getattr(now, key)
            if mine != other and not (key == "members" and differ):  # these follow from all others
                differ.append(f"{key} is {_brief(other)}, the store has {_brief(mine)}")
        if not differ and self.program["digest"] != now.program["digest"]:
            this, held = _short(now.program), _short(self.program)
            ours, theirs = now.versions["jax"], self.versions["jax"]
            why = "" if ours == theirs else f" of JAX {ours}, not {theirs}"
            differ = [f"what is computed is {this}{why}, the store has {held}"]
        if differ:
            raise DifferentRunError(
                f"the store {str(store)!r} cannot be resumed by another run: {'; '.join(differ)}. "
                "Give the same arguments, or another folder"
            )


def read(store: Path) -> Manifest:
    """Reads the manifest of a store.

    Raises:
      StoreError: if the folder is no store.
      DamagedError: if the manifest cannot be read, or says what none that was written says.
    """
    path = store / FILE
    if store.exists() and not store.is_dir():
        raise StoreError(f"{str(store)!r} is a file, not the folder of a store: give that folder")
    if not (path.exists() or path.is_symlink()):
        raise StoreError(f"{str(store)!r} holds no relevances: it has no {FILE}")
    try:
        held = _parsed(foreign.read(path))
        if held.get("format") != _FORMAT or held.get("version") != _VERSION:
            raise StoreError(f"{str(path)!r} is of a format that this version does not read")
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
        f"the manifest {str(path)!r} is damaged: {why}. Put back a copy of the file. Without a copy, "
        "remove it and start the same run on the store again: its journal tells whether the model and all "
        "else are the same, the manifest is then written anew, and nothing is computed twice"
    )


def _parsed(data: bytes) -> dict[str, Any]:
    """The JSON of a manifest, whose checksum is right."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        held = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(held, dict) or "checksum" not in held:
        raise ValueError("it has no checksum")
    if held.pop("checksum") != _checksum(held):
        raise ValueError("its checksum differs")
    return held


def _manifest(held: dict[str, Any]) -> Manifest:
    """A manifest of what JSON holds. What this version does not know of is left out."""
    known = [f.name for f in dataclasses.fields(Manifest)]
    missing = [name for name in known if name not in held]
    if missing:
        raise ValueError(f"it does not say {missing[0]!r}")
    held = {name: held[name] for name in known}
    held["spec"] = Spec(*map(_untree, held["spec"]))
    held["members"] = {name: _member(name, m) for name, m in held["members"].items()}
    held["condition_names"] = tuple(held["condition_names"])
    for name in (*_ASKED, "program"):
        words = held[name]
        if not all(isinstance(words[part], str) for part in ("text", "digest")):
            raise ValueError(f"{name} is no text with a digest")
    for name in ("chunk", "batch"):
        if type(held[name]) is not int or not 0 < held[name] < 2**40:
            raise ValueError(f"{name} must be an integer >= 1, got {held[name]!r}")
    if not isinstance(held["source"], str) or not isinstance(held["created"], str):
        raise ValueError("source and created must be texts")
    if not isinstance(held["versions"], dict):
        raise ValueError("versions must be named")
    return Manifest(**held)


_TAKEN = ("journal", "zarr.json", FILE)


def _member(name: str, held: Mapping[str, Any]) -> Member:
    """An array, whose name becomes a path below the store and nothing else."""
    if not name or name.startswith(".") or name in _TAKEN or any(c in name for c in "/\\\0"):
        raise ValueError(f"{name!r} is the name of no array that a run writes")
    shape, dims = tuple(held["shape"]), tuple(held["dims"])
    if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError(f"the array {name!r} has the shape {shape}")
    if len(dims) != len(shape) + 1 or not all(isinstance(d, str) for d in dims):
        raise ValueError(f"the array {name!r} has the axes {dims} for the shape {shape}")
    return Member(shape, _dtype(held["dtype"]).name, dims)


def _dtype(name: Any) -> np.dtype:
    """A dtype of numbers by its name."""
    found = np.dtype(name) if isinstance(name, str) else None
    if found is None or not (jnp.issubdtype(found, jnp.number) or found.kind == "b"):
        raise ValueError(f"{name!r} is no dtype of numbers")
    return found


def _checksum(held: Any) -> str:
    return hashlib.blake2b(json.dumps(held, sort_keys=True).encode(), digest_size=16).hexdigest()


def versions() -> dict[str, str]:
    """Of what computes and writes."""
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
    """A tree of shapes as JSON holds it."""
    if tree is None:
        return None
    if isinstance(tree, jax.ShapeDtypeStruct):
        return {"dtype": np.dtype(tree.dtype).name, "shape": list(tree.shape)}
    if isinstance(tree, Mapping):
        return {"keys": {str(key): _tree(value) for key, value in tree.items()}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_tree(value) for value in tree]}
    raise TypeError(
        f"a sample may be an array, or dictionaries, lists and tuples of arrays, got {type(tree)}"
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
