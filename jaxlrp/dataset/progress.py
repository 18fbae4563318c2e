"""What the user sees of a run: its progress, and a summary at the end."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from jaxlrp.dataset.errors import need
from jaxlrp.dataset.source import Id
from jaxlrp.errors import counted

_LOG = logging.getLogger("jaxlrp.dataset")
_EVERY = 30.0  # seconds between lines of a log


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run has done. `print` shows it in words.

    Attributes:
      samples: number of samples in the store.
      new: number of samples that this run added.
      failed: the reason for each sample without relevance, by id, including earlier runs. A repeated id
        is listed as "ID (duplicate)", an item without an id as "item POSITION".
      skipped: the reason for each thing that the source left out, by name: folders that cannot be
        read, files that are not images.
      repaired: number of chunks of earlier runs that were damaged and were computed again.
      seconds: duration of the run.
      compile_seconds: the part of it that was spent on tracing and compiling.
      throughput: new samples per second without compiling, of all processes together.
      residual: median and maximum of |R_output - R_input| / |R_output| over the samples of the store;
        None where relevance of input and output cannot be compared.
      error: the largest rounding error in the store, relative to the largest relevance of the sample;
        None if relevance is stored as computed.
      batch_size: samples per batch, of one process.
      devices: number of devices that compute one batch.
      traces, compilations: number of times that this process traced and compiled the program: 1, or 0 if
        nothing was left to do. Trials to choose the batch size are not counted.
      bytes: bytes that this process wrote.
    """

    samples: int
    new: int
    failed: Mapping[Id, str]
    skipped: Mapping[str, str]
    repaired: int
    seconds: float
    compile_seconds: float
    throughput: float
    residual: tuple[float, float] | None
    error: float | None
    batch_size: int
    devices: int
    traces: int
    compilations: int
    bytes: int

    def __str__(self) -> str:
        lines = [
            f"samples     {self.samples:,} ({self.new:,} new)",
            f"failed      {len(self.failed):,}",
            *_first(self.failed),
        ]
        if self.skipped:
            lines += [f"skipped     {len(self.skipped):,}", *_first(self.skipped)]
        lines += [
            f"time        {self.seconds:.1f} s, of which {self.compile_seconds:.1f} s compiling",
            f"throughput  {self.throughput:.1f} samples/s, batch size {self.batch_size}, "
            f"devices {self.devices}",
            f"written     {self.bytes / 2**20:.1f} MiB",
        ]
        if self.repaired:
            lines.append(f"repaired    {counted(self.repaired, 'damaged chunk')}")
        if self.residual is not None:
            median, most = self.residual
            lines.append(
                f"residual    median {median:.3g}, maximum {most:.3g} of the output's relevance "
                "(what biases and stabilizers keep; much of it is normal with BatchNorm)"
            )
        if self.error is not None:
            lines.append(f"rounding    at most {self.error:.2g} of a sample's largest relevance")
        return "\n".join(lines)


def _first(reasons: Mapping[Any, str], count: int = 10) -> list[str]:
    lines = [f"  {name!r}: {why}" for name, why in list(reasons.items())[:count]]
    more = len(reasons) - count
    return [*lines, f"  ... and {more:,} more"] if more > 0 else lines


class Progress:
    """Shows the progress of a run.

    Args:
      how: "bar" (needs rich), "log" for lines through `logging`, "none", or "auto": a bar if standard
        error is a terminal, else the log.
      total: number of samples to do, None if unknown.
    """

    def __init__(self, how: str, total: int | None) -> None:
        if how == "auto":
            how = "bar" if sys.stderr.isatty() else "log"
        self._how, self._total = how, total
        self._done = self._failed = 0
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        if how == "bar":
            self._bar, self._task = _bar(total)
            self._bar.start()

    def advance(self, done: int, failed: int = 0) -> None:
        """Counts samples that are done or have failed."""
        self._done += done
        self._failed += failed
        if self._bar is not None:
            self._bar.update(
                self._task, advance=done + failed, rate=self._rate(), failed=self._failed
            )
        elif self._how == "log" and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            _LOG.info("%s", self.line())

    def line(self) -> str:
        """Samples done, rate and remaining time, in words."""
        rate = self._rate()
        done = self._done + self._failed
        whole = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and rate > 0:
            left = f", {(self._total - done) / rate:.0f} s left"
        return f"{done:,}{whole} samples, {self._failed} failed, {rate:.1f} samples/s{left}"

    def _rate(self) -> float:
        return (self._done + self._failed) / max(time.monotonic() - self._began, 1e-9)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._how == "log":
            _LOG.info("%s", self.line())


def _bar(total: int | None) -> tuple[Any, Any]:
    progress = need("rich.progress", "the progress bar")
    console = need("rich.console", "the progress bar").Console(stderr=True)
    bar = progress.Progress(
        progress.TextColumn("explaining"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]:.1f}/s"),
        progress.TextColumn("{task.fields[failed]} failed"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=console,
    )
    return bar, bar.add_task("explaining", total=total, rate=0.0, failed=0)
