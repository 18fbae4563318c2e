"""A layer before it has a name, and what its detectors share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from jaxlrp.network.graph import Call, Op, Value
from jaxlrp.network.layers import Detail


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Operations that make up one layer.

    Attributes:
      kind: of the layer.
      ops: its operations, in order.
      inputs: the values that relevance flows to.
      output: the value that relevance comes from.
      name: what it computes.
      detail: what is known of this kind of layer.
      owned: those of its operations that no other layer evaluates; the others are computed from the
        layer's own input, and read elsewhere as well. By default all.
    """

    kind: str
    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    output: Value
    name: str
    detail: Detail = None
    owned: tuple[Op, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "owned", self.owned or self.ops)


class Taken(Mapping[Op, Group]):
    """The operations that belong to a layer already, with their groups.

    Attributes:
      units: the operations of calls that compute an elementwise function of one value, with that call:
        no other layer may take a part of them.
    """

    def __init__(self, units: Mapping[Op, Call]) -> None:
        self.units = units
        self._groups: dict[Op, Group] = {}

    def add(self, group: Group) -> None:
        self._groups.update(dict.fromkeys(group.owned, group))

    def __getitem__(self, op: Op) -> Group:
        return self._groups[op]

    def __iter__(self) -> Iterator[Op]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)
