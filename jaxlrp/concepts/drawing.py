"""Draws one reference sample: a crop of an image, an interval of a signal, a few tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxlrp.concepts.references import Reference
from jaxlrp.plot.normalize import as_colormap
from jaxlrp.plot.pixels import photograph

ToImage = Callable[[np.ndarray], np.ndarray]
Words = Callable[[np.ndarray], Sequence[str]]

References = Mapping[Any, Sequence[Reference]]
Names = Mapping[Any, str] | Callable[[Any], str] | None

FOR, AGAINST = 0.93, 0.07  # places of the colors of relevance for and against in the color map
_SHADE = 0.35  # brightness of what is dimmed
_POINTS = 6.5  # size of tokens


def dimmed(
    reference: Reference, *, to_image: ToImage | None = None, shade: float = _SHADE
) -> np.ndarray:
    """The crop of an image, darkened where the concept is not.

    Args:
      reference: of an image: two axes of positions.
      to_image: from an example to a displayable image of the same height and width, (height, width, 1 or
        3), such as `Pretrained.to_image`; None if examples can be displayed: uint8, or floats in [0, 1].
      shade: brightness of dimmed pixels, in [0, 1].

    Returns:
      uint8 (height, width, 3), of the crop.

    Raises:
      ValueError: if the reference is not an image, or `to_image` changes its size.
    """
    if len(reference.axes) != 2:
        raise ValueError(
            f"reference must be of an image, with two axes of positions, got axes={reference.axes}"
        )
    if not 0 <= shade <= 1:
        raise ValueError(f"shade must be in [0, 1], got {shade}")
    pixels = displayable(reference.example, reference.axes, to_image)
    if pixels.shape[:2] != reference.mask.shape:
        raise ValueError(
            f"to_image must keep height and width, {reference.mask.shape}, got {pixels.shape[:2]}"
        )
    light = np.where(reference.mask, 1.0, shade)[..., None]
    return np.round(255 * (pixels * light)[reference.window]).astype(np.uint8)


def displayable(example: np.ndarray, axes: tuple[int, ...], to_image: ToImage | None) -> np.ndarray:
    """An example as an image, (height, width, 3) in [0, 1]; its other axis is that of channels."""
    if to_image is not None:
        return photograph(np.asarray(to_image(example)), -1)
    rest = [i for i in range(example.ndim) if i not in axes]
    return photograph(example, rest[0] if len(rest) == 1 else None)


def draw(
    ax: Axes, reference: Reference, to_image: ToImage | None, words: Words | None, width: float
) -> None:
    """Draws a reference into Axes that are `width` inches wide."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color="0.6")
    if len(reference.axes) == 2:
        ax.imshow(dimmed(reference, to_image=to_image))
        return
    if len(reference.axes) != 1:
        raise ValueError(
            f"reference must be of an image, a signal or tokens (one or two axes of positions), got "
            f"{len(reference.axes)} axes"
        )
    if words is None:
        _signal(ax, reference)
    else:
        _tokens(ax, reference, words, width)


def _signal(ax: Axes, reference: Reference) -> None:
    """The interval as a line, and shaded where the concept is."""
    (begin, end), (axis,) = reference.box[0], reference.axes
    values = np.moveaxis(reference.crop, axis, 0).reshape(end - begin, -1)
    ax.plot(np.arange(begin, end), values, color="0.2", linewidth=0.5)
    for start, stop in reference.spans:
        if start < end and stop > begin:
            # Half a position around each, so that a single one can be seen.
            ax.axvspan(
                max(start, begin) - 0.5,
                min(stop, end) - 0.5,
                color=as_colormap("relevance")(0.75),
                linewidth=0,
                alpha=0.6,
            )
    ax.set_xlim(begin - 0.5, end - 0.5)
    ax.set_xticks([begin, end - 1], labels=[str(begin), str(end - 1)], fontsize=_POINTS)
    ax.tick_params(length=2, pad=1)


def _tokens(ax: Axes, reference: Reference, words: Words, width: float) -> None:
    """The tokens of the crop, colored by relevance; those that are dimmed in gray."""
    found = list(words(reference.crop))
    begin, end = reference.box[0]
    if len(found) != end - begin:
        raise ValueError(
            f"words must return one string for each of {end - begin} tokens, got {len(found)}"
        )
    limit = np.abs(reference.relevance).max() or 1.0
    shares = reference.relevance[begin:end] / limit
    columns = max(int(width * 72 / (0.62 * _POINTS)), 8)
    line, column = 0, 0
    for word, share, kept in zip(found, shares, reference.mask[begin:end], strict=True):
        shown = word if len(word) <= columns else word[: columns - 1] + "\N{HORIZONTAL ELLIPSIS}"
        if column and column + len(shown) > columns:
            line, column = line + 1, 0
        ax.annotate(
            shown.replace("$", r"\$"),
            (0, 1),
            ((0.5 + column) * 0.62 * _POINTS, -(0.4 + 1.5 * line) * _POINTS),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            family="monospace",
            fontsize=_POINTS,
            color="0" if kept else "0.55",
            bbox={"facecolor": as_colormap("relevance")(0.5 + 0.35 * share),
                  "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
        column += len(shown) + 1
    ax.spines[:].set_visible(False)


def name_of(names: Names, key: Any, default: str | None = None) -> str:
    """The name of a concept or node, as matplotlib takes it."""
    if names is not None:
        found = names(key) if callable(names) else names.get(key)
        if found is not None:
            return str(found).replace("$", r"\$")
    return default or f"concept {key}"


def label(ax: Axes, name: str, share: float | None, most: float) -> None:
    """The name of a concept, and its share as a number and a bar."""
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.text(0, 0.62, name, fontsize="small", va="center", wrap=True)
    if share is None:
        return
    ax.text(0, 0.4, f"{100 * share:+.1f} %", fontsize="small", va="center", color="0.3")
    color = as_colormap("relevance")(FOR if share > 0 else AGAINST)
    ax.barh(0.22, 0.9 * abs(share) / most, height=0.08, color=color)
