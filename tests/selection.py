"""Which cases of a parametrized test the default run has; `-m slow` and `.ci/run tests` have the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(n: int, values: Iterable[Any]) -> list[Any]:
    """All values, each `n`-th from the first on in the default run, the others slow."""
    return [
        pytest.param(value, marks=[pytest.mark.slow] if i % n else [])
        for i, value in enumerate(values)
    ]
