"""How much each unit of a network matters over reference samples: what pruning ranks units by.

Every function here ends in the same thing: a dictionary from names of layers to (units,) numbers, where a
small number means that the unit can go.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_mapping, check_one_of
from jaxlrp.composites.presets import gradient
from jaxlrp.concepts.layers import planned, recorded
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, no_check, no_options
from jaxlrp.concepts.scores import Families, by_name
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer, explain
from jaxlrp.network.model import Function
from jaxlrp.numerics import to_gradient_form, widen
from jaxlrp.targets import Target

UnitScores = dict[str, Array]
"""(units,) numbers of each layer, by the name of its family of concepts."""

_REDUCE = ("abs_of_sum", "sum_of_abs", "signed")


def unit_relevance(
    explainer: Explainer, concepts: Families, *, reduce: str = "abs_of_sum"
) -> Callable[..., UnitScores]:
    """The relevance of each unit, summed over positions p (pixels, tokens) and reference samples n.

    - `"abs_of_sum"`: `U_k = sum_n |sum_p R_kp(x_n)|`.
    - `"sum_of_abs"`: `U_k = sum_(n, p) |R_kp(x_n)|`.
    - `"signed"`: `U_k = sum_(n, p) R_kp(x_n)`: units that speak against the target go first.

    A call takes one forward and one backward pass. Scores of batches add up to those of the data set.

    Args:
      explainer: the result of `jaxlrp.explain`, with any composite.
      concepts: what a unit is: channels, heads, neurons of a layer; several layers as a list or a
        dictionary by name.
      reduce: see above.

    Returns:
      A function `(*args, target=None, fun_kwargs=None)` that returns the scores, a dictionary by
      name or layer of (units,) numbers. `target=jax.nn.one_hot(labels, n)` begins with relevance one at
      each label, a class index with the value of its logit.

    Raises:
      TypeError, ValueError: naming the argument that is wrong, and how to fix it.

    References:
      Yeom et al. (2021), https://doi.org/10.1016/j.patcog.2021.107899 ("sum_of_abs");
      Hatefi et al. (2024), https://doi.org/10.48550/arXiv.2408.12568 ("abs_of_sum")

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts, improve
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
      >>> units = concepts.Channels("relu", axis=-1)
      >>> found = improve.unit_relevance(explain, units)(jnp.array([[1.0, 2.0], [1.0, 0.0]]))
      >>> jnp.rint(found["relu"]).astype(int).tolist()
      [6, 10]
    """
    check_one_of("reduce", reduce, _REDUCE)
    return _scores("unit_relevance", check_explainer(explainer), concepts, _relevance, reduce)


def unit_taylor(
    loss: Function, concepts: Families, *, argnums: int | None = None
) -> Callable[..., UnitScores]:
    """First-order Taylor scores: how much the loss would change without the unit.

    U_k = sum_n |sum_p a_kp dL(x_n)/da_kp|,   positions p, samples n

    Args:
      loss: the function of the model and the data that returns a loss for each sample, (batch,).
      concepts: what a unit is, as in `unit_relevance`.
      argnums: the position of the input, as in `jaxlrp.explain`.

    Returns:
      A function of the arguments of `loss` that returns the scores, as that of `unit_relevance`.

    References:
      Molchanov et al. (2017), https://doi.org/10.48550/arXiv.1611.06440

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import concepts, improve
      >>> v = jnp.array([1.0, -2.0])
      >>> loss = lambda x: jnp.square(jax.nn.relu(x) @ v)
      >>> units = concepts.Channels("relu", axis=-1)
      >>> improve.unit_taylor(loss, units)(jnp.array([[3.0, 1.0]]))["relu"].tolist()
      [6.0, 4.0]
    """
    return _scores("unit_taylor", _of_loss(loss, argnums), concepts, _relevance)


def unit_gradient(
    loss: Function, concepts: Families, *, argnums: int | None = None
) -> Callable[..., UnitScores]:
    """Gradient scores: `U_k = sum_n |sum_p dL(x_n)/da_kp|`, positions p, samples n.

    Args:
      loss, concepts, argnums: as in `unit_taylor`.

    Returns:
      A function of the arguments of `loss` that returns the scores, as that of `unit_relevance`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import concepts, improve
      >>> v = jnp.array([1.0, -2.0])
      >>> loss = lambda x: jnp.square(jax.nn.relu(x) @ v)
      >>> units = concepts.Channels("relu", axis=-1)
      >>> improve.unit_gradient(loss, units)(jnp.array([[3.0, 1.0]]))["relu"].tolist()
      [2.0, 4.0]
    """
    return _scores("unit_gradient", _of_loss(loss, argnums), concepts, to_gradient_form)


def unit_magnitude(kernels: Mapping[str, ArrayLike], *, axis: int = -1) -> UnitScores:
    """Scores by weight: `U_k = sum_i |w_ik|`, the sum of a unit's weights in magnitude.

    Args:
      kernels: the kernel that each layer's units come from, by the name of its family of concepts.
      axis: of the units in the kernels; the last one in Flax.

    Returns:
      The scores, as those of `unit_relevance`.

    Raises:
      TypeError, ValueError: if `kernels` is no dictionary, or there is no such axis.

    References:
      Li et al. (2017), https://doi.org/10.48550/arXiv.1608.08710

    Example:
      >>> from jaxlrp import improve
      >>> improve.unit_magnitude({"relu": [[1.0, -3.0], [1.0, 0.5]]})["relu"].tolist()
      [2.0, 3.5]
    """
    check_mapping("kernels", kernels, '{"relu": params["conv"]["kernel"]}')
    found = {}
    for name, kernel in kernels.items():
        w = jnp.abs(jnp.asarray(kernel))
        if not -w.ndim <= axis < w.ndim:
            raise ValueError(
                f"axis must be one of the {w.ndim} axes of kernels[{name!r}], got {axis!r}"
            )
        found[name] = widen(w).sum(axis=[i for i in range(w.ndim) if i != axis % w.ndim])
    return found


def unit_random(key: Array, like: Mapping[str, ArrayLike]) -> UnitScores:
    """Random scores, the control of any other: uniform in [0, 1).

    Args:
      key: of `jax.random`.
      like: other scores, whose layers and numbers of units these have.

    Returns:
      The scores, as those of `unit_relevance`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> improve.unit_random(jax.random.key(0), {"relu": jnp.ones(3)})["relu"].shape
      (3,)
    """
    check_mapping("like", like, '{"relu": scores}')
    keys = jax.random.split(key, max(len(like), 1))
    return {
        name: jax.random.uniform(k, jnp.shape(like[name]), float)
        for k, name in zip(keys, sorted(like), strict=False)
    }


def _of_loss(loss: Function, argnums: int | None) -> Explainer:
    """Plain derivatives of a loss, read out as activation times gradient."""
    composite = dataclasses.replace(gradient(), readout="relevance")
    return explain(loss, composite, argnums=argnums)


def _scores(
    name: str, explainer: Explainer, concepts: Families,
    read: Callable[[Array, Array], Array], reduce: str = "abs_of_sum",
) -> ConceptExplainer[UnitScores]:  # fmt: skip
    compute = functools.partial(_scored, explainer, by_name(concepts), read, reduce)
    return ConceptExplainer(name, explainer, compute, no_options, no_check)


def _scored(
    explainer: Explainer, families: Mapping[str, Concepts],
    read: Callable[[Array, Array], Array], reduce: str,
    args: tuple, kwargs: dict, target: Target,
) -> tuple[UnitScores, Shapes]:  # fmt: skip
    planned(explainer, args, kwargs, families.values())
    layers = tuple(family.layer for family in families.values())
    pullback, activations = recorded(explainer, layers, args, kwargs)
    records = pullback(target=target).records
    found = {
        name: _reduced(
            family,
            activations[family.layer],
            read(activations[family.layer], records[family.layer].relevance),
            reduce,
        )
        for name, family in families.items()
    }
    return found, (pullback.output, activations)


def _relevance(a: Array, relevance: Array) -> Array:
    return relevance


def _reduced(family: Concepts, a: Array, values: Array, reduce: str) -> Array:
    family.count(a.shape)
    values = widen(family.collect(a, values))  # (batch, *positions, units)
    ahead = 0 if family.batch is None else 1
    if reduce == "sum_of_abs":
        values = jnp.abs(values)
    values = values.sum(axis=tuple(range(ahead, values.ndim - 1)))
    if reduce == "abs_of_sum":
        values = jnp.abs(values)
    return values.sum(axis=tuple(range(ahead)))
