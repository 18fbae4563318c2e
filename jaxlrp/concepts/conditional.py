"""Concept relevance propagation: explanations under conditions on concepts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.concepts.conditions import Condition, Stacked, check, stack
from jaxlrp.concepts.cut import Cut
from jaxlrp.concepts.layers import at_layers, planned
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.patterns import matching
from jaxlrp.explanation.pullback import Pullback
from jaxlrp.explanation.result import Explanation, Record
from jaxlrp.targets import Target


def conditional(
    explainer: Explainer, *, cut: bool = False, batch_size: int | None = None
) -> ConceptExplainer[Explanation]:
    r"""Explains under conditions on concepts: where a concept is, and which lower concepts it uses.

    At each conditioned layer, relevance is multiplied by the share of the selected concepts:

        R_(i<-j)(x|theta) = z_ij / z_j [j in theta_l, or l not in theta] R_j(x|theta)

    All conditions share one forward pass; each costs one backward pass. If every path crosses the layer,
    the relevance of all concepts sums to the unconditioned relevance.

    Args:
      explainer: the result of `jaxlrp.explain`. Its recorded layers are returned for each condition, with
        the relevance that arrived there, before the layer's own condition. With `start=`, relevance begins
        at that layer; `activation(condition)` is a class-agnostic target for it.
      cut: True lets relevance pass only through the conditioned layers: paths around them, such as skip
        connections, are closed. False only multiplies the relevance at the layers, so relevance that
        bypasses them remains. With `cut=True`, each condition must name layers that lie on one path.
      batch_size: conditions whose backward passes run together, >= 1; None for all of them. It bounds
        memory.

    Returns:
      A function `(*args, target=None, conditions, **kwargs) -> Explanation`. `conditions` is a sequence of
      K conditions such as `[channels[3], channels[3] & heads[0], Condition()]`. Relevance and
      records have a leading axis K, in the order of `conditions`; output and activations do not.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, and how to fix it.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
      >>> hidden = concepts.Channels("relu", axis=-1)
      >>> conditions = [hidden[0], hidden[1], concepts.Condition()]
      >>> x = jnp.array([[1.0, 2.0]])
      >>> result = concepts.conditional(explain)(x, conditions=conditions)
      >>> jnp.rint(result.relevance[:, 0]).astype(int).tolist()
      [[2, 2], [-2, 12], [0, 14]]
    """
    held = check_explainer(explainer)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    compute = functools.partial(_cut if cut else _in_place, held, batch_size)
    return ConceptExplainer(
        "conditional", held, compute, _stacked_by_layers if cut else _stacked, _check
    )


def activation(condition: Condition) -> Any:
    """A target for an explainer with `start=`: the activation of concepts of that layer.

    Relevance starts as the value of each unit of the concepts, whatever the output of the model.

    Args:
      condition: on concepts of the layer at which relevance starts, such as `channels[3]`.

    Returns:
      A function from the layer's output to relevance, for `target=`.

    Raises:
      ValueError: if the condition is on several layers.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> explain = lrp.explain(lambda x: jnp.tanh(x @ w), start="dot_general")
      >>> units = concepts.Channels("dot_general", axis=-1)
      >>> result = explain(jnp.array([[1.0, 2.0]]), target=concepts.activation(units[1]))
      >>> jnp.rint(result.relevance).astype(int).tolist()
      [[-1, 6]]
    """
    parts = stack([condition])
    if len(parts) != 1:
        raise ValueError(f"activation(condition) takes concepts of one layer, got {condition!r}")
    (part,) = parts
    values, present = part.values[0], part.present[0]

    def target(a: Array) -> Array:
        check(part, a.shape)
        return a * Stacked(part.family, values, present, part.soft).mask(a)

    return target


def _stacked(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The conditions of a call, as arrays."""
    given = _given(kwargs)
    return {"stacked": (stack(given),), "order": jnp.arange(len(given)), "counts": (len(given),)}


def _stacked_by_layers(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same, in groups of conditions on the same layers."""
    given = _given(kwargs)
    stack(given)  # checks all of them together
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, condition in enumerate(given):
        layers = tuple(sorted({family.layer for family, _ in condition.parts}))
        groups.setdefault(layers, []).append(i)
    order = [i for found in groups.values() for i in found]
    place = sorted(range(len(order)), key=order.__getitem__)
    return {
        "stacked": tuple(stack([given[i] for i in found]) for found in groups.values()),
        "order": jnp.array(place),
        "counts": tuple(map(len, groups.values())),
    }


def _given(kwargs: dict[str, Any]) -> Sequence[Condition]:
    if "conditions" not in kwargs:
        raise TypeError("conditions is missing: pass conditions=[channels[3], ...]")
    return kwargs.pop("conditions")


def _check(options: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    for parts in options["stacked"]:
        for part in parts:
            check(part, shapes[part.family.layer].shape)


def _families(stacked: Sequence[tuple[Stacked, ...]]) -> list[Concepts]:
    return [part.family for parts in stacked for part in parts]


def _layers(stacked: Sequence[tuple[Stacked, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(family.layer for family in _families(stacked)))


def _of_one(parts: tuple[Stacked, ...]) -> tuple[tuple[Array, Array], ...]:
    """What differs between K conditions, with a leading axis K."""
    return tuple((part.values, part.present) for part in parts)


def _masks(
    parts: tuple[Stacked, ...],
    condition: tuple[tuple[Array, Array], ...],
    activations: Mapping[str, Array],
) -> dict[str, Array]:
    """The masks of one condition, by layer."""
    found: dict[str, Array] = {}
    for part, (values, present) in zip(parts, condition, strict=True):
        layer = part.family.layer
        mask = dataclasses.replace(part, values=values, present=present).mask(activations[layer])
        found[layer] = found[layer] * mask if layer in found else mask
    return found


def _in_place(
    explainer: Explainer, batch_size: int | None, args: tuple, kwargs: dict, target: Target,
    *, stacked: Any, order: Array, counts: tuple[int, ...],
) -> tuple[Explanation, Shapes]:  # fmt: skip
    (parts,), (count,) = stacked, counts
    layers = _layers(stacked)
    planned(explainer, args, kwargs, _families(stacked), once=False)
    pullback = explainer.replace(record=(*explainer.record, *layers)).vjp(
        *args, condition=layers, fun_kwargs=kwargs
    )
    activations = at_layers(pullback, layers)
    _check({"stacked": stacked}, activations)
    kept = _kept(explainer, pullback)

    def one(condition: Any) -> tuple[Any, dict[str, Array]]:
        masks = _masks(parts, condition, activations)
        result = pullback(target=target, condition=masks)
        return result.relevance, {path: result.records[path].relevance for path in kept}

    relevance, records = over(one, _of_one(parts), count, batch_size)
    return _explanation(pullback, relevance, records), (pullback.output, activations)


def _cut(
    explainer: Explainer, batch_size: int | None, args: tuple, kwargs: dict, target: Target,
    *, stacked: Any, order: Array, counts: tuple[int, ...],
) -> tuple[Explanation, Shapes]:  # fmt: skip
    plan = planned(explainer, args, kwargs, _families(stacked), once=False)
    record = (*explainer.record, *_layers(stacked))
    pullback = explainer.replace(record=record).vjp(*args, fun_kwargs=kwargs)
    activations = at_layers(pullback, _layers(stacked))
    _check({"stacked": stacked}, activations)
    stages = {
        layer: explainer.replace(record=record, start=layer).vjp(*args, fun_kwargs=kwargs)
        for layer in activations
    }
    cut = Cut(plan, activations, pullback(target=target), stages)
    kept = _kept(explainer, pullback)

    def of(parts: tuple[Stacked, ...], count: int) -> Any:
        def one(condition: Any) -> tuple[Any, dict[str, Array]]:
            return cut.send(_masks(parts, condition, activations), kept)

        return over(one, _of_one(parts), count, batch_size)

    groups = [of(parts, count) for parts, count in zip(stacked, counts, strict=True)]
    relevance, records = jax.tree.map(lambda *found: jnp.concatenate(found)[order], *groups)
    return _explanation(pullback, relevance, records), (pullback.output, activations)


def over(one: Any, items: Any, count: int, batch_size: int | None) -> Any:
    """`one` of each of `count` items, at most `batch_size` of them together."""
    if not jax.tree.leaves(items):
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), one(items))
    if batch_size is None or batch_size >= count:
        return jax.vmap(one)(items)
    return lax.map(one, items, batch_size=batch_size)


def _kept(explainer: Explainer, pullback: Pullback) -> list[str]:
    """The layers that the user records, of those that are recorded."""
    wanted = {p for pattern in explainer.record for p in matching(pattern, pullback.activations)}
    return [path for path in pullback.activations if path in wanted]


def _explanation(pullback: Pullback, relevance: Any, records: Mapping[str, Array]) -> Explanation:
    return Explanation(
        output=pullback.output,
        relevance=relevance,
        aux=pullback.aux,
        records={p: Record(r, pullback.activations[p]) for p, r in records.items()},
    )
