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
import numpy as np

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
      DamagedError: if the manifest cannot be read.
    """
    path = store / FILE
    if not path.is_file():
        raise StoreError(f"{str(store)!r} holds no relevances: it has no {FILE}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held.pop("checksum") != _checksum(held):
            raise ValueError("its checksum differs")
        if held.pop("format") != _FORMAT or held.pop("version") != _VERSION:
            raise StoreError(f"{str(path)!r} is of a format that this version does not read")
        held["spec"] = Spec(*map(_untree, held["spec"]))
        held["members"] = {
            name: Member(tuple(m["shape"]), m["dtype"], tuple(m["dims"]))
            for name, m in held["members"].items()
        }
        held["condition_names"] = tuple(held["condition_names"])
        return Manifest(**held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"the manifest {str(path)!r} is damaged: {error}") from error


def _checksum(held: Mapping[str, Any]) -> str:
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
        return jax.ShapeDtypeStruct(tuple(held["shape"]), np.dtype(held["dtype"]))
    if "keys" in held:
        return {key: _untree(value) for key, value in held["keys"].items()}
    return (
        [_untree(v) for v in held["list"]] if "list" in held else tuple(map(_untree, held["tuple"]))
    )
