"""Renders text as images: words in lines, with relevance in the boxes of their tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.virelay.lazy import LazyArray, RenderedImages, Rows

_DPI = 72  # one point is one pixel
_PADDING = 6  # pixels around the text
_LINE = 1.6  # line height, in font sizes


class _Box(NamedTuple):
    """A token on a line, with its left and right edges in pixels."""

    text: str
    line: int
    left: int
    right: int


def render_tokens(
    tokens: Sequence[Sequence[str]],
    relevance: Sequence[ArrayLike] | Rows,
    *,
    width: int = 320,
    font_size: int = 16,
) -> RenderedImages:
    """Renders sentences as images, with the relevance of each token in its box.

    Every pixel of a box has the relevance of its token, so colors are comparable. Word pieces are joined as
    in `jaxlrp.plot.text`. Long sentences wrap to a new line; all images have the height of the longest.

    Args:
      tokens: the tokens of each sentence.
      relevance: for each sentence one number per token, real, finite; or a padded array
        (sentences, tokens).
      width: image width in pixels.
      font_size: in pixels, at least 6.

    Returns:
      `RenderedImages`, drawn when sliced: black letters on white.

    Raises:
      ImportError: if matplotlib is not installed (extra: plot).
      TypeError: if a token is not a string.
      ValueError: if numbers do not match, or a token is wider than an image.

    Example:
      >>> pictures = render_tokens([["a", "great", "film", "##s"]], [[0.0, 2.0, 0.5, 0.5]])
      >>> pictures.images.shape, float(pictures.relevance[0].max())
      ((1, 37, 320), 2.0)
    """
    check_count("width", width)
    if check_count("font_size", font_size) < 6:
        raise ValueError(f"font_size must be at least 6 pixels, got {font_size}")
    if len(tokens) == 0 or any(isinstance(sentence, str) for sentence in tokens):
        raise ValueError(
            "tokens must be a sequence of sentences, each a sequence of strings, such as "
            f"[['good', 'movie']], got {tokens!r:.60}"
        )
    sentences = len(relevance) if isinstance(relevance, Sequence) else relevance.shape[0]
    if sentences != len(tokens):
        raise ValueError(f"relevance must have {len(tokens)} sentences, got {sentences}")
    for i, sentence in enumerate(tokens):
        for token in sentence:
            if not isinstance(token, str):
                raise TypeError(f"tokens must be strings, got {token!r} in sentence {i}")
    measure = _measure(font_size)
    boxes = [_layout(list(sentence), width, measure, i) for i, sentence in enumerate(tokens)]
    lines = 1 + max((box.line for row in boxes for box in row), default=0)
    line = int(_LINE * font_size)
    size = (2 * _PADDING + lines * line, width)

    def images(start: int, stop: int) -> np.ndarray:
        drawn = [_write(boxes[i], size, font_size, line) for i in range(start, stop)]
        return np.stack(drawn) if drawn else np.zeros((0, *size), np.uint8)

    def maps(start: int, stop: int) -> np.ndarray:
        found = np.zeros((stop - start, *size), np.float32)
        for i in range(start, stop):
            _fill(found[i - start], boxes[i], _values(relevance, i, len(boxes[i])), line)
        return found

    whole = (len(boxes), *size)
    return RenderedImages(
        LazyArray(whole, np.dtype(np.uint8), images), LazyArray(whole, np.dtype(np.float32), maps)
    )


def _values(relevance: Any, row: int, n: int) -> np.ndarray:
    values = np.asarray(relevance[row], np.float64)
    if values.ndim != 1 or len(values) < n or not np.isfinite(values[:n]).all():
        raise ValueError(
            f"relevance of sentence {row} must be {n} finite numbers, one per token, got shape "
            f"{values.shape}"
        )
    return values[:n]


def _measure(font_size: int) -> Callable[[str], int]:
    """The width of a text in pixels."""
    canvas, font = _canvas((1, 1)), _font(font_size)
    renderer = canvas.get_renderer()

    @functools.cache
    def measure(text: str) -> int:
        return int(np.ceil(renderer.get_text_width_height_descent(text, font, ismath=False)[0]))

    return measure


def _layout(
    tokens: list[str], width: int, measure: Callable[[str], int], row: int
) -> tuple[_Box, ...]:
    """The boxes of the tokens of a sentence. Lines break between words, or inside a long one."""
    found: list[_Box] = []
    space, x, line, end = measure("n"), _PADDING, 0, width - _PADDING
    for word in _words(tokens):
        wide = [measure(piece) for piece in word]
        if max(wide) > end - _PADDING:
            raise ValueError(
                f"width must be at least {max(wide) + 2 * _PADDING} pixels for {word} in sentence {row}, "
                f"got {width}"
            )
        x += space if x > _PADDING else 0
        if x + sum(wide) > end and x > _PADDING:
            x, line = _PADDING, line + 1
        for piece, pixels in zip(word, wide, strict=True):
            if x + pixels > end:
                x, line = _PADDING, line + 1
            found.append(_Box(piece, line, x, x + pixels))
            x += pixels
    return tuple(found)


def _words(tokens: list[str]) -> list[list[str]]:
    """Tokens as they are displayed, grouped by word."""
    from jaxlrp.plot.text import pieces

    words: list[list[str]] = []
    for text, spaced in pieces(tokens):
        shown = "".join(c if c.isprintable() else "\u00b7" for c in text)
        if spaced or not words:
            words.append([])
        words[-1].append(shown)
    return words


def _write(boxes: tuple[_Box, ...], size: tuple[int, int], font_size: int, line: int) -> np.ndarray:
    """(H, W) uint8."""
    canvas, height = _canvas(size), size[0]
    for box in boxes:
        baseline = _PADDING + box.line * line + int(0.72 * line)
        canvas.figure.text(
            box.left / size[1], 1 - baseline / height, box.text, fontproperties=_font(font_size),
            va="baseline", parse_math=False,
        )  # fmt: skip
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0].copy()


def _fill(picture: np.ndarray, boxes: tuple[_Box, ...], values: np.ndarray, line: int) -> None:
    for box, value in zip(boxes, values, strict=True):
        top = _PADDING + box.line * line
        picture[top + 1 : top + line - 1, box.left : box.right] = value


def _canvas(size: tuple[int, int]) -> Any:
    """A white canvas of (height, width) pixels, not registered with pyplot."""
    from jaxlrp.plot import image  # noqa: F401  says how to install matplotlib  # isort: skip
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[1] / _DPI, size[0] / _DPI), dpi=_DPI, facecolor="white")
    return FigureCanvasAgg(figure)


def _font(font_size: int) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family="DejaVu Sans", size=font_size)
