"""HTML of reports and notebooks: all text is escaped, all images are embedded."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { margin-bottom: .3rem; font-size: 1rem; }
table { border-collapse: collapse; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
img { max-width: 100%; height: auto; }
"""


def text(tag: str, content: str) -> str:
    """An element of plain text."""
    return f"<{tag}>{html.escape(content)}</{tag}>"


def preformatted(content: str) -> str:
    """Plain text as it is, without wrapping its lines."""
    return f'<pre style="white-space: pre; overflow-x: auto">{html.escape(content)}</pre>'


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain text."""
    lines = [[text("th", str(cell)) for cell in head]]
    lines += [[text("td", str(cell)) for cell in row] for row in rows]
    return "<table>" + "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines) + "</table>"


def figure_tag(figure: Figure, alternative: str) -> str:
    """A matplotlib figure as an embedded PNG."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    return image_tag(held.getvalue(), alternative)


def image_tag(data: bytes, alternative: str, kind: str = "png") -> str:
    """An image file as an embedded image. `kind` is "png" or "jpeg"."""
    held = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(alternative)}" src="data:image/{kind};base64,{held}">'


def page(title: str, parts: Iterable[str], *, style: str = "", head: str = "") -> str:
    """The whole page.

    Args:
      title: plain text.
      parts: HTML.
      style: CSS after that of all reports.
      head: HTML at the end of the head.
    """
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            text("title", title),
            f"<style>{_STYLE}{style}</style>\n{head}</head>\n<body>",
            text("h1", title),
            *parts,
            "</body>\n</html>\n",
        ]
    )
