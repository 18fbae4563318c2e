"""The other Python, in which PyTorch and the libraries on it are installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence


def check_torch_python(python: str, packages: Sequence[str], install: str) -> str:
    """The path of a Python that has these packages.

    Args:
      python: its name or path.
      packages: what must be importable.
      install: the command that installs them.

    Raises:
      SystemExit: saying what is missing.
    """
    found = shutil.which(python)
    if found is None:
        raise SystemExit(f"--torch-python {python}: there is no such program")
    look = (
        "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if not u.find_spec(n)))"
    )
    command = [found, "-c", look, *packages]
    missing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if missing.strip():
        raise SystemExit(
            f"--torch-python {python}: this Python lacks {' and '.join(missing.split())}; install "
            f"there: {install}"
        )
    return found
