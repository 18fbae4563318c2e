"""Optional packages that only a part of this package needs."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from jaxlrp import _extras

need = functools.partial(_extras.need, extra="concepts")


def one_thread() -> contextlib.AbstractContextManager[Any]:
    """One thread for scikit-learn.

    Its steps are small here, and on a busy machine synchronizing threads takes longer than the steps.
    """
    return need("threadpoolctl", "scikit-learn").threadpool_limits(1)
