"""The layers that hold concepts: what is checked of them before and after the forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType

from jax import Array

from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.patterns import matching, one
from jaxlrp.explanation.plan import Plan, Row
from jaxlrp.explanation.pullback import Pullback


def planned(
    explainer: Explainer,
    args: tuple,
    kwargs: dict,
    families: Iterable[Concepts],
    *,
    once: bool = True,
    reached: bool = True,
) -> Plan:
    """The plan of a call, in which the layers of these concepts are checked.

    Args:
      explainer, args, kwargs: of the call.
      families: concepts of layers of the plan. Those of other layers are not looked at.
      once: whether relevance must pass each layer once.
      reached: whether the relevance of the explainer must reach each layer.

    Raises:
      ValueError: naming the layer that does not fit, or the axis of examples that must be given.
    """
    plan = explainer.plan(*args, fun_kwargs=kwargs)
    rows = {row.path: row for row in plan.rows}
    known = [family for family in families if family.layer in rows]
    if reached and explainer.start is not None:
        _check_reached(plan, one(f"start={explainer.start!r}", explainer.start, plan.paths), known)
    for family in known:
        if once:
            check_passed_once(plan, family.layer)
        _check_batch(family, rows[family.layer])
    return plan


def _check_reached(plan: Plan, start: str, families: Iterable[Concepts]) -> None:
    """Refuses layers that no relevance reaches, since it begins before them."""
    reached = plan.upstream(start) | {start}
    for family in families:
        if family.layer not in reached:
            raise ValueError(
                f"relevance begins at start={start!r} and does not reach the layer {family.layer!r}: name "
                "a layer that comes before it, or leave out start"
            )


def check_passed_once(plan: Plan, layer: str) -> None:
    """Refuses a layer that feeds itself: relevance passes it many times, and would be counted as often.

    Raises:
      ValueError: naming the layer.
    """
    if layer in plan.upstream(layer):
        raise ValueError(
            f"the layer {layer!r} is in a loop in which each step reads the previous one, so the same "
            "relevance passes it in every step and is counted several times: use conditional(...) "
            "without cut, or a layer before or after the loop"
        )


def _check_batch(family: Concepts, row: Row) -> None:
    """Refuses to guess the axis of examples behind axes of steps or shards."""
    if not row.leading or not isinstance(family.batch, EllipsisType):
        return
    raise ValueError(
        f"the layer {row.path!r} is inside a loop or shard_map and is recorded with shape "
        f"{(*row.leading, *row.output_shape)}, steps or shards first: say along which axis the examples "
        f"lie, such as batch={len(row.leading)} (batch=0 if each step or shard contains one example)"
    )


def recorded(
    explainer: Explainer, layers: Sequence[str], args: tuple, kwargs: dict
) -> tuple[Pullback, dict[str, Array]]:
    """One forward pass whose pullback records layers, and their outputs, as of `at_layers`."""
    pullback = explainer.replace(record=tuple(layers)).vjp(*args, fun_kwargs=kwargs)
    return pullback, at_layers(pullback, layers)


def at_layers(pullback: Pullback, layers: Sequence[str]) -> dict[str, Array]:
    """The outputs of layers that hold concepts, in the order of evaluation.

    Raises:
      ValueError: if a layer is given by a pattern rather than by its path.
    """
    activations: Mapping[str, Array] = pullback.activations
    for layer in layers:
        if layer not in activations:
            raise ValueError(
                f"concepts belong to one layer, given by its path; the pattern {layer!r} matches "
                f"{matching(layer, activations)}"
            )
    return {path: a for path, a in activations.items() if path in layers}
