"""Whole data sets from the command line: what resumes, what is refused, which messages are shown."""

from __future__ import annotations

import subprocess
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dataset_runs import attribute, samples
from jaxlrp import dataset
from jaxlrp.cli import main
from jaxlrp.dataset import journal, runner
from jaxlrp.errors import NonFiniteError
from test_dataset_faults import ENVIRONMENT, ROOT

WORDS = ["--model", "test_dataset:tiny", "--composite", "all_epsilon", "--batch-size", "2"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def begin(source, out, *words):
    return main(
        ["attribute", str(source), "-o", str(out), *WORDS, "--progress", "log", *map(str, words)]
    )


def resume(out, *words):
    return main(["resume", str(out), "--model", "test_dataset:tiny", "--progress", "log", *words])


def truncate(out, number):
    chunk = out / "relevance" / "c" / str(number)
    (path,) = [p for p in chunk.rglob("*") if p.is_file()]
    path.write_bytes(path.read_bytes()[:-3])


def count(out):
    return len(dataset.open_relevance(out).ids)


# Resuming


def test_resume_goes_as_far_as_the_widest_run(photos, out, capsys):
    assert begin(photos, out, "--limit", 2) == 0
    assert begin(photos, out) == 0
    assert count(out) == 8
    truncate(out, 3)  # of the samples 6 and 7, which are beyond the first limit
    assert resume(out) == 0
    assert "repaired    1 damaged chunk" in capsys.readouterr().out
    assert sorted(dataset.open_relevance(out).ids) == [f"{i}.png" for i in range(8)]
    assert dataset.verify(out).ok


def test_a_widened_run_that_was_killed_is_resumed_to_its_end(photos, out):
    """Killed before its first chunk: what it was asked for is on the disk already."""
    assert begin(photos, out, "--limit", 2) == 0
    code = (
        "import os; from jaxlrp.cli import main; from jaxlrp.dataset import store;"
        "store.Writer._commit = lambda *_: os.kill(os.getpid(), 9);"
        f"main(['attribute', {str(photos)!r}, '-o', {str(out)!r}, *{WORDS!r}, '--limit', '7'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == -9
    assert count(out) == 2
    assert resume(out) == 0
    assert count(out) == 7


def test_a_narrower_run_loses_nothing(photos, out):
    assert begin(photos, out) == 0
    truncate(out, 3)
    assert begin(photos, out, "--limit", 2) == 0  # mended beyond the limit
    assert count(out) == 8
    assert resume(out) == 0
    assert count(out) == 8


def test_a_narrower_run_adds_nothing_beyond_its_limit(photos, out):
    assert begin(photos, out, "--limit", 6) == 0
    truncate(out, 2)  # of 4 and 5
    assert begin(photos, out, "--limit", 1) == 0
    assert sorted(dataset.open_relevance(out).ids) == [f"{i}.png" for i in range(6)]


def test_samples_that_cannot_be_computed_again_are_an_error(photos, out, capsys):
    assert begin(photos, out) == 0
    truncate(out, 3)
    (photos / "6.png").unlink()
    kept = (photos / "7.png").read_bytes()
    (photos / "7.png").write_bytes(b"not an image")
    assert resume(out) == 2
    said = capsys.readouterr().err
    assert "2 samples of" in said
    assert "the first is '6.png': its chunk was damaged, and the source no longer has it" in said
    opened = dataset.open_relevance(out)
    assert len(opened.ids) == 6
    assert set(opened.failed) == {"6.png", "7.png"}
    assert "cannot identify image file" in opened.failed["7.png"]
    assert resume(out) == 0  # said once, listed for ever
    (photos / "7.png").write_bytes(kept)
    assert resume(out, "--retry-failed") == 0
    assert count(out) == 7


def test_resume_takes_the_place_that_was_given_last(photos, out):
    assert begin(photos, out, "--limit", 2) == 0
    moved = photos.rename(photos.with_name("moved"))
    assert begin(moved, out, "--limit", 4) == 0
    truncate(out, 0)
    assert resume(out) == 0
    assert count(out) == 4


def test_an_altered_chunk_is_repaired_unless_verify_is_off(photos, out, capsys):
    assert begin(photos, out) == 0
    (path,) = [p for p in (out / "relevance" / "c" / "1").rglob("*") if p.is_file()]
    path.write_bytes(bytes(path.stat().st_size))
    assert resume(out, "--no-verify") == 0
    assert not dataset.verify(out).ok
    capsys.readouterr()
    assert resume(out) == 0
    assert "repaired    1 damaged chunk" in capsys.readouterr().out
    assert dataset.verify(out).ok
    assert count(out) == 8


# Pictures and numbers


def test_uint8_arrays_are_images(out, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 6, 6, 3), np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "prepared.npy", images[:, :4, :3].astype(np.float32))
    assert begin(tmp_path / "a.npy", out) == 0
    assert begin(tmp_path / "prepared.npy", tmp_path / "numbers") == 0  # as they are
    opened = dataset.open_relevance(out)
    assert opened.dims == ("sample", "height", "width", "channel")
    wanted = dataset.open_relevance(tmp_path / "numbers").relevance[:]
    np.testing.assert_array_equal(opened.relevance[:], wanted)


def test_info_states_the_error_of_16_bits(photos, out, capsys):
    assert begin(photos, out, "--dtype", "bfloat16") == 0
    error = dataset.open_relevance(out).error
    assert error is not None
    assert 0 < error < 0.01
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"rounding: at most {error:.2g} of a sample's largest relevance" in said


# Mistakes


def sources(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["images"] = np.ones((4, 4, 3, 3), np.float32)
    numbers = np.ones((4, 4, 3, 3), np.float32)
    np.savez(folder / "a.npz", images=numbers)
    np.savez(folder / "more.npz", input=numbers, masks=numbers)
    np.savez(folder / "ids.npz", input=numbers, id=np.arange(4) + 0.5)
    np.save(folder / "good.npy", numbers)
    np.save(folder / "flat.npy", np.ones((4, 5), np.float32))
    np.save(folder / "words.npy", np.array(["a", "b"]))
    for name in ("junk.h5", "junk.npy", "junk.npz"):
        (folder / name).write_bytes(b"junk")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("a.h5", [], "no data set 'input', only ['images']; rename the data set of inputs, or pass"),
        ("a.npz", [], "has no array 'input', only ['images']: save the inputs under that name"),
        ("more.npz", [], "of ((1, 4, 3, 3), 'float32') and masks: TypeError"),
        ("good.npy", ["--target", "9"], "--target 9 is out of range: the model has 4 classes, 0 to 3"),
        ("good.npy", ["--target", "1,-1"], "--target -1 is out of range"),
        ("good.npy", ["--target", "top9"], "--target top9 needs at least 9 classes, but the model has 4"),
        ("good.npy", ["--target", "given"], "but the source has none"),
        ("good.npy", ["--limit", "0"], "limit must be an integer >= 1, got 0"),
        ("flat.npy", [], "the model 'test_dataset:tiny' cannot be applied to inputs of ((1, 5), 'fl"),
        ("ids.npz", [], "ids.npz': an id must be an integer or a string, got 0.5"),
        ("words.npy", [], "the first is 0: it has dtype <U1, which is not numeric"),
        ("junk.h5", [], "junk.h5' cannot be read as HDF5"),
        ("junk.npy", [], "junk.npy' is not a numeric .npy file"),
        ("junk.npz", [], "junk.npz' is not a numeric .npz file"),
    ],
)  # fmt: skip
def test_mistakes_are_reported_in_one_line(tmp_path, out, capsys, name, words, message):
    sources(tmp_path)
    assert begin(tmp_path / name, out, *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("jaxlrp: ")
    assert said.count("\n") == 1


def test_a_class_for_a_folder_of_images(photos, out, capsys):
    assert begin(photos, out, "--target", "9") == 2
    assert "--target 9 is out of range: the model has 4 classes, 0 to 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "raised", [NonFiniteError("nan at 'a'\nin line 2"), NotImplementedError("not ours")]
)
def test_expected_errors_are_one_line_and_bugs_keep_their_traceback(
    photos, out, capsys, monkeypatch, raised
):
    def refuse(*_, **__):
        raise raised

    monkeypatch.setattr(runner, "attribute", refuse)
    if isinstance(raised, NotImplementedError):
        with pytest.raises(NotImplementedError, match="not ours"):
            begin(photos, out)
        return
    assert begin(photos, out) == 2
    assert capsys.readouterr().err == "jaxlrp: nan at 'a' in line 2\n"


class Depth:
    """A model of something else than pictures of three channels."""

    class model:
        @staticmethod
        def apply(w, x):
            return jax.lax.linalg.cholesky(x / 255 + 4 * jnp.eye(4)).sum(-1) @ w

    variables = np.ones((4, 4), np.float32)
    input_range = (0.0, 255.0)
    labels = ("a", "b", "c", "d")


def depth():
    return Depth


def test_unsupported_operations_are_one_line(tmp_path, out, capsys):
    np.save(tmp_path / "depth.npy", np.ones((4, 4, 4), np.uint8))
    assert begin(tmp_path / "depth.npy", out, "--model", "test_dataset_command:depth") == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxlrp: jaxlrp does not know how to explain `cholesky`")
    assert said.count("\n") == 1


# From Python


def test_a_narrow_limit_loses_nothing_from_python(tmp_path):
    """Also of streams and of lists, whose ids are only known as they come."""
    x, labels = samples(60)
    items = list(zip(range(60), x, labels, strict=True))
    kinds = {"arrays": lambda: (x, labels), "list": lambda: items, "stream": lambda: iter(items)}
    for kind, source in kinds.items():
        out = tmp_path / kind
        attribute(out, source=source())
        truncate(out, 4)
        summary = attribute(out, source=source(), limit=5)
        assert (summary.samples, summary.new, summary.repaired) == (60, 8, 1), kind
        assert sorted(dataset.open_relevance(out).ids) == list(range(60))


def test_an_endless_stream_is_read_no_further_than_ever(out):
    x, labels = samples(8)

    def endless(last):
        position = 0
        while True:
            assert position < last
            yield position, x[position % 8], labels[position % 8]
            position += 1

    attribute(out, source=endless(40), limit=36)
    truncate(out, 2)
    with pytest.raises(dataset.DamagedError, match=r"8 samples .* no longer has it"):
        attribute(out, source=((i + 100, *rest) for i, *rest in endless(40)), limit=8)


def test_a_failure_before_a_chunk_is_forgotten_with_it(out):
    """Failed, retried, there, damaged: it is to be computed again, not left as failed."""
    x, labels = samples(20)
    broken = x.copy()
    broken[4] = np.nan
    attribute(out, source=(broken, labels))
    attribute(out, source=(x, labels), retry_failed=True)
    chunk = next(n for n, line in journal.state(out).chunks.items() if 4 in line["ids"])
    truncate(out, chunk)
    assert attribute(out, source=(x, labels)).samples == 20
    assert dataset.open_relevance(out).failed == {}
