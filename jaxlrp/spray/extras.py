"""Packages that are needed for some steps alone."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

_WORTH_THREADS = 5000


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
      ImportError: if it is not installed.
    """
    return _load(f"sklearn.{module}", "scikit-learn", "spray")


def threads(points: int) -> contextlib.AbstractContextManager[Any]:
    """One thread for few points, as many as there are for more.

    Small steps that wait for each other thousands of times, as those of t-SNE, take minutes instead of
    seconds on two threads where the machine is busy.
    """
    if points >= _WORTH_THREADS:
        return contextlib.nullcontext()
    return _load("threadpoolctl", "scikit-learn", "spray").threadpool_limits(1, user_api="openmp")


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
