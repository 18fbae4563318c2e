"""What can go wrong with a store. Each message says what came, and how to mend it."""

from __future__ import annotations

import importlib
from types import ModuleType


class StoreError(OSError):
    """A store cannot be read or written."""


class StoreFullError(StoreError):
    """The disk is full. What was committed is safe; the run can be resumed."""


class StoreLockedError(StoreError):
    """Another run writes to the store."""


class DamagedError(StoreError):
    """A chunk or a file of the store is missing or was altered."""


class DifferentRunError(ValueError):
    """A run was to be resumed with another model, composite, target policy or source.

    Of the source a few samples that are in the store are compared.
    """


def need(module: str, what: str) -> ModuleType:
    """Imports an optional package.

    Raises:
      ImportError: naming the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {module.partition('.')[0]}, which could not be imported; install the "
            'extra: pip install "jaxlrp[dataset]"'
        ) from error
