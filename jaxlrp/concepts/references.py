"""Reference samples: what a concept looks like, cropped to where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.concepts.locate import locate
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer

Box = tuple[tuple[int, int], ...]
"""(start, stop) along each axis of positions, without the position `stop`."""


class Ranked(Protocol):
    """Top samples of each concept: rows (concepts, k) of a data set, -1 where there is none, and values."""

    @property
    def rows(self) -> Any: ...
    @property
    def values(self) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """One sample that shows a concept. Arrays of NumPy.

    "Positions" are the axes of an example along which a concept is located: height and width, tokens, time.

    Attributes:
      concept: its index.
      row: of the sample in the data set.
      value: by which it was ranked.
      example: the input, without the axis of the batch.
      relevance: of the positions, under the condition on the concept; summed over other axes.
      heat: the same, blurred; what the crop and the mask come from.
      axes: the axes of positions in `example`.
      box: (start, stop) along each of them: where `heat` exceeds the threshold.
      mask: of the positions, False where the sample is to be dimmed.
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

    Every sample is located by its own conditional pass (`locate`); samples of all concepts share batches of
    one size, and thus one compiled program.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: the concepts of a layer.
      top: the top samples of each concept, such as a `TopK`: `rows` and `values` of shape (concepts, k). Of
        one that is divided by class, choose a class first.
      fetch: from rows, an array of integers, to the batch of their inputs; or the inputs themselves,
        (samples, *shape). Rows are those of the scores, `open_scores(...).ids`: where samples failed, they
        are not rows of the data set. A tuple gives several arguments of the model, each with an axis of
        the batch.
      axes: the axes of one example, without the batch, along which concepts are located: (0, 1) for
        images (height, width, channels), (0,) for tokens and signals. Relevance is summed over the others.
      by: as in `locate`; by the same word samples are ranked in `TopK`.
      of: the concepts, integers; None for all.
      targets: (samples,), for `by="relevance"` and "relevance_max": the class of each row of the scores;
        None where the model has one output.
      n: samples of each concept, at most; >= 1.
      args: the positional arguments of the explainer that come before what `fetch` returns, such as
        `(variables,)`.
      batch_size: samples that are located together, >= 1.
      blur: standard deviation of the Gaussian that smooths a map, in lengths of each axis; 0 for none.
      threshold: the box holds all positions above this share of the largest value; see `crop_box`.
      dim: positions below this share of it are dimmed.
      context: positions that are added on each side of the box.
      progress: "bar", "log", "none" or "auto", as in `attribute_dataset`.

    Returns:
      Concepts, in the order of `of`, to their references, the top sample first. A concept without samples
      has an empty list.

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
    rows, values = np.asarray(top.rows), np.asarray(top.values)
    if rows.ndim != 2 or rows.shape != values.shape:
        raise ValueError(
            f"top must hold rows and values of shape (concepts, k), got {rows.shape} and {values.shape}; "
            "of one by class choose a class first: jax.tree.map(lambda a: a[y], top)"
        )
    check_count("n", n)
    check_count("batch_size", batch_size)
    chosen = np.arange(len(rows)) if of is None else _each_of(of)
    if ((chosen < 0) | (chosen >= len(rows))).any():
        raise IndexError(f"of must name concepts 0 to {len(rows) - 1}, got {chosen.tolist()}")
    pairs = [(c, r, v) for c in chosen.tolist() for r, v in
             zip(rows[c, :n].tolist(), values[c, :n].tolist(), strict=True) if r >= 0]  # fmt: skip
    found: dict[int, list[Reference]] = {c: [] for c in chosen.tolist()}
    given = fetch if callable(fetch) else np.asarray(fetch).__getitem__
    explain = locate(explainer, concepts, by=by)
    batches = _located(explain, pairs, given, targets, tuple(args), batch_size, progress)
    for (concept, row, value), example, relevance in batches:
        places, summed = _positions(example, relevance, axes)
        heat = smooth(summed, blur)
        box = crop_box(heat, threshold=threshold, context=context)
        mask = above(heat, dim)
        found[concept].append(
            Reference(concept, row, value, example, summed, heat, places, box, mask)
        )
    return found


def _each_of(chosen: ArrayLike) -> np.ndarray:
    """Concepts as a list of integers.

    Raises:
      ValueError: if there is none.
    """
    found = np.atleast_1d(np.asarray(chosen))
    if found.ndim != 1 or not found.size or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"of must be concepts, integers, at least one, got {chosen!r}")
    return found


def _located(
    explain: Callable[..., Any], pairs: list[tuple[int, int, float]], fetch: Callable[..., Any],
    targets: ArrayLike | None, args: tuple, batch_size: int, progress: str,
) -> Iterable[tuple[tuple[int, int, float], np.ndarray, np.ndarray]]:  # fmt: skip
    """Each pair of concept and sample, the example, and its relevance."""
    from jaxlrp.dataset.progress import Progress

    shown = Progress(progress, len(pairs))
    try:
        for begin in range(0, len(pairs), batch_size):
            now = pairs[begin : begin + batch_size]
            whole = now + now[-1:] * (batch_size - len(now))  # one shape, one program
            rows = np.array([row for _, row, _ in whole])
            fetched = fetch(rows)
            inputs = fetched if isinstance(fetched, tuple) else (fetched,)
            if any(len(a) != len(rows) for a in inputs):
                raise ValueError(
                    f"fetch must return one input for each of {len(rows)} rows, got {len(inputs[0])}"
                )
            target = None if targets is None else np.asarray(targets)[rows]
            of = np.array([concept for concept, _, _ in whole])
            relevance = np.asarray(explain(*args, *inputs, target=target, concepts=of))
            example = np.asarray(_explained(explain, args, inputs))
            yield from zip(now, example, relevance, strict=False)
            shown.advance(len(now))
    finally:
        shown.close()


def _explained(explain: Any, args: tuple, inputs: tuple) -> Any:
    """The explained argument."""
    return (*args, *inputs)[explain.model.argnums[0]]


def _positions(
    example: np.ndarray, relevance: np.ndarray, axes: Sequence[int]
) -> tuple[tuple[int, ...], np.ndarray]:
    """The axes of positions, and relevance summed over all others."""
    ndim = relevance.ndim
    kept = tuple(axis % ndim for axis in axes if -ndim <= axis < ndim)
    if len(set(kept)) != len(axes) or not kept or list(kept) != sorted(kept):
        raise ValueError(
            f"axes={tuple(axes)} must name distinct axes of one example, in order; it has shape "
            f"{example.shape}"
        )
    rest = tuple(i for i in range(ndim) if i not in kept)
    return kept, relevance.astype(np.float64).sum(axis=rest)


def smooth(relevance: np.ndarray, blur: float) -> np.ndarray:
    """A map, blurred by a Gaussian; relevance is zero beyond its border.

    Args:
      relevance: any number of axes.
      blur: standard deviation in lengths of each axis, >= 0; 0 for none.

    Raises:
      ValueError: if `blur` is negative.
    """
    if not blur >= 0:
        raise ValueError(f"blur must be >= 0, got {blur}")
    if blur == 0:
        return np.asarray(relevance)
    from scipy.ndimage import gaussian_filter

    sigma = [blur * length for length in np.shape(relevance)]
    return gaussian_filter(np.asarray(relevance, np.float64), sigma, mode="constant")


def above(heat: np.ndarray, share: float) -> np.ndarray:
    """Where a map exceeds a share of its largest value; nowhere if no value is positive.

    Raises:
      ValueError: if `share` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"threshold and dim must be in [0, 1), got {share}")
    largest = heat.max()
    return heat > share * largest if largest > 0 else np.zeros(heat.shape, bool)


def crop_box(heat: np.ndarray, *, threshold: float = 0.1, context: int = 0) -> Box:
    """The smallest box with all positions where a map exceeds a share of its largest value.

    Args:
      heat: a map of any number of axes.
      threshold: the share, in [0, 1).
      context: positions to add on each side, >= 0.

    Returns:
      (start, stop) along each axis; the last position above the threshold is inside. The whole map if no
      value is positive.

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> concepts.crop_box(np.array([0.0, 1.0, 0.0, 0.5, 0.05]))
      ((1, 4),)
    """
    if context < 0:
        raise ValueError(f"context must be >= 0, got {context}")
    places = np.argwhere(above(heat, threshold))
    if not len(places):
        return tuple((0, length) for length in heat.shape)
    first = np.maximum(places.min(axis=0) - context, 0)
    last = np.minimum(places.max(axis=0) + 1 + context, heat.shape)
    return tuple((int(a), int(b)) for a, b in zip(first, last, strict=True))


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of each run of True.

    Raises:
      ValueError: if the mask has several axes.
    """
    if mask.ndim != 1:
        raise ValueError(
            f"spans are of tokens and signals, with one axis of positions, got {mask.ndim}"
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
