"""An explanation drawn by the kind of its input: an image, a text, a series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp import _compat
from jaxlrp._checks import check_one_of
from jaxlrp.explanation.frames import summed_over_features
from jaxlrp.explanation.result import Explanation
from jaxlrp.plot.given import relevance_of
from jaxlrp.plot.grid import grid
from jaxlrp.plot.image import heatmap, overlay
from jaxlrp.plot.normalize import as_real
from jaxlrp.plot.signal import signal
from jaxlrp.plot.text import text

KINDS = ("image", "text", "series")


def draw(
    explanation: Explanation,
    input: Any = None,
    tokens: Sequence[Any] | None = None,
    kind: str | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """See `Explanation.plot`."""
    relevance, options = relevance_of(explanation), dict(options or {})
    if _compat.is_traced(relevance):
        as_real(relevance, "relevance")  # says what is wrong
    kind = _kind(np.shape(relevance), input, tokens) if kind is None else kind
    check_one_of("kind", kind, KINDS)
    if kind == "text":
        if tokens is None:
            raise TypeError("a text needs its tokens: write result.plot(tokens=[...])")
        return text(tokens, summed_over_features(np.asarray(relevance), tokens), **options)
    if kind == "series":
        if input is None:
            raise TypeError(
                "a series needs the signal: write result.plot(x), x as it was explained"
            )
        return signal(relevance, input, **options)
    if np.ndim(relevance) == 4 and len(relevance) > 1:
        return _images(relevance, input, options)
    if input is None:
        return heatmap(relevance, **options)
    return overlay(relevance, input, **options)


def _images(relevance: Any, input: Any, options: dict[str, Any]) -> Any:
    """Several images side by side."""
    if (axis := options.get("channel_axis")) is not None and axis > 0:
        options["channel_axis"] = axis - 1
    return grid(list(relevance), images=None if input is None else list(input), **options)


def _kind(shape: tuple[int, ...], input: Any, tokens: Any) -> str:
    """What relevance of a shape is of, where this is not ambiguous.

    Raises:
      ValueError: where it is, with what to write.
    """
    if tokens is not None:
        return "text"
    if len(shape) == 4:
        return "image"
    of_one = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    if len(of_one) == 1 and input is not None:
        return "series"
    raise ValueError(
        f"relevance of shape {shape} may be of an image, a text or a series: write "
        "result.plot(kind='image'), result.plot(tokens=[...]) or result.plot(x, kind='series'); of a "
        "table, plot.bar(result), plot.beeswarm or result.to_pandas(columns=[...])"
    )
