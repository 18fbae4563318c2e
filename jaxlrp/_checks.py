"""Checks of arguments. Each message names the argument, what it must be, and what was given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def is_number(value: Any) -> bool:
    """Whether a hyperparameter is a plain number, whose value can be looked at."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_at_least(name: str, value: Any, least: float) -> None:
    """Refuses a plain number below `least`, and a string; arrays and traced values are not looked at."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number >= {least:g}, got the string {value!r}")
    if is_number(value) and not value >= least:
        raise ValueError(f"{name} must be >= {least:g}, got {value!r}")


def check_not_text(name: str, value: Any) -> None:
    """Refuses a string where a number or an array is expected.

    Raises:
      TypeError: naming the argument.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number or an array, got the string {value!r}")


def check_range(low: Any, high: Any, *, equal: bool = False) -> None:
    """Refuses bounds of which the plain numbers are in the wrong order, and strings.

    Args:
      low, high: numbers, or arrays, which are not looked at.
      equal: whether both may be the same.
    """
    check_not_text("low", low)
    check_not_text("high", high)
    if is_number(low) and is_number(high) and (low > high if equal else not low < high):
        order = "<=" if equal else "<"
        raise ValueError(f"low must be {order} high, got low={low!r} and high={high!r}")


def check_count(name: str, value: Any) -> int:
    """An integer of at least one.

    Raises:
      ValueError: if it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """Refuses what is neither True nor False.

    Raises:
      TypeError: naming the argument.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuses what is not one of some words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_sequence(name: str, value: Any, such_as: str) -> None:
    """Refuses what is not a sequence of values; a string is one value.

    Args:
      name: of the argument.
      value: what was given.
      such_as: a valid value, as it is written in code.

    Raises:
      TypeError: naming the argument.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence such as {such_as}, got {value!r}")


def check_mapping(name: str, value: Any, such_as: str) -> None:
    """Refuses what is not a dictionary; arguments as in `check_sequence`.

    Raises:
      TypeError: naming the argument.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dictionary such as {such_as}, got {value!r}")


def as_path(name: str, value: Any) -> Path:
    """A path, given as a string or a path.

    Raises:
      TypeError: if it is anything else.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {value!r}")
    return Path(value)
