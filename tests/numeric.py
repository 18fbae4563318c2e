"""How numbers are compared in tests."""

from typing import Any

import numpy as np


def close(actual: Any, expected: Any, rtol: float = 1e-10) -> None:
    """Fails where an entry differs by more than `rtol` of itself plus `rtol` of the largest one."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
