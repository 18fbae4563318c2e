"""Shows our docstrings as they are meant: `Example:` is a section, and a formula keeps its lines."""

from __future__ import annotations

import re
from typing import Any

import griffe

_FORMULA = re.compile(r"(?m)(?<=\n\n)(R\w* = .*(?:\n[ \w].*)*)(?=\n\n|\Z)")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
            text = re.sub(r"(?m)^( +[\w, ]+: )>", r"\1&gt;", text)  # not a quotation
            obj.docstring.value = _FORMULA.sub(r"```text\n\1\n```", text)
