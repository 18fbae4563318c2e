"""Settings of the whole test run."""

import os

# Tests compile hundreds of small programs once each: compile them fast, not to run fast. Must be
# set before JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import psutil
import pytest


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """JAX keeps each program that it compiles: gigabytes in a run of all tests."""
    yield
    if psutil.Process().memory_info().rss > 3 * 2**30:
        jax.clear_caches()


# The scripts that made the goldens need PyTorch and Zennit, which the tests do not.
collect_ignore_glob = ["parity/make_*.py"]
if "device_count=8" not in os.environ["XLA_FLAGS"]:  # test_shard_map.py runs it where there are
    collect_ignore_glob += ["eight_devices.py", "explicit_axes.py"]
