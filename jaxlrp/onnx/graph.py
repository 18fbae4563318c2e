"""An ONNX graph, read into plain Python, and its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import UnsupportedError, near
from jaxlrp.network.foreign import in_module
from jaxlrp.onnx import elementwise, layers, learning, recurrent, shapes
from jaxlrp.onnx.operator import Node, Operator, kind_of

OPERATORS: dict[tuple[str, str], Operator] = {
    (table.DOMAIN, name): operator
    for table in (elementwise, layers, recurrent, shapes, learning)
    for name, operator in table.OPERATORS.items()
}


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A model, as far as its outputs depend on it.

    Attributes:
      name: what messages call it.
      nodes: in the order of evaluation.
      inputs, outputs: names of values.
      constants: arrays of the file that stay as they are: integers, scalars, sizes.
      variables: its other arrays.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    variables: Mapping[str, np.ndarray]

    def run(self, variables: Mapping[str, Any], inputs: Sequence[Any]) -> dict[str, Any]:
        """The outputs by name."""
        if len(inputs) != len(self.inputs):
            raise TypeError(
                f"{self.name} takes {len(self.inputs)} inputs ({', '.join(self.inputs)}), got {len(inputs)}"
            )
        given = zip(self.inputs, map(jnp.asarray, inputs), strict=True)
        needed = {name for node in self.nodes for name in node.inputs} | set(self.outputs)
        values: dict[str, Any] = {**self.constants, **variables, **dict(given)}
        for node in self.nodes:
            read = [values[name] if name else None for name in node.inputs]
            found = _evaluated(node, read)
            found = found if isinstance(found, tuple) else (found,)
            _check_outputs(node, len(found), needed)
            values |= {name: v for name, v in zip(node.outputs, found, strict=False) if name}
        return {name: jnp.asarray(values[name]) for name in self.outputs}


def _evaluated(node: Node, read: list[Any]) -> Any:
    """What a node computes; of constants alone, a constant."""
    operator = OPERATORS[node.domain, node.kind]
    for i in operator.static:
        if i < len(read) and not isinstance(read[i], np.ndarray | None):
            raise UnsupportedError(
                f"input {i} of {node} ({node.inputs[i]!r}) depends on the values of the model's input, "
                "but the shapes of a traced function must be known beforehand"
            )
    if all(isinstance(value, np.ndarray | None) for value in read):
        with jax.ensure_compile_time_eval():
            return jax.tree.map(np.asarray, operator.fun(node, *read))
    return in_module(node.name, kind_of(node.kind), operator.fun)(node, *read)


def _check_outputs(node: Node, count: int, needed: set[str]) -> None:
    """Refuses what is read of a node beyond what its operator returns, such as a mask of dropout."""
    for i, name in enumerate(node.outputs[count:], count):
        if name in needed:
            raise UnsupportedError(f"output {i} of {node} ({name!r}) is not known to jaxlrp.onnx")


def read(onnx: ModuleType, model: Any, outputs: Sequence[str] | None) -> Graph:
    """The part of a model that some outputs depend on.

    Raises:
      UnsupportedError: naming an operator that is not known.
      ValueError: if a name in `outputs` is no value of the model.
    """
    graph = model.graph
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for proto in graph.node:
        if proto.op_type == "Constant" and not proto.domain:
            arrays[proto.output[0]] = _constant(onnx, proto)
        else:
            nodes.append(_node(onnx, proto, opsets))
    inputs = tuple(value.name for value in graph.input if value.name not in arrays)
    chosen = tuple(outputs) if outputs is not None else _chosen(onnx, graph)
    known = {name for node in nodes for name in node.outputs} | {*arrays, *inputs}
    for name in chosen:
        if name not in known:
            raise ValueError(f"outputs: the model has no value {name!r}; {near(name, known)}")
    live = _live(nodes, chosen)
    _check(live)
    read_by = {name for node in live for name in node.inputs} | set(chosen)
    static = {
        node.inputs[i]
        for node in live
        for i in OPERATORS[node.domain, node.kind].static
        if i < len(node.inputs)
    }
    variables = {
        name: array
        for name, array in arrays.items()
        if name in read_by - static and array.size > 1 and array.dtype.kind == "f"
    }
    constants = {n: a for n, a in arrays.items() if n in read_by and n not in variables}
    return Graph(graph.name or "onnx", live, inputs, chosen, constants, variables)


def _chosen(onnx: ModuleType, graph: Any) -> tuple[str, ...]:
    """The outputs, without labels (integers or strings) if there are others."""
    labels = {
        onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.STRING, onnx.TensorProto.BOOL
    }  # fmt: skip
    scores = [
        value.name for value in graph.output if value.type.tensor_type.elem_type not in labels
    ]
    return tuple(scores or (value.name for value in graph.output))


def _node(onnx: ModuleType, proto: Any, opsets: Mapping[str, int]) -> Node:
    domain = _domain(proto.domain)
    attributes = {}
    for attribute in proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
    name = proto.name.strip("/") or proto.output[0]
    return Node(
        kind=proto.op_type,
        domain=domain,
        name=name,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        opset=opsets.get(domain, 0),
    )


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _constant(onnx: ModuleType, proto: Any) -> np.ndarray:
    (attribute,) = proto.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return onnx.numpy_helper.to_array(value)
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    raise UnsupportedError(f"Constant {proto.output[0]!r} holds a {attribute.name}, not an array")


def _live(nodes: Sequence[Node], outputs: Iterable[str]) -> tuple[Node, ...]:
    """The nodes that some values depend on, in order."""
    needed, live = set(outputs), []
    for node in reversed(nodes):
        if needed & set(node.outputs):
            live.append(node)
            needed |= set(node.inputs)
    return tuple(reversed(live))


def _check(nodes: Sequence[Node]) -> None:
    """Refuses operators that are not known.

    Raises:
      UnsupportedError: naming each of them, where the first is, and the version of its operator set.
    """
    missing = {}
    for node in nodes:
        if (node.domain, node.kind) not in OPERATORS:
            missing.setdefault(node.kind, node)
    if missing:
        named = "; ".join(map(str, missing.values()))
        raise UnsupportedError(
            f"the ONNX model has operators that jaxlrp.onnx does not know: {named}. Ask for the value "
            "before it with outputs=, or export the model without it"
        )
