"""Optional packages, which only a part of this one needs."""

from __future__ import annotations

import importlib
from types import ModuleType


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
