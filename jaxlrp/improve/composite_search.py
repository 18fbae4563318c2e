"""The choice of a composite by how well its relevance prunes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_mapping, is_number
from jaxlrp.composites import Composite
from jaxlrp.composites.given import as_composite
from jaxlrp.concepts.scores import Families
from jaxlrp.explanation.compiled import Programs
from jaxlrp.explanation.explainer import explain
from jaxlrp.explanation.plan import CompositeLike, Plan
from jaxlrp.improve.pruning import (
    PruningCurve,
    accuracies,
    checked_rates,
    checked_scores,
    hits_program,
)
from jaxlrp.improve.unit_scores import UnitScores, unit_relevance
from jaxlrp.network.model import Function


@dataclasses.dataclass(frozen=True)
class CompositeSearch:
    """Which composite prunes best.

    Attributes:
      areas: by name of the candidate, the area under its curve, averaged over folds.
      best: the name of the candidate with the largest area.
      held_out: the area that the choice reached on folds that it was not made on, averaged:
        `areas[best]` is the best of several numbers, and too high for that reason.
      chosen: the name that was chosen without each fold.
    """

    areas: dict[str, float]
    best: str
    held_out: float
    chosen: tuple[str, ...]


def search_composite(
    predict: Function,
    candidates: Mapping[str, CompositeLike],
    concepts: Families,
    rates: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    folds: int = 3,
    scope: str = "global",
) -> CompositeSearch:
    """Compares composites by the accuracy that is left when units are pruned by their relevance.

    Reference samples are split into folds. Scores come from some folds, the curve from another one. For
    each outer fold a candidate is chosen on the others alone, and its curve on the outer fold counts: a
    nested split.

    Args:
      predict: from samples to scores of classes, (batch, classes).
      candidates: composites by name, as `jaxlrp.explain` takes them.
      concepts, rates, scope: as in `pruning_curve`.
      x: (samples, ...), reference samples in random order.
      y: (samples,), their classes.
      folds: 3 or more; the first samples that fill all folds are used.

    Candidates that differ in hyperparameters alone, such as the gamma of a rule, share one program.

    Returns:
      A `CompositeSearch`.

    Raises:
      TypeError, ValueError: naming the argument that is wrong.

    References:
      Hatefi et al. (2024), https://doi.org/10.48550/arXiv.2408.12568, who search with all reference samples

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import concepts, improve
      >>> x = jax.random.normal(jax.random.key(0), (12, 4))
      >>> found = improve.search_composite(
      ...     lambda x: jax.nn.relu(x), {"epsilon": "all_epsilon", "z+": "epsilon_plus"},
      ...     concepts.Channels("relu", axis=-1), [0.0, 0.5], x, x.argmax(-1),
      ... )
      >>> sorted(found.areas)
      ['epsilon', 'z+']
    """
    check_mapping("candidates", candidates, '{"epsilon": "all_epsilon"}')
    if not candidates:
        raise ValueError("candidates must have at least one composite, got none")
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 3:
        raise ValueError(f"folds must be an integer >= 3, got {folds!r}")
    x, y = jnp.asarray(x), jnp.asarray(y)
    size = len(x) // folds
    if y.shape != x.shape[:1] or not size:
        raise ValueError(
            f"x must be (samples, ...) with at least folds={folds} samples, and y a class for each, got "
            f"shapes {x.shape} and {y.shape}"
        )
    rates = checked_rates(rates)
    parts = [(x[i * size : (i + 1) * size], y[i * size : (i + 1) * size]) for i in range(folds)]
    classes = jax.eval_shape(predict, x[:1]).shape[-1]  # pyright: ignore
    programs = Programs(len(candidates))

    def summed(given: tuple[Any, Array, Array]) -> tuple[UnitScores, Any]:
        composite, x, y = given
        score = unit_relevance(explain(predict, composite), concepts)
        return score(x, target=jax.nn.one_hot(y, classes)), ()

    scores = {
        name: [programs.run("scores", summed, (composite, *p), lambda _: None) for p in parts]
        for name, composite in _shared(candidates).items()
    }
    hits = hits_program(predict, concepts, scope)

    @functools.cache
    def area(name: str, test: int, without: int | None = None) -> float:
        used = [scores[name][i] for i in range(folds) if i not in (test, without)]
        total = checked_scores(jax.tree.map(lambda first, *rest: sum(rest, first), *used))
        found = accuracies(hits, total, rates, *parts[test], size)
        return float(PruningCurve(rates, found).area)

    areas = {n: float(np.mean([area(n, i) for i in range(folds)])) for n in scores}
    chosen, outer = [], []
    for i in range(folds):
        inner = {n: sum(area(n, j, i) for j in range(folds) if j != i) for n in scores}
        chosen.append(max(inner, key=inner.__getitem__))
        outer.append(area(chosen[-1], i))
    best = max(areas, key=areas.__getitem__)
    return CompositeSearch(areas, best, float(np.mean(outer)), tuple(chosen))


def _shared(candidates: Mapping[str, CompositeLike]) -> dict[str, Composite | Plan]:
    """The candidates, with arrays in place of the numbers in which those of one structure differ.

    `Programs` traces arrays and keeps numbers static. A rule may look at a number, so those that are
    equal stay as they are.
    """
    given = {
        name: c if isinstance(c, Plan) else _unnamed(as_composite(c))
        for name, c in candidates.items()
    }
    flat = {name: jax.tree.flatten(composite) for name, composite in given.items()}
    result: dict[str, Composite | Plan] = {}
    for name, (leaves, tree) in flat.items():
        alike = [other for other, structure in flat.values() if structure == tree]
        columns = zip(*alike, strict=True)
        shared = [
            jnp.asarray(float(leaf)) if _differ(column) else leaf
            for leaf, column in zip(leaves, columns, strict=True)
        ]
        result[name] = jax.tree.unflatten(tree, shared)
    return result


def _differ(column: Sequence[Any]) -> bool:
    return all(map(is_number, column)) and any(value != column[0] for value in column)


def _unnamed(composite: Any) -> Any:
    """A composite without names, which may tell its hyperparameters."""
    if not isinstance(composite, Composite):
        return composite
    entries = (dataclasses.replace(e, then=_unnamed(e.then)) for e in composite.entries)
    return dataclasses.replace(composite, entries=tuple(entries), name="")
