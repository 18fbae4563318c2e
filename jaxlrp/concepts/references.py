"""Reference samples: what a concept looks like, cropped to where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.concepts.crops import Box, above, crop_box, runs, smooth
from jaxlrp.concepts.locate import Locator, locate
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer


class Ranked(Protocol):
    """Top samples of each concept: rows (concepts, k) of a data set, -1 where there is none, and values."""

    @property
    def rows(self) -> Any: ...
    @property
    def values(self) -> Any: ...


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """One sample that shows a concept. Arrays of NumPy.

    "Positions" are the axes of an example along which a concept is located: height and width, tokens, time.

    Attributes:
      concept: its index.
      row: of the sample in the data set.
      value: the score by which it was ranked.
      example: the input, without the batch axis.
      relevance: of the positions, under the condition on the concept; summed over other axes.
      heat: the same, blurred; the crop and the mask are computed from it.
      axes: the axes of positions in `example`.
      box: (start, stop) along each of them: where `heat` exceeds the threshold.
      mask: of the positions, False where the sample is dimmed.
    """

    concept: int
    row: int
    value: float
    example: np.ndarray
    relevance: np.ndarray
    heat: np.ndarray
    axes: tuple[int, ...]
    box: Box
    mask: np.ndarray

    @property
    def window(self) -> tuple[slice, ...]:
        """The box as an index of arrays of positions, such as `relevance[reference.window]`."""
        return tuple(slice(*limits) for limits in self.box)

    @property
    def crop(self) -> np.ndarray:
        """The part of the example inside the box."""
        index: list[slice] = [slice(None)] * self.example.ndim
        for axis, part in zip(self.axes, self.window, strict=True):
            index[axis] = part
        return self.example[tuple(index)]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(start, stop) of each run of positions that is not dimmed; for tokens and signals.

        Raises:
          ValueError: if there are several axes of positions.
        """
        return runs(self.mask)


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """How a reference is made from relevance; see `references` for the arguments."""

    axes: tuple[int, ...]
    blur: float = 0.015
    threshold: float = 0.1
    dim: float = 0.2
    context: int = 0

    def of(
        self, concept: int, row: int, value: float, example: np.ndarray, relevance: np.ndarray
    ) -> Reference:
        """The reference of one sample; `relevance` has the shape of the example (of tokens, one each)."""
        return self.from_map(concept, row, value, example, self.summed(example, relevance)[1])

    def from_map(
        self, concept: int, row: int, value: float, example: np.ndarray, summed: np.ndarray
    ) -> Reference:
        """The same, from relevance that was summed over all axes but those of positions."""
        places = tuple(axis % example.ndim for axis in self.axes)
        heat = smooth(summed, self.blur)
        box = crop_box(heat, threshold=self.threshold, context=self.context)
        mask = above(heat, self.dim)
        return Reference(concept, row, value, example, summed, heat, places, box, mask)

    def summed(
        self, example: np.ndarray, relevance: np.ndarray
    ) -> tuple[tuple[int, ...], np.ndarray]:
        """The axes of positions, and relevance summed over all others."""
        ndim = relevance.ndim
        kept = tuple(axis % ndim for axis in self.axes if -ndim <= axis < ndim)
        if len(set(kept)) != len(self.axes) or not kept or list(kept) != sorted(kept):
            raise ValueError(
                f"axes={self.axes} must name distinct axes of one example, in order; it has shape "
                f"{example.shape}"
            )
        rest = tuple(i for i in range(ndim) if i not in kept)
        return kept, relevance.astype(np.float64).sum(axis=rest)


def references(
    explainer: Explainer,
    concepts: Concepts,
    top: Ranked,
    fetch: Callable[[np.ndarray], Any] | ArrayLike,
    *,
    axes: Sequence[int],
    by: str = "relevance",
    of: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    n: int = 8,
    args: Sequence[Any] = (),
    batch_size: int = 16,
    blur: float = 0.015,
    threshold: float = 0.1,
    dim: float = 0.2,
    context: int = 0,
    progress: str = "auto",
) -> dict[int, list[Reference]]:
    """The top samples of concepts, each cropped to where its concept is.

    Each sample gets its own conditional pass (`locate`). Samples of all concepts share batches of one size,
    and therefore one compiled program.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: the concepts of a layer.
      top: the top samples of each concept, such as a `TopK`: `rows` and `values` of shape (concepts, k). If
        it has an axis of classes, select a class first.
      fetch: from rows, an array of integers, to the batch of their inputs; or the inputs themselves,
        (samples, *shape). Rows are those of the scores, `open_scores(...).ids`: where samples failed, they
        are not rows of the data set. A tuple gives several arguments of the model, each with a batch axis.
      axes: the axes of one example, without the batch, along which concepts are located: (0, 1) for
        images (height, width, channels), (0,) for tokens and signals. Relevance is summed over the others.
      by: as in `locate`; use the score by which the samples in `top` are ranked.
      of: the concepts, integers; None for all.
      targets: (samples,), for `by="relevance"` and "relevance_max": the class of each row of the scores;
        None where the model has one output.
      n: the maximum number of samples of each concept, >= 1.
      args: the positional arguments of the explainer that come before what `fetch` returns, such as
        `(variables,)`.
      batch_size: samples that are located together, >= 1.
      blur: standard deviation of the Gaussian that smooths a map, as a fraction of the length of each axis;
        0 for none.
      threshold: the box holds all positions above this share of the largest value; see `crop_box`.
      dim: positions below this share of the largest value are dimmed.
      context: number of positions added on each side of the box.
      progress: "bar", "log", "none" or "auto", as in `attribute_dataset`.

    Returns:
      A dictionary from concepts, in the order of `of`, to their references, the top sample first. A concept
      without samples has an empty list.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, and how to fix it.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> import types, jax, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]).T, jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
      >>> units = concepts.Channels("relu", axis=-1)
      >>> x = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], np.float32)
      >>> top = types.SimpleNamespace(rows=np.array([[1], [0]]), values=np.array([[6.0], [18.0]]))
      >>> found = concepts.references(explain, units, top, x, axes=(0,), progress="none")
      >>> [(r.concept, r.row, r.box, r.spans) for r in found[0] + found[1]]
      [(0, 1, ((0, 1),), [(0, 1)]), (1, 0, ((2, 3),), [(2, 3)])]
    """
    if not (hasattr(top, "rows") and hasattr(top, "values")):
        raise TypeError(
            f"top must be a ranking such as scores.top(8), with rows and values, got {top!r}"
        )
    rows, values = np.asarray(top.rows), np.asarray(top.values)
    if rows.ndim != 2 or rows.shape != values.shape:
        raise ValueError(
            f"top must contain rows and values of shape (concepts, k), got {rows.shape} and "
            f"{values.shape}; if top is by class, select a class y first: jax.tree.map(lambda a: a[y], "
            "top)"
        )
    check_count("n", n)
    check_count("batch_size", batch_size)
    chosen = np.arange(len(rows)) if of is None else _each_of(of)
    if ((chosen < 0) | (chosen >= len(rows))).any():
        raise IndexError(f"of must be concepts in [0, {len(rows) - 1}], got {chosen.tolist()}")
    pairs = [(c, r, v) for c in chosen.tolist() for r, v in
             zip(rows[c, :n].tolist(), values[c, :n].tolist(), strict=True) if r >= 0]  # fmt: skip
    found: dict[int, list[Reference]] = {c: [] for c in chosen.tolist()}
    given = fetch if callable(fetch) else np.asarray(fetch).__getitem__
    located = Locator(locate(explainer, concepts, by=by), given, targets, tuple(args), batch_size)
    view = View(tuple(axes), blur, threshold, dim, context)
    for (concept, row, value), example, relevance in located.each(pairs, progress):
        found[concept].append(view.of(concept, row, value, example, relevance))
    return found


def _each_of(chosen: ArrayLike) -> np.ndarray:
    """Concepts as a list of integers.

    Raises:
      ValueError: if there is none.
    """
    found = np.atleast_1d(np.asarray(chosen))
    if found.ndim != 1 or not found.size or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"of must be one or more concepts (integers), got {chosen!r}")
    return found
