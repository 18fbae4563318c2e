"""Resuming a store from the command line; the store may come from an untrusted source."""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxlrp.dataset import journal, lines, manifest
from jaxlrp.dataset.errors import DamagedError


def last_command(store: pathlib.Path) -> dict[str, Any] | None:
    """The arguments of the last command, with the largest limit of any; None if there was no command."""
    first = manifest.read(store).command
    state = journal.state(store)
    commands = [first, *(line["command"] for line in state.requests)]
    last = next((command for command in reversed(commands) if command is not None), None)
    if last is None:
        return None
    if not lines.command(last):
        raise DamagedError(
            f"the command-line arguments recorded in {str(store)!r} are invalid: repeat the "
            "original `jaxlrp attribute` command, which resumes the run"
        )
    keys = ("source", "output", "model", "composite", "target", "contrast", "dtype")
    found = {key: last.get(key) for key in keys}
    return {**found, "limit": state.limit if state.requests else last.get("limit")}


def refuse_code_inside(store: pathlib.Path, named: str) -> None:
    """Refuses a model whose package lies inside the store.

    Raises:
      ValueError: naming the model.
    """
    package = named.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    inside = store.resolve()
    if any(place and pathlib.Path(place).resolve().is_relative_to(inside) for place in places):
        raise ValueError(
            f"--model {named} lies inside the store {str(store)!r}, and code inside a store is never run: "
            "if you trust this code, move it out of the store"
        )


@contextmanager
def no_imports_from(store: pathlib.Path) -> Iterator[None]:
    """Prevents imports from inside a store, even if it is the working directory.

    Modules that were imported before, such as the package itself in `python -m jaxlrp`, are not affected.
    """
    inside = store.resolve()
    kept = list(sys.path)
    sys.path[:] = [p for p in kept if not pathlib.Path(p or ".").resolve().is_relative_to(inside)]
    try:
        yield
    finally:
        sys.path[:] = kept


def how_to_resume(arguments: argparse.Namespace, known: Sequence[str]) -> str:
    """What to do after an interrupt of any command, as a sentence."""
    store = getattr(arguments, "output", None) or getattr(arguments, "store", None)
    model = getattr(arguments, "model", None)
    if store is None or not hasattr(arguments, "batch_size"):  # neither attribute nor resume
        return "run the same command again"
    if not (pathlib.Path(store) / "manifest.json").exists():
        return "nothing was computed yet, run the same command again"
    words = ["jaxlrp", "resume", str(store)]
    words += ["--model", model] if model is not None and model not in known else []
    return f"everything written so far is safe, resume with: {shlex.join(words)}"
