"""Checks of arguments. Each message names the argument, what it must be, and what was given."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_number(value: Any) -> bool:
    """Whether a hyperparameter is a plain number, whose value can be looked at."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_at_least(name: str, value: Any, least: float) -> None:
    """Refuses a plain number below `least`; arrays and traced values are not looked at."""
    if is_number(value) and not value >= least:
        raise ValueError(f"{name} must be >= {least:g}, got {value!r}")


def check_count(name: str, value: Any) -> int:
    """An integer of at least one.

    Raises:
      ValueError: if it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return int(value)


def check_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuses what is not one of some words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
