"""What becomes of each operation that the input reaches, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from jaxlrp import primitives as P
from jaxlrp.graph import Op
from jaxlrp.layers import Body, Layer, Network, Plain

# The ways in which an operation is treated, and the reason for each.
TREATMENTS = {
    "rule": "part of a layer, whose rule the plan shows",
    "own rule": "not known to the library; explained by the rule that the composite gives it",
    "linear": "linear in what carries relevance: autodiff is LRP-0, and exact",
    "held fixed": "one of its operands carries no relevance: a normaliser's denominator, stop_gradient",
    "softmax": "part of a softmax, expanded to first order as a whole",
    "loop": "control flow; its bodies are counted as well, once",
    "constant": "computed from the input, but no relevance comes to it: a statistic, a maximum, a mask",
}


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How every operation that the input reaches is treated. `print` it.

    Attributes:
      counts: (treatment, primitive, how many), in the order of `TREATMENTS` and then of frequency.
    """

    counts: tuple[tuple[str, str, int], ...]

    @property
    def verdict(self) -> str:
        """One sentence: whether everything is explained, and what it rests on."""
        of = Counter[str]()
        for treatment, _, count in self.counts:
            of[treatment] += count
        total = sum(of.values())
        parts = [f"{of[name]} {name}" for name in TREATMENTS if of[name]]
        said = f"{total} operations touch the input: {', '.join(parts)}."
        if of["own rule"]:
            names = sorted({name for way, name, _ in self.counts if way == "own rule"})
            return f"{said} Of {', '.join(names)} the library knows nothing but your rule."
        return f"{said} All are explained."

    def __str__(self) -> str:
        lines = []
        for treatment, why in TREATMENTS.items():
            names = [f"{name} {count}" for way, name, count in self.counts if way == treatment]
            if names:
                lines += [f"{treatment}: {why}", f"    {', '.join(names)}"]
        return "\n".join([*lines, self.verdict])


def cover(network: Network) -> Coverage:
    """Looks at every operation of a network, bodies of control flow included."""
    counts = Counter(_treated(network))
    order = list(TREATMENTS)
    ranked = sorted(
        counts.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1])
    )
    return Coverage(tuple((way, name, count) for (way, name), count in ranked))


def _treated(network: Network) -> Iterator[tuple[str, str]]:
    layer_of: dict[Op, Layer] = {}
    fixed: set[Op] = set()
    for node in network.nodes:
        if isinstance(node, Layer):
            layer_of.update(dict.fromkeys(node.ops, node))
        elif isinstance(node, Plain) and node.cut:
            fixed.update(step for step in node.steps if isinstance(step, Op))
        elif isinstance(node, Body):
            for body in node.bodies:
                yield from _treated(body)
    for op in network.graph.ops:
        name = str(op.primitive)
        layer = layer_of.get(op)
        if layer is not None:
            yield ("own rule" if layer.kind == "unsupported" else "rule"), name
        elif any(v in network.dependent for v in op.outputs):
            yield _way(network, op, fixed), name


def _way(network: Network, op: Op, fixed: set[Op]) -> str:
    if not any(v in network.live for v in op.outputs):
        return "constant"
    if op.primitive in P.BODIES:
        return "loop"
    if op in network.softmax:
        return "softmax"
    return "held fixed" if op in fixed else "linear"
