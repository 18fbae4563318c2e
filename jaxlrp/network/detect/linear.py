"""Dense layers and convolutions, with the affine operations after them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from jaxlrp.network import primitives as P
from jaxlrp.network.affine import Absorbed, LinearForm
from jaxlrp.network.analysis import Structure
from jaxlrp.network.dependence import varying_dims
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.graph import Graph, Op, Value

# One dimension of an array: the sizes of the output features in it, in order, or None where the
# dimension holds anything else (batch, space).
Dim = tuple[int, ...] | None


def linear(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op in structure.live_ops:
        if op.primitive not in P.LAYERS or len(structure.sources(op)) != 1:
            continue
        if not any(v in structure.given for v in op.inputs if v not in structure.dependent):
            continue  # a kernel written into the program, as `jax.image.resize` does
        form = _absorb(structure, op, frozenset(taken.units) | frozenset(taken))
        ops = (op, *(link.op for link in form.chain))
        kind = "conv" if op.primitive is P.CONV else "dense"
        output, name = ops[-1].outputs[0], str(op.primitive)
        yield Group(kind, ops, structure.sources(op), output, name, form)


def _absorb(structure: Structure, anchor: Op, closed_to: frozenset[Op]) -> LinearForm:
    """Follows the affine operations after a `dot_general` or convolution.

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


def only_user(graph: Graph, value: Value) -> Op | None:
    users = graph.users.get(value, ())
    if len(users) != 1 or value in graph.outputs or users[0].inputs.count(value) != 1:
        return None
    return users[0]


NOT_AFFINE = object()


def affine_constant(structure: Structure, op: Op, value: Value) -> Any:
    """The constant of an affine operation on `value`, None for `neg`, or `NOT_AFFINE`."""
    if op.primitive is P.NEG:
        return None
    if op.primitive not in P.ADD | {P.SUB, P.MUL, P.DIV}:
        return NOT_AFFINE
    i = op.inputs.index(value)
    other = op.inputs[1 - i]
    if other in structure.dependent or (op.primitive is P.DIV and i == 1):
        return NOT_AFFINE
    return other


def _follow(
    structure: Structure, value: Value, dims: list[Dim], closed_to: frozenset[Op]
) -> tuple[Absorbed, ...]:
    graph = structure.graph
    chain: list[Absorbed] = []
    while True:
        op = only_user(graph, value)
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
            constant = affine_constant(structure, op, value)
            if constant is NOT_AFFINE:
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


# A name belongs to the layer: by it, `jax.checkpoint` keeps what the rule divides by.
_ENDS = P.PSUM | {P.NEG, P.REDUCE_SCATTER, P.NAME}


def _sums_parts(graph: Graph, op: Op, dims: list[Dim], chain: list[Absorbed]) -> bool:
    """Whether a sum over devices completes a product whose contracted dimension is split over several.

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
