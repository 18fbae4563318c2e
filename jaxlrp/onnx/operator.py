"""What an ONNX operator is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxlrp.errors import UnsupportedError


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operation of a graph.

    Attributes:
      kind, domain: its operator ("Conv", "").
      name: its name in the file, else that of its first output.
      inputs, outputs: names of values; "" for one that is left out.
      attributes: by name; tensors are NumPy arrays.
      opset: the version of the operator set.
    """

    kind: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def need(self, name: str, *allowed: Any) -> None:
        """Checks an attribute, which may also be left out.

        Raises:
          UnsupportedError: if it has another value.
        """
        value = self.attributes.get(name, allowed[0])
        if value not in allowed:
            raise UnsupportedError(
                f"{self} has {name}={value!r}; jaxlrp.onnx knows {', '.join(map(repr, allowed))}"
            )

    def __str__(self) -> str:
        domain = f"{self.domain}." if self.domain else ""
        return f"{domain}{self.kind} (node {self.name!r}, opset {self.opset})"


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """How an operator is computed.

    Attributes:
      fun: `(node, *inputs) -> output`, a tuple for several; an input that is left out is None or missing.
      static: the inputs that must be known when the function is traced, such as shapes.
    """

    fun: Callable[..., Any]
    static: tuple[int, ...] = ()


def adder(table: dict[str, Operator]) -> Callable[..., Any]:
    """A decorator that adds a function to a table, under the names of operators."""

    def operator(*names: str, static: tuple[int, ...] = ()) -> Callable[[Any], Any]:
        def add(fun: Callable[..., Any]) -> Callable[..., Any]:
            for name in names:
                if name in table:
                    raise ValueError(f"operator {name} is defined twice")
                table[name] = Operator(fun, static)
            return fun

        return add

    return operator


@functools.cache
def kind_of(name: str) -> type:
    """A class that stands for an operator, in plans and in `composites.by_module`."""
    return type(name, (), {"__doc__": f"The ONNX operator {name}."})
