"""Which layers feed which: the layers whose outputs reach another one without a layer in between."""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp.network.control_flow import CONTROL_FLOW
from jaxlrp.network.graph import Value
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Body, Booked, Network, Plain

Paths = frozenset[str]
_NOTHING: Paths = frozenset()


def before_each(network: Network) -> dict[str, tuple[str, ...]]:
    """For each layer, the layers from which relevance flows into it, in the order of evaluation.

    In a loop, what ends one step feeds the next, so a layer may feed itself.
    """
    order = [layer.path for layer in network.layers()]
    found: dict[str, Paths] = dict.fromkeys(order, _NOTHING)
    _follow(network, {}, found)
    return {path: tuple(p for p in order if p in found[path]) for path in order}


def before_value(network: Network, value: Value) -> tuple[str, ...]:
    """The layers from which relevance of a value comes first, in the order of evaluation."""
    order = [layer.path for layer in network.layers()]
    reached = _follow(network, {}, dict.fromkeys(order, _NOTHING)).get(value, _NOTHING)
    return tuple(path for path in order if path in reached)


def _follow(
    network: Network, begun: Mapping[Value, Paths], found: dict[str, Paths]
) -> dict[Value, Paths]:
    """The layers that each value comes from; those before each layer are added to `found`."""
    reach = dict(begun)

    def of(values: tuple[Value, ...]) -> Paths:
        return _NOTHING.union(*(reach.get(v, _NOTHING) for v in values if v in network.live))

    for node in network.nodes:
        if isinstance(node, Layer):
            found[node.path] |= of(node.inputs)
            reach.update(
                dict.fromkeys((node.output, *node.ops[0].outputs), frozenset((node.path,)))
            )
        elif isinstance(node, (Plain, Booked)):
            for step in node.steps:
                reach.update(dict.fromkeys(step.outputs, of(step.inputs)))
        elif isinstance(node, Body):
            _follow_body(node, reach, found)
    return reach


def _follow_body(node: Body, reach: dict[Value, Paths], found: dict[str, Paths]) -> None:
    flow = CONTROL_FLOW[node.op.primitive]
    results = [_NOTHING] * len(node.op.outputs)
    for body in node.bodies:
        pairs = zip(body.graph.inputs, flow.operands(node.op), strict=True)
        begun = {inner: reach.get(outer, _NOTHING) for inner, outer in pairs}
        while True:  # until another step of a loop adds nothing
            inside = _follow(body, begun, found)
            carried = flow.carried(node.op, body.graph)
            after = {v: begun[v] | inside.get(out, _NOTHING) for v, out in carried}
            if begun | after == begun:
                break
            begun |= after
        for i, value in enumerate(flow.results(node.op, body.graph)):
            results[i] |= inside.get(value, _NOTHING)
    reach.update(zip(node.op.outputs, results, strict=True))
