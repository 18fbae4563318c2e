"""Scenes of colored shapes with questions, after CLEVR-XAI."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Images

UNIT = np.float32(1 / 64)
SIZE, CELL = 24, 6
SHAPES = ("square", "plus", "cross")
COLORS = ("red", "green", "blue", "yellow")
_RGB = np.array([[40, -24, -24], [-24, 40, -24], [-24, -24, 40], [32, 32, -40]])
_ASKED, _OTHER, _THIRD = (
    0,
    3,
    6,
)  # slots of the main object of each shape; two companions follow each


def _template(size: int) -> np.ndarray:
    """Which pixels each shape has, booleans (3, 5, 5)."""
    i = np.arange(size)
    plus = (i[:, None] == size // 2) | (i == size // 2)
    cross = (i[:, None] == i) | (i[:, None] + i == size - 1)
    found = np.zeros((3, 5, 5), bool)
    found[:, :size, :size] = np.stack([np.ones((size, size), bool), plus, cross])
    return found


_TEMPLATES = np.stack([_template(3), _template(5)])  # small, big


@dataclasses.dataclass(frozen=True)
class _Scene:
    """Everything that is drawn in the scenes. Slots are objects: main, companion, companion of each shape.

    Attributes:
      shapes: of the slots, (n, 9). colors: (n, 9). shades: (n, 9). noise: (n, 24, 24, 3).
      places: the slot at each pixel, -1 for the background, (n, 24, 24).
      complex_: whether the question says "the big one", (n,).
    """

    shapes: np.ndarray
    colors: np.ndarray
    shades: np.ndarray
    noise: np.ndarray
    places: np.ndarray
    complex_: np.ndarray

    def inputs(self) -> np.ndarray:
        rows = np.arange(len(self.places))[:, None, None]
        slot = np.maximum(self.places, 0)
        color = _RGB[self.colors[rows, slot]] + self.shades[rows, slot][..., None]
        return np.where(self.places[..., None] >= 0, color, self.noise).astype(np.float32) * UNIT

    def question(self, slot: int) -> np.ndarray:
        kind = 2 * self.shapes[:, slot] + self.complex_
        return np.eye(2 * len(SHAPES), dtype=np.float32)[kind]

    def change(self, asked: int = _ASKED) -> Change:
        answers = self.colors[:, asked].astype(np.int32)
        return Change(self.inputs(), answers, answers, {"question": self.question(asked)})


def scenes(number: int, seed: int = 0) -> Benchmark:
    """What color is the plus? What color is the big plus? Scenes of 24 x 24 pixels with exact masks.

    Squares, pluses and crosses in four colors stand in the cells of a grid of 4 x 4, with jitter. Half of
    the questions are simple: each shape occurs once, and its color is asked. Half are complex: each shape
    has a big object and one or two small ones, and the color of the big one is asked. Pixels of the
    background are noise around 0.

    Which shape is asked for is drawn independently of everything else in the scene. So what does not use
    the question puts as much relevance on the asked object ("unique") as on that of another shape
    ("other").

    Masks, as in the paper: "unique": the object that is asked for. "single": the same for simple questions,
    empty for others. "union": all objects that the question goes through, here all of the shape. "all": all
    objects. And "other": the main object of another shape.

    Changes: "target": the object gets another color; "distractor": the main objects of both other shapes
    do; "background": other noise. The wrong question asks for the third shape.

    Args:
      number: of scenes, >= 1.
      seed: an integer >= 0. Equal seeds give equal scenes.

    Returns:
      A `Benchmark` with four classes, and "question" (n, 6) as context: shape, and simple or complex.

    Raises:
      ValueError: if an argument is invalid.

    References:
      Arras et al. (2022), https://doi.org/10.1016/j.inffus.2021.11.008

    Example:
      >>> from jaxlrp.metrics import truth
      >>> found = truth.scenes(100, seed=0)
      >>> found.inputs.shape, list(found.masks)
      ((100, 24, 24, 3), ['unique', 'other', 'single', 'union', 'all'])
    """
    draws = Draws(number, seed)
    complex_ = draws.below(2)
    shapes = np.repeat(draws.orders(len(SHAPES)), 3, axis=1)
    big = draws.below(2, 9)
    big[:, _ASKED::3] |= complex_[:, None]
    big[:, 1::3] &= ~complex_[:, None] & 1
    big[:, 2::3] &= ~complex_[:, None] & 1
    present = np.ones((number, 9), int)
    present[:, 1::3] = complex_[:, None]
    present[:, 2::3] = complex_[:, None] * draws.below(2, 3)
    scene = _Scene(
        shapes=shapes,
        colors=draws.below(len(COLORS), 9),
        shades=draws.around_zero(8, 9),
        noise=draws.around_zero(6, SIZE, SIZE, 3),
        places=_places(draws, shapes, big, present),
        complex_=complex_,
    )
    replaced = dataclasses.replace
    other = draws.others(scene.colors, len(COLORS))
    asked, rest = (
        np.array([slot == _ASKED for slot in range(9)]),
        np.isin(range(9), [_OTHER, _THIRD]),
    )
    original = scene.change()
    return Benchmark(
        name="scenes",
        inputs=original.inputs,
        answers=original.answers,
        targets=original.targets,
        masks=_masks(scene),
        truth="unique",
        other="other",
        changes={
            "target": replaced(scene, colors=np.where(asked, other, scene.colors)).change(),
            "distractor": replaced(scene, colors=np.where(rest, other, scene.colors)).change(),
            "background": replaced(scene, noise=draws.around_zero(6, SIZE, SIZE, 3)).change(),
        },
        wrong=scene.change(_THIRD),
        context=original.context,
        model=Images(len(COLORS)),
        steps=2500,
        channels=-1,
    )


def _places(draws: Draws, shapes: np.ndarray, big: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The slot at each pixel, (n, 24, 24)."""
    number = len(shapes)
    cells = draws.orders((SIZE // CELL) ** 2)
    jitter = draws.below(12, 9, 2) % np.where(big, 2, 4)[..., None]
    found = np.full((number, SIZE, SIZE), -1)
    samples, window = np.arange(number)[:, None, None], np.arange(5)
    for slot in range(9):
        corner = CELL * np.stack(np.divmod(cells[:, slot], SIZE // CELL), axis=1) + jitter[:, slot]
        rows = corner[:, 0, None, None] + window[:, None]
        columns = corner[:, 1, None, None] + window
        drawn = _TEMPLATES[big[:, slot], shapes[:, slot]] & (present[:, slot, None, None] == 1)
        # a small object's window may leave the image, where it has no pixels
        rows, columns = np.minimum(rows, SIZE - 1), np.minimum(columns, SIZE - 1)
        at = [np.broadcast_to(index, drawn.shape)[drawn] for index in (samples, rows, columns)]
        found[tuple(at)] = slot
    return found


def _masks(scene: _Scene) -> dict[str, np.ndarray]:
    places = scene.places[..., None]
    unique = places == _ASKED
    return {
        "unique": unique,
        "other": places == _OTHER,
        "single": unique & (scene.complex_ == 0)[:, None, None, None],
        "union": (places >= 0) & (places < 3),
        "all": places >= 0,
    }
