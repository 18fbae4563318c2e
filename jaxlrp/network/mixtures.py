"""Where a graph weighs values by a softmax that is normalized after the product."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.alike import SHAPES, through_shapes
from jaxlrp.network.graph import Graph, Op, Value
from jaxlrp.network.quotients import CHOSEN, LOOK, SUMS, quotient_of, trace_back


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Values weighed by a softmax that is normalized after the product: `(e @ v) / sum(e)`.

    As a function of e and v it is the same as `(e / sum(e)) @ v`, derivatives included.

    Attributes:
      weights: e.
      values: v.
      ops: all operations from e and v on, in order.
      product: the one of them that multiplies e and v.
    """

    weights: Value
    values: Value
    ops: tuple[Op, ...]
    product: Op

    @property
    def end(self) -> Op:
        """The division, or the product with the inverse."""
        return self.ops[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class MixtureFinder:
    """Finds the mixtures of a graph.

    Attributes:
      graph: the graph.
      dependent: the values that depend on the explained input.
      ops: the operations of the softmaxes; the exponentials of mixtures are added.
      ends: those operations that give the weights.
    """

    graph: Graph
    dependent: frozenset[Value]
    ops: set[Op]
    ends: set[Op]

    def find(self) -> Iterator[Mixture]:
        """All mixtures whose intermediate values nothing else reads."""
        for op in self.graph.ops:
            quotient = None if op in self.ops else quotient_of(self.graph, op, self.dependent)
            mixed = None
            if quotient is not None:
                mixed = _product(self.graph, quotient.numerator, self.dependent)
            if quotient is None or mixed is None:
                continue
            product, passed = mixed
            for side in (0, 1):
                weights = self._weights(product.inputs[side], quotient.term)
                if weights is None:
                    continue
                value, between = weights
                inside = {op, product, *passed, *between, *quotient.inner}
                ops = tuple(sorted(inside, key=lambda o: o.index))
                if _is_closed(self.graph, ops):
                    yield Mixture(value, product.inputs[1 - side], ops, product)
                break

    def _weights(self, value: Value, term: Value) -> tuple[Value, list[Op]] | None:
        """(what both a factor and the terms of a sum are made of, the operations between), if weights."""
        exp, above = self._back(value, LOOK)
        other, below = self._back(term, LOOK)
        if exp is not None and exp is other and exp.primitive is P.EXP:
            self.ops.add(exp)
            return exp.outputs[0], [*above, *below]
        weights = through_shapes(self.graph, value)
        if weights != through_shapes(self.graph, term):
            return None
        maker, masks = self._back(weights, CHOSEN)
        if maker is None or not (maker in self.ends or maker.primitive is P.EXP) or not masks:
            return None
        if maker.primitive is P.EXP:
            self.ops.add(maker)
        _, above = self._back(value, SHAPES)
        _, below = self._back(term, SHAPES)
        made = self.graph.producer.get(weights)
        between = [o for o in (*above, *below) if made is None or o.index > made.index]
        return weights, between

    def _back(self, value: Value, through: frozenset) -> tuple[Op | None, list[Op]]:
        return trace_back(self.graph, value, through, self.dependent)


def _product(graph: Graph, value: Value, dependent: frozenset[Value]) -> tuple[Op, list[Op]] | None:
    """The product of two moving values whose sum `value` is, and the operations after it."""
    mix, passed = trace_back(graph, value, P.SHAPE | P.VARY, dependent)
    if mix is not None and mix.primitive in SUMS:
        terms = [v for v in mix.inputs if v in dependent]
        if len(terms) != 1:
            return None
        product, below = trace_back(graph, terms[0], P.SHAPE | P.VARY, dependent)
        mix, passed = product, [mix, *passed, *below]
        if mix is not None and mix.primitive is not P.MUL:
            return None
    elif mix is not None and mix.primitive is not P.DOT:
        return None
    if mix is None or not all(v in dependent for v in mix.inputs):
        return None
    return mix, passed


def _is_closed(graph: Graph, ops: tuple[Op, ...]) -> bool:
    inner = {v for op in ops[:-1] for v in op.outputs}
    inside = set(ops)
    return not any(v in graph.outputs for v in inner) and all(
        user in inside for v in inner for user in graph.users.get(v, ())
    )
