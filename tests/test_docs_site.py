"""Tests of what the build adds to the pages: formulas, the gallery, links. `.ci/run docs` builds them."""

from __future__ import annotations

import importlib.util
import io
import types

import numpy as np
import pytest
from PIL import Image

from test_docs import DOCS, PAGES, ROOT, script

pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra: docs)")


@pytest.fixture
def formulas():
    return script("formulas")


def test_formulas_are_part_of_the_site(formulas, monkeypatch):
    pytest.importorskip("mathjax", reason="MathJax is not installed (extra: docs)")
    monkeypatch.setattr(formulas.File, "generated", lambda config, path, content: (path, content))
    config = types.SimpleNamespace(extra_javascript=["assets/formulas.js"])
    ((path, content),) = formulas.on_files([], config)
    assert len(content) > 1_000_000  # with its fonts
    assert config.extra_javascript == ["assets/formulas.js", path]  # settings come first


def test_a_build_without_formulas_warns_and_says_what_to_do(formulas, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    files = ["page"]
    assert formulas.on_files(files, config=None) is files
    (record,) = caplog.records
    assert record.levelname == "WARNING"  # which `mkdocs build --strict` counts
    assert 'install it with pip install -e ".[docs]"' in record.message


def test_ci_lets_strict_count_warnings():
    """`--quiet` turns the log off that `--strict` counts."""
    (line,) = [s for s in (ROOT / ".ci/run").read_text("utf-8").splitlines() if "mkdocs build" in s]
    assert "--strict" in line
    assert "--quiet" not in line


def test_no_page_fetches_from_elsewhere():
    """Scripts and styles come from the site."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "http" not in text.split("\nextra_css")[1].split("\nplugins")[0]


@pytest.fixture
def gallery(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXLRP_GALLERY", str(tmp_path))
    Image.fromarray(np.zeros((400, 1600, 3), np.uint8)).save(tmp_path / "photographs.png")
    return script("gallery")


def test_the_gallery_has_a_tile_for_each_example(gallery):
    scripts = [p for p in (ROOT / "examples").glob("*.py") if "def main(" in p.read_text("utf-8")]
    text = gallery.tiles("https://example.org/jaxlrp")
    assert len(scripts) > 20
    for path in scripts:
        assert f"[`examples/{path.name}`](https://example.org/jaxlrp/blob/main/examples/" in text
    assert text.count("<div markdown>") == len(scripts)
    assert text.count("](_gallery/") == 1  # one has a picture, the others are text
    assert "![Explains photographs that an ImageNet network has classified.](_gallery/ima" in text
    assert "](https" not in gallery.tiles(None)


def test_thumbnails_are_small(gallery):
    (picture,) = gallery.thumbnails().values()
    assert Image.open(io.BytesIO(picture)).size == (720, 180)


def test_pictures_of_the_gallery_are_those_that_examples_write(gallery):
    for name, picture in gallery.PICTURES.items():
        stem = picture.replace(name, "")  # concepts_text_{name}.png is written in parts
        assert any(part in (ROOT / f"examples/{name}.py").read_text("utf-8") for part in
                   (f"{picture}.png", f'"{stem.strip("_")}"')), name  # fmt: skip


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@git.example.org/group/sub/name.git", "https://git.example.org/group/sub/name"),
        ("https://github.com/owner/name", "https://github.com/owner/name"),
        ("https://user:secret@github.com/owner/name.git", None),
        ("/srv/git/name.git", None),
        ("", None),
    ],
)
def test_address_of_the_repository(remote, expected):
    assert script("hooks").address(remote) == expected


@pytest.mark.parametrize("url", ["https://github.com/owner/name", None])
def test_pages_link_to_their_source_if_there_is_a_repository(url, monkeypatch):
    hooks = script("hooks")
    monkeypatch.setattr(hooks, "repository", lambda: url)
    config = hooks.on_config({"nav": []})
    links = {"repo_url": url, "repo_name": "owner/name", "edit_uri": "edit/main/docs/"}
    assert config == {"nav": []} | (links if url else {})  # an address without a host is an error


def test_what_markdown_does_not_know_is_replaced(monkeypatch, tmp_path):
    hooks = script("hooks")
    monkeypatch.setattr(hooks, "PICTURES", tmp_path)
    (tmp_path / "there.png").touch()
    text = "```python no-run\nx\n```\n![a b](../_pictures/there.png)\n![c d](_pictures/missing.png)"
    want = "```python\nx\n```\n![a b](../_pictures/there.png)\n*Not drawn: c d*"
    assert hooks.on_page_markdown(text) == want
    for page in PAGES:
        if DOCS in page.parents:
            assert " no-run\n" not in hooks.on_page_markdown(page.read_text("utf-8"))
