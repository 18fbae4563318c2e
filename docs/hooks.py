"""Lists the rules in the navigation, in the table of `rules/index.md` and in `api/rules.md`, and links
the repository.

Each rule's page says in its front matter what the rule is for and how it shares relevance.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from typing import Any

import gallery
import yaml
from mkdocs.structure.files import File

from jaxlrp import rules

RULES = pathlib.Path(__file__).parent / "rules"
COLORED = re.compile(r"<!-- colored text: (\w+) -->")
NOTEBOOKS = pathlib.Path(__file__).parent  # beside their pages
PICTURES = pathlib.Path(__file__).parent / "_pictures"
TABLE, ENTRIES = "<!-- table of rules -->", "<!-- entries of rules -->"


def pages() -> list[tuple[str, dict[str, Any]]]:
    """(file name, front matter) of each rule's page, in the order that the pages ask for."""
    found = []
    for page in RULES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        if text.startswith("---\n"):
            found.append((page.name, yaml.safe_load(text.split("---\n")[1])))
    return sorted(found, key=lambda item: (item[1]["order"], item[0]))


def repository() -> str | None:
    """The address of the repository: that of the CI job, else where it was cloned from by https or ssh."""
    environ = os.environ
    if "GITHUB_REPOSITORY" in environ:
        return f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"
    command = ["git", "-C", str(RULES), "remote", "get-url", "origin"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # without git
        return None
    return address(found)


def address(remote: str) -> str | None:
    """The web address of a remote, such as git@github.com:owner/name.git; None for any other."""
    found = re.fullmatch(
        r"(?:https://|git@|ssh://git@)([\w.-]+)[:/]([\w./-]+?)(?:\.git)?/?", remote
    )
    return f"https://{found[1]}/{found[2]}" if found else None


def on_config(config: Any) -> Any:
    """Adds the pages to the section that has `rules/index.md`, and the links to the repository."""
    if url := repository():
        name = url.removeprefix("https://").partition("/")[2]
        config.update(repo_url=url, repo_name=name, edit_uri="edit/main/docs/")
    for section in config["nav"]:
        (entries,) = section.values()
        if "rules/index.md" in entries:
            entries += [{front["title"]: f"rules/{name}"} for name, front in pages()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pictures of the gallery."""
    for path, content in gallery.thumbnails().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any = None, **kwargs: Any) -> str:
    """Fills in the table of rules, the entry of each public name of `jaxlrp.rules` and the gallery.

    Removes `no-run` after fences, which Markdown does not know, and pictures that have not been drawn.
    """
    filled = markdown.replace(TABLE, table()).replace(ENTRIES, entries())
    if gallery.TILES in filled:
        filled = filled.replace(gallery.TILES, gallery.tiles(repository()))
    if page is not None and (NOTEBOOKS / page.file.src_uri).with_suffix(".ipynb").exists():
        name = pathlib.PurePosixPath(page.file.src_uri).stem
        filled = re.sub(r"(?m)^(# .*)$", rf"\1\n\n[As a notebook]({name}.ipynb)", filled, count=1)
    filled = COLORED.sub(_colored, filled)
    filled = re.sub(r"(?m)^( *```\w+) +no-run$", r"\1", filled)
    return re.sub(r"!\[([^]]*)\]\((?:\.\./)*_pictures/(\w+\.png)\)", _drawn, filled)


def _colored(text: re.Match[str]) -> str:
    """Colored text that docs/make_pictures.py has written, in one line."""
    path = PICTURES / f"{text[1]}.html"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _drawn(image: re.Match[str]) -> str:
    """An image, or what it shows in words: a clone has no pictures before docs/make_pictures.py has run."""
    return image[0] if (PICTURES / image[2]).exists() else f"*Not drawn: {image[1]}*"


def table() -> str:
    rows = [
        f"| [{front['title']}]({name}) | {front['for']} | {front['shares']} |"
        for name, front in pages()
    ]
    return "\n".join(["| rule | for | shares by |", "|---|---|---|", *rows])


def entries() -> str:
    first = [front["title"] for _, front in pages()]
    names = [*first, *(name for name in rules.__all__ if name not in first)]
    return "\n".join(
        f"::: jaxlrp.rules.{name}\n    options:\n      heading_level: 3\n" for name in names
    )
