"""Relevance of tokens as colored text, in a browser, a notebook or a terminal."""

import dataclasses
import html
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Colormap, Normalize, to_hex
from numpy.typing import ArrayLike

from jaxlrp.plot.given import Relevance, relevance_of, without_batch
from jaxlrp.plot.normalize import as_colormap, as_real, symmetric_limit

_CONTINUES = "##"  # BERT's prefix of a piece that continues a word
# Categories of characters that move the cursor, break lines or control a terminal, and the classes of
# those that change the writing direction.
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_BEGINS = ("\u2581", "\u0120")  # SentencePiece's and GPT-2's prefixes of a piece that begins a word


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    r"""Colored sentences. A notebook displays them, `print` writes them to a terminal.

    Attributes:
      html: the sentences as HTML, a `<div>` with all styles inline.
      terminal: the same with ANSI escapes for 24-bit colors.

    Example:
      >>> str(text(["good"], [0.0]))
      '\x1b[30;48;2;255;255;255mgood\x1b[0m'
    """

    html: str
    terminal: str

    def _repr_html_(self) -> str:
        return self.html

    def __str__(self) -> str:
        return self.terminal

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an HTML page."""
        head = '<!doctype html><meta charset="utf-8"><title>relevance</title>'
        pathlib.Path(path).write_text(f"{head}<body>{self.html}</body>\n", encoding="utf-8")


def text(
    tokens: Sequence[str] | Sequence[Sequence[str]],
    relevance: Relevance | Sequence[ArrayLike],
    *,
    labels: Sequence[str] | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    legend: bool = False,
) -> Text:
    """Colors tokens by their relevance: red for, blue against, and no color at zero.

    Word pieces are joined: "##ing" continues a word (BERT); "▁play" and "Ġplay" begin
    one (SentencePiece, GPT-2). Line breaks, tabs and other control characters are shown as escapes.

    Args:
      tokens: the tokens of one sentence, or of several.
      relevance: one number for each token, real, finite; also of shape (1, tokens). For several
        sentences, a sequence of these, or a padded array (sentences, tokens), of which the values after
        the tokens of a sentence are ignored. Arrays, or an explanation. Not modified.
      labels: one for each sentence, written before it, such as the prediction.
      cmap: as in `heatmap`; use light colors, on which black text is readable.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude of
        all sentences.
      legend: whether to write the color scale below the sentences: five colors, from -limit to limit.

    Returns:
      A `Text`.

    Raises:
      TypeError: if relevance is traced or not real, or a token is not a string.
      ValueError: if numbers of tokens, relevance values, sentences or labels do not match.

    Example:
      >>> found = text(["a", "great", "film", "##s"], [0.0, 2.0, 0.5, 0.5])
      >>> found.save("/dev/null")
      >>> "great" in found.html, found.terminal.count("film\x1b[0m")
      (True, 1)
    """
    sentences, rows = _sentences(tokens, relevance)
    if labels is not None and len(labels) != len(sentences):
        raise ValueError(
            f"labels must have {len(sentences)} entries, one per sentence, got {len(labels)}"
        )
    values = [
        _values(words, row, i) for i, (words, row) in enumerate(zip(sentences, rows, strict=True))
    ]
    limit = symmetric_limit(np.concatenate(values), limit)
    colors, scale = as_colormap(cmap), Normalize(-limit, limit)
    pages, lines = [], []
    for i, (words, row) in enumerate(zip(sentences, values, strict=True)):
        label = "" if labels is None else labels[i]
        pages.append(_html_sentence(pieces(words), row, colors(scale(row)), label))
        lines.append(_terminal_sentence(pieces(words), colors(scale(row)), label))
    if legend:
        ends = limit * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
        scale_words, shades = [f"{end:+.2g}" if end else "0" for end in ends], colors(scale(ends))
        cells = [(word, True) for word in scale_words]
        pages.append(_html_sentence(cells, ends, shades, "relevance"))
        lines.append(_terminal_sentence(cells, shades, "relevance"))
    style = "font-family:sans-serif;line-height:1.9;color:#000;background:#fff;padding:0.6em"
    return Text(f'<div style="{style}">{"".join(pages)}</div>', "\n".join(lines))


def _sentences(tokens: Sequence[Any], relevance: Any) -> tuple[list[list[str]], list[Any]]:
    """The tokens and the relevance of each sentence."""
    relevance = relevance_of(relevance)
    if all(isinstance(token, str) for token in tokens):
        return [list(tokens)], [without_batch(as_real(relevance, "relevance"), 1)]
    sentences, rows = [list(sentence) for sentence in tokens], list(relevance)
    if len(rows) != len(sentences):
        raise ValueError(f"relevance must have {len(sentences)} sentences, got {len(rows)}")
    padded = not isinstance(relevance, list | tuple)
    return sentences, [
        row[: len(s)] if padded else row for s, row in zip(sentences, rows, strict=True)
    ]


def _values(words: list[str], row: ArrayLike, sentence: int) -> np.ndarray:
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"tokens must be strings, got {word!r} in sentence {sentence}")
    values = as_real(row, "relevance")
    if not words or values.shape != (len(words),):
        raise ValueError(
            f"relevance of sentence {sentence} must have one number for each of its {len(words)} tokens, "
            f"got shape {values.shape}"
        )
    return values


def pieces(words: list[str]) -> list[tuple[str, bool]]:
    """The text to display for each token, and whether a space comes before it."""
    marked = any(word.startswith(_BEGINS) for word in words)
    found = []
    for i, word in enumerate(words):
        if word.startswith(_CONTINUES) and len(word) > len(_CONTINUES):
            found.append((word[len(_CONTINUES) :], False))
        elif marked:
            begins = word.startswith(_BEGINS)
            found.append((word[1:] if begins else word, begins and i > 0))
        else:
            found.append((word, i > 0))
    return found


def visible(word: str) -> str:
    r"""A token with its control characters as visible escapes, such as `\n` and `\x1b`."""
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _UNSEEN or unicodedata.bidirectional(c) in _TURNING
        else c
        for c in word
    )


def _html_sentence(
    pieces: list[tuple[str, bool]], row: np.ndarray, colors: np.ndarray, label: str
) -> str:
    parts = [f"<b>{html.escape(visible(label))}</b> " if label else ""]
    for (word, spaced), value, color in zip(pieces, row, colors, strict=True):
        style = (
            f"background:{to_hex(color)};color:{_ink(color)};border-radius:0.2em;padding:0.1em 0"
        )
        parts.append(" " if spaced else "")
        shown = html.escape(visible(word))
        parts.append(f'<span style="{style}" title="{value:+.3g}">{shown}</span>')
    return f'<p style="margin:0.2em 0">{"".join(parts)}</p>'


def _terminal_sentence(pieces: list[tuple[str, bool]], colors: np.ndarray, label: str) -> str:
    parts = [f"\x1b[1m{visible(label)}\x1b[0m " if label else ""]
    for (word, spaced), color in zip(pieces, colors, strict=True):
        red, green, blue = (round(255 * c) for c in color[:3])
        ink = "30" if _ink(color) == "#000" else "97"
        parts.append(" " if spaced else "")
        parts.append(f"\x1b[{ink};48;2;{red};{green};{blue}m{visible(word)}\x1b[0m")
    return "".join(parts)


def _ink(color: np.ndarray) -> str:
    """Black on light colors, white on dark ones."""
    luma = float(color[:3] @ np.array([0.2126, 0.7152, 0.0722]))
    return "#000" if luma > 0.45 else "#fff"
