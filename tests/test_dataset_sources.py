"""Sources: images through links, rotated and transparent images, repeated ids, labels, files."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxlrp as lrp
from dataset_runs import LRP0, SHAPE, attribute, check, samples
from jaxlrp import _explain_command, dataset
from jaxlrp.cli import main
from jaxlrp.dataset import resolve
from jaxlrp.dataset.readers import pixels
from test_dataset_command import WORDS, begin, photos, resume  # noqa: F401
from test_dataset_devices import group
from test_dataset_faults import ENVIRONMENT, ROOT


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


# S6: links


def save(path, color="red", size=(6, 4), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **how)


def test_links_to_images_and_folders_are_followed(tmp_path):
    save(tmp_path / "disk" / "a.png")
    save(tmp_path / "disk" / "deep" / "b.JPG")
    root = tmp_path / "photos"
    save(root / "own.png")
    (root / "cat").symlink_to(tmp_path / "disk")
    (root / "one.png").symlink_to(tmp_path / "disk" / "a.png")
    (root / "cat2").symlink_to("cat")
    source = dataset.images(root)
    assert source.ids == [
        "cat/a.png",
        "cat/deep/b.JPG",
        "cat2/a.png",
        "cat2/deep/b.JPG",
        "one.png",
        "own.png",
    ]
    assert source.skipped == {}
    assert len(source.fetch(range(6))) == 6
    link = tmp_path / "link"
    link.symlink_to(root)
    assert dataset.images(link).ids == source.ids


def test_links_in_a_circle_end_and_are_listed(tmp_path):
    save(tmp_path / "a" / "x.png")
    save(tmp_path / "b" / "y.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "never").symlink_to("never")
    source = dataset.images(tmp_path)
    assert source.ids == ["a/to_b/y.png", "a/x.png", "b/to_a/x.png", "b/y.png"]
    circle = "a link to one of its parent folders"
    assert source.skipped == {
        "a/up/": circle, "a/self/": circle, "a/to_b/to_a/": circle, "b/to_a/up/": circle,
        "b/to_a/self/": circle, "b/to_a/to_b/": circle, "never": "a broken link",
    }  # fmt: skip


def test_skipped_files_of_a_folder_are_listed(tmp_path, out, monkeypatch, capsys):
    root = tmp_path / "photos"
    for name in ("a", "b"):
        save(root / f"{name}.png")
    (root / "dog").symlink_to(tmp_path / "not mounted")
    (root / "c.png").symlink_to(tmp_path / "gone.png")
    (root / "closed").mkdir()
    for name in ("notes.txt", "more.txt", "new.avif", "plain"):
        (root / name).write_text("...")
    os.mkfifo(root / "pipe.png")
    listed = os.listdir

    def listdir(path):
        if pathlib.Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert begin(root, out) == 0
    said = capsys.readouterr().out
    wanted = {
        "dog": "a broken link", "closed/": "the folder cannot be read: Permission denied",
        "*.txt": "not an image file extension (2 files)", "*.avif": "not an image file extension (1 file)",
        "*": "not an image file extension (1 file)",
    }  # fmt: skip
    assert dataset.images(root).skipped == wanted
    assert "skipped     5\n" in said
    assert all(f"  {name!r}: {why}\n" in said for name, why in wanted.items())
    failed = dataset.open_relevance(out).failed
    assert re.match(r"FileNotFoundError: a broken link to '.*gone\.png'", failed["c.png"])
    assert "is not a regular file" in failed["pipe.png"]
    monkeypatch.undo()
    (root / "closed" / "never").symlink_to("never")
    with pytest.raises(FileNotFoundError, match=r"contains no images: .*'never': a broken link"):
        dataset.images(root / "closed")


# S6: which way is up, and what lies below


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_by_their_exif_orientation(tmp_path, orientation):
    """Where the first row and the first column of the file are, by the table of EXIF 2.32, page 36."""
    row, column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    stored = np.full((16, 32, 3), 128, np.uint8)
    stored[:2] = 255  # the first row is white
    stored[2:, :2] = 0  # the first column is black
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("png", "jpg", "tif"):
        Image.fromarray(stored).save(tmp_path / f"a.{kind}", exif=exif)
    sides = {"top": np.s_[0], "bottom": np.s_[-1], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    for sample in dataset.images(tmp_path).fetch([0, 1, 2]):
        assert sample.input.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
        assert sample.input.dtype == np.uint8
        assert np.median(sample.input[sides[row]]) > 240
        assert np.median(sample.input[sides[column]]) < 15


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_invalid_orientations_are_ignored(tmp_path):
    for name, exif in (("a", b"Exif\0\0junk"), ("b", b"Exif\0\0II*\0\x08\0\0\0\xff\xff")):
        Image.new("RGB", (6, 4)).save(tmp_path / f"{name}.jpg", exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.new("RGB", (6, 4)).save(tmp_path / "c.png", exif=exif)
    assert [s.input.shape for s in dataset.images(tmp_path).fetch([0, 1, 2])] == [(4, 6, 3)] * 3


def test_16_bit_images_are_rotated_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    steps = Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3) * 257)
    steps.save(tmp_path / "a.png", exif=exif)
    (sample,) = dataset.images(tmp_path).fetch([0])
    assert sample.input[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


def transparent(mode):
    """Left half clear over hidden blue (or gray), right half opaque green."""
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3] = (0, 0, 255, 0)
    pixels[:, 3:] = (0, 255, 0, 255)
    image = Image.fromarray(pixels)
    if mode == "P":
        found = Image.new("P", (6, 4), 0)
        found.putpalette([0, 0, 255, 0, 255, 0])
        found.paste(1, (3, 0, 6, 4))
        found.info["transparency"] = 0
        return found
    if mode == "RGB":
        found = image.convert("RGB")
        found.info["transparency"] = (0, 0, 255)
        return found
    if mode == "I;16":
        found = Image.fromarray(
            np.repeat(np.array([[7, 0]], np.uint16), 3).reshape(1, 6).repeat(4, 0)
        )
        found.info["transparency"] = 7
        return found
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "I;16", "RGBa"])
def test_transparent_pixels_are_hidden(mode):
    image = transparent(mode)
    for background in ((255, 255, 255), (10, 20, 30)):
        found = pixels.rgb(image, background)
        assert (found[:, :3] == background).all()
        assert (found[:, 3:] != background).any(axis=-1).all()


def test_half_transparent_pixels_are_mixed(tmp_path):
    Image.new("RGBA", (6, 4), (200, 0, 100, 51)).save(tmp_path / "a.png")
    found = [dataset.images(tmp_path, background=b).fetch([0])[0].input[0, 0].tolist()
             for b in ((255, 255, 255), (0, 0, 0))]  # fmt: skip
    assert found == [[244, 204, 224], [40, 0, 20]]  # b + (c - b) 51 / 255
    for wrong in ((0, 0), (0, 0, 256)):
        with pytest.raises(ValueError, match="background must be three numbers from 0 to 255"):
            dataset.images(tmp_path, background=wrong)


def test_files_that_are_not_images_are_reported(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    said = {
        "empty.png": "the file is empty (0 bytes): save or copy", "gone.png": "does not exist",
        "large.png": "could be decompression bomb DOS attack", "folder.png": "folder.png' is a folder",
    }  # fmt: skip
    for name, why in said.items():
        assert main(["explain", str(tmp_path / name)]) == 2
        found = capsys.readouterr().err
        assert why in found
        assert found.count("\n") == 1
    (tmp_path / "folder.png").rmdir()
    source = dataset.images(tmp_path)
    for i, why in enumerate(("the file is empty", "decompression bomb")):
        with pytest.raises(ValueError, match=why):
            source.fetch([i])


# S7: ids


def test_ids_that_look_like_names_of_duplicates(out):
    """In one run and over two, in a list and in a stream: each honest sample is there."""
    x, labels = samples(9)
    one, two = "a (duplicate)", "a (duplicate) (duplicate)"
    ids = ["a", "a", one, "a", "item 7", one, "b", None, two]
    items = [(name, x[i], labels[i]) for i, name in enumerate(ids)]
    good = ["a", one, two, "b", "item 7"]
    for name, source in (("list", lambda: items), ("stream", lambda: iter(items))):
        here = out.with_name(name)
        attribute(here, source=source(), limit=2)
        summary = attribute(here, source=source())
        opened = dataset.open_relevance(here)
        assert sorted(opened.ids) == good
        assert opened.failed == summary.failed
        assert list(opened.failed) == [
            f"{two} (duplicate)",
            f"{two} (duplicate) (duplicate)",
            "item 7 (no id)",
        ]
        assert opened.failed["item 7 (no id)"].startswith(
            "TypeError: an id must be an integer or a string"
        )
        places = [ids.index(i) for i in opened.ids]
        np.testing.assert_array_equal(opened["label"][:], labels[places])
        assert dataset.verify(here).ok


def test_an_item_that_got_its_id_is_no_longer_listed(out):
    x, labels = samples(3)
    attribute(out, source=[(0, x[0], labels[0]), (None, x[1], labels[1])])
    summary = attribute(out, source=[(0, x[0], labels[0]), (1, x[1], labels[1])])
    assert (summary.samples, summary.failed) == (2, {})


def test_ids_keep_their_type():
    x = np.ones((3, 2), np.float32)
    assert dataset.arrays(x, ids=[1, "1", b"b"]).ids == [1, "1", "b"]
    assert dataset.arrays(x, ids=[2**70, -1, 0]).ids == [2**70, -1, 0]


# W9: labels are looked at before they are cast


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (
            np.int64(2**32 + 3),
            "target 4294967299 is out of range: the output has 5 classes, 0 to 4",
        ),
        (np.int64(2**31), "target 2147483648 is out of range: the output has 5 classes, 0 to 4"),
        (
            np.uint64(2**64 - 1),
            f"target {2**64 - 1} is out of range: the output has 5 classes, 0 to 4",
        ),
        (2**32, "target 4294967296 is out of range: the output has 5 classes, 0 to 4"),
        (-(2**32), "target -4294967296 is out of range: the output has 5 classes, 0 to 4"),
        (np.int16(256 + 3), "target 259 is out of range: the output has 5 classes, 0 to 4"),
    ],
)
def test_labels_are_checked_before_they_are_cast(out, label, said):
    x, labels = samples(8)
    small = [(i, x[i], np.int8(labels[i])) for i in range(8)]
    summary = attribute(out, source=[*small, ("bad", x[0], label)])
    assert summary.failed == {"bad": said}
    assert summary.samples == 8


def test_no_number_becomes_another_by_a_cast(out):
    """Token ids, further arguments and targets that are no classes; and floats beyond float32."""
    table = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    explain = lrp.explain(lambda w, x, n: (x * n[:, None]) @ w, LRP0, argnums=1)
    x = np.ones((4, 9))
    x[1] = 1e300
    n = np.array([1, 1, 2**32 + 1, 1])
    source = {"input": x, "n": n, "target": np.array([0, 0, 0, 2**31])}
    failed = attribute(out, source=source, explainer=explain, args=(table,)).failed
    assert failed == {
        1: "input contains 1e+300, outside the range of float32, -3.4e+38 to 3.4e+38",
        2: "an extra argument contains 4294967297, outside the range of int32, -2147483648 to 2147483647",
        3: "target 2147483648 is out of range: the output has 3 classes, 0 to 2",
    }


@pytest.mark.parametrize("target", [[0, 5], [0, -1], [1, 2**32 + 3], 2**32 + 3, 5])
def test_classes_for_all_samples_are_in_range(out, target):
    """Under vmap an index out of range has no relevance, and no error."""
    wrong = target[-1] if isinstance(target, list) else target
    with pytest.raises(
        IndexError, match=f"target {wrong} is out of range: the output has 5 classes"
    ):
        attribute(out, 8, target=target)


def test_a_label_of_an_output_with_one_class(out):
    explain = lrp.explain(lambda w, x: x.reshape(x.shape[0], -1) @ w, LRP0, argnums=1)
    x, _ = samples(4)
    w = np.ones((12, 1), np.float32)
    failed = attribute(out, source=(x, np.array([0, 1, 0, 0])), explainer=explain, args=(w,)).failed
    assert failed == {1: "target 1 is out of range: the output has 1 class, 0 to 0"}
    given = dataset.Given(lambda t: jnp.where(t > 0, 1.0, -1.0)[:, None])  # labels of two signs
    source = (x, np.array([0, 1, 0, 2**32 + 3]))
    made = {"explainer": explain, "args": (w,), "target": given}
    with jax.enable_x64(True):
        assert attribute(out.with_name("made"), source=source, **made).samples == 4
    opened = dataset.open_relevance(out.with_name("made"))
    assert opened["target"][:].tolist() == opened["label"][:].tolist() == source[1].tolist()


# What a user reads


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": None}, "target is missing (None), most samples have one"),
        ({"target": {"a": 1}}, "target is {'a': an array}, most samples have an array"),
        ({"target": [1, None]}, "target is [an array, None], most samples have an array"),
        ({"input": None}, "input is missing (None), most samples have one"),
        ({"mask": 1}, "extra arguments: unexpected ['mask']; most samples have none"),
    ],
)
def test_a_sample_with_another_structure_is_described(out, change, said):
    x, labels = samples(6)
    items = [{"id": i, "input": x[i], "target": labels[i]} for i in range(6)]
    items[2] |= change
    assert attribute(out, source=items).failed == {2: said}


def test_a_label_that_only_one_sample_has(out):
    x, _ = samples(6)
    items = [{"id": i, "input": x[i], "target": 1 if i == 2 else None} for i in range(6)]
    found = attribute(out, source=items, target=1).failed
    assert found == {2: "target is present, most samples have none"}


# File types


def read_words(path):
    """A file type of the user's: 12 numbers and a label per line, as text."""
    table = np.loadtxt(path, dtype=np.float32, ndmin=2)
    return table[:, :-1].reshape(-1, *SHAPE), table[:, -1].astype(int)


def test_a_file_type_of_the_user(tmp_path, out):
    x, labels = samples(8)
    np.savetxt(tmp_path / "a.x.DEMO", np.c_[x.reshape(8, -1), labels], fmt="%.9g")
    other = lambda path: pytest.fail("the longest extension wins")  # noqa: E731
    readers = {".demo": other, ".x.demo": read_words}
    attribute(out, source=tmp_path / "a.x.DEMO", readers=readers)
    check(out, 8)
    with pytest.raises(
        ValueError, match=f"folder of images, or a file of type {', '.join(dataset.READERS)};"
    ):
        attribute(out, source=str(tmp_path / "a.x.DEMO"))
    with pytest.raises(TypeError, match="returned the path '/': it must return arrays or samples"):
        attribute(out, source=tmp_path / "a.x.DEMO", readers={".demo": lambda _: "/"})


@pytest.mark.parametrize("suffix", dataset.READERS)
def test_every_reader_names_a_file_that_it_cannot_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"junk")
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(repr(str(path)))}"):
        resolve.as_source(path)


def damaged(folder):
    np.savez(folder / "labels.npz", input=np.ones((2, 3)), target=np.array([{}, []], object))
    np.savez(folder / "ragged.npz", input=np.array([np.ones(2), np.ones(3)], object))
    np.save(folder / "objects.npy", np.array([{}, []], object))
    np.save(folder / "fields.npy", np.zeros(2, [("a", "f4"), ("b", "f4")]))
    for name in ("empty.npz", "empty.npy", "empty.h5"):
        (folder / name).write_bytes(b"")
    np.savez(folder / "torn.npz", input=np.arange(999.0))
    data = bytearray((folder / "torn.npz").read_bytes())
    data[2000] ^= 1
    (folder / "torn.npz").write_bytes(data)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "labels.npz",
            "the array 'target' in '{}' contains pickled Python objects, which are refused",
        ),
        (
            "ragged.npz",
            "the array 'input' in '{}' contains pickled Python objects, which are refused",
        ),
        (
            "objects.npy",
            "'{}' contains pickled Python objects, which are refused because loading them",
        ),
        ("fields.npy", "it has dtype [('a', '<f4'), ('b', '<f4')], which is not numeric"),
        ("empty.npz", "'{}' is empty (0 bytes)"),
        ("empty.npy", "'{}' is empty (0 bytes)"),
        ("empty.h5", "'{}' is empty (0 bytes)"),
        ("torn.npz", "the array 'input' in '{}' is damaged (Bad CRC-32"),
    ],
)
def test_errors_of_unreadable_files_name_the_file_and_a_fix(tmp_path, out, capsys, name, said):
    damaged(tmp_path)
    assert begin(tmp_path / name, out) == 2
    found = capsys.readouterr().err
    assert said.format(tmp_path / name) in found
    assert found.count("\n") == 1


def test_a_source_that_was_moved(photos, out, capsys):  # noqa: F811
    assert begin(photos, out, "--limit", 2) == 0
    moved = photos.rename(photos.with_name("moved"))
    assert resume(out) == 2
    assert "does not exist" in (said := capsys.readouterr().err)
    assert f"pass its new path, jaxlrp resume {out} --source PATH" in said
    assert begin(moved, out, "--limit", 3) == 0  # the widest
    (out / "relevance" / "c" / "0").rename(out / "gone")
    photos.symlink_to(moved)
    moved = moved.rename(moved.with_name("again"))
    assert resume(out, "--source", str(moved)) == 0
    assert len(dataset.open_relevance(out).ids) == 3
    assert resume(out) == 0  # it is noted
    other = photos.with_name("other")
    other.mkdir()
    for i in range(8):
        save(other / f"{i}.png")
    capsys.readouterr()
    assert resume(out, "--source", str(other)) == 2
    assert "was computed from a different source" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["before", "computing"])
def test_an_interrupt_is_one_line_that_says_how_to_resume(
    photos,  # noqa: F811
    tmp_path,
    capsys,
    monkeypatch,
    when,
):
    from jaxlrp.dataset import runner, store

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "a store"
    monkeypatch.setattr(
        *((runner, "lock") if when == "before" else (store.Writer, "_commit")), interrupt
    )
    assert begin(photos, out) == 130
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    if when == "before":
        assert said == "jaxlrp: interrupted; nothing was computed yet, run the same command again\n"
        return
    assert "Traceback" not in said
    words = f"jaxlrp resume '{out}' --model test_dataset:tiny"
    assert said == f"jaxlrp: interrupted; everything written so far is safe, resume with: {words}\n"
    monkeypatch.undo()
    assert resume(out) == 0
    assert len(dataset.open_relevance(out).ids) == 8
    monkeypatch.setattr(_explain_command, "_read", interrupt)
    assert main(["explain", "a.png"]) == 130
    assert capsys.readouterr().err == "jaxlrp: interrupted; run the same command again\n"


def test_a_real_interrupt_ends_with_130(photos, out):  # noqa: F811
    """The signal itself, while samples are read, with all threads at work."""
    code = (
        "import os, signal, sys, threading, test_dataset; from jaxlrp.cli import main;"
        "old = test_dataset.Tiny.preprocess; seen = [];"
        "test_dataset.Tiny.preprocess = staticmethod(lambda image: (seen.append(0),"
        "len(seen) == 21 and os.kill(os.getpid(), signal.SIGINT), old(image))[2]);"
        f"sys.exit(main(['attribute', {str(photos)!r}, '-o', {str(out)!r}, *{WORDS!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "resume with: jaxlrp resume" in done.stderr.splitlines()[-1]


# S5: what one process meets, all raise


def test_an_error_in_one_process_while_opening_ends_all(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "thesis.tex").write_text("...")
    first, second = [p.communicate(timeout=100)[1] for p in group(out, 2)]
    assert "StoreError: " in first
    assert "is not empty and not a store of relevance" in first
    assert "process 0 failed while opening the store: StoreError: " in second
    assert "is not empty and not a store of relevance" in second
    assert second.count("\n") < 60  # no stack of C++
    assert sorted(os.listdir(out)) == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "last", "own", "told"),
    [
        (
            (),
            ("--seed", 9),
            "DifferentRunError: ",
            "process 1 failed while joining the run: Different",
        ),
        (
            (),
            ("--breaks", 40),
            "OSError: the server",
            "process 1 failed while computing: OSError: the",
        ),
        (
            ("--mesh", "all"),
            ("--breaks", 40),
            "OSError: the server",
            "process 1 failed while computing",
        ),
        (
            (),
            ("--samples", 3, "--breaks", 0),
            "OSError: the server",
            "process 1 failed while computing",
        ),
    ],
)
def test_an_error_in_any_process_ends_all(tmp_path, words, last, own, told):
    """While joining or computing; where all take every step together, too. What is there is kept."""
    out = tmp_path / "out"
    first, second = [p.communicate(timeout=100)[1] for p in group(out, 2, *words, last=last)]
    assert own in second
    assert told in first
    assert max(first.count("\n"), second.count("\n")) < 60  # no stack of C++
    for process in group(out, 2, *words):
        assert process.wait(100) == 0
        process.communicate()
    check(out)
