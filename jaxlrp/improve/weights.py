"""Pruning single weights by relevance, and the choice of a composite by how well it prunes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_mapping, check_one_of
from jaxlrp.concepts.scores import Families
from jaxlrp.explanation.explainer import Explainer, explain
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.improve.checks import position_of_parameters
from jaxlrp.improve.pruning import masks, pruning_curve
from jaxlrp.improve.unit_scores import unit_relevance
from jaxlrp.network.model import Function
from jaxlrp.targets import Target

T = TypeVar("T")


def weight_relevance(explainer: Explainer, *, reduce: str = "abs") -> Callable[..., Any]:
    """The relevance of each weight over reference samples n: what pruning ranks single weights by.

    S_ij = |sum_n R_ij(x_n)|,   R_ij = w_ij sum_p a_ip R_jp / z_jp

    Args:
      explainer: the result of `jaxlrp.explain(f, composite, argnums=..., parameters=...)`, with one
        argument of parameters and rules that say what a parameter carries, such as epsilon.
      reduce: "abs", or "signed": weights that speak against the target go first.

    Returns:
      A function `(*args, target=None)` that returns a pytree like the parameters.

    Raises:
      TypeError, ValueError: if the explainer is none, or has other than one argument of parameters.

    References:
      Hatefi et al. (2025), https://doi.org/10.48550/arXiv.2506.13727

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import improve
      >>> explain = lrp.explain(lambda w, x: x @ w, lrp.LRP0(), argnums=1, parameters=0)
      >>> score = improve.weight_relevance(explain)
      >>> score(jnp.array([[1.0], [-2.0]]), jnp.array([[1.0, 1.0], [1.0, 3.0]]), target=0).tolist()
      [[2.0], [8.0]]
    """
    check_one_of("reduce", reduce, ("abs", "signed"))
    position_of_parameters(explainer)

    def function(*args: Any, target: Target = None, **kwargs: Any) -> Any:
        found = explainer(*args, target=target, **kwargs).parameters
        return found if reduce == "signed" else jax.tree.map(jnp.abs, found)

    return function


def weight_masks(scores: T, rate: ArrayLike, *, scope: str = "global") -> T:
    """Which weights stay if the fraction `rate` of them with the lowest scores goes.

    Args:
      scores: a pytree of arrays, such as the kernels of `weight_relevance`. Leave biases out: arrays that
        are None stay as they are.
      rate: in [0, 1). It may be traced.
      scope: "global" or "layer", as in `masks`.

    Returns:
      A pytree of booleans of the same structure and shapes, True for weights that stay.

    Raises:
      ValueError: as `masks`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> improve.weight_masks({"kernel": jnp.array([[3.0, 1.0], [2.0, 4.0]])}, 0.5)["kernel"].tolist()
      [[True, False], [False, True]]
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(scores)
    named = {jax.tree_util.keystr(keys): jnp.ravel(leaf) for keys, leaf in leaves}
    kept = masks(named, rate, scope=scope)
    shaped = [
        kept[name].reshape(jnp.shape(leaf)) for name, (_, leaf) in zip(named, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, shaped)


def mask_weights(parameters: T, kept: Any) -> T:
    """Parameters with zeros where a mask is False.

    Args:
      parameters: a pytree of arrays. Not changed.
      kept: booleans, of the same structure; None for arrays that stay as they are.

    Raises:
      ValueError: if a mask has another shape than its array, or another dtype than booleans.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> params, kept = {"w": jnp.ones(2), "b": jnp.ones(1)}, {"w": jnp.array([True, False]), "b": None}
      >>> improve.mask_weights(params, kept)["w"].tolist()
      [1.0, 0.0]
    """

    def one(keys: Any, mask: Any, leaf: Array) -> Array:
        if mask is None:
            return leaf
        mask = jnp.asarray(mask)
        if mask.dtype != bool or mask.shape != jnp.shape(leaf):
            raise ValueError(
                f"kept{jax.tree_util.keystr(keys)} must be booleans of shape {jnp.shape(leaf)}, got "
                f"{mask.dtype} of shape {mask.shape}"
            )
        return jnp.where(mask, leaf, 0)

    return jax.tree_util.tree_map_with_path(one, kept, parameters, is_leaf=lambda m: m is None)


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
    parts = [slice(i * size, (i + 1) * size) for i in range(folds)]
    classes = jax.eval_shape(predict, x[:1]).shape[-1]  # pyright: ignore

    def of_fold(composite: CompositeLike) -> list[Any]:
        score = unit_relevance(explain(predict, composite), concepts)
        return [score(x[p], target=jax.nn.one_hot(y[p], classes)) for p in parts]

    scores = {name: of_fold(composite) for name, composite in candidates.items()}

    def area(name: str, test: int, without: Sequence[int]) -> float:
        used = [scores[name][i] for i in range(folds) if i != test and i not in without]
        total = jax.tree.map(lambda first, *rest: sum(rest, first), *used)
        p = parts[test]
        return float(pruning_curve(predict, total, concepts, rates, x[p], y[p], scope=scope).area)

    areas = {n: float(np.mean([area(n, i, ()) for i in range(folds)])) for n in scores}
    chosen, outer = [], []
    for i in range(folds):
        inner = {n: sum(area(n, j, (i,)) for j in range(folds) if j != i) for n in scores}
        chosen.append(max(inner, key=inner.__getitem__))
        outer.append(area(chosen[-1], i, ()))
    best = max(areas, key=areas.__getitem__)
    return CompositeSearch(areas, best, float(np.mean(outer)), tuple(chosen))
