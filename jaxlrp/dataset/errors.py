"""Errors of stores. Each message says what is wrong and how to fix it."""

from __future__ import annotations

import functools

from jaxlrp import _extras


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


need = functools.partial(_extras.need, extra="dataset")
