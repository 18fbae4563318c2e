"""Control flow: operations that hold functions, their bodies.

Everything particular to one of these primitives is in one class here: which functions it
holds, which operands they read, what goes around a loop, which axes it puts before what is recorded
inside, and how it is emitted again around bodies with rules. `CONTROL_FLOW` has one row for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Graph, Op, Value, flatten

Axis = tuple[
    int, str | None
]  # the size of an axis, and the axis of a mesh along which it is laid out


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recorded:
    """What the taps of a network give back, by layer path.

    Attributes:
      outputs: the outputs of layers.
      masks: the zeros of `Taps.masks`, whose cotangents are the factors of the relevance.
    """

    outputs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def __or__(self, other: Recorded) -> Recorded:
        return Recorded({**self.outputs, **other.outputs}, {**self.masks, **other.masks})


Result = tuple[list[Any], Recorded]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Taps:
    """Arrays that record or modify relevance inside a network, by layer path.

    Attributes:
      outputs: zeros like the layer's output, whose cotangent is that of the output; the layers'
        outputs are recorded as well.
      masks: zeros like the layer's output, which are given back. What the pullback gets as their
        cotangent is a factor of the relevance of the layer's output.
      ledger: zeros, one for each column of the ledger, whose cotangents are its rows.
    """

    outputs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def within(self, paths: set[str]) -> Taps:
        """Those at some paths."""
        return jax.tree.map(
            lambda taps: {path: tap for path, tap in taps.items() if path in paths},
            self,
            is_leaf=lambda node: isinstance(node, Mapping),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """What runs in place of the bodies when an operation is emitted again.

    Attributes:
      run: (number of the body, rules, its inputs, its taps) -> its outputs, and what was recorded.
      rules: a pytree that all bodies read.
      taps: those of each body.
      avals: for each body, the types of the outputs of its layers, by path.
      alike: for values that are the first results of the operation: gives those that carry relevance in
        any step or branch the zeros that carry it, so that all steps and branches have the same types.
        Call it on what a loop begins with, on the carry after each step, and on the outputs of a branch.
    """

    run: Callable[[int, Any, list[Any], Taps], Result]
    rules: Any
    taps: tuple[Taps, ...]
    avals: tuple[Mapping[str, Any], ...]
    alike: Callable[[Sequence[Any]], list[Any]]


class ControlFlow:
    """One primitive. The defaults are those of a call of one function, once.

    Those that are emitted again with rules inside are `primitives.BODIES`.
    """

    def jaxprs(self, op: Op) -> Sequence[Any]:
        """The functions that the operation holds."""
        return (op.params["jaxpr"],)

    def bodies(self, op: Op) -> list[Graph]:
        """Those functions as graphs."""
        opened = map(_compat.open_jaxpr, self.jaxprs(op))
        return [flatten(jaxpr, consts, op.scope, op.source) for jaxpr, consts in opened]

    def operands(self, op: Op) -> Sequence[Value]:
        """The operands that are the inputs of each body, in order."""
        return op.inputs

    def carry(self, op: Op) -> slice:
        """Which inputs of the body its first outputs take the place of in the next step."""
        return slice(0, 0)

    def carried(self, op: Op, body: Graph) -> list[tuple[Value, Value]]:
        """Pairs of an input of the body and the output that takes its place in the next step."""
        return list(zip(body.inputs[self.carry(op)], body.outputs, strict=False))

    def length(self, op: Op) -> int | None:
        """How many steps a loop takes; None if the operation is not a loop."""
        return None

    def results(self, op: Op, body: Graph) -> Sequence[Value]:
        """The values of a body that are the results of the operation."""
        return body.outputs

    def leading(self, op: Op, aval: Any) -> tuple[Axis, ...]:
        """The axes that the operation puts before those of a value that is recorded inside."""
        length = self.length(op)
        return () if length is None else ((length, None),)

    def emit(self, op: Op, inside: Inside, inputs: list[Any]) -> Result:
        """Evaluates the operation on `inputs`, with other bodies."""
        raise NotImplementedError


class Remat(ControlFlow):
    """`jax.checkpoint`."""

    def emit(self, op: Op, inside: Inside, inputs: list[Any]) -> Result:
        run = jax.checkpoint(
            lambda inputs, taps: inside.run(0, inside.rules, inputs, taps),
            prevent_cse=op.params["prevent_cse"],
            policy=op.params["policy"],
        )
        return run(inputs, inside.taps[0])


class Scan(ControlFlow):
    """`lax.scan`: constants, carries, slices."""

    def carry(self, op: Op) -> slice:
        constants, carries = _compat.scan_counts(op.eqn)
        return slice(constants, constants + carries)

    def length(self, op: Op) -> int:
        return op.params["length"]

    def emit(self, op: Op, inside: Inside, inputs: list[Any]) -> Result:
        at = self.carry(op)
        constants, begun, slices = inputs[: at.start], inputs[at], inputs[at.stop :]

        def step(carry: list[Any], now: tuple[list[Any], Taps]) -> tuple[list[Any], Result]:
            xs, taps = now
            outputs, recorded = inside.run(0, inside.rules, [*constants, *carry, *xs], taps)
            return inside.alike(outputs[: len(begun)]), (outputs[len(begun) :], recorded)

        carry, (stacked, recorded) = lax.scan(
            step,
            inside.alike(begun),
            (slices, inside.taps[0]),
            length=op.params["length"],
            reverse=op.params["reverse"],
            unroll=op.params["unroll"],
        )
        return [*carry, *stacked], recorded


class Cond(ControlFlow):
    """`lax.cond` and `lax.switch`. Relevance and activations of a branch not taken are zero."""

    def jaxprs(self, op: Op) -> Sequence[Any]:
        return op.params["branches"]

    def operands(self, op: Op) -> Sequence[Value]:
        return op.inputs[1:]

    def emit(self, op: Op, inside: Inside, inputs: list[Any]) -> Result:
        index, *operands = inputs

        def branch(i: int) -> Callable[..., Result]:
            def run(operands: list[Any], taps: tuple[Taps, ...]) -> Result:
                outputs, recorded = inside.run(i, inside.rules, operands, taps[i])
                blank = Recorded()
                for held in taps:
                    blank |= Recorded(held.outputs, held.masks)
                return inside.alike(outputs), jax.tree.map(jnp.zeros_like, blank) | recorded

            return run

        branches = [branch(i) for i in range(len(inside.taps))]
        return lax.switch(index, branches, operands, inside.taps)


class ShardMap(ControlFlow):
    """`jax.shard_map`. The ledger and the rules are the same on all devices."""

    def leading(self, op: Op, aval: Any) -> tuple[Axis, ...]:
        mesh = _compat.shard_mesh(op.eqn)
        held = _compat.varying(aval) if _compat.tracks_varying(op.eqn) else mesh
        return tuple((size, axis) if axis in held else (1, None) for axis, size in mesh.items())

    def emit(self, op: Op, inside: Inside, inputs: list[Any]) -> Result:
        (taps,), (avals,) = inside.taps, inside.avals
        ahead = len(_compat.shard_mesh(op.eqn))
        leaves, tree = jax.tree.flatten(inside.rules)
        traced = {str(i): leaf for i, leaf in enumerate(leaves) if _compat.is_array(leaf)}

        def run(traced: dict[str, Any], inputs: list[Any], taps: Taps) -> Result:
            rules = jax.tree.unflatten(tree, [traced.get(str(i), x) for i, x in enumerate(leaves)])
            rest = dataclasses.replace(taps, ledger={})
            local = jax.tree.map(lambda a: a.reshape(a.shape[ahead:]), rest)
            taps = dataclasses.replace(local, ledger=taps.ledger)
            outputs, recorded = inside.run(0, rules, inputs, taps)
            return outputs, jax.tree.map(lambda a: a.reshape((1,) * ahead + a.shape), recorded)

        def placed(path: str) -> Any:
            return _compat.partition([axis for _, axis in self.leading(op, avals[path])])

        same = _compat.partition(())
        held: Any = Recorded(
            {path: placed(path) for path in taps.outputs},
            {path: placed(path) for path in taps.masks},
        )
        specs: Any = Taps(held.outputs, held.masks, cast(Any, dict.fromkeys(taps.ledger, same)))
        in_specs, out_specs = _compat.shard_specs(op.eqn)
        arguments = (dict.fromkeys(traced, same), list(in_specs), specs)
        mapped = _compat.shard_map(op.eqn, run, arguments, (list(out_specs), held))
        return mapped(traced, inputs, taps)


class While(ControlFlow):
    """`lax.while_loop`: it has no derivative; we only need to know what depends on the input."""

    def jaxprs(self, op: Op) -> Sequence[Any]:
        return (op.params["body_jaxpr"],)

    def operands(self, op: Op) -> Sequence[Value]:
        return op.inputs[op.params["cond_nconsts"] :]

    def carry(self, op: Op) -> slice:
        return slice(op.params["body_nconsts"], len(self.operands(op)))

    def results(self, op: Op, body: Graph) -> Sequence[Value]:
        return body.inputs[self.carry(op)]  # after no step at all, what the loop began with


CONTROL_FLOW: Mapping[_compat.Primitive | None, ControlFlow] = {
    P.REMAT: Remat(),
    P.SCAN: Scan(),
    P.COND: Cond(),
    P.SHARD_MAP: ShardMap(),
    P.WHILE: While(),
}


def leading_axes(aval: Any, around: Sequence[Op]) -> list[Axis]:
    """The axes that control flow, outermost first, puts before those of a value recorded inside."""
    return [axis for op in around for axis in CONTROL_FLOW[op.primitive].leading(op, aval)]
