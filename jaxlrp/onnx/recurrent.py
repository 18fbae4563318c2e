"""ONNX operators with a state: LSTM, GRU and RNN, one step of a scan for each time step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlrp.errors import UnsupportedError
from jaxlrp.onnx.operator import Node, Operator, adder

DOMAIN = ""
OPERATORS: dict[str, Operator] = {}
operator = adder(OPERATORS)

Function = Callable[[Any], Any]
State = tuple[Any, ...]
"""(h,), or (h, c) of an LSTM, each (batch, hidden)."""
Step = Callable[["Cell", State, Any], State]
"""The next state, from the last one and x @ W + b of all gates, (batch, gates * hidden)."""

# Those with parameters get what the standard prescribes where the file has none.
FUNCTIONS: dict[str, tuple[Callable[..., Any], float | None, float | None]] = {
    "relu": (jax.nn.relu, None, None),
    "tanh": (jnp.tanh, None, None),
    "sigmoid": (jax.nn.sigmoid, None, None),
    "softsign": (jax.nn.soft_sign, None, None),
    "softplus": (jax.nn.softplus, None, None),
    "leakyrelu": (jax.nn.leaky_relu, 0.01, None),
    "elu": (jax.nn.elu, 1.0, None),
    "hardsigmoid": (lambda x, a, b: jnp.clip(a * x + b, 0, 1), 0.2, 0.5),
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "scaledtanh": (lambda x, a, b: a * jnp.tanh(b * x), 1.0, 1.0),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One direction of a recurrent layer.

    Attributes:
      node: the operator.
      functions: its activation functions, of gates and candidates clipped.
      weight, bias: of the inputs, (gates * hidden, features) and (gates * hidden,) or None.
      recurrent, recurrent_bias: the same of the state.
      peepholes: (3 * hidden,), of an LSTM, or None.
    """

    node: Node
    functions: list[Function]
    weight: Any
    recurrent: Any
    bias: Any
    recurrent_bias: Any
    peepholes: Any

    @classmethod
    def of(cls, node: Node, functions: list[Function], w: Any, r: Any, b: Any, p: Any) -> Cell:
        """From the arrays of one direction, as ONNX has them."""
        of_inputs, of_state = (None, None) if b is None else (b[: len(w)], b[len(w) :])
        return cls(node, functions, w, r, of_inputs, of_state, p)

    @property
    def size(self) -> int:
        """Of the hidden state."""
        return self.recurrent.shape[-1]

    def of_input(self, x: Any) -> Any:
        return _affine(x, self.weight, self.bias)

    def of_state(self, h: Any, gates: slice = slice(None)) -> Any:
        """h @ R + b of some gates."""
        rows = slice(*(None if i is None else i * self.size for i in (gates.start, gates.stop)))
        bias = None if self.recurrent_bias is None else self.recurrent_bias[rows]
        return _affine(h, self.recurrent[rows], bias)

    def peephole(self, i: int, gate: Any, c: Any) -> Any:
        """The input of a gate, with what the cell state adds to it."""
        if self.peepholes is None:
            return gate
        return gate + self.peepholes[i * self.size : (i + 1) * self.size] * c


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    found = x @ weight.T
    return found if bias is None else found + bias


def _split(values: Any, size: int) -> list[Any]:
    return jnp.split(values, values.shape[-1] // size, axis=-1)


def _rnn_step(cell: Cell, state: State, entered: Any) -> State:
    return (cell.functions[0](entered + cell.of_state(state[0])),)


def _gru_step(cell: Cell, state: State, entered: Any) -> State:
    (h,), (gate, new) = state, cell.functions
    update, reset, candidate = _split(entered, cell.size)
    if cell.node.get("linear_before_reset", 0):
        held = _split(cell.of_state(h), cell.size)
        z, r = gate(update + held[0]), gate(reset + held[1])
        found = new(candidate + r * held[2])
    else:
        held = _split(cell.of_state(h, slice(0, 2)), cell.size)
        z, r = gate(update + held[0]), gate(reset + held[1])
        found = new(candidate + cell.of_state(r * h, slice(2, 3)))
    return ((1 - z) * found + z * h,)


def _lstm_step(cell: Cell, state: State, entered: Any) -> State:
    (h, c), (gate, new, out) = state, cell.functions
    i, o, f, g = _split(entered + cell.of_state(h), cell.size)
    i = gate(cell.peephole(0, i, c))
    f = 1 - i if cell.node.get("input_forget", 0) else gate(cell.peephole(2, f, c))
    c = f * c + i * new(g)
    return gate(cell.peephole(1, o, c)) * out(c), c


def _function(node: Node, name: str, parameters: list[list[float]], clip: float | None) -> Function:
    """An activation function of values up to `clip`, with the next parameters of the node."""
    if name.lower() not in FUNCTIONS:
        raise UnsupportedError(
            f"{node} has the activation {name!r}; jaxlrp.onnx knows {', '.join(sorted(FUNCTIONS))}"
        )
    fun, *defaults = FUNCTIONS[name.lower()]
    given = [
        values.pop(0) if values else default
        for values, default in zip(parameters, defaults, strict=True)
        if default is not None
    ]
    return lambda x: fun(x if clip is None else jnp.clip(x, -clip, clip), *given)


def _functions(node: Node, directions: int, default: tuple[str, ...]) -> list[list[Function]]:
    """The activation functions of each direction."""
    names = [v.decode() if isinstance(v, bytes) else v for v in node.get("activations", ())]
    names = names or list(default) * directions
    if len(names) != len(default) * directions:
        raise UnsupportedError(
            f"{node} has {len(names)} activations; {len(default) * directions} are needed"
        )
    parameters = [list(node.get(f"activation_{name}", ())) for name in ("alpha", "beta")]
    # The third one is that of the cell state of an LSTM, which onnxruntime does not clip.
    clips = [None if i % len(default) == 2 else node.get("clip") for i in range(len(names))]
    found = [
        _function(node, name, parameters, clip) for name, clip in zip(names, clips, strict=True)
    ]
    return [found[i : i + len(default)] for i in range(0, len(found), len(default))]


def _scanned(cell: Cell, step: Step, x: Any, begun: State, lengths: Any, reverse: bool) -> Any:
    """(outputs, last state) of one direction; x is (time, batch, features)."""

    def one(state: State, now: tuple[Any, Any]) -> tuple[State, Any]:
        t, x = now
        new = step(cell, state, cell.of_input(x))
        if lengths is None:
            return new, new[0]
        inside = (t < lengths)[:, None]
        new = tuple(jnp.where(inside, a, b) for a, b in zip(new, state, strict=True))
        return new, jnp.where(inside, new[0], jnp.zeros_like(new[0]))

    last, outputs = lax.scan(one, begun, (jnp.arange(len(x)), x), reverse=reverse)
    return outputs, last


def _recurrent(
    node: Node, step: Step, default: tuple[str, ...], x: Any, arrays: tuple[Any, Any, Any, Any],
    lengths: Any, begun: tuple[Any, ...],
) -> tuple[Any, ...]:  # fmt: skip
    """(all outputs, *last state), as ONNX lays them out.

    Args:
      node: the operator.
      step: of its kind.
      default: its activation functions where the file names none.
      x: (time, batch, features); with layout=1, (batch, time, features).
      arrays: W, R, B and P, those of all directions; B and P may be None.
      lengths: of the sequences, or None.
      begun: the first states, None for zeros.
    """
    node.need("direction", "forward", "reverse", "bidirectional")
    directions = {"forward": [False], "reverse": [True]}.get(
        node.get("direction", "forward"), [False, True]
    )
    batch_first = node.get("layout", 0)
    if batch_first:
        x = jnp.swapaxes(x, 0, 1)
        begun = tuple(None if b is None else jnp.swapaxes(b, 0, 1) for b in begun)
    if isinstance(lengths, np.ndarray) and (lengths == len(x)).all():
        lengths = None
    functions, found = _functions(node, len(directions), default), []
    for i, reverse in enumerate(directions):
        cell = Cell.of(node, functions[i], *(None if a is None else a[i] for a in arrays))
        zeros = jnp.zeros((x.shape[1], cell.size), x.dtype)
        start = tuple(zeros if b is None else jnp.asarray(b[i]) for b in begun)
        found.append(_scanned(cell, step, x, start, lengths, reverse))
    outputs = jnp.stack([y for y, _ in found], 1)
    last = [jnp.stack(values) for values in zip(*(state for _, state in found), strict=True)]
    if batch_first:
        outputs = outputs.transpose(2, 0, 1, 3)
        last = [jnp.swapaxes(value, 0, 1) for value in last]
    return (outputs, *last)


@operator("RNN")
def rnn(
    node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None
) -> tuple[Any, ...]:
    return _recurrent(node, _rnn_step, ("Tanh",), x, (w, r, b, None), lengths, (h,))


@operator("GRU")
def gru(
    node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None
) -> tuple[Any, ...]:
    functions = ("Sigmoid", "Tanh")
    return _recurrent(node, _gru_step, functions, x, (w, r, b, None), lengths, (h,))


@operator("LSTM")
def lstm(
    node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None,
    c: Any = None, p: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    functions = ("Sigmoid", "Tanh", "Tanh")
    return _recurrent(node, _lstm_step, functions, x, (w, r, b, p), lengths, (h, c))
