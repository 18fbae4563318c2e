"""What a layer is."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from jaxlrp.network.affine import LinearForm
from jaxlrp.network.analysis import Structure, is_inexact
from jaxlrp.network.dependence import Trail, carrying
from jaxlrp.network.graph import Env, Graph, Op, Step, Value, evaluate

# Kinds of layers, and what they hold.
KINDS = {
    "dense": "a `dot_general` with one operand that depends on the input, with what it absorbs",
    "conv": "a convolution of any dimension, transposed ones included, with what it absorbs",
    "scale": "an affine elementwise map that no linear layer absorbs: BatchNorm apart",
    "shift": "a constant added where no linear layer absorbs it: a position embedding",
    "sum": "an addition of two values that depend on the input: a residual connection",
    "pool": "a sum or mean over a window or over axes",
    "maxpool": "a maximum over a window or over axes, or of two values",
    "activation": "an elementwise nonlinear function of one value",
    "product": "a product of two values that depend on the input",
    "attention": "a product of a value with softmax weights of the input",
    "gate": "a product of a value with a bounded activation of another",
    "normalizer": "a value divided by a statistic of the same values, which is held fixed",
    "quotient": "a value divided by another, which is held fixed: it takes no relevance",
    "quantizer": "rounding, perhaps by a cast to an integer, with clipping and scaling",
    "embedding": "a table looked up by an integer, or a vector that says which integer it is",
    "unsupported": "nonlinear, and none of these",
}

LINEAR_KINDS = frozenset({"dense", "conv", "scale", "shift"})
PARAMETERIZED_KINDS = frozenset({"dense", "conv"})


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a traced function.

    Attributes:
      kind: one of `KINDS`.
      path: module path, unique in the function: "Block_0/Conv_0", with ":1" for a second call.
      name: what it computes: "conv_general_dilated", "relu".
      module: name of the type of the Flax module it was called in, or "".
      source: the user's `file:line (function)`, or "".
      inputs: the values that relevance flows to.
      output: the value that it comes from.
      operands: everything else it reads.
      steps: what computes it: operations, or whole calls.
      ops: the operations, one by one.
      input_shapes, input_dtypes, output_shape, dtype: of those values.
      absorbed: names of the operations folded into a linear layer.
      depth: how many dense layers and convolutions lie between it and the input, on the longest way. In a
        scan it is that of the last step.
      height: the same between it and the output; in a scan that of the first step.
      loops: how many scans there are around it.
      repeats: how many steps those of them take that read a part of the explained input in each.
      nonnegative: whether its input is known to be >= 0.
      rectified: whether its output is read by a ReLU alone, so that no relevance comes to z < 0.
      form: the linear form of a linear layer.
      signal: which input of a gate is the signal, of an attention the value.
      cheap: whether an activation costs next to nothing to compute again.
      relu: whether an activation is `max(x, 0)`, perhaps clipped from above.
      local: of a local response normalization, what it is made of.
      trail: of an embedding, how its index is computed from its inputs.
      after_normalizer: whether a scale or shift is the affine part of a normalizer.
    """

    kind: str
    path: str
    name: str
    module: str
    source: str
    inputs: tuple[Value, ...]
    output: Value
    operands: tuple[Value, ...]
    steps: tuple[Step, ...]
    ops: tuple[Op, ...] = ()
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shape: tuple[int, ...] = ()
    dtype: str = ""
    input_dtypes: tuple = ()
    absorbed: tuple[str, ...] = ()
    depth: int = 0
    height: int = 0
    loops: int = 0
    repeats: int = 1
    nonnegative: bool = False
    rectified: bool = False
    form: LinearForm | None = None
    signal: int = 0
    cheap: bool = False
    after_normalizer: bool = False
    relu: bool = False
    local: LocalForm | None = None
    trail: Trail | None = None

    @property
    def first(self) -> bool:
        """Whether no other parameterized layer lies between it and the input."""
        return self.depth == 0

    @property
    def last(self) -> bool:
        """Whether no other parameterized layer lies between it and the output."""
        return self.height == 0

    @property
    def is_discrete(self) -> bool:
        """Whether it takes or gives integers or truth values."""
        return not all(
            jnp.issubdtype(dtype, jnp.inexact) for dtype in (*self.input_dtypes, self.dtype)
        )

    @property
    def values(self) -> frozenset[Value]:
        """What its operations read as values, rather than as indices and predicates."""
        return frozenset(op.inputs[i] for op in self.ops for i in carrying(op))

    def __repr__(self) -> str:
        return f"Layer({self.kind} {self.path!r}: {self.input_shapes} -> {self.output_shape})"

    def forward(self, inputs: tuple, operands: tuple):
        """The layer's own output, from the user's own operations."""
        env: Env = dict(zip(self.inputs, inputs, strict=True))
        env.update(zip(self.operands, operands, strict=True))
        evaluate(self.steps, env)
        return env[self.output]


@dataclasses.dataclass(frozen=True, eq=False)
class LocalForm:
    """Local response normalization, y = rho(x, S) with S the sum of phi(x) over a window.

    Attributes:
      layer: the whole of it as a layer of x alone, its statistic included.
      window: the operation that sums phi(x) over the window.
      before, after: the operations of phi and of rho.
    """

    layer: Layer
    window: Op
    before: tuple[Op, ...]
    after: tuple[Op, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """Operations left to autodiff, which is LRP-0 for them, or that carry no relevance at all.

    Attributes:
      steps: the operations.
      cut: the positions of operands whose use carries no relevance.
      scaled: the value that a single operation multiplies or divides by a constant, if it does.
    """

    steps: tuple[Step, ...]
    cut: frozenset[int] = frozenset()
    scaled: Value | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """Control flow: the operation and the layers of its bodies.

    Attributes:
      op: the operation.
      bodies: its bodies.
      carry: the row of the ledger for what a `scan` begins with.
      fixed: which inputs of the `scan` these are: initial carries that do not depend on the explained
        input and take relevance all the same, since what goes round in their place does depend on it.
    """

    op: Op
    bodies: tuple[Network, ...]
    carry: Account | None = None
    fixed: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Account:
    """A row of the ledger that is no layer.

    Attributes:
      path: unique among the paths of layers and accounts.
      kind: one of `jaxlrp.propagation.ledger_rows.KINDS`, or that of the layer that it stands for.
    """

    path: str
    kind: str


@dataclasses.dataclass(frozen=True, eq=False)
class Booked:
    """Operations outside layers whose relevance the ledger books; see `jaxlrp.accounts`.

    Attributes:
      account: where it is booked; several nodes may have one account.
      steps: the operations; none where only values are booked, those that end the network.
      sources: the values that relevance flows to, where they come from outside the account.
      cut: the values whose use carries no relevance.
      outputs: the values that relevance comes from.
    """

    account: Account
    steps: tuple[Step, ...]
    sources: frozenset[Value]
    cut: frozenset[Value]
    outputs: tuple[Value, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Renamed:
    """An integer that looks something up inside control flow, and where it comes from outside.

    Attributes:
      value: the integer.
      trail: where it comes from.
    """

    value: Value
    trail: Trail


Node = Layer | Plain | Body | Booked | Renamed


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A graph cut up into nodes, in an order of evaluation.

    Attributes:
      graph: the graph.
      nodes: its operations, each in one node.
      structure: what analysis found in it.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    structure: Structure

    @property
    def live(self) -> frozenset[Value]:
        """The values that relevance can reach."""
        return self.structure.live

    @property
    def dependent(self) -> frozenset[Value]:
        """The values from which relevance can flow to the explained input."""
        return self.structure.dependent

    @property
    def softmax(self) -> frozenset[Op]:
        """The operations of softmax units."""
        return self.structure.softmax

    def is_discrete(self, value: Value) -> bool:
        """Whether a value is an integer or a truth value that carries relevance."""
        return value in self.live and not is_inexact(self.graph, value)

    def layers(self) -> tuple[Layer, ...]:
        """All layers, those inside control flow included, in the order of evaluation."""
        found: list[Layer] = []
        for node in self.nodes:
            if isinstance(node, Layer):
                found.append(node)
            elif isinstance(node, Body):
                for body in node.bodies:
                    found.extend(body.layers())
        return tuple(found)

    def accounts(self) -> dict[str, str]:
        """The kinds of all accounts by path, those inside control flow included."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, Booked):
                found[node.account.path] = node.account.kind
            elif isinstance(node, Body):
                if node.carry is not None:
                    found[node.carry.path] = node.carry.kind
                for body in node.bodies:
                    found.update(body.accounts())
        return found
