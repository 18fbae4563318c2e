"""Options that several commands of the command line share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import Any

import jaxlrp as lrp
from jaxlrp.dataset.options import ComputeOptions, ReadOptions
from jaxlrp.dataset.readers import READERS

Loader = Callable[[str], Any]
"""From the name of a model to a `jaxlrp.pretrained.Pretrained`."""
Chooser = Callable[[str, Any], lrp.Composite]
"""From the name of a composite and such a model to the composite."""


def log_to_terminal() -> None:
    """Shows the progress of this package; of others, such as JAX, warnings alone."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("jaxlrp").setLevel(logging.INFO)


def add_source(command: argparse.ArgumentParser) -> None:
    """Adds the data set, the first argument of a command."""
    command.add_argument(
        "source", help=f"a folder of images, or a file of type {', '.join(READERS)}"
    )


def add_model(command: argparse.ArgumentParser) -> None:
    """Adds the option `--model`."""
    command.add_argument(
        "--model", default="efficientnet-lite0",
        help="a name, or module:function that returns a jaxlrp.pretrained.Pretrained "
        "(default: %(default)s)",
    )  # fmt: skip


def add_composite(command: argparse.ArgumentParser) -> None:
    """Adds the option `--composite`, for one composite."""
    command.add_argument(
        "--composite", default="epsilon_gamma_box",
        help="the name of a composite (default: %(default)s); `jaxlrp plan --help` lists them",
    )  # fmt: skip


def add_contrast(command: argparse.ArgumentParser) -> None:
    """Adds the option `--contrast`."""
    command.add_argument(
        "--contrast", metavar="CLASS",
        help="explain the target rather than this class (its index or name): the difference of their "
        "outputs (default: no contrast)",
    )  # fmt: skip


def add_options(command: argparse.ArgumentParser, batch_size: int | None = None) -> Any:
    """Adds the options that commands of data sets share. Returns the group of the store.

    Args:
      command: the parser of the command.
      batch_size: by default; None for as many as memory allows.
    """
    command.add_argument(
        "--batch-size", type=int, default=batch_size,
        help="samples explained together (default: "
        f"{'as many as memory allows' if batch_size is None else '%(default)s'})",
    )  # fmt: skip
    command.add_argument(
        "--progress", choices=("auto", "bar", "log", "none"), default="auto",
        help="how progress is shown: auto is a bar in a terminal and otherwise log, which prints a line "
        "every 30 seconds (default: %(default)s)",
    )  # fmt: skip
    reading = command.add_argument_group("reading")
    reading.add_argument(
        "--workers",
        type=int,
        default=ReadOptions().workers,
        help="threads that read and preprocess samples (default: %(default)s)",
    )
    computing = command.add_argument_group("computing")
    computing.add_argument(
        "--memory-fraction", type=float, default=ComputeOptions().memory_fraction,
        help="share of the free memory that a batch may use, > 0 and <= 1 (default: %(default)s)",
    )  # fmt: skip
    storing = command.add_argument_group("storing")
    storing.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, default=True,
        help="compare all checksums of an existing store first; with --no-verify only file sizes "
        "(default: --verify)",
    )  # fmt: skip
    storing.add_argument(
        "--retry-failed",
        action="store_true",
        help="retry samples that failed in an earlier run",
    )
    return storing
