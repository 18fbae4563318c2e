"""Untrusted stores and stores with missing parts: no code is run, no damage goes unnoticed."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import sys
import zlib

import numpy as np
import pytest

from dataset_runs import attribute, check, samples, weights
from jaxlrp import dataset
from jaxlrp.cli import main
from jaxlrp.dataset import journal, lines, manifest, resuming, safe_files
from test_dataset_command import WORDS, begin, photos, resume, truncate  # noqa: F401

MARKED = (
    "import pathlib; pathlib.Path({0!r}).write_text('run')\ndef load(): raise SystemExit('run')\n"
)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def alter(out, **changes):
    """Writes other things into a manifest, with the right checksum, as one who means it would."""
    path = out / manifest.FILE
    held = json.loads(path.read_text())
    del held["checksum"]
    held |= changes
    path.write_text(json.dumps(held | {"checksum": manifest._checksum(held)}))


def add_line(out, **fields):
    with journal.paths(out)[0].open("ab") as file:
        file.write(lines.written({"run": 2, **fields}))


def chunk_file(out, number, name="relevance"):
    return next(p for p in (out / name / "c" / str(number)).rglob("*") if p.is_file())


# W10: whose relevances are these?


def test_a_store_that_lost_its_manifest_takes_no_other_run(out):
    """Each chunk's line says of which model, composite, policy and shape it is."""
    attribute(out, 40)
    kept = (out / "manifest.json").read_text()
    (out / "manifest.json").unlink()
    for changes in (
        {"args": (weights(9),)},
        {"target": 3},
        {"chunk_size": 4},
        {"dtype": "float16"},
    ):
        with pytest.raises(
            dataset.DifferentRunError, match=r"has no manifest.*computed with a different"
        ):
            attribute(out, **changes)
    assert not (out / "manifest.json").exists()
    summary = attribute(out, batch_size=4)  # the same run writes it anew and computes nothing again
    assert (summary.new, summary.samples, summary.repaired) == (20, 60, 0)
    check(out)
    held = [json.loads(text) for text in (kept, (out / "manifest.json").read_text())]
    assert held[0]["chunk_size"] == held[1]["chunk_size"]


def test_a_failure_under_another_model_counts_too(out):
    """With the weights of 1e30 no sample had a relevance: with others all would be left out."""
    attribute(out, 8, args=({k: v * np.float32(1e30) for k, v in weights().items()},))
    (out / "manifest.json").unlink()
    with pytest.raises(dataset.DifferentRunError, match="has no manifest"):
        attribute(out, 8)


def test_a_journal_that_does_not_say_whose_it_is_is_refused(out):
    attribute(out, 8)
    (path,) = journal.paths(out)
    held = [lines.parse(line) for line in path.read_bytes().splitlines(keepends=True)]
    path.write_bytes(b"".join(lines.written({k: v for k, v in line.items() if k != "store"})
                              for line in held))  # fmt: skip
    assert dataset.verify(out).ok
    (out / "manifest.json").unlink()
    with pytest.raises(dataset.DifferentRunError, match="did not record how"):
        attribute(out, 8)


def test_a_manifest_and_a_journal_of_two_stores_do_not_pass(out, tmp_path):
    attribute(out, 20)
    attribute(tmp_path / "other", 20, args=(weights(9),))
    shutil.copy(tmp_path / "other" / "manifest.json", out)
    found = dataset.verify(out)
    assert set(found.damaged) == {0, 1, 2}
    assert "a different manifest" in str(found)
    summary = attribute(out, 20, args=(weights(9),))
    assert (summary.repaired, summary.new) == (3, 20)
    wanted = dataset.open_relevance(tmp_path / "other").relevance[:]
    np.testing.assert_array_equal(dataset.open_relevance(out).relevance[:], wanted)


# S1: nothing that a store names is run


@pytest.mark.parametrize("where", ["manifest", "journal"])
def test_resume_does_not_import_what_a_store_names(photos, out, capsys, monkeypatch, where):  # noqa: F811
    assert begin(photos, out) == 0
    (out / "evil.py").write_text(MARKED.format(str(out / "run")))
    monkeypatch.chdir(out)
    monkeypatch.syspath_prepend("")
    asked = json.loads((out / "manifest.json").read_text())["command"] | {"model": "evil:load"}
    if where == "journal":
        add_line(out, kind="asked", limit=None, command=asked)
    else:
        journal.paths(out)[0].unlink()
        alter(out, command=asked)
    capsys.readouterr()
    assert main(["resume", "."]) == 2
    assert (
        "started with the model 'evil:load'. Resuming runs the code of this model"
        in capsys.readouterr().err
    )
    assert main(["resume", ".", "--model", "evil:load"]) == 2  # not even then
    monkeypatch.chdir(out.parent)
    assert main(["resume", "store", "--model", "store.evil:load"]) == 2
    assert "code inside a store is never run" in capsys.readouterr().err
    assert not (out / "run").exists()
    assert "evil" not in sys.modules


def test_nothing_is_found_inside_of_a_store(out, monkeypatch):
    """Not what a command imports late either, such as tensorstore, where one stands in the store."""
    out.mkdir()
    (out / "evil.py").write_text(MARKED.format(str(out / "run")))
    monkeypatch.chdir(out)
    monkeypatch.syspath_prepend("")
    before = list(sys.path)
    assert importlib.util.find_spec("evil") is not None
    with resuming.no_imports_from(out):
        importlib.invalidate_caches()
        assert importlib.util.find_spec("evil") is None
    assert sys.path == before


def test_resume_with_a_built_in_model_needs_no_model_argument(photos, out, capsys, monkeypatch):  # noqa: F811
    """Its name is no code of the store's."""
    from jaxlrp import cli

    monkeypatch.setitem(cli._MODELS, "tiny", "test_dataset:tiny")
    assert main(["attribute", str(photos), "-o", str(out), *WORDS[2:], "--model", "tiny"]) == 0
    truncate(out, 1)
    assert main(["resume", str(out)]) == 0
    assert dataset.verify(out).ok


@pytest.mark.parametrize(
    "name", ["../victim", "/tmp/victim", "relevance/../../victim", "journal", ".", ""]
)
def test_names_of_arrays_lead_nowhere(out, name):
    attribute(out, 8)
    member = {"shape": [4, 3], "dtype": "float32", "dims": ["sample", "a", "b"]}
    alter(out, members={name: member})
    with pytest.raises(dataset.DamagedError, match="is not a valid name of an array"):
        dataset.verify(out)
    with pytest.raises(dataset.DamagedError, match="is not a valid name of an array"):
        attribute(out, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_size": -1}, {"chunk_size": "8"}, {"batch_size": 0}, {"composite": None}, {"spec": [[1]]},
        {"members": {"relevance": {"shape": [-4], "dtype": "float32", "dims": ["sample", "a"]}}},
        {"members": {"relevance": {"shape": [4], "dtype": "object", "dims": ["sample", "a"]}}},
        {"members": {"relevance": {"shape": [4], "dtype": "float32", "dims": []}}},
    ],
)  # fmt: skip
def test_a_manifest_that_no_run_writes_is_damaged(out, changes):
    attribute(out, 8)
    alter(out, **changes)
    with pytest.raises(dataset.DamagedError, match=r"manifest\.json' is damaged: "):
        dataset.verify(out)


def test_lines_that_no_run_writes_are_broken(out, tmp_path):
    attribute(out, 16)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("...")
    name = "../../victim/thesis.tex"
    good = {"ids": [99], "files": {}, "error": 0.0}
    for fields in (
        {"kind": "chunk", "chunk": name, **good}, {"kind": "chunk", "chunk": -1, **good},
        {"kind": "chunk", "chunk": 2**62, **good}, {"kind": "chunk", "chunk": 7, **good, "ids": 3},
        {"kind": "chunk", "chunk": 7, **good, "files": {"relevance": [name]}},
        {"kind": "failed", "id": ["a"], "reason": "b"}, {"kind": "void", "chunk": name},
        {"kind": "run", "run": -1}, {"kind": 5}, {"kind": "asked", "limit": "all"},
    ):  # fmt: skip
        add_line(out, **fields)
    deep = b'{"run":1,"kind":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with journal.paths(out)[0].open("ab") as file:
        file.write(b"%08x %b\n" % (zlib.crc32(deep), deep))
    assert dataset.verify(out).broken == 11
    attribute(out, 16)
    check(out, 16)
    assert (victim / "thesis.tex").exists()


def test_a_chunk_of_more_samples_than_rows_is_damaged(out):
    """Its rows would be those of the next chunk."""
    attribute(out, 16)
    files = journal.state(out).chunks[0]["files"]
    add_line(out, kind="chunk", chunk=0, ids=list(range(9)), files=files, error=0.0)
    with pytest.raises(dataset.DamagedError, match="lists 9 samples in chunk 0, which has 8 rows"):
        dataset.open_relevance(out)
    assert "lists 9 samples" in dataset.verify(out).damaged[0]
    attribute(out, 16)
    check(out, 16)


@pytest.mark.parametrize(
    "link", ["relevance/c", "relevance/c/0", ".jaxlrp.owner", "journal/00000.jsonl", "relevance"]
)
def test_links_out_of_a_store_are_not_followed(out, tmp_path, link):
    """A run would write to, or remove, what they lead to."""
    attribute(out, 16)
    victim = tmp_path / "victim"
    path = out / link
    if path.is_dir():
        shutil.copytree(path, victim)
        (victim / "thesis.tex").write_text("...")
        shutil.rmtree(path)
    else:
        victim.write_bytes(path.read_bytes() if path.exists() else b"...")
        path.unlink(missing_ok=True)
    before = sorted(victim.rglob("*")) or victim.read_bytes()
    path.symlink_to(victim)
    try:
        assert link in dataset.verify(out).links
    except dataset.DamagedError as error:
        assert "it is a symbolic link" in str(error)  # noqa: PT017
    for run in (lambda: attribute(out, 60), lambda: dataset.verify(out, repair=True)):
        with pytest.raises(dataset.StoreError, match="contains the symbolic link"):
            run()
    assert (sorted(victim.rglob("*")) or victim.read_bytes()) == before


def test_a_pipe_in_place_of_a_file_does_not_hang(out):
    attribute(out, 8)
    path = chunk_file(out, 0)
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in dataset.verify(out).damaged[0]
    (out / "relevance" / "zarr.json").unlink()
    os.mkfifo(out / "relevance" / "zarr.json")
    assert dataset.verify(out).metadata == ("relevance",)


def test_a_store_does_not_speak_to_the_terminal(photos, out, capsys):  # noqa: F811
    assert begin(photos, out) == 0
    held = json.loads((out / "manifest.json").read_text())
    bad = "\x1b]0;owned\x07"
    alter(out, source=bad, composite=held["composite"] | {"text": bad}, created=bad)
    add_line(out, kind="failed", id="x", reason=bad)
    for words in (
        ["info", str(out), "--plan"],
        ["verify", str(out)],
        ["resume", str(out), *WORDS[:2]],
    ):
        main(words)
    said = capsys.readouterr()
    assert "\\x1b]0;owned\\x07" in said.out
    assert "\x1b" not in said.out + said.err


# S2: what cannot be read is damaged like anything else


def test_a_folder_in_the_place_of_a_chunk(out):
    attribute(out)
    path = chunk_file(out, 3)
    path.unlink()
    path.mkdir()
    (path / "something").write_text("...")
    found = dataset.verify(out)
    assert found.damaged == {3: "relevance: the file cannot be read: it is a folder"}
    assert attribute(out).repaired == 1
    check(out)


def test_a_file_in_the_place_of_a_folder_of_chunks(out):
    attribute(out)
    shutil.rmtree(out / "output" / "c")
    (out / "output" / "c").write_text("...")
    assert len(dataset.verify(out).damaged) == 8
    assert attribute(out, verify=False).repaired == 8
    check(out)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_chunk_that_cannot_be_read(out, monkeypatch, number):
    """As root one may read everything, so the opening fails here by hand."""
    attribute(out)
    path, opened = str(chunk_file(out, 3)), os.open

    def failing(name, *rest, **more):
        if str(name) == path:
            raise OSError(number, os.strerror(number), path)
        return opened(name, *rest, **more)

    monkeypatch.setattr(os, "open", failing)
    found = dataset.verify(out)
    assert found.damaged == {3: f"relevance: the file cannot be read: {os.strerror(number)}"}
    assert attribute(out).repaired == 1
    monkeypatch.undo()
    check(out)


def test_a_chunk_that_cannot_be_removed_is_left_and_written_elsewhere(out, monkeypatch):
    attribute(out)
    path = chunk_file(out, 3)
    path.unlink()
    path.mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    assert attribute(out).repaired == 1
    assert sorted(dataset.open_relevance(out).ids) == list(range(60))
    assert 3 not in journal.state(out).chunks


def test_unreadable_files_raise_errors_with_a_fix(out):
    attribute(out, 8)
    path = chunk_file(out, 0)
    path.unlink()
    path.mkdir()
    with pytest.raises(dataset.DamagedError, match=r"cannot be read.*verify\(path, repair=True\)"):
        dataset.open_relevance(out).relevance[:]
    held = journal.paths(out)[0]
    held.unlink()
    held.mkdir()
    for run in (dataset.open_relevance, dataset.verify, lambda path: attribute(path, 8)):
        with pytest.raises(
            dataset.DamagedError, match=r"the journal .* cannot be read: it is a folder"
        ):
            run(out)


# S3: other readers of Zarr read the group's own metadata


@pytest.mark.parametrize("how", ["gone", "garbled", "empty", "folder", "array"])
@pytest.mark.parametrize("repair", [True, False])
def test_the_metadata_of_the_group_are_verified_and_repaired(out, how, repair):
    import zarr

    attribute(out, 20)
    path = out / "zarr.json"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        other = (out / "relevance" / "zarr.json").read_text()
        path.write_text({"garbled": "{", "empty": "", "array": other}[how])
    found = dataset.verify(out, repair=repair)
    assert found.metadata == ("/",)
    assert not found.ok
    if not repair:
        attribute(out, 20)
    check(out, 20)
    assert zarr.open_group(out, mode="r")["relevance"].shape == (20, 4, 3)


def test_arrays_that_are_too_short_for_other_readers_are_noticed(out):
    attribute(out, 20)
    path = out / "relevance" / "zarr.json"
    held = json.loads(path.read_text())
    held["shape"][0] = 3
    path.write_text(json.dumps(held))
    assert dataset.verify(out).metadata == ("relevance",)
    attribute(out, 20)
    check(out, 20)


# S4: a journal that is gone is no kill


@pytest.mark.parametrize("how", ["gone", "emptied", "cut", "one line"])
def test_a_lost_journal_is_reported(out, how):
    attribute(out)
    (path,) = journal.paths(out)
    held = path.read_bytes().splitlines(keepends=True)
    if how == "gone":
        shutil.rmtree(path.parent)
    else:
        # asked, run, chunks 0 to 7, end
        left = {"emptied": [], "cut": held[:5], "one line": [*held[:5], *held[6:]]}[how]
        path.write_bytes(b"".join(left))
    found = dataset.verify(out)
    assert not found.ok
    assert found.lost
    assert "harmless" not in str(found)
    if how in ("gone", "emptied"):
        with pytest.raises(dataset.DamagedError, match="no journal that lists their samples"):
            dataset.open_relevance(out)
    assert attribute(out).samples == 60
    check(out)


@pytest.mark.parametrize("how", ["gone", "emptied"])
def test_the_journal_of_one_chunk_is_no_kill(out, how):
    attribute(out, 8)
    (path,) = journal.paths(out)
    path.unlink() if how == "gone" else path.write_bytes(b"")
    assert "the journal of process 0 is missing or empty" in str(dataset.verify(out))
    assert attribute(out, 8).new == 8
    check(out, 8)


def test_losses_can_be_accepted(out):
    attribute(out)
    (path,) = journal.paths(out)
    path.write_bytes(b"")
    assert not dataset.verify(out, repair=True).ok
    assert dataset.verify(out).ok
    attribute(out)
    check(out)


def test_files_left_by_a_kill_are_no_loss(out, monkeypatch):
    """Files of one chunk without a line."""
    attribute(out, 20)
    append = journal.Journal.append

    def killed(self, kind, **fields):
        if kind in ("chunk", "end") and self.run > 2:
            raise KeyboardInterrupt
        append(self, kind, **fields)

    monkeypatch.setattr(journal.Journal, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        attribute(out)
    found = dataset.verify(out)
    assert found.ok
    assert found.orphans == 6
    monkeypatch.undo()
    attribute(out)
    check(out)


# S7: a manifest that names more than the journal


def test_an_array_that_the_journal_does_not_name_is_reported(out):
    attribute(out, 16)
    held = json.loads((out / "manifest.json").read_text())
    more = {"shape": [], "dtype": "float32", "dims": ["sample"]}
    alter(out, members=held["members"] | {"more": more}, other={"of": "a later version"})
    found = dataset.verify(out)
    assert set(found.damaged) == {0, 1}
    assert found.metadata == ("more",)
    assert not found.ok
    with pytest.raises(dataset.DifferentRunError, match="members: "):
        attribute(out, 16)


def test_the_source_is_compared(out):
    """What is in the store must be what the source gives; other samples may be new, or mended."""
    x, labels = samples(60)
    attribute(out, 40)
    assert attribute(out, source=(x.astype(np.float64), labels.astype(np.int8))).new == 20
    items = list(zip(range(60), x, labels.tolist(), strict=True))
    assert attribute(out, source=items).new == attribute(out, source=iter(items)).new == 0
    other = [(i, value + 1, label) for i, value, label in items]
    flipped = x.copy()
    flipped[59] *= -1
    for source in (
        (x[::-1], labels), (x, (labels + 1) % 5), {"input": x, "target": labels, "id": np.arange(60)[::-1]},
        (flipped, labels), other, iter(other),
    ):  # fmt: skip
        with pytest.raises(dataset.DifferentRunError, match="was computed from a different source"):
            attribute(out, source=source)
    assert attribute(out, source=(x[:5], labels[:5])).new == 0
    more = {"input": x, "target": labels, "id": np.arange(60) + 100}
    assert attribute(out, source=more).new == 60


def test_a_failed_sample_may_change(out):
    x, labels = samples(8)
    broken = x.copy()
    broken[0] = np.nan
    attribute(out, source=(broken, labels))
    assert attribute(out, source=(x, labels), retry_failed=True).new == 1
    attribute(out, source=(x, labels))  # compared with what the last run saw
    check(out, 8)


# What a user reads


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("{", "it is not valid JSON"),
        ("[]", "no checksum"),
        ("[" * 99_999, "not valid JSON"),
    ],
)
def test_a_damaged_manifest_raises_an_error_with_a_fix(out, text, why):
    attribute(out, 8)
    (out / "manifest.json").write_text(text)
    for run in (dataset.open_relevance, dataset.verify, lambda path: attribute(path, 8)):
        with pytest.raises(dataset.DamagedError, match=f"{why}.*Restore a copy.*same run"):
            run(out)
    (out / "manifest.json").unlink()  # as the message says
    assert attribute(out, 8).new == 0
    check(out, 8)


def test_a_store_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("...")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for out, why in (("file", "is a file, but a store is a folder"), ("file/store", "is not a folder"),
                     ("nowhere", "is not a folder")):  # fmt: skip
        with pytest.raises(dataset.StoreError, match=why):
            attribute(tmp_path / out, 8)
    for run in (dataset.open_relevance, dataset.verify):
        with pytest.raises(dataset.StoreError, match="is a file, but a store is a folder"):
            run(tmp_path / "file")


def test_clearing_a_path_removes_nothing_outside_the_store(out, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "a").write_text("...")
    (out / "c").mkdir(parents=True)
    (out / "c" / "0").symlink_to(tmp_path / "victim")
    assert safe_files.clear(out, out / "c" / "0" / "a")
    assert (tmp_path / "victim" / "a").exists()
    assert not (out / "c" / "0").exists()
