"""Optional packages that only a part of this package needs."""

from __future__ import annotations

import functools

from jaxlrp import _extras

need = functools.partial(_extras.need, extra="concepts")
