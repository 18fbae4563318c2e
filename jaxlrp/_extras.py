"""Optional packages, which only a part of this one needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def need(module: str, what: str, extra: str) -> ModuleType:
    """Imports an optional package.

    Args:
      module: its name.
      what: what it is needed for, the subject of the error message.
      extra: the extra of this package that installs it.

    Raises:
      ImportError: naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} requires {module.partition('.')[0]}, which could not be imported; install it with: "
            f'pip install "jaxlrp[{extra}]"'
        ) from error


def reader_of(
    estimator: Any, readers: Mapping[str, Callable[..., T]], what: str, otherwise: str
) -> Callable[..., T]:
    """The function that reads a fitted estimator of scikit-learn.

    Args:
      estimator: what was given.
      readers: by the name of the class.
      what: it is needed for.
      otherwise: what to do with another estimator.

    Raises:
      ImportError: without scikit-learn.
      TypeError: if there is no reader.
      ValueError: if it is not fitted.
    """
    need("sklearn", what, "spray")
    for kind in type(estimator).__mro__:
        if kind.__module__.split(".")[0] == "sklearn" and kind.__name__ in readers:
            _check_fitted(estimator)
            return readers[kind.__name__]
    got = (
        f"the class {estimator.__name__}"
        if isinstance(estimator, type)
        else type(estimator).__name__
    )
    if got == "Pipeline":
        otherwise = "pass its last step, and compute the steps before it in the explained function"
    else:
        otherwise = f"for another one {otherwise}"
    raise TypeError(
        f"estimator must be a fitted {', '.join(readers)} of scikit-learn, got {got}: {otherwise}"
    )


def _check_fitted(estimator: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ValueError(
            f"estimator must be fitted, got {estimator!r}: call its fit(features) first"
        ) from error
