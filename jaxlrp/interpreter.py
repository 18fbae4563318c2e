"""Evaluates a network with the rules attached."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat, accounts, bodies, propagate
from jaxlrp.errors import UnsupportedError, where
from jaxlrp.graph import Env, evaluate
from jaxlrp.layers import Account, Body, Booked, Layer, Network, Plain
from jaxlrp.planning import Plan
from jaxlrp.rules import (
    DerivativeTimesRelevance,
    Detach,
    Gradient,
    LocalTaylor,
    Pass,
    Rule,
)
from jaxlrp.taps import Activations, Taps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of a plan.

    Attributes:
      of: by path.
      floor: at this depth and below it no unit that is zero gets relevance from above.
    """

    of: Mapping[str, Rule]
    floor: float = dataclasses.field(metadata={"static": True})

    @staticmethod
    def planned(plan: Plan, start: str | None = None) -> Rules:
        """The rules of a plan; with a `start`, a user may give relevance to any unit."""
        pairs = list(zip(plan.rows, plan.rules, strict=True))
        # an affine layer that passes relevance on gives its share even to a unit that is zero
        feeds = (
            row.depth
            for row, rule in pairs
            if not rule.keeps_zero or (row.kind in ("scale", "shift") and isinstance(rule, Pass))
        )
        floor = max(feeds, default=0)
        return Rules({row.path: rule for row, rule in pairs}, math.inf if start else floor)


def interpret(
    network: Network, rules: Rules, inputs: Sequence[Any], taps: Taps
) -> tuple[list[Any], Activations]:
    """Evaluates a network.

    Args:
      network: the network.
      rules: the rules of the plan.
      inputs: the values of the graph's inputs.
      taps: what to put on the way.

    Returns:
      The outputs of the graph, bit for bit those of the function that was traced, and the values
      at the taps.
    """
    graph = network.graph
    env: Env = dict(graph.constants)
    env.update(zip(graph.inputs, inputs, strict=True))
    rectified = _rectified(network, rules)
    activations = Activations()
    inside: dict[Account, Env] = {}
    for node in network.nodes:
        if isinstance(node, Plain):
            _plain(node, env)
        elif isinstance(node, Booked):
            accounts.evaluate_booked(node, env, inside, taps.ledger)
        elif isinstance(node, Body):
            activations.update(_body(node, rules, env, taps))
        else:
            inputs = tuple(env[v] for v in node.inputs)
            account = taps.ledger.get(node.path)
            if account is not None:
                inputs = tuple(propagate.book(v, account, propagate.PASSED) for v in inputs)
            out = _layer(node, rules.of[node.path], inputs, env, taps, node.output in rectified)
            if account is not None:
                out = propagate.book(out, account, propagate.RECEIVED)
            if node.path in taps.masks:
                weights = jnp.broadcast_to(taps.masks[node.path], out.shape)
                out = propagate.mask(out, weights.astype(out.dtype))
            if node.path in taps.outputs:
                out = propagate.tap(out, _compat.placed_as(taps.outputs[node.path], out))
                activations.outputs[node.path] = out
            env[node.output] = out
    return [env[v] for v in graph.outputs], activations


def _plain(node: Plain, env: Env) -> None:
    if not node.cut:
        evaluate(node.steps, env)
        return
    (op,) = node.steps
    inputs = [
        lax.stop_gradient(env[v]) if i in node.cut else env[v] for i, v in enumerate(op.inputs)
    ]
    env.update(zip(op.outputs, _compat.bind(op.eqn, inputs), strict=True))


def _layer(layer: Layer, rule: Rule, inputs: tuple, env: Env, taps: Taps, rectified: bool) -> Array:
    operands = tuple(env[v] for v in layer.operands)
    if isinstance(rule, Detach):
        return propagate.hold_fixed(layer, inputs, operands)
    if isinstance(rule, LocalTaylor):
        return _local_taylor(layer, rule, inputs, env, taps)
    if layer.kind == "unsupported" and not rule.is_autodiff and len(layer.ops[0].outputs) > 1:
        raise UnsupportedError(
            f"`{layer.name}` {where(layer.path, layer.source)} has several outputs, which {rule!r} "
            "does not speak of: explain what comes before or after it, or give it Gradient()"
        )
    if rule.is_autodiff and layer.kind == "unsupported":
        env.update(zip(layer.inputs, inputs, strict=True))
        evaluate(layer.steps, env)  # it may have several outputs
        return env[layer.output]
    if rule.is_autodiff:
        return layer.forward(inputs, operands)
    folded = None if layer.form is None else layer.form.fold(env)
    ledger = taps.ledger.get(layer.path)
    return propagate.call(layer, rule, inputs, operands, folded, ledger, rectified)


def _local_taylor(layer: Layer, rule: Rule, inputs: tuple, env: Env, taps: Taps) -> Array:
    """Local response normalisation as one layer, its statistic no longer held fixed."""
    if layer.local is None:
        raise ValueError(
            f"{rule!r} is for local response normalisation, a value divided by a function of a sum "
            f"over a window of that same value, which the normaliser at {layer.path!r} is not: use "
            "Detach()"
        )
    whole = dataclasses.replace(layer.local.layer, path=layer.path, local=layer.local)
    operands = tuple(env[v] for v in whole.operands)
    return propagate.call(whole, rule, inputs, operands, None, taps.ledger.get(layer.path))


def _rectified(network: Network, rules: Rules) -> set[int]:
    """Outputs that a ReLU alone reads, whose rule gives no relevance to values below zero."""
    keeps_zero = (Pass, Gradient, DerivativeTimesRelevance)
    relus = {
        node.inputs[0]
        for node in network.nodes
        if isinstance(node, Layer) and node.relu and isinstance(rules.of[node.path], keeps_zero)
    }
    return {
        node.output
        for node in network.nodes
        if isinstance(node, Layer)
        and node.rectified
        and node.output in relus
        and not node.last
        and node.depth >= rules.floor
    }


def _body(node: Body, rules: Rules, env: Env, taps: Taps) -> Activations:
    inputs = [env[v] for v in node.op.inputs]
    if node.carry is not None and node.carry.path in taps.ledger:
        account = taps.ledger[node.carry.path]
        for i in node.fixed:
            inputs[i] = propagate.book(jnp.asarray(inputs[i]), account, propagate.RECEIVED)
    outputs, activations = bodies.emit(node, interpret, rules, inputs, taps)
    env.update(zip(node.op.outputs, outputs, strict=True))
    return activations
