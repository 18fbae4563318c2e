"""Elementwise affine maps that no linear layer absorbs."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network import primitives as P
from jaxlrp.network.affine import Absorbed, LinearForm
from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.detect.linear import NOT_AFFINE, affine_constant, only_user
from jaxlrp.network.graph import Op, Value


def scales(structure: Structure, taken: Taken) -> Iterator[Group]:
    for op, sources in structure.open_ops(taken):
        if op.primitive not in P.ADD | {P.SUB, P.MUL, P.DIV} or len(sources) != 1:
            continue
        chain = _chain(structure, op, taken)
        ops = tuple(link.op for link in chain)
        if not any(o.primitive in P.ADD | {P.SUB} for o in ops):
            continue  # a factor alone: linear, and left to autodiff
        kind = "scale" if any(_is_learned_factor(structure, o) for o in ops) else "shift"
        normalized = _follows_normalizer(structure, sources[0])
        form = LinearForm(None, 0, None, (), chain, after_normalizer=normalized)
        yield Group(kind, ops, sources, ops[-1].outputs[0], kind, form)


def _chain(structure: Structure, first: Op, taken: Taken) -> tuple[Absorbed, ...]:
    """A chain of affine elementwise operations from its first one on, which may broadcast."""
    (source,) = [v for v in first.inputs if v in structure.dependent]
    shape = structure.graph.shape(first.outputs[0])
    chain: list[Absorbed] = []
    value, op = source, first
    while op is not None and op not in taken:
        constant = affine_constant(structure, op, value)
        if constant is NOT_AFFINE or structure.graph.shape(op.outputs[0]) != shape:
            break
        chain.append(Absorbed(op, constant, shape, shape))
        value = op.outputs[0]
        op = only_user(structure.graph, value)
    return tuple(chain)


def _is_learned_factor(structure: Structure, op: Op) -> bool:
    """Whether an operation scales by more than a number written in the program.

    The 8 of `scores / 8 + mask` makes no BatchNorm.
    """
    constants = (v for v in op.inputs if v not in structure.dependent)
    return op.primitive in (P.MUL, P.DIV) and any(v in structure.given for v in constants)


def _follows_normalizer(structure: Structure, value: Value) -> bool:
    op = structure.graph.producer.get(value)
    while op is not None and op.primitive in P.SHAPE | {P.MUL, P.DIV}:
        if any((op, i) in structure.cuts for i in (0, 1)):
            return True
        sources = structure.sources(op)
        if len(sources) != 1:
            return False
        op = structure.graph.producer.get(sources[0])
    return False
