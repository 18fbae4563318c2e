"""Errors of stores. Each message says what is wrong and how to fix it."""

from __future__ import annotations

import importlib
from types import ModuleType


class StoreError(OSError):
    """A store cannot be read or written."""


class StoreFullError(StoreError):
    """The disk is full. Everything committed so far is safe; the run can be resumed."""


class StoreLockedError(StoreError):
    """Another run is writing to the store."""


class DamagedError(StoreError):
    """A chunk or another file of the store is missing or was altered."""


class DifferentRunError(ValueError):
    """The store was made with a different model, composite, target policy or source.

    Only a few of the samples in the store are compared with the source.
    """


def need(module: str, what: str) -> ModuleType:
    """Imports an optional package.

    Args:
      module: its name.
      what: what it is needed for, the subject of the error message.

    Raises:
      ImportError: naming the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} requires {module.partition('.')[0]}, which could not be imported; install it "
            'with: pip install "jaxlrp[dataset]"'
        ) from error
