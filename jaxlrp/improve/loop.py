"""Reveal to revise: from samples with an artifact to a corrected model and a report before and after."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count, check_mapping
from jaxlrp._described import described
from jaxlrp.explanation.explainer import explain
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.improve.cavs import pattern_cav

Predict = Callable[[Array], Array]
COLUMNS = (
    "clean", "with artifact", "turned into the class", "lost without it", "relevance in the region",
    "seconds",
)  # fmt: skip
"""What `assess` measures, and the time that a way took."""


@described
@dataclasses.dataclass(frozen=True)
class Artifact:
    """Where an artifact is, in the input and in a hidden layer.

    Attributes:
      target: the class that it stands for.
      layer: the path of the layer.
      region: booleans of the shape of one input, where its relevance is.
      direction: v, of the shape of the layer without the batch (`pattern_cav`).
      reference: z, the mean of the layer over samples without it.
      swapped: whether the artifact was found in the second group of samples.
    """

    target: int
    layer: str
    region: Array
    direction: Array
    reference: Array
    swapped: bool


def locate(
    predict: Predict, some: ArrayLike, others: ArrayLike, *, target: int, layer: str,
    composite: CompositeLike | None = None, threshold: float = 0.1, batch_size: int = 250,
) -> Artifact:  # fmt: skip
    """An artifact from two groups of samples of a class, one of which has it, such as SpRAy's clusters.

    The group whose mean relevance exceeds that of the other more, in some place, has it. The region is
    where it does so by more than `threshold` of the maximum.

    Args:
      predict: from samples to scores of classes.
      some, others: (n, ...), samples of the two groups.
      target: the class.
      layer: path of the layer for the direction.
      composite: as in `jaxlrp.explain`.
      threshold: in (0, 1).
      batch_size: samples that are explained together.

    Raises:
      ValueError: if a group is empty or of other shapes, the threshold is out of range, or both groups have
        the same mean relevance.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold!r}")
    groups = [jnp.asarray(some), jnp.asarray(others)]
    if not all(map(len, groups)) or groups[0].shape[1:] != groups[1].shape[1:]:
        raise ValueError(
            f"some and others must have samples of one shape, got shapes {groups[0].shape} and "
            f"{groups[1].shape}"
        )
    run = jax.jit(explain(predict, composite, record=layer))
    found = [_explained(run, x, target, layer, batch_size) for x in groups]
    apart = found[0][0].mean(axis=0) - found[1][0].mean(axis=0)
    swapped = bool(apart.max() < -apart.min())
    if swapped:
        apart, found = -apart, found[::-1]
    if not apart.max() > 0:
        raise ValueError("some and others have the same mean relevance: nothing sets them apart")
    values = [values for _, values in found]
    has_it = np.repeat([1, 0], [len(v) for v in values])
    direction = pattern_cav(np.concatenate(values), has_it)
    reference = jnp.asarray(values[1].mean(axis=0))
    region = jnp.asarray(apart > threshold * apart.max())
    return Artifact(int(target), layer, region, direction, reference, swapped)


def assess(
    predict: Predict, x: ArrayLike, y: ArrayLike, *, target: int, add: Callable[[Any], Any],
    region: ArrayLike, composite: CompositeLike | None = None, batch_size: int = 250, explained: int = 200,
) -> dict[str, float]:  # fmt: skip
    """What an artifact does to a model, on samples without it.

    - "clean": accuracy.
    - "with artifact": accuracy with the artifact on all samples.
    - "turned into the class": how much more samples of other classes are assigned to `target` with it.
    - "lost without it": of the class `target`, accuracy with it minus accuracy without.
    - "relevance in the region": share of |relevance| for `target` in the region, of samples of the class
      with it.

    Args:
      predict: from samples to scores of classes.
      x: (n, ...), samples without the artifact.
      y: (n,), their classes.
      target: the class that the artifact stands for.
      add: from samples to the same samples with the artifact.
      region: where it is, booleans that broadcast to one sample.
      composite: as in `jaxlrp.explain`.
      batch_size: samples that are evaluated together.
      explained: samples of the class that are explained, at most.

    Raises:
      ValueError: if shapes do not fit, or no sample, or every sample, is of the class.
    """
    x, y = np.asarray(x), np.asarray(y)
    if not len(x) or y.shape != x.shape[:1]:
        raise ValueError(
            f"x must be (n, ...) and y a class for each sample, got shapes {x.shape} and {y.shape}"
        )
    own, marked = y == target, np.asarray(add(x))
    if marked.shape != x.shape:
        raise ValueError(f"add must return the shape of its samples, {x.shape}, got {marked.shape}")
    if not own.any() or own.all():
        raise ValueError(f"y must have samples of class {target} and of others")
    inside = np.broadcast_to(np.asarray(region), x.shape[1:])
    run = jax.jit(predict)
    clean, attacked = (_classes(run, values, batch_size) for values in (x, marked))
    relevance = jax.jit(explain(predict, composite))
    shares = []
    seen = marked[own][:explained]
    for start in range(0, len(seen), batch_size):
        part = np.asarray(seen[start : start + batch_size])
        size = np.abs(relevance(part, target=target).relevance)
        shares.append((size[:, inside].sum(), size.sum()))
    hit, total = np.sum(shares, axis=0)
    return {
        "clean": float((clean == y).mean()),
        "with artifact": float((attacked == y).mean()),
        "turned into the class": float((attacked == target)[~own].mean() - (clean == target)[~own].mean()),
        "lost without it": float((attacked == y)[own].mean() - (clean == y)[own].mean()),
        "relevance in the region": float(hit / total) if total > 0 else 0.0,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Revision:
    """The report of `reveal_to_revise`. Printed as a Markdown table.

    Attributes:
      artifact: what was located.
      rows: by way, "nothing" first: the numbers of `assess`, and "seconds".
      models: by way, the function.
      errors: by way, what went wrong; its row is missing, all others are there.
    """

    artifact: Artifact
    rows: dict[str, dict[str, float]]
    models: dict[str, Predict]
    errors: dict[str, Exception]

    def __str__(self) -> str:
        lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for way, row in self.rows.items():
            cells = [f"{row[c]:.0f}" if c == "seconds" else f"{row[c]:.3f}" for c in COLUMNS]
            lines.append(f"| {way} | " + " | ".join(cells) + " |")
        lines += [f"| {way} | failed: {error} |" for way, error in self.errors.items()]
        return "\n".join(lines)

    def helped(self, max_cost: float = 0.02) -> list[str]:
        """The ways that at least halve the harm of the artifact, at this cost of clean accuracy."""
        before = self.rows["nothing"]
        harm = before["clean"] - before["with artifact"]
        return [
            way
            for way, row in self.rows.items()
            if before["clean"] - row["with artifact"] <= harm / 2
            and before["clean"] - row["clean"] <= max_cost
        ]


def reveal_to_revise(
    predict: Predict, artifact: Artifact, ways: Mapping[str, Callable[[Artifact], Predict]],
    x: ArrayLike, y: ArrayLike, add: Callable[[Any], Any], *, region: ArrayLike | None = None,
    composite: CompositeLike | None = None, batch_size: int = 250,
) -> Revision:  # fmt: skip
    """Revises a model in several ways and measures each: reveal, locate, revise, evaluate.

    Reveal the artifact first (`jaxlrp.spray`, `jaxlrp.concepts`), and `locate` it. To go around the loop
    again, locate the next artifact with the best of `models` as `predict`.

    Args:
      predict: from samples to scores of classes.
      artifact: what `locate` found, or your own `Artifact`.
      ways: by name, functions of the artifact that return the revised function: a projection, or training.
      x, y: test samples without the artifact, and their classes, for `assess`.
      add: from samples to the same samples with the artifact.
      region: where the artifact is, to evaluate; by default the region that was located.
      composite, batch_size: as in `assess`.

    Returns:
      A `Revision`, with the row "nothing" for the model as it was. A way that raises is reported in
      `errors`; nothing else is lost.

    Raises:
      TypeError, ValueError: as `assess`, for the model as it was; if `ways` is no dictionary of
        functions, or has the name "nothing".

    References:
      Pahde et al. (2023), "Reveal to Revise", https://doi.org/10.1007/978-3-031-43895-0_56

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import improve
      >>> w = jnp.array([[2.0, -2.0], [0.0, 4.0]])  # the second input is the artifact of class 1
      >>> f = lambda x: jnp.tanh(x) @ w
      >>> x, y = jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([0, 1])
      >>> add = lambda x: jnp.asarray(x) + jnp.array([0.0, 2.0])
      >>> artifact = improve.locate(f, add(x[1:]), x[1:], target=1, layer="tanh")
      >>> def without(a):
      ...     return lrp.edit(f, {a.layer: improve.project(a.direction, a.reference)})
      >>> report = improve.reveal_to_revise(f, artifact, {"projection": without}, x, y, add)
      >>> report.rows["nothing"]["with artifact"], report.rows["projection"]["with artifact"]
      (0.5, 1.0)
    """
    check_mapping("ways", ways, '{"projection": function}')
    check_count("batch_size", batch_size)
    for name, way in ways.items():
        if not callable(way) or name == "nothing":
            raise TypeError(
                f"ways[{name!r}] must be a function of the artifact under another name than 'nothing', got "
                f"{way!r}"
            )
    where = artifact.region if region is None else region

    def measured(function: Predict, seconds: float) -> dict[str, float]:
        found = assess(
            function, x, y, target=artifact.target, add=add, region=where, composite=composite,
            batch_size=batch_size,
        )  # fmt: skip
        return found | {"seconds": seconds}

    rows, models = {"nothing": measured(predict, 0.0)}, {"nothing": predict}
    errors: dict[str, Exception] = {}
    for name, way in ways.items():
        begun = time.perf_counter()
        try:
            models[name] = way(artifact)
            rows[name] = measured(models[name], time.perf_counter() - begun)
        except Exception as error:  # reported: what other ways have trained is not lost
            errors[name] = error
    return Revision(artifact, rows, models, errors)


def _explained(
    run: Callable[..., Any], x: Array, target: int, layer: str, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(relevance, values of the layer) of all samples."""
    parts = [run(x[i : i + batch_size], target=target) for i in range(0, len(x), batch_size)]
    return (
        np.concatenate([np.asarray(p.relevance) for p in parts]),
        np.concatenate([np.asarray(p.records[layer].activation) for p in parts]),
    )


def _classes(run: Predict, x: np.ndarray, batch_size: int) -> np.ndarray:
    parts = [run(jnp.asarray(x[i : i + batch_size])) for i in range(0, len(x), batch_size)]
    return np.concatenate([np.asarray(p) for p in parts]).argmax(axis=-1)
