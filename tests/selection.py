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


def sample_tables(items: list[pytest.Item], share: int = 6) -> None:
    """Leaves each sixth case of a test to the default run, one at the least; the others become slow.

    The tests of a file take turns: they begin with different cases, so that the default run sees most cases
    of a table that many tests share, such as that of all rules.

    Args:
      items: collected tests, in order. Cases that are slow already do not count.
      share: one in how many cases stays, at least one.
    """
    tests: dict[tuple[Any, str], list[pytest.Item]] = collections.defaultdict(list)
    for item in items:
        if not item.get_closest_marker("slow") and not item.get_closest_marker("exhaustive"):
            tests[item.path, getattr(item, "originalname", item.name)].append(item)
    turns: dict[Any, int] = collections.defaultdict(int)
    for (path, _), cases in tests.items():
        step = min(share, len(cases))
        for i, case in enumerate(cases):
            if (i - turns[path]) % step:
                case.add_marker(pytest.mark.slow)
        if len(cases) > 1:
            turns[path] += 1
