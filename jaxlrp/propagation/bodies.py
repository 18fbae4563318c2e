"""Control flow with interpreted bodies: each operation is emitted again around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.discrete import lifted, raw
from jaxlrp.network.layers import Body, Network
from jaxlrp.propagation.taps import Activations, Taps, placements

Result = tuple[list[Any], Activations]
# (body, rules, its inputs, its taps) -> its outputs and the values at the taps
Interpret = Callable[[Network, Any, Sequence[Any], Taps], Result]


def emit(node: Body, interpret: Interpret, rules: Any, inputs: list[Any], taps: Taps) -> Result:
    """Evaluates an operation of control flow.

    Args:
      node: the operation and the layers of its bodies.
      interpret: evaluates a body.
      rules: passed on to it.
      inputs: of the operation.
      taps: those in any of its bodies are put on the way.
    """
    return _EMIT[node.op.primitive](node, interpret, rules, inputs, taps)


def _remat(node: Body, interpret: Interpret, rules: Any, inputs: list, taps: Taps) -> Result:
    (body,), params = node.bodies, node.op.params
    run = jax.checkpoint(
        lambda inputs, taps: interpret(body, rules, inputs, taps),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return run(inputs, taps.of(body))


def _scan(node: Body, interpret: Interpret, rules: Any, inputs: list, taps: Taps) -> Result:
    (body,), params = node.bodies, node.op.params
    consts, carries = _compat.scan_counts(node.op.eqn)
    graph, live = body.graph, body.live
    begun = inputs[consts : consts + carries]
    pairs = zip(graph.inputs[consts : consts + carries], graph.outputs, strict=False)
    carried = [a in live or b in live for a, b in pairs]

    def turn(carry, slices):
        xs, taps = slices
        outs, activations = interpret(body, rules, [*inputs[:consts], *carry, *xs], taps)
        return _alike(outs[:carries], carried), (outs[carries:], activations)

    carry, (ys, activations) = lax.scan(
        turn,
        _alike(begun, carried),
        (inputs[consts + carries :], taps.of(body)),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys], activations


def _cond(node: Body, interpret: Interpret, rules: Any, inputs: list, taps: Taps) -> Result:
    """Of a branch that is not taken, relevance and activation are zero."""
    index, *operands = inputs
    index = raw(index)
    inside = [taps.of(body) for body in node.bodies]
    outputs = range(len(node.op.outputs))
    carried = [any(b.graph.outputs[i] in b.live for b in node.bodies) for i in outputs]

    def branch(i: int) -> Callable[..., Result]:
        def run(operands: list, inside: list[Taps]) -> Result:
            outs, found = interpret(node.bodies[i], rules, operands, inside[i])
            activations = Activations()
            for held in inside:
                activations.outputs.update(jax.tree.map(jnp.zeros_like, dict(held.outputs)))
            activations.update(found)
            return _alike(outs, carried), activations

        return run

    return lax.switch(index, [branch(i) for i in range(len(node.bodies))], operands, inside)


def _alike(values: list[Any], carried: list[bool]) -> list[Any]:
    """Values that carry relevance where they do in another step, or in another branch."""
    pairs = zip(values, carried, strict=True)
    return [lifted(value) if carries else raw(value) for value, carries in pairs]


def _shard_map(node: Body, interpret: Interpret, rules: Any, inputs: list, taps: Taps) -> Result:
    (body,), eqn = node.bodies, node.op.eqn
    taps, n = taps.of(body), len(_compat.shard_mesh(eqn))
    placed = placements(body, node.op)
    outputs = {path: placed[path] for path in taps.outputs}
    tap_specs = Taps(
        outputs,
        {path: placed[path] for path in taps.masks},
        cast(Any, dict.fromkeys(taps.ledger, _compat.partition(()))),
    )
    leaves, tree = jax.tree.flatten(rules)
    traced = {str(i): leaf for i, leaf in enumerate(leaves) if _compat.is_array(leaf)}

    def run(traced: dict[str, Any], inputs: list, taps: Taps) -> Result:
        held = [traced.get(str(i), leaf) for i, leaf in enumerate(leaves)]
        rest = dataclasses.replace(taps, ledger={})
        local = jax.tree.map(lambda a: a.reshape(a.shape[n:]), rest)
        taps = dataclasses.replace(local, ledger=taps.ledger)
        outs, found = interpret(body, jax.tree.unflatten(tree, held), inputs, taps)
        return outs, jax.tree.map(lambda a: a.reshape((1,) * n + a.shape), found)

    in_specs, out_specs = _compat.shard_specs(eqn)
    replicated = jax.tree.map(lambda _: _compat.partition(()), traced)
    return _compat.shard_map(
        eqn,
        run,
        (replicated, list(in_specs), tap_specs),
        (list(out_specs), Activations(outputs)),
    )(traced, inputs, taps)


_EMIT = {P.REMAT: _remat, P.SCAN: _scan, P.COND: _cond, P.SHARD_MAP: _shard_map}
