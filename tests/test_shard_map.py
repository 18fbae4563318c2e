"""Functions on a mesh of devices: mapped over it, and with shardings as types."""

import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "marked"),
    [
        ("eight_devices.py", "not slow and not exhaustive"),
        ("explicit_axes.py", "not slow and not exhaustive"),
        ("large_model_devices.py", "not slow and not exhaustive"),
        pytest.param("explicit_axes.py", "slow", marks=pytest.mark.exhaustive),
        pytest.param("explicit_axes.py", "exhaustive", marks=pytest.mark.exhaustive),
    ],
)
def test_on_eight_devices(file: str, marked: str) -> None:
    """How many devices a CPU simulates is settled before JAX starts: hence a process of its own."""
    here = pathlib.Path(__file__).parent
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", marked,
         str(here / file)],
        env=os.environ | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8"},
        cwd=here.parent,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
