"""The pictures of a report, as elements of its page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxlrp._html import figure_tag, image_tag
from jaxlrp.concepts.extras import need
from jaxlrp.concepts.references import Reference
from jaxlrp.concepts.report_page import Picture
from jaxlrp.explanation.explainer import Explainer

need("matplotlib", "a report of concepts")
Image = need("PIL.Image", "a report of concepts")

from matplotlib.figure import Figure  # noqa: E402

from jaxlrp.concepts.drawing import dimmed, displayable, draw  # noqa: E402
from jaxlrp.plot import to_rgb  # noqa: E402

_LARGE, _SMALL = 240, 72  # pixels of the longer side, at most
_LOSSLESS = 64  # pixels of the longer side up to which an image is kept as it is
_WIDE = 2.4  # inches of a signal or of tokens


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """How the samples of a report are shown; see `report` for the arguments."""

    explainer: Explainer
    fetch: Callable[[np.ndarray], Any]
    args: tuple[Any, ...]
    axes: tuple[int, ...]
    to_image: Callable[[np.ndarray], np.ndarray] | None
    words: Callable[[np.ndarray], Sequence[str]] | None

    def whole(self, reference: Reference, caption: str) -> Picture:
        """An image with the heat map under the condition on the concept."""
        photo = displayable(reference.example, reference.axes, self.to_image)
        pixels = to_rgb(reference.heat, image=photo, channel_axis=None)
        alternative = f"where concept {reference.concept} is in {caption}"
        return Picture(_image(pixels, alternative, _LARGE), f"where it is in {caption}")

    def crop(self, reference: Reference, caption: str) -> Picture:
        """The part of a reference sample that shows the concept."""
        return Picture(self._crop(reference, _LARGE), caption)

    def thumbnail(self, reference: Reference) -> str:
        """A small one of the same."""
        return self._crop(reference, _SMALL)

    def pixels(self, reference: Reference) -> np.ndarray:
        """The crop for an embedding: uint8 (height, width, 3), not dimmed; else a part of an example."""
        if len(reference.axes) != 2:
            return reference.crop
        photo = displayable(reference.example, reference.axes, self.to_image)
        return np.round(255 * photo[reference.window]).astype(np.uint8)

    def sample(self, row: int, caption: str) -> Picture | None:
        """A sample as it is; None if it is no image."""
        if len(self.axes) != 2:
            return None
        example = np.asarray(self.call(row)[self.explainer.model.argnums[0]])[0]
        axes = tuple(axis % example.ndim for axis in self.axes)
        photo = displayable(example, axes, self.to_image)
        pixels = np.round(255 * photo).astype(np.uint8)
        return Picture(_image(pixels, f"sample {caption}", _LARGE), caption)

    def call(self, rows: int | np.ndarray) -> tuple[Any, ...]:
        """The arguments of the explainer for one sample, or for several."""
        fetched = self.fetch(np.atleast_1d(rows))
        return (*self.args, *(fetched if isinstance(fetched, tuple) else (fetched,)))

    def _crop(self, reference: Reference, most: int) -> str:
        alternative = f"concept {reference.concept} in row {reference.row}"
        if len(reference.axes) == 2:
            return _image(dimmed(reference, to_image=self.to_image), alternative, most)
        figure = Figure(figsize=(_WIDE, 1.0), layout="constrained")
        draw(figure.add_subplot(), reference, self.to_image, self.words, _WIDE)
        return figure_tag(figure, alternative)


def _image(pixels: np.ndarray, alternative: str, most: int) -> str:
    """Pixels as an embedded image: PNG if it is tiny, else JPEG."""
    image, held = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= min(_LOSSLESS, most):
        image.save(held, "png")
        return image_tag(held.getvalue(), alternative)
    image.thumbnail((most, most))
    image.save(held, "jpeg", quality=88)
    return image_tag(held.getvalue(), alternative, "jpeg")
