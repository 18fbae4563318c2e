"""Pictures in which only a planted mark says what the class is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.metrics.truth.benchmark import Benchmark
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Images
from jaxlrp.metrics.truth.questions import asked_of
from jaxlrp.metrics.truth.scenes import UNIT

_CELL = 4
_MARKS = np.array(
    [
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
        [[1, 0, 1], [0, 1, 0], [1, 0, 1]],
        [[1, 0, 0], [1, 0, 0], [1, 1, 1]],
        [[1, 1, 1], [0, 1, 0], [0, 1, 0]],
    ]
)  # each with five bright pixels of nine
_KINDS = len(_MARKS)


def artefacts(number: int, seed: int = 0, *, pictures: ArrayLike | None = None) -> Benchmark:
    """Which mark was planted in the picture? Nothing but the mark tells the class.

    Three marks of 3 x 3 pixels are planted in each picture, one in each of the channels red, green and
    blue. There are four kinds of marks, and the class is the kind of the one in the channel that the
    question names. The picture is independent of the class, so all relevance belongs to this mark.

    Masks, with channels: "mark": the square of the mark; "other": that in another channel; "marks": all
    three.

    Changes: "target": the mark gets another kind; "distractor": both others do; "background": other
    pictures. The wrong question asks for the third channel.

    Args:
      number: of pictures, >= 1.
      seed: an integer >= 0.
      pictures: floats (m, height, width), at least 8 x 8, centered at 0, from about -0.5 to 0.5. Each
        channel is one of them, drawn at random. None for smooth noise of 16 x 16.

    Returns:
      A `Benchmark` with four classes, and "question" (n, 3) as context.

    Raises:
      ValueError: if an argument is invalid.

    Example:
      >>> from jaxlrp.metrics import truth
      >>> truth.artefacts(100, seed=0).mask("mark").sum(axis=(1, 2, 3))[:3].tolist()
      [9, 9, 9]
    """
    draws = Draws(number, seed)
    held = None if pictures is None else _checked(pictures)
    height, width = (16, 16) if held is None else held.shape[1:]
    asked, kinds = draws.orders(3), draws.below(_KINDS, 3)
    places = _places(draws, height, width)
    first, second = (_backgrounds(draws, held, height, width) for _ in range(2))
    kind_after = draws.others(kinds, _KINDS)

    def drawn(kinds: np.ndarray, background: np.ndarray) -> np.ndarray:
        bits = _MARKS[kinds].reshape(number, 3, 9)
        bright = np.take_along_axis(bits, np.maximum(places, 0).reshape(number, 3, -1), axis=2)
        mark = np.where(bright.reshape(places.shape) == 1, 32, -32) * UNIT
        return np.moveaxis(np.where(places >= 0, mark, background), 1, -1)

    return asked_of(
        "artefacts", "mark", kinds=kinds, other_kinds=kind_after, asked=asked,
        places=np.moveaxis(places >= 0, 1, -1), drawn=drawn, backgrounds=(first, second),
        model=Images(_KINDS),
    )  # fmt: skip


def _checked(pictures: ArrayLike) -> np.ndarray:
    found = np.asarray(pictures, np.float32)
    if found.ndim != 3 or min(found.shape[1:]) < 8 or not np.isfinite(found).all():
        raise ValueError(
            "pictures must be finite floats (m, height, width), at least 8 x 8, got shape "
            f"{found.shape}"
        )
    return found


def _places(draws: Draws, height: int, width: int) -> np.ndarray:
    """The place of each pixel in the mark of each channel, 0 to 8, -1 outside, (n, 3, height, width)."""
    across = width // _CELL
    cells = draws.orders((height // _CELL) * across)[:, :3]
    jitter = draws.below(2, 3, 2)
    top, left = (_CELL * part + jitter[..., i] for i, part in enumerate(np.divmod(cells, across)))
    down = np.arange(height)[:, None] - top[..., None, None]
    right = np.arange(width) - left[..., None, None]
    inside = (down >= 0) & (down < 3) & (right >= 0) & (right < 3)
    return np.where(inside, 3 * down + right, -1)


def _backgrounds(draws: Draws, pictures: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """What lies behind the marks, floats (n, 3, height, width)."""
    if pictures is not None:
        return pictures[draws.below(len(pictures), 3)]
    noise = draws.around_zero(6, 3, height + 2, width + 2)
    smooth = sum(noise[..., i : i + height, j : j + width] for i in range(3) for j in range(3))
    return np.asarray(smooth, np.float32) * UNIT
