"""Evaluates a network with the rules attached."""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.errors import UnsupportedError, where
from jaxlrp.network.control_flow import CONTROL_FLOW, Inside, Recorded, Result, Taps
from jaxlrp.network.discrete import Discrete, carrier, evaluate, lifted, raw, run, with_carrier
from jaxlrp.network.graph import Env
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Account, Body, Booked, Network, Plain, Renamed
from jaxlrp.propagation import layer_vjp, ledger_rows
from jaxlrp.propagation.taps import PASSED, RECEIVED, book, mask, tap
from jaxlrp.rules import Rule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlannedRules:
    """The rules of a plan.

    Attributes:
      of: by path.
      floor: at this depth and below it no unit that is zero gets relevance from above.
      feeds: whether units that are zero may get relevance at all.
    """

    of: Mapping[str, Rule]
    floor: float = dataclasses.field(metadata={"static": True})
    feeds: bool = dataclasses.field(default=False, metadata={"static": True})


Edits = Mapping[str, Callable[[Array], Array]]
"""Functions that replace the outputs of layers, by path."""

_NO_EDITS: Edits = types.MappingProxyType({})


def interpret(
    network: Network,
    rules: PlannedRules,
    inputs: Sequence[Any],
    taps: Taps,
    edits: Edits = _NO_EDITS,
) -> Result:
    """Evaluates a network.

    Args:
      network: the network.
      rules: the rules of the plan.
      inputs: the values of the graph's inputs.
      taps: what to record or modify in the backward pass, and where.
      edits: what replaces the outputs of layers in the forward pass.

    Returns:
      The outputs of the graph, without edits bit for bit those of the function that was traced, and
      the values that were recorded, by layer path.
    """
    graph = network.graph
    env: Env = dict(graph.constants)
    for v, value in zip(graph.inputs, inputs, strict=True):
        env[v] = lifted(value) if v in network.live else raw(value)
    rectified = _rectified(network, rules)
    recorded = Recorded()
    inside: dict[Account, Env] = {}
    for node in network.nodes:
        if isinstance(node, Plain):
            _plain(node, env, network.structure.flowing)
            if node.scaled is not None and rules.feeds:
                _pass_zeros(node, env)
        elif isinstance(node, Booked):
            ledger_rows.evaluate_booked(node, env, inside, taps.ledger, network.structure.flowing)
        elif isinstance(node, Renamed):
            env[node.value] = layer_vjp.renamed(node.trail, env)
        elif isinstance(node, Body):
            recorded |= _body(node, rules, env, taps, edits)
        else:
            inputs = tuple(env[v] for v in node.inputs)
            account = taps.ledger.get(node.path)
            if account is not None:
                inputs = tuple(book(v, account, PASSED) for v in inputs)
            # an edited function may be traced again, and its layers keep their module paths
            with jax.named_scope(node.ops[0].scope) if edits else contextlib.nullcontext():
                out = _layer(node, rules, inputs, env, taps, node.output in rectified)
            if node.path in edits:
                out = lifted(edits[node.path](raw(out)))
            if account is not None:
                out = book(out, account, RECEIVED)
            if node.path in taps.masks or node.path in taps.outputs:
                out, found = _tapped(node.path, out, taps)
                recorded |= found
            env[node.output] = out
    return [env[v] for v in graph.outputs], recorded


def _tapped(path: str, out: Any, taps: Taps) -> tuple[Any, Recorded]:
    """The output of a layer with its taps: relevance is recorded first, then multiplied by the mask."""
    outputs, masks = {}, {}
    if path in taps.masks:
        held, masks[path] = mask(carrier(out), taps.masks[path])
        out = with_carrier(out, held)
    if path in taps.outputs:
        held = carrier(out)
        out = with_carrier(out, tap(held, _compat.placed_as(taps.outputs[path], held)))
        outputs[path] = raw(out)
    return out, Recorded(outputs, masks)


def _plain(node: Plain, env: Env, live: frozenset[int]) -> None:
    if not node.cut:
        evaluate(node.steps, env, live)
        return
    (op,) = node.steps
    held = {v: lax.stop_gradient(raw(env[v])) for i, v in enumerate(op.inputs) if i in node.cut}
    local = {v: held.get(v, env[v]) for v in op.inputs}
    evaluate(node.steps, local, live)
    env.update((v, local[v]) for v in op.outputs)


def _pass_zeros(node: Plain, env: Env) -> None:
    """Of a product with a constant: relevance of a zero is not scaled, as its gradient form would be."""
    (op,) = node.steps
    (out,) = op.outputs
    assert node.scaled is not None
    env[out] = layer_vjp.passed(env[node.scaled], env[out])


def _layer(
    layer: Layer, rules: PlannedRules, inputs: tuple, env: Env, taps: Taps, rectified: bool
) -> Any:
    rule, ledger = rules.of[layer.path], taps.ledger.get(layer.path)
    layer = rule.explained_layer(layer)
    operands = tuple(raw(env[v]) for v in layer.operands)
    if layer.kind == "unsupported" and not rule.is_autodiff and len(layer.ops[0].outputs) > 1:
        raise UnsupportedError(
            f"`{layer.name}` {where(layer.path, layer.source)} has several outputs; {rule!r} handles one: "
            "explain the function before or after it, or give this layer Gradient()"
        )
    if rule.is_autodiff:
        return _by_autodiff(layer, inputs, operands, env)
    folded = None if layer.form is None else layer.form.fold(env)
    return layer_vjp.call(layer, rule, inputs, operands, folded, ledger, rectified)


def _by_autodiff(layer: Layer, inputs: tuple, operands: tuple, env: Env) -> Any:
    if layer.kind == "unsupported":
        env.update(zip(layer.inputs, inputs, strict=True))
        evaluate(layer.steps, env, frozenset(layer.inputs))  # it may have several outputs
        return env[layer.output]
    if layer.kind in ("activation", "quantizer") and layer.is_discrete:
        z = layer.forward(tuple(map(raw, inputs)), operands)
        return lifted(z)  # a step function: its gradient is zero
    if any(isinstance(x, Discrete) for x in inputs):
        held = dict(zip(layer.operands, operands, strict=True))
        given = dict(zip(layer.inputs, inputs, strict=True))
        return run(layer.ops, given, held, layer.output)
    return layer.forward(inputs, operands)


def _rectified(network: Network, rules: PlannedRules) -> set[int]:
    """Outputs that a ReLU alone reads, whose rule gives no relevance to values below zero."""
    relus = {
        node.inputs[0]
        for node in network.nodes
        if isinstance(node, Layer) and node.relu and rules.of[node.path].stops_below_zero
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


def _body(node: Body, rules: PlannedRules, env: Env, taps: Taps, edits: Edits) -> Recorded:
    op, flow = node.op, CONTROL_FLOW[node.op.primitive]
    inputs = [env[v] for v in op.inputs]
    ahead = len(inputs) - len(flow.operands(op))  # what chooses a branch carries no relevance
    inputs[:ahead] = map(raw, inputs[:ahead])
    if node.carry is not None and node.carry.path in taps.ledger:
        account = taps.ledger[node.carry.path]
        for i in node.fixed:
            begun = lifted(jnp.asarray(raw(inputs[i])))
            inputs[i] = book(begun, account, RECEIVED)

    def run(i: int, rules: PlannedRules, inputs: list[Any], taps: Taps) -> Result:
        return interpret(node.bodies[i], rules, inputs, taps, edits)

    carrying = _carrying(node)

    def alike(values: Sequence[Any]) -> list[Any]:
        pairs = zip(values, carrying, strict=False)
        return [lifted(value) if carries else raw(value) for value, carries in pairs]

    inside = Inside(
        run,
        rules,
        taps=tuple(taps.within(body.paths()) for body in node.bodies),
        avals=tuple(
            {la.path: graph.avals[la.output] for la, graph, _ in body.placed()}
            for body in node.bodies
        ),
        alike=alike,
    )
    outputs, recorded = flow.emit(op, inside, inputs)
    env.update(zip(op.outputs, outputs, strict=True))
    return recorded


def _carrying(node: Body) -> list[bool]:
    """For each result, whether it carries relevance in any body, or in another step of a loop."""
    found = [False] * len(node.op.outputs)
    for body in node.bodies:
        carried = CONTROL_FLOW[node.op.primitive].carried(node.op, body.graph)
        for i, output in enumerate(body.graph.outputs):
            begun = carried[i][0] in body.live if i < len(carried) else False
            found[i] = found[i] or begun or output in body.live
    return found
