"""Ctrl-C while the command line is still importing packages: one line instead of a traceback.

`jaxlrp` and `python -m jaxlrp` import the package before any function of it can catch an exception. So
importing this module changes what Ctrl-C does, in a process that is the command line and in no other.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import sys
from typing import Any

MESSAGE = "jaxlrp: interrupted; run the same command again"


def is_command() -> bool:
    """Whether this process was started as the command line."""
    words = sys.orig_argv
    if any(pair == ("-m", "jaxlrp") for pair in itertools.pairwise(words)):
        return True
    return pathlib.Path(sys.argv[0] if sys.argv else "").stem == "jaxlrp"


def _leave(*_: Any) -> None:
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(130)  # nothing has been opened or written yet


def leave_while_importing() -> None:
    """From now on Ctrl-C ends the process, if it is the command line; `jaxlrp.__main__` takes this back."""
    if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def restore() -> None:
    """Ctrl-C raises `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


leave_while_importing()
