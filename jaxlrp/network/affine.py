"""Linear layers with everything affine that follows them folded in.

A convolution, a bias, a BatchNorm and the reshapes between them are one affine map of the input.
`absorb` finds how far that map reaches; the result computes the folded weight and bias. The folded
weight serves the rules alone; the forward pass replays the user's own operations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.dependence import varying_dims
from jaxlrp.network.graph import Env, Graph, Op, Value
from jaxlrp.network.matmul import bilinear
from jaxlrp.numerics import wide

# One dimension of an array: the sizes of the output features in it, in order, or None where the
# dimension holds anything else (batch, space).
Dim = tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Absorbed:
    """An operation behind the anchor: a change of shape, or an affine map by a constant.

    Attributes:
      op: the operation.
      constant: its constant operand; None for a change of shape and for `neg`.
      before, after: the shapes around it with 1 wherever a dimension holds no output feature.
    """

    op: Op
    constant: Value | None
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def reshapes(self) -> bool:
        return self.constant is None and self.op.primitive not in P.SAME | {P.NEG}


@dataclasses.dataclass(frozen=True, eq=False)
class LinearForm:
    """`z = op(x, weight) + bias`, bilinear in x and weight.

    Attributes:
      anchor: the `dot_general` or convolution; None for an elementwise scale.
      side: which operand of the anchor is the input, 0 or 1.
      kernel: the other operand.
      kernel_dims: for each dimension of the anchor's output, the kernel's dimension that it is, or
        None.
      extras: what the anchor reads beside: the sizes of the groups of a grouped product.
      chain: what was absorbed, in order; a sum over devices comes before all that is affine.
    """

    anchor: Op | None
    side: int
    kernel: Value | None
    kernel_dims: tuple[int | None, ...]
    chain: tuple[Absorbed, ...]
    extras: tuple[Value, ...] = ()

    def op(self, x: Array, weight: Array, extras: tuple[Array, ...] = ()) -> Array:
        """The bilinear map alone: no scale, no bias; at least in float32."""
        if self.anchor is None:
            return x * weight
        z = bilinear(self.anchor, self.side, x, weight, extras)
        for link in self.chain:
            if link.reshapes:
                (z,) = _compat.bind_freely(link.op.eqn, [z])
        return z

    def fold(self, env: Env) -> tuple[Array, Array]:
        """The folded weight and bias: (kernel's shape, broadcastable to z)."""
        weight, bias = _compat.freely(self._fold, {v: env[v] for v in self.constants})
        z = (self.chain[-1].op if self.chain else cast(Op, self.anchor)).eqn.outvars[0].aval
        if self.kernel is None:
            weight = _compat.laid_along(weight, z)
        else:
            weight = _compat.placed_as(weight, env[self.kernel])
        return weight, _compat.laid_along(bias, z)

    def _fold(self, env: Env) -> tuple[Array, Array]:
        dtype = wide(*(jnp.result_type(env[v]) for v in self.constants))
        bias, scale = jnp.zeros((), dtype), None
        undo: list[Callable[[Array], Array]] = []
        for link in self.chain:
            op = link.op
            if link.constant is None and op.primitive is not P.NEG:
                bias = _reshape_compact(op, link, bias)
                undo.append(_inverse(op, link))
                continue
            factor, bias = self._affine(link, bias, env)
            if factor is not None:
                for inverse in reversed(undo):
                    factor = inverse(factor)
                scale = factor if scale is None else scale * factor
        if self.anchor is None:
            return (jnp.ones((), dtype) if scale is None else scale), bias
        weight = jnp.asarray(env[cast(Value, self.kernel)], dtype)
        if scale is not None:
            weight = weight * self._on_kernel(scale, jnp.ndim(weight))
        return weight, bias

    @property
    def batch_axis(self) -> int | None:
        """The axis of x whose size `op` is free of, where there is one: examples of a convolution."""
        reshapes = any(link.reshapes for link in self.chain)
        if self.anchor is None or self.anchor.primitive is not P.CONV or self.side or reshapes:
            return None
        if self.anchor.params["batch_group_count"] != 1:
            return None
        return self.anchor.params["dimension_numbers"].lhs_spec[0]

    @property
    def constants(self) -> tuple[Value, ...]:
        """The values that the folded weight and bias are computed from."""
        found = [link.constant for link in self.chain if link.constant is not None]
        return tuple(found) if self.kernel is None else (self.kernel, *found)

    def _affine(self, link: Absorbed, bias: Array, env: Env) -> tuple[Array | None, Array]:
        """The factor by which an affine operation scales, and the bias after it."""
        primitive = link.op.primitive
        if primitive is P.NEG:
            return jnp.asarray(-1.0, bias.dtype), -bias
        constant = _compact(jnp.asarray(env[cast(Value, link.constant)], bias.dtype), link.before)
        constant_first = link.op.inputs[0] == link.constant
        if primitive in P.ADD:
            return None, bias + constant
        if primitive is P.SUB:
            if constant_first:
                return jnp.asarray(-1.0, bias.dtype), constant - bias
            return None, bias - constant
        factor = 1 / constant if primitive is P.DIV else constant
        return factor, bias * factor

    def _on_kernel(self, scale: Array, ndim: int) -> Array:
        """Lays a scale of the anchor's output out along the kernel's dimensions."""
        if scale.ndim == 0:
            return scale
        order = sorted((k, d) for d, k in enumerate(self.kernel_dims) if k is not None)
        scale = scale.transpose([d for _, d in order] + self._other_dims())
        shape = [1] * ndim
        for (k, _), size in zip(order, scale.shape, strict=False):
            shape[k] = size
        return scale.reshape(shape)

    def _other_dims(self) -> list[int]:
        return [d for d, k in enumerate(self.kernel_dims) if k is None]


def _compact(constant: Array, shape: tuple[int, ...]) -> Array:
    """The part of a constant that varies: index 0 wherever `shape` is 1."""
    if constant.ndim == 0:
        return constant
    return constant[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]


def _reshape_compact(op: Op, link: Absorbed, value: Array) -> Array:
    if value.ndim == 0 or op.primitive in P.SAME:
        return value
    value = jnp.broadcast_to(value, link.before)
    if op.primitive is P.TRANSPOSE:
        return value.transpose(op.params["permutation"])
    return value.reshape(link.after)  # a sum over devices changes no shape


def _inverse(op: Op, link: Absorbed) -> Callable[[Array], Array]:
    def inverse(value: Array) -> Array:
        if value.ndim == 0 or op.primitive in P.SAME:
            return value
        value = jnp.broadcast_to(value, link.after)
        if op.primitive is P.TRANSPOSE:
            permutation = op.params["permutation"]
            return value.transpose([permutation.index(d) for d in range(len(permutation))])
        return value.reshape(link.before)

    return inverse


def absorb(structure: Structure, anchor: Op, closed_to: frozenset[Op]) -> LinearForm:
    """Follows the affine operations behind a `dot_general` or convolution.

    Args:
      structure: the analyzed graph.
      anchor: the operation, exactly one of whose operands depends on the input.
      closed_to: operations that belong to something else.
    """
    side = 0 if anchor.inputs[0] in structure.dependent else 1
    kernel_dims = _kernel_dims(structure.graph, anchor, side)
    shape = structure.graph.shape(anchor.outputs[0])
    dims: list[Dim] = [None if k is None else (n,) for k, n in zip(kernel_dims, shape, strict=True)]
    chain = _follow(structure, anchor.outputs[0], dims, closed_to)
    return LinearForm(anchor, side, anchor.inputs[1 - side], kernel_dims, chain, anchor.inputs[2:])


def absorb_scale(structure: Structure, first: Op, closed_to: frozenset[Op]) -> LinearForm | None:
    """Follows a chain of affine elementwise operations from its first one on, which may broadcast."""
    (source,) = [v for v in first.inputs if v in structure.dependent]
    shape = structure.graph.shape(first.outputs[0])
    chain: list[Absorbed] = []
    value, op = source, first
    while op is not None and op not in closed_to:
        constant = _affine_constant(structure, op, value)
        if constant is _NOT_AFFINE or structure.graph.shape(op.outputs[0]) != shape:
            break
        chain.append(Absorbed(op, constant, shape, shape))
        value = op.outputs[0]
        op = _only_user(structure.graph, value)
    return LinearForm(None, 0, None, (), tuple(chain)) if chain else None


def _kernel_dims(graph: Graph, anchor: Op, side: int) -> tuple[int | None, ...]:
    if anchor.primitive is P.CONV:
        numbers = anchor.params["dimension_numbers"]
        if side == 1:  # the input is the kernel of the convolution: an odd but linear use
            features, source = numbers.out_spec[0], numbers.lhs_spec[0]
        else:
            features, source = numbers.out_spec[1], numbers.rhs_spec[0]
        ndim = len(graph.shape(anchor.outputs[0]))
        return tuple(source if d == features else None for d in range(ndim))
    if anchor.primitive is P.RAGGED_DOT:  # each group has features of its own
        return (None,) * len(graph.shape(anchor.outputs[0]))
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = anchor.params["dimension_numbers"]
    lhs_free = _free(graph, anchor.inputs[0], lhs_contract, lhs_batch)
    rhs_free = _free(graph, anchor.inputs[1], rhs_contract, rhs_batch)
    if side == 0:
        return (*rhs_batch, *(None for _ in lhs_free), *rhs_free)
    return (*lhs_batch, *lhs_free, *(None for _ in rhs_free))


def _free(graph: Graph, value: Value, *taken: tuple[int, ...]) -> list[int]:
    used = {d for group in taken for d in group}
    return [d for d in range(len(graph.shape(value))) if d not in used]


def _only_user(graph: Graph, value: Value) -> Op | None:
    users = graph.users.get(value, ())
    if len(users) != 1 or value in graph.outputs or users[0].inputs.count(value) != 1:
        return None
    return users[0]


_NOT_AFFINE = object()


def _affine_constant(structure: Structure, op: Op, value: Value) -> Any:
    """The constant of an affine operation on `value`, None for `neg`, or `_NOT_AFFINE`."""
    if op.primitive is P.NEG:
        return None
    if op.primitive not in P.ADD | {P.SUB, P.MUL, P.DIV}:
        return _NOT_AFFINE
    i = op.inputs.index(value)
    other = op.inputs[1 - i]
    if other in structure.dependent or (op.primitive is P.DIV and i == 1):
        return _NOT_AFFINE
    return other


def _follow(
    structure: Structure, value: Value, dims: list[Dim], closed_to: frozenset[Op]
) -> tuple[Absorbed, ...]:
    graph = structure.graph
    chain: list[Absorbed] = []
    while True:
        op = _only_user(graph, value)
        if op is None or op in closed_to or op.outputs[0] not in structure.flowing:
            break
        before = _sizes(dims)
        if op.primitive in P.SHAPE or _adds_axes(graph, op):
            changed = _reshaped(graph, op, dims)
            if changed is None:
                break
            dims, constant = changed, None
        elif op.primitive in P.PSUM | {P.REDUCE_SCATTER}:
            if not _sums_parts(graph, op, dims, chain):
                break
            constant = None
        else:
            constant = _affine_constant(structure, op, value)
            if constant is _NOT_AFFINE:
                break
            if graph.shape(op.outputs[0]) != graph.shape(value):
                break
            if constant is not None and not _fits(graph, constant, dims):
                break
        chain.append(Absorbed(op, constant, before, _sizes(dims)))
        value = op.outputs[0]
    while chain and chain[-1].constant is None and chain[-1].op.primitive not in _ENDS:
        chain.pop()  # a change of shape that leads to nothing affine stays outside
    return tuple(chain)


_ENDS = P.PSUM | {P.NEG, P.REDUCE_SCATTER}


def _sums_parts(graph: Graph, op: Op, dims: list[Dim], chain: list[Absorbed]) -> bool:
    """Whether a sum over devices completes a product whose contracted dimension lies on several.

    What is added or multiplied before the sum would have to be summed with it; it ends the layer.
    """
    if len(op.inputs) != 1 or any(link.constant is not None for link in chain):
        return False
    if any(link.op.primitive is P.NEG for link in chain):
        return False
    if op.primitive is P.REDUCE_SCATTER:
        # features that are dealt out among devices are no longer the kernel's
        return bool(op.params["tiled"]) and dims[op.params["scatter_dimension"]] is None
    return True


def _adds_axes(graph: Graph, op: Op) -> bool:
    """Whether a broadcast does no more than `z[:, None]`."""
    if op.primitive is not P.BROADCAST:
        return False
    dims = op.params["broadcast_dimensions"]
    same = math.prod(graph.shape(op.inputs[0])) == math.prod(graph.shape(op.outputs[0]))
    return same and list(dims) == sorted(dims)


def _sizes(dims: list[Dim]) -> tuple[int, ...]:
    return tuple(1 if d is None else math.prod(d) for d in dims)


def _fits(graph: Graph, constant: Value, dims: list[Dim]) -> bool:
    """Whether a constant varies along output features alone."""
    if not graph.shape(constant):
        return True
    return all(dims[d] is not None for d in varying_dims(graph, constant))


def _reshaped(graph: Graph, op: Op, dims: list[Dim]) -> list[Dim] | None:
    """The dimensions after a change of shape, or None where features and others would mix."""
    if op.primitive is P.CONVERT:
        return dims if jnp.issubdtype(op.params["new_dtype"], jnp.floating) else None
    if op.primitive in P.SAME:
        return dims
    if op.primitive is P.TRANSPOSE:
        return [dims[p] for p in op.params["permutation"]]
    old = graph.shape(op.inputs[0])
    if op.primitive is P.SQUEEZE:
        gone = {d % len(old) for d in op.params["dimensions"]}
        return [dim for d, dim in enumerate(dims) if d not in gone]
    if op.params.get("dimensions") is not None:
        return None
    return _match_reshape(old, graph.shape(op.outputs[0]), dims)


def _match_reshape(old: tuple[int, ...], new: tuple[int, ...], dims: list[Dim]) -> list[Dim] | None:
    """Splits a reshape into groups of dimensions of equal size, each of features or of others."""
    result: list[Dim] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while math.prod(old[a:i]) != math.prod(new[b:j]):
            if math.prod(old[a:i]) < math.prod(new[b:j]):
                i += 1
            else:
                j += 1
        group = [d for d, n in zip(dims[a:i], old[a:i], strict=True) if n != 1]
        if any(d is None for d in group) and any(d is not None for d in group):
            return None
        features = bool(group) and group[0] is not None
        result += [(n,) if features or n == 1 else None for n in new[b:j]]
    return result
