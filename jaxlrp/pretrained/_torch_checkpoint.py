"""Reads the tensors of a PyTorch checkpoint without PyTorch and without trusting the file.

A checkpoint is a pickle whose tensors refer to raw buffers ("storages") beside it:

  legacy  four pickles (magic number, protocol, byte order, the object), a fifth with the list of
          storage keys, then for each key its length (int64) and its bytes;
  zip     an archive with <name>/data.pkl (the object) and one member <name>/data/<key> per storage.

A pickle is a program. This reader only allows it to create ordered dictionaries and tensors, and each
tensor must be inside its own storage. A checkpoint of a whole training run names classes of many packages;
each of these is replaced by an object that does nothing.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A description of a tensor, without its data."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RebuildTensor:
    """Replaces `torch._utils._rebuild_tensor_v2`; has no attributes that a pickle could overwrite."""

    __slots__ = ()

    def __call__(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *_gradient: Any
    ) -> Tensor:
        return Tensor(storage, offset, shape, strides)


Load = Callable[[io.BytesIO], tuple[dict[str, Tensor], dict[str, _Storage]]]


class _Foreign:
    """Replaces any other class: accepts everything that a pickle passes, keeps nothing, runs nothing."""

    __slots__ = ()

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class Unpickler(pickle.Unpickler):
    """Unpickles names, numbers and descriptions of tensors, and collects the storages they refer to."""

    def __init__(self, file: io.BytesIO, foreign: bool = False) -> None:
        super().__init__(file)
        self.foreign = foreign
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if self.foreign:
            return _Foreign
        raise pickle.UnpicklingError(
            f"refused to load {module}.{name}: only tensors and ordered dictionaries are allowed"
        )

    def persistent_load(self, reference: Any) -> _Storage:
        tag, dtype, key, _device, length, *view = reference
        storage = _Storage(key, dtype, length)
        if (
            tag != "storage"
            or dtype not in _DTYPES.values()
            or not isinstance(key, str)
            or not _is_size(length)
            or any(v is not None for v in view)
            or self.storages.setdefault(key, storage) != storage
        ):
            raise pickle.UnpicklingError(f"not a reference to a storage: {reference!r}")
        return storage


def read_torch_checkpoint(path: str | Path, part: str | None = None) -> dict[str, np.ndarray]:
    """Reads a checkpoint that is a flat mapping from names to tensors, or has one as a part.

    Supports both formats of `torch.save`, little-endian only. Nothing that the file names is executed,
    but a malicious file can still request more memory than there is.

    Args:
      path: the checkpoint file.
      part: the key of the mapping in a checkpoint of a whole training run, such as "state_dict". All other
        parts are ignored. None: the checkpoint itself is the mapping.

    Returns:
      The tensors by name, in the order of the file, each a separate writable array.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged, requests anything but tensors and ordered dictionaries,
        describes a tensor outside of its storage, or is not a flat mapping from names to tensors.
    """
    data = Path(path).read_bytes()
    try:
        load = functools.partial(_load_tensors, part=part)
        if zipfile.is_zipfile(io.BytesIO(data)):
            return read_zip(io.BytesIO(data), load)
        tensors, buffers = _read_legacy(io.BytesIO(data), load)
        return {name: _copy(tensor, buffers) for name, tensor in tensors.items()}
    except Exception as error:  # a damaged pickle or archive can raise almost anything
        raise ValueError(f"cannot read the checkpoint {path}: {error}") from error


def _read_legacy(file: io.BytesIO, load: Load) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    magic, protocol, system = (Unpickler(file).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("neither a zip archive nor a file that starts with the magic number")
    if system["little_endian"] is not True:
        raise ValueError("only little-endian files are supported")
    tensors, storages = load(file)
    keys = Unpickler(file).load()
    if sorted(keys) != sorted(storages):
        raise ValueError(f"tensors refer to storages {sorted(storages)}, the file has {keys}")
    buffers = {}
    for key in keys:
        storage = storages[key]
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            raise ValueError(f"storage {key} has length {length}, expected {storage.length}")
        buffers[key] = _array(storage, file.read(length * np.dtype(storage.dtype).itemsize))
    return tensors, buffers


def read_zip(file: io.BytesIO, load: Load) -> dict[str, np.ndarray]:
    """Reads the tensors of an archive.

    Args:
      file: the archive.
      load: function from data.pkl to its validated tensors by name, and all storages by key.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
        folders = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
        if len(folders) != 1:
            raise ValueError(f"expected one data.pkl in the archive, got {members}")
        folder = folders[0]
        if f"{folder}/byteorder" in members and archive.read(f"{folder}/byteorder") != b"little":
            raise ValueError("only little-endian files are supported")
        tensors, storages = load(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        buffers = {
            key: _array(storage, archive.read(f"{folder}/data/{key}"))
            for key, storage in storages.items()
        }
    return {name: _copy(tensor, buffers) for name, tensor in tensors.items()}


def _load_tensors(
    file: io.BytesIO, part: str | None = None
) -> tuple[dict[str, Tensor], dict[str, _Storage]]:
    """Unpickles the object and returns its validated tensors, and all storages by key."""
    unpickler = Unpickler(file, foreign=part is not None)
    checkpoint = unpickler.load()
    if part is not None:
        if not isinstance(checkpoint, dict) or not dict.__contains__(checkpoint, part):
            raise ValueError(f"there is no part {part!r}")
        checkpoint = dict.__getitem__(checkpoint, part)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"expected a mapping from names to tensors, got {type(checkpoint)}")
    # dict.items: the file may have given its OrderedDict an attribute `items`, which must not be called.
    tensors = dict(dict.items(checkpoint))
    for name, tensor in tensors.items():
        check(name, tensor)
    return tensors, unpickler.storages


def check(name: Any, tensor: Any) -> None:
    """Raises ValueError unless this is a name and a tensor inside its storage."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise ValueError(f"expected a flat mapping from names to tensors, got {name!r}: {tensor!r}")
    storage, offset, shape, strides = tensor
    if (
        not isinstance(storage, _Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or len(shape) != len(strides)
        or not all(map(_is_size, (offset, *shape, *strides)))
    ):
        raise ValueError(f"{name} is not a tensor: {tensor!r}")
    size = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # The second bound prevents a tensor with stride zero from requesting unlimited memory.
    if size and (last >= storage.length or size > storage.length):
        raise ValueError(f"{name} is not inside its storage: {tensor!r}")


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _array(storage: _Storage, data: bytes) -> np.ndarray:
    dtype = np.dtype(storage.dtype).newbyteorder("<")
    if len(data) != storage.length * dtype.itemsize:
        raise ValueError(
            f"storage {storage.key} has {len(data)} bytes,"
            f" expected {storage.length * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype)


def _copy(tensor: Tensor, buffers: dict[str, np.ndarray]) -> np.ndarray:
    """Copies a validated tensor out of its storage."""
    storage, offset, shape, strides = tensor
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    flat = buffers[storage.key][offset:]
    strided = np.lib.stride_tricks.as_strided(
        flat, shape, [stride * flat.itemsize for stride in strides], writeable=False
    )
    return strided.astype(storage.dtype, order="C")
