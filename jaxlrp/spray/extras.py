"""Packages that are needed for some steps alone."""

from __future__ import annotations

import importlib
from typing import Any


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
      ImportError: if it is not installed.
    """
    return _load(f"sklearn.{module}", "scikit-learn", "spray")


def umap() -> Any:
    """The module of umap-learn.

    Raises:
      ImportError: if it is not installed.
    """
    return _load("umap", "umap-learn", "umap")


def _load(module: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this step is done by {package}, which could not be imported: "
            f'pip install "jaxlrp[{extra}]"'
        ) from error
