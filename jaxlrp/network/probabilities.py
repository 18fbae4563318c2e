"""Outputs that are probabilities: a softmax or a sigmoid ends the function."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from jaxlrp._compat import primitive
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Op, Value
from jaxlrp.network.nodes import Network
from jaxlrp.network.quotients import CHOSEN, trace_back
from jaxlrp.network.wiring import before_each, before_value

_LOGISTIC = primitive("logistic")
# What an output is seen through: what moves, selects or casts it.
_THROUGH = (CHOSEN - {P.MUL}) | P.SHAPE | {P.CONVERT, P.BROADCAST}


@dataclasses.dataclass(frozen=True)
class Probability:
    """An output that is a probability.

    Attributes:
      name: "softmax" or "sigmoid".
      before: the paths of the layers that it is computed from, without another layer in between.
    """

    name: str
    before: tuple[str, ...]


def probabilities(network: Network, outputs: Iterable[Value]) -> tuple[Probability, ...]:
    """Those of some outputs of a network that are probabilities."""
    found = []
    for value in outputs:
        op, _ = trace_back(network.graph, value, _THROUGH, network.dependent)
        if op in network.structure.weights:
            found.append(Probability("softmax", before_value(network, value)))
        elif op is not None and op.primitive is _LOGISTIC:
            found.append(Probability("sigmoid", _before_op(network, op)))
    return tuple(dict.fromkeys(found))


def _before_op(network: Network, op: Op) -> tuple[str, ...]:
    path = next((la.path for la in network.layers() if op in la.ops), None)
    return () if path is None else before_each(network)[path]
