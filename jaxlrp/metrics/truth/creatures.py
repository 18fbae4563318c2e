"""Creatures made of parts that can be removed, after FunnyBirds."""

from __future__ import annotations

import numpy as np

from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Layout
from jaxlrp.metrics.truth.scenes import UNIT

PARTS = ("head", "left wing", "right wing", "tail", "feet")
VARIANTS, CLASSES, _CREATURES = 3, 9, 3
_HEIGHT, _WIDTH, _BOX, _PART = 14, 39, 12, 3
_CORNERS = np.array([[0, 4], [4, 0], [4, 9], [9, 1], [9, 7]])  # of parts, in a box of 12 x 12
_BODY = slice(3, 9)  # of the box, in both directions
_CLASS = np.arange(CLASSES)
# Part p of class 3 a + b has variant a + b p (mod 3): two classes agree in two parts of five at most.
CODE = (_CLASS[:, None] // 3 + _CLASS[:, None] % 3 * np.arange(len(PARTS))) % VARIANTS
_COLORS = np.array([[40, -24, -24], [-24, 40, -24], [-24, -24, 40]])


def creatures(number: int, seed: int = 0) -> Benchmark:
    """What is the creature in the middle? Creatures with five parts, each of which can be removed.

    Three creatures stand side by side, and the question names a place. A creature has a body, which is the
    same for all, and five parts of 3 x 3 pixels, each in one of three colors, with shades. The nine classes
    are combinations of these, and two classes agree in two parts at most: no part suffices, and any three
    do. A part is removed by setting its pixels to 0, the mean of the background. The network is trained on
    creatures without one part, too, so this is no unlikely input for it.

    Masks: "parts"; "other": the parts of another creature; "creature": parts and body.

    Changes: "without head" and so on; "target": another class; "distractor": other classes at both other
    places; "background": other noise. The wrong question asks for the third creature. `segments` has the
    parts of the creature, of the other and of the third: features for metrics that remove them, such as
    `SinglePartDrops`.

    Args:
      number: of pictures, >= 1.
      seed: an integer >= 0.

    Returns:
      A `Benchmark` with nine classes, and "question" (n, 3) as context.

    Raises:
      ValueError: if an argument is invalid.

    References:
      Hesse et al. (2023), https://doi.org/10.1109/ICCV51070.2023.00367

    Example:
      >>> from jaxlrp.metrics import truth
      >>> found = truth.creatures(100, seed=0)
      >>> found.inputs.shape, found.parts[:3]
      ((100, 14, 39, 3), ('head', 'left wing', 'right wing'))
    """
    draws, count = Draws(number, seed), len(PARTS)
    classes = draws.below(CLASSES, _CREATURES)  # of the asked one, the other and the third
    redrawn = draws.others(classes, CLASSES)
    places = draws.orders(_CREATURES)
    shades = draws.around_zero(8, _CREATURES * count)
    noise, other_noise = (draws.around_zero(6, _HEIGHT, _WIDTH, 3) for _ in range(2))
    segments, bodies = _layout(draws, places)
    rows, at = np.arange(number)[:, None, None], np.maximum(segments, 0)
    asked = np.arange(_CREATURES) == 0

    def change(
        classes: np.ndarray = classes, noise: np.ndarray = noise, role: int = 0,
        without: int | None = None,
    ) -> Change:  # fmt: skip
        variants = CODE[classes].reshape(number, -1)
        color = _COLORS[variants[rows, at]] + shades[rows, at][..., None]
        drawn = np.where(segments[..., None] >= 0, color, noise)
        drawn = np.where(bodies[..., None] >= 0, 16, drawn)
        if without is not None:
            drawn = np.where(segments[..., None] == without, 0, drawn)
        answers = classes[:, role].astype(np.int32)
        question = np.eye(_CREATURES, dtype=np.float32)[places[:, role]]
        return Change(drawn.astype(np.float32) * UNIT, answers, answers, {"question": question})

    original = change()
    parts = (segments >= 0) & (segments < count)
    who = ("", "other ", "third ")
    return Benchmark(
        name="creatures",
        inputs=original.inputs,
        answers=original.answers,
        targets=original.targets,
        masks={
            "parts": parts[..., None],
            "other": ((segments >= count) & (segments < 2 * count))[..., None],
            "creature": (parts | (bodies == 0))[..., None],
        },
        truth="parts",
        other="other",
        changes={
            **{f"without {part}": change(without=i) for i, part in enumerate(PARTS)},
            "target": change(np.where(asked, redrawn, classes)),
            "distractor": change(np.where(asked, classes, redrawn)),
            "background": change(noise=other_noise),
        },
        wrong=change(role=2),
        context=original.context,
        model=Layout(CLASSES),
        steps=1000,
        channels=-1,
        segments=segments[..., None].astype(np.int32),
        parts=tuple(f"{which}{part}" for which in who for part in PARTS),
    )


def _layout(draws: Draws, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part at each pixel, from 0, and the creature whose body it is, -1 elsewhere, (n, 14, 39)."""
    across = _WIDTH // _CREATURES
    jitter = draws.below(6, _CREATURES)
    top = (jitter % (_HEIGHT - _BOX + 1))[..., None]
    left = (places * across + jitter // 3)[..., None]
    shape = (draws.number, _HEIGHT, _WIDTH)
    segments, bodies = np.full(shape, -1), np.full(shape, -1)
    for who in range(_CREATURES):
        box = top[:, who, :, None], left[:, who, :, None]
        for part, corner in enumerate(_CORNERS):
            inside = _inside(box, corner, _PART)
            segments = np.where(inside, who * len(PARTS) + part, segments)
        inside = _inside(box, (_BODY.start, _BODY.start), _BODY.stop - _BODY.start)
        bodies = np.where(inside, who, bodies)
    return segments, bodies


def _inside(box: tuple[np.ndarray, np.ndarray], corner, length: int) -> np.ndarray:
    """The pixels of a square in a box, booleans (n, 14, 39)."""
    rows = np.arange(_HEIGHT)[:, None] - box[0] - corner[0]
    columns = np.arange(_WIDTH) - box[1] - corner[1]
    return (rows >= 0) & (rows < length) & (columns >= 0) & (columns < length)
