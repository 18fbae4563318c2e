"""Layers by their paths or shell patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from jaxlrp import _compat
from jaxlrp._checks import check_mapping
from jaxlrp.errors import near
from jaxlrp.network.foreign import as_jax


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """The paths that a pattern matches: the one that is equal to it, or all that fit it."""
    known = list(paths)
    if pattern in known:
        return [pattern]
    return [path for path in known if fnmatch.fnmatchcase(path, pattern)]


def as_patterns(name: str, given: Any) -> tuple[str, ...]:
    """Paths or patterns of layers, given as one string or a sequence of strings.

    Raises:
      TypeError: naming the argument.
    """
    found = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(pattern, str) for pattern in found):
        raise TypeError(
            f"{name} must be a path or pattern of layers (a string), or a sequence of them, got {given!r}"
        )
    return found


def as_conditions(given: Any) -> dict[str, Any]:
    """Masks by paths or patterns of layers, the argument `condition`.

    Raises:
      TypeError: if it is no dictionary, a key is no string or a value is no array of numbers.
    """
    if given is None:
        return {}
    check_mapping("condition", given, "{'layer': mask}")
    as_patterns("the keys of condition", given)
    found = {key: jax.tree.map(as_jax, mask) for key, mask in given.items()}
    for key, mask in found.items():
        if not (_compat.is_array(mask) or isinstance(mask, (int, float, list, tuple))):
            raise TypeError(
                f"condition[{key!r}] must be a number or an array that broadcasts to the layer's output, "
                f"got {mask!r}"
            )
    return found


def some(what: str, pattern: str, paths: Sequence[str]) -> list[str]:
    """The paths that a pattern matches, at least one.

    Raises:
      ValueError: naming `what` the pattern was given for.
    """
    found = matching(pattern, paths)
    if not found:
        raise ValueError(f"{what} matches no layer: {near(pattern, paths)}")
    return found


def one(what: str, pattern: str, paths: Sequence[str]) -> str:
    """The one path that a pattern matches.

    Raises:
      ValueError: naming `what` the pattern was given for.
    """
    found = some(what, pattern, paths)
    if len(found) > 1:
        listed = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
        raise ValueError(f"{what} must match one layer, but matches {len(found)}: {listed}")
    return found[0]


def by_layer(
    what: str, given: Mapping[str, Any], paths: Sequence[str]
) -> dict[str, tuple[str, Any]]:
    """(pattern, value) for each layer that one of the patterns matches; its own path comes first.

    Raises:
      ValueError: if a pattern matches no layer, or two patterns match the same one.
    """
    found: dict[str, tuple[str, Any]] = {}
    for pattern, value in sorted(given.items(), key=lambda item: (item[0] not in paths, item[0])):
        for path in some(f"{what}[{pattern!r}]", pattern, paths):
            if path not in found:
                found[path] = (pattern, value)
            elif found[path][0] != path:
                raise ValueError(
                    f"{what} has two patterns that match the layer {path!r}, {found[path][0]!r} and "
                    f"{pattern!r}: give {path!r} an entry of its own"
                )
    return found
