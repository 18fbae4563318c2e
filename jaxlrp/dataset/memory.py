"""Choosing a batch size that fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_LARGEST = 256
"""Larger batches cost memory without making devices busier."""
_TRIED = 4
"""The batch whose memory is measured, in units of the number of devices."""


def needed(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that a compiled program needs on one device, None if the backend does not report it."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return int(
        found.temp_size_in_bytes
        + found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )


def available(device: Any) -> int | None:
    """Free bytes on a device, None if unknown. A CPU device has its share of the host's memory."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    free = [found for found in (_meminfo(), _cgroup()) if found is not None]
    if not free:
        return None
    return min(free) // (len(jax.local_devices()) if device.platform == "cpu" else 1)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def _cgroup(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit, used = (root / "memory.max").read_text(), (root / "memory.current").read_text()
        return int(limit) - int(used)
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return None


def choose(
    probe: Callable[[int], int | None], free: int | None, fixed: int, *, step: int = 1,
    fraction: float = 0.5, largest: int = _LARGEST,
) -> int:  # fmt: skip
    """The largest batch size that fits.

    Args:
      probe: from a batch size to the bytes that its program needs on one device, None if unknown.
      free: free bytes on one device, None if unknown.
      fixed: bytes of the parameters, which do not grow with the batch.
      step: the batch size is a multiple of it: the number of pieces into which the mesh cuts a batch.
      fraction: share of the free memory that may be used.
      largest: upper bound of the batch size.

    Returns:
      The largest power of two times `step` whose estimated memory fits, at least `step`. Memory is
      assumed to grow linearly with the batch, except for the parameters. Where memory is unknown,
      4 `step`.

    Example:
      >>> choose(lambda batch: 1000 + 10 * batch, 2000, 1000, largest=64, fraction=0.75)
      32
    """
    tried = _TRIED * step
    found = probe(tried)
    if found is None or free is None:
        return tried
    each = max(found - fixed, 1) / tried
    fitting = (free * fraction - fixed) / each
    size = step
    while 2 * size <= min(fitting, max(largest, step)):
        size *= 2
    return size


def capped(size: int, left: int | None, step: int = 1) -> int:
    """The batch size of one run, in which few samples may be left: what is padded is computed too.

    Args:
      size: the batch size of the store.
      left: how many samples are left, None if unknown.
      step: as in `choose`.

    Returns:
      `size`, or a power of two times `step` that holds all that is left, but at least the batch that
      `choose` compiles anyway.

    Example:
      >>> capped(64, 3), capped(64, 10), capped(64, 1000), capped(64, None), capped(2, 3)
      (4, 16, 64, 64, 2)
    """
    if left is None:
        return size
    found = _TRIED * step
    while found < left:
        found *= 2
    return min(size, found)
