"""Evaluates a network with the rules attached."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat, accounts, propagate
from jaxlrp import primitives as P
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


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of a plan.

    Attributes:
      of: by path.
      floor: at this depth and below it no unit that is zero gets relevance from above.
    """

    of: Mapping[str, Rule]
    floor: float

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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Activations:
    """The values at the taps: of layers' outputs and of their inputs, by path."""

    outputs: dict[str, Array] = dataclasses.field(default_factory=dict)
    inputs: dict[str, tuple[Array, ...]] = dataclasses.field(default_factory=dict)

    def update(self, other: Activations) -> None:
        self.outputs.update(other.outputs)
        self.inputs.update(other.inputs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Taps:
    """What to put on the way of the relevance, by layer path.

    Attributes:
      outputs: arrays like the layer's output, whose cotangent is that of the output; the layers'
        outputs are given back as well.
      masks: what the relevance of the layer's output is multiplied by.
      inputs: arrays like each of the layer's inputs, whose cotangents are what the layer sends
        there; those inputs are given back as well.
      ledger: arrays of four zeros, whose cotangents are the accounts; by the paths of `Booked` nodes
        as well. See `propagate.book`.
    """

    outputs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, tuple[Array, ...]] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def of(self, network: Network) -> Taps:
        """Those that lie in a network."""
        return jax.tree.map(
            lambda taps: {p: taps[p] for p in lengths(network) if p in taps},
            self,
            is_leaf=lambda node: isinstance(node, Mapping),
        )


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
            if node.path in taps.inputs:
                inputs = tuple(map(propagate.tap, inputs, taps.inputs[node.path]))
                activations.inputs[node.path] = inputs
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
                out = propagate.tap(out, taps.outputs[node.path])
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
        return layer.forward(inputs, tuple(map(lax.stop_gradient, operands)))
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
    op = node.op
    inputs = [env[v] for v in op.inputs]
    if node.carry is not None and node.carry.path in taps.ledger:
        account = taps.ledger[node.carry.path]
        for i in node.fixed:
            inputs[i] = propagate.book(jnp.asarray(inputs[i]), account, propagate.RECEIVED)
    emit = {P.REMAT: _remat, P.SCAN: _scan, P.COND: _cond}[op.primitive]
    outputs, activations = emit(node, rules, inputs, [taps.of(body) for body in node.bodies])
    env.update(zip(op.outputs, outputs, strict=True))
    return activations


def _remat(node: Body, rules: Rules, inputs: list, taps: list[Taps]):
    params = node.op.params
    run = jax.checkpoint(
        lambda inputs, taps: interpret(node.bodies[0], rules, inputs, taps),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return run(inputs, taps[0])


def _scan(node: Body, rules: Rules, inputs: list, taps: list[Taps]):
    params = node.op.params
    consts, carries = _compat.scan_counts(node.op.eqn)

    def body(carry, slices):
        xs, taps = slices
        outs, activations = interpret(node.bodies[0], rules, [*inputs[:consts], *carry, *xs], taps)
        return outs[:carries], (outs[carries:], activations)

    carry, (ys, activations) = lax.scan(
        body,
        inputs[consts : consts + carries],
        (inputs[consts + carries :], taps[0]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys], activations


def _cond(node: Body, rules: Rules, inputs: list, taps: list[Taps]):
    index, *operands = inputs
    branches = [
        lambda taps, *operands, i=i: interpret(node.bodies[i], rules, operands, taps[i])[0]
        for i in range(len(node.bodies))
    ]
    return lax.switch(index, branches, taps, *operands), Activations()


def lengths(network: Network, prefix: tuple[int, ...] = ()) -> dict[str, tuple[int, ...]]:
    """For each layer's and account's path, the lengths of the scans around it, outermost first."""
    found: dict[str, tuple[int, ...]] = {}
    for node in network.nodes:
        if isinstance(node, Layer):
            found[node.path] = prefix
        elif isinstance(node, Booked):
            found[node.account.path] = prefix
        elif isinstance(node, Body):
            if node.carry is not None:
                found[node.carry.path] = prefix
            scanned = node.op.primitive is P.SCAN
            inner = (*prefix, node.op.params["length"]) if scanned else prefix
            for body in node.bodies:
                found.update(lengths(body, inner))
    return found


def in_branches(network: Network) -> set[str]:
    """Paths of layers inside a `cond` or `switch`, which cannot be tapped."""
    found: set[str] = set()
    for node in network.nodes:
        if isinstance(node, Body):
            for body in node.bodies:
                whole = node.op.primitive is P.COND
                found |= {la.path for la in body.layers()} if whole else in_branches(body)
    return found
