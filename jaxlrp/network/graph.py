"""A jaxpr as one flat list of operations.

Calls (`jit`, `custom_jvp`, ...) are inlined so that a layer may span them: `jnp.einsum` hides its
`dot_general` in a `jit`, and the bias is added outside. Each operation remembers the calls around
it, so that a call whose operations all end up in one layer, or in none, is evaluated as the
one call it was in the user's function: the same program, hence the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxlrp import _compat
from jaxlrp.network import primitives as P

Value = int  # a value of the graph: an index into `Graph.avals`
Env = dict[Value, Any]


@dataclasses.dataclass(eq=False)
class Call:
    """An inlined call: the equation it came from and the values it takes and gives.

    Attributes:
      declared: whether it, or a call inside it, has a derivative of its own.
    """

    eqn: _compat.JaxprEqn
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...] = ()  # known once the body has been walked
    declared: bool = False

    @property
    def name(self) -> str:
        return _compat.function_name(self.eqn)


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One equation, its operands resolved to values of the graph.

    Attributes:
      index: position in `Graph.ops`; operands come from operations of smaller index.
      scope: the names of all scopes around it, outermost first, joined by "/".
      source: the user's `file:line (function)`, or "".
      calls: the inlined calls around it, outermost first.
    """

    index: int
    eqn: _compat.JaxprEqn
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    scope: str
    source: str
    calls: tuple[Call, ...]

    @property
    def primitive(self) -> _compat.Primitive:
        return self.eqn.primitive

    @property
    def params(self) -> Mapping[str, Any]:
        return self.eqn.params


Step = Op | Call


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A function as operations on values.

    Attributes:
      ops: in an order of evaluation, but for those whose results nothing uses.
      inputs, outputs: the function's own; an output may be an input or a constant.
      constants: the literals and captured constants, by value.
      literals: those constants that are literals of the program.
      avals: shape and dtype of each value.
      producer: the operation that makes a value, where one does.
      users: the operations that read a value, in order.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[Value, Any]
    literals: frozenset[Value]
    avals: Sequence[Any]
    producer: Mapping[Value, Op]
    users: Mapping[Value, tuple[Op, ...]]

    def shape(self, value: Value) -> tuple[int, ...]:
        return tuple(self.avals[value].shape)


def flatten(
    jaxpr: _compat.Jaxpr, consts: Sequence[Any], scope: str = "", source: str = ""
) -> Graph:
    """Reads a jaxpr as a `Graph`; `scope` and `source` are those of the equation that holds it."""
    builder = _Builder()
    inputs = tuple(builder.new(var.aval) for var in jaxpr.invars)
    outputs = builder.walk(jaxpr, consts, inputs, scope, source, ())
    ops = _used(builder.ops, outputs)
    users: dict[Value, list[Op]] = {}
    for op in ops:
        for value in dict.fromkeys(op.inputs):
            users.setdefault(value, []).append(op)
    return Graph(
        ops=ops,
        inputs=inputs,
        outputs=outputs,
        constants=builder.constants,
        literals=frozenset(builder.literals),
        avals=builder.avals,
        producer={value: op for op in ops for value in op.outputs},
        users={value: tuple(readers) for value, readers in users.items()},
    )


def _used(ops: Sequence[Op], outputs: Iterable[Value]) -> tuple[Op, ...]:
    """The operations with a result or an effect that is used."""
    wanted, used = set(outputs), list[Op]()
    for op in reversed(ops):
        if any(v in wanted for v in op.outputs) or not op.outputs or op.eqn.effects:
            wanted.update(op.inputs, *(call.inputs for call in op.calls))
            used.append(op)
    return tuple(reversed(used))


class _Builder:
    """Collects operations while jaxprs are walked."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.avals: list[Any] = []
        self.constants: dict[Value, Any] = {}
        self.literals: set[Value] = set()
        self.moves: dict[Any, tuple[Value, ...]] = {}

    def new(self, aval: Any) -> Value:
        self.avals.append(aval)
        return len(self.avals) - 1

    def constant(self, aval: Any, held: Any) -> Value:
        value = self.new(aval)
        self.constants[value] = held
        return value

    def walk(
        self,
        jaxpr: _compat.Jaxpr,
        consts: Sequence[Any],
        inputs: Sequence[Value],
        scope: str,
        source: str,
        calls: tuple[Call, ...],
    ) -> tuple[Value, ...]:
        names: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, held in zip(jaxpr.constvars, consts, strict=True):
            names[var] = self.constant(var.aval, held)

        def read(atom: Any) -> Value:
            if isinstance(atom, _compat.Literal):
                value = self.constant(atom.aval, atom.val)
                self.literals.add(value)
                return value
            return names[atom]

        for eqn in jaxpr.eqns:
            here = "/".join(filter(None, (scope, _compat.name_stack(eqn))))
            line = _compat.source_line(eqn) or source
            operands = tuple(map(read, eqn.invars))
            if eqn.primitive in P.CALLS:
                body, held = _compat.call_body(eqn)
                call = Call(eqn, operands)
                if eqn.primitive in P.DECLARED:
                    for around in (*calls, call):
                        around.declared = True
                call.outputs = self.walk(body, held, operands, here, line, (*calls, call))
                names.update(zip(eqn.outvars, call.outputs, strict=True))
                continue
            key = _move(eqn, operands, here, calls)
            if key is not None and key in self.moves:
                names.update(zip(eqn.outvars, self.moves[key], strict=True))
                continue
            outputs = tuple(self.new(var.aval) for var in eqn.outvars)
            names.update(zip(eqn.outvars, outputs, strict=True))
            if key is not None:
                self.moves[key] = outputs
            self.ops.append(Op(len(self.ops), eqn, operands, outputs, here, line, calls))
        return tuple(map(read, jaxpr.outvars))


def _move(
    eqn: _compat.JaxprEqn, operands: tuple[Value, ...], scope: str, calls: tuple[Call, ...]
) -> Any:
    """What tells an operation that only moves values from others; two alike give one value.

    `x[:, None] - x[:, None] ** 2` is a function of one value.
    """
    if eqn.primitive not in P.MOVES:
        return None
    key = (eqn.primitive, operands, tuple(sorted(eqn.params.items())), scope, calls)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def regroup(
    ops: Iterable[Op],
    refused: frozenset[Op] = frozenset(),
    sizes: Mapping[Call, int] | None = None,
    declared: bool = False,
) -> tuple[Step, ...]:
    """The steps that evaluate `ops`: calls whose operations are all among them are made whole.

    Args:
      ops: operations in order.
      refused: operations that must be evaluated singly, and so break the calls around them.
      sizes: how many operations each call holds, from `call_sizes` of the whole graph.
      declared: whether calls that declare a derivative of their own are made whole, which makes that
        derivative count.
    """
    ops = list(ops)
    found = call_sizes(op for op in ops if op not in refused)
    whole = {
        call for call, n in found.items()
        if sizes is not None
        and n == sizes[call]
        and (declared or not call.declared)
        and call.eqn.primitive is not P.COMPOSITE  # JAX does not differentiate it
    }  # fmt: skip
    steps: list[Step] = []
    last = {call: op for op in ops for call in op.calls}
    for op in ops:
        call = next((c for c in op.calls if c in whole), None)
        if call is None:
            steps.append(op)
        elif last[call] is op:
            steps.append(call)
    return tuple(steps)


def call_sizes(ops: Iterable[Op]) -> dict[Call, int]:
    """How many operations each call holds, those of the calls inside it included."""
    sizes: dict[Call, int] = {}
    for op in ops:
        for call in op.calls:
            sizes[call] = sizes.get(call, 0) + 1
    return sizes


def evaluate(steps: Iterable[Step], env: Env) -> None:
    """Evaluates steps, reading from and writing to `env`."""
    for step in steps:
        results = _compat.bind(step.eqn, [env[v] for v in step.inputs])
        env.update(zip(step.outputs, results, strict=True))
