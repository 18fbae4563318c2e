"""Lists the rules in the navigation, in the table of `rules/index.md` and in `api/rules.md`.

Each rule's page says in its front matter what the rule is for and how it shares relevance.
"""

from __future__ import annotations

import pathlib
from typing import Any

import yaml

from jaxlrp import rules

RULES = pathlib.Path(__file__).parent / "rules"
TABLE, ENTRIES = "<!-- table of rules -->", "<!-- entries of rules -->"


def pages() -> list[tuple[str, dict[str, Any]]]:
    """(file name, front matter) of each rule's page, in the order that the pages ask for."""
    found = []
    for page in RULES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        if text.startswith("---\n"):
            found.append((page.name, yaml.safe_load(text.split("---\n")[1])))
    return sorted(found, key=lambda item: (item[1]["order"], item[0]))


def on_config(config: Any) -> Any:
    """Adds the pages to the section that has `rules/index.md`."""
    for section in config["nav"]:
        (entries,) = section.values()
        if "rules/index.md" in entries:
            entries += [{front["title"]: f"rules/{name}"} for name, front in pages()]
    return config


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Fills in the table of rules, and the entry of each public name of `jaxlrp.rules`."""
    return markdown.replace(TABLE, table()).replace(ENTRIES, entries())


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
