"""Reads the tensors of a TorchScript archive without PyTorch and without trusting the file.

`torch.jit.save` writes a zip archive like that of `torch.save`. Its data.pkl holds one object per module,
of classes that the archive defines as source text in <name>/code. This reader ignores the source text. It
replaces each module by an inert object that keeps the attributes in the pickle.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.pretrained import _torch_checkpoint as checkpoint


class _Module:
    """Replaces an object of any class of the archive; keeps its attributes."""

    __slots__ = ("attributes",)

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _List:
    """Replaces the functions of `torch.jit._pickle` that build typed lists."""

    __slots__ = ()

    def __call__(self, items: Any) -> Any:
        return items


class _Unpickler(checkpoint.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch.jit._pickle":
            return _List()
        return super().find_class(module, name)


def read_torchscript(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a TorchScript module.

    Nothing that the file names is executed, but a malicious file can still request more memory than there
    is.

    Args:
      path: an archive written by `torch.jit.save`.

    Returns:
      Parameters and buffers by the names of their modules and attributes, such as "encoder.0.weight",
      each a separate writable array.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged or is not such an archive, requests anything but tensors, lists and
        modules, or describes a tensor outside of its storage.
    """
    data = Path(path).read_bytes()
    try:
        return checkpoint.read_zip(io.BytesIO(data), _load)
    except Exception as error:  # a damaged pickle or archive can raise almost anything
        raise ValueError(f"cannot read the archive {path}: {error}") from error


def _load(file: io.BytesIO) -> tuple[dict[str, Any], dict[str, Any]]:
    unpickler = _Unpickler(file)
    module = unpickler.load()
    if not isinstance(module, _Module):
        raise ValueError(f"expected a module, got {type(module)}")
    tensors = dict(_tensors(module, ""))
    for name, tensor in tensors.items():
        checkpoint.check(name, tensor)
    return tensors, unpickler.storages


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Any]]:
    """The tensors of a module and its submodules; a module inside itself ends in RecursionError."""
    attributes = getattr(module, "attributes", None)
    if not isinstance(attributes, dict):
        raise ValueError(f"module {prefix or '(root)'!r} has no attributes")
    for name, value in attributes.items():
        if not isinstance(name, str):
            raise ValueError(f"an attribute of module {prefix!r} has the name {name!r}")
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, checkpoint.Tensor):
            yield prefix + name, value
