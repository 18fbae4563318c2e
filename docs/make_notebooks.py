"""Writes each tutorial as a notebook beside its page: docs/tutorials/NAME.ipynb.

    python docs/make_notebooks.py

A page and its notebook have the same code: tests/test_notebooks.py compares them, and tests/test_docs.py
runs the page. Notebooks are stored without outputs, which would hold photographs that are not ours to
distribute; a cell that draws a figure ends by showing it.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from page_pictures import PAGES

TUTORIALS = pathlib.Path(__file__).parent / "tutorials"
_FENCE = re.compile(r"^```python\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"!\[[^]]*\]\(\.\./_pictures/(\w+)\.png\)|<!-- colored text: (\w+) -->")


def pages() -> list[pathlib.Path]:
    return [path for path in sorted(TUTORIALS.glob("*.md")) if path.stem != "index"]


def notebook(text: str, drawn: dict[str, str]) -> dict[str, Any]:
    """A page as a notebook, in version 4.5 of the format.

    Args:
      text: the page.
      drawn: the name in the code of each picture of the page.
    """
    cells = [
        {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": lines(source)}
        | ({"execution_count": None, "outputs": []} if kind == "code" else {})
        for i, (kind, source) in enumerate(split(text, drawn))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def split(text: str, drawn: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(kind, source) of each cell: blocks that run are code, the text between them is Markdown."""
    end = 0
    for fence in _FENCE.finditer(text):
        yield from markdown(text[end : fence.start()])
        end = fence.end()
        following = text[end:].split("\n```", 1)[0]  # the pictures that this block has drawn
        names = [drawn[a or b] for a, b in _PICTURE.findall(following)]
        yield "code", fence[1] + display(fence[1], names)
    yield from markdown(text[end:])


def display(code: str, names: list[str]) -> str:
    """The line that shows figures which a block has assigned; several in a tuple would be text."""
    assigned = [name for name in names if re.search(rf"^{name} = ", code, re.MULTILINE)]
    if len(assigned) == 1:
        return f"\n{assigned[0]}\n"
    return "\n" + "".join(f"display({name})\n" for name in assigned) if assigned else ""


def markdown(text: str) -> Iterator[tuple[str, str]]:
    """A cell of text without pictures, with formulas as Jupyter expects them; none if it is empty."""
    text = _PICTURE.sub("", text)
    text = re.sub(r"(?m)^( *```\w+) +no-run$", r"\1", text)
    text = re.sub(r"\\\[\s*(.*?)\s*\\\]", r"$$\1$$", text, flags=re.DOTALL)
    text = re.sub(r"\\\((.*?)\\\)", r"$\1$", text, flags=re.DOTALL)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if text:
        yield "markdown", text


def lines(source: str) -> list[str]:
    return source.strip("\n").splitlines(keepends=True)


def write(page: pathlib.Path, drawn: dict[str, str]) -> str:
    """The file of the notebook of a page."""
    made = notebook(page.read_text(encoding="utf-8"), drawn)
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for page in pages():
        drawn = PAGES[f"tutorials/{page.stem}"]
        page.with_suffix(".ipynb").write_text(write(page, drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
