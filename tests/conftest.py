"""Settings of the whole test run, and the fixtures that many modules share."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import selection
import xla_flags

# Before JAX is imported. Processes that tests start inherit these.
os.environ.setdefault("XLA_FLAGS", xla_flags.fast_compilation())
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import psutil
import pytest

# Few tests that take long, in the order of their length: begun last, one worker would wait for the other.
_BEGUN_FIRST = ["test_zoo.py", "test_docs.py", "test_contract.py", "test_shard_map.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # of xdist: files with many tests first


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    selection.sample_tables(items)
    places = {name: i for i, name in enumerate(_BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Collect garbage rarely, and never look at what is imported again: a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """JAX keeps each program that it compiles: gigabytes in a run of all tests."""
    yield
    if psutil.Process().memory_info().rss > 3 * 2**30:
        jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Compute in float64. A module asks for it by `pytestmark = pytest.mark.usefixtures("x64")`."""
    with jax.enable_x64(True):
        yield


# Files that promote: the wings and what runs users' models.
_PROMOTES = frozenset(
    [
        "test_admet.py",
        "test_cli.py",
        "test_crepe.py",
        "test_dataset.py",
        "test_dataset_command.py",
        "test_dataset_devices.py",
        "test_dataset_faults.py",
        "test_dataset_fingerprint.py",
        "test_dataset_received.py",
        "test_dataset_sources.py",
        "test_docs.py",
        "test_g2p.py",
        "test_minilm.py",
        "test_packages.py",
        "test_plot.py",
        "test_plot_tables.py",
        "test_pretrained.py",
        "test_pytorch.py",
        "test_silero.py",
        "test_spectrum.py",
        "test_spray.py",
        "test_spray_report.py",
        "test_spray_screening.py",
        "test_text.py",
        "test_transformers.py",
        "test_virelay.py",
        "test_virelay_browser.py",
        "test_virelay_render.py",
        "test_virelay_viewer.py",
    ]
)


@pytest.fixture(autouse=True)
def _strict_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no dtype change unasked, neither in the library nor in the functions of the test.

    A test whose own model promotes is marked `promotes`, with the reason, or wraps the model in
    `numeric.promoting`.
    """
    free = request.node.get_closest_marker("promotes") or request.path.name in _PROMOTES
    with jax.numpy_dtype_promotion("standard" if free else "strict"):
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """A file on one worker (`pytest -n 2`): its tests share what they compiled and built."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


# The scripts that made the goldens need PyTorch and Zennit, which the tests do not.
collect_ignore_glob = ["parity/make_*.py"]
if "device_count=8" not in os.environ["XLA_FLAGS"]:  # test_shard_map.py runs it where there are
    collect_ignore_glob += ["eight_devices.py", "explicit_axes.py", "large_model_devices.py"]
