"""What a person sees of a run: progress while it goes on, a summary at its end."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from jaxlrp.dataset.errors import need
from jaxlrp.dataset.source import Id

_LOG = logging.getLogger("jaxlrp.dataset")
_EVERY = 30.0  # seconds between lines of a log


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run has done; `print` it.

    Attributes:
      samples: how many the store now holds.
      new: how many of them this run added.
      failed: why samples have no relevance, by id; those of earlier runs too. A sample whose id came before
        is listed as "ID (again)", an item without an id as "item POSITION".
      skipped: why, of what the source left out, by name: folders that cannot be read, files that are
        no pictures.
      mended: how many chunks of earlier runs were found damaged, and computed again.
      seconds: the whole run took.
      compile_seconds: of these, tracing and compiling.
      throughput: new samples per second of the rest, of all processes together.
      residual: median and greatest |begun - arrived| / |begun| over the store; None where relevance is
        not to be compared with what it begins with.
      error: the greatest error of a smaller dtype over the store, in units of the largest relevance of
        the sample; None where relevances are stored as they are.
      batch: samples of a batch, of one process.
      devices: how many compute one batch.
      traces, compilations: of the program, in this process and this run: one, or none where nothing was
        left. What was tried to choose the batch size is not counted.
      bytes: that this process wrote.
    """

    samples: int
    new: int
    failed: Mapping[Id, str]
    skipped: Mapping[str, str]
    mended: int
    seconds: float
    compile_seconds: float
    throughput: float
    residual: tuple[float, float] | None
    error: float | None
    batch: int
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
            f"time        {self.seconds:.1f} s, of which {self.compile_seconds:.1f} s to compile",
            f"throughput  {self.throughput:.1f} samples/s, batch {self.batch}, devices {self.devices}",
            f"written     {self.bytes / 2**20:.1f} MiB",
        ]
        if self.mended:
            lines.append(f"mended      {self.mended} chunks that were damaged")
        if self.residual is not None:
            median, most = self.residual
            lines.append(
                f"residual    median {median:.3g}, greatest {most:.3g} of the relevance that was begun with"
            )
        if self.error is not None:
            lines.append(f"rounding    at most {self.error:.2g} of a sample's largest relevance")
        return "\n".join(lines)


def _first(reasons: Mapping[Any, str], count: int = 10) -> list[str]:
    lines = [f"  {name!r}: {why}" for name, why in list(reasons.items())[:count]]
    more = len(reasons) - count
    return [*lines, f"  ... and {more:,} more"] if more > 0 else lines


class Progress:
    """Shows how far a run is.

    Args:
      how: "bar" with rich, "log" for lines through `logging`, "none"; "auto" is a bar where
        standard error is a terminal, else the log.
      total: how many samples are to be done; None if that is not known.
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
        """More samples are done, or have failed."""
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
        """Done, rate and time left, in words."""
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
