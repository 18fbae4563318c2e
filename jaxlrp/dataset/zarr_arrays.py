"""Zarr v3 arrays of a store: metadata, encoding of chunks, reading.

A group holds one array per member, chunked by sample, little-endian, with Zstandard and CRC-32C.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.dataset import safe_files
from jaxlrp.dataset.durable import write_json
from jaxlrp.dataset.errors import need
from jaxlrp.dataset.members import Member

GROUP = "/"
"""The name of the group in reports, as in Zarr."""
METADATA = "zarr.json"
_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}
_LEVEL = 1  # of Zstandard: faster than any disk, and nearly as small as higher levels


def metadata(member: Member, rows: int, chunk_size: int) -> dict[str, Any]:
    """The Zarr v3 metadata of a member with `rows` rows, `chunk_size` of them per chunk."""
    floating = "float" in member.dtype
    return {
        "shape": [rows, *member.shape],
        "data_type": member.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunk_size, *(max(n, 1) for n in member.shape)]},
        },
        "fill_value": "NaN" if floating else False if member.dtype == "bool" else 0,
        "codecs": [
            {"name": "bytes", **({"configuration": {"endian": "little"}} if _wide(member.dtype) else {})},
            {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}},
            {"name": "crc32c"},
        ],
        "dimension_names": list(member.dims),
    }  # fmt: skip


def _wide(dtype: str) -> bool:
    return dtype not in ("bool", "int8", "uint8")


def open_array(path: Path, name: str, member: Member, rows: int, chunk_size: int) -> Any:
    """Opens a member for reading, with the length given by the journal, whatever its own metadata say."""
    ts = need("tensorstore", "reading a store")
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path / name}/"},
        "metadata": metadata(member, rows, chunk_size),
        "fill_missing_data_reads": False,  # a missing file is damage, not NaN
    }
    return ts.open(spec, open=True, read=True, assume_metadata=True).result()


def files(name: str, member: Member, chunk: int) -> str:
    """The path of a member's chunk, relative to the store."""
    return "/".join([name, "c", str(chunk), *("0" for _ in member.shape)])


def create(path: Path, members: Mapping[str, Member], chunk_size: int, rows: int) -> None:
    """Creates the group and its empty arrays. Idempotent."""
    set_group(path)
    for name, member in members.items():
        (path / name).mkdir(exist_ok=True)
        set_rows(path, name, member, chunk_size, rows)


def set_group(path: Path) -> None:
    """Writes the metadata of the group."""
    safe_files.clear(path, path / METADATA)
    write_json(path / METADATA, _GROUP)


def group_holds(path: Path) -> bool:
    """Whether the metadata of the group are intact."""
    try:
        return json.loads(safe_files.read(path / METADATA)) == _GROUP
    except (OSError, ValueError, RecursionError):
        return False


def set_rows(path: Path, name: str, member: Member, chunk_size: int, rows: int) -> None:
    """Writes a member's metadata with `rows` rows, in the form that tensorstore writes."""
    ts = need("tensorstore", "writing a store")
    safe_files.clear(path, path / name / METADATA)
    memory = ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "memory"},
            "metadata": metadata(member, rows, chunk_size),
        },
        create=True,
        context=ts.Context(),
    ).result()
    kvstore = ts.KvStore.open({"driver": "file", "path": f"{path / name}/"}).result()
    kvstore.write(METADATA, memory.kvstore[METADATA]).result()


def metadata_hold(path: Path, name: str, member: Member, chunk_size: int, rows: int | None) -> bool:
    """Whether a member's metadata are intact, and declare `rows` rows if that number is given."""
    try:
        found = json.loads(safe_files.read(path / name / METADATA))
        if rows is not None and found["shape"][0] != rows:
            return False
        return all(
            found[key] == value
            for key, value in metadata(member, found["shape"][0], chunk_size).items()
            if key != "codecs"
        ) and [c["name"] for c in found["codecs"]] == ["bytes", "zstd", "crc32c"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


class Encoder:
    """Encodes chunks of one member: from rows (<= chunk_size, ...) to the bytes of a file."""

    def __init__(self, member: Member, chunk_size: int) -> None:
        ts = need("tensorstore", "writing a store")
        self._shape = (chunk_size, *member.shape)
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "memory"},
            "metadata": metadata(member, chunk_size, chunk_size),
            "store_data_equal_to_fill_value": True,
        }
        self._array = ts.open(spec, create=True, context=ts.Context()).result()
        self._key = files("", member, 0).lstrip("/")
        self._fill = np.asarray(self._array.fill_value)

    def __call__(self, rows: np.ndarray) -> bytes:
        if len(rows) < self._shape[0]:
            rest = np.broadcast_to(self._fill, (self._shape[0] - len(rows), *self._shape[1:]))
            rows = np.concatenate([rows, rest.astype(rows.dtype)])
        self._array.write(rows).result()
        return self._array.kvstore[self._key]
