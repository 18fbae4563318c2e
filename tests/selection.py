"""Which cases of a parametrized test the default run has; `-m slow` and `.ci/run tests` have the others."""

import collections
from collections.abc import Iterable
from typing import Any

import pytest


def one_in(n: int, values: Iterable[Any], *, slow: int | None = None) -> list[Any]:
    """All values, each `n`-th from the first on in the default run, the others slow.

    Args:
      n: how many values share one default case.
      values: the cases.
      slow: how many of the others are slow, where the rest is exhaustive; None for all.
    """

    def marks(place: int) -> list[Any]:
        if place == 0:
            return []
        return [pytest.mark.slow if slow is None or place <= slow else pytest.mark.exhaustive]

    return [pytest.param(value, marks=marks(i % n)) for i, value in enumerate(values)]


def sample_long_tables(items: list[pytest.Item], shortest: int = 12) -> None:
    """Leaves each third case of a test with many cases to the default run; the others become slow.

    The tests of a file take turns: what the first leaves out, the second or third has. So the default run
    still sees every case of a table that several tests share, such as that of all architectures.

    Args:
      items: collected tests, in order. Cases that are slow already do not count.
      shortest: how many cases a test must have.
    """
    tests: dict[tuple[Any, str], list[pytest.Item]] = collections.defaultdict(list)
    for item in items:
        if not item.get_closest_marker("slow") and not item.get_closest_marker("exhaustive"):
            tests[item.path, getattr(item, "originalname", item.name)].append(item)
    turns: dict[Any, int] = collections.defaultdict(int)
    for (path, _), cases in tests.items():
        if len(cases) >= shortest:
            for i, case in enumerate(cases):
                if (i - turns[path]) % 3:
                    case.add_marker(pytest.mark.slow)
            turns[path] += 1
