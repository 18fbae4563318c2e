"""Mosaics of real pictures: relevance of a class belongs to the pictures of this class."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.metrics.mosaics import mosaics as arranged
from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Images


def mosaics(pictures: ArrayLike, labels: ArrayLike, number: int, seed: int = 0) -> Benchmark:
    """Which classes are in the mosaic? Four real pictures each, two of them of the explained class.

    The arrangement is that of `metrics.mosaics`. The network gives one number for each class, which is
    positive where the class is present.

    Masks: "class": the two pictures of the class; "other": the other two, which cover the same area.

    Changes: "target": the two pictures of the class are replaced by pictures of one that is not in the
    mosaic; "distractor": the other two by pictures of other classes. There is no background. The wrong
    question explains a class that is not in the mosaic.

    The random choice of `metrics.mosaics` uses methods of NumPy's `Generator`, whose results NumPy may
    change in a later version.

    Args:
      pictures: floats (m, height, width, channels).
      labels: the class of each, integers from 0, (m,). At least four classes, with two pictures each.
      number: of mosaics, >= 1.
      seed: an integer >= 0.

    Returns:
      A `Benchmark` that explains the class of two pictures.

    Raises:
      TypeError, ValueError: if an argument is invalid.

    Example:
      >>> import numpy as np
      >>> from jaxlrp.metrics import truth
      >>> found = truth.mosaics(np.zeros((8, 8, 8, 1)), np.arange(8) // 2, 10)
      >>> found.inputs.shape, found.area
      ((10, 16, 16, 1), {'class': 0.5, 'other': 0.5})
    """
    x, y = np.asarray(pictures, np.float32), np.asarray(labels)
    if x.ndim != 4 or y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(
            "pictures must have shape (m, height, width, channels), and labels be m integers, got "
            f"{x.shape} and {y.dtype} {y.shape}"
        )
    classes = int(y.max()) + 1
    counts = np.bincount(y, minlength=classes)
    if classes < 4 or counts.min() < 2:
        raise ValueError(
            f"labels must be at least four classes with two pictures each, got {counts.tolist()} pictures "
            "of each class"
        )
    draws = Draws(number, seed)
    found = arranged(x, y, jax.random.key(seed), number=number)
    samples, mine = np.asarray(found.samples), np.asarray(found.quadrants)
    target = np.asarray(found.targets).astype(np.int32)
    absent = _absent(draws, y[samples], classes)

    def change(samples: np.ndarray, target: np.ndarray = target) -> Change:
        present = (y[samples][..., None] == np.arange(classes)).any(axis=1)
        return Change(_joined(x[samples]), present.astype(np.float32), target, {})

    replaced = _of_class(draws, y, np.repeat(absent[:, None], 4, axis=1))
    others = draws.others(np.repeat(target[:, None], 4, axis=1), classes)
    original = change(samples)
    return Benchmark(
        name="mosaics",
        inputs=original.inputs,
        answers=original.answers,
        targets=original.targets,
        masks={"class": np.asarray(found.masks), "other": ~np.asarray(found.masks)},
        truth="class",
        other="other",
        changes={
            "target": change(np.where(mine, replaced, samples)),
            "distractor": change(np.where(mine, samples, _of_class(draws, y, others))),
        },
        wrong=change(samples, absent.astype(np.int32)),
        context={},
        model=Images(classes, width=48),
        steps=1000,
        answer="classes",
        channels=-1,
    )


def _joined(four: np.ndarray) -> np.ndarray:
    """Four pictures each, (n, 4, h, w, c), in two rows, (n, 2 h, 2 w, c)."""
    n, _, height, width, channels = four.shape
    rows = four.reshape(n, 2, 2, height, width, channels).transpose(0, 1, 3, 2, 4, 5)
    return rows.reshape(n, 2 * height, 2 * width, channels)


def _absent(draws: Draws, labels: np.ndarray, classes: int) -> np.ndarray:
    """A class for each mosaic that is not among its labels (n, 4)."""
    order = draws.orders(classes)
    is_absent = (order[:, :, None] != labels[:, None, :]).all(axis=2)
    return np.take_along_axis(order, is_absent.argmax(axis=1)[:, None], axis=1)[:, 0]


def _of_class(draws: Draws, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of pictures of the classes that are wanted, (n, 4)."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    return order[first[wanted] + draws.below(2**31, *wanted.shape[1:]) % counts[wanted]]
