"""Which cases of a parametrized test the default run has, which `.ci/run`, and which the weekly run."""

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


def sample_tables(
    items: list[pytest.Item], share: int = 6, routine: int = 10, slow: int = 6
) -> None:
    """Leaves each sixth case of a test to the default run, one at the least; the others become slow.

    Of the slow cases, five in six then become exhaustive, unless the test is marked `entire`. Of a test
    that is marked `sampled`, nine in ten cases first become exhaustive. The tests of a file
    take turns: they begin with different cases, so that each run sees most cases of a table that many tests
    share, such as that of all rules.

    Args:
      items: collected tests, in order. Cases that are slow already do not count, except for `sampled`.
      share: one in how many cases stays, at least one.
      routine: one in how many cases of a `sampled` test stays in `.ci/run`.
      slow: one in how many slow cases stays in `.ci/run`.
    """
    tests: dict[tuple[Any, str], list[pytest.Item]] = collections.defaultdict(list)
    for item in items:
        tests[item.path, getattr(item, "originalname", item.name)].append(item)
    turns: dict[Any, int] = collections.defaultdict(int)
    for (path, _), cases in tests.items():
        sampled = cases[0].get_closest_marker("sampled")
        if sampled:
            _leave(cases, routine, turns[path], pytest.mark.exhaustive)
        free = [c for c in cases if not any(map(c.get_closest_marker, ["slow", "exhaustive"]))]
        _leave(free, share, turns[path], pytest.mark.slow)
        late = [
            c
            for c in cases
            if c.get_closest_marker("slow") and not c.get_closest_marker("exhaustive")
        ]
        if not cases[0].get_closest_marker("entire"):
            _leave(late, slow, turns[path], pytest.mark.exhaustive)
        turns[path] += bool(sampled) or len(cases) > 1


def _leave(cases: list[pytest.Item], share: int, turn: int, mark: pytest.MarkDecorator) -> None:
    """Marks all but one in `share` of these cases."""
    step = min(share, len(cases))
    for i, case in enumerate(cases):
        if (i - turn) % step:
            case.add_marker(mark)
