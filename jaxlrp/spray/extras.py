"""Optional packages, imported only by the steps that need them."""

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
    """One thread for few points, all threads for many.

    On a busy machine, the many small synchronized steps of t-SNE, for example, can take minutes on two
    threads instead of seconds on one.
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
            f"this step requires {package}, which could not be imported; install it with: "
            f'pip install "jaxlrp[{extra}]"'
        ) from error
