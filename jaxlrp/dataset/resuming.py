"""Going on from the command line with a store that may be someone else's."""

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


def begun(store: pathlib.Path) -> dict[str, Any] | None:
    """What was asked for last, with the widest limit that was ever asked for."""
    first = manifest.read(store).command
    state = journal.state(store)
    commands = [first, *(line["command"] for line in state.asked)]
    last = next((command for command in reversed(commands) if command is not None), None)
    if last is None:
        return None
    if not lines.command(last):
        raise DamagedError(
            f"{str(store)!r} does not say what the command line was asked for in words that it takes: "
            "give the same `attribute` command again, which goes on where it ended"
        )
    asked = {
        key: last.get(key) for key in ("source", "output", "model", "composite", "target", "dtype")
    }
    return {**asked, "limit": state.limit if state.asked else last.get("limit")}


def refuse_code_inside(store: pathlib.Path, named: str) -> None:
    """Refuses a model whose package is the store itself, or a folder in it."""
    package = named.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    inside = store.resolve()
    if any(place and pathlib.Path(place).resolve().is_relative_to(inside) for place in places):
        raise ValueError(
            f"--model {named} lies in the store {str(store)!r}, of which nothing is run: if you know this "
            "code, move it out of the store"
        )


@contextmanager
def outside(store: pathlib.Path) -> Iterator[None]:
    """Nothing is imported from inside of a store, also where one stands in it.

    What Python imported before, such as `python -m jaxlrp` the package itself, it cannot undo.
    """
    inside = store.resolve()
    kept = list(sys.path)
    sys.path[:] = [p for p in kept if not pathlib.Path(p or ".").resolve().is_relative_to(inside)]
    try:
        yield
    finally:
        sys.path[:] = kept


def how_to_go_on(arguments: argparse.Namespace, known: Sequence[str]) -> str:
    """What to do after an interrupt, for any command."""
    store = getattr(arguments, "output", None) or getattr(arguments, "store", None)
    model = getattr(arguments, "model", None)
    if store is None or not hasattr(arguments, "batch_size"):  # neither attribute nor resume
        return "start the same command again"
    if not (pathlib.Path(store) / "manifest.json").exists():
        return "nothing was computed yet, start the same command again"
    words = ["jaxlrp", "resume", str(store)]
    words += ["--model", model] if model is not None and model not in known else []
    return f"what was committed is safe, go on with: {shlex.join(words)}"
