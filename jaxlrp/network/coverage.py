"""How each operation that the input reaches is treated, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from jaxlrp.errors import counted, where
from jaxlrp.network.graph import Op
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Body, Network, Plain
from jaxlrp.network.paths import place

# The ways in which an operation is treated, and the reason for each.
TREATMENTS = {
    "rule": "part of a layer, whose rule the plan shows",
    "own rule": "unknown to the library; explained only by the rule that the composite gives it",
    "linear": "linear in the values that carry relevance, where autodiff is LRP-0 and exact",
    "held fixed": "one of its operands carries no relevance: a denominator, an index, a predicate",
    "softmax": "part of a softmax, expanded to first order as a whole",
    "loop": "control flow; the operations of its bodies are counted as well, once",
    "position": "arithmetic on integers that index a table; relevance goes back to where they come from",
    "constant": "computed from the input, but gets no relevance: a statistic, a maximum, a mask",
    "cut": "its result is a constant: a comparison, the position of a maximum, `stop_gradient`",
    "effect": "prints or calls back; it has no result",
}

# What follows a number in the verdict, in the same words for one and for many; else the treatment.
_SAID = {
    "rule": "with a rule",
    "own rule": "with your own rule",
    "softmax": "in a softmax",
    "loop": "control flow",
    "position": "index arithmetic",
    "effect": "without a result",
}


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How every operation that the input reaches is treated. `print` it.

    Attributes:
      counts: (treatment, primitive, how many), in the order of `TREATMENTS` and then of frequency.
      cuts: the operations that are cut, each with the user's `file:line (function)`.
    """

    counts: tuple[tuple[str, str, int], ...]
    cuts: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One sentence: whether everything is explained, and what it rests on."""
        of = Counter[str]()
        for treatment, _, count in self.counts:
            of[treatment] += count
        total = sum(of.values())
        parts = [f"{of[name]} {_SAID.get(name, name)}" for name in TREATMENTS if of[name]]
        touch = "touches" if total == 1 else "touch"
        said = f"{counted(total, 'operation')} {touch} the input: {', '.join(parts)}."
        explained = "It is explained" if total == 1 else "All are explained"
        if of["own rule"]:
            names = sorted({name for way, name, _ in self.counts if way == "own rule"})
            return f"{said} {', '.join(names)}: explained only by the rule you supplied."
        if of["cut"]:
            return f"{said} {explained}; no relevance flows through what is cut."
        return f"{said} {explained}."

    def __str__(self) -> str:
        lines = []
        for treatment, why in TREATMENTS.items():
            names = [f"{name} {count}" for way, name, count in self.counts if way == treatment]
            if names:
                lines += [f"{treatment}: {why}", f"    {', '.join(names)}"]
            if treatment == "cut":
                lines += [f"    {cut}" for cut in self.cuts]
        return "\n".join([*lines, self.verdict])


def cover(network: Network) -> Coverage:
    """Looks at every operation of a network, bodies of control flow included."""
    treated = list(_treated(network))
    counts = Counter((way, str(op.primitive)) for way, op in treated)
    order = list(TREATMENTS)
    ranked = sorted(
        counts.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1])
    )
    cuts = dict.fromkeys(
        f"`{op.primitive}` {where(place(op.scope, str(op.primitive)), op.source)}"
        for way, op in treated
        if way == "cut"
    )
    return Coverage(tuple((way, name, count) for (way, name), count in ranked), tuple(cuts))


def _treated(network: Network) -> Iterator[tuple[str, Op]]:
    layer_of: dict[Op, Layer] = {}
    fixed: set[Op] = set()
    opened: set[Op] = set()
    for node in network.nodes:
        if isinstance(node, Layer):
            layer_of.update(dict.fromkeys(node.ops, node))
        elif isinstance(node, Plain) and node.cut:
            fixed.update(step for step in node.steps if isinstance(step, Op))
        elif isinstance(node, Body):
            opened.add(node.op)
            for body in node.bodies:
                yield from _treated(body)
    structure = network.structure
    touched = structure.dependence.touched
    trails = [*structure.trails.values(), *structure.renamed.values()]
    along = frozenset(op for trail in trails for op in trail.ops)
    for op in network.graph.ops:
        layer = layer_of.get(op)
        if layer is not None:
            yield ("own rule" if layer.kind == "unsupported" else "rule"), op
        elif not op.outputs and any(v in touched for v in op.inputs):
            yield "effect", op
        elif any(v in touched for v in op.outputs):
            yield "loop" if op in opened else _way(network, op, fixed, along), op


def _way(network: Network, op: Op, fixed: set[Op], along: frozenset[Op]) -> str:
    structure = network.structure
    if op in network.softmax:
        return "softmax"
    if not any(v in structure.flowing for v in op.outputs):
        if structure.dependence.is_cut(op):
            users = [user for v in op.outputs for user in network.graph.users.get(v, ())]
            return "position" if users and along.issuperset(users) else "cut"
        return "position" if op in along else "constant"
    return "held fixed" if op in fixed else "linear"
