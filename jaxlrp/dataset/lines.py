"""The format of a journal line: its checksum, and the fields of each kind of line.

A line is its CRC-32 in hexadecimal, a space, and JSON. The checksum detects incomplete lines. It does not
tell who wrote the line, so fields are validated before they are used as a path or a row.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

_LARGEST = 2**40  # a chunk's number: its rows must be counted in 64 bits


def written(fields: Mapping[str, Any]) -> bytes:
    """The bytes of a line."""
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(body), body)


def parse(line: bytes) -> dict[str, Any] | None:
    """The fields of a line; None if it is incomplete, or holds what no run writes."""
    crc, _, body = line[:-1].partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(body):
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not _count(found.get("run")):
        return None
    kind = found.get("kind")
    if not isinstance(kind, str):
        return None
    wanted = _FIELDS.get(kind, {})  # kinds that this version does not know are ignored
    return found if all(fits(found.get(name)) for name, fits in wanted.items()) else None


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_id, value))


def _files(value: Any) -> bool:
    """Size and checksum of each file."""
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and _count(pair[0]) and _text(pair[1])
        for pair in value.values()
    )


def _error(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _limit(value: Any) -> bool:
    return value is None or (_count(value) and value > 0)


def _command(value: Any) -> bool:
    """Anything; the command line validates it with `command`."""
    return value is None or isinstance(value, dict)


def _samples(value: Any) -> bool:
    """(position, id, mark) of a few samples; earlier versions wrote none."""
    return value is None or (
        isinstance(value, list)
        and all(
            isinstance(v, list) and len(v) == 3 and _count(v[0]) and _id(v[1]) and _text(v[2])
            for v in value
        )
    )


def command(value: Any) -> bool:
    """Whether it holds the arguments of the command line: strings, and a number for the limit."""
    words = ("source", "output", "model", "composite", "target")
    return (
        isinstance(value, dict)
        and all(_text(value.get(word)) for word in words)
        and all(value.get(word) is None or _text(value[word]) for word in ("contrast", "dtype"))
        and _limit(value.get("limit"))
    )


_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "asked": {"limit": _limit, "samples": _samples, "command": _command},
    "run": {"processes": _count},
    "chunk": {
        "chunk": _count,
        "ids": _ids,
        "files": _files,
        "error": lambda value: _error(value) and not math.isnan(value),
    },
    "failed": {"id": _id, "reason": _text},
    "again": {"id": _id, "reason": _text},
    "unread": {"position": _count, "reason": _text},
    "void": {"chunk": _count},
    "end": {"chunks": _count},
}
