"""Exceptions. Each message says what was expected, what was given, and how to fix it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UnsupportedError(NotImplementedError):
    """A model computes something that the library does not know how to explain."""


class TrainingModeError(ValueError):
    """A model was traced in training mode: dropout, or statistics of the batch."""


class NonFiniteError(FloatingPointError):
    """A NaN or an infinity, with the layer where it first appeared."""


class GrowthWarning(UserWarning):
    """Relevance grew to more than a hundred times its start, at the layer that the message names."""


def near(name: str, known: Iterable[str], limit: int = 5) -> str:
    """The names most like `name`, those with it as a word first, for the end of a message."""
    known = sorted(set(known))
    like = [k for k in known if name.lower() in re.split(r"[^a-z0-9]+", k.lower())][:limit]
    like += difflib.get_close_matches(name.strip("*"), known, n=limit, cutoff=0.3)
    like = list(dict.fromkeys(like))[:limit]
    listed = like or known[:limit]
    if not listed:
        return "there are none"
    more = "" if len(known) <= len(listed) else f", ... ({len(known)} in all)"
    return f"{'the nearest are' if like else 'there are'} {', '.join(map(repr, listed))}{more}"


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 class", "2 classes", "1,000 axes"."""
    if count == 1:
        return f"1 {noun}"
    plural = {"axis": "axes", "class": "classes"}.get(noun, f"{noun}s")
    return f"{count:,} {plural}"


def where(path: str, source: str) -> str:
    """`at module path 'x', line y`, as far as known."""
    parts = [f"at {path!r}" if path else "", f"from {source}" if source else ""]
    return ", ".join(filter(None, parts)) or "at an unknown place"
