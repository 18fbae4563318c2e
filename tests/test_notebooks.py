"""Each tutorial is also a notebook with the same code, which tests/test_docs.py runs."""

from __future__ import annotations

import json

import pytest

from test_docs import DOCS, blocks, script

make_notebooks = script("make_notebooks")
PAGES, DRAWN = make_notebooks.pages(), make_notebooks.PAGES


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in PAGES])
def test_a_notebook_is_its_page(page):
    held = DRAWN[f"tutorials/{page.stem}"]
    written = page.with_suffix(".ipynb").read_text("utf-8")
    assert written == make_notebooks.write(page, held), "run python docs/make_notebooks.py"
    cells = json.loads(written)["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    run = [source for _, source in blocks(page.read_text("utf-8"))]
    assert len(code) == len(run) > 3
    for cell, block in zip(code, run, strict=True):
        rest = cell.removeprefix(block.strip("\n"))
        assert rest != cell or not block.strip()
        shown = [line for line in rest.splitlines() if line]
        assert all(line.removeprefix("display(").rstrip(")") in held.values() for line in shown)
    displayed = [line for cell in code for line in cell.splitlines()]
    for name in held.values():  # every picture of the page
        assert name in displayed or f"display({name})" in displayed, name
    assert all(not c.get("outputs") for c in cells)  # no photographs
    assert len({c["id"] for c in cells}) == len(cells)


def test_every_tutorial_has_a_notebook():
    assert {p.stem for p in (DOCS / "tutorials").glob("*.ipynb")} == {p.stem for p in PAGES}
    assert len(PAGES) >= 8


def test_text_becomes_cells():
    text = (
        "# T\n\nA \\(x\\).\n\n```python\na = 1\n```\n\n![a](../_pictures/p.png)\n\n"
        "```python no-run\nb\n```\n\n\\[ y \\]\n"
    )
    assert list(make_notebooks.split(text, {"p": "a"})) == [
        ("markdown", "# T\n\nA $x$."),
        ("code", "a = 1\n\na\n"),
        ("markdown", "```python\nb\n```\n\n$$y$$"),
    ]
