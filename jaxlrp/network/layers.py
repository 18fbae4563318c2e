"""What a layer is."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax.numpy as jnp

from jaxlrp.network import primitives as P
from jaxlrp.network.affine import LinearForm
from jaxlrp.network.dependence import Trail, carrying
from jaxlrp.network.graph import Env, Op, Step, Value, evaluate

LINEAR_KINDS = frozenset({"dense", "conv", "scale", "shift"})
PARAMETERIZED_KINDS = frozenset({"dense", "conv"})


@dataclasses.dataclass(frozen=True)
class Activation:
    """Detail of an activation or a quantizer.

    Attributes:
      relu: whether it is `max(x, 0)`, perhaps clipped from above.
    """

    relu: bool = False


@dataclasses.dataclass(frozen=True)
class Product:
    """Detail of a product.

    Attributes:
      signal: which input is the signal: the values of an attention, the factor that a gate weighs.
    """

    signal: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """Detail of an embedding.

    Attributes:
      trail: how its index is computed from its inputs.
    """

    trail: Trail


@dataclasses.dataclass(frozen=True, eq=False)
class Normalizer:
    """Detail of a normalizer.

    Attributes:
      local: what a local response normalization is made of; None for other normalizers.
    """

    local: LocalForm | None = None


Detail = LinearForm | Activation | Product | Embedding | Normalizer | None
D = TypeVar("D", LinearForm, Activation, Product, Embedding, Normalizer)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a traced function: where it is, how it is wired, and the detail of its kind.

    Attributes:
      kind: one of `jaxlrp.KINDS`.
      path: module path, unique in the function: "Block_0/Conv_0", with ":1" for a second call.
      name: what it computes: "conv_general_dilated", "relu".
      module: name of the type of the Flax module it was called in, or "".
      source: the user's `file:line (function)`, or "".
      inputs: the values that relevance flows to.
      output: the value that it comes from.
      operands: everything else it reads.
      steps: what computes it: operations, or whole calls.
      ops: the operations, one by one.
      input_avals, output_aval: shape and dtype of the inputs and of the output.
      depth: how many dense layers and convolutions lie between it and the input, on the longest path; in a
        scan, in the last step.
      height: the same between it and the output; in a scan, in the first step.
      loops: how many scans there are around it.
      repeats: how often it runs in those of these scans that read a part of the explained input in
        each step.
      nonnegative: whether its input is known to be >= 0.
      rectified: whether its output is read by a ReLU alone, so that no relevance arrives where z < 0.
      detail: what only its kind has, see `Detail`.
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
    ops: tuple[Op, ...]
    input_avals: tuple[Any, ...]
    output_aval: Any
    depth: int = 0
    height: int = 0
    loops: int = 0
    repeats: int = 1
    nonnegative: bool = False
    rectified: bool = False
    detail: Detail = None

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(aval.shape) for aval in self.input_avals)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(self.output_aval.shape)

    @property
    def absorbed(self) -> tuple[str, ...]:
        """Names of the operations folded into it, besides its first."""
        return tuple(str(op.primitive) for op in self.ops[1:])

    @property
    def first(self) -> bool:
        """Whether there is no other dense layer or convolution between it and the input."""
        return self.depth == 0

    @property
    def last(self) -> bool:
        """Whether there is no other dense layer or convolution between it and the output."""
        return self.height == 0

    @property
    def relu(self) -> bool:
        """Whether it is a ReLU, perhaps clipped from above."""
        return isinstance(self.detail, Activation) and self.detail.relu

    @property
    def form(self) -> LinearForm | None:
        """The linear form of a linear layer; None for other layers."""
        return self.detail if isinstance(self.detail, LinearForm) else None

    @property
    def is_cheap(self) -> bool:
        """Whether it is cheap to compute again."""
        return all(op.primitive in P.CHEAP for op in self.ops)

    @property
    def is_discrete(self) -> bool:
        """Whether it takes or gives integers or truth values."""
        avals = (*self.input_avals, self.output_aval)
        return not all(jnp.issubdtype(aval.dtype, jnp.inexact) for aval in avals)

    @property
    def values(self) -> frozenset[Value]:
        """What its operations read as values, rather than as indices and predicates."""
        return frozenset(op.inputs[i] for op in self.ops for i in carrying(op))

    def __repr__(self) -> str:
        return f"Layer({self.kind} {self.path!r}: {self.input_shapes} -> {self.output_shape})"

    def detail_as(self, of: type[D]) -> D:
        """The detail, which must be of this class.

        Raises:
          TypeError: if it has none.
        """
        if not isinstance(self.detail, of):
            raise TypeError(f"{self!r} has no detail of type {of.__name__}, but {self.detail!r}")
        return self.detail

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
